"""Every error that spiral raises on purpose.

Each class also derives from the builtin that a Python programmer would catch, so
``except ValueError`` keeps working. Messages follow one form: which op or file, what was
expected, what was received, what to do next.
"""

from __future__ import annotations


class SpiralError(Exception):
    """Base of all errors raised by spiral."""


class ShapeError(SpiralError, ValueError):
    """An operand has a shape that the operation does not accept."""


class DTypeError(SpiralError, TypeError):
    """An operand has a dtype that the operation does not accept, or dtypes do not promote."""


class DeviceError(SpiralError, ValueError):
    """Operands live on different devices, or a device does not exist."""


class IndexingError(SpiralError, IndexError):
    """An index is out of range or of a kind that is not supported."""


class CapabilityError(SpiralError, RuntimeError):
    """No backend can run an op; the message lists every candidate with its reason."""


class OutOfMemoryError(SpiralError, MemoryError):
    """A device has no memory left for an allocation; the message lists the largest tensors alive."""


class KernelError(SpiralError, RuntimeError):
    """A kernel could not be compiled, loaded or launched; the message holds what the compiler or driver said."""


class KernelBuildError(KernelError):
    """A compiler or a driver refuses a kernel, before anything of its op was launched that overwrites inputs.

    Another kernel takes its place, unless ``SPIRAL_FALLBACK=error``.
    """


class NoValueError(SpiralError, RuntimeError):
    """A value was asked for where only shapes and dtypes are known; see `spiral.eval_shape`."""


class AutogradError(SpiralError, RuntimeError):
    """Backward was asked for where no gradient can be computed, or a saved value was overwritten."""


class ArgumentError(SpiralError, ValueError):
    """A non-tensor argument has a value that is not allowed."""


class ConfigError(SpiralError, ValueError):
    """A configuration has an unknown key or an invalid value."""


class DataError(SpiralError, ValueError):
    """A dataset or text cannot be used as it is."""


class FormatError(SpiralError, ValueError):
    """A file does not follow its format: truncated, inconsistent or malicious."""


class SaveError(SpiralError, OSError):
    """A file could not be written; whatever stood there before is intact."""


class TrainingError(SpiralError, RuntimeError):
    """Training cannot go on (for example, the loss is not finite)."""


class RegistryError(SpiralError, ValueError):
    """A name is registered twice, or an unknown backend, op or plugin was asked for."""


class MissingDependencyError(SpiralError, ImportError):
    """An optional package is needed; the message says how to install it."""


def kind_of(value: object) -> str:
    """What something is: an array's type, shape and dtype, another object's type.

    Example:
        >>> import numpy as np
        >>> kind_of(np.zeros((3, 1000))), kind_of([1, 2]), kind_of(None)
        ('ndarray (3, 1000) float64', 'list', 'None')
    """
    if value is None:
        return "None"
    kind = type(value).__name__
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        return f"{kind} {shape} {getattr(dtype, 'name', dtype)}"
    return kind


def _is_numpy_scalar(value: object) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ != "ndarray" and hasattr(value, "dtype")


def received(value: object) -> str:
    """A setting as a message shows it: at most 60 characters, and an array by its kind, never by its values.

    Example:
        >>> import numpy as np
        >>> received("x"), received((0.9, np.ones(200))), received(range)
        ("'x'", '(0.9, ndarray (200,) float64)', 'type')
    """
    if isinstance(value, (list, tuple)):
        shown = ", ".join([received(item) for item in value[:4]] + ["…"] * (len(value) > 4))
        text = f"[{shown}]" if isinstance(value, list) else f"({shown}{',' * (len(value) == 1)})"
    elif isinstance(value, int) and value.bit_length() > 256:  # Python refuses to write out the largest
        text = f"an integer of {value.bit_length()} bits"
    elif isinstance(value, (str, bytes, bool, int, float)) or _is_numpy_scalar(value):
        text = repr(value)
    else:
        text = kind_of(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
