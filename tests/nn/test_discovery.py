"""The registry of module types: names, categories, schemas, factories, shapes, events, and coming and going."""

import gc
import sys
import weakref
from subprocess import run

import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ConfigError, RegistryError, ShapeError
from spiral.nn import ModuleCategory, ModuleDiscoveryRegistry, ModuleMetadata
from spiral.ownership import Ledger
from spiral.plugin import event_bus
from spiral.registry import catalog
from spiral.schema import Field, Schema

LAYERS = [
    getattr(nn, name)
    for name in nn.__all__
    if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Module)
    and name not in ("Module", "ModuleList", "ModuleDict", "Sequential")
]  # fmt: skip


class Scaled(nn.Module):
    """x times a factor.

    Args:
        factor: What to multiply with.
    """

    def __init__(self, factor: float = 2.0, size: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(sp.ones((size,)))

    def forward(self, x):
        return x * self.factor * self.weight


@pytest.fixture
def registry():
    return ModuleDiscoveryRegistry()


@pytest.fixture
def heard():
    events = []
    subscription = event_bus.subscribe("ModuleRegistered", lambda event: events.append(event.module_type))
    yield events
    subscription.cancel()


def test_every_layer_is_there_with_category_description_and_schema(registry):
    assert len(registry) == len(LAYERS) >= 40
    for metadata in registry.list():
        assert metadata.description and metadata.category is not ModuleCategory.CUSTOM
        assert isinstance(metadata.parameters, Schema)
    assert [m.module_type for m in registry.find("pooling", "max")] == ["max_pool1d", "max_pool2d"]
    assert registry.get("flatten").category is ModuleCategory.LAYER
    assert "relu" in [m.module_type for m in registry.find(ModuleCategory.ACTIVATION)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)
def test_a_layer_is_found_by_its_class_name_too(registry, layer):
    assert registry.entry(layer.__name__).factory is layer


def test_without_the_number_of_dimensions_two_are_meant(registry):
    assert registry.get("maxpool").module_type == "max_pool2d" and registry.get("Conv").module_type == "conv2d"


def test_an_unknown_type_is_told_with_similar_ones(registry):
    with pytest.raises(RegistryError, match="no module 'linaer'; similar: linear"):
        registry.get("linaer")
    assert "linaer" not in registry and "linear" in registry and 3 not in registry


def test_settings_come_from_texts_and_all_problems_are_told(registry):
    layer = registry.create("conv2d", {"in_channels": "3", "out_channels": 4, "kernel_size": "3x5", "bias": "off"})
    assert layer.weight.shape == (4, 3, 3, 5) and layer.bias is None
    with pytest.raises(ConfigError) as caught:
        registry.create("conv2d", {"in_channels": "2.5", "out_chanels": 4, "kernel_size": 0})
    assert len(caught.value.problems) == 4 and "did you mean out_channels?" in str(caught.value)


def test_what_only_the_constructor_can_refuse_is_a_config_error_too(registry):
    with pytest.raises(ConfigError, match="groups must divide"):
        registry.create("conv2d", {"in_channels": 3, "out_channels": 4, "kernel_size": 1, "groups": 2})


def test_a_class_is_registered_by_itself(registry, heard):
    registry.register(Scaled)
    metadata = registry.get("scaled")
    assert (metadata.display_name, metadata.description) == ("Scaled", "x times a factor.")
    assert metadata.category is ModuleCategory.CUSTOM and metadata.parameters["factor"].help == "What to multiply with."
    assert registry.create("scaled", {"factor": "3"}).factor == 3.0
    assert heard == ["scaled"]


def test_a_function_is_registered_by_its_signature(registry):
    def mlp(width: int, depth: int = 2) -> nn.Module:
        """Some linear layers."""
        return nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])

    registry.register(mlp, category="encoder")
    assert len(registry.create("mlp", {"width": "4"})) == 2 and registry.get("mlp").category is ModuleCategory.ENCODER
    assert registry.output_shape("mlp", {"width": 4}, (7, 4)) == (7, 4)


def test_metadata_with_a_factory_of_one_dictionary(registry):
    seen = []

    def factory(config):
        seen.append(config)
        return nn.Conv2d(int(config.get("in_channels", 3)), int(config.get("out_channels", 64)), 3, padding=1)

    metadata = ModuleMetadata(
        "custom_conv", "Custom Convolution", "Specialized convolution layer", (3, 224, 224), (64, 224, 224), {},
        ModuleCategory.CONVOLUTION,
    )  # fmt: skip
    registry.register(metadata, factory)
    assert registry.create("custom_conv", {"in_channels": "2"}).in_channels == 2 and seen == [{"in_channels": "2"}]
    assert registry.get("custom_conv").input_shape == (3, 224, 224)


