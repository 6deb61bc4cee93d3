"""Data: token files, datasets of arrays, and loaders that shuffle, prefetch and resume exactly.

Everything here is NumPy; a loader's state is a small dictionary of integers for checkpoints.
"""

from __future__ import annotations

from spiral.data.dataset import ArrayDataset, BatchedDataset, DataLoader, Dataset
from spiral.data.device_loader import DeviceLoader
from spiral.data.loader import TokenBatch, TokenLoader, eval_batches
from spiral.data.prefetch import Prefetcher
from spiral.data.resume import BatchSource, Cursor, EpochRandom, ResumableLoader
from spiral.data.tokens import TokenDataset

__all__ = [
    "ArrayDataset",
    "BatchSource",
    "BatchedDataset",
    "Cursor",
    "DataLoader",
    "Dataset",
    "DeviceLoader",
    "EpochRandom",
    "Prefetcher",
    "ResumableLoader",
    "TokenBatch",
    "TokenDataset",
    "TokenLoader",
    "eval_batches",
]
