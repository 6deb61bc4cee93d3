"""Whole training steps on the device: the losses of the CPU, nothing that waits in between."""

import numpy as np
import pytest

import spiral as sp
from spiral import optim
from spiral.data import TokenDataset
from spiral.device import as_device
from spiral.models import Llama, LlamaConfig
from spiral.train import TrainConfig, Trainer
from spiral.train.evaluate import evaluate

SMALL = dict(vocab_size=64, context_length=16, n_layer=2, n_head=4, n_kv_head=2, dim=32, ffn_dim=64)


def steps(device, count=3):
    """Losses of a decoder, and how often the host waited within the steps."""
    sp.random.manual_seed(0)
    model = Llama(LlamaConfig(**SMALL)).to(device)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    draw = np.random.default_rng(0)
    driver = as_device("cuda").memory.driver
    losses, waits = [], 0
    for _ in range(count):
        x, y = (sp.asarray(draw.integers(0, 64, (2, 16)), device=device) for _ in range(2))
        before = driver.synchronizations
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        waits += driver.synchronizations - before
        losses.append(loss.item())
    return losses, waits


def test_a_decoder_has_the_losses_of_the_cpu_and_its_steps_never_wait():
    there, waits = steps("cuda")
    here, _ = steps("cpu")
    assert waits == 0
    np.testing.assert_allclose(there, here, rtol=1e-5)


def trainer(folder, *overrides):
    config = TrainConfig().with_overrides(
        [
            f"run.out={folder}", "run.steps=4", "run.batch_size=2", "run.eval_every=0", "run.checkpoint_every=2",
            *(f"model.{k}={v}" for k, v in SMALL.items() if k != "vocab_size"), "model.dropout=0.1", *overrides,
        ]
    )  # fmt: skip
    sp.random.manual_seed(1)
    tokens = TokenDataset([i * i % 61 for i in range(400)], vocab_size=64)
    return Trainer(Llama(config.model.llama(64)), tokens, None, config)


def weights(t):
    return {n: p.detach().to("cpu").numpy() for n, p in t.model.named_parameters()}


def test_a_run_on_the_device_learns_what_a_run_on_the_cpu_learns(tmp_path):
    runs = []
    for device in ("cpu", "cuda"):  # one after the other: both draw dropout's streams from the start
        runs.append(trainer(tmp_path / device, f"run.device={device}"))
        runs[-1].fit()
    assert str(next(runs[1].model.parameters()).device) == "cuda:0"
    for name, wanted in weights(runs[0]).items():
        np.testing.assert_allclose(weights(runs[1])[name], wanted, rtol=2e-3, atol=2e-5, err_msg=name)
    tokens = TokenDataset([i % 50 for i in range(100)], vocab_size=64)
    here, there = (evaluate(r.model, tokens, 100, batch_size=2).loss for r in runs)
    assert there == pytest.approx(here, rel=1e-3)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    whole = trainer(tmp_path / "whole", "run.device=cuda")
    whole.fit()
    first = trainer(tmp_path / "parts", "run.device=cuda")
    for _ in range(2):
        first.train_step()
    first.save()
    second = trainer(tmp_path / "parts", "run.device=cuda")
    second.resume()
    second.fit()
    assert second.step == 4
    for name, wanted in weights(whole).items():
        assert (weights(second)[name] == wanted).all(), name


def test_sixteen_bit_training_takes_the_same_path(tmp_path):
    run = trainer(tmp_path / "half", "run.device=cuda", "run.precision=bfloat16", "run.steps=2")
    losses = [run.train_step().loss for _ in range(2)]
    reference = trainer(tmp_path / "full", "run.steps=2")
    np.testing.assert_allclose(losses, [reference.train_step().loss for _ in range(2)], rtol=2e-2)


def test_the_peak_of_a_step_is_recorded(tmp_path):
    record = trainer(tmp_path / "peak", "run.device=cuda").train_step()
    parameters = sum(a.nbytes for a in weights(trainer(tmp_path / "sizes")).values())
    assert record.peak_memory > 3 * parameters
