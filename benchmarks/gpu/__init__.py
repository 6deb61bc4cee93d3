"""Everything that is to be seen on a GPU, in one command: ``python -m benchmarks.gpu``."""
