"""Work that runs code of a user's in this Python: done by a process that is shut in (`linux.confinement`).

`python -I -m swiftlet.node.confined CHANNEL OUTPUT` is that process, or rather the one that starts and ends it. It
reads one request, `{"function": "module:name", "parameters"}`, calls `function(parameters, output, progress)`, whose
result is a message, and answers as a worker does (`pull`). What is large it writes to `output`, a file in memory.

Nothing that comes from there is believed: whoever asks checks the result's shape, and an error is a text.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from swiftlet.guest import seccomp_profile
from swiftlet.linux import confinement, syscall
from swiftlet.linux.channel import Channel, ChannelError
from swiftlet.linux.child import leash
from swiftlet.linux.confinement import Limits
from swiftlet.linux.seccomp_compiler import ALLOW, Condition, Profile, Rule, compile_profile, refuse
from swiftlet.linux.syscall_table import NUMBERS
from swiftlet.model.error import InputError, SwiftletError, from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 120.0
"""After which the work is ended."""

_LEAVE_SECONDS = 1.0
"""Whoever has answered may take so long to end."""

LIMITS = Limits(memory=4 << 30, file=64 << 20, processes=16, descriptors=64)

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}


def run(
    function: str,
    parameters: dict[str, Any],
    visible: Iterable[str],
    progress: Callable[[str, int, int], None],
    *,
    seconds: float = SECONDS,
) -> tuple[dict[str, Any], bytes]:
    """Have it done. visible: paths that it may read besides Python's own. Returns its result, and its output.

    Raises the error that it names, InputError where it takes too long or breaks.
    """
    ours, theirs = socket.socketpair()
    output = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", __name__, str(theirs.fileno()), str(output)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), output),
                env=_ENVIRONMENT,
                preexec_fn=leash(),
            )
        try:
            channel = Channel(ours)
            channel.send({"function": function, "parameters": parameters, "visible": list(visible)})
            result = _answer(channel, progress, time.monotonic() + seconds)
            process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()  # and what is shut in goes with it
            process.wait()
        return result, _content(output)
    finally:
        ours.close()
        os.close(output)


def _answer(channel: Channel, progress: Callable[[str, int, int], None], end: float) -> dict[str, Any]:
    while True:
        try:
            received = _next(channel, end)
        except TimeoutError:
            raise InputError(
                "the program's top level takes too long", "what is computed there should be a task"
            ) from None
        except ChannelError as error:
            raise InputError(f"the program's top level: {error}") from None
        if received is None:
            raise InputError("the program's top level ended Python", "it may need too much memory, or leave by itself")
        message, fds = received
        for fd in fds:
            os.close(fd)
        told = message.get("progress")
        if isinstance(told, list) and list(map(type, told)) == [str, int, int]:
            progress("".join(filter(str.isprintable, told[0]))[:100], told[1], told[2])
        elif isinstance(message.get("error"), dict):
            words = [str(message["error"].get(name, "")) for name in ("kind", "message", "hint")]
            raise from_wire(*words)
        elif isinstance(message.get("result"), dict):
            result: dict[str, Any] = message["result"]
            return result


def _next(channel: Channel, end: float) -> tuple[dict[str, Any], tuple[int, ...]] | None:
    """The next message, however it dribbles in. Raises TimeoutError, ChannelError."""
    while (message := channel.take()) is None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.sock.settimeout(left)
        if not channel.fill():
            return None
    if time.monotonic() >= end:
        raise TimeoutError
    return message


def _content(file: int) -> bytes:
    size = min(os.fstat(file).st_size, LIMITS.file)
    return os.pread(file, size, 0)


def visible_of_python() -> set[str]:
    """What this Python, what is installed in it, and its libraries take."""
    named = {sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache", *sys.path}
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {path for path in {*named, package} if path.startswith("/") and path != "/" and os.path.exists(path)}


def main() -> None:
    """Start the process that is shut in, and wait for it."""
    channel, output = Channel(socket.socket(fileno=int(sys.argv[1]))), int(sys.argv[2])
    received = channel.receive()
    if received is None:
        return
    request, _ = received
    reading, writing = os.pipe()
    owner = confinement.separate()
    if os.fork():
        os.wait()
        return
    os.close(writing)
    try:
        channel.send(_done(request, channel, output, (owner, reading)))
    finally:
        os._exit(0)


def _done(request: dict[str, Any], channel: Channel, output: int, shut_in_by: tuple[int, int]) -> dict[str, Any]:
    """What is answered."""
    module, _, name = request["function"].partition(":")
    try:
        visible = visible_of_python().union(request["visible"])
        confinement.shut_in(*shut_in_by, visible, LIMITS, compile_profile(_profile()))
    except OSError as error:
        return {
            "error": {"kind": "HostError", "message": f"cannot shut a build in: {error}", "hint": "swiftlet doctor"}
        }
    try:
        function = getattr(importlib.import_module(module), name)
        return {"result": function(request["parameters"], output, lambda *told: channel.send({"progress": told}))}
    except SwiftletError as error:
        return _error(error.kind, str(error), error.hint)
    except MemoryError:
        return _error("InputError", "the program's top level takes too much memory")
    except Exception as error:  # which nobody has foreseen: Numba's own, or of what the program has changed in it
        told = f"the compiler broke: {type(error).__name__}: {error}"
        return _error("InputError", told, "write the task in another way")


def _profile() -> Profile:
    """A container's without capabilities; besides, it dies with its parent (PR_SET_PDEATHSIG), and hides no memory."""
    rules = dict(seccomp_profile.profile_for(frozenset()).rules)
    rules[NUMBERS["prctl"]] = (Rule(ALLOW, (Condition(0, "!=", syscall.PR_SET_PDEATHSIG),)),)
    rules[NUMBERS["memfd_create"]] = (Rule(refuse(errno.EPERM)),)
    return Profile(rules)


def _error(kind: str, message: str, hint: str = "") -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message, "hint": hint}}


if __name__ == "__main__":
    main()
