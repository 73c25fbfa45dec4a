"""Programs of tasks as programs of Linux: started here, called over loopback, as threads and as processes."""

from __future__ import annotations

import ctypes
import io
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from swiftlet.model.error import InputError
from swiftlet.unikernel import build as unikernel
from swiftlet.unikernel import build_linux, elf, made, wire
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.failure import DeadlineError
from swiftlet.unikernel.figures import figures_of
from swiftlet.unikernel.level import LEVELS
from swiftlet.unikernel.wire import Message
from tests.unikernel_program import PROGRAM

TREE = Path(__file__).resolve().parents[2]
PRIMES = f"{TREE}/examples/unikernel/primes.py"

ARENA = """
import numpy as np
from swiftlet.unikernel import service, task

@task
def take(n: int) -> int:
    a = np.zeros(n // 8)
    a[0] = 1.0
    a[len(a) - 1] = 2.0
    return len(a)

@task
def again(n: int) -> int:
    total = 0
    for i in range(n):
        total += len(np.zeros(1000))
    return total

app = service(take, again)
"""


class Service:
    """A program that runs, and where it is called."""

    def __init__(self, program: Path, mode: str, *flags: str, first: tuple[str, ...] = ()) -> None:
        command = [*first, str(program), mode, "--address", "127.0.0.1", "--port", "0", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        self.port = int(self.said.partition(":")[2].partition(",")[0])

    def client(self) -> Client:
        return Client("127.0.0.1", self.port)

    def ask(self, datagram: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(datagram, ("127.0.0.1", self.port))
            return sock.recv(2048)

    def children(self) -> list[int]:
        """Threads besides the first, and processes."""
        folder = Path(f"/proc/{self.process.pid}/task")
        found = [int(name) for name in os.listdir(folder) if int(name) != self.process.pid]
        return found + [int(each) for each in (folder / str(self.process.pid) / "children").read_text().split()]

    def running(self, count: int) -> list[int]:
        """The same, as soon as there are so many."""
        end = time.monotonic() + 5
        while len(found := self.children()) != count:
            assert time.monotonic() < end, found
            time.sleep(0.005)
        return found

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(5)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.kill()  # what it runs ends with it
        self.process.wait()


def written(folder: Path, image: bytes) -> Path:
    (folder / "program").write_bytes(image)
    (folder / "program").chmod(0o755)
    return folder / "program"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linux")
    (folder / "tasks.py").write_text(PROGRAM)
    return build_linux.build(str(folder / "tasks.py"))


@pytest.fixture(scope="module")
def program(built, tmp_path_factory):
    return written(tmp_path_factory.mktemp("program"), built.image)


@pytest.fixture(scope="module", params=["--threads", "--processes"])
def service(program, request) -> Iterator[Service]:
    with Service(program, request.param) as made:
        yield made
        children = made.children()
        assert children == [], "what has run a task is gone"
        assert made.end() == 0


def test_the_tasks_are_the_same_bytes_in_both_targets(monkeypatch):
    """What is linked, as the linker gets it: everything else differs, this does not."""
    seen: dict[str, bytes] = {}
    parse = elf.parse

    def spy(data: bytes, name: str) -> elf.Object:
        assert seen.setdefault(name, data) == data or name != "tasks"
        return parse(data, name)

    monkeypatch.setattr(elf, "parse", spy)
    one, other = unikernel.build(PRIMES), build_linux.build(PRIMES)
    assert {"boot", "start", "tasks", "runtime"} <= set(seen)
    sizes = [
        {each.name: each.size for each in built.functions if each.name.startswith("task_0")} for built in (one, other)
    ]
    assert sizes[0] == sizes[1] and one.signatures == other.signatures
    names = {made.digest_of(PRIMES, target, level) for target in (made.UNIKERNEL, made.LINUX) for level in LEVELS}
    assert len(names) == 6


def test_an_executable_is_static_and_no_page_is_writable_and_executable(built):
    headers = list(ELFFile(io.BytesIO(built.image)).iter_segments())
    loaded = [each for each in headers if each["p_type"] == "PT_LOAD"]
    assert len(loaded) + 1 == len(headers), "no interpreter, nothing dynamic"
    assert loaded[0]["p_vaddr"] == 0x400000
    assert not any(each["p_flags"] & 1 and each["p_flags"] & 2 for each in loaded)
    (stack,) = [each for each in headers if each["p_type"] == "PT_GNU_STACK"]
    assert stack["p_flags"] == 6 and len(built.image) < 64 << 10


def test_neither_a_compiler_nor_a_linker_is_needed(tmp_path):
    code = (
        "import shutil, sys; from swiftlet.unikernel.build_linux import build;"
        "assert not any(shutil.which(name) for name in ('gcc', 'cc', 'ld', 'as', 'clang'));"
        "sys.stdout.buffer.write(build(sys.argv[1]).image)"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(TREE)}
    done = subprocess.run([sys.executable, "-c", code, PRIMES], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with Service(written(tmp_path, done.stdout), "--threads") as primes:
        with primes.client() as client:
            assert [str(each) for each in client.signatures()] == ["count_primes(limit: int) -> int"]
            assert client.run("count_primes", [20000], 4) == [2262] * 4
            with pytest.raises(ValueError, match="a limit below zero"):
                client.call("count_primes", -5)
        assert primes.end() == 0


def test_an_answer_comes_from_the_address_that_was_asked(program):
    """A host may have several, and a client listens to one."""
    with Service(program, "--threads", "--address", "0.0.0.0") as service:
        for host in ("127.0.0.1", "127.1.2.3"):
            with Client(host, service.port, silence=1.0) as client:
                assert client.call("add", 1, 2) == 3
        assert service.end() == 0


def test_values_come_as_python_has_them(service):
    moments = random.Random(5)
    with service.client() as client:
        for _ in range(100):
            a, b = (moments.randrange(-(1 << 62), 1 << 62) for _ in range(2))
            assert client.call("add", a, b) == a + b
            assert client.call("divide", a >> 10, b >> 10) == (a >> 10) / (b >> 10)
            assert client.call("odd", a) is (a % 2 == 1)


def test_what_a_task_raises_is_raised_where_it_was_called(service):
    with service.client() as client:
        with pytest.raises(ValueError, match="too large") as raised:
            client.call("refuses", 4)
        assert raised.value.__notes__ == ["tasks.py:23, in refuses"]
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            client.call("divide", 1, 0)
        (outcome,) = client.outcomes(client.find("add")[0], bytes(8), 1)
        assert outcome.status and outcome.data.startswith(b"TypeError\0the arguments of add are cut short")


def test_a_task_that_calls_itself_without_end_fails_alone(service):
    with service.client() as client:
        for _ in range(3):
            with pytest.raises(RecursionError, match="depth called itself too deeply"):
                client.run("depth", [1 << 40], 3)
            assert client.run("depth", [1000], 3) == [1000] * 3


def test_a_task_without_end_ends_with_its_time(service):
    with service.client() as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="forever was not done when its time was over"):
            client.run("forever", [5], 9, deadline=0.2)
        assert 0.1 < time.monotonic() - begin < 3
        assert client.call("add", 2, 3, deadline=5.0) == 5


def test_others_are_answered_while_a_task_runs_and_a_call_can_be_cancelled(service):
    """And of a repeated request only one is computed."""
    forever = 5
    with service.client() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", service.port))
        call = wire.encoded(Message(wire.CALL, 7, forever, tasks=2, length=8), struct.pack("<q", 5))
        sock.send(call)
        service.running(2)
        sock.send(call)
        assert client.call("add", 1, 2) == 3
        service.running(2)
        sock.send(wire.encoded(Message(wire.CANCEL, 7)))
        replies = sorted(found[0].kind for _ in range(2) if (found := wire.decoded(sock.recv(2048))))
        assert replies == [wire.REPLY | wire.CALL, wire.REPLY | wire.CANCEL]


def test_more_tasks_than_run_at_once_are_all_run(service):
    with service.client() as client:
        before = figures_of(client)["processors"][0]["tasks"]
        assert client.run("add", [1, 1], 1500) == [2] * 1500, "in several datagrams"
        assert figures_of(client)["processors"][0]["tasks"] - before == 1500


def test_a_sum_is_made_by_the_service(service):
    message = Message(wire.CALL, random.getrandbits(60), 4, wire.SUM, 6, 0, 0, 1, 8)
    found = wire.decoded(service.ask(wire.encoded(message, struct.pack("<q", 3))))
    assert found is not None and struct.unpack("<qq", found[1]) == (18, 0)


def test_requests_of_two_callers_are_two(service):
    """Also where both have the same number."""
    answers = []
    for value in (1, 2):
        message = Message(wire.CALL, 12345, length=16)
        answers.append(service.ask(wire.encoded(message, struct.pack("<qq", value, value)))[-8:])
    assert answers == [struct.pack("<q", 2), struct.pack("<q", 4)]


def test_an_answer_says_whether_a_task_failed(service):
    """Also in a place that another call has had before."""
    for value in [9] * 70 + [1] * 70:
        message = Message(wire.CALL, random.getrandbits(60), 4, length=8)
        found = wire.decoded(service.ask(wire.encoded(message, struct.pack("<q", value))))
        assert found is not None and found[0].deadline == (value > 3)


def test_a_service_whose_parent_ignored_its_children_has_its_own(program):
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    with Service(program, "--processes", first=(sys.executable, "-c", code)) as service:
        with service.client() as client:
            assert client.run("add", [1, 1], 3) == [2] * 3
        assert service.end() == 0


def test_arguments_in_parts_are_asked_for_one_after_the_other(service):
    with service.client() as client:
        (outcome,) = client.outcomes(0, bytes(5000), 1)
    assert outcome.data.startswith(b"TypeError\0the arguments of add are cut short")


def test_a_repeated_request_is_not_computed_twice(service):
    with service.client() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        before = figures_of(client)
        sock.settimeout(5)
        answers = set()
        for _ in range(5):
            datagram = wire.encoded(Message(wire.CALL, 99, 0, tasks=1, length=16), struct.pack("<qq", 40, 2))
            sock.sendto(datagram, ("127.0.0.1", service.port))
            answers.add(sock.recv(2048))
        sock.sendto(wire.encoded(Message(wire.FETCH, 99)), ("127.0.0.1", service.port))
        answers.add(sock.recv(2048))
        after = figures_of(client)
    assert len(answers) == 1
    assert after["calls"] - before["calls"] == 1 and after["repeated"] - before["repeated"] == 4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"task": 77}, "there is no such task"),
        ({"tasks": 0}, "no tasks are asked for"),
        ({"tasks": 1 << 31}, "too large"),
        ({"length": 1 << 30, "parts": 9}, "the parts do not fit the length"),
        ({"length": 0, "parts": 5}, "the parts do not fit the length"),
        ({"part": 3}, "its first part is missing"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(service, change, complaint):
    message = Message(wire.CALL, random.getrandbits(60), 0, length=16)._replace(**change)
    reply, text = wire.decoded(service.ask(wire.encoded(message, bytes(16)))) or (None, b"")
    assert reply is not None and reply.kind == wire.REFUSED and complaint in text.decode()


def test_garbage_is_counted_and_does_no_harm(service):
    moments = random.Random(11)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, service.client() as client:
        whole = wire.encoded(Message(wire.CALL, 5, 0, length=16), bytes(16))
        for number in range(1000):
            data = bytearray(whole[: moments.randrange(len(whole) + 1)])
            for _ in range(moments.randrange(4)):
                if data:
                    data[moments.randrange(len(data))] = moments.randrange(256)
            if len(data) > 4 and data[4] == wire.SHUTDOWN:
                continue
            sock.sendto(bytes(data), ("127.0.0.1", service.port))
            if number % 100 == 0:
                client.read(wire.HEALTH)
        sock.sendto(bytes(5000), ("127.0.0.1", service.port))
        assert client.call("add", 20, 22) == 42
        assert figures_of(client)["malformed"] > 100


def test_a_signal_from_elsewhere_ends_no_task(service):
    """SIGUSR1 is how a thread is told that its time is over: it believes only the first thread."""
    with service.client() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", service.port))
        sock.send(wire.encoded(Message(wire.CALL, 8, 5, length=8), struct.pack("<q", 5)))
        (worker,) = service.running(1)
        is_thread = os.path.exists(f"/proc/{service.process.pid}/task/{worker}")
        group = service.process.pid if is_thread else worker
        assert ctypes.CDLL(None).tgkill(group, worker, signal.SIGUSR1) == 0
        service.process.send_signal(signal.SIGUSR1)
        assert client.call("add", 1, 1) == 2
        assert service.running(1) == [worker]
        sock.send(wire.encoded(Message(wire.CANCEL, 8)))
        service.running(0)


def test_a_process_that_is_killed_is_told_of(program):
    with Service(program, "--processes") as service:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            call = wire.encoded(Message(wire.CALL, 1, 5, tasks=1, length=8), struct.pack("<q", 5))
            sock.sendto(call, ("127.0.0.1", service.port))
            (child,) = service.running(1)
            os.kill(child, signal.SIGKILL)
            found = wire.decoded(sock.recv(2048))
            assert found is not None
            (outcome,) = wire.outcomes_of(found[1], 1)
            assert outcome == (wire.ABORTED + 2, struct.pack("<Q", signal.SIGKILL))
        assert service.end() == 0


@pytest.mark.parametrize("mode", ["--threads", "--processes"])
def test_where_the_system_has_no_room_for_more_tasks_wait_or_are_refused(program, mode):
    """Addresses for a few workers only: RLIMIT_AS."""
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)"
    code = f"{limit}; os.execv(sys.argv[2], sys.argv[2:])"
    with Service(program, mode, first=(sys.executable, "-c", code, str(300 << 20))) as some:
        with some.client() as client:
            assert client.run("add", [3, 4], 200) == [7] * 200
        assert some.end() == 0
    with Service(program, mode, first=(sys.executable, "-c", code, str(32 << 20))) as none:
        with none.client() as client, pytest.raises(InputError, match="no thread or process for a task"):
            client.call("add", 3, 4)
        assert none.end() == 0


