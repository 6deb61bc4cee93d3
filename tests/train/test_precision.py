"""Mixed precision: 16 bits in forward and backward, float32 masters, loss scaling that saves small gradients."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tiny_run import tiny_config, trained, weights

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, ConfigError, TrainingError
from spiral.io import load_safetensors
from spiral.train import MixedPrecision, TrainConfig, prepare, run_training
from spiral.train.checkpoint import load_checkpoint


def linear(weight: float = 1.0) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    model.weight.detach().copy_(sp.full((1, 1), weight))
    return model


def test_masters_keep_what_16_bits_cannot() -> None:
    model = linear()
    policy = MixedPrecision(model, "bfloat16")
    for _ in range(1000):  # each update is below half a bf16 ulp of 1: in bf16 alone nothing would ever move
        master = policy.masters[0]
        master.detach().copy_(master.detach() + 1e-4)
        policy.update()
    assert policy.masters[0].dtype == sp.float32 and policy.masters[0].item() == pytest.approx(1.1, rel=1e-4)
    assert model.weight.dtype == sp.bfloat16 and model.weight.item() == pytest.approx(1.1, rel=4e-3)


@pytest.mark.parametrize("scaled", [True, False])
def test_loss_scale_saves_gradients_that_float16_rounds_to_zero(scaled: bool) -> None:
    model = linear()
    policy = MixedPrecision(model, "float16")
    if not scaled:
        policy.scale = 1.0
    x = sp.full((1, 1), 1e-4, dtype=sp.float16)
    policy.backward((model(x) * 1e-5).sum())  # the gradient is 1e-9; float16 ends at 6e-8
    (gradient,) = policy.unscale()
    assert gradient.dtype == sp.float32
    assert gradient.item() == (pytest.approx(1e-9, rel=2e-2) if scaled else 0.0)


def test_overflow_leaves_the_step_out_and_halves_the_scale_until_it_fits() -> None:
    model = linear()
    policy = MixedPrecision(model, "float16")
    skipped = 0
    while True:
        policy.masters[0].grad = None
        policy.backward((model(sp.full((1, 1), 100.0, dtype=sp.float16))).sum())  # 100 * 2**15 overflows
        (gradient,) = policy.unscale()
        finite = math.isfinite(gradient.item())
        policy.update(taken=finite)
        if finite:
            break
        skipped += 1
    assert skipped == 6 and policy.scale == 2.0**9 and gradient.item() == 100.0


def test_scale_grows_after_good_steps_and_gives_up_below_one() -> None:
    policy = MixedPrecision(linear(), "float16", growth_interval=3)
    for _ in range(3):
        policy.update()
    assert policy.scale == 2.0**16
    with pytest.raises(TrainingError, match="not finite even without loss scaling"):
        for _ in range(40):
            policy.update(taken=False)


def test_batches_add_up_in_float32() -> None:
    model = linear()
    policy = MixedPrecision(model, "bfloat16")
    for _ in range(512):  # in bf16 1 + 1 + … stops at 256
        policy.backward(model(sp.ones((1, 1), dtype=sp.bfloat16)).sum())
    assert policy.unscale()[0].item() == 512.0


def test_float32_is_the_model_itself() -> None:
    model = linear()
    policy = MixedPrecision(model)
    assert policy.masters[0] is model.weight and policy.scale == 1.0 and not policy.mixed


def test_only_float32_models_and_known_dtypes() -> None:
    with pytest.raises(ArgumentError, match="must be one of float32, bfloat16, float16; received 'int8'"):
        MixedPrecision(linear(), "int8")
    with pytest.raises(ArgumentError, match="expected a float32 model; received parameters of .*bfloat16"):
        MixedPrecision(linear().to("bfloat16"), "bfloat16")
    state = MixedPrecision(linear(), "bfloat16").state_dict()
    with pytest.raises(ArgumentError, match="expected a state of float16"):
        MixedPrecision(linear(), "float16").load_state_dict(state)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_training_follows_the_float32_run(tmp_path: Path, precision: str) -> None:
    base = tiny_config(tmp_path, run={"steps": 60, "eval_every": 30}, model={"dropout": 0.0})
    bits = {}
    for kind in ("float32", precision):
        config = base.updated({"run": {"precision": kind, "out": str(tmp_path / kind)}})
        prepared = prepare(config)
        if kind != "float32":
            assert {p.dtype.name for p in prepared.trainer.model.parameters()} == {precision}
        bits[kind] = run_training(prepared, name="m")["bits_per_byte"]
        # what is left is float32: the masters, which is also what was evaluated
        saved = load_safetensors(tmp_path / kind / "model.safetensors").arrays
        assert {a.dtype.name for a in saved.values()} == {"float32"}
        prepared.trainer.precision.dtype = "float32"
        prepared.trainer.evaluate()
        assert prepared.trainer.last_evaluation.bits_per_byte == pytest.approx(bits[kind], rel=1e-6)
        checkpoint = load_checkpoint(tmp_path / kind / "checkpoints")
        assert {a.dtype.name for a in [*checkpoint.weights.values(), *checkpoint.optimizer.values()]} == {"float32"}
    assert bits[precision] == pytest.approx(bits["float32"], rel=0.02)


def test_skipped_float16_steps_are_recorded_and_change_nothing(config: TrainConfig) -> None:
    prepared = prepare(config.updated({"run": {"precision": "float16"}}))
    trainer = prepared.trainer
    trainer.precision.scale = 2.0**60
    before = [m.numpy().copy() for m in trainer.precision.masters]
    record = trainer.train_step()
    assert record.skipped and not math.isfinite(record.grad_norm) and math.isfinite(record.loss)
    for a, b in zip(before, trainer.precision.masters, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    trainer.precision.scale = 2.0**10
    assert not trainer.train_step().skipped


def test_precision_cannot_change_within_a_run(config: TrainConfig) -> None:
    trained(config)
    with pytest.raises(ConfigError, match=r"run.precision='bfloat16' \(was 'float32'\)"):
        prepare(config.updated({"run": {"precision": "bfloat16"}}), resume=True)


def test_averaged_weights_are_what_is_evaluated_and_saved(config: TrainConfig) -> None:
    config = config.updated({"optim": {"ema": 0.9}, "run": {"steps": 40}})
    prepared = prepare(config)
    result = run_training(prepared, name="m")
    trainer = prepared.trainer
    averages = dict(zip(trainer.masters, trainer.ema.averages, strict=True))
    for name, array in weights(prepared).items():
        np.testing.assert_array_equal(array, averages[name].numpy())
    checkpoint = load_checkpoint(trainer.checkpoints)
    assert any((checkpoint.weights[name] != averages[name].numpy()).any() for name in averages)
    trainer.ema = None
    trainer.evaluate()
    assert trainer.last_evaluation.bits_per_byte == result["bits_per_byte"]
