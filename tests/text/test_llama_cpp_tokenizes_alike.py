"""llama.cpp, given `gguf_fields`, tokenizes as `Tokenizer` does."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from spiral.text import END_OF_TEXT, Tokenizer, demo_corpus, split

xllamacpp = pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")

WIDTH, HIDDEN = 32, 64


def write_smallest_model(path: Path, fields: dict[str, Any]) -> None:
    """A one-layer model of zeros: llama.cpp loads vocabularies with models only."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(fields["model"])
    writer.add_tokenizer_pre(fields["pre"])
    writer.add_token_list(fields["tokens"])
    writer.add_token_types(fields["token_types"])
    writer.add_token_merges(fields["merges"])
    writer.add_bos_token_id(fields["bos_token_id"])
    writer.add_eos_token_id(fields["eos_token_id"])
    square, vector = (WIDTH, WIDTH), (WIDTH,)
    block: dict[str, tuple[int, ...]] = dict.fromkeys(("attn_norm", "ffn_norm"), vector)
    block |= dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square)
    block |= {"ffn_down": (WIDTH, HIDDEN)} | dict.fromkeys(("ffn_gate", "ffn_up"), (HIDDEN, WIDTH))
    shapes = {f"blk.0.{name}": shape for name, shape in block.items()}
    shapes |= {"token_embd": (len(fields["tokens"]), WIDTH), "output_norm": vector}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(split(demo_corpus())[0])


@pytest.fixture(scope="module")
def address(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("llama") / "smallest.gguf"
    write_smallest_model(path, tokenizer.gguf_fields())
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 64
    params.warmup = False
    params.port = 0  # any free one
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


def llama_cpp_ids(address: str, text: str, parse_special: bool) -> list[int]:
    body = {"content": text, "add_special": True, "parse_special": parse_special}
    request = urllib.request.Request(
        f"{address}/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        ids: list[int] = json.load(answer)["tokens"]
    return ids


def test_whole_corpus(tokenizer: Tokenizer, address: str) -> None:
    text = demo_corpus()
    assert llama_cpp_ids(address, text, False) == tokenizer.encode(text).tolist()


@pytest.mark.parametrize("parse_special", [False, True])
def test_random_text(tokenizer: Tokenizer, address: str, parse_special: bool) -> None:
    rng = np.random.default_rng(0)
    alphabet = list("ab19 \n\t\r's<|>.é漢🙂\u00a0\u2028\x1c\u3000\u0301ßД٣½_$") + [
        END_OF_TEXT,
        "'ll",
    ]
    for _ in range(100):
        text = "".join(rng.choice(alphabet, int(rng.integers(1, 60))))
        ours = tokenizer.encode(text, parse_special=parse_special).tolist()
        assert llama_cpp_ids(address, text, parse_special) == ours, repr(text)
