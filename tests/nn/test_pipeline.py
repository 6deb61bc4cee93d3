"""Pipelines: checked before weights exist, branches, files, names, training, and what is refused."""

import copy
import itertools
import json

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim
from spiral.errors import ConfigError, RegistryError, SaveError, ShapeError
from spiral.nn import ModuleDiscoveryRegistry, ModuleMetadata, ModulePipelineBuilder
from spiral.nn.discovery import Parallel, Pipeline, Residual


@pytest.fixture(scope="module")
def registry():
    return ModuleDiscoveryRegistry()


@pytest.fixture
def new(registry):
    return lambda: ModulePipelineBuilder(registry)


def linear(i, o):
    return ("linear", {"in_features": i, "out_features": o})


def add_linear(builder, i, o, **more):
    return builder.add_module(*linear(i, o), **more)


def net(new):
    return (
        new()
        .with_name("net")
        .with_input((3, 8, 8))
        .add_module("conv2d", {"in_channels": "auto", "out_channels": "4", "kernel_size": "3", "padding": "same"})
        .parallel(
            [
                [("conv2d", {"in_channels": 4, "out_channels": 2, "kernel_size": 1}), "relu"],
                lambda b: b.residual([("batch_norm2d", {"num_features": 4}), "gelu"]),
                [],
            ],
            name="paths",
        )
        .add_module("maxpool", {"kernel_size": "2"})
        .add_module("flatten")
        .add_module("linear", {"in_features": "auto", "out_features": 5}, name="head")
    )


def test_the_seeds_example_builds_and_runs(new):
    registry = ModuleDiscoveryRegistry()

    def factory(config):
        return nn.Conv2d(int(config.get("in_channels", 3)), int(config.get("out_channels", 64)), 3, padding=1)

    registry.register(ModuleMetadata("custom_conv", input_shape=(3, 224, 224), output_shape=(64, 224, 224)), factory)
    pipeline = (
        ModulePipelineBuilder(registry)
        .with_name("my_model")
        .add_module("custom_conv", {"in_channels": "3", "out_channels": "64"})
        .add_module("relu", {})
        .add_module("maxpool", {"kernel_size": "2"})
        .build()
    )
    assert pipeline(sp.ones((1, 3, 8, 8))).shape == (1, 64, 4, 4)
    assert repr(pipeline).startswith("Pipeline('my_model'\n  (custom_conv_1): Conv2d(")


def test_a_pipeline_computes_what_its_modules_compute_by_hand(new):
    sp.random.manual_seed(3)
    model = net(new).build().eval()
    x = sp.random.normal((2, 3, 8, 8))
    h = model.conv2d_1(x)
    first = nn.functional.relu(model.paths.branch_1.conv2d_1(h))
    second = h + nn.functional.gelu(model.paths.branch_2.residual_1.branch.batch_norm2d_1(h))
    h = nn.functional.max_pool2d(sp.concat([first, second, h], axis=1), 2)
    assert model(x).tolist() == model.head(h.flatten(1)).tolist()


def test_check_tells_every_shape_and_weight_and_allocates_none(new):
    builder = net(new)
    before = sp.memory().get("live", 0)
    rows = {row.path: row for row in builder.check()}
    assert sp.memory().get("live", 0) == before
    assert rows["conv2d_1"].output == (4, 8, 8) and rows["conv2d_1"].parameters == 4 * 3 * 9 + 4
    assert rows["max_pool2d_1"].input == (10, 8, 8) and rows["head"].input == (160,)
    model = builder.build()
    assert sum(row.parameters for row in rows.values()) == model.num_parameters()
    assert "(N, 10, 4, 4)" in str(builder.check())


def test_a_mismatch_names_both_neighbours_positions_and_shapes_before_anything_is_allocated(new):
    builder = new().with_name("m").with_input((4,))
    add_linear(builder, 4, 10**6)
    builder.add_module("relu")
    add_linear(builder, 10**6 + 1, 10**6)
    before = sp.memory().get("peak", 0)
    with pytest.raises(ShapeError) as caught:
        builder.build()
    assert sp.memory().get("peak", 0) == before
    for part in ("pipeline 'm'", "module 3 'linear_2' (linear)", "(N, 1000000)", "module 2 'relu_1' (relu)", "1000001"):
        assert part in str(caught.value)


