"""Ops that run on the host; see `spiral.gpu.hosted`."""

from spiral.gpu.hosted import kernels

__all__ = ["kernels"]
