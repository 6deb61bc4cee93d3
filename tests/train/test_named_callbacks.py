"""Callbacks that a configuration names: their options, their order, their state, and what a mistake says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import tiny_config, trained, weights

from spiral.cli.main import main
from spiral.errors import ConfigError
from spiral.named import from_text, written
from spiral.ownership import Ledger
from spiral.train import CALLBACKS, Callback, StepRecord, TrainConfig, Trainer, create_callback, load_config, prepare
from spiral.train.checkpoint import load_checkpoint


class Note(Callback):
    """Counts steps.

    Args:
        every: How often.
        label: What it is called.
    """

    def __init__(self, every: int = 1, label: str = "note") -> None:
        self.every, self.label, self.count = every, label, 0

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        self.count += record.step % self.every == 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


@pytest.fixture(autouse=True)
def _note() -> Iterator[None]:
    ledger = Ledger("test")
    with ledger.recording():
        CALLBACKS.add("note", Note)
        CALLBACKS.add("no-callback", lambda: 3)
    yield
    assert ledger.undo_all() == []


def notes(trainer: Trainer) -> list[Note]:
    return [c for c in trainer.callbacks if isinstance(c, Note)]


def test_names_and_options_come_from_yaml_and_from_overrides(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("run:\n  callbacks:\n    - live\n    - note: {every: 3, label: x}\n    - note: {}\n")
    config = load_config(file)
    assert config.run.callbacks == ("live", {"note": {"every": 3, "label": "x"}}, "note")
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert load_config(file, ["run.callbacks=note, live"]).run.callbacks == ("note", "live")
    assert load_config(file, ["run.callbacks=[{note: {every: 2}}]"]).run.callbacks == ({"note": {"every": 2}},)
    assert load_config(file, ["run.callbacks=null"]).run.callbacks == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "run.callbacks: expected a list of names, or of mappings from a name to its options; received 3"),
        ("[3]", "run.callbacks: expected a name, or one name with options"),
        ("[{a: {}, b: {}}]", "run.callbacks: expected a name, or one name with options"),
        ("a,,b", "run.callbacks: expected a name, or one name with options"),
        ("[{note: 3}]", "run.callbacks.note: expected options by name; received 3"),
        ("[{note: {1: 2}}]", "run.callbacks.note: expected names of options; received 1"),
        ("[{note: {every: 2026-01-01}}]", "run.callbacks.note.every: expected text, a number"),
    ],
)
def test_what_is_no_list_of_names_is_refused(value: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainConfig().with_overrides([f"run.callbacks={value}"])
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", ":a=1", "note:", "note:every", "note:=1", "note:every=1,=2"])
def test_text_without_name_or_option_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="name:option=value"):
        from_text(text)


def test_text_may_have_values_with_commas_and_equal_signs() -> None:
    assert from_text("a:x=1,2,y=b=c,z=") == {"a": {"x": "1,2", "y": "b=c", "z": ""}}
    assert written("k", [from_text("a"), from_text("b:c=1")]) == ("a", {"b": {"c": "1"}})


def test_configured_callbacks_run_before_the_given_ones(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run={"callbacks": [{"note": {"every": 4}}, "note"], "steps": 8})
    given = Note(label="given")
    trainer = trained(config, callbacks=(given,)).trainer
    assert [(c.label, c.count) for c in notes(trainer)] == [("note", 2), ("note", 8), ("given", 8)]
    assert notes(trainer)[-1] is given


def test_two_of_one_class_keep_their_own_states(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run={"callbacks": [{"note": {"every": 4}}, "note"], "steps": 8})
    trainer = trained(config).trainer
    saved = load_checkpoint(trainer.checkpoints).state["callbacks"]
    assert saved == {"Note": {"count": 2}, "Note#2": {"count": 8}}
    more = trained(config.updated({"run": {"steps": 12}}), resume=True).trainer
    assert [c.count for c in notes(more)] == [3, 12]


def test_callbacks_may_come_and_go_between_runs_without_changing_the_bits(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run={"steps": 8})
    whole = weights(trained(config.updated({"run": {"out": str(tmp_path / "whole"), "steps": 12}})))
    trained(config.updated({"optim": {"schedule": "cosine"}, "run": {"steps": 12, "callbacks": ["note"]}}))
    for name, array in weights(prepare(config.updated({"run": {"steps": 12}}), resume=True)).items():
        np.testing.assert_array_equal(array, whole[name])
    again = prepare(config.updated({"run": {"steps": 12, "callbacks": ["note"]}}), resume=True)
    assert notes(again.trainer)[0].count == 12


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (["nota"], r"run.callbacks.nota: there is no callback 'nota'; similar: note"),
        ([{"note": {"evry": 3}}], r"run.callbacks.note: .*evry"),
        (["no-callback"], r"callback 'no-callback': expected it to make a spiral.train.Callback; received 3"),
    ],
)
def test_mistakes_are_found_before_the_folder_is_written(tmp_path: Path, callbacks: Any, message: str) -> None:
    config = tiny_config(tmp_path, run={"callbacks": callbacks})
    with pytest.raises(ConfigError, match=message):
        prepare(config)
    assert not (Path(config.run.out) / "tokenizer.json").exists()


def test_scripts_make_callbacks_by_name() -> None:
    made = create_callback("note", every=5)
    assert isinstance(made, Note) and made.every == 5
    with pytest.raises(ConfigError, match="create_callback: .*evry"):
        create_callback("note", evry=5)


def test_command_line_adds_callbacks_and_gives_them_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("run: {callbacks: [note, other]}\n")
    command = ["train", str(tmp_path / "c.yaml"), "--print", "--callback", "note:every=5,label=a b"]
    assert main([*command, "--callback", "third"]) == 0
    (tmp_path / "d.yaml").write_text(capsys.readouterr().out)
    expected = ("other", {"note": {"every": "5", "label": "a b"}}, "third")
    assert load_config(tmp_path / "d.yaml").run.callbacks == expected
    assert main(["train", "--print", "--callback", "note:"]) == 2
    assert "expected a name, or name:option=value" in capsys.readouterr().err


def test_callback_that_shows_progress_replaces_the_commands_own_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class View(Callback):
        shows_progress = True

    config = tiny_config(tmp_path, run={"steps": 2})
    settings = [f"{s}.{k}={v}" for s, values in config.to_dict().items() for k, v in values.items()]
    with Ledger("test").recording():
        addition = CALLBACKS.add("view", View)
    try:
        assert main(["train", *settings, "run.log_every=1", "run.callbacks=view"]) == 0
        assert "step      1" not in capsys.readouterr().out
        assert main(["train", *settings, "run.log_every=1", "--overwrite"]) == 0
        assert "step      1" in capsys.readouterr().out
    finally:
        addition.undo()
