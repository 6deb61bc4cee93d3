"""spiral: tensors, autograd, modules and training, on kernels chosen by capability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import spiral.backends  # the (empty) package first: below, the name becomes the function that lists backends
from spiral import errors as errors
from spiral.dtype import (
    bfloat16 as bfloat16,
    bool_ as bool,
    can_cast as can_cast,
    finfo as finfo,
    float16 as float16,
    float32 as float32,
    float64 as float64,
    iinfo as iinfo,
    int8 as int8,
    int16 as int16,
    int32 as int32,
    int64 as int64,
    isdtype as isdtype,
    result_type as result_type,
    uint8 as uint8,
    uint16 as uint16,
    uint32 as uint32,
    uint64 as uint64,
)
from spiral.tensor import Tensor as Tensor
from spiral.creation import (
    arange as arange,
    asarray as asarray,
    empty_ as empty,
    empty_like as empty_like,
    eye as eye,
    from_dlpack as from_dlpack,
    full as full,
    full_like as full_like,
    linspace as linspace,
    ones as ones,
    ones_like as ones_like,
    zeros as zeros,
    zeros_like as zeros_like,
)
from spiral import ops as ops
from spiral.ops import *  # noqa: F403
from spiral.autograd import (
    enable_grad as enable_grad,
    grad as grad,
    no_grad as no_grad,
    value_and_grad as value_and_grad,
)
from spiral.recompute import checkpoint as checkpoint
from spiral.backends_registry import backends as backends
from spiral.inspection import __array_namespace_info__ as __array_namespace_info__
from spiral.dispatch import explain as explain, prefer as prefer
from spiral import random as random
from spiral.shape_evaluation import eval_shape as eval_shape
from spiral.device import devices as devices
from spiral.memory_report import memory as memory
from spiral.memory_report import reset_peak_memory as reset_peak_memory
from spiral.storage import (
    default_threads as default_threads,
    get_num_threads as get_num_threads,
    set_num_threads as set_num_threads,
)

set_num_threads(default_threads())

__version__ = "0.1.0"
__array_api_version__ = "2024.12"
pi = 3.141592653589793
e = 2.718281828459045
inf = float("inf")
nan = float("nan")
newaxis = None

if TYPE_CHECKING:  # so that a type checker knows them, and knows that there are no others
    from spiral import data as data, io as io, linalg as linalg, models as models, nn as nn
    from spiral import optim as optim, plugin as plugin, text as text, train as train
else:

    def __getattr__(name: str) -> object:
        # loaded at first use: a script that only needs tensors does not pay for them
        if name in ("linalg", "nn", "optim", "data", "io", "plugin", "text", "train", "models"):
            import importlib

            return importlib.import_module(f"spiral.{name}")
        raise AttributeError(f"module 'spiral' has no attribute {name!r}")
