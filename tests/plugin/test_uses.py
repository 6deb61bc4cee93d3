"""One plugin that brings one of each kind, used by name in scripts, configurations and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim
from spiral.cli.main import main
from spiral.errors import ConfigError
from spiral.plugin import init_plugin_system
from spiral.registry import snapshot
from spiral.train import create_callback, prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_run import TEXT, tiny_config, trained  # noqa: E402

PLUGIN = '''
from pathlib import Path

from spiral import optim
from spiral.plugin import Plugin, PluginMetadata
from spiral.train import Callback

class Halving(optim.SGD):
    """SGD at half the rate.

    Args:
        params: Tensors or groups.
        lr: Learning rate.
        share: What the rate is multiplied with.
    """

    def __init__(self, params, lr: float = 1e-3, share: float = 0.5) -> None:
        super().__init__(params, lr)
        self.share = share

    def _update(self, group, *rest):
        super()._update({**group, "lr": group["lr"] * self.share}, *rest)

class Count(Callback):
    def __init__(self, path: Path, every: int = 1) -> None:
        self.path, self.every = path, every

    def on_step(self, trainer, record):
        if record.step % self.every == 0:
            with self.path.open("a") as file:
                file.write(f"{record.step}\\n")

def focal(predictions, targets, *, gamma: float = 1.0):
    return ((predictions - targets) ** 2).mean() * gamma

def repeated(line: str, times: int = 300) -> str:
    return "".join(f"{line} {i}\\n\\n" for i in range(times))

def names(model, tokenizer, path, *, upper: bool = False):
    text = "\\n".join(name for name, _ in model.named_parameters())
    Path(path).write_text(text.upper() if upper else text)

class Greet:
    HELP = "greets"
    EXAMPLES = ("spiral greet you",)

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("whom")

    @staticmethod
    def run(arguments):
        print(f"hello {arguments.whom}")
        return 0

class Everything(Plugin):
    def metadata(self):
        return PluginMetadata("everything", "1.0")

    def on_load(self, ctx):
        ctx.register_optimizer("halving", Halving)
        ctx.register_callback("count", Count)
        ctx.register_loss("focal", focal)
        ctx.register_dataset("repeated", repeated)
        ctx.register_exporter("names", names)
        ctx.register_command("greet", Greet)
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The plugin's file."""
    path = tmp_path / "everything.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def plugin(file: Path) -> Iterator[None]:
    """The plugin, loaded; nothing is left of it afterwards."""
    registry = init_plugin_system()
    before = snapshot()
    registry.load_path(file)
    yield
    registry.unregister("everything")
    assert snapshot() == before


def settings(config: sp.train.TrainConfig) -> list[str]:
    values = [(f"{s}.{k}", v) for s, section in config.to_dict().items() for k, v in section.items()]
    return [f"{key}={'null' if value is None else json.dumps(value)}" if not isinstance(value, str)
            else f"{key}={value}" for key, value in values]  # fmt: skip


# ---------------------------------------------------------------- scripts
def test_scripts_make_optimizers_losses_and_callbacks_by_name(plugin: None, tmp_path: Path) -> None:
    weight = sp.ones(2).requires_grad_()
    made = optim.create("halving", [weight], lr=1.0, share=0.25)
    loss = nn.create_loss("focal", gamma=2.0)(weight, sp.zeros(2))
    loss.backward()
    made.step()
    assert loss.item() == 2.0 and weight.tolist() == [0.5, 0.5]
    assert create_callback("count", path=str(tmp_path / "n")).path == tmp_path / "n"


def test_spirals_own_optimizers_and_losses_are_made_by_name() -> None:
    weight = sp.ones(2).requires_grad_()
    assert type(optim.create("adamw", [weight], lr=0.1, betas=[0.8, 0.9])) is optim.AdamW
    x, y = sp.asarray(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)), sp.asarray([0, 1, 2, 0])
    made = nn.create_loss("cross_entropy", label_smoothing=0.1, weight=sp.asarray([1.0, 2.0, 3.0]))
    expected = nn.functional.cross_entropy(x, y, label_smoothing=0.1, weight=sp.asarray([1.0, 2.0, 3.0]))
    assert made(x, y).item() == expected.item()


