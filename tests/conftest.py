"""Folders that need a process of their own, because the GPU backends choose their device once per process."""

import os

# folder: the environment variable that says that this process is theirs; `make test` runs each so
OWN_PROCESS = {
    "on_cuda": "SPIRAL_GPU",
    "on_triton": "TRITON_INTERPRET",
    "on_opencl": "SPIRAL_OPENCL",
    "on_island": "SPIRAL_ISLAND",
}


def pytest_ignore_collect(collection_path, config):
    variable = OWN_PROCESS.get(collection_path.name)
    return True if variable and not os.environ.get(variable) else None


def pytest_report_header(config):
    left = [f"{folder} (set {v})" for folder, v in OWN_PROCESS.items() if not os.environ.get(v)]
    return f"in processes of their own: {', '.join(left)}; see docs/testing.md" if left else None
