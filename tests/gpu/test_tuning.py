"""The package's tables of launch configurations are of these sources, and Triton's launches take what a table says."""

import numpy as np
import pytest

from spiral.backends import aot
from spiral.backends.triton import norm
from spiral.device_array import DeviceArray
from spiral.errors import RegistryError
from spiral.gpu import tuning
from spiral.op import OPS
from spiral.testing.recording import RecordingDriver

aot.cuda_sources()
aot.triton_kernels()


@pytest.mark.parametrize("cc", aot.MEASURABLE)
def test_the_committed_table_is_of_these_sources_and_holds_every_class_of_shapes(cc):
    table = tuning.read_table(tuning.committed_path(cc))
    assert table.choices.keys() == tuning.CHOICES.keys(), "run `python -m spiral.backends.aot --heuristics`"
    for name, entry in table.choices.items():
        choice = tuning.CHOICES[name]
        assert choice.refusal(entry) is None, f"{name}: run `python -m spiral.backends.aot --heuristics`"
        assert entry["configs"].keys() == {tuning.spelled(k) for k in choice.configs}
        for key, offered in choice.configs.items():
            config = tuple(entry["configs"][tuning.spelled(key)])
            assert config in offered and (table.verified or config == offered[0])


@pytest.mark.parametrize("name", sorted(tuning.CHOICES))
def test_every_choice_has_a_trial_of_an_op_for_each_class(name):
    choice = tuning.CHOICES[name]
    for key in choice.configs:
        trial = choice.trial(key, 1 << 20)
        assert len(trial.attrs) == len(OPS[trial.op].attrs) and len(trial.inputs) == len(OPS[trial.op].inputs)
        shape, dtype = trial.inputs[0]
        assert 0 < np.prod(shape) * {"float64": 8, "float32": 4}.get(dtype, 2) <= 1 << 30


def rms_norm(gpu, n):
    x, y = (DeviceArray.empty(gpu, (3, n), np.dtype(np.float32)) for _ in range(2))
    norm.rms_norm(x, None, 1e-5, y, DeviceArray.empty(gpu, (3,), np.dtype(np.float32)))
    return gpu.named("launch")[-1].block[0]


def test_triton_launches_the_kernel_that_a_table_chooses(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIRAL_CACHE", str(tmp_path))
    first = RecordingDriver(90)
    tuning.forget(first)
    assert rms_norm(first, 200) == 32 and rms_norm(first, 1000) == 128
    entry = tuning.entry_of(tuning.CHOICES["triton/rms_norm"], {("fp32", 256, 0): (4,)})
    tuning.write_table(tuning.user_path("recording driver"), "recording driver", True, {"triton/rms_norm": entry})
    assert rms_norm(first, 200) == 32, "a table is read once"
    tuned = RecordingDriver(90)
    tuning.forget(tuned)
    assert rms_norm(tuned, 200) == 128 and rms_norm(tuned, 1000) == 128
    tuning.forget(tuned)


def test_a_choice_must_have_a_number_for_every_option():
    for configs in ({(1,): ((1, 2), (3,))}, {(1,): ()}):
        with pytest.raises(RegistryError, match="expected configurations with numbers for threads, stages"):
            tuning.Choice("cuda/x", ("threads", "stages"), configs, str, lambda *_: tuning.Trial(""))
