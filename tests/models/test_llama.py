"""The Llama family: names, causality, cache, generation, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import spiral as sp
from spiral.errors import ConfigError, DataError, FormatError, ShapeError
from spiral.io import export_llama_gguf
from spiral.models import Llama, LlamaConfig, load_llama, save_llama
from spiral.models.files import set_weights, tokenizer_from_gguf, weight_arrays
from spiral.text import Tokenizer

CONFIG = LlamaConfig(vocab_size=288, context_length=16, n_layer=2, n_head=4, n_kv_head=2, dim=32, ffn_dim=64)
TEXT = "the cat sat on the mat, the dog sat on the log, and the hat sat on the cat. " * 3


@pytest.fixture
def model() -> Llama:
    sp.random.manual_seed(0)
    return Llama(CONFIG)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT, 288)


def tokens(*shape: int) -> sp.Tensor:
    return sp.asarray(np.random.default_rng(0).integers(0, CONFIG.vocab_size, shape))


def test_parameters_have_hugging_face_names(model: Llama) -> None:
    from spiral.io.llama_names import llama_tensors

    assert {name: p.shape for name, p in model.named_parameters()} == {t.ours: t.shape for t in llama_tensors(CONFIG)}


def test_untied_model_has_its_own_output_matrix() -> None:
    model = Llama(LlamaConfig(50, 8, 1, 2, 1, 8, 16, tied=False))
    assert dict(model.named_parameters())["lm_head.weight"].shape == (50, 8)


def test_later_tokens_do_not_change_earlier_logits(model: Llama) -> None:
    x = tokens(2, 10)
    with sp.no_grad():
        np.testing.assert_allclose(model(x).numpy()[:, :6], model(x[:, :6]).numpy(), atol=1e-5)


def test_cache_gives_the_logits_of_the_whole_sequence(model: Llama) -> None:
    x = tokens(1, 9)
    with sp.no_grad():
        whole = model(x).numpy()
        past, pieces = None, []
        for part in (x[:, :4], x[:, 4:5], x[:, 5:]):
            logits, past = model.step(part, past)
            pieces.append(logits.numpy())
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-5)


def test_logits_equal_transformers_formula(model: Llama) -> None:
    """Against the same model written out in float64 NumPy, with one head after the other."""
    x = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (1, 7))
    w = {name: a.astype(np.float64) for name, a in weight_arrays(model).items()}

    def norm(h: np.ndarray, name: str) -> np.ndarray:
        return h / np.sqrt((h * h).mean(-1, keepdims=True) + CONFIG.norm_eps) * w[name]

    def rotate(h: np.ndarray) -> np.ndarray:
        half = CONFIG.head_dim // 2
        angle = np.arange(len(h))[:, None] * CONFIG.rope_theta ** (-np.arange(half) / half)
        a, b = h[:, :half], h[:, half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    h, d = w["model.embed_tokens.weight"][x[0]], CONFIG.head_dim
    for i in range(CONFIG.n_layer):
        p = f"model.layers.{i}."
        n = norm(h, p + "input_layernorm.weight")
        q, k, v = (n @ w[f"{p}self_attn.{c}_proj.weight"].T for c in "qkv")
        heads = []
        for j in range(CONFIG.n_head):
            g = j // (CONFIG.n_head // CONFIG.n_kv_head)
            s = rotate(q[:, j * d : j * d + d]) @ rotate(k[:, g * d : g * d + d]).T / np.sqrt(d)
            s[np.triu_indices(len(s), 1)] = -np.inf
            e = np.exp(s - s.max(-1, keepdims=True))
            heads.append(e / e.sum(-1, keepdims=True) @ v[:, g * d : g * d + d])
        h = h + np.concatenate(heads, -1) @ w[p + "self_attn.o_proj.weight"].T
        n = norm(h, p + "post_attention_layernorm.weight")
        gate = n @ w[p + "mlp.gate_proj.weight"].T
        h = h + (gate / (1 + np.exp(-gate)) * (n @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    expected = norm(h, "model.norm.weight") @ w["model.embed_tokens.weight"].T
    with sp.no_grad():
        np.testing.assert_allclose(model(sp.asarray(x)).numpy()[0], expected, atol=2e-5)


def test_generation_goes_on_beyond_the_context_and_repeats_with_its_seed(model: Llama) -> None:
    first = model.generate([1, 2, 3], 40, temperature=1.0, top_k=20, seed=5)
    assert len(first) == 40 and first == model.generate([1, 2, 3], 40, temperature=1.0, top_k=20, seed=5)
    assert first != model.generate([1, 2, 3], 40, temperature=1.0, top_k=20, seed=6)


def test_temperature_zero_takes_the_likeliest_token(model: Llama) -> None:
    prompt = [4, 5, 6]
    with sp.no_grad():
        best = int(model(sp.asarray([prompt])).numpy()[0, -1].argmax())
    assert model.generate(prompt, 1, temperature=0.0) == [best]


def test_senseless_requests_are_refused(model: Llama) -> None:
    with pytest.raises(DataError, match="empty"):
        model.generate([], 3)
    with pytest.raises(DataError, match="0 to 287; received 999"):
        model.generate([999], 3)
    with pytest.raises(ShapeError, match="at most 16 positions"):
        model(tokens(1, 17))
    with pytest.raises(ConfigError, match="try n_kv_head=2"):
        LlamaConfig(288, 16, 2, 4, 6, 32, 64)


def test_folder_round_trip_is_exact(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_llama(tmp_path, model, tokenizer)
    loaded, again = load_llama(tmp_path)
    assert loaded.config == CONFIG and again.tokens() == tokenizer.tokens()
    for name, array in weight_arrays(model).items():
        np.testing.assert_array_equal(weight_arrays(loaded)[name], array)


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-6), ("F16", 2e-3), ("Q8_0", 2e-2)])
def test_gguf_read_back_gives_close_logits(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, kind: str, tolerance: float
) -> None:
    export_llama_gguf(tmp_path / "m.gguf", weight_arrays(model), CONFIG, tokenizer.gguf_fields(), type=kind)
    loaded, again = load_llama(tmp_path / "m.gguf")
    np.testing.assert_array_equal(again.encode(TEXT), tokenizer.encode(TEXT))
    x = tokens(2, 16)
    with sp.no_grad():
        expected, received = model(x).numpy(), loaded(x).numpy()
    assert np.abs(expected - received).max() <= tolerance * np.abs(expected).max()


def test_gguf_tokenizer_must_be_byte_level(tokenizer: Tokenizer) -> None:
    with pytest.raises(FormatError, match="byte-level BPE"):
        tokenizer_from_gguf({**tokenizer.gguf_fields(), "model": "llama"})


def test_weights_of_another_shape_are_refused(model: Llama) -> None:
    arrays = {**weight_arrays(model), "model.norm.weight": np.ones(3, np.float32)}
    with pytest.raises(FormatError, match=r"model.norm.weight must have shape \(32,\); received \(3,\)"):
        set_weights(model, arrays, "here")
    with pytest.raises(FormatError, match="missing: model.norm.weight"):
        set_weights(model, {n: a for n, a in arrays.items() if n != "model.norm.weight"}, "here")
