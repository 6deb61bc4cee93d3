"""A Llama goes to GGUF and comes back."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
from tiny_llama import TinyConfig, random_arrays, tokenizer_fields

from spiral.errors import ArgumentError, FormatError
from spiral.io import GGUFFile, TensorSource, export_llama_gguf, import_llama_gguf, write_gguf
from spiral.io.llama_names import deinterleave_rope, interleave_rope


@pytest.mark.parametrize("tied", [True, False])
def test_f32_round_trip_is_exact(tmp_path: Path, tied: bool) -> None:
    config = TinyConfig(tied=tied)
    arrays = random_arrays(config)
    result = export_llama_gguf(tmp_path / "f", arrays, config, tokenizer_fields(), type="F32")
    found = import_llama_gguf(tmp_path / "f")
    assert found.config == asdict(config)
    assert found.tokenizer_fields == tokenizer_fields()
    assert set(found.arrays) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(found.arrays[name], array), name
    assert result.bits_per_weight == 32
    assert result.bytes_written == os.path.getsize(tmp_path / "f")
    assert ("output.weight" in result.tensor_types) is not tied
    assert list(GGUFFile(tmp_path / "f").metadata) == result.metadata_keys


def test_metadata_are_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    extra = {"general.license": "mit"}
    export_llama_gguf(
        tmp_path / "f",
        random_arrays(TinyConfig()),
        TinyConfig(),
        tokenizer_fields(),
        type="Q8_0",
        name="tiny",
        extra_metadata=extra,
    )
    file = GGUFFile(tmp_path / "f")
    typed = {key: (file.value_types[key], value) for key, value in file.metadata.items() if not isinstance(value, list)}
    assert typed == {
        "general.architecture": ("STRING", "llama"),
        "general.type": ("STRING", "model"),
        "general.name": ("STRING", "tiny"),
        "llama.vocab_size": ("UINT32", 262),
        "llama.context_length": ("UINT32", 64),
        "llama.embedding_length": ("UINT32", 64),
        "llama.block_count": ("UINT32", 2),
        "llama.feed_forward_length": ("UINT32", 96),
        "llama.attention.head_count": ("UINT32", 4),
        "llama.attention.head_count_kv": ("UINT32", 2),
        "llama.rope.freq_base": ("FLOAT32", 10000.0),
        "llama.attention.layer_norm_rms_epsilon": ("FLOAT32", float(np.float32(1e-5))),
        "llama.rope.dimension_count": ("UINT32", 16),
        "tokenizer.ggml.model": ("STRING", "gpt2"),
        "tokenizer.ggml.pre": ("STRING", "gpt-2"),
        "tokenizer.ggml.bos_token_id": ("UINT32", 0),
        "tokenizer.ggml.eos_token_id": ("UINT32", 0),
        "general.license": ("STRING", "mit"),
        "general.quantization_version": ("UINT32", 2),
        "general.file_type": ("UINT32", 7),
    }
    assert file.value_types["tokenizer.ggml.token_type"] == "ARRAY[INT32]"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_norms_are_f32_and_matrices_are_in_the_type(tmp_path: Path, kind: str) -> None:
    arrays = random_arrays(TinyConfig())
    result = export_llama_gguf(tmp_path / "f", arrays, TinyConfig(), tokenizer_fields(), type=kind)
    for name, found in result.tensor_types.items():
        assert found == ("F32" if "norm" in name else kind)
    assert not result.fallbacks
    bits = {"F16": 16, "BF16": 16, "Q8_0": 8.5}[kind]
    assert bits < result.bits_per_weight < bits + 0.3
    for name, array in import_llama_gguf(tmp_path / "f").arrays.items():
        assert np.abs(array - arrays[name]).max() < 0.01


def test_tensors_lie_in_the_order_of_llama_quantize(tmp_path: Path) -> None:
    config = TinyConfig(n_layer=11, dim=4, n_head=2, ffn_dim=4)
    result = export_llama_gguf(tmp_path / "f", random_arrays(config), config, tokenizer_fields())

    def order(name: str) -> tuple[int, str]:
        return (int(name.split(".")[1]) if name.startswith("blk.") else -1, name)

    assert list(result.tensor_types) == sorted(result.tensor_types, key=order)


def test_fallbacks_are_reported(tmp_path: Path) -> None:
    config = TinyConfig(ffn_dim=80)
    arrays = random_arrays(config)
    arrays["lm_head.weight"] *= 1e-8
    result = export_llama_gguf(tmp_path / "f", arrays, config, tokenizer_fields(), type="Q8_0")
    assert set(result.fallbacks) == {
        "output.weight",
        "blk.0.ffn_down.weight",
        "blk.1.ffn_down.weight",
    }
    assert result.fallbacks["blk.0.ffn_down.weight"].startswith("F16: Q8_0 needs rows")
    assert result.fallbacks["output.weight"].startswith("F32: its largest magnitude")
    assert result.tensor_types["output.weight"] == "F32"
    found = import_llama_gguf(tmp_path / "f").arrays["lm_head.weight"]
    assert np.array_equal(found, arrays["lm_head.weight"])


def test_bf16_arrays_are_exported_exactly(tmp_path: Path) -> None:
    arrays = {k: v.astype(ml_dtypes.bfloat16) for k, v in random_arrays(TinyConfig()).items()}
    export_llama_gguf(tmp_path / "f", arrays, TinyConfig(), tokenizer_fields(), type="BF16")
    for name, array in import_llama_gguf(tmp_path / "f").arrays.items():
        assert np.array_equal(array, arrays[name].astype(np.float32))


def test_rope_layouts_are_inverse_and_rotate_the_same_pairs() -> None:
    rows = np.arange(2 * 8 * 3).reshape(16, 3)
    interleaved = interleave_rope(rows, 2)
    assert np.array_equal(deinterleave_rope(interleaved, 2), rows)
    for head in range(2):
        for pair in range(4):
            first, second = interleaved[8 * head + 2 * pair], interleaved[8 * head + 2 * pair + 1]
            assert np.array_equal(first, rows[8 * head + pair])
            assert np.array_equal(second, rows[8 * head + 4 + pair])


def test_rows_without_a_token_are_padded_and_the_padding_is_taken_off(tmp_path: Path) -> None:
    config = TinyConfig(vocab_size=264)
    export_llama_gguf(tmp_path / "f", random_arrays(config), config, tokenizer_fields())
    file = GGUFFile(tmp_path / "f")
    assert file.metadata["tokenizer.ggml.tokens"][-4:] == [
        "[PAD260]",
        "[PAD261]",
        "[PAD262]",
        "[PAD263]",
    ]
    assert file.metadata["tokenizer.ggml.token_type"][-5:] == [1, 5, 5, 5, 5]
    found = import_llama_gguf(tmp_path / "f")
    assert found.tokenizer_fields == tokenizer_fields()
    assert found.config["vocab_size"] == 264


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    config, arrays, fields = TinyConfig(), random_arrays(TinyConfig()), tokenizer_fields()
    without = {name: array for name, array in arrays.items() if name != "model.norm.weight"}
    wrong = {**arrays, "model.norm.weight": np.ones(63, np.float32)}
    broken = {**arrays, "model.norm.weight": np.full(64, np.inf, np.float32)}
    untyped = {name: value for name, value in fields.items() if name != "token_types"}
    target = tmp_path / "f"
    for tensors, shape, tokens, message in (
        (without, config, fields, "missing: model.norm.weight; unexpected: none"),
        (arrays, TinyConfig(tied=True), fields, "unexpected: lm_head.weight; a tied model has no"),
        (wrong, config, fields, r"model.norm.weight must have shape \(64,\); received \(63,\)"),
        (broken, config, fields, "model.norm.weight holds 64 of 64 values that are NaN or inf"),
        (arrays, config, untyped, r"missing: \['token_types'\]"),
        (arrays, config, {**fields, "bos": 1}, r"unknown: \['bos'\]"),
        (arrays, TinyConfig(vocab_size=100), fields, "vocab_size = 100"),
        (arrays, TinyConfig(n_head=3), fields, "n_head must divide dim"),
        (arrays, TinyConfig(ffn_dim=0), fields, "config.ffn_dim must be positive"),
        (arrays, TinyConfig(norm_eps=float("nan")), fields, "config.norm_eps must be positive"),
    ):
        with pytest.raises(ArgumentError, match=message):
            export_llama_gguf(target, tensors, shape, tokens)
    with pytest.raises(ArgumentError, match=r"must be one of F32.*received 'Q9'"):
        export_llama_gguf(target, arrays, config, fields, type="Q9")
    with pytest.raises(ArgumentError, match=r"must not hold llama.block_count"):
        extra = {"llama.block_count": 3}
        export_llama_gguf(target, arrays, config, fields, extra_metadata=extra)
    assert os.listdir(tmp_path) == []


def _rewritten(tmp_path: Path, changes: dict[str, object], *extra: TensorSource) -> Path:
    """An exported file with some metadata changed and tensors added."""
    path = tmp_path / "f"
    export_llama_gguf(path, random_arrays(TinyConfig()), TinyConfig(), tokenizer_fields())
    file = GGUFFile(path)
    metadata = {**file.metadata, **changes}
    architecture = metadata.pop("general.architecture")
    sources = [
        TensorSource(name, info.shape, info.type, partial(file.array, name)) for name, info in file.tensors.items()
    ]
    kept = {key: value for key, value in metadata.items() if value is not None}
    write_gguf(tmp_path / "g", architecture, kept, [*sources, *extra])
    return tmp_path / "g"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "gpt2"}, "must be 'llama'; received 'gpt2'"),
        ({"llama.block_count": None}, "llama.block_count must be a positive int; received None"),
        ({"llama.block_count": 2**32 - 1}, "llama.block_count is 4294967295"),
        ({"llama.block_count": 3}, "missing: blk.2.attn_k.weight"),
        ({"llama.block_count": 1}, "unexpected: blk.1.attn_k.weight"),
        ({"llama.embedding_length": 0}, "must be a positive int; received 0"),
        ({"llama.embedding_length": "x"}, "must be a positive int; received x"),
        ({"llama.embedding_length": 128}, "dimension_count must be .* = 32"),
        ({"llama.feed_forward_length": 64}, r"'blk.0.ffn_down.weight' must have shape \(64, 64\)"),
        ({"llama.attention.head_count": 3}, "heads of even size"),
        ({"llama.rope.freq_base": float("nan")}, "positive float; received nan"),
        ({"llama.rope.scaling.type": "yarn"}, "must be 'none'.*received 'yarn'"),
        ({"llama.expert_count": 8}, "llama.expert_count must be 0"),
        ({"llama.attention.key_length": 32}, "llama.attention.key_length must be"),
        ({"tokenizer.ggml.tokens": 5}, "must be arrays of strings"),
        ({"tokenizer.ggml.tokens": ["a"]}, "one entry for each of the 1 tokens"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        import_llama_gguf(_rewritten(tmp_path, changes))


def test_scaled_rope_is_refused(tmp_path: Path) -> None:
    factors = TensorSource("rope_freqs.weight", (8,), "F32", lambda: np.ones(8, np.float32))
    with pytest.raises(FormatError, match=r"rope_freqs.weight scales RoPE"):
        import_llama_gguf(_rewritten(tmp_path, {}, factors))


def test_llama_cpps_defaults_hold_where_keys_are_absent(tmp_path: Path) -> None:
    path = _rewritten(tmp_path, {"llama.vocab_size": None, "llama.rope.freq_base": None})
    assert import_llama_gguf(path).config == asdict(TinyConfig())


def test_the_gguf_package_sees_the_same_tensors(tmp_path: Path) -> None:
    arrays = random_arrays(TinyConfig())
    export_llama_gguf(tmp_path / "f", arrays, TinyConfig(), tokenizer_fields(), type="F32")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "f").tensors}
    down = tensors["blk.1.ffn_down.weight"]
    assert list(down.shape) == [96, 64]
    assert np.array_equal(down.data, arrays["model.layers.1.mlp.down_proj.weight"])