def test_a_loss_that_is_a_class_is_made_with_its_settings() -> None:
    addition = nn.LOSSES.add("smooth", nn.SmoothL1Loss)
    try:
        made = nn.create_loss("smooth", beta=2.0)
        assert isinstance(made, nn.SmoothL1Loss) and made.beta == 2.0
    finally:
        addition.undo()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: optim.create("adamv", w), "optim.create: there is no optimizer 'adamv'; similar: adam"),
        (lambda w: optim.create("sgd", w, momentun=1), "unknown key 'momentun'; did you mean momentum?"),
        (lambda w: optim.create("sgd", w, momentum="much"), "momentum must be a finite number; received 'much'"),
        (lambda w: nn.create_loss("focal2"), "create_loss: there is no loss 'focal2'"),
        (lambda w: nn.create_loss("mse_loss", gamma=1), "create_loss: loss 'mse_loss': unknown key 'gamma'"),
    ],
)
def test_a_mistake_in_a_script_says_what_is_there(make, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make([sp.ones(2).requires_grad_()])
    assert message in str(error.value)


# ---------------------------------------------------------------- configuration
def test_a_configuration_uses_what_the_plugin_brings(plugin: None, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    config = tiny_config(
        tmp_path,
        optim={"name": "halving", "options": {"share": 0.25}},
        data={"path": None, "source": "repeated", "options": {"line": "the cat sat on the mat"}},
        run={"callbacks": [{"count": {"path": str(steps), "every": 4}}]},
    )
    prepared = trained(config)
    assert type(prepared.trainer.optimizer).__name__ == "Halving" and prepared.trainer.optimizer.share == 0.25
    assert prepared.train_text.startswith("the cat sat on the mat 0\n") and steps.read_text() == "4\n8\n12\n"
    resumed = trained(config.updated({"run": {"steps": 16}}), resume=True)
    assert resumed.trainer.step == 16 and steps.read_text() == "4\n8\n12\n16\n"


def test_after_it_is_gone_its_names_are_unknown(file: Path, tmp_path: Path) -> None:
    registry = init_plugin_system()
    registry.load_path(file)
    registry.unregister("everything")
    for section, key in (({"optim": {"name": "halving"}}, "optim.name"),
                         ({"data": {"path": None, "source": "repeated"}}, "data.source"),
                         ({"run": {"callbacks": ["count"]}}, "run.callbacks.count")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{key}: there is no"):
            prepare(tiny_config(tmp_path).updated(section))


# ---------------------------------------------------------------- command line
def command(*arguments: str, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "SPIRAL_PLUGIN_PATH": path, **environment}
    line = [sys.executable, "-m", "spiral.cli", *arguments]
    return subprocess.run(line, env=variables, capture_output=True, text=True, check=False)


def test_commands_use_what_installed_plugins_bring(file: Path, tmp_path: Path) -> None:
    steps, out = tmp_path / "steps", tmp_path / "names.txt"
    config = tiny_config(
        tmp_path, data={"path": None, "source": "repeated", "options": {"line": "a"}}, optim={"name": "halving"}
    )
    done = command("train", *settings(config), "--callback", f"count:path={steps},every=6", path=str(file))
    assert done.returncode == 0 and done.stderr == "" and steps.read_text() == "6\n12\n", done.stderr
    done = command("train", "--resume", config.run.out, "run.steps=18", path=str(file))
    assert done.returncode == 0 and steps.read_text() == "6\n12\n18\n", done.stderr
    options = ("--format", "names", "--option", "upper=yes", "--out", str(out))
    done = command("export", config.run.out, *options, path=str(file))
    assert done.stdout == f"{out}: written as names\n" and "MODEL.NORM.WEIGHT" in out.read_text(), done.stderr
    assert "greet" in command("--help", path=str(file)).stdout
    assert command("greet", "you", path=str(file)).stdout == "hello you\n"
    done = command("greet", path=str(file))
    assert done.returncode == 2 and done.stderr.startswith("spiral greet: the following arguments are required: whom")
    done = command("train", "--resume", config.run.out, "run.steps=20")
    assert done.returncode == 2 and "optim.name: there is no optimizer 'halving'" in done.stderr


def test_a_broken_plugin_is_one_line_and_stops_no_command(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('first line\\nsecond line')\n")
    done = command("explain", "add", path=str(tmp_path / "broken.py"))
    assert done.returncode == 0 and done.stdout != ""
    assert done.stderr.count("\n") == 1 and "spiral explain: warning: plugin broken" in done.stderr
    assert "first line second line" in done.stderr
    quiet = command("explain", "add", path=str(tmp_path / "broken.py"), SPIRAL_PLUGINS="-broken")
    assert quiet.returncode == 0 and quiet.stderr == ""


def test_a_command_that_cannot_declare_its_arguments_stops_only_itself(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(PLUGIN.replace('parser.add_argument("whom")', "parser.nothing()"))
    assert command("explain", "add", path=str(tmp_path / "odd.py")).stderr == ""
    assert "AttributeError" in command("greet", path=str(tmp_path / "odd.py")).stderr


def test_mistaken_variables_are_one_line() -> None:
    for path, chosen, message in (("/nowhere/x.py", "", "/nowhere/x.py"), ("", "noisy", "expected names with a sign")):
        done = command("explain", "add", path=path, SPIRAL_PLUGINS=chosen)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr


def test_the_version_is_told_without_loading_plugins(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("raise SystemExit('it was loaded')\n")
    done = command("--version", path=str(tmp_path / "loud.py"))
    assert done.returncode == 0 and done.stderr == "" and sp.__version__ in done.stdout
    code = "import sys\nfrom spiral.cli.main import main\nmain(['--version'])\n"
    code += "print('spiral.plugin.loading' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_mistakes_on_the_command_line_are_one_line(
    plugin: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    data = ["--data", "text.txt"]
    for arguments, message in (
        ([*data, "--callback", "count"], "run.callbacks.count: callback 'count': path is missing; it must be"),
        ([*data, "--callback", "count:path=x,evry=2"], "unknown key 'evry'; did you mean every?"),
        ([*data, "--callback", "count:path=x,every=2.5"], "every must be an integer; received '2.5'"),
        ([*data, "optim.name=halving", "optim.options.share=much"], "share must be a finite number; received 'much'"),
        ([*data, "optim.name=halving", "optim.beta1=0.5"], "optim.beta1: optimizer 'halving' does not take it"),
        ([*data, "data.source=repeated"], "data.path: expected it or data.source='repeated', not both"),
        (["data.source=repeated"], "data.options: dataset 'repeated': line is missing"),
    ):
        assert main(["train", "run.out=run", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error, error
        assert not (tmp_path / "run" / "tokenizer.json").exists()
