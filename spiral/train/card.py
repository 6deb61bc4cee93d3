"""The model card: what a trained model is, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping

from spiral.models.llama import Llama
from spiral.optim.catalog import OPTIMIZERS
from spiral.train.checkpoint import versions
from spiral.train.config import TrainConfig


def model_card(
    name: str,
    model: Llama,
    config: TrainConfig,
    *,
    data: str,
    results: Mapping[str, float],
    sample: str = "",
    steps_per_second: float | None = None,
) -> str:
    """A card with shape, data, results and how to repeat them.

    Args:
        name: The model's name.
        model: The model.
        config: How it was trained.
        data: One sentence about the text.
        results: Name and bits per byte on the held-out text, of the model and of baselines.
        sample: Text that it wrote.
        steps_per_second: Speed of its training.
    """
    shape = model.config
    rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in results.items())
    speed = "" if steps_per_second is None else f" at {steps_per_second:.2f} steps/s"
    tokens = config.run.steps * config.run.batch_size * config.run.accumulate * config.model.context_length
    parts = [
        f"# {name}",
        f"A Llama-style language model with {model.num_parameters():,} parameters: {shape.n_layer} layers of width "
        f"{shape.dim}, {shape.n_head} heads ({shape.n_kv_head} for keys and values), feed-forward width "
        f"{shape.ffn_dim}, context {shape.context_length}, vocabulary {shape.vocab_size:,}"
        f"{', tied embedding' if shape.tied else ''}.",
        f"## Data\n\n{data}",
        f"## Training\n\n{config.run.steps:,} steps of {_optimizer(config.optim.name)}, {tokens:,} tokens{speed}.",
        f"## Results on the held-out text\n\n| | bits per byte |\n|---|---|\n{rows}",
        "## Limits\n\nTrained on little text: it imitates the text's form and does not know facts. "
        "The held-out text comes from the same source as the training text.",
    ]
    if sample:
        quoted = "\n".join("    " + line for line in sample.splitlines())
        parts.append(f"## Sample\n\n{quoted}")
    parts.append(
        "## Repeat\n\n```json\n" + json.dumps({"config": config.to_dict(), "versions": versions()}, indent=1) + "\n```"
    )
    return "\n\n".join(parts) + "\n"


def _optimizer(name: str) -> str:
    """What people call it: its class, where it is one."""
    made_by = OPTIMIZERS.get(name)
    return made_by.__name__ if isinstance(made_by, type) else name