@pytest.mark.parametrize("mode", ["--threads", "--processes"])
def test_what_runs_ends_with_the_service(program, mode):
    for how in ("asked", "killed"):
        with Service(program, mode) as service:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, service.client() as client:
                call = wire.encoded(Message(wire.CALL, 1, 5, tasks=3, length=8), struct.pack("<q", 5))
                sock.sendto(call, ("127.0.0.1", service.port))
                children = service.running(3)
                if how == "asked":
                    client.read(wire.SHUTDOWN)
                else:
                    service.process.kill()
            assert service.process.wait(5) == (0 if how == "asked" else -9)
            end = time.monotonic() + 5
            while any(is_alive(each) for each in children):
                assert time.monotonic() < end
                time.sleep(0.01)
            service.end()


def is_alive(number: int) -> bool:
    """Whether a thread or a process is there and no zombie that somebody else is to collect."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("mode", ["--threads", "--processes"])
def test_a_task_has_an_arena_of_its_own(tmp_path, mode):
    (tmp_path / "memory.py").write_text(ARENA)
    with Service(written(tmp_path, build_linux.build(str(tmp_path / "memory.py")).image), mode) as service:
        with service.client() as client:
            for size in (8, 800, 8 << 20, 50 << 20):
                assert client.call("take", size) == size // 8
            for size in (65 << 20, 1 << 50):
                with pytest.raises(MemoryError):
                    client.call("take", size)
            assert client.run("take", [40 << 20], 3) == [5 << 20] * 3, "each begins with all of it"
            assert client.call("again", 20000) == 20_000_000, "of 160 MB that were allocated, never much at a time"
        assert service.end() == 0


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--bla",), "what is --bla? [--threads|--processes] [--port NUMBER] [--address ADDRESS]"),
        (("--port", "70000"), "what is --port?"),
        (("--port",), "what is --port?"),
        (("--address", "1.2.3"), "what is --address?"),
        (("--address", "1.2.3.256"), "what is --address?"),
    ],
)
def test_a_wrong_command_line_is_refused(program, flags, complaint):
    done = subprocess.run([program, *flags], capture_output=True, text=True, timeout=5)
    assert done.returncode == 64 and done.stderr.startswith(complaint)


def test_a_port_that_is_taken_is_told_of(program, service):
    flags = ("--address", "127.0.0.1", "--port", str(service.port))
    done = subprocess.run([program, *flags], capture_output=True, text=True, timeout=5)
    assert done.returncode == 71 and done.stderr == "swiftlet: the port is refused: error 98\n"
