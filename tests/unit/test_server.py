"""The varlink server: what it answers, and that whatever an enemy sends harms only his own connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
import time

import msgspec
import pytest
import varlink

from swiftlet.api import server as module
from swiftlet.api.server import Server, listen
from swiftlet.api.service import Call, Interface, Method, Reply, Service
from swiftlet.linux import namespace, syscall
from swiftlet.linux.channel import Channel, connect
from swiftlet.model.error import ConflictError

DESCRIPTION = """interface test.example

method Echo(text: string) -> (text: string)
method Count(upto: int) -> (number: int)
method Fail() -> ()
method Break() -> ()
method Forever() -> ()
method Gift() -> (count: int)
method Big() -> (text: string)
error ConflictError (message: string, hint: string, exit_code: int)
"""


class Echo(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class Count(msgspec.Struct, forbid_unknown_fields=True):
    upto: int


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Example:
    """The methods, and what they noticed."""

    def __init__(self) -> None:
        self.echoed: list[str] = []
        self.cancelled = 0
        self.running = 0

    async def echo(self, call: Call, parameters: Echo) -> Reply:
        self.echoed.append(parameters.text)
        return Reply({"text": parameters.text})

    async def count(self, call: Call, parameters: Count) -> Reply:
        for number in range(parameters.upto - 1):
            await call.send({"number": number})
        return Reply({"number": parameters.upto - 1})

    async def fail(self, call: Call, parameters: Nothing) -> Reply:
        raise ConflictError("name cache is in use", "choose another")

    async def break_(self, call: Call, parameters: Nothing) -> Reply:
        raise RuntimeError("a bug")

    async def forever(self, call: Call, parameters: Nothing) -> Reply:
        self.running += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Reply()

    async def gift(self, call: Call, parameters: Nothing) -> Reply:
        reader, writer = os.pipe()
        os.write(writer, b"gift")
        os.close(writer)
        return Reply({"count": len(call.fds)}, (reader,))

    async def big(self, call: Call, parameters: Nothing) -> Reply:
        return Reply({"text": "x" * (4 << 20)})

    def service(self) -> Service:
        service = Service(vendor="v", product="p", version="1", url="u", error_interface="test.example")
        methods = {
            "Echo": Method(Echo, self.echo),
            "Count": Method(Count, self.count, streams=True),
            "Fail": Method(Nothing, self.fail),
            "Break": Method(Nothing, self.break_),
            "Forever": Method(Nothing, self.forever),
            "Gift": Method(Nothing, self.gift),
            "Big": Method(Nothing, self.big),
        }
        service.add(Interface("test.example", DESCRIPTION, methods))
        return service


class Running:
    """A server in a thread with its own loop."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/s.sock"
        self.example = Example()
        self.loop = asyncio.new_event_loop()
        self.server: Server
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,))
        self.thread.start()
        assert ready.wait(5)

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self.stop = asyncio.Event()
            self.server = Server(self.example.service(), listen(self.path))
            ready.set()
            await self.stop.wait()
            await self.server.close()

        self.loop.run_until_complete(main())
        self.loop.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def running(tmp_path):
    server = Running(str(tmp_path))
    yield server
    server.close()


def call(channel: Channel, method: str, fds=(), **parameters):
    channel.send({"method": f"test.example.{method}", "parameters": parameters}, fds)
    answer = channel.receive()
    assert answer is not None
    return answer


def is_alive(running: Running) -> bool:
    channel = connect(running.path)
    try:
        return call(channel, "Echo", text="still here")[0] == {"parameters": {"text": "still here"}}
    finally:
        channel.close()


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_varlink_package_reads_the_description_and_calls(running):
    with varlink.Client(f"unix:{running.path}") as client:
        info = client.get_interfaces()
        assert "test.example" in info and "org.varlink.service" in info
        with client.open("test.example") as example:
            assert example.Echo("häß \u0000 x")["text"] == "häß \u0000 x"
            assert [answer["number"] for answer in example.Count(5, _more=True)] == [0, 1, 2, 3, 4]
            with pytest.raises(varlink.VarlinkError) as caught:
                example.Fail()
            assert caught.value.error() == "test.example.ConflictError"
            assert caught.value.parameters()["hint"] == "choose another"


