"""One registration of every kind, and what the world looked like before, for tests that take them back."""

from __future__ import annotations

from typing import Any

import spiral as sp
from spiral import nn, optim
from spiral.backend import ANY, Cap, DeviceInfo, Kernel, Spec
from spiral.plugin import EpochEnd, PluginContext, PluginRegistry
from spiral.registry import HOMES, complete_catalog, snapshot


class TripleDeclaration:
    """Three times x."""

    @staticmethod
    def meta(x):
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x):
        return 3 * x

    @staticmethod
    def vjp(need, g):
        return (g * 3.0,)


class OneKernelBackend:
    """A CPU backend with one kernel."""

    device_type = "cpu"
    priority = -1

    def __init__(self, name: str) -> None:
        self.name = name

    def probe(self):
        return [DeviceInfo("cpu")]

    def kernels(self):
        yield Kernel("add", lambda x, y: x + y, Cap(), allocates=True)


class Scaled(nn.Module):
    """Scales its input.

    Args:
        factor: What to multiply with.
    """

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class Command:
    """A command line's command."""

    HELP = "does nothing"
    EXAMPLES = ("spiral nothing",)

    @staticmethod
    def add_arguments(parser):
        """None."""

    @staticmethod
    def run(arguments):
        return 0


REGISTRATIONS: dict[str, Any] = {
    "service": lambda ctx, n: ctx.register_service(f"service-{n}", object(), version="1.0"),
    "setting": lambda ctx, n: ctx.set_config(f"key-{n}", n),
    "subscription": lambda ctx, n: ctx.subscribe(EpochEnd, print),
    "subscription to all": lambda ctx, n: ctx.subscribe("*", print),
    "op": lambda ctx, n: ctx.register_op(f"triple_{n}(x) -> y", TripleDeclaration),
    "kernel": lambda ctx, n: ctx.register_kernel("numpy", Kernel("add", lambda x, y: x + y, ANY, allocates=True)),
    "backend": lambda ctx, n: ctx.register_backend(OneKernelBackend(f"backend-{n}")),
    "module": lambda ctx, n: ctx.register_module(Scaled, name=f"scaled_{n}"),
    "optimizer": lambda ctx, n: ctx.register_optimizer(f"optimizer-{n}", optim.SGD),
    "loss": lambda ctx, n: ctx.register_loss(f"loss-{n}", nn.functional.mse_loss),
    "dataset": lambda ctx, n: ctx.register_dataset(f"dataset-{n}", lambda: "text"),
    "callback": lambda ctx, n: ctx.register_callback(f"callback-{n}", sp.train.Callback),
    "exporter": lambda ctx, n: ctx.register_exporter(f"exporter-{n}", lambda model, path: None),
    "command": lambda ctx, n: ctx.register_command(f"command-{n}", Command),
}
"""By what they add: functions of a context and a number that makes the name unique."""


def register_everything(ctx: PluginContext, number: str = "x") -> None:
    """One registration of every kind."""
    for add in REGISTRATIONS.values():
        add(ctx, number)


def world(registry: PluginRegistry) -> dict[str, Any]:
    """What is registered where, to be compared."""
    for kind in HOMES:
        complete_catalog(kind)
    return {
        "catalogs": snapshot(),
        "plugins": [m.id for m in registry.list_plugins()],
        "services": registry.services.names(),
        "settings": sorted(registry.configuration.keys()),
        "subscriptions": registry.events.subscriptions(),
    }
