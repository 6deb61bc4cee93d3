"""Threads that compute, load, listen, look and unload at once: nobody waits for ever, nobody sees half of something."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import faulthandler, random, sys, threading, time
faulthandler.dump_traceback_later(100, exit=True)  # a deadlock shows where everybody stands
import spiral as sp
from spiral.errors import SpiralError
from spiral.plugin import BackendChanged, Custom, Plugin, PluginMetadata, TensorOp, global_registry, init_plugin_system

class Busy(Plugin):
    def __init__(self, number):
        self.about = PluginMetadata(f"busy-{number}", "1.0")
    def metadata(self):
        return self.about
    def on_load(self, ctx):
        compute(None)
        ctx.set_config("a", 1)
        ctx.register_service(f"service of {ctx.plugin_id}", 1)
        ctx.publish(Custom("Arrived", 1))

registry = global_registry()
wrong, done = [], dict.fromkeys(("loaded", "unloaded"), 0)

def compute(chance):
    if ((sp.ones(2) + 1) * 2).tolist() != [4.0, 4.0]:
        wrong.append("a result")

def load(chance):
    registry.register(Busy(chance.randrange(4)))
    done["loaded"] += 1

def unload(chance):
    registry.unregister(f"busy-{chance.randrange(4)}", cascade=True)
    done["unloaded"] += 1

def load_in_a_listener(chance):
    def arrive(event):
        try:
            load(chance)
        except SpiralError:
            pass
    with registry.events.subscribe("Arrived", arrive):
        registry.events.publish(Custom("Arrived", 1))

def listen_to_ops(chance):
    with registry.events.subscribe(TensorOp, str), registry.events.subscribe(BackendChanged, str):
        compute(chance)

def look(chance):
    sp.backends(), sp.explain("exp", sp.ones(1)), registry.list_plugins(), registry.configuration.keys()

def initialize(chance):
    init_plugin_system()

def run(number, end):
    chance = random.Random(number)
    while time.monotonic() < end:
        act = chance.choice([compute, compute, load, unload, load_in_a_listener, listen_to_ops, look, initialize])
        try:
            act(chance)
        except SpiralError as error:
            if act not in (load, unload):
                wrong.append(f"{act.__name__}: {error!r}")
        except BaseException as error:
            wrong.append(f"{act.__name__}: {error!r}")

sys.setswitchinterval(1e-4)
threads = [threading.Thread(target=run, args=(n, time.monotonic() + SECONDS)) for n in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong[:5]
assert all(done.values()), done
registry.shutdown()
left = registry.list_plugins(), registry.services.names(), registry.configuration.keys()
assert not any(left) and not registry.events.subscriptions(), left
"""


def run(seconds: float) -> None:
    environment = {**os.environ, "SPIRAL_NUM_THREADS": "1"}
    program = PROGRAM.replace("SECONDS", str(seconds))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]


def test_threads_that_compute_load_and_listen_do_not_wait_for_ever():
    run(1.5)


@pytest.mark.slow
def test_the_same_for_long():
    run(20)
