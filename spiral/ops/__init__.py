"""The op set, one file per family. Importing it declares every op and loads the generated wrappers."""

from __future__ import annotations

from spiral.op import F
from spiral.ops import (
    attention as _attention,
)
from spiral.ops import (
    composite,
    conv,
    elementwise,
    linalg,
    loss,
    manipulation,
    norm,
    optim,
    reduce,
)
from spiral.ops import (
    embedding as _embedding,
)
from spiral.ops.composite import (
    clip,
    expand_dims,
    geglu,
    matrix_transpose,
    squeeze,
    stack,
    std,
)
from spiral.ops.generated import *  # noqa: F403
from spiral.ops import generated  # isort: skip

for _name in generated.__all__:
    setattr(F, _name, getattr(generated, _name))
for _name in (
    "clip",
    "constant",
    "expand_dims",
    "geglu",
    "matrix_transpose",
    "one_hot",
    "squeeze",
    "stack",
    "std",
    "zeros_of",
):
    setattr(F, _name, getattr(composite, _name))
del _name
