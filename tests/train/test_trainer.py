"""The loop: learning, resuming bit for bit, guards, records."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_run import TEXT, trained, weights

import spiral as sp
from spiral.errors import ConfigError, DataError, FormatError, SaveError, TrainingError
from spiral.train import Callback, StepRecord, TimeBudget, TrainConfig, Trainer, prepare, run_training
from spiral.train.checkpoint import Checkpoint, flatten, list_checkpoints, load_checkpoint, save_checkpoint, unflatten
from spiral.train.metrics import MetricsFile, sparkline
from spiral.train.trainer import Interrupted


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name].view(np.uint32), b[name].view(np.uint32), err_msg=name)


def test_loss_falls_and_the_run_leaves_its_files(config: TrainConfig) -> None:
    prepared = prepare(config.updated({"run": {"steps": 60, "eval_every": 30}}))
    result = run_training(prepared, name="tiny", references={"zlib": 2.0})
    folder = prepared.trainer.folder
    events = list(MetricsFile(folder / "metrics.jsonl").read())
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert len(losses) == 60 and losses[-1] < 0.7 * losses[0]
    bits = [e["bits_per_byte"] for e in events if e["event"] == "evaluation"]
    assert len(bits) == 2 and bits[1] < bits[0] and result["bits_per_byte"] == bits[1]
    assert f"{bits[1]:.4f}" in (folder / "card.md").read_text()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (folder / name).stat().st_size > 0


def test_bits_per_byte_of_a_model_that_knows_nothing_is_the_uniform_code(config: TrainConfig) -> None:
    prepared = prepare(config)
    with sp.no_grad():
        for p in prepared.trainer.parameters:
            p.detach().copy_(sp.zeros(p.shape))
    prepared.trainer.evaluate()
    found = prepared.trainer.last_evaluation
    tokens = len(prepared.tokenizer.encode(prepared.held_out_text))
    n_bytes = len(prepared.held_out_text.encode())
    assert found is not None and found.tokens == tokens
    uniform = tokens * math.log2(prepared.tokenizer.vocab_size) / n_bytes
    assert found.bits_per_byte == pytest.approx(uniform, rel=1e-5)


def test_accumulated_batches_give_the_gradient_of_one_large_batch(config: TrainConfig) -> None:
    config = config.updated({"model": {"dropout": 0.0}})  # each pass draws its own mask
    large, small = (
        prepare(config.updated({"run": {"batch_size": 8}})),
        prepare(config.updated({"run": {"accumulate": 2}})),
    )
    large.trainer.train_step()
    small.trainer.train_step()
    for a, b in zip(large.trainer.parameters, small.trainer.parameters, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-6)


def test_clipping_limits_the_gradient(config: TrainConfig) -> None:
    prepared = prepare(config.updated({"optim": {"clip": 0.01}}))
    record = prepared.trainer.train_step()
    after = math.sqrt(sum(float((p.grad.numpy().astype(np.float64) ** 2).sum()) for p in prepared.trainer.parameters))
    assert record.grad_norm > 0.01 and after == pytest.approx(0.01, rel=1e-4)


def test_only_matrices_decay(config: TrainConfig) -> None:
    for group in prepare(config).trainer.optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])


def test_resumed_run_has_the_bits_of_an_uninterrupted_one(config: TrainConfig) -> None:
    whole = weights(trained(config))
    folder = Path(config.run.out) / "checkpoints"
    newest = list_checkpoints(folder)[-1]
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    resumed = prepare(config, resume=True)
    assert resumed.trainer.step == 10
    resumed.trainer.fit()
    assert_same_bits(weights(resumed), whole)
    steps = [e["step"] for e in resumed.trainer.metrics.read() if e["event"] == "step"]
    assert steps == list(range(1, 13))


def test_killed_run_resumes_with_other_thread_count_to_the_same_bits(config: TrainConfig, tmp_path: Path) -> None:
    whole = weights(trained(config.updated({"run": {"out": str(tmp_path / "whole")}})))
    script = (
        "import json, os, signal, sys\n"
        "from spiral.train import Callback, TrainConfig, prepare\n"
        "class Kill(Callback):\n"
        "    def on_step(self, trainer, record):\n"
        "        if record.step == 8:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare(TrainConfig.from_dict(json.loads(sys.argv[1])), callbacks=[Kill()]).trainer.fit()\n"
    )
    import json

    environment = {**os.environ, "SPIRAL_NUM_THREADS": "1" if sp.get_num_threads() > 1 else "2"}
    done = subprocess.run([sys.executable, "-c", script, json.dumps(config.to_dict())], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    resumed = prepare(config, resume=True)
    assert resumed.trainer.step == 5
    resumed.trainer.fit()
    assert_same_bits(weights(resumed), whole)


def test_ctrl_c_finishes_the_step_saves_and_resumes(config: TrainConfig, tmp_path: Path) -> None:
    whole = weights(trained(config.updated({"run": {"out": str(tmp_path / "whole")}})))

    class Press(Callback):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            if record.step == 7:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="after step 7"):
        trained(config, callbacks=(Press(),))
    assert signal.getsignal(signal.SIGINT) is before
    resumed = prepare(config, resume=True)
    assert resumed.trainer.step == 7
    resumed.trainer.fit()
    assert_same_bits(weights(resumed), whole)


def test_loss_that_is_not_finite_stops_before_the_weights_change(config: TrainConfig) -> None:
    prepared = prepare(config)
    trainer = prepared.trainer
    trainer.train_step()
    with sp.no_grad():
        trainer.parameters[-1].detach().copy_(sp.full(trainer.parameters[-1].shape, math.nan))
    before = weights(prepared)
    with pytest.raises(TrainingError, match=r"step 2: loss nan .* try a lower optim.lr"):
        trainer.train_step()
    assert_same_bits(weights(prepared), before)


def test_resume_refuses_other_data_and_other_models(config: TrainConfig) -> None:
    trained(config)
    with pytest.raises(ConfigError, match=r"run.batch_size=2 \(was 4\)"):
        prepare(config.updated({"run": {"batch_size": 2}}), resume=True)
    Path(str(config.data.path)).write_text(TEXT + "more\n")
    with pytest.raises(DataError, match="trained on other data"):
        prepare(config, resume=True)
    with pytest.raises(ConfigError, match="holds the checkpoints of another run"):
        prepare(config)
    assert prepare(config, overwrite=True).trainer.step == 0
    with pytest.raises(DataError, match="no run to resume"):
        prepare(config.updated({"run": {"out": config.run.out + "-none"}}), resume=True)


def test_text_shorter_than_the_context_is_refused(config: TrainConfig) -> None:
    Path(str(config.data.path)).write_text("a few words\n\nmore words\n")
    with pytest.raises(DataError, match="shorter than one context"):
        prepare(config)


def test_checkpoint_that_fails_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def checkpoint(step: int) -> Checkpoint:
        return Checkpoint(step, {"w": np.full(3, step, np.float32)}, {}, {})

    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full_disk)
        with pytest.raises(SaveError, match="No space left"):
            save_checkpoint(tmp_path, checkpoint(4), keep=2)
    assert load_checkpoint(tmp_path).step == 3 and len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".step-00000009.1.partial").mkdir()  # of a killed process
    save_checkpoint(tmp_path, checkpoint(3), keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000003"]
    for name in ("step-00000002", "step-00000003"):
        (tmp_path / name / "state.json").write_text("{")
    with pytest.raises(FormatError, match="all 2 checkpoints are damaged; the newest: .*step-00000003.*cannot be read"):
        load_checkpoint(tmp_path)


def test_nested_state_survives_flattening() -> None:
    tree = {"a": [sp.ones((2,)), None, 1.5], 0: {"m": np.arange(3)}}
    arrays, rest = flatten(tree)
    back = unflatten(rest, arrays)
    assert back["a"][1:] == [None, 1.5] and back[0]["m"].tolist() == [0, 1, 2] and back["a"][0].tolist() == [1, 1]


def test_metrics_of_a_crash_are_cut_to_the_checkpoint(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "m.jsonl")
    for step in (1, 2, 3):
        metrics.add("step", {"step": step})
    with metrics.path.open("a") as file:
        file.write('{"event": "st')
    metrics.keep_up_to(2)
    assert [e["step"] for e in metrics.read()] == [1, 2]
    assert sparkline([]) == "" and sparkline([1.0, 1.0]) == "▁▁"


def test_time_budget_ends_in_time_with_a_complete_schedule(config: TrainConfig) -> None:
    prepared = prepare(config, callbacks=[TimeBudget(0.5)])
    prepared.trainer.config = config.updated(
        {"run": {"steps": 10**6, "checkpoint_every": 0}, "optim": {"final_lr": 0.0}}
    )
    start = time.monotonic()
    prepared.trainer.fit()
    assert time.monotonic() - start < 5
    rates = [e["lr"] for e in prepared.trainer.metrics.read() if e["event"] == "step"]
    assert len(rates) > 12 and rates[-1] < 0.05 * max(rates)
