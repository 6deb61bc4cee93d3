"""A spiral plugin in Python that needs nothing but the standard library: the mean loss of the last steps, as a service.

registry.register(SandboxedPlugin.from_file("running_mean.py"))     # in a process of its own
registry.load_path("running_mean.py")                               # or inside the host
"""

from collections import deque

from spiral.plugin import Plugin, PluginCapability, PluginMetadata


class RunningMean:
    """The service: plain numbers in and out, so it can be used from another process."""

    def __init__(self, window):
        self.losses = deque(maxlen=window)

    def add(self, loss):
        """Takes a loss and gives the mean of the latest ones."""
        self.losses.append(loss)
        return self.mean()

    def mean(self):
        """The mean; None before the first loss."""
        return sum(self.losses) / len(self.losses) if self.losses else None


class RunningMeanPlugin(Plugin):
    """Feeds the service from the events of a training run."""

    def metadata(self):
        return PluginMetadata("running_mean", "1.0").with_capability(PluginCapability.Telemetry)

    def on_load(self, ctx):
        self.service = RunningMean(int(ctx.get_config("window", 100)))
        ctx.register_service("running_mean", self.service)
        ctx.subscribe("EpochEnd", lambda event: self.service.add(event.loss))

    def export_state(self):
        return list(self.service.losses)

    def import_state(self, state):
        self.service.losses.extend(state)
