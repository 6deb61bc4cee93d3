"""Ahead-of-time compilation: each kernel for a real target, and a committed table that is of these sources."""

import json

import pytest

from spiral.backends import aot

TARGET = "sm_90"
TABLE = json.loads(aot.TABLE.read_text())
CUDA = aot.cuda_sources()
TRITON = aot.triton_kernels()


@pytest.mark.parametrize("file", CUDA)
def test_each_cuda_kernel_compiles_for_sm_90_without_spilling(file):
    made = aot.compile_cuda(file, aot.one_of_each(CUDA[file]), TARGET)
    assert {name: r[1] for name, r in made.items() if aot.spilled(name, r)} == {}
    recorded = TABLE[TARGET][file]["kernels"]
    assert all(list(r)[2] == recorded[name][2] for name, r in made.items()), "static shared memory as in the table"


@pytest.mark.parametrize("file", TRITON)
def test_each_triton_kernel_compiles_for_sm_90_without_spilling(file):
    first = {}
    for kernel in TRITON[file]:
        first.setdefault(kernel.fn.__name__, kernel)
    made = dict(aot.compile_triton(list(first.values()), TARGET, (True,)))
    assert {name: r[1] for name, r in made.items() if aot.spilled(name, r)} == {}


@pytest.mark.parametrize("target", aot.TARGETS)
def test_the_committed_table_is_of_these_sources(target):
    stale = [f for f in (*CUDA, *TRITON) if TABLE[target].get(f, {}).get("source") != aot.source_of(f)]
    assert stale == [], "run `make aot` and commit kernels/resources.json"


@pytest.mark.parametrize("target", aot.TARGETS)
def test_the_committed_table_holds_every_configuration(target):
    for file in (*CUDA, *TRITON):
        assert set(TABLE[target][file]["kernels"]) == aot.names_of(file), file


def test_no_configuration_spills_on_sm_90():
    found = {
        f"{f}: {n}": r[1]
        for f, entry in TABLE[TARGET].items()
        for n, r in entry["kernels"].items()
        if aot.spilled(n, r)
    }
    assert found == {}


def test_another_source_has_another_digest(tmp_path, monkeypatch):
    before = aot.cuda_digest("norm.cu")
    for file in aot.CUDA_FOLDER.glob("*.cu*"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "spiral.cuh").write_text((tmp_path / "spiral.cuh").read_text() + "// changed\n")
    monkeypatch.setattr(aot, "CUDA_FOLDER", tmp_path)
    assert aot.cuda_digest("norm.cu") != before
