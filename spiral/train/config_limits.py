"""What each number of a training configuration may be; a test holds that every one has its limits here."""

from __future__ import annotations

from spiral.schema_values import Range
from spiral.text.byte_level_bpe import LARGEST_VOCABULARY, SMALLEST_VOCABULARY
from spiral.train.precision import PRECISIONS
from spiral.train.schedule import SCHEDULES

_MOST = 2**31 - 1
_MOST_STEPS = 99_999_999  # eight digits in a checkpoint's name
_COUNT = Range(1, _MOST)
_STEPS = Range(0, _MOST_STEPS)
_SHARE = Range(0, 1)
_BELOW_1 = Range(0, 1, open_high=True)

RANGES: dict[str, Range] = {
    "model.context_length": _COUNT,
    "model.n_layer": Range(1, 10_000),
    "model.n_head": _COUNT,
    "model.n_kv_head": _COUNT,
    "model.dim": Range(2, _MOST),
    "model.ffn_dim": _COUNT,
    "model.rope_theta": Range(0, 1e12, open_low=True),
    "model.norm_eps": Range(0, 1, open_low=True),
    "model.dropout": _BELOW_1,
    "data.vocab_size": Range(SMALLEST_VOCABULARY, LARGEST_VOCABULARY),
    "data.held_out": Range(0, 1, open_low=True, open_high=True),
    "optim.lr": Range(0, 1e6, open_low=True),
    "optim.final_lr": _SHARE,
    "optim.warmup_steps": _STEPS,
    "optim.decay": _SHARE,
    "optim.beta1": _BELOW_1,
    "optim.beta2": _BELOW_1,
    "optim.eps": _SHARE,
    "optim.weight_decay": Range(0, 1e6),
    "optim.clip": Range(0, 1e9),
    "optim.ema": _BELOW_1,
    "run.steps": Range(1, _MOST_STEPS),
    "run.batch_size": _COUNT,
    "run.accumulate": _COUNT,
    "run.eval_every": _STEPS,
    "run.checkpoint_every": _STEPS,
    "run.log_every": Range(1, _MOST_STEPS),
    "run.keep": _COUNT,
    "run.seed": Range(0, 2**64 - 1),
    "run.patience": _STEPS,
}
CHOICES: dict[str, tuple[str, ...]] = {"optim.schedule": SCHEDULES, "run.precision": PRECISIONS}
