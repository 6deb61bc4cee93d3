"""What a sandboxed process has, what it is refused, and what is left of it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from spiral.plugin.sandbox import seccomp
from spiral.plugin.sandbox.child import why_unavailable
from spiral.plugin.sandbox.errors import LimitExceeded, PluginDied, PluginNotRunning, SandboxError, SandboxUnavailable


def tried(talk_to, code, **limits):
    """What a program says of an attempt: its value or the name of the error."""
    source = f"""
m = get()
try:
    {code}
except Exception as error:
    x = type(error).__name__
answer(m, x)
"""
    return talk_to(source, **limits).request("go", {}, "start_seconds")


def test_it_inherits_no_descriptor(talk_to, tmp_path):
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        found = tried(talk_to, "x = sorted(int(n) for n in os.listdir('/proc/self/fd'))")
    assert found == [0, 1, 2, 3]  # 3 is the listing itself


def test_its_environment_is_bare(talk_to, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    names = {"HOME", "LANG", "MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS", "PATH", "TMPDIR"}
    assert set(tried(talk_to, "x = dict(os.environ)")) == names


def test_its_folder_is_empty_and_goes_with_it(talk_to, folder):
    talk = talk_to("m = get()\nopen('left', 'w').close()\nanswer(m, [os.getcwd(), os.listdir('.')])\nget()")
    where, inside = talk.request("go", {}, "start_seconds")
    assert os.path.dirname(where) == str(folder) and inside == ["left"]
    talk.kill()
    assert not os.path.exists(where)


def test_it_has_a_session_of_its_own(talk_to):
    assert tried(talk_to, "x = os.getsid(0) == os.getpid() == os.getpgid(0)") is True


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getppid(), 9)",
        "os.kill(os.getppid(), 0)",
        "os.kill(-1, 9)",
        "os.killpg(os.getpgid(os.getppid()), 9)",
        "import signal; signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
        "os.setsid()",
        "os.setpgid(0, os.getpgid(os.getppid()))",
        "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
        "import fcntl; fcntl.fcntl(0, 10, 9)",
        "import _socket; _socket.socket(2, 1)",
        "import _socket; _socket.socket(1, 1)",
        "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
        "import resource; resource.prlimit(0, resource.RLIMIT_AS, (1 << 30, 1 << 30))",
    ],
)
def test_it_cannot_reach_other_processes_or_change_its_limits(talk_to, code):
    assert tried(talk_to, f"{code}; x = 'done'") == "PermissionError"


def test_it_may_signal_itself_and_read_its_limits(talk_to):
    code = "import resource; os.kill(os.getpid(), 0); x = resource.getrlimit(resource.RLIMIT_AS)"
    assert tried(talk_to, code, memory_bytes=300 << 20) == [300 << 20] * 2


def test_it_leaves_no_core(talk_to):
    assert tried(talk_to, "import resource; x = resource.getrlimit(resource.RLIMIT_CORE)") == [0, 0]


def test_sockets_can_be_allowed(talk_to):
    assert tried(talk_to, "import _socket; _socket.socket(2, 1); x = 'done'", network=True) == "done"


def test_it_has_no_privileges(talk_to):
    code = "x = [l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'NoNewPrivs'))]"
    assert tried(talk_to, code) == ["0000000000000000", "0000000000000000", "1"]


def test_blocked_and_ignored_signals_of_the_host_are_not_inherited(talk_to):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        code = "x = [l.split()[1] for l in open('/proc/self/status') if l.startswith('SigBlk')]"
        assert tried(talk_to, code) == ["0000000000000000"]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("machine", sorted(seccomp.ARCHITECTURES))
def test_every_jump_of_the_filter_stays_inside_it(machine):
    code = seccomp.program(machine, 1234, network=False)
    ops = [code[i : i + 8] for i in range(0, len(code), 8)]
    for i, op in enumerate(ops):
        assert i + 1 + max(op[2], op[3]) < len(ops) or op[0] == 0x06
    assert ops[-1][0] == 0x06 and len(ops) < 4096


def test_a_program_that_is_not_there_is_named(folder):
    from spiral.plugin.sandbox.conversation import Conversation
    from spiral.plugin.sandbox.limits import Limits

    talk = Conversation(["/nowhere/plugin"], Limits(), lambda m, p: None)
    with pytest.raises(SandboxUnavailable, match="cannot run /nowhere/plugin: FileNotFoundError"):
        talk.request("initialize", {}, "start_seconds")


def test_a_system_without_the_limits_is_refused_with_what_is_missing():
    assert "needs Linux" in why_unavailable("darwin") and "win32" in why_unavailable("win32")
    assert "riscv64" in why_unavailable("linux", "riscv64")
    assert "32-bit" in why_unavailable("linux", "x86_64", 4)
    assert why_unavailable("linux", "x86_64", 8) is None


def test_it_can_be_imported_where_it_cannot_run():
    source = """
import signal, sys
for name in ("resource", "fcntl", "pwd", "grp"):
    sys.modules[name] = None  # as on Windows
for name in [n for n in vars(signal) if n.startswith("SIG") and n not in ("SIGINT", "SIGTERM")]:
    delattr(signal, name)
import spiral.plugin.sandbox.launch, spiral.plugin.sandbox.worker
from spiral.plugin.sandbox import why_unavailable
print(why_unavailable("win32"))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert "needs Linux" in done.stdout, done.stderr


