"""Configuration: YAML, overrides, and what a wrong key or value says."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiral.errors import ConfigError
from spiral.train import TrainConfig, load_config, warmup_cosine


def test_yaml_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: {dim: 64}\noptim:\n  lr: 1e-3\nrun: {steps: 7}\n")
    config = load_config(file, ["run.steps=9", "data.path=null", "model.tied=false"])
    assert (config.model.dim, config.optim.lr, config.run.steps, config.model.tied) == (64, 1e-3, 9, False)


def test_configuration_survives_a_round_trip() -> None:
    config = TrainConfig().with_overrides(["optim.lr=1e-4", "data.path=texts"])
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rat=1", "unknown key optim.learning_rat: allowed are lr, schedule, final_lr"),
        ("run.step=1", "did you mean run.steps?"),
        ("modell.dim=1", "unknown key modell: allowed are model, data, optim, run; did you mean model?"),
        ("run.steps=many", r"run.steps: expected an integer; received 'many' \(text\)"),
        ("run.steps=0", "run.steps: must be at least 1 and at most 99999999; received 0"),
        ("run.steps=2.5", "run.steps: expected an integer; received 2.5"),
        ("optim.lr=nan", "optim.lr: must be above 0 and at most 1e[+]06; received nan"),
        ("model=3", "model: expected the keys"),
        ("steps", "expected section.key=value"),
    ],
)
def test_wrong_override_says_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        TrainConfig().with_overrides([override])


def test_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected a mapping with the sections"):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="readable YAML file"):
        load_config(tmp_path / "none.yaml")


def test_schedule_rises_then_falls_to_the_final_ratio() -> None:
    rates = [warmup_cosine(s, peak=2.0, total_steps=100, warmup_steps=10, final_ratio=0.1) for s in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == 2.0 and rates[-1] == pytest.approx(0.2)
    assert all(a <= b for a, b in zip(rates[:10], rates[1:10], strict=False))
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
