"""A machine for one trial of a kernel: boots a workload, sees whether it does what it is to do, and is gone.

It belongs to no node: no control group, no network of the host's, no record. What it answers to is reached through
QEMU's own network in user space, from which nothing else can be reached. QEMU has a user of its own, no capability and
its own system call filter, gets its files as descriptors, and ends with whoever tries. With `trace`, it writes down the
code that it translates, which under emulation is all the code that runs (`image.kernel.trace`).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO, NamedTuple

from swiftlet.guest import qemu
from swiftlet.guest.channels import listening
from swiftlet.guest.orders import Card, order
from swiftlet.model.bundle import FIRST_DESCRIPTOR
from swiftlet.model.error import HostError

CARD = Card(qemu.CARD, "10.0.2.15", 24, "10.0.2.2")
"""The place on QEMU's own network that its guests are given."""

USER = 2_147_479_552
"""QEMU's user and group for trials: in no range of systemd's UIDS-GIDS, nor in those of guests (node/prepare.py)."""

_SETPRIV = "/usr/bin/setpriv"
_APART = ("--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")

DEADLINE_SECONDS = 60.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 0.05
_CONSOLE_LINES = 12
_MOST_KEPT = 1 << 20

_SAID = ("console", "output", "errors")
"""What a machine writes, into files without a name: whoever ends in the middle of a trial leaves nothing."""


class Trial(NamedTuple):
    """What is to be tried. orders: see `guest.orders.start`, with CARD for the network.

    kernel, images: paths. ports: of the guest, each of which must answer a request for each of `paths`; without any,
    the workload must end by itself with code 0. ends: it must do so when it has answered, too. trace: path of a log of
    all translated code, "" for none. words: what the kernel is told besides. counter_khz: see `qemu.Settings`.
    """

    kernel: str
    images: tuple[str, ...]
    orders: str
    ports: tuple[int, ...] = ()
    paths: tuple[str, ...] = ("/",)
    ends: bool = False
    memory: int = 256 << 20
    processors: int = 1
    accelerator: str = "tcg"
    counter_khz: int = 0
    trace: str = ""
    words: str = ""
    seconds: float = DEADLINE_SECONDS


class Verdict(NamedTuple):
    """How a trial went. why: "" when it passed. output: of the workload; console: of the kernel. answer: of the first
    port to the first request, as it came.

    boot_ms: from QEMU's start until the workload's process was there, -1 when it never was. whole_ms: until
    everything had been seen and the machine was gone.
    """

    passed: bool
    why: str
    boot_ms: float
    whole_ms: float
    output: str
    console: str
    answer: bytes = b""


class _Seen:
    """What has been heard of a machine so far."""

    def __init__(self) -> None:
        self.started_ms = -1.0
        self.started = False
        self.failed = ""
        self.code: int | None = None
        self.closed = False
        self.answers: dict[int, bytes] = {}
        self._line = b""

    def take(self, data: bytes, elapsed_ms: float) -> None:
        self.closed = not data
        *lines, self._line = (self._line + data)[-_MOST_KEPT:].split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == "started" and not self.started:
                self.started = True
                self.started_ms = elapsed_ms
            elif word == "failed":
                self.failed = self.failed or rest
            elif word == "exited" and rest.isdigit():
                self.code = int(rest)


