"""A whole training run from a configuration: text, tokenizer, model, trainer, and the files at the end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spiral as sp
from spiral import named
from spiral.data import TokenDataset
from spiral.errors import ConfigError, DataError, FormatError, MissingDependencyError, received
from spiral.models.files import TOKENIZER, save_llama
from spiral.models.llama import Llama, LlamaConfig
from spiral.text import Tokenizer, demo_corpus, load_text, split
from spiral.text.sources import DATASETS
from spiral.train.callback_catalog import CALLBACKS
from spiral.train.callbacks import Callback
from spiral.train.card import model_card
from spiral.train.checkpoint import list_checkpoints
from spiral.train.config import DataConfig, TrainConfig
from spiral.train.lock import run_lock
from spiral.train.metrics import draw_loss
from spiral.train.optimizers import optimizer_arguments
from spiral.train.trainer import CHECKPOINTS, HeldOut, Trainer

RUN_CONFIG = "train.json"


@dataclass(frozen=True)
class Prepared:
    """A trainer that is ready to start, with what it was made from."""

    trainer: Trainer
    tokenizer: Tokenizer
    train_text: str
    held_out_text: str


def prepare(
    config: TrainConfig, *, resume: bool = False, overwrite: bool = False, callbacks: Sequence[Callback] = ()
) -> Prepared:
    """Read the text, learn or load the tokenizer, make the model and its trainer.

    Args:
        config: The run.
        resume: Go on from the newest checkpoint of the run's folder.
        overwrite: Whether a new run may remove the checkpoints of another one in its folder.
        callbacks: See `Callback`.

    Raises:
        DataError: The text cannot be used, or there is no checkpoint to resume.
        ConfigError: The model's shape does not work, or another run's checkpoints are in the folder.
    """
    with run_lock(config.run.out):
        return _prepare(config, resume, overwrite, callbacks)


def _prepare(config: TrainConfig, resume: bool, overwrite: bool, callbacks: Sequence[Callback]) -> Prepared:
    from spiral.io import atomic_write

    folder = Path(config.run.out)
    if resume and not (folder / TOKENIZER).exists():
        raise DataError(f"resume: {folder}: there is no run to resume (no {TOKENIZER}); start without --resume.")
    if not resume:
        _require_empty(folder, overwrite)
    require_names(config)
    text = source_text(config.data)
    train_text, held_out_text = split(text, config.data.held_out)
    tokenizer = Tokenizer.load(folder) if resume else Tokenizer.train(train_text, config.data.vocab_size)
    shape = config.model.llama(tokenizer.vocab_size)
    require_memory(shape, config)
    sp.random.manual_seed(config.run.seed)
    model = Llama(shape)
    held_out = HeldOut(
        TokenDataset(tokenizer.encode(held_out_text), tokenizer.vocab_size),
        len(held_out_text.encode("utf-8")),
        tokenizer.end_of_text,
    )
    trainer = Trainer(
        model,
        TokenDataset(tokenizer.encode(train_text), tokenizer.vocab_size),
        held_out,
        config,
        fingerprint=hashlib.sha256((text + tokenizer.to_json()).encode("utf-8")).hexdigest(),
        callbacks=callbacks,
    )
    if resume:
        trainer.resume()
    else:  # the other run's files go only once this one can start
        for path in list_checkpoints(folder / CHECKPOINTS):
            shutil.rmtree(path)
        tokenizer.save(folder)
        with atomic_write(folder / RUN_CONFIG) as partial:
            partial.write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
    return Prepared(trainer, tokenizer, train_text, held_out_text)


def require_names(config: TrainConfig) -> None:
    """Check what the configuration names and its options, before anything is read or computed.

    Raises:
        ConfigError: A name is unknown, or its options do not fit.
    """
    optimizer_arguments(config.optim)
    for name, options in map(named.parts, config.run.callbacks):
        named.parsed(CALLBACKS, f"run.callbacks.{name}", name, options)
    if _names_source(config.data):
        named.find(DATASETS, "data.source", config.data.source)
        named.parsed(DATASETS, "data.options", config.data.source, config.data.options)


def _names_source(data: DataConfig) -> bool:
    return data.source != "files" or bool(data.options)


def source_text(data: DataConfig) -> str:
    """The text of a run: of `path`, of the named source, or the demo corpus.

    Raises:
        ConfigError: There is no such source, or it does not take these options.
        DataError: The text cannot be used.
    """
    if not _names_source(data):
        return demo_corpus() if data.path is None else load_text(data.path)
    read = named.find(DATASETS, "data.source", data.source)
    text = read(**named.parsed(DATASETS, "data.options", data.source, data.options))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"data.source: {data.source!r}: expected it to give a text; received {received(text)}.")
    return text


def _described(data: DataConfig) -> str:
    """Where the text came from, for the card."""
    if _names_source(data):
        return f"The source {data.source}" + (f" with {json.dumps(data.options)}" if data.options else "")
    return "The language reference of Python (pydoc_data.topics)" if data.path is None else data.path


def _require_empty(folder: Path, overwrite: bool) -> None:
    """A new run must not find another's checkpoints: resuming would take whichever is further."""
    found = list_checkpoints(folder / CHECKPOINTS)
    if found and not overwrite:
        raise ConfigError(
            f"run.out: {folder} holds the checkpoints of another run (up to {found[-1].name}); resume it (--resume "
            f"{folder}), allow to overwrite it (--overwrite), or choose another run.out."
        )


