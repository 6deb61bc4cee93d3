"""The training loop: forward, backward, clip, step, record, evaluate, checkpoint."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import spiral as sp
from spiral.data import TokenDataset, TokenLoader
from spiral.errors import ConfigError, DataError, TrainingError
from spiral.models.files import set_weights, weight_arrays
from spiral.models.llama import Llama
from spiral.optim import AdamW, scale_grads
from spiral.train.callbacks import Callback
from spiral.train.checkpoint import Checkpoint, flatten, load_checkpoint, save_checkpoint, unflatten
from spiral.train.config import TrainConfig
from spiral.train.evaluate import Evaluation, evaluate
from spiral.train.metrics import MetricsFile
from spiral.train.schedule import warmup_cosine

CHECKPOINTS = "checkpoints"
"""The folder for them in a run's folder."""


@dataclass(frozen=True)
class StepRecord:
    """What one step did.

    Args:
        step: Steps taken so far, this one included.
        loss: Mean cross-entropy of its batches, in nats per token.
        lr: Its learning rate.
        grad_norm: Norm of the gradient before clipping.
        seconds: Wall time of the step.
        tokens: Tokens it saw.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    tokens: int


@dataclass(frozen=True)
class HeldOut:
    """Text that is only evaluated: its tokens, its length in bytes, the token put in front."""

    tokens: TokenDataset
    n_bytes: int
    bos_id: int | None = None


class Interrupted(Exception):
    """The user pressed Ctrl-C; a checkpoint was written. Not an error: the command exits with 130."""

    def __init__(self, step: int, path: Path) -> None:
        super().__init__(f"interrupted after step {step}; saved {path}")
        self.step = step
        self.path = path


class Trainer:
    """Trains a model on tokens.

    The same configuration, data and kernels give the same weights, whatever the number of threads
    and however often the run is stopped and resumed.

    Args:
        model: The model; trained in place.
        train: Training tokens.
        held_out: What evaluations are made on, if anything.
        config: Lengths, rates and where records go.
        fingerprint: What the data is, such as a hash; a checkpoint of other data is refused.
        callbacks: See `Callback`.

    Attributes:
        step: Steps taken so far.
        seconds: Time that they took.
        folder: Where metrics and checkpoints go: `config.run.out`.
        last_evaluation: The newest evaluation, if any.

    Raises:
        DataError: The text is shorter than one window of the context.

    Example:
        >>> import tempfile
        >>> config = TrainConfig().with_overrides([
        ...     f"run.out={tempfile.mkdtemp()}", "run.steps=3", "run.batch_size=2", "model.context_length=8",
        ...     "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=8", "model.ffn_dim=16",
        ... ])
        >>> tokens = TokenDataset([i % 7 for i in range(200)], vocab_size=7)
        >>> trainer = Trainer(Llama(config.model.llama(7)), tokens, None, config)
        >>> trainer.fit()
        >>> trainer.step, sorted(path.name for path in trainer.folder.iterdir())
        (3, ['checkpoints', 'metrics.jsonl'])
    """

    def __init__(
        self,
        model: Llama,
        train: TokenDataset,
        held_out: HeldOut | None,
        config: TrainConfig,
        *,
        fingerprint: str = "",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model = model
        self.config = config
        self.held_out = held_out
        self.fingerprint = fingerprint
        self.callbacks = list(callbacks)
        self.step = 0
        self.seconds = 0.0
        self.last_evaluation: Evaluation | None = None
        self.folder = Path(config.run.out)
        self.metrics = MetricsFile(self.folder / "metrics.jsonl")
        self.loader = TokenLoader(
            train, config.run.batch_size, config.model.context_length, config.run.seed, prefetch=0
        )
        self.parameters = [p for _, p in model.named_parameters()]
        self.optimizer = AdamW(
            decay_groups(model, config.optim.weight_decay),
            lr=config.optim.lr,
            betas=(config.optim.beta1, config.optim.beta2),
            eps=config.optim.eps,
        )

    # ------------------------------------------------------------ the loop
    def fit(self) -> None:
        """Train until the configured number of steps.

        Raises:
            TrainingError: Loss or gradient is not finite.
            Interrupted: Ctrl-C; a checkpoint was written before.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.metrics.keep_up_to(self.step)
        self._tell("on_start")
        with _ctrl_c_noticed() as pressed:
            while self.step < self.config.run.steps:
                record = self.train_step()
                self.metrics.add("step", record.__dict__)
                self._tell("on_step", record)
                run = self.config.run  # a callback may have changed it
                if _is_due(self.step, run.eval_every) or self.step == run.steps:
                    self.evaluate()
                stopping = pressed.is_set() and self.step < run.steps
                if _is_due(self.step, run.checkpoint_every) or self.step == run.steps or stopping:
                    path = self.save()
                if stopping:
                    raise Interrupted(self.step, path)
        self._tell("on_end")

    def train_step(self) -> StepRecord:
        """One optimizer step over `accumulate` batches.

        Raises:
            TrainingError: Loss or gradient is not finite; the weights are as before the step.
        """
        start = time.perf_counter()
        settings, accumulate = self.config.optim, self.config.run.accumulate
        lr = warmup_cosine(
            self.step,
            peak=settings.lr,
            total_steps=self.config.run.steps,
            warmup_steps=min(settings.warmup_steps, self.config.run.steps),
            final_ratio=settings.final_lr,
        )
        self.optimizer.zero_grad()
        total, tokens = 0.0, 0
        for _ in range(accumulate):
            x, y = next(self.loader)
            loss = self.model.loss(sp.asarray(x), sp.asarray(y))
            (loss if accumulate == 1 else loss * (1.0 / accumulate)).backward()
            total += loss.item() / accumulate
            tokens += y.size
        norm = self._clip(total, lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        seconds = time.perf_counter() - start
        self.seconds += seconds
        return StepRecord(self.step, total, lr, norm, seconds, tokens)

    def _clip(self, loss: float, lr: float) -> float:
        """The gradient's norm; scales the gradient when that is above the limit."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        with sp.no_grad():
            norm = float(sp.ops.grad_norm(gradients).item())
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"step {self.step + 1}: loss {loss:.4g} and gradient norm {norm:.4g} must be finite at learning "
                    f"rate {lr:.3g}; try a lower optim.lr, a longer optim.warmup_steps or optim.clip=1.0, and "
                    "resume from the last checkpoint, which is from before."
                )
            limit = self.config.optim.clip
            if limit and norm > limit:
                scale_grads(self.parameters, limit / norm)
        return norm

    def evaluate(self) -> None:
        """Evaluate on the held-out text, if there is any, and record it."""
        if self.held_out is None:
            return
        found = evaluate(
            self.model,
            self.held_out.tokens,
            self.held_out.n_bytes,
            batch_size=self.config.run.batch_size,
            bos_id=self.held_out.bos_id,
        )
        self.last_evaluation = found
        self.metrics.add("evaluation", {"step": self.step, "loss": found.loss, "bits_per_byte": found.bits_per_byte})
        self._tell("on_evaluation", found)

    def _tell(self, event: str, *details: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *details)

    # ------------------------------------------------------------ checkpoints
    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.folder / CHECKPOINTS

    def save(self) -> Path:
        """Write a checkpoint; gives its folder.

        Raises:
            SaveError: It cannot be written.
        """
        arrays, rest = flatten(self.optimizer.state_dict())
        state = {
            "optimizer": rest,
            "loader": self.loader.state_dict(),
            "random": sp.random.get_state(),
            "seconds": self.seconds,
            "fingerprint": self.fingerprint,
            "config": self.config.to_dict(),
        }
        path = save_checkpoint(
            self.checkpoints,
            Checkpoint(self.step, weight_arrays(self.model), arrays, state),
            keep=self.config.run.keep,
        )
        self._tell("on_checkpoint", path)
        return path

    def resume(self, path: str | Path | None = None) -> None:
        """Go on from a checkpoint, by default the run's newest.

        Raises:
            DataError: There is none, or it was made with other data.
            ConfigError: It was made with another model, optimizer or batch.
            FormatError: It is damaged.
        """
        saved = load_checkpoint(self.checkpoints if path is None else path)
        if saved.state["fingerprint"] != self.fingerprint:
            raise DataError(
                f"resume: {self.folder}: the checkpoint was trained on other data than is here now "
                f"({saved.state['fingerprint'][:12]}, now {self.fingerprint[:12]}); bring the text back or start "
                "a new run."
            )
        self._require_same(saved.state["config"])
        set_weights(self.model, saved.weights, "checkpoint")
        self.optimizer.load_state_dict(unflatten(saved.state["optimizer"], saved.optimizer))
        self.loader.load_state_dict(saved.state["loader"])
        sp.random.set_state(saved.state["random"])
        self.step, self.seconds = saved.step, saved.state["seconds"]

    def _require_same(self, saved: dict[str, Any]) -> None:
        """Refuse to resume under settings that would make the run another one."""
        now = self.config.to_dict()
        keys = [("model", key) for key in now["model"]] + [("data", key) for key in now["data"]]
        keys += [("run", "seed"), ("run", "batch_size"), ("run", "accumulate")]
        keys += [("optim", key) for key in ("beta1", "beta2", "eps", "weight_decay")]
        changed = [
            f"{section}.{key}={now[section][key]!r} (was {saved[section][key]!r})"
            for section, key in keys
            if saved[section][key] != now[section][key]
        ]
        if changed:
            raise ConfigError(f"resume: {', '.join(changed)}: these cannot change within a run; start a new one.")


def decay_groups(model: Llama, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay, vectors (norms) do not."""
    parameters = [p for _, p in model.named_parameters()]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextmanager
def _ctrl_c_noticed() -> Iterator[threading.Event]:
    """Ctrl-C sets an event, so that a step is finished; a second one interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield pressed
        return

    def notice(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
