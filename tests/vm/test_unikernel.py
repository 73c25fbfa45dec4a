"""Unikernels as guests like the others: real machines, called over real sockets."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.unikernel import wire
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.failure import DeadlineError
from swiftlet.unikernel.figures import figures_of
from swiftlet.unikernel.trace import events_of
from swiftlet.unikernel.wire import Message
from tests.product import Product
from tests.unikernel_program import PROGRAM

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

PRIMES = Path(__file__).parents[2] / "examples/unikernel/primes.py"


def port_of(guest: dict) -> int:
    """The port of this host at which a guest is called."""
    return int(guest["ports"][0].partition("->")[0].rpartition(":")[2])


class Service:
    """A unikernel that runs, and where it is called."""

    def __init__(self, product: Product, name: str, *flags: str, program: str = PROGRAM) -> None:
        self.product = product
        self.name = name
        folder = Path(product.instance.root)
        self.program = folder / f"{name}.py"
        self.program.write_text(program)
        product.ok("run", "-d", "--name", name, "--as", "unikernel", str(self.program), "-p", "7000/udp", *flags)
        (guest,) = product.json("inspect", name)
        self.port = port_of(guest)

    def client(self) -> Client:
        return Client("127.0.0.1", self.port)


@pytest.fixture(scope="module")
def service(product: Product) -> Iterator[Service]:
    made = Service(product, "tasks", "--cpus", "4")
    yield made
    product.ok("rm", "-f", "tasks")


def test_tasks_are_called_as_typed(product: Product) -> None:
    product.ok("run", "-d", "--name", "primes", "--as", "unikernel", str(PRIMES), "--cpus", "2", "-p", "7000/udp")
    (guest,) = product.json("inspect", "primes")
    where = f"localhost:{port_of(guest)}"
    expected = subprocess.run([sys.executable, PRIMES, "20000"], capture_output=True, text=True, cwd=PRIMES.parents[2])
    told = product.ok("unikernel", "call", where, "count_primes", "20000", "--tasks", "8")
    assert told == 8 * expected.stdout == 8 * "2262\n"
    found = product.json("unikernel", "stats", where)
    assert sum(core["tasks"] for core in found["processors"]) == 8 and len(found["processors"]) == 2
    refused = product.run("unikernel", "call", where, "count_primes", "-5")
    assert refused.returncode == 125
    assert refused.stderr.startswith("swiftlet: primes.py:")
    assert "ValueError: a limit below zero" in refused.stderr
    assert "ready" in product.ok("logs", "primes")
    (line,) = [each for each in product.json("ps") if each["name"] == "primes"]
    assert (line["kind"], line["state"]) == ("unikernel", "Running")
    product.ok("stop", "primes")
    (line,) = [each for each in product.json("ps", "-a") if each["name"] == "primes"]
    assert (line["state"], line["exit"]["code"]) == ("Stopped", 0)
    product.ok("start", "primes")
    (guest,) = product.json("inspect", "primes")
    assert product.ok("unikernel", "call", f"localhost:{port_of(guest)}", "count_primes", "10") == "4\n"
    product.ok("rm", "-f", "primes")


def test_a_workload_file_says_the_same_as_the_flags(product: Product, tmp_path: Path) -> None:
    shutil.copy(PRIMES, tmp_path / "primes.py")
    (tmp_path / "w.yaml").write_text(
        "kind: unikernel\nprogram: primes.py\nname: written\ncpus: 2\nports: ['7000/udp']\n"
    )
    product.ok("run", "-d", "-f", str(tmp_path / "w.yaml"))
    (guest,) = product.json("inspect", "written")
    assert product.ok("unikernel", "call", f"localhost:{port_of(guest)}", "count_primes", "10") == "4\n"
    product.ok("rm", "-f", "written")


def test_values_come_as_python_has_them(service: Service) -> None:
    moments = random.Random(5)
    with service.client() as client:
        for _ in range(300):
            a, b = (moments.randrange(-(1 << 62), 1 << 62) for _ in range(2))
            assert client.call("add", a, b) == a + b
            assert client.call("divide", a >> 10, b >> 10) == (a >> 10) / (b >> 10), "what doubles hold exactly"
            assert client.call("odd", a) is (a % 2 == 1)


def test_a_busy_unikernel_is_stopped_at_once(product: Product) -> None:
    service = Service(product, "busy")
    with service.client() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        place, _ = client.find("forever")
        sock.sendto(
            wire.encoded(Message(wire.CALL, 7, place, length=8), struct.pack("<q", 5)), ("127.0.0.1", service.port)
        )
        time.sleep(0.5)
    begin = time.monotonic()
    product.ok("stop", "busy")
    assert time.monotonic() - begin < 5, "not by being killed after ten seconds"
    (line,) = [each for each in product.json("ps", "-a") if each["name"] == "busy"]
    assert line["exit"]["code"] == 0
    product.ok("rm", "busy")


def test_whoever_has_fewer_tasks_than_processors_is_heard_meanwhile(service: Service) -> None:
    with service.client() as client, service.client() as other:
        place, _ = client.find("forever")
        for number in (11, 12, 13):
            client.send(wire.encoded(Message(wire.CALL, number, place, length=8), struct.pack("<q", 5)))
        time.sleep(0.2)
        running = [each["apic"] for each in figures_of(other)["processors"] if each["state"] == "running"]
        assert len(running) == 3 and 0 not in running, "three of four processors, and the first serves"
        assert other.call("add", 20, 22) == 42, "left over, and the first takes it"
        for number in (11, 12, 13):
            client.send(wire.encoded(Message(wire.CANCEL, number)))
        end = time.monotonic() + 5
        while any(each["state"] == "running" for each in figures_of(other)["processors"]):
            assert time.monotonic() < end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_in_the_foreground_ends_by_a_signal_to_the_command(product: Product, number: int) -> None:
    process = product.spawn("run", "--rm", "-q", "--as", "unikernel", str(PRIMES))
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(20) == 0


def test_what_a_task_raises_is_raised_where_it_was_called(service: Service) -> None:
    with service.client() as client:
        with pytest.raises(ValueError, match="too large") as raised:
            client.call("refuses", 4)
        assert raised.value.__notes__ == ["tasks.py:23, in refuses"]
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            client.call("divide", 1, 0)
        assert client.call("refuses", 3) == 3


def test_a_task_that_calls_itself_without_end_fails_alone(service: Service) -> None:
    with service.client() as client:
        for _ in range(3):
            with pytest.raises(RecursionError, match="depth called itself too deeply"):
                client.call("depth", 1 << 40)
            assert client.call("depth", 200) == 200


def test_a_task_without_end_ends_with_its_time_and_its_processor_goes_on(service: Service) -> None:
    with service.client() as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="forever was not done when its time was over"):
            client.run("forever", [5], 9, deadline=0.3)
        assert 0.2 < time.monotonic() - begin < 5
        assert client.run("add", [2, 3], 50) == [5] * 50


def test_tasks_that_end_just_as_their_time_is_over_are_told_as_one_or_the_other(service: Service) -> None:
    """The timer's handler looks at what other processors run while that ends, and a job's place is used again."""
    ends = set()
    with service.client() as client:
        place, _ = client.find("depth")
        for turn in range(300):
            arguments = struct.pack("<q", 100 + turn % 7 * 100)
            outcomes = client.outcomes(place, arguments, 40 + turn % 11 * 40, 0.001)
            ends |= {each.status for each in outcomes}
            assert all(each.data == arguments for each in outcomes if each.status == 0)
        assert client.run("add", [2, 3], 50) == [5] * 50
    late = {wire.ABORTED + wire.TIMER_VECTOR, wire.ABORTED + wire.ABORT_VECTOR}
    assert 0 in ends and ends & late and ends <= {0} | late


def test_more_tasks_than_processors_are_shared_by_all_of_them(service: Service) -> None:
    with service.client() as client:
        before = service.product.json("unikernel", "stats", f"localhost:{service.port}")["processors"]
        assert client.run("add", [1, 1], 2000) == [2] * 2000, "in several datagrams"
        client.run("depth", [1000], 400)
        after = service.product.json("unikernel", "stats", f"localhost:{service.port}")["processors"]
    done = [new["tasks"] - old["tasks"] for new, old in zip(after, before, strict=True)]
    assert sum(done) == 2400 and len(done) == 4 and sum(each > 0 for each in done) > 1


def test_a_repeated_request_is_not_computed_twice(service: Service) -> None:
    with service.client() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        place, _ = client.find("add")
        before = service.product.json("unikernel", "stats", f"localhost:{service.port}")
        sock.settimeout(5)
        payload = struct.pack("<qq", 40, 2)
        datagram = wire.encoded(Message(wire.CALL, 99, place, tasks=1, length=16), payload)
        answers = set()
        for _ in range(5):
            sock.sendto(datagram, ("127.0.0.1", service.port))
            answers.add(sock.recv(2048))
        assert len(answers) == 1
        after = service.product.json("unikernel", "stats", f"localhost:{service.port}")
    assert after["calls"] - before["calls"] == 1 and after["repeated"] - before["repeated"] == 4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"task": 77}, "there is no such task"),
        ({"tasks": 0}, "no tasks are asked for"),
        ({"tasks": 1 << 31}, "too large for this machine"),
        ({"length": 1 << 20, "parts": 749}, "too large for this machine"),
        ({"parts": 9}, "the parts do not fit the length"),
        ({"length": 0, "parts": 7}, "the parts do not fit the length"),
        ({"parts": 0}, "the parts do not fit the length"),
        ({"part": 3}, "its first part is missing"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(service: Service, change: dict, complaint: str) -> None:
    message = Message(wire.CALL, random.getrandbits(60), 0, length=16)._replace(**change)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(wire.encoded(message, bytes(16)), ("127.0.0.1", service.port))
        reply, text = wire.decoded(sock.recv(2048)) or (None, b"")
    assert reply is not None and reply.kind == wire.REFUSED and complaint in text.decode()


def test_arguments_of_another_length_are_a_type_error(service: Service) -> None:
    with service.client() as client:
        (outcome,) = client.outcomes(client.find("add")[0], bytes(8), 1)
    assert outcome.status and outcome.data.startswith(b"TypeError\0the arguments of add are cut short")


def test_what_happened_last_is_told_in_its_order(service: Service) -> None:
    with service.client() as client:
        client.run("add", [1, 2], 3)
        number = client.last
        events = [each for each in events_of(client) if each.call == number]
    whats = [each.what for each in events]
    assert whats[:2] == ["arrived", "ready"] and whats[-1] == "answered"
    assert sorted(whats) == sorted(["arrived", "ready", *["begun", "ended"] * 3, "answered"])
    assert sorted(each.ticket for each in events if each.what == "begun") == [0, 1, 2]
    assert all(-5e6 < each.microseconds < 0 for each in events)
    told = service.product.ok("unikernel", "trace", f"localhost:{service.port}")
    assert told.splitlines()[0].split() == ["MS", "CPU", "WHAT", "CALL", "TASK"]
    assert len(service.product.json("unikernel", "trace", f"localhost:{service.port}")) <= 512


def test_garbage_is_counted_and_does_no_harm(service: Service) -> None:
    moments = random.Random(11)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, service.client() as client:
        whole = wire.encoded(Message(wire.CALL, 5, 0, length=16), bytes(16))
        for _ in range(3000):
            data = bytearray(whole[: moments.randrange(len(whole) + 1)])
            for _ in range(moments.randrange(4)):
                if data:
                    data[moments.randrange(len(data))] = moments.randrange(256)
            if len(data) > 4 and data[4] == wire.SHUTDOWN:
                continue
            sock.sendto(bytes(data), ("127.0.0.1", service.port))
        assert client.call("add", 20, 22) == 42
    assert service.product.json("unikernel", "stats", f"localhost:{service.port}")["malformed"] > 100


@pytest.mark.parametrize("processors", [1, 2, 8, 16])
def test_any_number_of_processors_boots_and_answers(product: Product, processors: int) -> None:
    service = Service(product, f"many{processors}", "--cpus", str(processors))
    with service.client() as client:
        assert client.run("depth", [50], 3 * processors) == [50] * 3 * processors
        found = product.json("unikernel", "stats", f"localhost:{service.port}")
    assert sorted(core["apic"] for core in found["processors"]) == list(range(processors))
    product.ok("rm", "-f", service.name)


def test_nobody_wakes_up_when_there_is_nothing_to_do(product: Product) -> None:
    service = Service(product, "idle", "--cpus", "2")
    where = f"localhost:{service.port}"
    with service.client() as client:
        client.call("add", 1, 2)
    (guest,) = product.json("inspect", "idle")
    time.sleep(1)
    before, ticks = product.json("unikernel", "stats", where), cpu_ticks(guest["pid"])
    time.sleep(5)
    assert cpu_ticks(guest["pid"]) - ticks <= 1
    after = product.json("unikernel", "stats", where)
    woken = [
        new["wakeups"] - old["wakeups"] for new, old in zip(after["processors"], before["processors"], strict=True)
    ]
    assert woken[1] == 0 and woken[0] <= after["received"] - before["received"]
    product.ok("rm", "-f", "idle")


def cpu_ticks(number: int) -> int:
    """Ticks of all threads of the machine's process."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_unikernel_survives_the_daemon(product: Product) -> None:
    service = Service(product, "survivor")
    product.stop_daemon()
    with service.client() as client:
        assert client.call("add", 3, 4) == 7
    assert [each["state"] for each in product.json("ps") if each["name"] == "survivor"] == ["Running"]
    product.ok("rm", "-f", "survivor")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("-p", "80:7000"), "speaks UDP only"),
        (("-m", "1M"), "too little for a unikernel"),
        (("-m", "8M", "--cpus", "64"), "too little for 64 processors\n  hint: give it 18M or more"),
        (("-p", "7000:8000/udp"), "listens on 7000 only"),
        (("--cpus", "300"), "255 processors at most"),
        (("--cpus", "0"), "--cpus 0: a unikernel has one processor at least"),
        (("-v", "/usr/share:/x"), "a unikernel has no files"),
        (("-t", "busybox"), "a unikernel has no files"),
        (("-e", "A=1"), "a unikernel has no environment"),
        (("--disk", "64M"), "a unikernel has no disk"),
        (("--network", "host"), "no part in the host's network"),
        (("--master", "serve"), "leaves none for tasks: give it two"),
        (("--placement", "wide"), "it is one of spread, packed"),
    ],
)
def test_what_a_unikernel_cannot_have_is_refused(
    product: Product, tmp_path: Path, flags: tuple[str, ...], complaint: str
) -> None:
    shutil.copy(PRIMES, tmp_path / "primes.py")
    refused = product.run("run", "-d", "--as", "unikernel", str(tmp_path / "primes.py"), *flags)
    assert refused.returncode == 125 and complaint in refused.stderr
    assert "primes" not in [each["name"] for each in product.json("ps", "-a")]