def test_declared_parameters_are_converted_for_a_factory(registry):
    parameters = {"width": int, "rate": 0.5, "mode": Field("mode", str, "x", "how")}
    registry.register(ModuleMetadata("made", parameters=parameters), lambda config: Scaled(config.get("rate", 0.5)))
    assert registry.create("made", {"width": "3", "rate": "2"}).factor == 2.0
    with pytest.raises(ConfigError, match="width is missing"):
        registry.create("made", {"rate": "fast"})
    assert registry.schema("made")["mode"].help == "how"


def test_metadata_with_a_class_take_its_signature(registry):
    registry.register(ModuleMetadata("twice", category="Layer"), Scaled)
    assert (
        list(registry.schema("twice")) == ["factor", "size"] and registry.create("twice", {"factor": "4"}).factor == 4
    )


@pytest.mark.parametrize("module_type", ["", "a b", "1st", 3, None, "x/y"])
def test_a_type_has_a_name_that_is_a_word(module_type):
    with pytest.raises(RegistryError, match="module_type must be a word"):
        ModuleMetadata(module_type)


def test_metadata_refuse_what_is_no_shape_category_or_parameters():
    with pytest.raises(RegistryError, match="input_shape"):
        ModuleMetadata("x", input_shape=(3, -1))
    with pytest.raises(RegistryError, match="category: expected one of Layer, Loss"):
        ModuleMetadata("x", category="Convlution")
    with pytest.raises(RegistryError, match="parameters"):
        ModuleMetadata("x", parameters=[1])


@pytest.mark.parametrize(
    "arguments",
    [(3,), ("linear",), (ModuleMetadata("x"),), (ModuleMetadata("x"), 3), (Scaled, Scaled), (nn.ReLU(),), (None,)],
)
def test_what_is_no_module_is_not_registered(registry, arguments):
    before = registry.catalog.snapshot()
    with pytest.raises(RegistryError):
        registry.register(*arguments)
    assert registry.catalog.snapshot() == before


def test_a_taken_name_and_the_names_of_branches_are_refused(registry):
    with pytest.raises(RegistryError, match="registered already"):
        registry.register(Scaled, name="linear")
    for name in ("parallel", "residual"):
        with pytest.raises(RegistryError, match="branches"):
            registry.register(Scaled, name=name)


def test_what_was_replaced_comes_back(registry):
    registry.replace(Scaled, name="linear")
    assert isinstance(registry.create("linear"), Scaled)
    registry.unregister("linear")
    assert registry.entry("linear").factory is nn.Linear
    registry.unregister("Linear")
    with pytest.raises(RegistryError):
        registry.get("linear")


def test_a_factory_that_gives_no_module_is_told(registry):
    registry.register(ModuleMetadata("bad"), lambda config: 3)
    with pytest.raises(RegistryError, match="must give a Module; it gave int"):
        registry.create("bad")


def test_a_private_registry_is_its_own_and_an_empty_one_is_empty(registry):
    registry.register(Scaled)
    assert "scaled" not in ModuleDiscoveryRegistry() and "scaled" not in ModuleDiscoveryRegistry.shared()
    assert list(ModuleDiscoveryRegistry(builtins=False)) == []


def test_the_shared_registry_is_the_catalog_of_the_process_and_a_ledger_takes_additions_back(heard):
    shared, before = ModuleDiscoveryRegistry.shared(), catalog("module").snapshot()
    ledger = Ledger("someone")
    with ledger.recording():
        shared.register(Scaled)
        catalog("module").add("bare", Scaled)
    assert catalog("module").owner_of("scaled") == "someone" and heard == ["scaled", "bare"]
    assert shared.create("bare", {"factor": 3}).factor == 3.0
    assert ledger.undo_all() == [] and catalog("module").snapshot() == before


def test_layers_stay_spirals_own_when_a_plugins_loading_asks_for_them_first():
    code = """
from spiral.ownership import Ledger
from spiral.registry import catalog
ledger = Ledger("plugin")
with ledger.recording():
    import spiral.nn.discovery
ledger.undo_all()
print(catalog("module").owner_of("linear"), len(catalog("module")) > 40)
"""
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "spiral True\n"


def test_importing_nn_does_not_import_discovery():
    code = "import sys, spiral.nn; print([m for m in sys.modules if 'discovery' in m])"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_registry_and_what_was_registered_are_freed():
    registry = ModuleDiscoveryRegistry()
    gone = weakref.ref(registry.catalog)
    del registry
    gc.collect()
    assert gone() is None


