"""Whatever is wrong on a command line: status 2, one line on standard error, no traceback, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spiral.cli.main import main
from spiral.train import TrainConfig
from spiral.train.config_limits import CHOICES, RANGES

TEXT = "".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5}.\n\n" for i in range(300))
TINY = ["model.context_length=16", "model.n_layer=1", "model.n_head=2", "model.n_kv_head=1", "model.dim=32",
        "model.ffn_dim=32", "data.vocab_size=270", "run.batch_size=4", "run.eval_every=0", "run.steps=3"]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts good and bad, configurations, and a model."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "text.txt").write_text(TEXT)
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text("\n \n" * 50)
    (folder / "binary.dat").write_bytes(bytes(range(256)) * 10)
    (folder / "latin.txt").write_bytes("café été\n".encode("latin-1") * 50)
    (folder / "short.txt").write_text("hello world\n\nbye\n")
    (folder / "one.txt").write_text("x")
    (folder / "nofiles").mkdir()
    (folder / "bad.yaml").write_text("run: [1,\n")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "empty.yaml").write_text("")
    (folder / "twice.yaml").write_text("run: {steps: 3, steps: 4}\n")
    (folder / "object.yaml").write_text("run: !!python/object/apply:os.system ['touch pwned']\n")
    (folder / "deep.yaml").write_text("[" * 5000)
    (folder / "keys.yaml").write_text("run:\n  null: 3\n")
    (folder / "unhashable.yaml").write_text("? [a]\n: 1\n")
    (folder / "date.yaml").write_text("run: {out: 2024-13-45}\n")
    (folder / "bomb.yaml").write_text(
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    )
    assert main(["train", *TINY, "--data", str(folder / "text.txt"), f"run.out={folder / 'model'}"]) == 0
    return folder


def failure(
    arguments: list[str], world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The line that a command says when it fails, which it must, without leaving anything."""
    monkeypatch.chdir(world)
    before = sorted(world.rglob("*"))
    capsys.readouterr()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and shown.err.startswith("spiral") and "Traceback" not in shown.err, shown.err
    assert sorted(world.rglob("*")) == before
    return shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("trian", "did you mean `spiral train`?"),
        ("train --resum model", "did you mean --resume?"),
        ("train --overwrite runs.steps=3", "unknown key runs: allowed are model, data, optim, run; did you mean run?"),
        ("train a.yaml b.yaml", "at most one YAML file"),
        ("train --resume model --overwrite", "expected --resume or --overwrite; received both"),
        ("train --resume model optim.ema=0.9", "optim.ema=0.9 (was 0.0): these cannot change"),
        ("train --resume nofiles", "there is no run here"),
        ("train run.out=model --data text.txt", "holds the checkpoints of another run (up to step-00000003)"),
        ("train run.out=text.txt", "File exists"),
        ("train run.out=text.txt/x", "Not a directory"),
        ("train run.steps", "settings on the command line have the form section.key=value"),
        ("train run.steps=", "expected a value after ="),
        ("train =3", "expected section.key=value"),
        ("train run..steps=3", "expected section.key=value"),
        ("train run.steps=[1", "expected YAML"),
        ("train run=null", "run: expected the keys out, steps"),
        ("train --data text.txt model.n_head=3", "try n_head=2"),
        ("train --data text.txt run.batch_size=2000000000", "GiB of memory"),
        ("train --data text.txt model.dim=2000000000", "GiB of memory"),
        ("train --data text.txt model.context_length=2000000000", "GiB of memory"),
        ("train --data text.txt run.patience=1 run.eval_every=0", "run.patience counts evaluations"),
        ("train --data text.txt data.held_out=0.99999", "one part would be blank"),
        ("train --data one.txt", "one part would be blank"),
        ("train --data empty.txt", "the dataset is empty (0 bytes"),
        ("train --data blank.txt", "no visible character"),
        ("train --data binary.dat", "expected UTF-8 text; received byte 0x80 at byte offset 128"),
        ("train --data latin.txt", "iconv -f latin1 -t utf-8"),
        ("train --data short.txt", "the text is shorter than one context"),
        ("train --data nofiles", "no text files found; expected files that end in .txt"),
        ("train --data nowhere", "there is nothing by that name"),
        ("train --data /dev/zero", "received a device"),
        ("train bad.yaml", "expected YAML"),
        ("train binary.yaml", "expected a YAML file in UTF-8"),
        ("train empty.yaml", "expected a mapping with the sections model, data, optim, run; received nothing"),
        ("train twice.yaml", "the key 'steps' occurs twice"),
        ("train object.yaml", "could not determine a constructor"),
        ("train deep.yaml", "nested too deep"),
        ("train keys.yaml", "unknown key run.None"),
        ("train unhashable.yaml", "expected YAML"),
        ("train date.yaml", "expected YAML"),
        ("train bomb.yaml", "unknown key a"),
        ("train nofiles", "expected a readable YAML file (Is a directory)"),
        ("eval", "the following arguments are required: model"),
        ("eval nowhere", "missing: config.json, model.safetensors, tokenizer.json"),
        ("eval nowhere.gguf", "there is no such file"),
        ("eval text.txt", "expected a .gguf file or a folder"),
        ("eval model --batch-size 0", "batch_size must be an integer of at least 1; received 0"),
        ("eval model --batch-size x", "invalid int value: 'x'"),
        ("eval model --held-out 2", "held_out must be between 0 and 1"),
        ("eval model --text empty.txt", "the dataset is empty"),
        ("generate model --tokens -1", "received n=-1"),
        ("generate model --temperature nan", "temperature=nan"),
        ("generate model --temperature -1", "temperature=-1.0"),
        ("generate model --top-k -3", "top_k=-3"),
        ("generate model --seed -1", "seed=-1"),
        ("generate model --prompt \udcff", "the lone surrogate"),
        ("generate model extra", "unknown argument 'extra'"),
        ("export model --type Q4_K", "must be one of F32, F16, Q8_0, BF16; received 'Q4_K'"),
        ("export model --out nowhere/m.gguf", "create the folder first"),
        ("export model --out nofiles", "Is a directory"),
        ("export model --out /dev/null", "it is no regular file"),
        ("export model --out " + "x" * 300, "File name too long"),
        ("demo --seconds x", "invalid float value"),
        ("demo --seconds nan --out q", "seconds must be positive"),
        ("demo --steps 0 --out q", "run.steps: must be at least 1"),
        ("demo --steps 5 --seconds 5", "not allowed with argument --steps"),
        ("demo word --out q", "expected section.key=value"),
        ("explain rms_nrm", "similar: rms_norm"),
        ("explain add 2xq", "received '2xq'"),
        ("explain add 2x3:float33", "the dtype must be one of"),
        ("explain add 2x3 2x4", "shapes must broadcast"),
        ("explain add 2x3 2x3 2x3", "add has 2 input(s)"),
        ("explain add 99999x99999x99999 2", "at most 268,435,456 elements"),
        ("explain sum 2x3 axis=9", "axis must be in [-2, 1]"),
        ("explain rms_norm 8x128 128 epsilon=1", "allowed: eps"),
        ("explain attention 1x4x16x32", "the attribute scale (float) is required"),
    ],
)  # fmt: skip
def test_mistake_is_one_line(
    arguments: str, message: str, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in failure(arguments.split(), world, capsys, monkeypatch)


@pytest.mark.parametrize("key", [*RANGES, *CHOICES])
def test_every_setting_has_limits_and_says_them(
    key: str, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond = ["nonsense"] if key in CHOICES else ["-1", str(10**20), "-.inf"]
    wrong = ["true", "[1]", "{a: 1}", "null", "words", "1e400", ".nan"]
    for value in [*beyond, *(() if key in CHOICES else wrong)]:
        said = failure(["train", "--print", f"{key}={value}"], world, capsys, monkeypatch)
        assert f"{key}: " in said and "received" in said
    said = failure(["train", "--print", f"run.steps={'9' * 5000}"], world, capsys, monkeypatch)
    assert len(said) < 500


def test_every_number_of_the_configuration_has_a_range() -> None:
    numbers = {
        f"{section}.{key}"
        for section, values in TrainConfig().to_dict().items()
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    assert numbers == set(RANGES)


def test_text_settings_are_taken_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print", "data.path=2024-01-02", "run.out=[1]: x", "--data", "null"]) == 0
    assert "path: 'null'" in capsys.readouterr().out
    assert main(["train", "data.path=007", "--print"]) == 0
    assert "path: '007'" in capsys.readouterr().out
    assert main(["train", "--print", "data.path=null"]) == 0
    assert "path: null" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"hidden_size": 10**12}, "dim must be positive and below 2**31"),
        ("config.json", {"vocab_size": 10**9}, "describes 32,000,006,240 parameters"),
        ("config.json", {"num_hidden_layers": 10**9}, "they do not belong together"),
        ("config.json", {"num_hidden_layers": "x"}, "n_layer must be an integer; received 'x'"),
        ("config.json", {"hidden_size": True}, "dim must be an integer; received True"),
        ("config.json", {"rope_theta": float("inf")}, "rope_theta must be positive and finite"),
        ("config.json", {"rms_norm_eps": None}, "norm_eps must be a number; received None"),
        ("config.json", {"tie_word_embeddings": 0}, "tied must be True or False; received 0"),
        ("config.json", {"model_type": "gpt2"}, "model_type must be 'llama'; received 'gpt2'"),
        ("config.json", b"[1]", "expected a JSON object; received list"),
        ("config.json", b"\xff", "expected a Llama's configuration in JSON"),
        ("config.json", b"[" * 100_000, "expected a Llama's configuration in JSON"),
        ("tokenizer.json", b"{}", "expected the content of a tokenizer.json"),
        ("tokenizer.json", b"\xff", "expected UTF-8"),
        ("model.safetensors", b"", "the file has 0 bytes"),
        ("model.safetensors", b"\x02" + b"\0" * 7 + b"{}", "in 0 tensors: they do not belong together"),
        ("train.json", b"{", "cannot be read"),
        ("train.json", b'{"run": {"stepps": 1}}', "did you mean run.steps?"),
    ],
)
def test_forged_model_is_refused_before_anything_is_allocated(
    file: str, content: dict[str, object] | bytes, message: str, world: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    import tracemalloc

    forged = tmp_path / "forged"
    shutil.copytree(world / "model", forged)
    if isinstance(content, dict):
        content = json.dumps({**json.loads((forged / file).read_text()), **content}).encode()
    (forged / file).write_bytes(content)
    command = ["train", "--resume"] if file == "train.json" else ["generate"]
    tracemalloc.start()
    try:
        assert message in failure([*command, str(forged)], world, capsys, monkeypatch)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_context_of_billions_costs_nothing(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(world / "model", tmp_path / "m")
    fields = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**fields, "max_position_embeddings": 2**31 - 1}))
    assert main(["generate", str(tmp_path / "m"), "--tokens", "3"]) == 0
