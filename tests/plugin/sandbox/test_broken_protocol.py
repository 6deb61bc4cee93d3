"""Whoever does not keep to the protocol is killed and reported; the host goes on."""

import os

import pytest

from spiral.plugin.sandbox.conversation import Refusal
from spiral.plugin.sandbox.errors import PluginCallError, PluginDied, PluginNotRunning, ProtocolError
from spiral.plugin.sandbox.protocol import WireError


def error_of(talk, kind):
    with pytest.raises(kind) as caught:
        talk.request("go", {}, "call_seconds")
    with pytest.raises(ProcessLookupError):
        os.kill(talk.pid, 0)
    return caught.value


@pytest.mark.parametrize(
    ("write", "says"),
    [
        ("os.write(1, os.urandom(5000).replace(b'\\n', b'') + b'\\xff\\n')", "not UTF-8"),
        ("os.write(1, b'hello\\n')", "not JSON .*hello"),
        ("os.write(1, b'\\n')", "not JSON"),
        ("os.write(1, b'{}\\n')", '"jsonrpc": "2.0"'),
        ("os.write(1, b'[1]\\n')", '"jsonrpc": "2.0"'),
        ("put({'id': 1})", "neither a request nor an answer"),
        ("put({'id': 1, 'result': 1, 'error': {'code': 1, 'message': ''}})", "neither"),
        ("put({'id': 1, 'error': 'oh'})", "an error is an object"),
        ("put({'id': 1, 'error': {'code': 'x', 'message': ''}})", "integer code"),
        ("put({'id': 1.5, 'result': 1})", "an id is"),
        ("put({'id': 1, 'result': float('nan')})", "NaN is not JSON"),
        ("put({'id': 1, 'result': 2**63})", "64 bits"),
        ("put({'id': 1, 'result': {'$eval': 'x'}})", "begins with \\$"),
        ("put({'id': 99, 'result': 1})", "answered 99 instead of 1"),
        ("put({'id': '1', 'result': 1})", "answered '1' instead of 1"),
        ("put({'id': None, 'error': {'code': 1, 'message': ''}})", "answered None instead of 1"),
        ('os.write(1, b\'{"jsonrpc":"2.0","id":1,"result":1}\\n\' * 2)', "answered 1 twice"),
    ],
)
def test_what_is_not_the_protocol_is_named(talk_to, write, says):
    error = error_of(talk_to(f"get()\n{write}\nget()"), ProtocolError)
    assert __import__("re").search(says, str(error)), str(error)


def test_an_answer_that_nobody_waits_for_is_noticed_later(talk_to):
    talk = talk_to("m = get()\nanswer(m)\nget()\nanswer(m)\nanswer({'id': 2})\nget()")
    talk.request("go", {}, "start_seconds")
    error = error_of(talk, ProtocolError)
    assert "answered 1 instead of 2" in str(error)


def test_closing_the_output_while_running_is_the_end(talk_to):
    talk = talk_to("import time\nget()\nos.close(1)\nwhile True: time.sleep(1)", grace_seconds=0.3)
    assert "closed its output and went on running" in str(error_of(talk, ProtocolError))


def test_closing_the_input_while_running_is_the_end(talk_to):
    talk = talk_to("import time\nanswer(get())\nos.close(0)\nwhile True: time.sleep(1)", grace_seconds=0.3)
    talk.request("ready", {}, "start_seconds")
    with pytest.raises(ProtocolError, match="closed its input"):
        while True:  # until it has closed it
            talk.notify("event", {}, "call_seconds")


@pytest.mark.parametrize("status", [0, 1, 125, 255])
def test_an_exit_is_reported_with_its_status(talk_to, status):
    error = error_of(talk_to(f"get()\nos._exit({status})"), PluginDied)
    assert error.status == status and f"exited with status {status}" in str(error)


