"""How the launcher begins: as the one of its instance, from a sealed interpreter, at a socket that is ready.

Imports the standard library and `swiftlet.linux` only. What it then does is `launcher`'s.
"""

from __future__ import annotations

import fcntl
import os
import sys

from swiftlet.linux import syscall
from swiftlet.linux.lean import signal, socket


def begin(run: str) -> bool:
    """Become the launcher of the instance with this run folder; False where there is one."""
    seal_interpreter()
    syscall.prctl(syscall.PR_SET_NAME, b"swiftlet-launch")
    syscall.prctl(syscall.PR_SET_DUMPABLE, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return take_lock(f"{run}/launcher.lock")


def seal_interpreter() -> None:
    """Go on as a copy of the interpreter that nobody can write to: an anonymous file with every seal set."""
    name = "swiftlet-launcher"
    if os.readlink("/proc/self/exe").startswith(f"/memfd:{name}"):
        return
    copy = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open("/proc/self/exe", "rb") as file:
        while os.sendfile(copy, file.fileno(), None, 1 << 24):
            pass
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, 0xF)
    os.execv(f"/proc/self/fd/{copy}", sys.orig_argv)


def take_lock(path: str) -> bool:
    """Become the instance's one launcher; False where there is one: a daemon that was killed may just have started it.

    A lock of fcntl's is this process's alone, so that neither a child nor the log worker keeps it when we are killed.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def listen(path: str) -> socket.socket:
    """A listening socket that appears at `path` ready, whatever an earlier launcher left there half-made.

    The name is given through the folder's descriptor, because a socket's address holds 107 bytes only.
    """
    folder, name = os.path.split(path)
    interim = f"{name}.new"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.unlink(interim, dir_fd=directory)
        except FileNotFoundError:
            pass
        listener.bind(f"/proc/self/fd/{directory}/{interim}")
        os.chmod(interim, 0o600, dir_fd=directory)
        listener.listen(8)
        os.rename(interim, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)
    return listener


def is_ours(connection: socket.socket) -> bool:
    """Whether the peer is our own user and in our pid namespace: root in a guest may find the socket in a volume."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    peer, user = (int.from_bytes(credentials[start : start + 4], sys.byteorder) for start in (0, 4))
    try:
        return user == os.geteuid() and os.readlink(f"/proc/{peer}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False  # it has gone, or is of a namespace that cannot be seen from here