def run(trial: Trial) -> Verdict:
    """Try it. Raises OSError when QEMU cannot be started."""
    with ExitStack() as stack:
        said = {name: stack.enter_context(tempfile.TemporaryFile()) for name in _SAID}
        forwarded = {port: _free_port() for port in trial.ports}
        settings = _settings(trial)
        sock, theirs = (stack.enter_context(each) for each in socket.socketpair())
        begin = time.monotonic()
        with ExitStack() as ends:
            folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="swiftlet-trial-"))
            given = [_end_of(name, theirs, said, folder, ends) for name in settings.descriptors]
            files = [_opened(path, ends) for path in (trial.kernel, *trial.images)]
            files += [_log(trial.trace, ends)] if trial.trace else []
            words = argv(_by_descriptor(settings), forwarded, _path_of(settings, len(files) - 1) if trial.trace else "")
            stack.callback(_end, _spawn(apart(words, os.geteuid() == 0), [*given, *files]))
        theirs.close()
        seen = _Seen()
        why = _watch(trial, sock, forwarded, seen, begin) or _stopped(trial, sock, seen, begin)
        whole = (time.monotonic() - begin) * 1e3
        if why:
            why = f"{why}{_told(_text(said['console']))}"
        return Verdict(
            not why,
            why,
            round(seen.started_ms, 1),
            round(whole, 1),
            _text(said["output"]),
            _text(said["console"]),
            seen.answers.get(trial.ports[0], b"") if trial.ports else b"",
        )


def check_programs() -> None:
    """Raises HostError where a program is missing that trials are made of."""
    for path, package in ((qemu.PROGRAM, "qemu-system-x86"), (_SETPRIV, "util-linux")):
        if not os.access(path, os.X_OK):
            raise HostError(f"no {path} here to try kernels with", f"apt-get install {package}")


def apart(words: Sequence[str], root: bool) -> list[str]:
    """QEMU's command line under what takes its rights away; nobody but root can make it another user. Pure."""
    return [_SETPRIV, "--pdeathsig", "KILL", "--no-new-privs", *(_APART if root else ()), *words]


def _opened(path: str, stack: ExitStack) -> int:
    """A file for QEMU, whose user reaches no folder of the cache."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _log(path: str, stack: ExitStack) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    if os.geteuid() == 0:
        os.fchown(fd, USER, USER)
    return fd


def _path_of(settings: qemu.Settings, place: int) -> str:
    """What QEMU opens to have a file that comes after its descriptors: rights to the file count, not to its folders."""
    return f"/proc/self/fd/{FIRST_DESCRIPTOR + len(settings.descriptors) + place}"


def _by_descriptor(settings: qemu.Settings) -> qemu.Settings:
    images = tuple(_path_of(settings, 1 + place) for place in range(len(settings.images)))
    return settings._replace(kernel=_path_of(settings, 0), images=images)


def argv(settings: qemu.Settings, forwarded: Mapping[int, int], trace: str) -> list[str]:
    """QEMU's command line. forwarded: port of the guest -> port of this host. Pure."""
    bus = "device" if settings.type == "microvm" else "pci"
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for guest, host in forwarded.items())
    words = [*qemu.argv(settings)]
    words += ["-netdev", f"user,id=net,restrict=on{forwards}"]
    words += ["-device", f"virtio-net-{bus},netdev=net,mac={qemu.CARD}{'' if bus == 'device' else ',romfile='}"]
    return words + (["-d", "in_asm", "-D", trace] if trace else [])


def _settings(trial: Trial) -> qemu.Settings:
    descriptors = qemu.channels(terminal=False, input_=False, network=False, shares=0)
    type_ = qemu.type_for(qemu.device_count(descriptors, len(trial.images), 0) + 1)
    return qemu.Settings(
        name="trial",
        accelerator=trial.accelerator,
        type=type_,
        kernel=trial.kernel,
        memory=trial.memory,
        processors=trial.processors,
        images=trial.images,
        descriptors=descriptors,
        shares=0,
        counter_khz=trial.counter_khz,
        debug=" ".join(filter(None, ("nokaslr" if trial.trace else "", trial.words))),
    )


def _end_of(name: str, orders: socket.socket, said: Mapping[str, IO[bytes]], folder: str, stack: ExitStack) -> int:
    """The machine's end of a channel, which is closed here with the stack. folder: for what needs a name to begin."""
    if name == "orders":
        return orders.fileno()
    if name in said:
        path = f"/proc/self/fd/{said[name].fileno()}"  # once more: QEMU takes what can be written only
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        return fd
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, directory)
    listener = listening(directory, name)
    stack.callback(os.close, listener)
    os.unlink(name, dir_fd=directory)  # nobody is to come; until now nobody else could get into the folder
    return listener