def require_memory(shape: LlamaConfig, config: TrainConfig) -> None:
    """Refuse a model that cannot be trained in this machine's memory, before the system kills the process.

    Raises:
        ConfigError: Weights, gradients, AdamW's state and one batch's activations need more than there is.
    """
    weights = 4 * 4 * shape.num_parameters()
    tokens = config.run.batch_size * shape.context_length
    # what backward needs at least: the residual stream and feed-forward layer of each block, and the logits
    activations = 4 * tokens * (shape.n_layer * (4 * shape.dim + 2 * shape.ffn_dim) + 2 * shape.vocab_size)
    there = physical_memory()
    if there is not None and weights + activations > there:
        raise ConfigError(
            f"model and batch need at least {(weights + activations) / 2**30:,.1f} GiB of memory "
            f"({weights / 2**30:,.1f} for weights, gradients and optimizer, {activations / 2**30:,.1f} for a batch of "
            f"{config.run.batch_size} x {shape.context_length}); this machine has {there / 2**30:,.1f}; lower "
            "model.dim, model.n_layer, model.context_length or run.batch_size."
        )


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def run_training(prepared: Prepared, *, name: str, references: dict[str, float] | None = None) -> dict[str, Any]:
    """Train to the end and write weights, curve and card into the run's folder.

    Args:
        prepared: From `prepare`.
        name: The model's name.
        references: Bits per byte of baselines on the held-out text, for curve and card.

    Returns:
        ``bits_per_byte``, ``steps_per_second``, ``seconds`` of training, ``sample``, and ``notes``: what was left
        out or ended early, and why.

    Raises:
        TrainingError: Loss or gradient is not finite.
        Interrupted: Ctrl-C or another signal to stop; a checkpoint was written before.
        SaveError: A file cannot be written.
    """
    with run_lock(prepared.trainer.folder):
        return _run_training(prepared, name, references)


def _run_training(prepared: Prepared, name: str, references: dict[str, float] | None) -> dict[str, Any]:
    from spiral.io import atomic_write

    trainer, references = prepared.trainer, references or {}
    trainer.fit()
    folder, config = trainer.folder, trainer.config
    if trainer.last_evaluation is None:  # resumed at its end
        trainer.evaluate()
    assert trainer.last_evaluation is not None
    bits = trainer.last_evaluation.bits_per_byte
    if trainer.finish() is not None and trainer.held_out is not None:  # other weights than the last ones
        bits = trainer.measure(trainer.held_out).bits_per_byte
    notes = [] if trainer.stopped is None else [f"stopped after step {trainer.step}: {trainer.stopped}"]
    save_llama(folder, trainer.model, prepared.tokenizer)
    speed = trainer.step / trainer.seconds if trainer.seconds else 0.0
    trainer.model.eval()
    prompt = prepared.tokenizer.encode(prepared.held_out_text[:60])
    drawn = trainer.model.generate(prompt, 80, temperature=0.8, top_k=50, seed=0)
    sample = prepared.tokenizer.decode([*prompt.tolist(), *drawn])
    try:
        draw_loss(trainer.metrics, folder / "loss.png", title=name, references=references)
    except MissingDependencyError as error:
        notes.append(str(error))
    card = model_card(
        name,
        trainer.model,
        config,
        data=f"{_described(config.data)}: {len(prepared.train_text):,} characters to train on, "
        f"{len(prepared.held_out_text):,} held out.",
        results={"this model": bits, **references},
        sample=sample,
        steps_per_second=speed,
    )
    with atomic_write(folder / "card.md") as partial:
        partial.write_text(card, encoding="utf-8")
    return {
        "bits_per_byte": bits,
        "steps_per_second": speed,
        "seconds": trainer.seconds,
        "sample": sample,
        "notes": notes,
    }


def saved_config(folder: str | Path) -> TrainConfig:
    """The configuration that a run was started with.

    Raises:
        DataError: The folder holds no run.
        FormatError: Its record is damaged.
    """
    path = Path(folder) / RUN_CONFIG
    if not path.is_file():
        raise DataError(f"{folder}: there is no run here (no {RUN_CONFIG}).")
    try:
        return TrainConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read: {str(error).rstrip('.')}.") from error