SHAPES = [
    ("linear", {"in_features": 4, "out_features": 2}, (4,), (2,)),
    ("linear", {"in_features": 4, "out_features": 2}, (5, 4), (5, 2)),
    ("conv2d", {"in_channels": 3, "out_channels": 2, "kernel_size": 3, "stride": 2}, (3, 9, 8), (2, 4, 3)),
    ("conv1d", {"in_channels": 3, "out_channels": 2, "kernel_size": 3, "padding": "same"}, (3, 9), (2, 9)),
    ("max_pool2d", {"kernel_size": 2}, (3, 9, 8), (3, 4, 4)),
    ("adaptive_avg_pool2d", {"output_size": "2,3"}, (3, 9, 8), (3, 2, 3)),
    ("batch_norm1d", {"num_features": 3}, (3,), (3,)),
    ("group_norm", {"num_groups": 3, "num_channels": 6}, (6, 2), (6, 2)),
    ("rms_norm", {"normalized_shape": "4"}, (5, 4), (5, 4)),
    ("embedding", {"num_embeddings": 10**9, "embedding_dim": 10**6}, (5,), (5, 10**6)),
    ("flatten", {}, (3, 4, 5), (60,)),
    ("lstm", {"input_size": 4, "hidden_size": 3, "batch_first": True, "bidirectional": True}, (5, 4), (5, 6)),
    ("multi_head_attention", {"d_model": 8, "n_head": 2}, (5, 8), (5, 8)),
    ("swiglu", {"d_model": 8, "hidden_dim": 20}, (5, 8), (5, 8)),
    ("dropout", {}, (3,), (3,)),
    ("softmax", {"axis": 1}, (3, 2), (3, 2)),
]


@pytest.mark.parametrize(("kind", "config", "given", "wanted"), SHAPES)
def test_shapes_are_told_without_weights(registry, kind, config, given, wanted):
    gc.collect()  # what other tests have left is not counted as given back here
    before = sp.memory().get("live", 0)
    assert registry.output_shape(kind, config, given) == wanted
    assert sp.memory().get("live", 0) == before


@pytest.mark.parametrize(
    ("kind", "config", "given"),
    [
        ("linear", {"in_features": 4, "out_features": 2}, (5,)),
        ("conv2d", {"in_channels": 3, "out_channels": 2, "kernel_size": 3}, (4, 9, 9)),
        ("conv2d", {"in_channels": 3, "out_channels": 2, "kernel_size": 30}, (3, 9, 9)),
        ("batch_norm2d", {"num_features": 3}, (3,)),
        ("embedding", {"num_embeddings": 4, "embedding_dim": 2}, None),
        ("flatten", {"start": 0}, (3, 4)),
        ("cross_entropy_loss", {}, (3,)),
    ],
)
def test_a_shape_that_does_not_fit_is_told_with_the_type(registry, kind, config, given):
    with pytest.raises(ShapeError, match=f"^{kind}: does not take"):
        registry.output_shape(kind, config, given or (3,), sp.float32)


def test_third_party_modules_have_shapes_without_a_rule_and_a_foreign_refusal_is_a_shape_error(registry):
    class Picky(nn.Module):
        def forward(self, x):
            batch, time, _ = x.shape
            assert time % 2 == 0, "an even number of steps"
            return x.reshape(batch, time // 2, -1)

    registry.register(Picky)
    assert registry.output_shape("picky", {}, (6, 5)) == (3, 10)
    with pytest.raises(ShapeError, match="even number of steps"):
        registry.output_shape("picky", {}, (5, 5))
    with pytest.raises(ShapeError, match="not enough values"):
        registry.output_shape("picky", {}, (5,))


def test_a_module_that_looks_at_values_needs_a_rule(registry):
    class Trimmed(nn.Module):
        def forward(self, x):
            return x[:, : 1 + int(sp.max(x) > 0)]

    registry.register(Trimmed)
    with pytest.raises(ShapeError, match="value"):
        registry.output_shape("trimmed", {}, (4,))
    registry.replace(Trimmed, output_shape=lambda config, shape: (2, *shape[1:]))
    assert registry.output_shape("trimmed", {}, (4, 3)) == (2, 3)


def test_a_factory_gets_the_defaults_that_its_metadata_declares():
    registry = ModuleDiscoveryRegistry(builtins=False)
    seen = []

    def factory(config):
        seen.append(dict(config))
        return nn.Linear(config["size"], config["size"])

    registry.register(ModuleMetadata("square", parameters={"size": 16, "scale": 1.5}), factory)
    registry.create("square", {})
    registry.create("square", {"size": "8"})
    assert seen == [{"size": 16, "scale": 1.5}, {"size": 8, "scale": 1.5}]
