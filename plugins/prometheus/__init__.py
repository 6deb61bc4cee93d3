"""A run's figures for Prometheus, in the text exposition format 0.0.4: over HTTP, or in a file for node_exporter."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR, socket
from socketserver import ThreadingTCPServer

import spiral
from spiral.errors import ConfigError, SaveError
from spiral.io import atomic_write
from spiral.plugin import Plugin, PluginCapability, PluginContext, PluginMetadata
from spiral.train import Callback, Evaluation, StepRecord, Trainer

log = logging.getLogger("spiral.plugin.prometheus")
METRICS = {  # those that end in _total are counters, which begin anew with each process
    "spiral_training": "1 while the run trains, 0 once it is over.",
    "spiral_step": "Steps taken so far.",
    "spiral_steps_planned": "Steps that the run shall have.",
    "spiral_loss": "Training loss of the last step, in nats per token.",
    "spiral_learning_rate": "Learning rate of the last step.",
    "spiral_gradient_norm": "Norm of the last step's gradient before clipping.",
    "spiral_tokens_total": "Tokens trained on.",
    "spiral_held_out_bits_per_byte": "Bits per byte of the held-out text.",
}


def exposition(values: dict[str, float], run: str) -> str:
    """Values by name as Prometheus reads them, labelled with the run."""
    label = run.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    text = ""
    for name, value in values.items():  # readers take nan, inf and -inf in any case
        text += f"# HELP {name} {METRICS[name]}\n# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n"
        text += f'{name}{{run="{label}"}} {float(value)}\n'
    return text


def serve(host: str, port: int, text: Callable[[], str]) -> tuple[int, Callable[[], None]]:
    """Serves a text over HTTP; gives the port, and what ends it with all its threads and sockets."""
    from http.server import BaseHTTPRequestHandler

    clients = set[socket]()

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0  # seconds that a client may keep its thread waiting

        def do_GET(self) -> None:  # noqa: N802
            body = text().encode() if self.path.partition("?")[0] == "/metrics" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            clients.add(self.connection)
            with suppress(OSError):  # the client has gone
                super().handle()
            clients.remove(self.connection)

        def log_message(self, *parts: object) -> None: ...

    class Server(ThreadingTCPServer):  # HTTPServer asks the name service for this machine's name: seconds, at times
        allow_reuse_address = True

    server = Server((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="prometheus", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        for client in list(clients):
            with suppress(OSError):
                client.shutdown(SHUT_RDWR)
        server.server_close()

    return int(server.server_address[1]), stop


class Prometheus(Callback):
    """Serves a run's figures at ``/metrics`` while it trains, or keeps them in a file.

    Args:
        port: Where to listen; 0: any free port, see the log.
        host: The address to listen on; only this machine reaches 127.0.0.1, every network 0.0.0.0.
        textfile: A file, ``….prom``, to write every 5 seconds instead. It must be writable at the start; later
            a warning is logged once, and training goes on.
    """

    def __init__(self, port: int = 9464, host: str = "127.0.0.1", textfile: str = "") -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536:
            raise ConfigError(f"prometheus: port must be an integer from 0 to 65535; received {port!r}.")
        self.port, self.host, self.textfile, self.run, self.due, self.warned = port, host, textfile, "", -1.0, False
        self.values: dict[str, float] = {}  # replaced, never changed: the server's threads read it
        self.stop: Callable[[], None] | None = None

    def on_start(self, trainer: Trainer) -> None:
        self.run = str(trainer.folder)
        self.show(spiral_training=1, spiral_step=trainer.step, spiral_steps_planned=trainer.config.run.steps)
        if not self.textfile:
            try:
                self.port, self.stop = serve(self.host, self.port, lambda: exposition(self.values, self.run))
            except OSError as error:
                why = f"{error.strerror}; choose another port, or 0 for any"
                raise ConfigError(f"prometheus: {self.host}:{self.port}: {why}.") from error
            log.info("prometheus: http://%s:%d/metrics", self.host, self.port)

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        tokens = self.values.get("spiral_tokens_total", 0) + record.tokens
        self.show(spiral_step=record.step, spiral_loss=record.loss, spiral_learning_rate=record.lr,
                  spiral_gradient_norm=record.grad_norm, spiral_tokens_total=tokens)  # fmt: skip

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self.show(spiral_held_out_bits_per_byte=evaluation.bits_per_byte)

    def on_close(self, trainer: Trainer) -> None:
        self.due = 0.0
        self.show(spiral_training=0)
        if self.stop is not None:
            self.stop()

    def show(self, **values: float) -> None:
        """Sets figures, all at once."""
        self.values = {**self.values, **values}
        if self.textfile and time.monotonic() >= self.due:
            first, self.due = self.due < 0, time.monotonic() + 5.0
            try:
                with atomic_write(self.textfile) as partial:
                    partial.write_text(exposition(self.values, self.run), encoding="utf-8")
            except SaveError as error:
                if first:
                    raise
                log.log(logging.DEBUG if self.warned else logging.WARNING, "prometheus: %s", error)
                self.warned = True


class PrometheusPlugin(Plugin):
    """Brings the callback ``prometheus``."""

    def metadata(self) -> PluginMetadata:
        made = PluginMetadata("prometheus", spiral.__version__).with_capability(PluginCapability.Telemetry)
        return made.with_description("metrics over HTTP or in a text file for Prometheus")

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_callback("prometheus", Prometheus)