def test_the_input_itself_is_a_neighbour(new):
    with pytest.raises(ShapeError, match=r"module 1 'linear_1' .* \(N, 5\), which comes from the input"):
        add_linear(new().with_input((5,)), 4, 2).build()


def test_a_mismatch_in_a_branch_tells_the_path(new):
    builder = (
        new().with_input((4,)).parallel([["relu"], [("linear", {"in_features": 4, "out_features": 3}), linear(4, 2)]])
    )
    with pytest.raises(
        ShapeError, match=r"module 2 'parallel_1.branch_2.linear_2' .* from module 1 'parallel_1.branch_2"
    ):
        builder.build()


def test_without_an_input_neighbours_are_compared_all_the_same(new):
    assert add_linear(add_linear(new(), 4, 3).add_module("relu"), 3, 2).build()(sp.ones((2, 4))).shape == (2, 2)
    with pytest.raises(ShapeError, match="linear_2.*linear_1.*with_input"):
        add_linear(add_linear(new(), 4, 3), 4, 2).build()
    images = new().add_module("conv2d", {"in_channels": 3, "out_channels": 2, "kernel_size": 3}).add_module("flatten")
    assert add_linear(images, 2 * 26 * 26, 2).build()  # 28 is among the sizes that are tried
    unusual = add_linear(copy.copy(images), 5, 2)
    with pytest.raises(ShapeError, match="No input was declared"):
        unusual.build()


def test_configuration_is_checked_when_a_module_is_added(new):
    builder = new()
    with pytest.raises(ConfigError, match="module 1 'linear_1': linear: 2 problems"):
        builder.add_module("linear", {"in_features": "2.5", "out_features": None})
    with pytest.raises(ConfigError, match="groups must divide"):
        builder.add_module("conv2d", {"in_channels": 3, "out_channels": 3, "kernel_size": 1, "groups": 2})
    with pytest.raises(RegistryError, match="similar: linear"):
        builder.add_module("linea")
    with pytest.raises(ConfigError, match="expected settings by name"):
        builder.add_module("relu", [1])
    for kind in ("parallel", "residual", 3, None):
        with pytest.raises(RegistryError):
            builder.add_module(kind)
    assert len(builder) == 0


def test_an_empty_pipeline_is_an_error(new):
    with pytest.raises(ConfigError, match="no module in it"):
        new().build()
    with pytest.raises(ConfigError, match="no module in it"):
        ModulePipelineBuilder.from_config({"modules": []}, new().registry).check()


def test_the_same_plan_and_seed_give_the_same_weights_also_from_a_file(new, tmp_path):
    net(new).save(tmp_path / "net.yaml")
    net(new).save(tmp_path / "net.json")
    states = []
    for builder in (
        net(new),
        ModulePipelineBuilder.load(tmp_path / "net.yaml", new().registry),
        ModulePipelineBuilder.load(str(tmp_path / "net.json"), new().registry),
    ):
        sp.random.manual_seed(7)
        builder.check()  # draws nothing
        states.append(builder.build().state_dict())
    for other in states[1:]:
        assert list(other) == list(states[0])
        assert all(
            np.array_equal(a.numpy(), b.numpy()) for a, b in zip(states[0].values(), other.values(), strict=True)
        )


def test_a_plan_is_plain_data_that_comes_back(new):
    config = net(new).to_config()
    assert json.loads(json.dumps(config)) == config
    again = ModulePipelineBuilder.from_config(config, new().registry)
    assert again.to_config() == config and again.name == "net" and again.input_shape == (3, 8, 8)
    assert config["modules"][0]["config"] == {
        "in_channels": "auto", "out_channels": 4, "kernel_size": 3, "padding": "same",
    }  # fmt: skip


