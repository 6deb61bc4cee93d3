"""Optimizers, schedules, gradient clipping, averages of parameters."""

from __future__ import annotations

from spiral.optim.adafactor import Adafactor
from spiral.optim.adam import Adam, AdamW
from spiral.optim.catalog import OPTIMIZERS, create
from spiral.optim.clip import clip_grad_norm_, clip_grad_value_, scale_grads
from spiral.optim.ema import EMA
from spiral.optim.lion import Lion
from spiral.optim.optimizer import Optimizer
from spiral.optim.schedule import (
    LRSchedule,
    constant,
    constant_factor,
    cosine,
    cosine_factor,
    linear,
    linear_factor,
    warmup_factor,
    wsd,
    wsd_factor,
)
from spiral.optim.sgd import SGD

__all__ = [
    "EMA",
    "OPTIMIZERS",
    "SGD",
    "Adafactor",
    "Adam",
    "AdamW",
    "LRSchedule",
    "Lion",
    "Optimizer",
    "clip_grad_norm_",
    "clip_grad_value_",
    "constant",
    "constant_factor",
    "create",
    "cosine",
    "cosine_factor",
    "linear",
    "linear_factor",
    "scale_grads",
    "warmup_factor",
    "wsd",
    "wsd_factor",
]
