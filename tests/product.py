"""The product as a user has it, in a root of a test's own: the real command, daemon, launcher and store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from swiftlet.linux import cgroup, syscall
from swiftlet.model.instance import Instance, instance_of

COMMAND = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".venv/bin/swiftlet")


class Product:
    """One installation. `close` removes every guest, ends its daemon and launcher, and says what they left behind."""

    def __init__(self, root: str) -> None:
        self.environment = {**os.environ, "SWIFTLET_ROOT": root}
        self.environment.pop("SWIFTLET_RUN", None)
        self.instance: Instance = instance_of(self.environment)

    def spawn(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """The command, running, with its three streams as pipes."""
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([COMMAND, *arguments], env=self.environment, text=True, **{**options, **more})

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """The command, ended: its code and what it wrote."""
        return subprocess.run(
            [COMMAND, *arguments], env=self.environment, text=True, capture_output=True, timeout=timeout,
            **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )  # fmt: skip

    def ok(self, *arguments: str, stdin: str | None = None, timeout: float = 300) -> str:
        """What a command that succeeds wrote."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"swiftlet {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What a command that prints JSON said."""
        return json.loads(self.ok(*arguments, "--json"))

    def pid(self, part: str) -> int | None:
        """The process number of `api.daemon`, `guest.launcher` or another part that runs, else None."""
        for number, line in self.processes().items():
            if f"swiftlet.{part}" in line:
                return number
        return None

    def stop_daemon(self) -> None:
        """End the daemon as an administrator does, and wait for it (with the launcher, if no guest is left)."""
        number = self.pid("api.daemon")
        if number is None:
            return
        os.kill(number, signal.SIGTERM)
        eventually(lambda: number not in self.processes())

    def holdings(self) -> set[tuple[str, str]]:
        """Its guests and snapshots, as they lie on the disk: (kind, name)."""
        found = set()
        for kind in ("guests", "snapshots"):
            with contextlib.suppress(FileNotFoundError):
                found |= {(kind, name) for name in os.listdir(f"{self.instance.root}/{kind}")}
        return found

    def remove(self, holdings: set[tuple[str, str]]) -> None:
        """Remove some of its guests and snapshots, as far as they are there."""
        for kind, name in holdings:
            self.run(*(("rm", "-f") if kind == "guests" else ("snapshot", "rm")), name)

    def close(self) -> None:
        """Remove every guest and end everything."""
        for guest in self.json("ps", "-a"):
            self.run("rm", "-f", guest["id"])
        self.stop_daemon()
        eventually(lambda: not self.processes())

    def leftovers(self) -> list[str]:
        """What this installation still has in the kernel: control groups, interfaces, tables, mounts, processes."""
        found = [path for groups in self._groups().values() for path in groups.values()]
        parents = [f"{mount}/{self.instance.cgroup}" for mount in cgroup.detect().hierarchies.values()]
        found += [path for path in parents if os.path.exists(path)]
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
        found += [line for line in links.splitlines() if self.instance.bridge in line]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
        found += [line for line in tables.splitlines() if line.endswith(f" {self.instance.table}")]
        with open("/proc/self/mountinfo") as file:
            found += [line for line in file if f" {self.instance.root}/" in line]
        return found + [f"process {number}: {line}" for number, line in self.processes().items()]

    def _groups(self) -> dict[str, dict[str, str]]:
        return cgroup.groups_below(cgroup.detect(), self.instance.cgroup)

    def processes(self) -> dict[int, str]:
        """This installation's own processes (not its guests'): number -> command line."""
        found = {}
        for number in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{number}/environ", "rb") as file:
                    mine = f"SWIFTLET_ROOT={self.instance.root}\0".encode() in file.read() + b"\0"
                with open(f"/proc/{number}/cmdline") as file:
                    line = file.read().replace("\0", " ")
            except OSError:
                continue
            if mine and "swiftlet." in line:
                found[int(number)] = line
        return found


def unmount(path: str | Path) -> None:
    """Unmount what processes had open that have ended: an ended one loses its name a little before its files."""
    eventually(lambda: syscall.umount(str(path)) is None)


def eventually(check: Any, seconds: float = 30) -> Any:
    """The first true answer of `check`, asked again until then; what it raises counts as no."""
    end = time.monotonic() + seconds
    while True:
        try:
            if answer := check():
                return answer
        except (OSError, AssertionError):
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, f"{check} did not become true in {seconds} s"
        time.sleep(0.05)