def test_a_file_may_be_written_by_hand(new, tmp_path):
    path = tmp_path / "small.yml"
    path.write_text(
        "input: [6]\nmodules:\n- relu\n- type: Linear\n  config: {in_features: auto, out_features: 3}\n"
        "- {type: residual, branch: [tanh]}\n- {type: parallel, merge: mean, branches: [[], [sigmoid]]}\n"
    )
    model = ModulePipelineBuilder.load(path, new().registry).build()
    assert [name for name, _ in model.named_children()] == ["relu_1", "linear_1", "residual_1", "parallel_1"]
    assert model(sp.ones((2, 6))).shape == (2, 3)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([], "expected a mapping"),
        ({}, "modules: expected a list"),
        ({"modules": "relu"}, "modules: expected a list"),
        ({"modules": [3]}, r"modules\[0\]: expected a module's type"),
        ({"modules": [{"config": {}}]}, r"modules\[0\]: expected a module's type, or a mapping with the key type"),
        ({"modules": [{"type": "relu", "confg": {}}]}, "did you mean config"),
        ({"modul": ["relu"]}, "unknown key 'modul'; did you mean modules"),
        ({"version": 2, "modules": ["relu"]}, "version 1; received 2"),
        ({"version": True, "modules": ["relu"]}, "version 1"),
        ({"input": [0], "modules": ["relu"]}, "positive lengths"),
        ({"input": 3, "modules": ["relu"]}, "positive lengths"),
        ({"input": [3], "dtype": "float7", "modules": ["relu"]}, "dtype"),
        ({"dtype": "float32", "modules": ["relu"]}, "dtype goes with input"),
        ({"name": 3, "modules": ["relu"]}, "a name is a text"),
        ({"modules": [{"type": "parallel"}]}, "expected a list of branches"),
        ({"modules": [{"type": "parallel", "branches": []}]}, "at least one branch"),
        ({"modules": [{"type": "parallel", "merge": "max", "branches": [[]]}]}, "merge must be 'concat', 'add'"),
        ({"modules": [{"type": "parallel", "axis": 0, "branches": [[]]}]}, "axis must not be 0"),
        ({"modules": [{"type": "parallel", "axis": 1.5, "branches": [[]]}]}, "axis must be an integer"),
        ({"modules": [{"type": "residual"}]}, r"modules\[0\].branch: expected a list"),
        ({"modules": [{"type": "parallel", "branches": [["relu", {"type": "linear"}]]}]},
         r"modules\[0\].branches\[0\]\[1\] 'linear_1': linear: 2 problems"),
        ({"modules": [{"type": "relu", "name": "forward"}]}, "a name is a word"),
        ({"modules": [{"type": "relu", "name": "a.b"}]}, "a name is a word"),
        ({"modules": [{"type": "relu", "name": "a"}, {"type": "relu", "name": "a"}]}, "there is a module 'a' already"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_told_with_its_place(new, config, said):
    with pytest.raises(ConfigError, match=said):
        ModulePipelineBuilder.from_config(config, new().registry)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "modules: [relu", "expected YAML"),
        ("a.yaml", "modules: [relu]\nmodules: [tanh]", "occurs twice"),
        ("a.json", '{"modules": ["relu"], "modules": ["tanh"]}', "occurs twice"),
        ("a.json", "{", "expected JSON"),
        ("a.json", "[" * 100000, "expected JSON"),
        ("a.toml", "", "ends in .yaml"),
        ("a.yaml", "modules: !!python/object/apply:os.system [true]", "expected YAML"),
        ("a.yaml", "x: 1", "a.yaml: pipeline: unknown key 'x'"),
    ],
)
def test_a_wrong_file_is_told_with_its_path(new, tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        ModulePipelineBuilder.load(path, new().registry)


def test_a_small_file_that_stands_for_billions_of_modules_is_refused(new, tmp_path):
    lines = ["name: &a0 x"]  # each line nine times the one before
    for i in range(1, 12):
        before = "relu" if i == 1 else f"{{type: residual, branch: *a{i - 1}}}"
        lines.append(f"k{i}: &a{i} [{', '.join([before] * 9)}]")
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join([*lines, "modules: *a11"]))
    with pytest.raises(ConfigError):
        ModulePipelineBuilder.load(path, new().registry)
    deep = ["relu"]
    for _ in range(100):
        deep = [{"type": "residual", "branch": deep}]
    with pytest.raises(ConfigError, match="deeper than"):
        ModulePipelineBuilder.from_config({"modules": deep}, new().registry)
    wide = [{"type": "residual", "branch": ["relu"] * 9}]
    for _ in range(6):
        wide = [{"type": "residual", "branch": wide * 9}]
    with pytest.raises(ConfigError, match="at most 10,000"):
        ModulePipelineBuilder.from_config({"modules": wide}, new().registry)


