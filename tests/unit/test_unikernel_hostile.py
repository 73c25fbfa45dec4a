"""What went wrong once under load, loss and large frames: in the program of Linux, whose service is the unikernel's."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from swiftlet.model.error import InputError
from swiftlet.unikernel import build_linux, wire
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.wire import Message
from tests.unikernel_program import LARGE_FRAMES
from tests.unit.test_unikernel_linux import Service, written

pytestmark = pytest.mark.slow  # its program takes the compiler that long

TASKS = """
import numpy as np

@task
def noop(n: int) -> int:
    return n

@task
def zeros(n: int) -> int64[:]:
    return np.zeros(n, np.int64)

@task
def total(values: int64[:]) -> int:
    return values.sum()

app = service(frames, noop, zeros, total)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "tasks.py").write_text("from swiftlet.unikernel import int64\n" + LARGE_FRAMES + TASKS)
    return written(folder, build_linux.build(str(folder / "tasks.py")).image)


@pytest.fixture(params=["--threads", "--processes"])
def service(program, request) -> Iterator[Service]:
    with Service(program, request.param) as made:
        yield made
        assert made.end() == 0


def test_many_clients_at_once_are_all_answered(program):
    """A thread whose end is waited for may be at it already: futex(2) then never returns."""
    results: list[bool] = []

    def calls(port: int) -> None:
        with Client("127.0.0.1", port) as client:
            results.extend(client.run("noop", [each], 5) == [each] * 5 for each in range(400))

    with Service(program, "--threads") as service:
        clients = [threading.Thread(target=calls, args=(service.port,)) for _ in range(8)]
        for each in clients:
            each.start()
        for each in clients:
            each.join(60)
        assert results == [True] * 3200
        assert service.end() == 0


def test_a_frame_larger_than_the_guard_page_ends_its_task_alone(service):
    with service.client() as client:
        ends = []
        for depth in range(20, 120):  # one after the other reaches the guard with another part of its frame
            try:
                assert client.call("frames", depth, -1, 1) == depth
                ends.append("fits")
            except RecursionError:
                ends.append("too deep")
            assert client.call("noop", depth) == depth
        assert sorted(set(ends)) == ["fits", "too deep"]


class Lossy(Client):
    """Loses one part of an answer, while others call so often that the rest of it is forgotten."""

    lost = False

    def receive(self, id_: int, seconds: float) -> tuple[Message, bytes] | None:
        got = super().receive(id_, seconds)
        if not self.lost and got is not None and got[0].kind == wire.REPLY | wire.CALL and got[0].part == 1:
            self.lost = True
            with Client("127.0.0.1", int(self.name.rpartition(":")[2])) as other:
                for _ in range(40):
                    other.call("noop", 1)
            return super().receive(id_, seconds)
        return got


def test_an_answer_that_is_not_kept_any_more_is_an_error_and_no_silence(service):
    with Lossy("127.0.0.1", service.port) as client, pytest.raises(InputError, match="not kept any more"):
        client.call("zeros", 1000)


class Slow(Client):
    """Takes a while for each part of a call."""

    def _send_parts(self, message: Message, payload: bytes, part: int) -> None:
        time.sleep(0.01)
        super()._send_parts(message, payload, part)


def test_a_long_call_goes_on_while_others_are_answered(service):
    stop = threading.Event()

    def calls() -> None:
        with service.client() as client:
            while not stop.is_set():
                client.call("noop", 1)

    other = threading.Thread(target=calls)
    other.start()
    try:
        with Slow("127.0.0.1", service.port) as client:
            assert client.call("total", [1] * 50_000) == 50_000, "286 parts, for three seconds and more"
    finally:
        stop.set()
        other.join()


def test_an_answer_of_many_tasks_takes_time_in_proportion(service):
    message = wire.encoded(Message(wire.CALL, 7, 1, tasks=400_000, deadline=1, length=8), struct.pack("<q", 1))
    service.ask(message)
    begin = time.monotonic()
    service.ask(message)
    with service.client() as client:
        assert client.call("noop", 1) == 1
    assert time.monotonic() - begin < 3, "every part looked at every task before: seven seconds"


def test_half_sent_calls_leave_room_for_others(service):
    numbers = struct.pack("<q", 1) * 200
    for number in range(100):
        half: Any = Message(wire.CALL, 1000 + number, 3, parts=2, length=1608)
        reply = wire.decoded(service.ask(wire.encoded(half, numbers[:1400])))
        assert reply is not None and reply[0].kind in (wire.WANTED, wire.BUSY)
    with service.client() as client:
        begin = time.monotonic()
        assert client.call("noop", 4) == 4
        assert time.monotonic() - begin < 4
