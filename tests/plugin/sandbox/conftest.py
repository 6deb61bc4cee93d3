"""Misbehaving programs, and what the host must look like after them."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from spiral.plugin.sandbox.child import why_unavailable

PRELUDE = """
import json, os, sys
def get():
    return json.loads(sys.stdin.readline())
def put(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
    sys.stdout.flush()
def answer(message, result=None):
    put({"id": message["id"], "result": result})
"""


def pytest_collection_modifyitems(items):
    missing = why_unavailable()
    for item in items:
        if missing and "sandbox" in str(item.path) and item.path.name != "test_protocol.py":
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where plugins get their folders, empty again when all of them have ended."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert [p for p in tmp_path.iterdir() if p.name.startswith("spiral-sandbox-")] == []


@pytest.fixture
def talk_to(folder):
    """``talk_to(source, handler, **limits)``: a conversation with a Python program; it is ended after the test."""
    from spiral.plugin.sandbox.conversation import Conversation
    from spiral.plugin.sandbox.limits import Limits

    started = []

    def start(source, handler=lambda method, params: None, **limits):
        limits = {"grace_seconds": 5.0, "call_seconds": 60.0, "start_seconds": 60.0, **limits}
        command = [sys.executable, "-I", "-S", "-c", PRELUDE + source]
        started.append(Conversation(command, Limits(**limits), handler))
        return started[-1]

    yield start
    for each in started:
        each.kill()


class Belongings:
    """Descriptors, threads and children of this process."""

    def __init__(self):
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.threads = threading.active_count()
        self.children = sorted(children())

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return repr(vars(self))


def children():
    """Numbers of the processes whose parent this one is, zombies too."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                yield int(entry.name)


@pytest.fixture
def belongings():
    return Belongings
