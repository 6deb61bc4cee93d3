"""Whoever breaks a limit is killed and reported by it; the host goes on."""

import os
import signal
import time

import pytest

from spiral.errors import ConfigError
from spiral.plugin.sandbox.errors import LimitExceeded, PluginDied, PluginNotRunning
from spiral.plugin.sandbox.limits import Bucket, Limits


def broken(talk, *, ready=True):
    """The error of a second request, after a first one that is answered."""
    if ready:
        talk.request("ready", {}, "start_seconds")
    with pytest.raises(LimitExceeded) as caught:
        talk.request("go", {}, "call_seconds")
    with pytest.raises(ProcessLookupError):
        os.kill(talk.pid, 0)
    with pytest.raises(PluginNotRunning, match="has ended"):
        talk.request("again", {}, "call_seconds")
    assert talk.failure is caught.value
    return caught.value


def test_an_endless_loop_ends_at_the_deadline_of_the_call(talk_to):
    error = broken(talk_to("answer(get())\nwhile True: pass", call_seconds=0.3))
    assert (error.limit, error.allowed) == ("call_seconds", 0.3)
    assert "no answer to 'go' after 0.3 s" in str(error) and error.plugin in str(error)


def test_a_program_that_never_starts_talking_ends_at_the_deadline_of_the_start(talk_to):
    talk = talk_to("while True: pass", start_seconds=0.3)
    with pytest.raises(LimitExceeded) as caught:
        talk.request("initialize", {}, "start_seconds")
    assert caught.value.limit == "start_seconds"


def test_processor_time_is_limited(talk_to):
    error = broken(talk_to("answer(get())\nwhile True: pass", cpu_seconds=1))
    assert error.limit == "cpu_seconds"


def test_catching_the_warning_about_processor_time_does_not_help(talk_to):
    source = "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nanswer(get())\nwhile True: pass"
    assert broken(talk_to(source, cpu_seconds=1)).limit == "cpu_seconds"


def test_termination_cannot_be_ignored(talk_to):
    source = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nanswer(get())\nwhile True: pass"
    talk = talk_to(source, call_seconds=0.3, grace_seconds=0.2)
    assert broken(talk).limit == "call_seconds"
    assert talk._child.ending.status == -signal.SIGKILL


def test_termination_can_be_used_to_say_goodbye(talk_to):
    source = """
import signal
def bye(*_):
    os._exit(7)
signal.signal(signal.SIGTERM, bye)
answer(get())
while True: pass
"""
    talk = talk_to(source, call_seconds=0.5)
    broken(talk)
    assert talk._child.ending.status == 7


def test_ten_gigabytes_cannot_be_allocated(talk_to):
    talk = talk_to("answer(get())\nget()\nx = bytearray(10 << 30)\nanswer({'id': 2})")
    talk.request("ready", {}, "start_seconds")
    with pytest.raises(PluginDied, match=r"exited with status 1.*MemoryError"):
        talk.request("go", {}, "call_seconds")


def test_many_small_allocations_end_as_well(talk_to):
    source = """
answer(get())
get()
kept = []
while True:
    kept.append(bytearray(1 << 20))
    if len(kept) > 128: os._exit(9)  # more than it may have
"""
    talk = talk_to(source, memory_bytes=128 << 20)
    talk.request("ready", {}, "start_seconds")
    with pytest.raises(PluginDied, match="MemoryError"):
        talk.request("go", {}, "call_seconds")


@pytest.mark.parametrize(
    "fork",
    [
        "os.fork()",
        "while True: os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess; subprocess.Popen(['true'])",
        "os.system('true')",
        "import ctypes, platform\nif platform.machine() == 'x86_64': ctypes.CDLL(None).syscall(58)\nelse: os.fork()",
        # a daemon: would be nobody's child, in a session of its own
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True: pass\n    os._exit(0)",
    ],
    ids=["fork", "bomb", "spawn", "subprocess", "system", "vfork", "daemon"],
)
def test_another_process_is_never_made(talk_to, fork):
    error = broken(talk_to(f"answer(get())\nget()\n{fork}\nanswer({{'id': 2}})"))
    assert (error.limit, error.allowed) == ("processes", 1)


def test_threads_are_allowed(talk_to):
    source = """
import threading
m = get()
t = threading.Thread(target=answer, args=(m, "from a thread"))
t.start()
t.join()
"""
    assert talk_to(source).request("go", {}, "start_seconds") == "from a thread"


def test_a_file_cannot_grow_beyond_its_limit(talk_to):
    source = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
answer(get())
with open("big", "wb") as file:
    while True: file.write(bytes(1 << 16))
"""
    assert broken(talk_to(source, file_bytes=1 << 20)).limit == "file_bytes"


def test_open_files_are_limited(talk_to):
    source = """
m, kept = get(), []
try:
    while True: kept.append(open("/dev/null"))
