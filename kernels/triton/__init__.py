"""Triton kernels; they import Triton and nothing else."""