def test_nothing_runs_where_limits_are_missing(monkeypatch, folder):
    from spiral.plugin.sandbox import child
    from spiral.plugin.sandbox.limits import Limits

    monkeypatch.setattr(child, "why_unavailable", lambda: "no seccomp")
    with pytest.raises(SandboxUnavailable, match=r"no seccomp\. Nothing was run"):
        child.Child(["true"], Limits(), {})


ENDINGS = [
    "answer(get())\nget()\nos._exit(0)",
    "answer(get())\nget()\nos.fork()",
    "answer(get())\nget()\nos.write(1, b'garbage\\n')",
    "answer(get())\nget()\nos.close(1)\nos._exit(3)",
    "import signal\nanswer(get())\nget()\nos.kill(os.getpid(), signal.SIGKILL)",
    "answer(get())\nget()\nwhile True: sys.stderr.write('x' * 1000)",
    "answer(get())\nanswer(get())\nget()",
]


def exercise(talk_to, times):
    for i in range(times):
        talk = talk_to(ENDINGS[i % len(ENDINGS)], output_bytes_per_second=2 << 20)
        talk.request("ready", {}, "start_seconds")
        try:
            talk.request("go", {}, "call_seconds")
            talk.close()
        except SandboxError:
            pass


def test_nothing_is_left_behind(talk_to, belongings):
    exercise(talk_to, 2)
    before = belongings()
    exercise(talk_to, 2 * len(ENDINGS))
    assert belongings() == before


@pytest.mark.slow
def test_nothing_is_left_behind_by_many(talk_to, belongings):
    exercise(talk_to, 2)
    before = belongings()
    exercise(talk_to, 300)
    assert belongings() == before


def test_a_plugin_that_is_forgotten_is_ended(talk_to, folder):
    from spiral.plugin.sandbox.conversation import Conversation
    from spiral.plugin.sandbox.limits import Limits

    talk = Conversation([sys.executable, "-I", "-S", "-c", "while True: pass"], Limits(), lambda m, p: None)
    pid = talk.pid
    del talk
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_end_of_the_host_is_the_end_of_its_plugins(folder):
    source = """
import sys
from spiral.plugin.sandbox.conversation import Conversation
from spiral.plugin.sandbox.limits import Limits
talk = Conversation([sys.executable, "-I", "-S", "-c", "while True: pass"], Limits(), lambda m, p: None)
print(talk.pid)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_fork_of_the_host_leaves_the_plugin_alone(talk_to):
    talk = talk_to("while True: answer(get(), os.getpid())")
    assert talk.request("go", {}, "start_seconds") == talk.pid
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            talk.request("go", {}, "call_seconds")
            os.write(writing, b"talked")
        except PluginNotRunning as error:
            talk._child.end(0.0)
            os.write(writing, json.dumps(str(error)).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert "forked" in said.read()
    assert talk.request("go", {}, "call_seconds") == talk.pid


def test_a_host_that_takes_exit_statuses_gets_an_error_all_the_same(talk_to):
    talk = talk_to("answer(get())\nget()")
    talk.request("ready", {}, "start_seconds")
    os.kill(talk.pid, signal.SIGKILL)
    os.waitpid(talk.pid, 0)
    with pytest.raises(PluginDied, match="taken by another part") as caught:
        talk.request("go", {}, "call_seconds")
    assert caught.value.status is None


def test_a_stricter_limit_of_the_user_stays(tmp_path):
    source = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from spiral.plugin.sandbox.conversation import Conversation
from spiral.plugin.sandbox.limits import Limits
code = "import json, resource, sys; m = json.loads(sys.stdin.readline())\\n"
code += "x = resource.getrlimit(resource.RLIMIT_NOFILE)\\n"
code += "print(json.dumps({'jsonrpc': '2.0', 'id': m['id'], 'result': x}))"
talk = Conversation([sys.executable, "-I", "-S", "-c", code], Limits(), lambda m, p: None)
print(talk.request("go", {}, "start_seconds"))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.stdout == "[40, 40]\n", done.stderr


def test_close_waits_for_what_is_still_said(talk_to):
    heard = []
    source = "m = get()\nanswer(m)\nsys.stdin.read()\nput({'method': 'log', 'params': {'x': 1}})"
    talk = talk_to(source, lambda method, params: heard.append((method, params)))
    talk.request("go", {}, "start_seconds")
    talk.close()
    assert heard == [("log", {"x": 1})] and talk._child.ending.status == 0


def test_processor_time_of_the_host_is_not_the_plugins(talk_to):
    while sum(os.times()[:2]) < 1.0:  # what is counted must not begin with it
        pass
    talk = talk_to("get()", cpu_seconds=1)
    with pytest.raises(PluginDied, match="exited with status 0"):
        talk.request("go", {}, "start_seconds")
    assert 0 < talk._child.ending.cpu_seconds < 1.0


def test_limit_errors_say_what_was_allowed(talk_to):
    with pytest.raises(LimitExceeded, match=r"message_bytes is 1,000; received a line of at least \d+ bytes") as caught:
        talk_to("m = get()\nanswer(m, 'x' * 2000)", message_bytes=1000).request("go", {}, "start_seconds")
    assert caught.value.allowed == 1000