except OSError as error:
    del kept
    answer(m, error.strerror)
"""
    assert "Too many open files" in talk_to(source, open_files=20).request("go", {}, "start_seconds")


def test_calls_are_counted(talk_to):
    talk = talk_to("while True: answer(get())", calls=3)
    for _ in range(3):
        talk.request("call", {}, "call_seconds", counted=True)
    with pytest.raises(LimitExceeded) as caught:
        talk.request("call", {}, "call_seconds", counted=True)
    assert (caught.value.limit, caught.value.received) == ("calls", "call number 4")


def test_a_line_without_an_end_is_cut_off(talk_to):
    talk = talk_to("answer(get())\nget()\nwhile True: sys.stdout.write('x' * 1000)", message_bytes=20_000)
    error = broken(talk)
    assert (error.limit, error.allowed) == ("message_bytes", 20_000)


def test_a_message_that_is_too_long_is_refused(talk_to):
    error = broken(talk_to("answer(get())\nanswer(get(), 'x' * 5000)", message_bytes=1000))
    assert error.limit == "message_bytes"


def test_a_message_that_is_nested_too_deeply_is_refused(talk_to):
    nested = "sys.stdout.write('{\"jsonrpc\": \"2.0\", \"id\": 2, \"result\": ' + '[' * %d + ']' * %d + '}\\n')"
    for levels in (40, 100_000):
        talk = talk_to(f"answer(get())\nget()\n{nested % (levels, levels)}\nsys.stdout.flush()\nget()")
        assert broken(talk).limit == "depth"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_has_a_rate(talk_to, stream):
    line = '{\\"jsonrpc\\": \\"2.0\\", \\"method\\": \\"log\\"}' if stream == "stdout" else "x" * 70
    source = f'answer(get())\nget()\nwhile True: sys.{stream}.write("{line}\\n" * 100)'
    talk = talk_to(source, message_bytes=1000, output_bytes_per_second=100_000, messages_per_second=1_000_000)
    assert broken(talk).limit == "output_bytes_per_second"


def test_messages_have_a_rate(talk_to):
    heard = []
    talk = talk_to(
        "answer(get())\nget()\nwhile True: put({'method': 'log'})",
        lambda method, params: heard.append(method),
        messages_per_second=50,
    )
    assert broken(talk).limit == "messages_per_second"
    assert len(heard) >= 50


def test_much_standard_error_is_harmless_and_its_end_is_kept(talk_to):
    source = "m = get()\nfor i in range(20000): sys.stderr.write(f'line {i}\\n')\nsys.stderr.flush()\nanswer(m)"
    talk = talk_to(source, stderr_bytes=100)
    talk.request("go", {}, "start_seconds")
    talk.request.__self__.close()
    assert talk.stderr.endswith("line 19999\n") and len(talk.stderr) <= 100


def test_a_plugin_that_asks_without_reading_is_stopped(talk_to):
    source = "answer(get())\nget()\nwhile True: put({'id': 1, 'method': 'get_config'})"
    talk = talk_to(source, lambda method, params: "x" * 900, message_bytes=1000, output_bytes_per_second=10**9)
    talk.request("ready", {}, "start_seconds")
    with pytest.raises(Exception, match="without reading the answers|messages_per_second"):
        talk.request("go", {}, "call_seconds")


def test_a_plugin_that_does_not_read_stops_nobody_for_longer_than_a_call(talk_to):
    talk = talk_to("answer(get())\nwhile True: pass", call_seconds=0.3)
    talk.request("ready", {}, "start_seconds")
    with pytest.raises(LimitExceeded, match="call_seconds"):
        for _ in range(100):  # the pipe takes some
            talk.notify("event", {"data": "x" * 100_000}, "call_seconds")


def test_a_caller_waits_for_another_ones_turn(talk_to):
    import threading

    talk = talk_to("while True:\n    m = get()\n    answer(m, m['params'])")
    wrong = []

    def ask(n):
        for i in range(50):
            if talk.request("echo", {"n": n, "i": i}, "call_seconds") != {"n": n, "i": i}:
                wrong.append((n, i))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_limits_that_make_no_sense_are_refused():
    for wrong in ({"memory_bytes": -1}, {"cpu_seconds": float("inf")}, {"calls": 1.5}, {"depth": True}):
        with pytest.raises(ConfigError, match=f"Limits.{next(iter(wrong))}"):
            Limits(**wrong)
    with pytest.raises(ConfigError, match="network"):
        Limits(network=1)
    with pytest.raises(ConfigError, match="at least message_bytes"):
        Limits(output_bytes_per_second=10)


def test_a_bucket_never_holds_more_than_a_second():
    bucket = Bucket(5, now=0.0)
    assert bucket.take(5, now=100.0) and not bucket.take(1, now=100.0)
    assert bucket.take(5, now=time.monotonic() + 200)
