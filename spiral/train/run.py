"""A whole training run from a configuration: text, tokenizer, model, trainer, and the files at the end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spiral as sp
from spiral.data import TokenDataset
from spiral.errors import ConfigError, DataError, FormatError
from spiral.models.files import TOKENIZER, save_llama
from spiral.models.llama import Llama
from spiral.text import Tokenizer, demo_corpus, load_text, split
from spiral.train.callbacks import Callback
from spiral.train.card import model_card
from spiral.train.checkpoint import list_checkpoints
from spiral.train.config import TrainConfig
from spiral.train.metrics import draw_loss
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
    folder = Path(config.run.out)
    if not resume:
        _clear_checkpoints(folder, overwrite)
    text = demo_corpus() if config.data.path is None else load_text(config.data.path)
    train_text, held_out_text = split(text, config.data.held_out)
    if resume and not (folder / TOKENIZER).exists():
        raise DataError(f"resume: {folder}: there is no run to resume (no {TOKENIZER}); start without --resume.")
    tokenizer = Tokenizer.load(folder) if resume else Tokenizer.train(train_text, config.data.vocab_size)
    sp.random.manual_seed(config.run.seed)
    model = Llama(config.model.llama(tokenizer.vocab_size))
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
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder)
        (folder / RUN_CONFIG).write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
    return Prepared(trainer, tokenizer, train_text, held_out_text)


def _clear_checkpoints(folder: Path, overwrite: bool) -> None:
    """A new run must not find another's checkpoints: resuming would take whichever is further."""
    found = list_checkpoints(folder / CHECKPOINTS)
    if found and not overwrite:
        raise ConfigError(
            f"run.out: {folder} holds the checkpoints of another run (up to {found[-1].name}); resume it, "
            "allow to overwrite it, or choose another run.out."
        )
    for path in found:
        shutil.rmtree(path)


def run_training(prepared: Prepared, *, name: str, references: dict[str, float] | None = None) -> dict[str, Any]:
    """Train to the end and write weights, curve and card into the run's folder.

    Args:
        prepared: From `prepare`.
        name: The model's name.
        references: Bits per byte of baselines on the held-out text, for curve and card.

    Returns:
        ``bits_per_byte``, ``steps_per_second``, ``seconds`` of training, and ``sample``.

    Raises:
        TrainingError: Loss or gradient is not finite.
        Interrupted: Ctrl-C; a checkpoint was written before.
    """
    trainer, references = prepared.trainer, references or {}
    trainer.fit()
    folder, config = trainer.folder, trainer.config
    if trainer.last_evaluation is None:  # resumed at its end
        trainer.evaluate()
    assert trainer.last_evaluation is not None
    bits = trainer.last_evaluation.bits_per_byte
    save_llama(folder, trainer.model, prepared.tokenizer)
    speed = trainer.step / trainer.seconds if trainer.seconds else 0.0
    trainer.model.eval()
    prompt = prepared.tokenizer.encode(prepared.held_out_text[:60])
    drawn = trainer.model.generate(prompt, 80, temperature=0.8, top_k=50, seed=0)
    sample = prepared.tokenizer.decode([*prompt.tolist(), *drawn])
    draw_loss(trainer.metrics, folder / "loss.png", title=name, references=references)
    source = "The language reference of Python (pydoc_data.topics)" if config.data.path is None else config.data.path
    card = model_card(
        name,
        trainer.model,
        config,
        data=f"{source}: {len(prepared.train_text):,} characters to train on, "
        f"{len(prepared.held_out_text):,} held out.",
        results={"this model": bits, **references},
        sample=sample,
        steps_per_second=speed,
    )
    (folder / "card.md").write_text(card, encoding="utf-8")
    return {"bits_per_byte": bits, "steps_per_second": speed, "seconds": trainer.seconds, "sample": sample}


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
    except ValueError as error:
        raise FormatError(f"{path}: cannot be read: {error}.") from error