@pytest.mark.parametrize(
    ("message", "error", "parameters"),
    [
        ({"method": "test.example.Nope"}, "MethodNotFound", {"method": "test.example.Nope"}),
        ({"method": "no.such.Thing"}, "InterfaceNotFound", {"interface": "no.such"}),
        ({"method": 5}, "InterfaceNotFound", {"interface": ""}),
        ({}, "InterfaceNotFound", {"interface": ""}),
        ({"method": "test.example.Count", "parameters": {"upto": 1}}, "ExpectedMore", {}),
    ],
)
def test_a_call_that_cannot_be_is_told_in_varlinks_words(running, message, error, parameters):
    channel = connect(running.path)
    channel.send(message)
    answer, _ = channel.receive()
    assert answer == {"error": f"org.varlink.service.{error}", "parameters": parameters}
    channel.close()


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"text": 5}, "$.text"),
        ({}, "$.text"),
        ({"text": "x", "other": 1}, "$.other"),
        ([], "$.text"),
        ("x", "$"),
        (7, "$"),
        ({"text": "\ud800"}, "$"),
        ({"\ud800": "x"}, "$"),
        ({" - at `": "x"}, "$. - at "),
    ],
)
def test_a_wrong_parameter_is_named_by_its_path(running, parameters, path):
    channel = connect(running.path)
    channel.send({"method": "test.example.Echo", "parameters": parameters})
    answer, _ = channel.receive()
    assert answer["error"] == "org.varlink.service.InvalidParameter"
    assert answer["parameters"]["parameter"] == path
    channel.close()


def test_a_fault_of_ours_is_one_clear_line_and_the_connection_goes_on(running):
    channel = connect(running.path)
    answer, _ = call(channel, "Break")
    assert answer["error"] == "test.example.SwiftletError"
    assert "RuntimeError: a bug" in answer["parameters"]["message"]
    assert call(channel, "Echo", text="on")[0]["parameters"]["text"] == "on"
    channel.close()


def test_calls_sent_together_are_answered_in_order(running):
    channel = connect(running.path)
    for number in range(500):
        channel.send({"method": "test.example.Echo", "parameters": {"text": str(number)}})
    texts = [channel.receive()[0]["parameters"]["text"] for _ in range(500)]
    assert texts == [str(number) for number in range(500)]
    channel.close()


def test_a_oneway_call_is_made_and_not_answered_even_when_its_peer_leaves_at_once(running):
    channel = connect(running.path)
    channel.send({"method": "test.example.Echo", "parameters": {"text": "quiet"}, "oneway": True})
    channel.close()
    wait_until(lambda: running.example.echoed == ["quiet"])
    channel = connect(running.path)
    channel.send({"method": "test.example.Echo", "parameters": {"text": "a"}, "oneway": True})
    assert call(channel, "Echo", text="b")[0]["parameters"] == {"text": "b"}
    channel.close()


def test_a_peer_that_closes_its_sending_half_still_gets_its_answers(running):
    channel = connect(running.path)
    for text in ("a", "b"):
        channel.send({"method": "test.example.Echo", "parameters": {"text": text}})
    channel.sock.shutdown(socket.SHUT_WR)
    assert channel.receive()[0]["parameters"]["text"] == "a"
    assert channel.receive()[0]["parameters"]["text"] == "b"
    assert channel.receive() is None
    channel.close()


def test_the_death_of_a_peer_cancels_its_call(running):
    channel = connect(running.path)
    channel.send({"method": "test.example.Forever"})
    wait_until(lambda: running.example.running == 1)
    channel.close()
    wait_until(lambda: running.example.cancelled == 1)
    wait_until(lambda: running.server.connections == 0)


def test_descriptors_come_and_go_and_none_is_left(running):
    assert is_alive(running)
    wait_until(lambda: running.server.connections == 0)
    before = open_descriptors()
    channel = connect(running.path)
    with open("/dev/null") as file:
        answer, fds = call(channel, "Gift", (file.fileno(), file.fileno()))
    assert answer["parameters"] == {"count": 2}
    assert os.read(fds[0], 10) == b"gift"
    os.close(fds[0])
    call(channel, "Echo", (channel.fileno(),), text="unused descriptor")
    call(channel, "Nope", (channel.fileno(),))
    channel.close()
    wait_until(lambda: running.server.connections == 0)
    assert open_descriptors() == before


