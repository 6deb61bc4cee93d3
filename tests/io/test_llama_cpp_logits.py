"""llama.cpp computes from our GGUF files what the model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from llama_cpp_oracle import LlamaCpp
from tiny_llama import TinyConfig, forward, random_arrays, tokenizer_fields

from spiral.io import export_llama_gguf, import_llama_gguf
from spiral.io.llama_names import interleave_rope

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: llama.cpp was not asked")

# Ids with repetition, the control token, and positions on both sides of a rope period.
_IDS = [84, 260, 1, 0, 17, 17, 200, 33, 258, 9, 101, 84, 84, 3, 255, 40, 77, 12, 66, 5]
_PLAIN = tokenizer_fields()["tokens"].index("a")
_PREFIXES = (1, 2, 7, 20)


def _worst(path: Path, config: TinyConfig, expected: np.ndarray) -> float:
    model = LlamaCpp(path, config.vocab_size, config.context_length, _PLAIN)
    worst = 0.0
    for length in _PREFIXES:
        found = model.next_logprobs(_IDS[:length])
        worst = max(worst, float(np.abs(found - expected[length - 1]).max()))
    return worst


@pytest.mark.parametrize(
    "config",
    [
        TinyConfig(),
        TinyConfig(tied=True),
        TinyConfig(n_kv_head=4, rope_theta=500.0, norm_eps=1e-2),
        TinyConfig(n_kv_head=1, dim=48, ffn_dim=80, n_layer=3),
    ],
    ids=["untied-gqa", "tied", "mha-other-theta-eps", "one-kv-head-odd-sizes"],
)
def test_f32_file_gives_the_models_logprobs(tmp_path: Path, config: TinyConfig) -> None:
    arrays = random_arrays(config)
    path = tmp_path / "model.gguf"
    export_llama_gguf(path, arrays, config, tokenizer_fields(), type="F32")
    worst = _worst(path, config, forward(arrays, config, _IDS))
    print(f"largest difference of a log-probability: {worst:.2e}")
    assert worst < 1e-3  # largest found: 1.3e-5


# llama.cpp rounds activations to the weights' type (8 bits a block for Q8_0), the oracle does not;
# found: 1.5e-3, 1.8e-2, 6.8e-2.
@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 4e-3), ("BF16", 4e-2), ("Q8_0", 0.15)])
def test_other_types_give_the_logprobs_of_the_stored_weights(tmp_path: Path, kind: str, tolerance: float) -> None:
    config = TinyConfig()
    path = tmp_path / "model.gguf"
    export_llama_gguf(path, random_arrays(config), config, tokenizer_fields(), type=kind)
    expected = forward(import_llama_gguf(path).arrays, config, _IDS)[-1]
    model = LlamaCpp(path, config.vocab_size, config.context_length, _PLAIN)
    error = float(np.std(model.next_logprobs(_IDS) - expected) / np.std(expected))
    print(f"{kind}: error of the log-probabilities relative to their spread: {error:.2e}")
    assert error < tolerance


def test_comparison_sees_a_missing_rope_permutation(tmp_path: Path) -> None:
    config = TinyConfig()
    arrays = random_arrays(config)
    path = tmp_path / "model.gguf"
    export_llama_gguf(path, arrays, config, tokenizer_fields(), type="F32")
    unpermuted = {
        name: interleave_rope(array, config.n_head) if "q_proj" in name else array for name, array in arrays.items()
    }
    assert _worst(path, config, forward(unpermuted, config, _IDS)) > 0.1


def test_text_is_tokenized_by_the_files_vocabulary(tmp_path: Path) -> None:
    config = TinyConfig()
    path = tmp_path / "model.gguf"
    export_llama_gguf(path, random_arrays(config), config, tokenizer_fields(), type="F32")
    model = LlamaCpp(path, config.vocab_size, config.context_length, _PLAIN)
    # "the" is one token, " " and "c" bytes, "an" one: no token is put in front
    assert model.count_tokens("the can") == 4
    tokens = tokenizer_fields()["tokens"]
    ids = [tokens.index(token) for token in ("the", "Ġ", "c", "an")]
    assert np.array_equal(model.next_logprobs("the can"), model.next_logprobs(ids))


def test_vocabulary_without_merges_loads(tmp_path: Path) -> None:
    config = TinyConfig(vocab_size=257)
    path = tmp_path / "model.gguf"
    export_llama_gguf(path, random_arrays(config), config, tokenizer_fields(merges=()))
    model = LlamaCpp(path, config.vocab_size, config.context_length, _PLAIN)
    assert model.count_tokens("the can") == 7
