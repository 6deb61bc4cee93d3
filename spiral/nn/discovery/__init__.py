"""Module types by name, and models put together from them in a file or by a builder.

registry = ModuleDiscoveryRegistry()
model = ModulePipelineBuilder(registry).add_module("linear", {"in_features": 3, "out_features": 2}).build()
"""

from spiral.nn.discovery.metadata import ModuleCategory, ModuleMetadata
from spiral.nn.discovery.pipeline import ModulePipelineBuilder
from spiral.nn.discovery.pipeline_modules import Parallel, Pipeline, Residual
from spiral.nn.discovery.registry import ModuleDiscoveryRegistry

__all__ = [
    "ModuleCategory",
    "ModuleDiscoveryRegistry",
    "ModuleMetadata",
    "ModulePipelineBuilder",
    "Parallel",
    "Pipeline",
    "Residual",
]
