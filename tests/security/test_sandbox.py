"""Code in the sandbox: what it may, what it may not, and what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from gridup_infra.processes import wait_until, which
from gridup_node.sandbox import approved, client, confining, frames, shells, supervisor, values
from gridup_node.sandbox.frames import Kind
from gridup_node.sandbox.outcome import MOST_OUTPUT, SENTENCES, Failure, Reason
from gridup_node.sandbox.values import Bounds, Unfit, decode, encode
from gridup_node.services import service
from support.sandbox_rig import MEMORY, SERVE, Heard, Sandbox, sandbox, shell
from support.syft_client import SCRIPTS, run_script

SECRET = "the-server's-own-key"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The service with nothing around it: what holds here holds in every shell."""
    if not confining.landlock() or not confining.seccomp():
        pytest.skip("this kernel has no Landlock or no seccomp")
    home = tmp_path_factory.mktemp("node")
    (home / "secrets").mkdir()
    (home / "secrets" / "server_key").write_text(SECRET)
    with sandbox(home) as found:
        yield found


class TestWork:
    def test_it_gets_its_arguments_and_returns_its_result(self, bare: Sandbox) -> None:
        assert bare.run("return [x * 2, y]", x=21, y={"a": (1, None)}) == [42, {"a": (1, None)}]

    def test_what_it_prints_is_heard_in_order(self, bare: Sandbox) -> None:
        heard = Heard()
        bare.run(
            "import sys\nprint('one', 'é')\nsys.stderr.write('two')\nprint('three', end='')", heard=heard
        )
        assert heard.text == "one é\ntwothree"

    def test_what_it_prints_is_bounded(self, bare: Sandbox) -> None:
        heard = Heard()
        assert bare.run("for _ in range(3000):\n    print('x' * 1000)\nreturn 1", heard=heard) == 1
        assert MOST_OUTPUT < len(heard.text) < MOST_OUTPUT + 200
        assert "cut off" in heard.text[-200:]

    def test_it_may_have_threads_and_a_folder_of_its_own(self, bare: Sandbox) -> None:
        body = (
            "import tempfile, shutil, threading\n"
            "done = []\n"
            "one = threading.Thread(target=lambda: done.append(1)); one.start(); one.join()\n"
            "with tempfile.NamedTemporaryFile(mode='w+') as file:\n"
            "    file.write('kept'); file.flush()\n"
            "    copy = shutil.copy(file.name, 'copy')\n"
            "return done, open('copy').read()"
        )
        assert bare.run(body) == ([1], "kept")

    def test_several_run_at_once(self, bare: Sandbox) -> None:
        class Asks(Heard):
            def asked(self, *_question: Any) -> Any:
                # While the first waits for its answer, a second one runs to its end.
                return bare.run("return 1")

        request = client.Request("def f(api):\n    return api.mock()\n", "f", {}, endpoints=["api"])
        assert client.run(bare.folder, request, Asks(), seconds=300) == 1

    def test_an_exception_of_the_code_is_told_to_administrators_alone(self, bare: Sandbox) -> None:
        failure = bare.failure("raise ValueError(x)", x="a patient's name")
        assert (failure.reason, failure.sentence) == (Reason.RAISED, "")
        assert "ValueError: a patient's name" in failure.trace and "<approved code>" in failure.trace