def test_a_program_that_cannot_be_built_is_refused_with_its_line(product: Product, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(PROGRAM.replace("return a + b", "return print(a)"))
    refused = product.run("run", "--as", "unikernel", str(tmp_path / "bad.py"))
    assert refused.returncode == 125
    assert "bad.py:6: add: print: a task has nowhere to print to" in refused.stderr
    missing = product.run("run", "--as", "unikernel", str(tmp_path / "none.py"))
    assert f"cannot read {tmp_path}/none.py: No such file" in missing.stderr


def test_the_client_of_the_documentation_works_as_it_stands(product: Product, tmp_path: Path) -> None:
    page = (PRIMES.parents[2] / "docs/unikernels.md").read_text()
    text = next(each for each in page.split("```python\n") if each.startswith("import json")).partition("```")[0]
    assert len(text.splitlines()) <= 60
    product.ok("run", "-d", "--name", "documented", "--as", "unikernel", str(PRIMES), "-p", "7000/udp")
    (guest,) = product.json("inspect", "documented")
    (tmp_path / "client.py").write_text(text.replace("7000", str(port_of(guest))))
    done = subprocess.run([sys.executable, "-I", tmp_path / "client.py"], capture_output=True, text=True, timeout=30)
    assert done.stdout == f"{[2262] * 4}\n", done.stderr
    product.ok("rm", "-f", "documented")


def test_a_pool_of_concurrent_futures_runs_tasks(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent import futures

    from swiftlet.unikernel import Executor

    def depth(n: int) -> int:
        return n

    def refuses(n: int) -> int:
        return n

    program = Path(product.instance.root) / "pool.py"
    program.write_text(PROGRAM)
    for name, value in product.environment.items():
        monkeypatch.setenv(name, value)
    with Executor(str(program), cpus=2) as executor:
        assert list(executor.map(depth, range(100))) == list(range(100))
        failed = executor.submit(refuses, 9)
        assert isinstance(failed.exception(), ValueError)
        with pytest.raises(TypeError, match="no named arguments"):
            executor.submit(depth, n=3)
        assert len(product.json("ps")) >= 1
        done, left = futures.wait([executor.submit(depth, 2000) for _ in range(20)])
        assert len(done) == 20 and not left
    assert "pool.py" not in str(product.json("ps", "-a"))
    with pytest.raises(RuntimeError):
        executor.submit(depth, 1)
