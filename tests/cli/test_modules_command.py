"""`spiral modules`: lists, shows and checks; errors in one line."""

import json

import pytest

from spiral.cli.main import main

PIPELINE = """
name: small
modules:
- type: conv2d
  config: {in_channels: auto, out_channels: 4, kernel_size: 3}
- relu
- flatten
- type: linear
  config: {in_features: 144, out_features: 10}
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text(PIPELINE)
    return str(file)


def test_the_list_has_every_category_and_filters(capsys):
    assert main(["modules"]) == 0
    out = capsys.readouterr().out
    assert "Pooling\n" in out and "  max_pool2d " in out
    assert main(["modules", "--category", "pooling", "--text", "largest", "--json"]) == 0
    assert [m["type"] for m in json.loads(capsys.readouterr().out)] == ["max_pool1d", "max_pool2d"]


def test_a_type_shows_its_settings_and_an_example_that_works(capsys, tmp_path):
    assert main(["modules", "Linear"]) == 0
    out = capsys.readouterr().out
    assert "in_features" in out and "required" in out and "at least 1" in out
    example = out.partition("in a pipeline file:\n")[2]
    (tmp_path / "m.yaml").write_text(f"modules:\n{example}")
    assert main(["modules", "check", str(tmp_path / "m.yaml")]) == 0
    assert "no input is declared" in capsys.readouterr().out
    assert main(["modules", "linear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["required"] == ["in_features", "out_features"]


def test_a_file_is_checked_and_its_shapes_are_printed(capsys, path):
    assert main(["modules", "check", path, "--input", "3,8,8"]) == 0
    out = capsys.readouterr().out
    assert "(N, 3, 8, 8)" in out and "1,562 parameters" in out
    assert main(["modules", "check", path, "--input", "3x8x8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["output"] == [10]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "expected a pipeline file"),
        (["check", "PATH", "--input", "3,x"], "--input must be lengths"),
        (["check", "PATH", "--input", "3,0,8"], "positive lengths"),
        (["check", "PATH", "--input", "3,9,9"], "module 4 'linear_1' (linear) does not take float32 (N, 196)"),
        (["check", "PATH", "--dtype", "float32"], "--dtype goes with --input"),
        (["check", "PATH"], "with_input"),
        (["check", "nowhere.yaml"], "expected a readable file"),
        (["linaer"], "similar: linear"),
        (["linear", "more"], "go with `spiral modules check FILE`"),
        (["linear", "--category", "layer"], "go with the list"),
        (["--category", "pool"], "expected one of Layer"),
    ],
)
def test_wrong_use_is_told_in_one_line(capsys, path, arguments, said):
    assert main(["modules", *[path if a == "PATH" else a for a in arguments]]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("\n") == 1 and shown.out == ""
