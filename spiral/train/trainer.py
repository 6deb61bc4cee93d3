"""The training loop: forward, backward, clip, step, record, evaluate, checkpoint."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import spiral as sp
from spiral import named
from spiral.data import DeviceLoader, TokenDataset, TokenLoader
from spiral.device import as_device, cpu
from spiral.errors import ConfigError, DataError, FormatError, TrainingError
from spiral.models.files import set_weights, weight_arrays
from spiral.models.llama import Llama
from spiral.optim import EMA, scale_grads
from spiral.tensor import Tensor
from spiral.train.callback_catalog import EARLY_STOPPING, early_stopping, made_callback
from spiral.train.callbacks import Callback
from spiral.train.checkpoint import Checkpoint, flatten, load_checkpoint, save_checkpoint, unflatten, versions
from spiral.train.config import RunConfig, TrainConfig
from spiral.train.evaluate import Evaluation, evaluate
from spiral.train.lock import run_lock
from spiral.train.metrics import MetricsFile
from spiral.train.optimizers import configured_optimizer
from spiral.train.precision import MixedPrecision
from spiral.train.publishing import Publisher
from spiral.train.schedule import learning_rate
from spiral.train.signals import StopRequest, stop_requested

logger = logging.getLogger("spiral.train")

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
        skipped: Whether the weights stayed because a float16 gradient overflowed.
        peak_memory: The most bytes that tensors took within it; 0 where nobody counts.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    tokens: int
    skipped: bool = False
    peak_memory: int = 0


@dataclass(frozen=True)
class HeldOut:
    """Text that is only evaluated: its tokens, its length in bytes, the token put in front."""

    tokens: TokenDataset
    n_bytes: int
    bos_id: int | None = None


class Interrupted(Exception):
    """Ctrl-C, or another signal to stop; a checkpoint was written. The command exits with 128 + the signal."""

    def __init__(self, step: int, path: Path, number: int = signal.SIGINT) -> None:
        super().__init__(f"interrupted after step {step}; saved {path}")
        self.step = step
        self.path = path
        self.signal = number


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
        callbacks: See `Callback`; those of `config.run` come before them.

    Attributes:
        callbacks: All of them, in the order in which they are called.
        step: Steps taken so far.
        seconds: Time that they took.
        folder: Where metrics and checkpoints go: `config.run.out`.
        last_evaluation: The newest evaluation, if any.
        publisher: Tells the process's event bus of the run; see `spiral.plugin.events`.

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
        if train.vocab_size > model.config.vocab_size:
            raise DataError(
                f"Trainer: the tokens come from a vocabulary of {train.vocab_size}, the model has "
                f"{model.config.vocab_size}; does the tokenizer belong to this model?"
            )
        if config.model.context_length > model.config.context_length:
            raise ConfigError(
                f"Trainer: model.context_length is {config.model.context_length}, the model was made for "
                f"{model.config.context_length}."
            )
        self.model = model
        self.config = config
        self.held_out = held_out
        self.fingerprint = fingerprint
        self.callbacks = [*configured_callbacks(config.run), *callbacks]
        self.step = 0
        self.seconds = 0.0
        self.last_evaluation: Evaluation | None = None
        self.folder = Path(config.run.out)
        self.metrics = MetricsFile(self.folder / "metrics.jsonl")
        self.device = as_device(config.run.device)
        model.to(self.device)
        loader = TokenLoader(train, config.run.batch_size, config.model.context_length, config.run.seed, prefetch=0)
        self.loader: TokenLoader | DeviceLoader = loader if self.device is cpu else DeviceLoader(loader, self.device)
        self.parameters = [p for _, p in model.named_parameters()]
        names = [name for name, _ in model.named_parameters()]
        self.precision = MixedPrecision(model, config.run.precision)
        self.masters: dict[str, Tensor] = dict(zip(names, self.precision.masters, strict=True))
        self.optimizer = configured_optimizer(config.optim, self.masters)
        self.ema = EMA(self.masters.values(), config.optim.ema) if config.optim.ema else None
        if config.run.patience and (held_out is None or not config.run.eval_every):
            raise ConfigError(
                "run.patience counts evaluations: it needs held-out text and run.eval_every of at least 1; "
                f"received eval_every={config.run.eval_every}{'' if held_out else ' and no held-out text'}."
            )
        self.stopped: str | None = None
        self.publisher = Publisher()

    # ------------------------------------------------------------ the loop
    def fit(self) -> None:
        """Train until the configured number of steps, or until `stop` is called.

        Raises:
            TrainingError: Loss or gradient is not finite; the record says so, and the last checkpoint is intact.
            Interrupted: Ctrl-C or another signal to stop; a checkpoint was written before.
            DataError: Another process trains into the folder.
            SaveError: A checkpoint or the record cannot be written.
        """
        with run_lock(self.folder), ExitStack() as closing:
            self.metrics.keep_up_to(self.step)
            for callback in self.callbacks:
                closing.callback(callback.on_close, self)
            self._tell("on_start")
            self.publisher.training_started(self.config.run.steps)
            with stop_requested() as request:
                while self.step < self.config.run.steps and self.stopped is None:
                    self._advance(request)
            self._tell("on_end")
            self.publisher.training_ended(self.step)

    def stop(self, reason: str) -> None:
        """End the run after this step as if it were its last; for callbacks."""
        self.stopped = reason

    def _advance(self, request: StopRequest) -> None:
        """One step, and what is due after it."""
        self.publisher.step_begins(self.loader.epoch)
        try:
            record = self.train_step()
        except TrainingError as error:
            self.metrics.add("failure", {"step": self.step + 1, "message": str(error)})
            raise
        self.metrics.add("step", record.__dict__)
        self._tell("on_step", record)
        self.publisher.step_ended(record, self.loader.epoch)
        run = self.config.run  # a callback may have changed it
        if _is_due(self.step, run.eval_every) or self.step == run.steps:
            self.evaluate()
        ending = self.step == run.steps or self.stopped is not None
        interrupted = bool(request) and not ending
        if _is_due(self.step, run.checkpoint_every) or ending or interrupted:
            path = self.save()
            if interrupted:
                assert request.signal is not None
                raise Interrupted(self.step, path, request.signal)

    def train_step(self) -> StepRecord:
        """One optimizer step over `accumulate` batches.

        Raises:
            TrainingError: Loss or gradient is not finite; the weights are as before the step.
        """
        start = time.perf_counter()
        sp.reset_peak_memory(self.device)
        settings, accumulate = self.config.optim, self.config.run.accumulate
        lr = learning_rate(
            self.step,
            schedule=settings.schedule,
            peak=settings.lr,
            total_steps=self.config.run.steps,
            warmup_steps=min(settings.warmup_steps, self.config.run.steps),
            final_ratio=settings.final_lr,
            decay=settings.decay,
        )
        self.optimizer.zero_grad()
        tokens = 0
        losses: list[Tensor] = []
        for _ in range(accumulate):
            x, y = [sp.asarray(part) for part in next(self.loader)]
            loss = self.model.loss(x, y)
            self.precision.backward(loss, 1.0 / accumulate)
            losses.append(loss.detach())
            tokens += y.size
        # read when everything is enqueued: each reading waits for the device
        total = sum(loss.item() / accumulate for loss in losses)
        norm = self._clip(total, lr)
        taken = math.isfinite(norm)
        if taken:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update()
        self.precision.update(taken)
        self.step += 1
        seconds = time.perf_counter() - start
        self.seconds += seconds
        peak = sp.memory(self.device).get("peak", 0)
        return StepRecord(self.step, total, lr, norm, seconds, tokens, not taken, peak)

    def _clip(self, loss: float, lr: float) -> float:
        """The gradient's norm; scales the gradient when that is above the limit."""
        gradients = self.precision.unscale()
        with sp.no_grad():
            norm = float(sp.ops.grad_norm(gradients).item())
            if math.isfinite(loss) and not math.isfinite(norm) and self.precision.may_overflow:
                return norm
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"step {self.step + 1}: loss {loss:.4g} and gradient norm {norm:.4g} must be finite at learning "
                    f"rate {lr:.3g}; try a lower optim.lr, a longer optim.warmup_steps or optim.clip=1.0, and "
                    "resume from the last checkpoint, which is from before."
                )
            limit = self.config.optim.clip
            if limit and norm > limit:
                scale_grads(self.precision.masters, limit / norm)
        return norm

    def evaluate(self) -> None:
        """Evaluate on the held-out text, if there is any, what would be saved now, and record it."""
        if self.held_out is None:
            return
        with self._saved_weights():
            found = self.measure(self.held_out)
        self.last_evaluation = found
        self.metrics.add("evaluation", {"step": self.step, "loss": found.loss, "bits_per_byte": found.bits_per_byte})
        self._tell("on_evaluation", found)
        self.publisher.evaluated(self.step, found)

    def measure(self, held_out: HeldOut) -> Evaluation:
        """Evaluate the model as it is, without a record."""
        return evaluate(
            self.model,
            held_out.tokens,
            held_out.n_bytes,
            batch_size=self.config.run.batch_size,
            bos_id=held_out.bos_id,
        )

    # ------------------------------------------------------------ weights
    @contextmanager
    def _saved_weights(self) -> Iterator[None]:
        """Within the block the model has the weights that are saved: in float32, and the average if there is one."""
        with ExitStack() as stack:
            if self.ema is not None:
                with sp.no_grad():
                    stack.enter_context(self.ema.swapped())
            stack.enter_context(self.precision.full_precision())
            yield

    def save_weights(self, path: str | Path) -> None:
        """Write the model's weights as safetensors; of an average if there is one.

        Raises:
            SaveError: It cannot be written.
        """
        from spiral.io import save_safetensors

        with self._saved_weights():
            save_safetensors(path, weight_arrays(self.model), {"format": "pt"})

    def finish(self) -> Path | None:
        """Leave the run's result in the model, in float32: a callback's choice, the averaged or the last weights.

        Training cannot go on after it, only from a checkpoint.

        Returns:
            The file that a callback chose; see `Callback.result_weights`.
        """
        chosen = next((path for c in self.callbacks if (path := c.result_weights(self)) is not None), None)
        if chosen is not None:
            from spiral.io import load_safetensors

            arrays = load_safetensors(chosen, mmap=False).arrays
        else:
            with self._saved_weights():
                arrays = {name: array.copy() for name, array in weight_arrays(self.model).items()}
        self.model.to("float32")
        set_weights(self.model, arrays, str(chosen))
        return chosen

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
        ema = None if self.ema is None else self.ema.state_dict()
        arrays, rest = flatten({"optimizer": self.optimizer.state_dict(), "ema": ema})
        state = {
            "tensors": rest,
            "precision": self.precision.state_dict(),
            "callbacks": {name: state for name, c in self._named_callbacks() if (state := c.state_dict())},
            "stopped": self.stopped,
            "loader": self.loader.state_dict(),
            "epochs": self.publisher.state_dict(),
            "random": sp.random.get_state(),
            "seconds": self.seconds,
            "fingerprint": self.fingerprint,
            "config": self.config.to_dict(),
        }
        path = save_checkpoint(
            self.checkpoints,
            Checkpoint(self.step, _arrays(self.masters), arrays, state),
            keep=self.config.run.keep,
        )
        self._tell("on_checkpoint", path)
        self.publisher.checkpoint_saved(self.step, path)
        return path

    def resume(self, path: str | Path | None = None) -> None:
        """Go on from a checkpoint, by default the run's newest.

        Raises:
            DataError: There is none, or it was made with other data.
            ConfigError: It was made with another model, optimizer or batch.
            FormatError: It is damaged.
        """
        saved = load_checkpoint(self.checkpoints if path is None else path)
        try:
            self._restore(saved)
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"resume: {self.checkpoints}: step {saved.step}: state.json is not complete: {error!r}."
            ) from error
        written = {**versions(), **saved.state["versions"]}
        changed = [f"{key} {written[key]}, now {now}" for key, now in versions().items() if written[key] != now]
        if changed:
            logger.warning(
                "resume: the checkpoint was written with %s: the last bits may differ from an uninterrupted run's.",
                "; ".join(changed),
            )

    def _restore(self, saved: Checkpoint) -> None:
        if saved.state["fingerprint"] != self.fingerprint:
            raise DataError(
                f"resume: {self.folder}: the checkpoint was trained on other data than is here now "
                f"({saved.state['fingerprint'][:12]}, now {self.fingerprint[:12]}); bring the text back or start "
                "a new run."
            )
        before = TrainConfig.from_dict(saved.state["config"])
        self._require_same(before.to_dict())
        _overwrite(self.masters, saved.weights, "checkpoint")
        tensors = unflatten(saved.state["tensors"], saved.optimizer)
        self.optimizer.load_state_dict(tensors["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(tensors["ema"])
        self.precision.load_state_dict(saved.state["precision"])
        self.loader.load_state_dict(saved.state["loader"])
        at = saved.state["loader"]  # checkpoints of 0.1.0 do not hold the epoch's losses
        begun = {"started": at["epoch"] + (at["position"] > 0), "loss": 0.0, "steps": 0}
        self.publisher.load_state_dict(saved.state.get("epochs", begun))
        sp.random.set_state(saved.state["random"])
        for name, callback in self._named_callbacks():
            if name in saved.state["callbacks"]:
                callback.load_state_dict(saved.state["callbacks"][name])
        self.step, self.seconds = saved.step, saved.state["seconds"]
        same = [(c.patience, c.callbacks) for c in (before.run, self.config.run)]
        self.stopped = saved.state["stopped"] if same[0] == same[1] else None

    def _named_callbacks(self) -> list[tuple[str, Callback]]:
        """The callbacks with the names of their states: of their classes, and a number from the second on."""
        found: list[tuple[str, Callback]] = []
        for callback in self.callbacks:
            name = type(callback).__name__
            before = sum(type(c).__name__ == name for _, c in found)
            found.append((f"{name}#{before + 1}" if before else name, callback))
        return found

    def _require_same(self, saved: dict[str, Any]) -> None:
        """Refuse to resume under settings that would make the run another one."""
        now = self.config.to_dict()
        keys = [("model", key) for key in now["model"]] + [("data", key) for key in now["data"]]
        keys += [("run", key) for key in ("seed", "batch_size", "accumulate", "precision")]
        keys += [("optim", key) for key in ("name", "options", "beta1", "beta2", "eps", "weight_decay", "ema")]
        changed = [
            f"{section}.{key}={now[section][key]!r} (was {saved[section][key]!r})"
            for section, key in keys
            if saved[section][key] != now[section][key]
        ]
        if changed:
            raise ConfigError(f"resume: {', '.join(changed)}: these cannot change within a run; start a new one.")


def configured_callbacks(run: RunConfig) -> list[Callback]:
    """What a run's configuration asks for.

    Raises:
        ConfigError: A name is unknown, or its options do not fit.
    """
    found = []
    if run.patience:
        early_stopping("run.patience")
        found.append(made_callback("run.patience", EARLY_STOPPING, {"patience": run.patience}))
    for item in run.callbacks:
        name, options = named.parts(item)
        found.append(made_callback(f"run.callbacks.{name}", name, options))
    return found


def _arrays(weights: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: weight.detach().to("cpu").numpy() for name, weight in weights.items()}


def _overwrite(weights: Mapping[str, Tensor], arrays: Mapping[str, NDArray[Any]], source: str) -> None:
    """Give weights the values of the arrays of the same names.

    Raises:
        FormatError: Names or shapes differ.
    """
    wrong = sorted(set(weights) ^ set(arrays))
    wrong += [name for name, w in weights.items() if name in arrays and arrays[name].shape != w.shape]
    if wrong:
        raise FormatError(f"{source}: expected this model's weights; missing, unexpected or misshapen: {wrong[:6]}.")
    with sp.no_grad():
        for name, weight in weights.items():
            weight.detach().copy_(sp.asarray(np.asarray(arrays[name], np.float32), device=weight.device))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
