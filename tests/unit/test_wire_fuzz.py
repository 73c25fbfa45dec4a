"""Fuzzing of the wire: whatever a connection sends, the server goes on, keeps nothing of it, and blames its peer.

Every input that was ever found to break it lies in tests/corpus/wire and is tried first. SWIFTLET_FUZZ_SECONDS sets
the time; a new find is written to the corpus before the test fails.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import random
import socket
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftlet.api import interface
from swiftlet.api.methods import Methods
from swiftlet.api.service import Call, CallFailed, Interface, Method, Reply, Service, decode_parameters
from swiftlet.linux.channel import connect
from swiftlet.model.error import InputError
from swiftlet.node.check import workload_of
from tests.unit.test_server import Example, Running, open_descriptors, wait_until

pytestmark = pytest.mark.fuzz

SECONDS = float(os.environ.get("SWIFTLET_FUZZ_SECONDS", "5"))
CORPUS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "corpus", "wire")


class Nobody:
    """A node that nothing is asked of."""

    guests = None
    workers = None


def node_interface() -> Interface:
    """The node's interface: its own parameters, and methods that do nothing but look at a workload."""

    async def look(call: Call, given: Any) -> Reply:
        if hasattr(given, "workload"):
            workload_of(given.workload)
        return Reply({"fds": len(call.fds)})

    real = Methods(Nobody()).interface()  # type: ignore[arg-type]
    methods = {name: Method(each.parameters, look, each.streams) for name, each in real.methods.items()}
    return Interface(interface.NAME, interface.DESCRIPTION, methods)


class WholeExample(Example):
    def service(self) -> Service:
        service = super().service()
        service.add(node_interface())
        return service


@pytest.fixture
def running(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.unit.test_server.Example", WholeExample)
    monkeypatch.setattr("swiftlet.api.server.MESSAGE_SECONDS", 0.5)
    server = Running(str(tmp_path))
    yield server
    server.close()


WORKLOAD = {
    "templates": ["python@3.11"],
    "command": ["python3"],
    "env": {"A": "b"},
    "volumes": [{"source": "/a", "target": "/b", "read_only": True}],
    "ports": [{"guest": 80, "host": 8080, "host_ip": "127.0.0.1", "protocol": "tcp"}],
    "resources": {"memory": 1, "cpus": 0.5, "cpu_weight": 1, "pids": 1},
    "ulimits": {"nofile": [1, 2]},
}
SAMPLES: list[dict[str, Any]] = [
    {"method": "org.varlink.service.GetInfo", "parameters": {}},
    {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "io.swiftlet.Node"}},
    {"method": "io.swiftlet.Node.Run", "parameters": {"workload": WORKLOAD, "detach": True}, "more": True},
    {"method": "io.swiftlet.Node.Exec", "parameters": {"guest": "x", "command": ["y"]}, "more": True, "fds": 1},
    {"method": "io.swiftlet.Node.Stop", "parameters": {"guest": "x", "timeout": 1.5}},
    {"method": "io.swiftlet.Node.Stats", "parameters": {"guests": []}, "oneway": True},
    {"method": "test.example.Count", "parameters": {"upto": 3}, "more": True},
]
TOKENS = [b"\0", b"\0\0", b"\xff", b"{", b"[" * 50, b'"', b"\\u0000", b"\\ud800", b"null", b"1e999", b"-0", b"true"]
TOKENS += [b'"fds":200', b'"fds":-1', b'"more":true', b'"oneway":true', b"NaN", b"9" * 400, b"\n", b","]


def mutate(data: bytes, chooser: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(chooser.randint(1, 6)):
        place = chooser.randint(0, len(result))
        kind = chooser.randrange(5)
        if kind == 0 and result:
            result[place % len(result)] = chooser.randrange(256)
        elif kind == 1:
            del result[place : place + chooser.randint(1, 30)]
        elif kind == 2:
            result[place:place] = chooser.choice(TOKENS)
        elif kind == 3:
            result[place:place] = result[max(0, place - chooser.randint(1, 60)) : place]
        else:
            result[place:place] = json.dumps(chooser.choice(SAMPLES)).encode() + b"\0"
    return bytes(result)


def send(path: str, data: bytes, chooser: random.Random) -> None:
    """Send in pieces, some with descriptors; read or not; leave in one of several ways."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(0.05 if chooser.random() < 0.1 else 2)
    sock.connect(path)
    with contextlib.suppress(OSError):
        while data:
            size = chooser.choice((1, 7, 100, 5000, len(data)))
            if chooser.random() < 0.2:
                socket.send_fds(sock, [data[:size]], [sock.fileno()] * chooser.randint(1, 3))
            else:
                sock.sendall(data[:size])
            data = data[size:]
        if chooser.random() < 0.5:
            sock.shutdown(socket.SHUT_WR)
            end = time.monotonic() + 2  # a changed call of Count may count for ever, to whoever listens for ever
            while time.monotonic() < end and sock.recv(65536):
                pass
    sock.close()


def inputs(chooser: random.Random):
    for path in sorted(glob.glob(f"{CORPUS}/*")):
        with open(path, "rb") as file:
            yield file.read()
    while True:
        sample = json.dumps(chooser.choice(SAMPLES)).encode() + b"\0"
        yield mutate(sample, chooser)


def keep(data: bytes) -> None:
    os.makedirs(CORPUS, exist_ok=True)
    with open(f"{CORPUS}/{hashlib.sha256(data).hexdigest()[:16]}", "wb") as file:
        file.write(data)


@pytest.mark.timeout(int(SECONDS) + 120)
def test_the_server_survives_anything_and_keeps_nothing(running):
    chooser = random.Random(int(os.environ.get("SWIFTLET_SEED", "1")))
    assert answers(running)
    wait_until(lambda: running.server.connections == 0)
    before = open_descriptors()
    end = time.monotonic() + SECONDS
    sent = 0
    for data in inputs(chooser):
        if time.monotonic() > end:
            break
        sent += 1
        try:
            send(running.path, data, chooser)
            if sent % 20 == 0:
                assert answers(running)
                wait_until(lambda: running.server.connections == 0)
                assert open_descriptors() == before
                assert running.server.unread == 0
        except BaseException:
            keep(data)
            raise
    print(f"{sent} inputs")
    assert sent > 20


def answers(running: Running) -> bool:
    channel = connect(running.path)
    try:
        channel.send({"method": "test.example.Echo", "parameters": {"text": "x"}})
        return channel.receive() == ({"parameters": {"text": "x"}}, ())
    finally:
        channel.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
NAMES = st.sampled_from(sorted(node_interface().methods))


@settings(max_examples=max(200, int(SECONDS * 100)), deadline=None, suppress_health_check=list(HealthCheck))
@given(NAMES, JSON | st.dictionaries(st.sampled_from(["guest", "workload", "templates", "command"]), JSON))
def test_any_parameters_are_decoded_or_refused_with_a_path(name, parameters):
    method = node_interface().methods[name]
    try:
        decoded = decode_parameters(parameters, method.parameters)
        if hasattr(decoded, "workload"):
            workload_of(decoded.workload)
    except CallFailed as error:
        assert error.name == "org.varlink.service.InvalidParameter"
        assert error.parameters["parameter"].startswith("$")
    except InputError as error:
        assert str(error).startswith("workload: $")
