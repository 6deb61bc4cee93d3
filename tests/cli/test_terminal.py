"""What the command does to terminals, pipes, logs and odd environments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spiral.cli.main import main

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))
TINY = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32",
        "model.ffn_dim=32", "data.vocab_size=270", "run.batch_size=4", "run.eval_every=0",
        "run.log_every=1"]  # fmt: skip
ESCAPE = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
SPIRAL = [sys.executable, "-m", "spiral.cli"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "text.txt").write_text(TEXT)
    assert main(["train", *TINY, "--data", str(folder / "text.txt"), "run.steps=5", f"run.out={folder / 'run'}"]) == 0
    return folder / "run"


def train(folder: Path, out: Path, *more: str) -> list[str]:
    return [*SPIRAL, "train", *TINY, "--data", str(folder.parent / "text.txt"), f"run.out={out}", *more]


def environment(**changes: str | None) -> dict[str, str]:
    merged = {**os.environ, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def test_reader_that_goes_away_is_no_error(run_folder: Path) -> None:
    command = [*SPIRAL, "generate", str(run_folder), "--tokens", "300", "--temperature", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0


def test_training_goes_on_when_its_reader_has_gone(run_folder: Path, tmp_path: Path) -> None:
    command = train(run_folder, tmp_path / "run", "run.steps=60")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read().decode()
    assert process.wait(60) == 0 and error.count("\n") == 1 and "the run goes on" in error
    assert (tmp_path / "run" / "checkpoints" / "step-00000060").is_dir()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["explain", "--list"], ["--version"]])
def test_output_that_cannot_be_written_is_status_2(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*SPIRAL, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and "cannot write the output: No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_closed_output_and_error_streams(tmp_path: Path) -> None:
    done = subprocess.run(f"{sys.executable} -m spiral.cli explain add >&- 2>&-", shell=True, check=False, timeout=60)
    assert done.returncode == 0
    done = subprocess.run(f"{sys.executable} -m spiral.cli eval nowhere 2>&-", shell=True, check=False, timeout=60)
    assert done.returncode == 2


def test_a_log_has_no_control_characters(run_folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(train(run_folder, tmp_path / "run", "run.steps=8"), capture_output=True, check=True)
    assert not ESCAPE.search(done.stdout) and not ESCAPE.search(done.stderr)
    assert done.stdout.count(b"\nstep ") >= 8 and done.stderr == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
@pytest.mark.parametrize(("columns", "no_color"), [(20, True), (120, False)])
def test_terminals_narrow_and_wide(run_folder: Path, tmp_path: Path, columns: int, no_color: bool) -> None:
    import fcntl
    import pty
    import struct
    import termios

    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = environment(NO_COLOR="1" if no_color else None, TERM="xterm-256color", COLUMNS=None)
    command = train(run_folder, tmp_path / "run", "run.steps=20")
    process = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=variables)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # Linux says so when the other end has closed
            break
        if not part:
            break
        shown += part
    os.close(main_end)
    assert process.stderr is not None and process.stderr.read() == b"" and process.wait(60) == 0
    assert b"20/20" in shown.replace(b"\r\n", b"") or columns < 40
    colours = [int(n) for m in re.findall(rb"\x1b\[([0-9;]+)m", shown) for n in m.split(b";")]
    assert not (no_color and any(30 <= n <= 48 or 90 <= n for n in colours))
    assert shown.count(b"\x1b[?25h") >= shown.count(b"\x1b[?25l")  # the cursor is given back


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_in_other_encodings(run_folder: Path, tmp_path: Path, encoding: str) -> None:
    variables = environment(PYTHONIOENCODING=encoding)
    for command in (
        [*SPIRAL, "explain", "rms_norm"],
        [*SPIRAL, "generate", str(run_folder), "--prompt", "naïve — 猫", "--tokens", "5", "--temperature", "9"],
        train(run_folder, tmp_path / "run", "run.steps=3"),
        [*SPIRAL, "eval", str(tmp_path / "kätzchen-猫")],
    ):
        done = subprocess.run(command, env=variables, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr and done.returncode == (2 if "eval" in command else 0), done.stderr


def test_without_a_home_and_in_a_folder_that_was_removed(run_folder: Path, tmp_path: Path) -> None:
    variables = environment(HOME=None, XDG_CONFIG_HOME=None, XDG_CACHE_HOME=None, TMPDIR=None)
    done = subprocess.run(
        train(run_folder, tmp_path / "run", "run.steps=2"), env=variables, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && {sys.executable} -m spiral.cli "
    for command, status in (("train --data x", 2), (f"eval {run_folder} --text x", 2)):
        done = subprocess.run(
            script + command, shell=True, env=environment(PYTHONPATH=os.getcwd()), capture_output=True, check=False
        )
        assert done.returncode == status and b"Traceback" not in done.stderr, done.stderr
