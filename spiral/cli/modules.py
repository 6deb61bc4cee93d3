"""``spiral modules``: the module types that pipelines can name, their settings, and checks of pipeline files."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spiral.nn.discovery import ModuleDiscoveryRegistry, ModuleMetadata
    from spiral.schema import Field

HELP = "the module types that pipelines can name, their settings, and checks of pipeline files"
EXAMPLES = (
    "spiral modules",
    "spiral modules --category pooling",
    "spiral modules conv2d",
    "spiral modules conv2d --json",
    "spiral modules check model.yaml --input 3,32,32",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "type", nargs="?", metavar="TYPE | check", help="a type, to see its settings; or the word check"
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="with check: a pipeline in a .yaml or .json file")
    parser.add_argument("--category", help="list the types of a category only, such as pooling")
    parser.add_argument("--text", default="", help="list the types with this text in name or description only")
    parser.add_argument("--input", metavar="SHAPE", help="with check: a sample's shape without the batch, as 3,32,32")
    parser.add_argument("--dtype", help="with check: the input's dtype (default float32; int64 before an embedding)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """List, show or check, and print."""
    from spiral.errors import ArgumentError
    from spiral.nn.discovery import ModuleDiscoveryRegistry

    registry = ModuleDiscoveryRegistry.shared()
    checks = arguments.type == "check"
    if checks and arguments.file is None:
        raise ArgumentError("modules check: expected a pipeline file, such as model.yaml.")
    if not checks and (arguments.file or arguments.input or arguments.dtype):
        raise ArgumentError("modules: a file, --input and --dtype go with `spiral modules check FILE`.")
    if arguments.type is not None and (arguments.category or arguments.text):
        raise ArgumentError("modules: --category and --text go with the list, without a type.")
    if checks:
        _check(registry, arguments)
    elif arguments.type is not None:
        _show(registry.get(arguments.type), arguments.json)
    else:
        _list(registry.find(arguments.category, arguments.text), arguments.json)
    return 0


def _list(found: list[ModuleMetadata], as_json: bool) -> None:
    if as_json:
        print(json.dumps([_facts(m) for m in found], indent=2))
        return
    width = max((len(m.module_type) for m in found), default=0)
    for category in dict.fromkeys(m.category for m in sorted(found, key=lambda m: m.category.value)):
        print(category)
        for m in found:
            if m.category is category:
                print(f"  {m.module_type:<{width}}  {m.description}".rstrip())


def _facts(metadata: ModuleMetadata) -> dict[str, Any]:
    return {
        "type": metadata.module_type,
        "name": metadata.display_name,
        "category": str(metadata.category),
        "description": metadata.description,
        "input_shape": metadata.input_shape,
        "output_shape": metadata.output_shape,
    }


def _show(metadata: ModuleMetadata, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**_facts(metadata), "parameters": metadata.parameters.to_json()}, indent=2))
        return
    print(f"{metadata.module_type} ({metadata.display_name}, {metadata.category}): {metadata.description}\n")
    print(metadata.parameters.table())
    config = {f.name: _example(f) for f in metadata.parameters.values() if f.required}
    settings = f"\n  config: {json.dumps(config)}" if config else ""
    print(f"\nin a pipeline file:\n- type: {metadata.module_type}{settings}")


def _example(field: Field) -> Any:
    """A value that the setting takes."""
    from spiral.errors import ConfigError

    for value in (*field.choices, 8, 0.5, True, "text", [8, 8]):
        try:
            field.parse(value)
        except ConfigError:
            continue
        return value
    return None


def _check(registry: ModuleDiscoveryRegistry, arguments: argparse.Namespace) -> None:
    from spiral.errors import ArgumentError, ConfigError
    from spiral.nn.discovery import ModulePipelineBuilder
    from spiral.schema import Field

    builder = ModulePipelineBuilder.load(arguments.file, registry)
    if arguments.input is not None:
        try:
            shape = Field("--input", tuple[int, ...]).parse(arguments.input)
        except ConfigError:
            raise ArgumentError(
                f"modules check: --input must be lengths such as 3,32,32; received {arguments.input!r}."
            ) from None
        builder.with_input(shape, arguments.dtype)
    elif arguments.dtype is not None:
        raise ArgumentError("modules check: --dtype goes with --input.")
    report = builder.check()
    if arguments.json:
        print(json.dumps([vars(row) for row in report], indent=2))
        return
    if builder.input_shape is None:
        print("no input is declared: shapes are those of one that all modules take; --input says the right one\n")
    print(report)
