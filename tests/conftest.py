"""Folders that need a process of their own, because the GPU backends choose their device once per process."""

import os

# folder: the environment variable that says that this process is theirs; `make test` runs each so
OWN_PROCESS = {
    "on_cuda": "SPIRAL_GPU",
    "on_triton": "TRITON_INTERPRET",
    "on_opencl": "SPIRAL_OPENCL",
    "on_island": "SPIRAL_ISLAND",
}

ON_A_DEVICE = os.environ.get("SPIRAL_GPU") in ("cupy", "torch")  # no interpreter then: `make gpu`


def left_out(folder):
    """The variable that is not set where a folder is left to another process."""
    variable = OWN_PROCESS.get(folder)
    if variable is None or os.environ.get(variable) or (folder == "on_triton" and ON_A_DEVICE):
        return None
    return variable


def pytest_ignore_collect(collection_path, config):
    return True if left_out(collection_path.name) else None


def pytest_report_header(config):
    left = [f"{folder} (set {v})" for folder in OWN_PROCESS if (v := left_out(folder))]
    return f"in processes of their own: {', '.join(left)}; see docs/testing.md" if left else None