def _spawn(words: list[str], given: list[int]) -> int:
    high = [os.dup(fd) for fd in given]
    try:
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, fd, FIRST_DESCRIPTOR + 100 + place) for place, fd in enumerate(high)
        ]
        numbers = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + len(given))
        actions += [(os.POSIX_SPAWN_DUP2, number + 100, number) for number in numbers]  # none is overwritten before use
        actions += [(os.POSIX_SPAWN_CLOSE, number + 100) for number in numbers]
        return os.posix_spawn(words[0], words, {}, file_actions=actions)  # in this group, to be killed along with it
    finally:
        for fd in high:
            os.close(fd)


def _watch(trial: Trial, sock: socket.socket, forwarded: Mapping[int, int], seen: _Seen, begin: float) -> str:
    """Until the workload has done what it is to do: "", or why it will not."""
    silent = set(trial.ports)
    orders = trial.orders.encode()
    sock.setblocking(False)
    while time.monotonic() - begin < trial.seconds:
        orders = _exchange(sock, orders, seen, begin)
        if seen.failed:
            return f"the machine could not be set up: {seen.failed}"
        if seen.started:
            silent = {port for port in silent if not _answers(port, forwarded[port], trial.paths, seen)}
        if trial.ports and not silent and not trial.ends:
            return ""
        if seen.code is not None:
            return "" if not silent and not seen.code else f"the workload ended with code {seen.code}"
        if seen.closed:
            return "the machine ended by itself"
    missing = _missing(seen.started, silent)
    return f"after {trial.seconds:.0f} seconds {missing}"


def _missing(started: bool, silent: set[int]) -> str:
    if not started:
        return "the workload has not started"
    return f"port {min(silent)} does not answer" if silent else "the workload has not ended"


def _exchange(sock: socket.socket, orders: bytes, seen: _Seen, begin: float) -> bytes:
    """Send what the guest takes, hear what it says: the orders that are left."""
    if seen.closed:
        return orders
    readable, writable, _ = select.select([sock], [sock] if orders else [], [], _ASK_AGAIN_SECONDS)
    try:
        if readable:
            seen.take(sock.recv(1 << 16), (time.monotonic() - begin) * 1e3)
        if writable:
            orders = orders[sock.send(orders) :]
    except (BlockingIOError, ConnectionError):
        seen.closed = True
    return orders


def _stopped(trial: Trial, sock: socket.socket, seen: _Seen, begin: float) -> str:
    """Ask a workload that serves to end: "", or that it does not."""
    until = time.monotonic() + STOP_SECONDS
    orders = order("k", str(int(signal.SIGTERM))).encode() if seen.code is None else b""
    while not seen.closed and time.monotonic() < until:
        orders = _exchange(sock, orders, seen, begin)
    return "" if seen.closed else "the machine does not end"


def _answers(port: int, forwarded: int, paths: Sequence[str], seen: _Seen) -> bool:
    """Whether anything comes back from a port for each path: QEMU takes connections whether or not its guest does."""
    for path in paths:
        if not (answer := _answer(forwarded, path)):
            return False
        seen.answers.setdefault(port, answer)
    return True


def _answer(port: int, path: str) -> bytes:
    """What a port of this host answers; b"" for nothing, or not within ANSWER_SECONDS."""
    found, until = b"", time.monotonic() + ANSWER_SECONDS
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: guest\r\nConnection: close\r\n\r\n".encode())
            while len(found) < _MOST_KEPT and time.monotonic() < until and (data := connection.recv(1 << 16)):
                found += data
    except OSError:
        pass
    return found


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    finally:
        os.waitpid(pid, 0)


def _text(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), _MOST_KEPT, 0).decode(errors="replace")


def _told(console: str) -> str:
    lines = [line.strip() for line in console.splitlines() if line.strip()][-_CONSOLE_LINES:]
    return "; the last of its console:\n" + "\n".join(lines) if lines else "; its console is empty"
