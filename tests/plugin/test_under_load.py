"""Many threads for long, and many reloads: what takes seconds."""

import pytest
from under_load import hammer

from spiral.plugin import PluginRegistry


@pytest.mark.slow
def test_eight_threads_for_ten_seconds():
    assert hammer(PluginRegistry(), seconds=10.0, threads=8) == []
