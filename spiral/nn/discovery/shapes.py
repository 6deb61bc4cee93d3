"""The shape that a module makes of another, without weights: it is run by `spiral.eval_shape`.

Shapes are those of one sample; the batch is the first axis and stands for any number. That it does is tested: the
module is run with two batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spiral.backend import Spec
from spiral.dtype import DType
from spiral.errors import ShapeError, SpiralError
from spiral.nn.discovery.metadata import Shape
from spiral.shape_evaluation import eval_shape

_BATCHES = (12, 24)  # many numbers divide them


def shown(shape: Shape | None) -> str:
    """A sample's shape with its batch.

    Example:
        >>> shown((3, 32, 32)), shown(()), shown(None)
        ('(N, 3, 32, 32)', '(N,)', 'unknown')
    """
    if shape is None:
        return "unknown"
    return f"({', '.join(map(str, ('N', *shape)))}{',' if not shape else ''})"


def first_of(result: Any) -> Any:
    """Of several results the first, which is what a pipeline hands on: an LSTM's outputs, not its states."""
    while isinstance(result, (tuple, list)) and result:
        result = result[0]
    return result


def shape_after(module: Callable[..., Any], shape: Shape, dtype: DType) -> tuple[Shape, DType]:
    """Shape and dtype of what a module gives for a batch of samples.

    Raises:
        ShapeError: the module gives no tensor, or one whose first axis is not the batch.
        SpiralError: the module's own error.
        NoValueError: the module asks for values.
    """
    found: list[Spec] = []
    for batch in _BATCHES:
        try:
            result = first_of(eval_shape(module, Spec((batch, *shape), dtype)))
        except SpiralError:
            raise
        except Exception as error:  # a foreign forward may refuse a shape in any way: `b, t, c = x.shape`, an assert
            raise ShapeError(f"{type(error).__name__}: {error}") from error
        if not isinstance(result, Spec):
            raise ShapeError(f"it gives {type(result).__name__}, not a tensor")
        if result.shape[:1] != (batch,) or (found and found[0].shape[1:] != result.shape[1:]):
            raise ShapeError(
                f"of a batch of {batch} it makes {result.shape}, and in a pipeline the batch stays the first axis alone"
            )
        found.append(result)
    return found[0].shape[1:], found[0].dtype
