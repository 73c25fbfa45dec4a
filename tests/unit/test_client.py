"""The client: answers, descriptors, errors, and a daemon that is started exactly once."""

import asyncio
import os
import sys
import threading
import time

import msgspec
import pytest

from swiftlet.api.client import Client
from swiftlet.api.interface import DESCRIPTION, NAME
from swiftlet.api.server import Server, listen
from swiftlet.api.service import Interface, Method, Reply, Service
from swiftlet.linux.message import decode, encode
from swiftlet.model.error import HostError, InputError, NotFoundError, WireError
from swiftlet.model.instance import Instance
from tests.unit import fakenode


@pytest.fixture
def instance(tmp_path):
    return Instance(str(tmp_path / "root"), str(tmp_path / "run"), "abc123")


@pytest.fixture
def node(instance):
    node = fakenode.FakeNode(instance.socket)
    yield node
    node.close()


@pytest.fixture
def server(tmp_path):
    """The real server, with the node's interface and two methods."""
    path = str(tmp_path / ("long" * 40) / "node.sock")
    os.mkdir(os.path.dirname(path))
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    class Named(msgspec.Struct, forbid_unknown_fields=True):
        guest: str

    async def wait(call, parameters):
        raise NotFoundError(f"no guest {parameters.guest}", "look at ps")

    async def attach(call, parameters):
        reader, writer = os.pipe()
        os.write(writer, b"output")
        os.close(writer)
        await call.send({"started": {"id": parameters.guest}}, (reader,))
        return Reply({"exited": {"code": 3}})

    async def main():
        service = Service(vendor="v", product="p", version="7", url="u", error_interface=NAME)
        service.add(Interface(NAME, DESCRIPTION, {"Wait": Method(Named, wait), "Attach": Method(Named, attach, True)}))
        running = Server(service, listen(path))
        ready.set()
        await stop.wait()
        await running.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    ready.wait(5)
    yield Instance(str(tmp_path), os.path.dirname(path), "abc123")
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


def test_the_real_server_and_the_client_understand_one_another_over_a_long_path(server):
    with Client(server) as client:
        answers = list(client.stream("Attach", {"guest": "x"}))
        assert [answer for answer, _, _ in answers] == [{"started": {"id": "x"}}, {"exited": {"code": 3}}]
        assert os.read(answers[0][1][0], 99) == b"output"
        with pytest.raises(NotFoundError, match="no guest y") as caught:
            client.call("Wait", {"guest": "y"})
        assert caught.value.hint == "look at ps"
        assert client.call("org.varlink.service.GetInfo")[0]["version"] == "7"
        with pytest.raises(WireError, match="InvalidParameter"):
            client.call("Wait", {"guest": 5})


def daemon(tmp_path, delay=0.2, life=5):
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    return (sys.executable, fakenode.__file__, str(marks), str(delay), str(life)), marks


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    root = os.path.dirname(os.path.dirname(os.path.dirname(fakenode.__file__)))
    monkeypatch.setenv("PYTHONPATH", root)


def stop(marks):
    for mark in marks.iterdir():
        os.kill(int(mark.name), 9)


def test_a_call_returns_its_answer_and_names_the_interface(node, instance):
    node.answers["List"] = {"guests": [{"id": "1"}]}
    with Client(instance) as client:
        assert client.call("List", {"all": True}) == ({"guests": [{"id": "1"}]}, ())
        assert client.call("List")[0] == {"guests": [{"id": "1"}]}
    assert node.calls[0].parameters == {"all": True}
    assert node.calls[0].more is False


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"workload": {"command": ["echo", "caf\udce9"]}}, r"workload\.command\[1\]: 'caf\\udce9' is not UTF-8"),
        ({"env": {"A": "\udcff"}}, r"env\.A: '\\udcff' is not UTF-8"),
        ({"env": {"\udcff": "A"}}, r"a name in env: '\\udcff' is not UTF-8"),
        ({"guests": ("a", "\udcff")}, r"guests\[1\]: '\\udcff' is not UTF-8"),
    ],
)
def test_what_is_not_utf_8_is_told_before_anything_is_sent(node, instance, parameters, told):
    node.answers["Run"] = {}
    with Client(instance) as client:
        with pytest.raises(InputError, match=told):
            client.call("Run", parameters)
        client.call("Run", {"text": "\u00e4 \U0001f600"})
    assert [call.parameters for call in node.calls] == [{"text": "\u00e4 \U0001f600"}]


