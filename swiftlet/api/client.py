"""The command's end of the wire: one connection to the node daemon, which is started where none runs.

Every command loads this, so it imports C modules, `linux.channel` and `model.error` only; what starting a
daemon needs is imported when one is started. What answers mean and how they are shown is left to `cli`.
"""

from __future__ import annotations

import os
import sys
import time

from swiftlet.linux.channel import Channel, connect
from swiftlet.model.error import HostError, InputError, SwiftletError, WireError, from_wire
from swiftlet.model.instance import Instance, instance_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    Answer = tuple[dict[str, Any], tuple[int, ...], bool]

INTERFACE = "io.swiftlet.Node"

START_SECONDS = 10.0
"""How long a new daemon may take until it listens."""

WINNER_SECONDS = 2.0
"""How long a daemon waits that lost against another which then does not listen either."""

LOG_BYTES = 4 << 20
"""A daemon's log longer than this is begun anew when the next daemon starts."""

_DAEMON = ("-I", "-m", "swiftlet.api.daemon")
"""-I: a `json.py` in the folder where somebody types `swiftlet ps` must not become part of a root daemon."""


class Client:
    """A connection to the daemon of `instance`, made at the first call.

    `daemon` is the argv of the daemon to start, None never starts one. Calls are one at a time: an answer
    must have been taken whole before the next call. All calls raise the errors that the daemon names, and
    HostError (not root, the daemon does not start) or WireError (it went away).
    """

    def __init__(
        self, instance: Instance | None = None, *, daemon: tuple[str, ...] | None = (sys.executable, *_DAEMON)
    ) -> None:
        self.instance = instance or instance_of()
        self._daemon = daemon
        self._channel: Channel | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def channel(self) -> Channel:
        """The open connection; connects when there is none."""
        if self._channel is None:
            self._channel = self._connect()
        return self._channel

    def close(self) -> None:
        """Leave; the daemon drops what it did for this connection alone. The next call connects again."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def call(
        self, method: str, parameters: dict[str, Any] | None = None, fds: tuple[int, ...] = ()
    ) -> tuple[dict[str, Any], tuple[int, ...]]:
        """One call, one answer. The descriptors that come with it belong to the caller."""
        self.begin(method, parameters, fds, more=False)
        answer, received, _ = self.receive()
        return answer, received

    def stream(
        self, method: str, parameters: dict[str, Any] | None = None, fds: tuple[int, ...] = ()
    ) -> Iterator[Answer]:
        """One call, several answers as (answer, descriptors, continues); leaving early closes the connection."""
        self.begin(method, parameters, fds)
        continues = True
        try:
            while continues:
                answer, received, continues = self.receive()
                yield answer, received, continues
        finally:
            if continues:
                self.close()

    def begin(
        self, method: str, parameters: dict[str, Any] | None = None, fds: tuple[int, ...] = (), *, more: bool = True
    ) -> None:
        """Send a call; `receive` and `take` give its answers. Raises InputError for parameters that are no text."""
        _check_text(parameters or {})
        name = method if "." in method else f"{INTERFACE}.{method}"
        message: dict[str, Any] = {"method": name, "parameters": parameters or {}}
        if more:
            message["more"] = True
        try:
            self.channel.send(message, fds)
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None

    def receive(self) -> Answer:
        """The next answer, waiting for it."""
        try:
            message = self.channel.receive()
        except OSError as error:
            raise self._gone(str(error)) from None
        if message is None:
            raise self._gone()
        return _answer_of(*message)

    def take(self) -> Answer | None:
        """An answer that has already been read from the connection's descriptor by `fill`, or None."""
        try:
            message = self.channel.take()
        except OSError as error:
            raise self._gone(str(error)) from None
        return _answer_of(*message) if message else None

    def fill(self) -> bool:
        """Read once from the connection, which may wait; False when the daemon is gone (and the client is closed)."""
        try:
            alive = self.channel.fill()
        except OSError:
            alive = False
        if not alive:
            self.close()
        return alive

    def _gone(self, why: str = "") -> WireError:
        self.close()
        detail = f" ({why})" if why else ""
        return WireError(f"the node daemon went away before it answered{detail}", f"see {log_path(self.instance)}")

    def _connect(self) -> Channel:
        try:
            return connect(self.instance.socket)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        except PermissionError:
            raise _not_root() from None
        except OSError as error:
            raise HostError(f"cannot connect to {self.instance.socket}: {error.strerror}") from None
        if os.geteuid() != 0:
            raise _not_root()
        if self._daemon is None:
            raise HostError(f"no node daemon listens on {self.instance.socket}")
        return _start_daemon(self.instance, self._daemon)


