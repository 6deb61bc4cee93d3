"""What to say where a package is missing that only some of spiral needs.

``import spiral`` needs NumPy and ml_dtypes; everything else is imported where it is used.
"""

from __future__ import annotations

from spiral.errors import MissingDependencyError


def missing(package: str, purpose: str, remedy: str) -> MissingDependencyError:
    """The error to raise from a ModuleNotFoundError.

    Args:
        package: The module that could not be imported.
        purpose: What needs it, as a noun.
        remedy: The command that installs it.

    Example:
        >>> str(missing("yaml", "reading a configuration", "pip install pyyaml"))
        'reading a configuration needs the package `yaml`, which is not installed; run `pip install pyyaml`.'
    """
    return MissingDependencyError(
        f"{purpose} needs the package `{package}`, which is not installed; run `{remedy}`.",
        name=package,
    )