def test_descriptors_travel_both_ways(node, instance):
    def echo(call):
        os.write(call.fds[0], b"from the node")
        read, write = os.pipe()
        os.write(write, b"to the command")
        call.answer({}, (read,))

    node.answers["Run"] = echo
    ours_read, ours_write = os.pipe()
    with Client(instance) as client:
        answer, fds = client.call("Run", {}, (ours_write,))
    assert answer == {} and len(fds) == 1
    assert os.read(ours_read, 99) == b"from the node"
    assert os.read(fds[0], 99) == b"to the command"
    assert not os.get_inheritable(fds[0])


def test_a_stream_gives_every_answer_and_asks_for_more(node, instance):
    def several(call):
        for number in range(3):
            call.answer({"number": number}, continues=number < 2)

    node.answers["Resolve"] = several
    with Client(instance) as client:
        found = [(answer["number"], continues) for answer, _, continues in client.stream("Resolve")]
        assert found == [(0, True), (1, True), (2, False)]
        assert node.calls[0].more is True
        node.answers["List"] = {}
        assert client.call("List")[0] == {}


def test_a_stream_left_early_does_not_confuse_the_next_call(node, instance):
    def several(call):
        for number in range(100):
            call.answer({"number": number}, continues=number < 99)

    node.answers.update(Resolve=several, List={"guests": []})
    with Client(instance) as client:
        for _ in client.stream("Resolve"):
            break
        assert client.call("List")[0] == {"guests": []}


def test_an_error_comes_back_as_the_class_it_was_with_its_hint(node, instance):
    node.answers["Inspect"] = lambda call: call.error("NotFoundError", "no guest x", "try y")
    with Client(instance) as client, pytest.raises(NotFoundError, match="no guest x") as caught:
        client.call("Inspect", {"guest": "x"})
    assert caught.value.hint == "try y"


def test_a_method_that_the_daemon_does_not_know_hints_at_versions(node, instance):
    with Client(instance) as client, pytest.raises(WireError, match="MethodNotFound") as caught:
        client.call("Fly")
    assert "version" in caught.value.hint


def test_a_daemon_that_leaves_in_the_middle_is_one_clear_error_and_the_next_call_connects_again(node, instance):
    node.answers["List"] = lambda call: call.channel.sock.shutdown(2)
    with Client(instance) as client:
        with pytest.raises(WireError, match="went away"):
            client.call("List")
        node.answers["List"] = {"guests": []}
        assert client.call("List")[0] == {"guests": []}


@pytest.mark.parametrize("garbage", [b"[]\0", b"{\0", b"\xff\0", b'{"fds":3}\0', b'{"parameters":[1]}\0'])
def test_nonsense_from_the_daemon_is_a_wire_error(node, instance, garbage):
    node.answers["List"] = lambda call: call.channel.sock.sendall(garbage)
    with Client(instance) as client, pytest.raises(WireError):
        client.call("List")


def test_a_daemon_is_started_when_none_listens_and_its_log_is_kept(tmp_path, instance):
    argv, marks = daemon(tmp_path)
    with Client(instance, daemon=argv) as client:
        assert client.call("List")[0] == {"guests": []}
    assert len(list(marks.iterdir())) == 1
    assert os.stat(f"{instance.run}/node.log").st_mode & 0o777 == 0o600
    stop(marks)


def test_a_socket_left_behind_by_a_dead_daemon_does_not_stop_the_next(tmp_path, instance):
    import socket

    os.makedirs(instance.run)
    left = socket.socket(socket.AF_UNIX)
    left.bind(instance.socket)
    left.close()
    argv, marks = daemon(tmp_path)
    argv = (*argv[:1], "-c", f"import os; os.unlink({instance.socket!r}); os.execv({argv[0]!r}, {list(argv)!r})")
    with Client(instance, daemon=argv) as client:
        assert client.call("List")[0] == {"guests": []}
    stop(marks)


