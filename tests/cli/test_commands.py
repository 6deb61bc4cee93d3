"""The `spiral` command: help, exit statuses, one-line errors, and the way from training to export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spiral.cli.main import COMMANDS, main

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))
TINY = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32",
        "model.ffn_dim=32", "data.vocab_size=270", "run.batch_size=4", "run.eval_every=0"]  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(TEXT)
    data = f"data.path={folder / 'text.txt'}"
    assert main(["train", *TINY, data, "run.steps=20", f"run.out={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.mark.parametrize("command", [*COMMANDS, None])
def test_help_has_examples(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"] if command else ["--help"]) == 0
    shown = capsys.readouterr().out
    assert f"spiral {command}" in shown if command else "COMMAND" in shown
    if command:
        assert "examples:" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "run.step=3"], "unknown key run.step: allowed are out, steps"),
        (["train", "--resume", "nowhere"], "there is no run here"),
        (["train", "no-such.yaml"], "expected a readable YAML file"),
        (["eval", "nowhere"], "missing: config.json"),
        (["eval", "nowhere.gguf"], "there is no such file"),
        (["explain", "rms_nrm"], "similar: rms_norm"),
        (["explain", "add", "2xq"], "received '2xq'"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error


def test_evaluate_generate_export_and_evaluate_the_export(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ["--text", str(run_folder.parent / "text.txt"), "--json"]
    capsys.readouterr()
    assert main(["eval", str(run_folder), *text]) == 0
    own = json.loads(capsys.readouterr().out)
    assert own["bytes"] == len(TEXT.encode())
    assert main(["generate", str(run_folder), "--prompt", "the cat", "--tokens", "10"]) == 0
    assert capsys.readouterr().out.startswith("the cat")
    assert main(["export", str(run_folder), "--type", "q8_0"]) == 0
    assert "bits per weight" in capsys.readouterr().out
    assert main(["eval", str(run_folder / "model-q8_0.gguf"), *text]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["tokens"] == own["tokens"]
    assert exported["bits_per_byte"] == pytest.approx(own["bits_per_byte"], rel=5e-3)


def test_printed_configuration_can_be_trained_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "--print", "run.steps=7"]) == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    assert main(["train", "--print", str(tmp_path / "c.yaml")]) == 0
    assert "steps: 7" in capsys.readouterr().out


def test_ctrl_c_exits_with_130_and_resume_finishes(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    data = f"data.path={run_folder.parent / 'text.txt'}"
    command = [sys.executable, "-m", "spiral.cli", "train", *TINY, data, "run.steps=100000", f"run.out={out}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with: spiral train --resume" in error and "Traceback" not in error
    step = max(json.loads(line)["step"] for line in metrics.read_text().splitlines())
    assert main(["train", "--resume", str(out), f"run.steps={step + 3}"]) == 0


@pytest.mark.parametrize(
    ("variable", "value"), [("SPIRAL_NUM_THREADS", "many"), ("SPIRAL_ISA", "sse9"), ("SPIRAL_FALLBACK", "maybe")]
)
def test_mistaken_variable_is_one_line(variable: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spiral_command", "doctor"],
        env={**os.environ, variable: value}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"spiral: {variable}: expected" in done.stderr and f"received '{value}'" in done.stderr


def test_doctor_says_what_it_found_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "versions", "missing", "processor", "backends", "plugins", "plugins in quarantine", "environment"
    }  # fmt: skip
    processor = found["processor"]
    assert processor["threads used"] >= 1 and processor["cores"] >= 1 and "C++ for" in processor["kernels"]
    assert {"gemm kernel", "OpenBLAS core", "instruction sets", "compiler"} <= set(processor)
    assert set(found["missing"]) == {k for k, v in found["versions"].items() if v == "not installed"}
    assert all(text.startswith("without it: ") and "pip install" in text for text in found["missing"].values())


def test_doctor_names_kernels_backends_and_costly_variables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "numpy" in found["backends"] and "Haswell" in found["environment"]["OPENBLAS_CORETYPE"]
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        assert "costs speed" in found["environment"][variable]
    assert main(["doctor"]) == 0 and "gemm kernel" in capsys.readouterr().out


def test_explain_marks_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "rms_norm", "8x128", "128", "eps=0.001"]) == 0
    assert "→" in capsys.readouterr().out
    assert main(["explain", "--list"]) == 0 and "rms_norm" in capsys.readouterr().out


def test_every_op_is_explained_from_its_name_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from spiral.op import OPS

    for name in OPS:
        assert main(["explain", name]) == 0, name
        shown = capsys.readouterr().out
        assert "→" in shown and "Tensor(" not in shown, name


def test_demo_runs_from_text_to_checked_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32"]
    out = tmp_path / "demo"
    assert main(["demo", "--steps", "3", "--out", str(out), *shape, "model.ffn_dim=32", "run.batch_size=4"]) == 0
    shown = capsys.readouterr().out
    assert "to beat: zlib" in shown and "gives the same tokens" in shown
    assert {"metrics.jsonl", "card.md", "model-q8_0.gguf", "model-f16.gguf", "model.safetensors"} <= {
        path.name for path in out.iterdir()
    }
