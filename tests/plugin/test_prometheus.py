"""Metrics for Prometheus: scraped while training, or as a file; no thread or socket is left."""

from __future__ import annotations

import math
import re
import socket
import threading
import urllib.error
import urllib.request

import pytest
from recorded_run import Fails, loaded, require_same_weights, tiny_config, trained, warnings_of

from spiral.errors import ConfigError, SaveError
from spiral.plugins.prometheus import METRICS, Prometheus, exposition
from spiral.train import Callback

LINE = re.compile(r'^(?P<name>[a-z_]+)\{run="(?P<run>(?:[^"\\\n]|\\\\|\\"|\\n)*)"\} (?P<value>\S+)$')


def parsed(text: str) -> dict[str, float]:
    """The samples of an exposition whose every line is checked."""
    assert text.endswith("\n")
    lines, found = text.splitlines(), {}
    for about, kind, sample in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        match = LINE.match(sample)
        assert match, sample
        name = match["name"]
        assert about.startswith(f"# HELP {name} ") and name not in found
        assert kind == f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
        found[name] = float(match["value"])
    return found


def get(port: int, path: str = "/metrics"):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10)


class Scrapes(Callback):
    """Asks the server after every step."""

    def __init__(self, server: Prometheus) -> None:
        self.server, self.seen, self.port = server, [], 0

    def on_step(self, trainer, record):
        self.port = self.server.port
        with get(self.port) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            self.seen.append(parsed(answer.read().decode()))


def test_a_run_is_scraped_while_it_trains(tmp_path):
    server = Prometheus(port=0)
    scrapes = Scrapes(server)
    threads = set(threading.enumerate())
    trainer = trained(tiny_config(tmp_path, run={"eval_every": 4}), callbacks=(server, scrapes)).trainer
    losses = {e["step"]: e["loss"] for e in trainer.metrics.read() if e["event"] == "step"}
    assert [s["spiral_step"] for s in scrapes.seen] == list(range(1, 13))
    assert [s["spiral_loss"] for s in scrapes.seen] == [losses[n] for n in range(1, 13)]
    assert [s["spiral_tokens_total"] for s in scrapes.seen] == [64 * n for n in range(1, 13)]
    assert (
        "spiral_held_out_bits_per_byte" not in scrapes.seen[3] and scrapes.seen[4]["spiral_held_out_bits_per_byte"] > 0
    )
    assert set(scrapes.seen[-1]) == set(METRICS)
    assert set(threading.enumerate()) == threads
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(scrapes.port)


def test_the_format_is_what_the_clients_own_parser_reads():
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    run = 'a "run"\\ of\nmine'
    text = exposition({"spiral_loss": math.nan, "spiral_gradient_norm": math.inf, "spiral_tokens_total": 3.0}, run)
    families = list(parser.text_string_to_metric_families(text))
    assert [f.type for f in families] == ["gauge", "gauge", "counter"]
    values = [s for f in families for s in f.samples]
    assert all(s.labels == {"run": run} for s in values)
    assert math.isnan(values[0].value) and values[1].value == math.inf and values[2].value == 3.0


def test_labels_are_escaped():
    text = exposition({"spiral_step": 1}, 'a "run"\\ of\nmine')
    assert text.splitlines()[-1] == 'spiral_step{run="a \\"run\\"\\\\ of\\nmine"} 1.0'
    assert parsed(text) == {"spiral_step": 1.0}


def test_another_path_is_not_found_and_the_run_goes_on(tmp_path):
    class Asks(Callback):
        def on_step(self, trainer, record):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(server.port, "/secret")
            with socket.create_connection(("127.0.0.1", server.port)) as rude:
                rude.sendall(b"\x00\xff garbage\r\n")

    server = Prometheus(port=0)
    assert trained(tiny_config(tmp_path, run={"steps": 2}), callbacks=(server, Asks())).trainer.step == 2


def test_a_port_in_use_is_an_error_that_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"prometheus: 127.0.0.1:{port}: Address already in use; choose another"):
            trained(tiny_config(tmp_path), callbacks=(Prometheus(port=port),))


def test_a_client_that_says_nothing_delays_neither_the_run_nor_its_end(tmp_path):
    class Silent(Callback):
        def on_step(self, trainer, record):
            if record.step == 1:
                self.connection = socket.create_connection(("127.0.0.1", server.port))
                get(server.port).read()  # others are served meanwhile

    server, silent, threads = Prometheus(port=0), Silent(), set(threading.enumerate())
    trained(tiny_config(tmp_path), callbacks=(server, silent))
    assert set(threading.enumerate()) == threads
    silent.connection.settimeout(10)
    try:
        assert silent.connection.recv(100) == b""
    except ConnectionResetError:
        pass
    silent.connection.close()


def test_an_error_in_the_run_ends_the_server(tmp_path):
    server, scrapes, threads = Prometheus(port=0), None, set(threading.enumerate())
    scrapes = Scrapes(server)
    with pytest.raises(RuntimeError, match="fails"):
        trained(tiny_config(tmp_path), callbacks=(server, scrapes, Fails(2)))
    assert set(threading.enumerate()) == threads
    trained(tiny_config(tmp_path), resume=False, callbacks=(Prometheus(port=scrapes.port),))  # the port is free again


def test_a_file_for_node_exporter(tmp_path):
    path = tmp_path / "spiral.prom"
    with loaded("prometheus") as make:
        trained(tiny_config(tmp_path, run={"eval_every": 4}), callbacks=(make(textfile=str(path)),))
    found = parsed(path.read_text())
    assert found["spiral_training"] == 0 and found["spiral_step"] == 12 and set(found) == set(METRICS)
    assert [p.name for p in tmp_path.glob("*prom*")] == ["spiral.prom"]


def test_a_file_that_cannot_be_written_is_an_error_at_the_start_and_a_warning_later(tmp_path, caplog):
    with pytest.raises(SaveError, match="nowhere"):
        trained(tiny_config(tmp_path), callbacks=(Prometheus(textfile=str(tmp_path / "nowhere" / "a.prom")),))
    caplog.clear()
    folder = tmp_path / "there"
    folder.mkdir()

    class Removed(Callback):
        def on_step(self, trainer, record):
            (folder / "a.prom").unlink(missing_ok=True)
            if folder.exists():
                folder.rmdir()
            recorder.due = 0.0

    recorder = Prometheus(textfile=str(folder / "a.prom"))
    assert trained(tiny_config(tmp_path), callbacks=(recorder, Removed())).trainer.step == 12
    (warning,) = warnings_of(caplog, "prometheus")
    assert "there/a.prom: cannot be written" in warning


@pytest.mark.parametrize("port", [-1, 65536, True, "9464", 1.0])
def test_a_port_must_be_one(port):
    with pytest.raises(ConfigError, match="prometheus: port must be an integer from 0 to 65535; received"):
        Prometheus(port=port)


def test_weights_are_the_same_bits(tmp_path):
    require_same_weights(tmp_path, lambda: Prometheus(port=0))