def test_saving_leaves_what_stood_there_when_it_fails(new, tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text("old")
    builder = new().add_module("cross_entropy_loss", {"weight": sp.ones(3)})
    with pytest.raises(ConfigError, match="weight cannot stand in a file"):
        builder.save(path)
    with pytest.raises(SaveError):
        net(new).save(tmp_path / "nowhere" / "net.yaml")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["net.yaml"]


def test_names_of_weights_do_not_change_when_other_modules_come_between(new):
    plain = add_linear(add_linear(new(), 4, 4), 4, 2).build()
    longer = add_linear(add_linear(new(), 4, 4).add_module("relu").add_module("dropout"), 4, 2).build()
    assert list(plain.state_dict()) == list(longer.state_dict())
    assert longer.load_state_dict(plain.state_dict())


def test_a_pipeline_trains_and_its_state_comes_back(new):
    sp.random.manual_seed(0)
    model = net(new).build()
    assert isinstance(model, Pipeline) and isinstance(model.paths, Parallel)
    assert isinstance(model.paths.branch_2.residual_1, Residual)
    x, y = sp.random.normal((16, 3, 8, 8)), sp.asarray(np.arange(16) % 5)
    opt = optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(x), y)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        opt.step()
    assert losses[-1] < 0.5 * losses[0]
    twin = net(new).build()
    twin.load_state_dict(model.state_dict())
    assert np.array_equal(twin.eval()(x).numpy(), model.eval()(x).numpy())


def test_of_several_results_the_first_goes_on(new):
    builder = new().with_input((6, 4)).add_module("lstm", {"input_size": "auto", "hidden_size": 3, "batch_first": True})
    model = add_linear(builder, 3, 2).build()
    assert model(sp.ones((2, 6, 4))).shape == (2, 6, 2)


def test_tokens_come_in_as_integers_where_an_embedding_is_first(new):
    builder = new().with_input((7,)).add_module("embedding", {"num_embeddings": 9, "embedding_dim": 4})
    model = builder.add_module("rms_norm", {"normalized_shape": "auto"}).build()
    assert model(sp.zeros((2, 7), dtype="int64")).shape == (2, 7, 4)
    with pytest.raises(ShapeError, match="embedding"):
        builder.with_input((7,), "float32").build()


@pytest.mark.parametrize("merge", ["add", "mean", "multiply"])
def test_merges_of_equal_shapes(new, merge):
    model = new().with_input((3,)).parallel([[], ["relu"]], merge).build()
    wanted = {"add": 4.0, "mean": 2.0, "multiply": 4.0}[merge]
    assert model(sp.full((1, 3), 2.0)).tolist() == [[wanted] * 3]


def test_branches_are_never_broadcast(new):
    for merge, second in itertools.product(("add", "multiply"), (linear(3, 1), linear(3, 2))):
        with pytest.raises(ShapeError, match=rf"'parallel_1' \(parallel\) cannot {merge} .*branch_2.linear_1"):
            new().with_input((3,)).parallel([[], [second]], merge).build()
    with pytest.raises(ShapeError, match="cannot add"):
        new().with_input((3,)).residual([linear(3, 1)]).build()
    with pytest.raises(ShapeError, match="no such axis"):
        new().with_input((3,)).parallel([[], []], axis=2).build()
    with pytest.raises(ShapeError, match="other axes must be equal"):
        new().with_input((2, 3)).parallel([[], [linear(3, 4)]], axis=1).build()
    assert new().with_input((2, 3)).parallel([[], [linear(3, 4)]], axis=-1).check() and Parallel([nn.ReLU()])
    with pytest.raises(ShapeError):
        Parallel([nn.Linear(3, 1), nn.Identity()], "add")(sp.ones((2, 3)))


def test_a_branch_may_be_a_builder_a_function_or_a_list(new):
    branch = add_linear(new(), 3, 3)
    model = (
        new()
        .with_input((3,))
        .parallel([branch, lambda b: add_linear(b, 3, 3), [linear(3, 3)], [{"type": "tanh"}]])
        .build()
    )
    assert model(sp.ones((1, 3))).shape == (1, 12)
    for bad in ("relu", {"type": "relu"}, 3, None):
        with pytest.raises(ConfigError):
            new().parallel(bad)
    with pytest.raises(ConfigError):
        new().residual("relu")


