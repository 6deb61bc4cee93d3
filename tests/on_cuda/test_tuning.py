"""Launch configurations: any that is declared computes the same, tables choose, searches find the fastest."""

import json

import numpy as np
import pytest

import spiral as sp
from spiral.backends.cuda import norm, softmax
from spiral.backends.cuda.rows import row_class
from spiral.cli.main import main
from spiral.device import as_device
from spiral.errors import KernelError
from spiral.gpu import tuning
from spiral.gpu.search import forced, search
from spiral.op import OPS
from spiral.train.checkpoint import versions


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """The device without the user's own tables, and again with them afterwards."""
    monkeypatch.setenv("SPIRAL_CACHE", str(tmp_path))
    sp.ones(1).to("cuda")
    driver = as_device("cuda").memory.driver
    tuning.forget(driver)
    yield driver
    monkeypatch.undo()
    tuning.forget(driver)


class Clock:
    """A device's time as the sum of what each launch takes by the threads of its block, in milliseconds."""

    def __init__(self, gpu, monkeypatch, cost):
        self.now = 0.0
        launch = gpu.launch

        def timed(function, grid, block, shared, params):
            self.now += cost(block[0])
            launch(function, grid, block, shared, params)

        monkeypatch.setattr(gpu, "launch", timed)
        monkeypatch.setattr(gpu, "event", lambda: Moment(self.now))


class Moment:
    def __init__(self, at):
        self.at = at

    def milliseconds_since(self, earlier):
        return self.at - earlier.at


@pytest.mark.parametrize("n", [1, 33, 257, 1100, 5000])
def test_every_configuration_computes_the_same(gpu, n):
    x = np.random.default_rng(n).standard_normal((5, n)).astype(np.float32)
    g = np.flip(x, 1).copy()
    cases = {
        softmax.ROWS: ("softmax", (x,), (-1,)), softmax.GRAD_ROWS: ("softmax_grad", (g, x), (-1,)),
        norm.NORM_ROWS: ("layer_norm", (x, x[0], x[1]), (1e-5,)),
    }  # fmt: skip
    key = row_class(n, 4)
    for choice, (name, inputs, attrs) in cases.items():
        want = OPS[name].oracle(*[a.astype(np.float64) for a in inputs], *attrs)
        want = want[0] if isinstance(want, tuple) else want
        for config in choice.configs[key]:
            with forced(choice, gpu, key, config), sp.prefer("cuda", fallback="error"):
                got = OPS[name].call(*[sp.asarray(a).to("cuda") for a in inputs], *attrs)
            np.testing.assert_allclose(got.to("cpu").numpy(), want, rtol=1e-5, atol=1e-5, err_msg=f"{name} {config}")


@pytest.mark.on_processor
def test_a_search_finds_the_fastest_and_keeps_the_heuristic_where_the_difference_is_noise(gpu, monkeypatch):
    key = row_class(32, 4)
    for cost, best in (({256: 2.0, 128: 1.0, 512: 4.0}, (0, 128)), ({256: 1.0, 128: 0.99, 512: 4.0}, (0, 256))):
        with monkeypatch.context() as patched:
            Clock(gpu, patched, cost.get)
            found = search(softmax.ROWS, key, gpu, "cuda", rounds=3, nbytes=512)
        assert found.best == best and found.milliseconds[0, 512] == 4.0
        assert found.gain == pytest.approx(cost[256] / cost[128] if best == (0, 128) else 1.0)
    assert softmax.ROWS.at(gpu, key) == (0, 256), "a search changes nothing"


@pytest.mark.on_processor
def test_a_configuration_that_does_not_run_is_none(gpu, monkeypatch):
    key, launch = row_class(32, 4), gpu.launch

    def refusing(function, grid, block, shared, params):
        if block[0] == 512:
            raise KernelError("too many threads")
        launch(function, grid, block, shared, params)

    monkeypatch.setattr(gpu, "launch", refusing)
    found = search(softmax.ROWS, key, gpu, "cuda", rounds=2, nbytes=512)
    assert found.failed == {(0, 512): "too many threads"} and (0, 512) not in found.milliseconds


