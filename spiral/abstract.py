"""Arrays with a shape and a dtype, and no values: what `spiral.eval_shape` computes on.

One zero of the dtype stands for every element (all strides are 0), so a parameter of any size takes no
memory. Whoever asks for a value gets an error, never that zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from spiral.device import meta
from spiral.dtype import DType
from spiral.errors import NoValueError, ShapeError
from spiral.tensor_core import make_key, wrap

if TYPE_CHECKING:
    from spiral.tensor import Tensor


class NoValues(np.ndarray[Any, Any]):
    """An array without values; views of it have none either."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise NoValueError(
            f"eval_shape: the code asks for a value of a tensor {self.shape}, of which only the shape and the dtype "
            "are known; leave what depends on values out, or compute it from the arguments."
        )

    item = tolist = view = copy = astype = tobytes = __deepcopy__ = __reduce__ = _refuse
    __array_ufunc__ = __array_function__ = _refuse


_ZEROS: dict[str, np.ndarray[Any, Any]] = {}


def array(shape: tuple[int, ...], dtype: DType) -> np.ndarray[Any, Any]:
    """An array without values.

    Raises:
        ShapeError: no array can have so many elements.
    """
    zero = _ZEROS.get(dtype.name)
    if zero is None:
        zero = _ZEROS[dtype.name] = np.zeros((), dtype.numpy)
    try:
        return np.ndarray.view(np.broadcast_to(zero, shape), NoValues)
    except ValueError as error:
        raise ShapeError(f"shape {shape}: no tensor is so large ({error}).") from None


def valueless(shape: tuple[int, ...], dtype: DType) -> Tensor:
    """A tensor with a shape and a dtype, and no values."""
    return wrap(array(shape, dtype), make_key(meta, dtype))  # type: ignore[no-any-return]