def test_a_crash_is_reported_with_its_signal_and_last_words(talk_to):
    error = error_of(talk_to("import signal\nget()\nos.write(2, b'bye\\n')\nos.kill(os.getpid(), 11)"), PluginDied)
    assert error.status == -11 and "SIGSEGV" in str(error) and error.stderr == "bye\n" and "bye" in str(error)


def test_an_exit_in_the_middle_of_a_message_is_reported(talk_to):
    error = error_of(talk_to("get()\nos.write(1, b'{\"jsonrpc\"')\nos._exit(0)"), PluginDied)
    assert "10 bytes into a message" in str(error)


def test_an_exit_after_the_answer_is_reported_by_the_next_request(talk_to):
    talk = talk_to("answer(get(), 'last')")
    assert talk.request("go", {}, "start_seconds") == "last"
    assert error_of(talk, PluginDied).status == 0


def test_an_exit_while_nobody_asks_is_found_by_looking(talk_to):
    talk = talk_to("answer(get())")
    talk.request("go", {}, "start_seconds")
    talk._child.wait_exited(60)
    with pytest.raises(PluginDied):
        talk.poll()
    with pytest.raises(PluginNotRunning, match="exited with status 0"):
        talk.poll()


def test_an_error_in_an_answer_leaves_the_plugin_alive(talk_to):
    source = """
m = get()
put({"id": m["id"], "error": {"code": -32000, "message": "no", "data": {"type": "KeyError", "traceback": "line 1"}}})
answer(get(), 5)
"""
    talk = talk_to(source)
    with pytest.raises(PluginCallError, match="go: no") as caught:
        talk.request("go", {}, "start_seconds")
    assert (caught.value.code, caught.value.remote_type, caught.value.remote_traceback) == (
        -32000,
        "KeyError",
        "line 1",
    )
    assert talk.request("go", {}, "call_seconds") == 5


def test_what_cannot_be_sent_is_not(talk_to):
    talk = talk_to("while True: answer(get())", message_bytes=1000)
    with pytest.raises(WireError, match="at most 1000 bytes"):
        talk.request("go", {"x": "y" * 1000}, "call_seconds")
    with pytest.raises(WireError, match="object"):
        talk.request("go", {"x": object()}, "call_seconds")
    assert talk.request("go", {}, "start_seconds") is None


def test_requests_are_served_while_the_answer_is_awaited(talk_to):
    def handler(method, params):
        if method == "fail":
            raise Refusal("not you")
        if method == "bug":
            raise ZeroDivisionError
        return {"got": params}

    source = """
m = get()
put({"id": "a", "method": "anything", "params": {"x": 1}})
first = get()
put({"id": "b", "method": "fail"})
second = get()
put({"id": "c", "method": "bug"})
answer(m, [first, second, get()])
"""
    first, second, third = talk_to(source, handler).request("go", {}, "start_seconds")
    assert (first["id"], first["result"]) == ("a", {"got": {"x": 1}})
    assert second["error"] == {"code": -32010, "message": "not you"}
    assert third["error"] == {"code": -32603, "message": "ZeroDivisionError"}


def test_asking_from_within_an_answer_is_refused(talk_to):
    seen = []

    def handler(method, params):
        with pytest.raises(PluginNotRunning, match="being served"):
            talk.request("inner", {}, "call_seconds")
        seen.append(method)

    talk = talk_to("m = get()\nput({'method': 'publish'})\nanswer(m, 3)", handler)
    assert talk.request("go", {}, "start_seconds") == 3 and seen == ["publish"]


def test_an_interrupted_caller_does_not_confuse_the_next(talk_to):
    def handler(method, params):
        raise KeyboardInterrupt

    talk = talk_to("m = get()\nput({'method': 'log'})\nanswer(m, 1)\nanswer(get(), 2)", handler)
    with pytest.raises(KeyboardInterrupt):
        talk.request("go", {}, "start_seconds")
    assert talk.request("go", {}, "call_seconds") == 2