def test_eight_clients_at_once_start_one_daemon_and_all_are_answered(tmp_path, instance):
    argv, marks = daemon(tmp_path, delay=0.5)
    answers = []

    def ask():
        with Client(instance, daemon=argv) as client:
            answers.append(client.call("List")[0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [{"guests": []}] * 8
    assert len(list(marks.iterdir())) == 1
    stop(marks)


def test_a_daemon_that_is_killed_before_it_listens_is_replaced(instance, tmp_path):
    argv, marks = daemon(tmp_path)
    once = f"import os; os.path.exists('{tmp_path}/once') or (open('{tmp_path}/once', 'w'), os.kill(os.getpid(), 9)); "
    first = (sys.executable, "-c", f"{once}os.execv({sys.executable!r}, {list(argv)!r})")
    with Client(instance, daemon=first) as client:
        assert client.call("List")[0] == {"guests": []}
    stop(marks)


def test_a_daemon_that_lost_against_one_that_was_killed_is_followed_by_another(instance, tmp_path, monkeypatch):
    monkeypatch.setattr("swiftlet.api.client.WINNER_SECONDS", 0.1)
    argv, marks = daemon(tmp_path)
    once = f"import os; os.path.exists('{tmp_path}/once') or (open('{tmp_path}/once', 'w'), os._exit(0)); "
    first = (sys.executable, "-c", f"{once}os.execv({sys.executable!r}, {list(argv)!r})")
    with Client(instance, daemon=first) as client:
        assert client.call("List")[0] == {"guests": []}
    stop(marks)


def test_a_daemon_that_fails_to_start_is_reported_with_the_last_line_of_its_log(instance):
    argv = (sys.executable, "-c", "print('all well so far\\nno overlay here\\n'); raise SystemExit(3)")
    began = time.monotonic()
    with Client(instance, daemon=argv) as client, pytest.raises(HostError, match="status 3: no overlay here") as caught:
        client.call("List")
    assert "node.log" in caught.value.hint
    assert time.monotonic() - began < 5


def test_a_daemon_that_never_listens_is_reported_at_the_deadline(instance, monkeypatch):
    monkeypatch.setattr("swiftlet.api.client.START_SECONDS", 0.3)
    argv = (sys.executable, "-c", "import time; time.sleep(3)")
    with Client(instance, daemon=argv) as client, pytest.raises(HostError, match="does not listen"):
        client.call("List")


def test_without_root_nothing_is_started(instance, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with Client(instance) as client, pytest.raises(HostError, match="needs root and this is user 1000"):
        client.call("List")
    assert not os.path.exists(instance.run)


def test_a_module_in_the_current_folder_does_not_become_part_of_the_daemon(tmp_path, instance, monkeypatch):
    from swiftlet.api.client import _DAEMON

    (tmp_path / "swiftlet").mkdir()
    (tmp_path / "swiftlet/__init__.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    argv = (sys.executable, *_DAEMON[:1], "-c", "import sys, swiftlet; print(swiftlet.__file__); sys.exit(4)")
    with Client(instance, daemon=argv) as client, pytest.raises(HostError) as caught:
        client.call("List")
    assert "hijacked" not in str(caught.value)


def test_the_light_json_and_the_real_one_agree():
    import json

    for value in ({}, [], "é\ud800\n\0", 1, -(2**80), 1.5e300, True, None, {"a": [{"b": [1, "x", None]}]}, [[]] * 3):
        assert json.loads(encode(value)) == value
        assert encode(value) == json.dumps(value, separators=(",", ":")).encode()
        assert decode(json.dumps(value, indent=3).encode()) == value
    for wrong in (b"", b"{", b"[1,", b"nul", b'"\n"', b"{}x", b"\xff", b'{"a" 1}', b"[1 2]"):
        with pytest.raises(ValueError):
            decode(wrong)
    with pytest.raises(TypeError):
        encode(object())
    with pytest.raises(ValueError):
        encode(_circle())
    with pytest.raises(RecursionError):
        decode(b"[" * 200_000)


def _circle():
    circle: list = []
    circle.append(circle)
    return circle
