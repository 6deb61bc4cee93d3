"""``spiral export --format``: the formats, their options, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spiral.cli.main import main
from spiral.io import load_safetensors
from spiral.models.exporters import EXPORTERS

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))
TINY = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32",
        "model.ffn_dim=32", "data.vocab_size=270", "run.batch_size=4", "run.eval_every=0", "run.steps=3"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    (folder / "text.txt").write_text(TEXT)
    assert main(["train", *TINY, "--data", str(folder / "text.txt"), f"run.out={folder / 'run'}"]) == 0
    return folder / "run"


def test_help_lists_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    addition = EXPORTERS.add("odd-format", lambda model, tokenizer, path: None)
    try:
        assert main(["export", "--help"]) == 0
        assert "one of gguf, safetensors, odd-format (default gguf)" in re.sub(r"\s+", " ", capsys.readouterr().out)
    finally:
        addition.undo()


def test_options_of_gguf_are_its_flags(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.gguf", tmp_path / "b.gguf"
    assert main(["export", str(run), "--type", "q8_0", "--name", "x", "--out", str(a)]) == 0
    options = ["--option", "type=q8_0", "--option", "name=x"]
    assert main(["export", str(run), "--format", "gguf", *options, "--out", str(b)]) == 0
    assert a.read_bytes() == b.read_bytes()
    capsys.readouterr()
    assert main(["export", str(run), "--type", "q8_0"]) == 0
    assert capsys.readouterr().out.startswith(f"{run.resolve() / 'model-q8_0.gguf'}: ")


def test_safetensors_is_a_folder_that_can_be_evaluated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hf"
    assert main(["export", str(run), "--format", "safetensors", "--out", str(out)]) == 0
    assert f"{out / 'model.safetensors'}: " in capsys.readouterr().out
    a, b = (load_safetensors(folder / "model.safetensors").arrays for folder in (run, out))
    assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)
    assert main(["eval", str(out), "--text", str(run.parent / "text.txt")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "ggml"], "--format: there is no exporter 'ggml'; there are gguf, safetensors"),
        (["--format", "safetensors"], "--out: expected the file or folder that format 'safetensors'"),
        (["--format", "safetensors", "--type", "F16", "--out", "x"], "exporter 'safetensors': unknown key 'type'"),
        (["--option", "speed=3"], "exporter 'gguf': unknown key 'speed'"),
        (["--option", "speed"], "--option: expected KEY=VALUE; received 'speed'"),
        (["--option", "type=Q4_K"], "must be one of F32, F16, Q8_0, BF16; received 'Q4_K'"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and list(tmp_path.iterdir()) == []