FORBIDDEN = {
    "reads a secret": ("return open(x + '/../secrets/server_key').read()", Reason.FILES),
    "reads the system's passwords": ("return open('/etc/shadow').read()", Reason.FILES),
    "lists a home": ("import os\nreturn os.listdir(x + '/../..')", Reason.FILES),
    "writes elsewhere": ("open(x + '/left', 'w')", Reason.FILES),
    "takes the socket away": ("import os\nos.unlink(x + '/socket')", Reason.FILES),
    "reads others' memory": ("import os\nreturn open(f'/proc/{os.getppid()}/mem', 'rb')", Reason.FILES),
    "reads others' environment": ("return open(f'/proc/{pid}/environ').read()", Reason.FILES),
    "opens a socket": ("import socket\nsocket.create_connection(('127.0.0.1', 1))", Reason.NETWORK),
    "asks a name server": ("import socket\nreturn socket.getaddrinfo('inst.example', 80)", Reason.NETWORK),
    "asks the cloud's metadata": (
        "import urllib.request\nurllib.request.urlopen('http://169.254.169.254/')",
        Reason.NETWORK,
    ),
    "asks the sandbox itself": (
        "import socket\nsocket.socket(socket.AF_UNIX).connect(x + '/socket')",
        Reason.NETWORK,
    ),
    "sends a datagram": (
        "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', x)",
        Reason.NETWORK,
    ),
    "forks": ("import os\nos.fork()", Reason.SYSTEM),
    "starts a program": ("import subprocess\nreturn subprocess.check_output(['id'])", Reason.SYSTEM),
    "becomes a program": ("import os\nos.execv('/bin/sh', ['sh'])", Reason.SYSTEM),
    "starts workers": ("import multiprocessing\nwith multiprocessing.Pool(1) as p: pass", Reason.FILES),
    "ends its parent": ("import os\nos.kill(os.getppid(), 9)", Reason.SYSTEM),
    "ends everybody": ("import os\nos.kill(-1, 9)", Reason.SYSTEM),
    "bounds its parent": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
        Reason.SYSTEM,
    ),
    "raises its limits": ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", None),
    "needs too much memory": ("x = []\nwhile True: x.append(bytearray(10**7))", Reason.MEMORY),
    "needs it at once": ("return bytearray(10**12)", Reason.MEMORY),
    "recurses": ("def g(): g()\ng()", Reason.RAISED),
    "exits": ("raise SystemExit(0)", Reason.RAISED),
    "is gone": ("import os\nos._exit(0)", Reason.ENDED),
    "crashes": ("import ctypes\nctypes.string_at(0)", Reason.ENDED),
    "traces": (
        "import ctypes\nif ctypes.CDLL(None).ptrace(16, 1, 0, 0): raise OSError(1, 'no')",
        Reason.SYSTEM,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_code_may_not_do_ends_in_a_clear_error(bare: Sandbox, what: str) -> None:
    body, reason = FORBIDDEN[what]
    failure = bare.failure(body, x=str(bare.folder), pid=os.getpid())
    if reason is not None:
        assert failure.reason is reason, failure
    assert SECRET not in f"{failure}"
    if failure.reason is not Reason.RAISED:
        assert failure.sentence.startswith(SENTENCES[failure.reason].partition("{")[0])
        assert "Traceback" not in failure.sentence
    # The service goes on.
    assert bare.run("return 1") == 1


CALLS = """
import ctypes, fcntl, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *words):
    if function(*words) < 0:
        raise OSError(ctypes.get_errno(), "no")
"""

BEYOND = {
    "has a file signal others": "fcntl.fcntl(0, 8, os.getppid())",
    "has it signal one of their threads": "fcntl.fcntl(0, 15, bytes(8))",
    "chooses the signal": "fcntl.fcntl(0, 10, 9)",
    "has a socket signal others": "fcntl.ioctl(socket.socketpair()[0], 0x8902, bytes(4))",
    "has it signal others once more": "fcntl.ioctl(socket.socketpair()[0], 0x8901, bytes(4))",
    "holds up who opens a file": "fcntl.fcntl(os.open('own', os.O_CREAT), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "types into a terminal": "fcntl.ioctl(0, 0x5412, b'x')",
    "pastes into it": "fcntl.ioctl(0, 0x541C, b'x')",
    "alters the flags of a file": "fcntl.ioctl(os.open('own', os.O_CREAT), 0x40086602, bytes(8))",
    "cuts off what others can write": "os.truncate(x + '/socket', 0)",
    "takes processors from its parent": "os.sched_setaffinity(os.getppid(), {0})",
    "takes precedence": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "outlives the service": "call(libc.prctl, 1, 0)",
    "is written down where it crashes": "call(libc.prctl, 4, 1)",
    "has others share its processor": "call(libc.prctl, 62, 2, os.getppid(), 0, 0)",
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_would_reach_beyond_the_job_is_forbidden(bare: Sandbox, what: str) -> None:
    failure = bare.failure(CALLS + BEYOND[what], x=str(bare.folder))
    assert failure.reason is Reason.SYSTEM, failure


def test_calls_that_leave_something_or_take_what_all_share_are_refused(bare: Sandbox) -> None:
    names = (
        *("shmctl", "semctl", "semop", "semtimedop", "msgctl", "msgsnd", "msgrcv"),
        *("truncate", "removexattrat", "file_setattr", "open_tree_attr", "quotactl_fd", "lsm_set_self_attr"),
        *("inotify_init", "inotify_init1", "io_setup", "iopl", "ioperm", "clock_adjtime", "kexec_file_load"),
        *("sched_setparam", "sched_setattr", "get_robust_list"),
    )
    column = confining._MACHINES[platform.machine()].column
    numbers = {name: confining._NUMBERS[name][column] for name in names}
    there = {name: number for name, number in numbers.items() if number != confining.NOT_A_NUMBER}
    body = (
        "found = {}\n"
        "for name, number in there.items():\n"
        "    made = libc.syscall(number, 0, 0, 0, 0, 0)\n"
        "    found[name] = ctypes.get_errno() if made < 0 else 0\n"
        "return found"
    )
    assert bare.run(CALLS + body, there=there) == dict.fromkeys(there, errno.EPERM)


def test_sockets_of_another_family_are_none_of_its_own(bare: Sandbox) -> None:
    # AF_TIPC: the kernel may have to load it.
    assert bare.failure("import socket\nsocket.socketpair(30, socket.SOCK_STREAM)").reason is Reason.NETWORK


def test_what_libraries_do_to_their_own_threads_and_files_goes_on(bare: Sandbox) -> None:
    body = (
        "os.sched_setaffinity(0, os.sched_getaffinity(0))\n"
        "a, b = os.pipe()\n"
        "os.set_blocking(a, False); os.set_inheritable(b, True); os.dup(b)\n"
        "file = open('own', 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX); file.truncate(3)\n"
        "one, _ = socket.socketpair(); one.settimeout(1)\n"
        "call(libc.prctl, 15, b'named')\n"
        "return os.isatty(0), file.isatty(), fcntl.ioctl(a, 0x541B, bytes(4))"
    )
    assert bare.run(CALLS + body) == (False, False, bytes(4))


def test_others_signals_wait_whatever_a_job_has_waiting(bare: Sandbox) -> None:
    body = "import resource\nreturn resource.getrlimit(resource.RLIMIT_SIGPENDING)"
    assert bare.run(body) == (confining.WAITING_SIGNALS,) * 2


def test_one_that_starts_too_many_threads_is_ended(bare: Sandbox) -> None:
    body = (
        "import threading\n"
        "threading.stack_size(65536)\n"
        "wait = threading.Event()\n"
        "for _ in range(n): threading.Thread(target=wait.wait, daemon=True).start()\n"
        "wait.wait(until)\n"
        "return 1"
    )
    assert bare.run(body, n=100, until=3 * supervisor.WATCH_SECONDS) == 1
    failure = bare.failure(body, n=300, until=None)
    assert failure.sentence == "It was ended: it started more threads than a job may (256)."
    # As many as all four may have at once, and the service: a job alone keeps no other from starting.
    assert service("jobs").pids > supervisor.AT_ONCE * supervisor.MOST_THREADS


def test_a_job_sees_nothing_of_the_node_in_its_environment_and_no_open_file(bare: Sandbox) -> None:
    seen = bare.run(
        "import os\nraw = open('/proc/self/environ').read() if os.path.exists('/proc/self/environ') else ''\n"
        "return dict(os.environ), sorted(os.listdir('/proc/self/fd')), raw"
    )
    if isinstance(seen, Failure):
        # Its own /proc may be closed to it as well.
        assert seen.reason is Reason.FILES
        seen = bare.run("import os\nreturn dict(os.environ), [], ''")
    environ, opened, raw = seen
    assert set(environ) == {"HOME", "TMPDIR", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"} - (
        {"LC_CTYPE"} - set(environ)
    )
    # Its own socket beside the standard ones; the listing's own is open as it is made.
    assert len(opened) <= 5
    assert "PIP_INDEX_URL" not in raw


def test_one_that_takes_too_long_is_ended(bare: Sandbox) -> None:
    failure = bare.failure("while True: pass", seconds=1)
    assert failure.sentence == "It was ended: it took longer than a job may (1 s)."


def test_a_thread_that_goes_on_ends_with_the_job(bare: Sandbox) -> None:
    body = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nreturn 1"
    assert bare.run(body) == 1
    assert wait_until(lambda: not _jobs(bare), timeout=30)


def test_a_job_leaves_nothing_that_the_next_one_meets(bare: Sandbox) -> None:
    left = "import os, json\nopen('left', 'w').write('x')\njson.left = 1\nos.umask(0)\nreturn os.getcwd()"
    first = bare.run(left)
    second, found, changed = bare.run(
        "import os, json\nreturn os.getcwd(), os.listdir('.'), hasattr(json, 'left')"
    )
    assert second != first
    assert (found, changed) == ([], False)
    assert wait_until(lambda: not list((bare.folder / "tmp").iterdir()), timeout=30)


def test_a_job_ends_with_whoever_waits_for_it(bare: Sandbox) -> None:
    with client._connect(bare.folder) as control:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(control, [json.dumps({"seconds": 600}).encode()], [theirs.fileno()])
            source = "def f():\n    import time\n    time.sleep(600)\n"
            frames.send(ours, Kind.REQUEST, encode(client.Request(source, "f", {}).told()))
            assert wait_until(lambda: bool(_jobs(bare)), timeout=30)
            control.close()
            assert wait_until(lambda: not _jobs(bare), timeout=30)


def _jobs(bare: Sandbox) -> list[psutil.Process]:
    return psutil.Process(bare.process.pid).children(recursive=True)


HOSTILE = {
    "a giant list": "return [0] * 3_000_000",
    "nested deep": "x = []\nfor _ in range(2000): x = [x]\nreturn x",
    "itself": "x = []\nx.append(x)\nreturn x",
    "what is called when it is unpickled": (
        "class Evil:\n    def __reduce__(self): return (print, ('ran',))\nreturn Evil()"
    ),
    "a class": "return type('Evil', (), {})",
    "a function": "return lambda: 1",
    "a module": "import os\nreturn os",
    "a generator": "return (one for one in ())",
    "too many bytes": f"return bytes({frames.LARGEST[Kind.RESULT] + 1})",
    "a long number": "return 10 ** 5000",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_can_t_be_taken_is_not_returned(bare: Sandbox, what: str) -> None:
    failure = bare.failure(HOSTILE[what])
    assert failure.reason in (Reason.RESULT, Reason.MEMORY)
    assert failure.sentence


RAW = {
    "no frame": b"?" * 64,
    "too long a frame": struct.pack(">cQ", b"R", 1 << 40),
    "one that is cut off": struct.pack(">cQ", b"R", 1 << 20) + b"x",
    "no value": struct.pack(">cQ", b"R", 4) + b"null",
    "no failure": struct.pack(">cQ", b"F", 4) + b"null",
    "a request": struct.pack(">cQ", b"Q", 0),
    "many brackets": struct.pack(">cQ", b"R", 8 + 10**6) + struct.pack(">Q", 10**6) + b"[" * 10**6,
    "a question of no form": struct.pack(">cQ", b"K", 8) + bytes(8) + struct.pack(">cQ", b"F", 2) + b"{}",
}


@pytest.mark.parametrize("what", RAW)
def test_a_job_that_writes_to_its_socket_itself_is_told_off(bare: Sandbox, what: str) -> None:
    body = (
        "import os, stat\n"
        "for n in range(3, 300):\n"
        "    try:\n"
        "        if stat.S_ISSOCK(os.fstat(n).st_mode): break\n"
        "    except OSError: pass\n"
        "at = 0\n"
        "while at < len(raw): at += os.write(n, raw[at:])\n"
        "os._exit(0)"
    )
    failure = bare.failure(body, raw=RAW[what])
    assert failure.reason in (Reason.RESULT, Reason.ENDED)


@pytest.mark.parametrize(
    "tree",
    [
        '[["r",0,1000000000000,1],[]]',
        '[["l"],[9]]',
        '[["d",["l"],1],[]]',
        '[["d",1],[]]',
        '[["eval","1"],[]]',
        '[{"a":1},[]]',
        '[["dec","1e999999999"],[]]',
        "[" * 100_000,
        f'[["l"{",0" * 5_000_000}],[]]',
        f'[["d",{",".join(f"""["t",{n}],0""" for n in range(3000))}],[]]',
        f'[["S",{",".join(str((2**61 - 1) * n) for n in range(1, 3000))}],[]]',
    ],
)
def test_no_form_of_a_value_builds_what_is_large_or_slow_or_none(tree: str) -> None:
    with pytest.raises(Unfit):
        decode(memoryview(len(tree).to_bytes(8, "big") + tree.encode() + bytes(8)), Bounds())


def test_what_a_job_says_of_itself_is_a_line_without_control_characters() -> None:
    failure = Failure.of({"reason": "files", "detail": "\x1b[31m" + "x" * 500, "trace": 7})
    assert failure == Failure(Reason.FILES, ("\x1b[31m" + "x" * 500)[:200].replace("\x1b", ""))
    assert Failure.of({"reason": "none"}) == Failure.of(7) == Failure(Reason.ENDED)


def test_a_question_is_answered_by_the_node(bare: Sandbox) -> None:
    heard = Heard()
    request = client.Request(
        "def f(datasite, api):\n    datasite.init_progress(3)\n    return api.mock(1, b=2)\n",
        "f",
        {},
        endpoints=["api"],
        datasite=True,
    )
    found = client.run(bare.folder, request, heard, seconds=60)
    assert heard.questions[0] == ("progress", [], {"of": 3, "to": 0})
    assert found == ("endpoint", ["api", "mock", [1], {"b": 2}], {})


class _Broken:
    """In the place of each part of syft that a question reaches: it fails, at length."""

    server = services = log = job = property(lambda self: self)
    log_id = 1
    syft_action_data = property(lambda self: self.append())

    def append(self, *_args: Any, **_more: Any) -> Any:
        raise ZeroDivisionError("a line\n" * 1000)

    update = add_context = append


class _Unreadable(_Broken):
    def add_context(self, **_more: Any) -> Any:
        return lambda *_args, **_more: self


def test_questions_that_fail_get_a_line_in_the_log_however_often_they_are_asked(
    bare: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = ("types", "types.errors", "service", "service.action", "service.action.action_endpoint")
    for name in ("syft", *(f"syft.{part}" for part in parts)):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["syft.types.errors"], "SyftException", EOFError, raising=False)
    place = sys.modules["syft.service.action.action_endpoint"]
    monkeypatch.setattr(place, "CustomEndpointActionObject", _Broken, raising=False)
    source = (
        "def f(fails, unreadable):\n"
        "    ask, count = fails._talk.ask, 0\n"
        "    questions = [\n"
        "        ('progress',), ('endpoint',), ('endpoint', [], 'call', [], {}), ('nothing',), (7,),\n"
        "        ('endpoint', 'fails', 'call', 7, 7), ('endpoint', 'fails', 'call', [], {}),\n"
        "        ('endpoint', 'unreadable', 'call', [], {}), ('endpoint', 'none', 'call', [], {}),\n"
        "    ]\n"
        "    for question in questions * 30:\n"
        "        print('x')\n"
        "        try: ask(*question, by=1)\n"
        "        except RuntimeError: count += 1\n"
        "    return count, 30 * len(questions)\n"
    )
    request = client.Request(source, "f", {}, endpoints=["fails", "unreadable"])
    hears = approved._Hears(_Broken(), {"fails": _Broken(), "unreadable": _Unreadable()}, "a\nname" * 1000)

    def unwrap(value: Any) -> Any:
        return value.syft_action_data

    count, asked = client.run(bare.folder, request, hears, seconds=60, unwrap=unwrap)
    assert count == asked
    assert len(caplog.records) == 2, "one of what it asked, one of the log that can't be written"
    assert not any(record.exc_info for record in caplog.records)
    assert all(len(told) < 600 and "\n" not in told for told in caplog.messages)


def test_without_a_service_code_runs_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.0)
    with pytest.raises(client.Failed) as raised:
        client.run(tmp_path, client.Request("def f(): pass", "f", {}), Heard(), seconds=1)
    assert raised.value.failure.reason is Reason.AWAY


class TestShells:
    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "LOOK_SECONDS", 120)

    @pytest.mark.parametrize("name", ["bubblewrap", "namespaces"])
    def test_in_each_there_is_no_network_and_nothing_of_the_user(self, tmp_path: Path, name: str) -> None:
        try:
            shell(name, tmp_path)
        except LookupError:
            pytest.skip(f"no {name} on this machine")
        home = tmp_path / "my node #1%20"
        (home / "secrets").mkdir(parents=True)
        (home / "secrets" / "key").write_text(SECRET)
        with sandbox(home, name) as found:
            assert client.look(found.folder)["means"][0] == name
            assert found.run("return x + 1", x=1) == 2
            assert found.run("return open('/proc/net/dev').read().count(':')") == 1, "more than the loopback"
            body = "return open(x).read()"
            assert found.failure(body, x=str(home / "secrets" / "key")).reason is Reason.FILES
            others = "import os\nreturn [int(n) for n in os.listdir('/proc') if n.isdigit()]"
            assert str(os.getpid()) not in map(str, found.run(others))

    def test_where_nothing_keeps_jobs_files_apart_they_run_one_by_one_and_all_is_emptied(
        self, tmp_path: Path
    ) -> None:
        try:
            shell("bubblewrap", tmp_path)
        except LookupError:
            pytest.skip("no bubblewrap on this machine")
        with sandbox(tmp_path / "node", "bubblewrap", landlock=False) as found:
            told = client.look(found.folder)
            assert (told["at_once"], told["means"]) == (1, ["bubblewrap", "seccomp", "rlimits"])
            left = "for place in ('/tmp', '/dev/shm', '.'):\n    open(place + '/left', 'w').write('x')"
            assert found.run(left) is None
            look = "import os\nreturn [os.listdir(place) for place in ('/dev/shm', '.')], os.listdir('/tmp')"
            places, temporary = found.run(look)
            assert places == [[], []] and len(temporary) == 1, "only its own folder"
            # It may take the way to the service away: the service makes it anew.
            assert found.run("import os\nos.unlink('/jobs/socket')") is None
            assert found.run("return 1") == 1

    def test_the_best_that_works_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(frames.SHELL, raising=False)
        found = {one.name for one in shells.candidates(tmp_path)}
        assert found >= {""} and ("bubblewrap" in found) == bool(which("bwrap"))
        monkeypatch.setattr(shells, "works", lambda shell: shell.name == "namespaces")
        assert shells.choose(tmp_path).name == ("namespaces" if which("unshare") else "")
        monkeypatch.setattr(shells, "works", lambda _shell: False)
        assert shells.choose(tmp_path).name == ""
        monkeypatch.setenv(frames.SHELL, frames.CONTAINER)
        assert shells.choose(tmp_path).name == "container"

    def test_what_the_service_is_told_has_no_password_in_it(self) -> None:
        given = {
            "PIP_INDEX_URL": "https://me:s3cret@inst.example",
            "GRIDUP_STACK_ID": "7",
            "PYTHONPATH": "/a",
        }
        made = shells.environment(given)
        assert "s3cret" not in f"{made}"
        assert (made["GRIDUP_STACK_ID"], made["PYTHONPATH"]) == ("7", "/a")


@pytest.mark.node
def test_arrays_and_tables_go_in_and_come_out_as_they_were(tmp_path: Path, node_python: Path) -> None:
    with sandbox(tmp_path, python=node_python, memory=2 * MEMORY) as found:
        env = {"PYTHONPATH": f"{SCRIPTS.parents[2] / 'infra'}", "PATH": os.environ["PATH"]}
        done = run_script(node_python, "through_sandbox.py", found.folder, env=env, timeout=300)
    assert done.ok, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["same"] > 30 and told["different"] == []
    assert told["mutated"] > 500
    assert (told["refused"], told["taken"]) == (["object", "interval"], [])


@pytest.mark.node
@pytest.mark.tier("gate")
def test_what_people_are_told_of_code_that_may_not_do_what_it_does(make_node: Any, tmp_path: Path) -> None:
    node = make_node(more={"job_seconds": 20})
    (node.home / "jobs").mkdir(parents=True, mode=0o700)
    node.sandbox = ("-c", SERVE, "", "jobs", "jobs/tmp", "False", str(MEMORY))
    node.start()
    seen = node.client(
        "in_the_sandbox.py",
        her="ada@inst.example",
        hers="Ana1ytical-Engine",
        owner="owen@inst.example",
        home=str(node.home),
    )
    assert seen["result"] == [40.0, 50.0, 15.0, None, [1, "é"]]
    # On the data, and then on the mock.
    assert seen["printed"] == "rows: 3\nrows: 1\n"
    files = SENTENCES[Reason.FILES]
    for who in ("her error", "owner error", "at once", "her log"):
        assert files in seen[who], who
    assert seen["her log"].startswith("looking\n")
    assert SENTENCES[Reason.NETWORK] in seen["connects"]
    assert "needed more memory than a job may have (300 MB)" in seen["hungry"]
    assert "took longer than a job may (20 s)" in seen["endless"]
    assert "can't be taken (a value of the type Evil)" in seen["evil"].replace("approved.", "")
    assert "contact the Server Admin" in seen["raises"] and "30" not in seen["raises"]
    assert seen["answered"] >= 1
    key = node.secret("server_key")
    for text in seen.values():
        assert "Traceback" not in f"{text}" and key not in f"{text}" and "gridup_node" not in f"{text}"
    # Administrators may read what the code itself has said.
    node.stop()


@pytest.mark.parametrize(
    "name", ["dateutil//etc/hostname", "dateutil/Europe/Berlin", "/etc/hostname", "No/Where"]
)
def test_a_time_zone_of_a_result_is_no_way_to_look_for_files(name: str) -> None:
    with pytest.raises(Unfit):
        values._known_zone(name)
    assert [values._known_zone(one) for one in ("UTC", "Europe/Berlin")] == ["UTC", "Europe/Berlin"]
    assert str(values._known_zone("UTC+02:00")) == "UTC+02:00"
