"""The op set, one file per family. Importing it declares every op and loads the generated wrappers."""

from __future__ import annotations

from spiral.op import OPS, F
from spiral.ops import attention as _attention
from spiral.ops import (
    activation,
    arithmetic,
    comparison,
    composite,
    conv,
    exponential,
    linalg,
    logic,
    loss,
    manipulation,
    norm,
    optim,
    reduce,
    rounding,
    trigonometric,
)
from spiral.ops import embedding as _embedding
from spiral.ops import generated as _generated
from spiral.ops.composite import clip as clip
from spiral.ops.composite import expand_dims as expand_dims
from spiral.ops.composite import geglu as geglu
from spiral.ops.composite import matrix_transpose as matrix_transpose
from spiral.ops.composite import squeeze as squeeze
from spiral.ops.composite import stack as stack
from spiral.ops.composite import std as std
from spiral.ops.generated import *

_COMPOSITE = ("clip", "expand_dims", "geglu", "matrix_transpose", "squeeze", "stack", "std")
for _name in _generated.__all__:
    setattr(F, _name, getattr(_generated, _name))
for _name in (*_COMPOSITE, "constant", "one_hot", "zeros_of"):
    setattr(F, _name, getattr(composite, _name))

# what `spiral` re-exports: not the gradients and steps that only other code calls, not the family modules
__all__ = sorted({*(n for n in _generated.__all__ if not OPS[n].internal), *_COMPOSITE})
