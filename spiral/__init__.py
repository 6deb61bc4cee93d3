"""spiral: tensors, autograd, modules and training, on kernels chosen by capability."""

from __future__ import annotations

import spiral.backends  # the (empty) package first: below, the name becomes the function that lists backends
from spiral import errors
from spiral.dtype import (
    bfloat16,
    bool_ as bool,
    can_cast,
    finfo,
    float16,
    float32,
    float64,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    isdtype,
    result_type,
    uint8,
    uint16,
    uint32,
    uint64,
)
from spiral.tensor import Tensor
from spiral.creation import (
    arange,
    asarray,
    empty_ as empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from spiral import ops
from spiral.ops import *  # noqa: F403
from spiral.autograd import checkpoint, enable_grad, grad, no_grad, value_and_grad
from spiral.backends_registry import backends
from spiral.inspection import __array_namespace_info__
from spiral.dispatch import explain, prefer
from spiral import random
from spiral.device import known_devices as devices
from spiral.storage import default_threads, get_num_threads, memory, set_num_threads

set_num_threads(default_threads())

__version__ = "0.1.0"
__array_api_version__ = "2024.12"
pi = 3.141592653589793
e = 2.718281828459045
inf = float("inf")
nan = float("nan")
newaxis = None


def __getattr__(name: str) -> object:
    # loaded at first use: a script that only needs tensors does not pay for them
    if name in ("linalg", "nn", "optim", "data", "io", "text", "train", "models"):
        import importlib

        return importlib.import_module(f"spiral.{name}")
    raise AttributeError(f"module 'spiral' has no attribute {name!r}")
