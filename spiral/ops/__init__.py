"""The op set, one file per family. Importing it declares every op and loads the generated wrappers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spiral.op import OPS, F, function_of
from spiral.ops import attention as _attention
from spiral.ops import attention_varlen as _attention_varlen
from spiral.ops import group_norm as _group_norm
from spiral.ops import (
    activation,
    arithmetic,
    comparison,
    composite,
    conv,
    decomposition,
    exponential,
    grouped,
    indexing,
    linalg,
    linear_loss,
    logic,
    loss,
    manipulation,
    norm,
    optim,
    rearrange,
    reduce,
    residual_norm,
    rounding,
    searching,
    standard,
    trigonometric,
)
from spiral.ops import embedding as _embedding
from spiral.ops import linear_activation as _linear_activation
from spiral.ops import generated as _generated
from spiral.ops.generated import *
from spiral.ops.composite import *
from spiral.ops.rearrange import *
from spiral.ops.standard import *  # type: ignore[assignment]  # these take more arguments than the op of the same name

# inside spiral the ops themselves are called, so what `standard` wraps is not taken from there
for _name in _generated.__all__:
    setattr(F, _name, getattr(_generated, _name))
for _name in (*composite.__all__, "constant", "one_hot", "zeros_of"):
    setattr(F, _name, getattr(composite, _name))
for _name in rearrange.__all__:
    setattr(F, _name, getattr(rearrange, _name))

# what `spiral` re-exports: not the gradients and steps that only other code calls, not what stands in
# `spiral.linalg`, not the family modules
if not TYPE_CHECKING:  # a type checker cannot read a computed list and would take it for an empty one
    _public = {n for n in _generated.__all__ if not OPS[n].internal and OPS[n].family != "decomposition"}
    __all__ = sorted(_public | {*composite.__all__, *rearrange.__all__, *standard.__all__})

    def __getattr__(name: str) -> object:  # an op that a plugin has declared
        try:
            return function_of(name)
        except AttributeError:
            raise AttributeError(f"module 'spiral.ops' has no attribute {name!r}") from None