@pytest.fixture
def tuned(gpu, monkeypatch, capsys):
    """The table that `spiral tune` writes for one class of shapes on a device where 128 threads are fastest."""
    key = row_class(16, 4)
    with monkeypatch.context() as patched:
        Clock(gpu, patched, lambda threads: 1.0 if threads == 128 else 3.0)
        patched.setattr(softmax.ROWS, "configs", {key: softmax.ROWS.configs[key]})
        command = ["tune", "cuda/softmax_rows", "--rounds", "2", "--megabytes", "0.001", "--json"]
        assert main(command) == 0
        told = json.loads(capsys.readouterr().out)
    tuning.forget(gpu)
    assert [f["best"] for f in told["found"]] == [[0, 128]]
    return tuning.user_path(gpu.facts.name)


def threads_of_a_launch(gpu):
    with sp.prefer("cuda"):
        sp.softmax(sp.asarray(np.ones((3, 16), np.float32)).to("cuda"), axis=-1)
    return gpu.launches[-1].block[0]


@pytest.mark.on_processor
def test_nothing_is_measured_by_a_run(gpu):
    assert threads_of_a_launch(gpu) == 256
    assert tuning.table_hash() is None and versions()["tuning"] == "heuristics"
    assert not tuning.user_path(gpu.facts.name).exists()


@pytest.mark.on_processor
def test_launches_take_what_the_command_has_written(gpu, tuned):
    table = tuning.read_table(tuned)
    assert table.verified and table.choices["cuda/softmax_rows"]["configs"] == {"4 6": [0, 128]}
    assert threads_of_a_launch(gpu) == 128
    first = tuning.table_hash()
    assert first is not None and versions()["tuning"] == first
    assert "measured; 1 kernels" in tuning.status(gpu)[str(tuned)]


@pytest.mark.on_processor
def test_what_was_measured_on_another_source_is_ignored_and_doctor_says_so(gpu, tuned, capsys):
    tuned.write_text(tuned.read_text().replace(softmax.ROWS.source(), "another"))
    tuning.forget(gpu)
    assert threads_of_a_launch(gpu) == 256 and tuning.table_hash() is None
    assert main(["doctor"]) == 0
    assert "ignored: cuda/softmax_rows was measured on another source of the kernel" in capsys.readouterr().out


@pytest.mark.on_processor
@pytest.mark.parametrize("config", [[0, 100], [0], [0, 256, 1], ["0", 256], [9, 128]])
def test_a_table_chooses_only_among_what_is_declared(gpu, tuned, config):
    content = json.loads(tuned.read_text())
    content["choices"]["cuda/softmax_rows"]["configs"] = {"4 6": config, "5 5": [0, 128]}
    tuned.write_text(json.dumps(content))
    tuning.forget(gpu)
    assert threads_of_a_launch(gpu) == 256


@pytest.mark.on_processor
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"choices": {"cuda/softmax_rows": 3}, "verified": true}'])
def test_a_damaged_table_is_told_of_and_left_out(gpu, tuned, text, caplog):
    tuned.write_text(text)
    tuning.forget(gpu)
    assert threads_of_a_launch(gpu) == 256
    assert "expected a tuning table" in caplog.text and str(tuned) in caplog.text


@pytest.mark.on_processor
def test_tables_can_be_switched_off(gpu, tuned, monkeypatch):
    monkeypatch.setenv("SPIRAL_TUNING", "none")
    tuning.forget(gpu)
    assert threads_of_a_launch(gpu) == 256 and tuning.table_hash() is None


@pytest.mark.on_processor
def test_another_search_keeps_what_was_found_for_other_shapes(gpu, tuned, monkeypatch):
    key = row_class(64, 4)
    with monkeypatch.context() as patched:
        Clock(gpu, patched, lambda threads: 1.0 if threads == 512 else 3.0)
        patched.setattr(softmax.ROWS, "configs", {key: softmax.ROWS.configs[key]})
        assert main(["tune", "softmax_rows", "--rounds", "2", "--megabytes", "0.001"]) == 0
    assert tuning.read_table(tuned).choices["cuda/softmax_rows"]["configs"] == {"4 6": [0, 128], "4 8": [0, 512]}


def test_a_kernel_that_there_is_not_is_an_error(gpu, capsys):
    assert main(["tune", "no_such_kernel"]) == 2
    assert "expected kernels among cuda/norm_rows" in capsys.readouterr().err
