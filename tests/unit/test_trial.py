"""A machine for one trial: how QEMU is called, and what is made of what it reports."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from swiftlet.guest import qemu, trial
from swiftlet.model.bundle import FIRST_DESCRIPTOR
from swiftlet.model.error import HostError

SEEN = b"started\nexited 3\n"


def settings(**changed: str) -> qemu.Settings:
    return trial._settings(trial.Trial("/k/vmlinux", ("/i/0", "/i/1"), "", **changed))  # type: ignore[arg-type]


def test_its_network_is_qemus_own_and_only_what_is_checked_is_reached() -> None:
    words = trial.argv(settings(), {8080: 40001}, "")
    assert "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:40001-:8080" in words
    assert f"virtio-net-device,netdev=net,mac={qemu.CARD}" in words and "-d" not in words


def test_code_is_logged_where_it_is_asked_for_and_has_fixed_addresses() -> None:
    words = trial.argv(settings(trace="/t/log", words="initcall_debug"), {}, "/t/log")
    assert words[-4:] == ["-d", "in_asm", "-D", "/t/log"]
    assert " nokaslr initcall_debug " in words[words.index("-append") + 1]
    assert " quiet " in " ".join(trial.argv(settings(), {}, ""))


def test_reports_are_taken_however_they_are_cut() -> None:
    for size in range(1, len(SEEN)):
        seen = trial._Seen()
        for start in range(0, len(SEEN), size):
            seen.take(SEEN[start : start + size], 7.0)
        assert (seen.started_ms, seen.started, seen.code, seen.closed) == (7.0, True, 3, False)
        seen.take(b"", 9.0)
        assert seen.closed


def test_what_a_guest_invents_is_no_report() -> None:
    seen = trial._Seen()
    seen.take(b"exited \xff\nexited -1\nfailed \nnonsense\n" + b"x" * (2 << 20), 1.0)
    assert seen.code is None and not seen.started and len(seen._line) <= trial._MOST_KEPT


def test_qemu_ends_with_whoever_tries_and_is_a_user_of_its_own_where_that_can_be() -> None:
    words = trial.apart(["qemu", "-x"], True)
    assert words[:4] == ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--no-new-privs"] and words[-2:] == ["qemu", "-x"]
    assert {"--reuid", "--clear-groups", "--bounding-set=-all"} <= {*words}
    assert "--reuid" not in trial.apart(["qemu"], False)


def test_qemu_gets_its_files_as_descriptors_after_its_channels() -> None:
    found = trial._by_descriptor(settings())
    first = FIRST_DESCRIPTOR + len(found.descriptors)
    assert found.kernel == f"/proc/self/fd/{first}"
    assert found.images == (f"/proc/self/fd/{first + 1}", f"/proc/self/fd/{first + 2}")
    assert not any("/k/" in word or "/i/" in word for word in trial.argv(found, {}, ""))


def test_qemus_monitor_listens_where_nobody_can_connect(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ExitStack() as stack:
        fd = trial._end_of("monitor", theirs, {}, str(tmp_path), stack)
        with socket.socket(fileno=os.dup(fd)) as listener, socket.socket(socket.AF_UNIX) as client:
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            name = listener.getsockname()
            assert isinstance(name, str) and name  # bytes are a name in no file system, which everybody can connect to
            assert os.listdir(tmp_path) == []
            with pytest.raises(FileNotFoundError):
                client.connect(name)


@pytest.mark.parametrize(("place", "package"), [(qemu, "qemu-system-x86"), (trial, "util-linux")])
def test_a_program_that_is_missing_is_told_with_its_package(
    place: object, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setattr(qemu, "PROGRAM", str(program))
    monkeypatch.setattr(trial, "_SETPRIV", str(program))
    trial.check_programs()
    monkeypatch.setattr(place, "PROGRAM" if place is qemu else "_SETPRIV", f"{tmp_path}/none")
    with pytest.raises(HostError, match=f"no {tmp_path}/none here") as told:
        trial.check_programs()
    assert told.value.hint == f"apt-get install {package}"


def test_a_port_has_answered_when_something_came_back_for_each_path() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, asked = listener.getsockname()[1], []

        def serve() -> None:
            for _ in range(3):
                peer, _ = listener.accept()
                asked.append(peer.recv(4096).split()[1])
                peer.sendall(b"page" if asked[-1] == b"/" else b"")
                peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        seen = trial._Seen()
        assert trial._answers(80, port, ("/",), seen) and seen.answers == {80: b"page"}
        assert not trial._answers(80, port, ("/", "/quit"), trial._Seen())
        thread.join()
    assert asked == [b"/", b"/", b"/quit"]
    assert not trial._answers(80, port, ("/",), seen)