def _check_text(value: Any, path: str = "") -> None:
    """Refuse what somebody typed that is not UTF-8: its bytes are half surrogate pairs here, which are no text."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise InputError(f"{path}: {value[:40]!r} is not UTF-8 text", "other bytes reach a guest by a file")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_text(key, f"a name in {path}")
            _check_text(each, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            _check_text(each, f"{path}[{index}]")


def log_path(instance: Instance) -> str:
    """Where a daemon that a command started writes what it has to say."""
    return f"{instance.run}/node.log"


def _not_root() -> HostError:
    return HostError(f"swiftlet needs root and this is user {os.geteuid()}", "run it with sudo")


def _answer_of(message: dict[str, Any], fds: tuple[int, ...]) -> Answer:
    """An answer's parts; raises what an error message names."""
    parameters = message.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise WireError("the node daemon sent an answer that is no object")
    if "error" in message:
        for fd in fds:
            os.close(fd)
        raise _error_of(str(message["error"]), parameters)
    return parameters, fds, bool(message.get("continues"))


def _error_of(name: str, parameters: dict[str, Any]) -> SwiftletError:
    interface, _, kind = name.rpartition(".")
    if interface == INTERFACE:
        return from_wire(kind, str(parameters.get("message") or kind), str(parameters.get("hint") or ""))
    about = " ".join(str(value) for value in parameters.values())
    hint = "the running daemon may be of another version: `swiftlet version` shows both"
    return WireError(f"the node daemon answered {kind} {about}".rstrip(), hint)


def _start_daemon(instance: Instance, argv: tuple[str, ...]) -> Channel:
    """Start a daemon and connect to it.

    Several commands may do this at once: each daemon tries for a lock, the losers exit with 0, and every
    command gets through to the winner. A daemon that is killed before it listens, ours or the winner, is replaced.
    """
    process, start = _spawn(instance, argv)
    deadline = time.monotonic() + START_SECONDS
    patience = time.monotonic() + WINNER_SECONDS
    while time.monotonic() < deadline:
        try:
            return connect(instance.socket)
        except OSError:
            status = process.poll()
        if status is not None and status > 0:
            break
        if status is not None and (status < 0 or time.monotonic() > patience):
            process = _spawn(instance, argv)[0]
            patience = time.monotonic() + WINNER_SECONDS
        time.sleep(0.01)
    raise _not_started(instance, start, process.poll())


def _spawn(instance: Instance, argv: tuple[str, ...]) -> tuple[Any, int]:
    """The process of a new daemon, and where its log begins."""
    import subprocess

    try:
        with _open_log(instance) as log:
            start = os.fstat(log.fileno()).st_size
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "SWIFTLET_ROOT": instance.root, "SWIFTLET_RUN": instance.run},
                start_new_session=True,
            )
    except OSError as error:
        raise HostError(f"cannot start the node daemon: {error.filename}: {error.strerror}") from None
    return process, start


def _open_log(instance: Instance) -> Any:
    os.makedirs(instance.run, mode=0o711, exist_ok=True)
    path = log_path(instance)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.fstat(fd).st_size > LOG_BYTES:
        os.ftruncate(fd, 0)
    return os.fdopen(fd, "ab", buffering=0)


def _not_started(instance: Instance, start: int, status: int | None) -> HostError:
    path = log_path(instance)
    with open(path, "rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    what = f"does not listen after {START_SECONDS:.0f} s" if status is None else f"ended with status {status}"
    return HostError(f"the node daemon {what}: {last}", f"see {path}")