def test_descriptors_sent_to_a_peer_that_has_gone_are_closed(running):
    assert is_alive(running)
    wait_until(lambda: running.server.connections == 0)
    before = open_descriptors()
    for _ in range(50):
        channel = connect(running.path)
        channel.send({"method": "test.example.Gift"}, (channel.fileno(),))
        channel.close()
    wait_until(lambda: running.server.connections == 0 and open_descriptors() == before)  # the last may yet be taken


def raw(running: Running) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(running.path)
    return sock


def is_closed(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"[]\0",
        b"null\0",
        b'{"method":\0',
        b"\xff\xfe\0",
        b"[" * 200_000 + b"\0",
        b'{"a":' * 100_000 + b"\0",
        b'{"method":"test.example.Echo","fds":1}\0',
        b'{"method":"test.example.Echo","fds":-1}\0',
        b'{"method":"test.example.Echo","fds":true}\0',
        b'{"method":"test.example.Echo","fds":1e9}\0',
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_no_message_ends_its_own_connection_only(running, garbage):
    other = connect(running.path)
    sock = raw(running)
    with contextlib.suppress(ConnectionError):
        sock.sendall(garbage)
    assert is_closed(sock)
    sock.close()
    assert call(other, "Echo", text="x")[0]["parameters"] == {"text": "x"}
    other.close()


def test_a_message_of_nine_megabytes_is_refused(running):
    sock = raw(running)
    with contextlib.suppress(ConnectionError):
        sock.sendall(b"x" * (9 << 20))
    assert is_closed(sock)
    sock.close()
    assert is_alive(running)


def test_an_answer_that_no_message_holds_is_told_as_an_error(running):
    channel = connect(running.path)
    text = '{"method": "test.example.Echo", "parameters": {"text": "' + "\u00e4" * (2 << 20) + '"}}\0'
    channel.sock.sendall(text.encode())  # answers are ASCII, where each of these takes six bytes
    message = channel.receive()[0]
    assert message["error"] == "test.example.WireError"
    assert "is longer than" in message["parameters"]["message"]
    assert call(channel, "Echo", text="next")[0] == {"parameters": {"text": "next"}}
    channel.close()


def test_thousands_of_descriptors_are_refused_and_closed(running):
    assert is_alive(running)
    wait_until(lambda: running.server.connections == 0)
    before = open_descriptors()
    sock = raw(running)
    with open("/dev/null") as file, contextlib.suppress(OSError):
        for _ in range(40):
            socket.send_fds(sock, [b" "], [file.fileno()] * 250)
    assert is_closed(sock)
    sock.close()
    wait_until(lambda: running.server.connections == 0)
    assert open_descriptors() == before
    assert is_alive(running)


@pytest.mark.parametrize("half", [b"", b'{"method":'])
def test_a_peer_that_sends_its_own_end_of_the_connection_cannot_keep_it_open(running, half, monkeypatch):
    monkeypatch.setattr(module, "MESSAGE_SECONDS", 0.3)
    sock = raw(running)
    message = json.dumps({"method": "test.example.Echo", "parameters": {"text": "x"}}).encode() + b"\0"
    socket.send_fds(sock, [half or message], [sock.fileno()])
    sock.close()
    wait_until(lambda: running.server.connections == 0)


def test_half_a_message_does_not_hold_up_others_and_is_given_up(running, monkeypatch):
    monkeypatch.setattr(module, "MESSAGE_SECONDS", 0.3)
    sock = raw(running)
    sock.sendall(b'{"method":"test.exa')
    assert is_alive(running)
    begin = time.monotonic()
    assert is_closed(sock)
    assert 0.1 < time.monotonic() - begin < 3
    sock.close()


def test_a_sender_that_drips_is_given_up_too(running, monkeypatch):
    monkeypatch.setattr(module, "MESSAGE_SECONDS", 0.3)
    sock = raw(running)
    begin = time.monotonic()
    with pytest.raises(ConnectionError):
        for _ in range(100):
            sock.sendall(b" ")
            time.sleep(0.05)
    assert time.monotonic() - begin < 3
    sock.close()


def test_a_peer_that_reads_nothing_is_given_up_and_harms_nobody(running, monkeypatch):
    monkeypatch.setattr(module, "SEND_SECONDS", 0.3)
    channel = connect(running.path)
    channel.send({"method": "test.example.Big"})
    assert is_alive(running)
    wait_until(lambda: running.server.connections == 0)
    channel.close()


def test_unfinished_messages_of_all_connections_together_are_bounded(running, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNREAD_BYTES", 10 << 20)
    socks = [raw(running) for _ in range(4)]
    refused = 0
    for sock in socks:
        try:
            sock.sendall(b"x" * (4 << 20))
            time.sleep(0.05)
        except ConnectionError:
            refused += 1
    wait_until(lambda: running.server.unread <= 10 << 20)
    wait_until(lambda: running.server.connections < 4)
    assert is_alive(running)
    for sock in socks:
        sock.close()
    wait_until(lambda: running.server.connections == 0)
    assert running.server.unread == 0


def test_a_thousand_connections_are_served(running):
    socks = [raw(running) for _ in range(1000)]
    wait_until(lambda: running.server.connections == 1000)
    assert is_alive(running)
    message = json.dumps({"method": "test.example.Echo", "parameters": {"text": "x"}}).encode() + b"\0"
    for sock in socks:
        sock.sendall(message)
    for sock in socks:
        assert sock.recv(100) == b'{"parameters":{"text":"x"}}\0'
        sock.close()
    wait_until(lambda: running.server.connections == 0)


def test_more_connections_than_allowed_are_turned_away(running, monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 5)
    socks = [raw(running) for _ in range(5)]
    wait_until(lambda: running.server.connections == 5)
    extra = raw(running)
    assert is_closed(extra)
    extra.close()
    for sock in socks:
        sock.close()
    wait_until(lambda: running.server.connections == 0)
    assert is_alive(running)


def test_a_flood_of_calls_from_one_peer_leaves_room_for_others(running):
    flood = raw(running)
    message = json.dumps({"method": "test.example.Echo", "parameters": {"text": "x"}, "oneway": True}).encode() + b"\0"
    stop = threading.Event()

    def pour() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                flood.sendall(message * 100)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        times = []
        for _ in range(20):
            begin = time.perf_counter()
            assert is_alive(running)
            times.append(time.perf_counter() - begin)
        assert sorted(times)[10] < 0.5
    finally:
        stop.set()
        flood.close()
        thread.join()


@pytest.mark.root
def test_another_user_is_refused_even_where_the_sockets_mode_lets_him_in(running, tmp_path):
    folder = tmp_path
    while folder != folder.parent:
        os.chmod(folder, folder.stat().st_mode | 0o711)
        folder = folder.parent
        if str(folder) == "/tmp":
            break
    os.chmod(running.path, 0o666)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            channel = connect(running.path)
            answer, _ = channel.receive()
            code = 0 if answer["error"] == "org.varlink.service.PermissionDenied" and channel.receive() is None else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.chmod(running.path, 0o600)


@pytest.mark.root
def test_root_in_a_guest_is_refused_where_a_volume_shows_it_the_socket(running):
    """A process of another pid namespace, with uid 0 and the socket in reach."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            syscall.unshare(namespace.NEWPID)
            inner = os.fork()
            if inner == 0:
                channel = connect(running.path)
                answer, _ = channel.receive()
                os._exit(0 if answer.get("error", "").endswith("PermissionDenied") else 2)
            code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert is_alive(running)


def test_the_socket_appears_with_its_mode_and_works_at_a_long_path(tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    sock = listen(f"{folder}/node.sock")
    assert os.stat(f"{folder}/node.sock").st_mode & 0o777 == 0o600
    assert os.listdir(folder) == ["node.sock"]
    sock.close()
    listen(f"{folder}/node.sock").close()


def test_peer_credentials_are_three_integers():
    first, second = socket.socketpair()
    values = struct.unpack("3i", first.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    assert values == (os.getpid(), os.geteuid(), os.getegid())
    first.close()
    second.close()
