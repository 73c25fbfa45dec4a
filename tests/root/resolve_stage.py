"""Runs a program in the root of a stack, in namespaces of its own: enough to see that a template is whole.

Not a container: the launcher has its own tests. `python resolve_stage.py FOLDER LOWERS COMMAND...` is what
`unshare` starts inside; `Stage` is for tests.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIOCSIFFLAGS = 0x8914


class Stage:
    """One program that runs in a stack. As a context manager it is killed at the end with all its children."""

    def __init__(
        self, folder: str, lowers: Sequence[str], command: Sequence[str], env: Mapping[str, str] | None = None
    ):
        unshare = [
            "unshare",
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]
        inside = [sys.executable, os.path.abspath(__file__), folder, ":".join(lowers), *command]
        environment = {"PATH": PATH, "HOME": "/root", **(env or {})}
        self.process = subprocess.Popen(
            [*unshare, *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
        )

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> str:
        """Kill the program with all that it started; its output.

        The program is process 1 of its namespace, so all others go with it. `--kill-child` alone does not do:
        the kernel forgets it when a program changes its user.
        """
        if self.process.stdout is None or self.process.stdout.closed:
            return ""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except (IndexError, OSError):
            pass
        return self.process.communicate(timeout=30)[0] or ""

    @property
    def pid(self) -> int:
        """The program's process id on the host."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return int(file.read().split()[0])

    def finish(self, timeout: float = 60) -> str:
        """Wait for the program; its output. Fails unless its status is 0."""
        output, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, output
        return output

    def outside(self, *command: str, inside_root: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a program of the host (or of the stack) in the program's network."""
        enter = ["nsenter", "--target", str(self.pid), "--net"]
        if inside_root:
            enter += ["--mount", "--pid", "--root", "--wdns=/"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, env={"PATH": PATH})

    def until(self, *command: str, inside_root: bool = False, timeout: float = 60) -> str:
        """Repeat a command until it succeeds; its output."""
        end = time.monotonic() + timeout
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"ended: {self.process.communicate()[0]}")
            try:
                done = self.outside(*command, inside_root=inside_root)
            except (IndexError, FileNotFoundError):
                done = None
            if done is not None and done.returncode == 0:
                return done.stdout
            if time.monotonic() > end:
                raise AssertionError(f"{done and done.stderr}\n{self.stop()}")
            time.sleep(0.1)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", 1))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def main(folder: str, lowers: str, *command: str) -> None:
    """Make the root below `folder` and become the command."""
    _loopback_up()
    os.makedirs(f"{folder}/root", exist_ok=True)
    _mount("-t", "tmpfs", "none", folder)
    for name in ("root", "upper", "work"):
        os.mkdir(f"{folder}/{name}")
    options = f"lowerdir={lowers},upperdir={folder}/upper,workdir={folder}/work"
    _mount("-t", "overlay", "overlay", "-o", options, f"{folder}/root")
    _mount("-t", "proc", "proc", f"{folder}/root/proc")
    _mount("--rbind", "/dev", f"{folder}/root/dev")
    with open(f"{folder}/root/etc/hosts", "w") as file:
        file.write("127.0.0.1 localhost\n")
    os.chroot(f"{folder}/root")
    os.chdir("/")
    os.execvpe(command[0], list(command), dict(os.environ))


if __name__ == "__main__":
    main(*sys.argv[1:])
