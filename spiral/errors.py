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
