"""A command run once over a template's files, without network, to make files that are generated, not fetched.

`run_sandboxed` starts a process of its own (this module's `main`, standard library and `swiftlet.linux` only),
since namespaces are entered by processes with one thread. It uses the containers' own steps.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from swiftlet.guest import stage, view
from swiftlet.linux import capability, mount, namespace, syscall
from swiftlet.linux.channel import Channel
from swiftlet.linux.child import leash

_START = "import sys; sys.path.insert(0, sys.argv[1]); from swiftlet.guest.sandbox import main; main()"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MAX_OUTPUT = 256 << 20
"""Bytes that the outputs of one command may have together."""


class SandboxError(Exception):
    """The command failed; the text holds the end of what it wrote."""


def run_sandboxed(
    lowers: Sequence[str], argv: Sequence[str], outputs: Sequence[str], scratch: str, *, timeout: float = 120.0
) -> dict[str, tuple[int, bytes]]:
    """Run `argv` over `lowers` and return the files that it left at or below `outputs`: path -> (mode, content).

    scratch: a folder on the store's file system. Raises SandboxError when the command fails, takes longer than
    `timeout` seconds, or leaves none of an output.
    """
    state = tempfile.mkdtemp(dir=scratch)
    try:
        for name in ("upper", "work", "root"):
            os.mkdir(f"{state}/{name}")
        _run(state, lowers, argv, timeout)
        return _collect(f"{state}/upper", outputs)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _run(state: str, lowers: Sequence[str], argv: Sequence[str], timeout: float) -> None:
    package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    bundle = {"state_dir": state, "rootfs": {"lowers": list(lowers)}, "argv": list(argv)}
    command = [sys.executable, "-I", "-S", "-c", _START, package_parent]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(bundle),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            preexec_fn=leash(),
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"{argv[0]} took longer than {timeout:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise SandboxError(f"{' '.join(argv)} ended with {done.returncode}: {last}")


def _collect(upper: str, outputs: Sequence[str]) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    for output in outputs:
        before = len(found)
        top = f"{upper}{output}"
        if os.path.isfile(top) and not os.path.islink(top):
            _take(found, upper, top)
        for folder, _, names in os.walk(top):
            for name in names:
                _take(found, upper, f"{folder}/{name}")
        if len(found) == before:
            raise SandboxError(f"the command left nothing at {output}")
    return found


def _take(found: dict[str, tuple[int, bytes]], upper: str, path: str) -> None:
    """Read one file that the command left, following no link of its making."""
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = syscall.RESOLVE_BENEATH | syscall.RESOLVE_NO_SYMLINKS
        fd = syscall.openat2(root, path[len(upper) + 1 :], os.O_RDONLY | os.O_NONBLOCK, resolve)
    except OSError:
        return  # a link or something that vanished: not a regular file
    finally:
        os.close(root)
    with os.fdopen(fd, "rb") as file:
        content = file.read(MAX_OUTPUT + 1)
        if sum(len(each) for _, each in found.values()) + len(content) > MAX_OUTPUT:
            raise SandboxError(f"the command left more than {MAX_OUTPUT >> 20} MiB")
        found[path[len(upper) :]] = (os.fstat(file.fileno()).st_mode & 0o777, content)


def main() -> None:
    """Read a bundle from standard input, run its command as process 1 of new namespaces, leave with its code."""
    bundle = json.load(sys.stdin)
    bundle.update(
        env={"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}, tty=False, userns=0, volatile=True,
        shm_bytes=16 << 20, hostname="sandbox", uid=0, gid=0, groups=[], capabilities=sorted(capability.DEFAULT),
    )  # fmt: skip
    guest = stage.Guest(bundle)
    guest.view = view.kernel(None, bundle["shm_bytes"])
    guest.covers = view.covers(view.masked_on_host(), ())
    guest.mount_point = f"{bundle['state_dir']}/root"
    null = os.open("/dev/null", os.O_RDONLY)
    guest.stdio = [null, os.dup(1), os.dup(2)]
    told, guest_end = socket.socketpair()
    guest.status = Channel(guest_end)
    told.send(b"\0")  # the launcher's word that the command may be executed
    mount.private_namespace([bundle["state_dir"], *bundle["rootfs"]["lowers"], "/proc", "/dev", "/sys"])
    spaces = namespace.NEWNS | namespace.NEWUTS | namespace.NEWIPC | namespace.NEWPID | namespace.NEWNET
    pid, _ = syscall.clone3(spaces)
    if pid == 0:
        syscall.prctl(syscall.PR_SET_PDEATHSIG, 9)
        stage.run(guest, stage.SANDBOX)
    guest.status.close()
    _, status = os.waitpid(pid, 0)
    _tell(Channel(told))
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _tell(status: Channel) -> None:
    """Write what step failed, if one did."""
    while (received := status.receive()) is not None:
        if "error" in received[0]:
            print(received[0]["error"]["message"], file=sys.stderr)
