"""A squeeze-and-excitation block, the optimizer Lamb and a recorder of weight norms for spiral."""

from __future__ import annotations

from spiral.plugin import Plugin, PluginCapability, PluginContext, PluginMetadata
from spiral_extras.lamb import Lamb
from spiral_extras.squeeze_excite import SqueezeExcite
from spiral_extras.weight_norms import WeightNorms

__all__ = ["ExtrasPlugin", "Lamb", "SqueezeExcite", "WeightNorms"]


class ExtrasPlugin(Plugin):
    """What the entry point names."""

    def metadata(self) -> PluginMetadata:
        return (
            PluginMetadata("spiral_extras", "1.0.0")
            .with_description("squeeze-and-excitation, Lamb, weight norms")
            .with_capability(PluginCapability.Vision)
            .with_capability(PluginCapability.Optimizers)
            .with_capability(PluginCapability.Telemetry)
        )

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_module(SqueezeExcite)
        ctx.register_optimizer("lamb", Lamb)
        ctx.register_callback("weight_norms", WeightNorms)
