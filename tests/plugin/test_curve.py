"""Learning curves: pictures that are whole at any time, and a terminal curve that shows the data."""

from __future__ import annotations

import doctest
import importlib.util

import pytest
from recorded_run import Fails, loaded, require_same_weights, tiny_config, trained, warnings_of

import spiral.plugins.curve as curve
from spiral.errors import ArgumentError, DataError
from spiral.plugins.curve import Curve, braille, smoothed
from spiral.train import Callback, MetricsFile

HEAD = b"\x89PNG\r\n\x1a\n"
END = b"IEND\xaeB`\x82"


def dots(lines: list[str], width: int) -> dict[int, list[int]]:
    """By column of dots the rows that are lit, counted from above."""
    found: dict[int, list[int]] = {c: [] for c in range(2 * width)}
    for r, line in enumerate(lines[:-1]):
        for c, char in enumerate(line.partition("┤")[2]):
            for y, bits in enumerate(curve.DOTS):
                for x, bit in enumerate(bits):
                    if (ord(char) - 0x2800) & bit:
                        found[2 * c + x].append(4 * r + y)
    return found


def test_examples_hold():
    assert doctest.testmod(curve).failed == 0


@pytest.mark.parametrize("steepness", [0.1, 1.0, 3.0, 30.0])
def test_the_terminal_curve_falls_where_the_data_fall_and_has_no_gap(steepness):
    points = [(s, 1.0 + (s / 100) ** -steepness) for s in range(100, 1101)]
    found = dots(braille(points, 40, 6), 40)
    assert found[0][0] == 0 and found[79][-1] == 23
    for c in range(79):
        assert found[c] == list(range(found[c][0], found[c][-1] + 1))
        assert found[c + 1][0] >= found[c][0] and found[c + 1][0] - found[c][-1] <= 1


@pytest.mark.parametrize("points", [[(5, 2.0)], [(1, 2.0), (2, 2.0)], [(1, 1.0), (100000, 2.0)]])
def test_few_or_equal_points_make_a_curve_of_full_width(points):
    lines = braille(points, 20, 4)
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    assert all(dots(lines, 20).values())
    assert lines[-1].split() == [str(points[0][0]), str(points[-1][0])]


def test_smoothing_keeps_constants_and_has_no_bias_at_the_start():
    assert smoothed([(n, 3.0) for n in range(1000)]) == [(n, pytest.approx(3.0)) for n in range(1000)]
    assert smoothed([(1, 7.0), (2, 0.0)])[0] == (1, 7.0)


def test_a_run_leaves_a_picture_and_shows_its_curve(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    seen = []

    class Looks(Callback):
        def on_evaluation(self, trainer, evaluation):
            picture = (trainer.folder / "curve.png").read_bytes()
            assert picture.startswith(HEAD) and picture.endswith(END)
            seen.append(len(picture))

    with loaded("curve") as make:
        trained(tiny_config(tmp_path, run={"eval_every": 4}), callbacks=(make(seconds=0), Looks()))
    assert len(seen) == 3 and not list((tmp_path / "run").glob(".*"))
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "training loss, nats per token" and text[-1].split() == ["1", "12"]


def test_pictures_are_not_drawn_more_often_than_asked_for(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(curve, "draw", lambda runs, path: drawn.append(list(runs)))
    trained(tiny_config(tmp_path, run={"eval_every": 1}), callbacks=(Curve(seconds=1e6, terminal=False),))
    assert drawn == [["run"]] * 2 and capsys.readouterr().out == ""


def test_other_runs_are_drawn_beside_it(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match="curve: .*other: there is no run to compare with"):
        trained(tiny_config(tmp_path), callbacks=(Curve([str(other)]),))
    record = MetricsFile(other / "metrics.jsonl")
    for step in range(1, 20):
        record.add("step", {"step": step, "loss": float("nan") if step == 3 else 5.0 / step})
    with record.path.open("a") as file:
        file.write('{"event": "st')
    trained(tiny_config(tmp_path), callbacks=(Curve([str(other)]),))
    assert (tmp_path / "run" / "curve.png").read_bytes().endswith(END)


def test_without_matplotlib_there_is_a_word_about_it_and_the_terminal_curve(tmp_path, monkeypatch, caplog, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else real(name, *a))
    trained(tiny_config(tmp_path, run={"eval_every": 4}), callbacks=(Curve(seconds=0),))
    assert warnings_of(caplog, "curve") == ["curve: no picture without matplotlib; pip install 'spiral[plot]'"]
    assert not (tmp_path / "run" / "curve.png").exists() and "┤" in capsys.readouterr().out


def test_a_picture_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    (tmp_path / "run" / "curve.png").mkdir(parents=True)
    trained(tiny_config(tmp_path, run={"eval_every": 4}), callbacks=(Curve(seconds=0),))
    (warning,) = warnings_of(caplog, "curve")
    assert "curve.png: cannot be written" in warning


def test_a_failed_run_has_the_picture_of_its_last_evaluation(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    with pytest.raises(RuntimeError):
        trained(tiny_config(tmp_path, run={"eval_every": 2}), callbacks=(Curve(), Fails(5)))
    assert (tmp_path / "run" / "curve.png").read_bytes().endswith(END)


@pytest.mark.parametrize("wrong", [{"compare": "runs/a"}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_options_are_checked(wrong):
    with pytest.raises(ArgumentError, match="curve: expected a list of folders and seconds >= 0"):
        Curve(**wrong)


def test_weights_are_the_same_bits(tmp_path):
    require_same_weights(tmp_path, lambda: Curve(seconds=0), run={"eval_every": 6})