def test_auto_is_told_by_the_input_or_asked_for(new):
    with pytest.raises(ConfigError, match=r"auto \(linear_1: in_features\) needs the input's shape"):
        new().add_module("linear", {"in_features": "auto", "out_features": 2}).build()
    with pytest.raises(ConfigError, match="none fits"):
        new().with_input((5,)).add_module(
            "conv2d", {"in_channels": "auto", "out_channels": 2, "kernel_size": 1}
        ).build()
    with pytest.raises(ConfigError, match="fit; give the size"):
        new().with_input((3, 5)).add_module("linear", {"in_features": 5, "out_features": "auto"}).build()
    builder = new().with_input((3, 8, 8)).add_module("group_norm", {"num_groups": 3, "num_channels": "AUTO"})
    assert builder.build().group_norm_1.num_channels == 3


def test_a_text_setting_may_be_called_auto(new):
    registry = ModuleDiscoveryRegistry()

    class Moded(nn.Module):
        def __init__(self, mode: str) -> None:
            super().__init__()
            self.mode = mode

        def forward(self, x):
            return x

    registry.register(Moded)
    builder = ModulePipelineBuilder(registry).add_module("moded", {"mode": "auto"})
    assert builder.build().moded_1.mode == "auto" and builder.to_config()["modules"][0]["config"] == {"mode": "auto"}


def test_a_module_whose_constructor_looks_at_values_is_checked_once_it_is_built(caplog):
    class Normalised(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            weight = sp.random.normal((size, size))
            self.weight = nn.Parameter(weight * (1.0 / float(sp.max(weight))))

        def forward(self, x):
            return x @ self.weight

    registry = ModuleDiscoveryRegistry()
    registry.register(Normalised)
    builder = ModulePipelineBuilder(registry).with_input((4,)).add_module("normalised", {"size": 4})
    add_linear(builder, 4, 2)
    row = builder.check()[0]
    assert row.output is None and "value" in row.note and row.parameters is None and "unknown" in str(builder.check())
    assert builder.build()(sp.ones((1, 4))).shape == (1, 2) and not caplog.records
    bad = ModulePipelineBuilder(registry).with_input((4,)).add_module("normalised", {"size": 4})
    with pytest.raises(ShapeError, match="linear_1.*normalised_1"):
        add_linear(bad, 3, 2).build()


def test_a_module_that_looks_at_values_is_built_with_a_warning(caplog):
    class Trimmed(nn.Module):
        def forward(self, x):
            return x[:, : 1 + int(sp.max(x) > 0)]

    registry = ModuleDiscoveryRegistry()
    registry.register(Trimmed)
    model = add_linear(ModulePipelineBuilder(registry).with_input((2,)).add_module("trimmed"), 2, 3).build()
    assert model(sp.ones((1, 2))).shape == (1, 3) and "trimmed_1 cannot be checked" in caplog.text
    registry.replace(ModuleMetadata("trimmed", output_shape=(5,)), Trimmed)
    with pytest.raises(ShapeError, match=r"\(N, 5\)"):
        add_linear(ModulePipelineBuilder(registry).with_input((2,)).add_module("trimmed"), 2, 3).build()


def test_a_builder_takes_a_registry_and_names_that_are_texts(new):
    with pytest.raises(ConfigError, match="ModuleDiscoveryRegistry"):
        ModulePipelineBuilder({})
    for name in ("", " ", 3, None):
        with pytest.raises(ConfigError, match="a name is a text"):
            new().with_name(name)
    for shape in ((), (3, None), (True,), (2.0,), "3", 3):
        if shape != ():
            with pytest.raises(ConfigError, match="positive lengths"):
                new().with_input(shape)


def test_a_pipeline_can_be_copied_and_sliced(new):
    model = net(new).build().eval()
    x = sp.ones((2, 3, 8, 8))
    assert copy.deepcopy(model)(x).tolist() == model(x).tolist()
    assert model[:1](x).tolist() == model.conv2d_1(x).tolist()
