"""Lets the tests of this folder import the tiny run that stands beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import tiny_config  # noqa: E402

from spiral.train import TrainConfig  # noqa: E402


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run of 12 steps that takes a tenth of a second, with a checkpoint every 5."""
    return tiny_config(tmp_path)
