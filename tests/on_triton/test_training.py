"""Whole training steps on Triton alone: the losses of the CPU, nothing that waits in between."""

import numpy as np
import pytest

import spiral as sp
from spiral import optim
from spiral.device import as_device
from spiral.models import Llama, LlamaConfig

SMALL = dict(vocab_size=64, context_length=16, n_layer=1, n_head=4, n_kv_head=2, dim=32, ffn_dim=64)


def steps(device, count=2):
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


@pytest.mark.skipif(sp.backends()["cuda"].unavailable is None, reason="CUDA C++ runs here too: it is not Triton alone")
def test_a_decoder_has_the_losses_of_the_cpu_and_its_steps_never_wait():
    there, waits = steps("cuda")
    here, _ = steps("cpu")
    assert waits == 0
    np.testing.assert_allclose(there, here, rtol=1e-5)
