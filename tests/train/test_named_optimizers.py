"""optim.name and data.source: what the chosen thing gets, what it refuses, and what resuming allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import TEXT, files_of_last_checkpoint, tiny_config, trained

import spiral as sp
from spiral.errors import ConfigError, DataError
from spiral.optim import OPTIMIZERS, AdamW
from spiral.ownership import Ledger
from spiral.text.sources import DATASETS
from spiral.train import OptimConfig, TrainConfig, prepare
from spiral.train.optimizers import configured_optimizer, decay_groups, optimizer_arguments
from spiral.train.run import source_text


@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "sgd", "adafactor"])
def test_every_optimizer_trains_and_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    optim = {"name": name, **({"weight_decay": 0.0} if name == "adam" else {})}
    config = tiny_config(tmp_path, optim=optim)
    whole = config.updated({"run": {"out": str(tmp_path / "whole")}})
    trainer = trained(whole).trainer
    assert type(trainer.optimizer) is OPTIMIZERS[name]
    first = trained(config.updated({"run": {"steps": 5}, "optim": {"schedule": "constant"}}))
    assert first.trainer.step == 5
    constant = {"optim": {"schedule": "constant"}}
    resumed = trained(config.updated(constant), resume=True)
    trained(whole.updated({"run": {"out": str(tmp_path / "again")}, **constant}))
    assert resumed.trainer.step == 12
    again = files_of_last_checkpoint(whole.updated({"run": {"out": str(tmp_path / "again")}}))
    assert files_of_last_checkpoint(config) == again


def test_the_defaults_make_the_adamw_that_was_always_made() -> None:
    weights = {"matrix": sp.ones((2, 2)).requires_grad_(), "vector": sp.ones(2).requires_grad_()}
    made = configured_optimizer(OptimConfig(), weights)
    before = AdamW(decay_groups(weights, 0.1), lr=3e-3, betas=(0.9, 0.98), eps=1e-8)
    assert type(made) is AdamW and made.state_dict() == before.state_dict() and made.defaults == before.defaults


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "sgd"}, {"lr": 3e-3, "weight_decay": 0.1}),
        ({"name": "sgd", "options": {"momentum": "0.9"}}, {"lr": 3e-3, "weight_decay": 0.1, "momentum": 0.9}),
        ({"name": "lion", "beta1": 0.95}, {"lr": 3e-3, "weight_decay": 0.1, "betas": (0.95, 0.98)}),
        ({"name": "adafactor", "options": {"eps": [None, 0.01]}},
         {"lr": 3e-3, "weight_decay": 0.1, "eps": (None, 0.01)}),
    ],
)  # fmt: skip
def test_an_optimizer_gets_what_it_takes(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    assert optimizer_arguments(OptimConfig(**settings)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adamv"}, "optim.name: there is no optimizer 'adamv'; similar: adam"),
        ({"name": "sgd", "beta2": 0.9}, "optim.beta2: optimizer 'sgd' does not take it; received 0.9"),
        ({"name": "lion", "eps": 1e-6}, "optim.eps: optimizer 'lion' does not take it"),
        ({"name": "sgd", "options": {"momentun": 1}}, "optim.options: optimizer 'sgd': unknown key 'momentun'; did"),
        ({"name": "sgd", "options": {"nesterov": 3}}, "nesterov must be true or false; received 3"),
        ({"options": {"lr": 1.0}}, "optim.options.lr: set optim.lr instead"),
        ({"options": {"betas": [0.1, 0.2]}}, "optim.options.betas: set optim.beta1 and optim.beta2 instead"),
    ],
)  # fmt: skip
def test_what_an_optimizer_does_not_take_is_named(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, optim=settings)
    with pytest.raises(ConfigError) as error:
        prepare(config)
    assert message in str(error.value) and not (Path(config.run.out) / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda params, rate=1.0: None, "optimizer 'odd' must take lr, which the schedule sets; it takes rate"),
        (lambda params, lr: 3, "'odd': expected it to make a spiral.optim.Optimizer; received 3"),
        (lambda params, **settings: 3, "'odd': expected it to make a spiral.optim.Optimizer; received 3"),
    ],
)
def test_what_is_no_optimizer_is_refused(factory: Any, message: str) -> None:
    addition = OPTIMIZERS.add("odd", factory)
    try:
        with pytest.raises(ConfigError) as error:
            configured_optimizer(OptimConfig(name="odd"), {"w": sp.ones((2, 2)).requires_grad_()})
        assert message in str(error.value)
    finally:
        addition.undo()


def test_options_are_merged_until_another_name_is_chosen() -> None:
    config = TrainConfig().with_overrides(["optim.name=sgd", "optim.options.momentum=0.9"])
    config = config.with_overrides(["optim.options.nesterov=true"])
    assert config.optim.options == {"momentum": 0.9, "nesterov": True}
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.with_overrides(["optim.name=sgd"]).optim.options == config.optim.options
    assert config.with_overrides(["optim.name=lion"]).optim.options == {}
    assert config.with_overrides(["optim.options=null"]).optim.options == {}
    for wrong in ("3", "[1]", "{1: 2}", "{a: 2026-01-01}"):
        with pytest.raises(ConfigError, match="optim.options"):
            config.with_overrides([f"optim.options={wrong}"])


def test_another_optimizer_cannot_resume_a_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trained(config)
    with pytest.raises(ConfigError, match=r"optim.name='lion' \(was 'adamw'\).*cannot change within a run"):
        prepare(config.updated({"optim": {"name": "lion"}}), resume=True)
    sgd = tiny_config(tmp_path, run={"out": str(tmp_path / "sgd")}, optim={"name": "sgd", "options": {"momentum": 0.5}})
    trained(sgd)
    with pytest.raises(ConfigError, match=r"optim.options=\{'momentum': 0.9\} \(was \{'momentum': 0.5\}\)"):
        prepare(sgd.updated({"optim": {"options": {"momentum": 0.9}}}), resume=True)


def test_text_comes_from_a_named_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    base = TrainConfig()
    named = base.updated({"data": {"source": "files", "options": {"path": str(tmp_path / "a.txt")}}})
    assert source_text(named.data) == TEXT
    reference = base.with_overrides(["data.source=python-reference"])
    assert source_text(reference.data) == source_text(base.data)
    ledger = Ledger("test")
    with ledger.recording():
        DATASETS.add("empty", lambda: " \n")
        DATASETS.add("number", lambda: 3)
    try:
        for name in ("empty", "number"):
            with pytest.raises(DataError, match=f"data.source: '{name}': expected it to give a text"):
                source_text(base.with_overrides([f"data.source={name}"]).data)
    finally:
        ledger.undo_all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "a", "source": "python-reference"}, "data.path: expected it or data.source='python-reference', not"),
        ({"path": "a", "options": {"path": "b"}}, "data.path: expected it or data.options, not both; received 'a'"),
        ({"source": "fles"}, "data.source: there is no dataset 'fles'; similar: files"),
        ({"source": "python-reference", "options": {"x": 1}}, "data.options: dataset 'python-reference': unknown key"),
        ({"options": 3}, "data.options: expected options by name; received 3"),
    ],
)
def test_a_wrong_source_is_refused(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        prepare(TrainConfig().updated({"data": data, "run": {"out": str(tmp_path / "run")}}))
    assert message in str(error.value)


def test_card_names_optimizer_and_source(tmp_path: Path) -> None:
    from spiral.train import run_training

    options = {"path": str(tmp_path / "text.txt")}
    config = tiny_config(tmp_path, data={"path": None, "options": options}, optim={"name": "lion"}, run={"steps": 2})
    run_training(prepare(config), name="m")
    card = (Path(config.run.out) / "card.md").read_text()
    assert "2 steps of Lion" in card and "The source files with" in card
