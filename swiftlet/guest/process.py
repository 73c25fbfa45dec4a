"""What the launcher knows of one process that it started, of its outputs, and of how it ended.

Imports the standard library only. Descriptors held here are close-on-exec.
"""

from __future__ import annotations

import os
import time

from swiftlet.linux import cgroup, message
from swiftlet.linux.channel import Channel
from swiftlet.linux.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from swiftlet.guest import stage
    from swiftlet.guest.channels import Channels

LOGS = ("stdout", "stderr")


class Process:
    """A guest's first process, or (`exec` is its number) one that was started in a running guest."""

    def __init__(self, key: str, exec_: str, call: Any, state_dir: str, groups: dict[str, str], tty: bool) -> None:
        self.key = key
        self.exec = exec_
        self.call = call
        self.state_dir = state_dir
        self.groups = groups
        self.tty = tty
        self.pid = 0
        self.pidfd = -1
        self.started_ns = 0
        self.status: Channel | None = None
        self.error: dict[str, str] | None = None
        self.slot = 0
        self.running = False
        self.owns_groups = False
        self.wait_status = 0
        self.output: Output | None = None
        self.execs: dict[str, Process] = {}
        self.channels: Channels | None = None


class Output:
    """The outputs of one process. The launcher keeps every end, so that the log worker can be made again.

    sources: what is read (pipes, or the master of a terminal). attached: where an attached command's copy is
    written. ends: what that command reads, until it has been sent there. children: the process's own ends.
    told: the daemon has been told of the start or of its failure, so nothing here is waited for any more.
    followed: the process writes its logs itself, and the log worker follows them as they grow: a virtual machine ends
    without a word to the guest's driver about what a full pipe has kept from being written.
    """

    def __init__(self, tty: bool, followed: bool = False) -> None:
        self.tty = tty
        self.followed = followed
        self.sources: list[int] = []
        self.attached: list[int] = []
        self.ends: list[int] = []
        self.children: list[int] = []
        self.told = False

    def make_pipes(self) -> tuple[int, int]:
        """Pipes for standard output and error; returns the ends that the process writes."""
        for _ in LOGS:
            source, child = os.pipe2(os.O_CLOEXEC)
            self.sources.append(source)
            self.children.append(child)
        return self.children[0], self.children[1]

    def make_logs(self, state_dir: str) -> tuple[int, int]:
        """The logs themselves, for a process that writes them. Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        for name in LOGS:
            self.children.append(os.open(f"{state_dir}/{name}", flags, 0o600))
        return self.children[0], self.children[1]

    @property
    def can_be_attached(self) -> bool:
        """Whether somebody can have a copy of what comes."""
        return self.followed or bool(self.sources)

    def attach(self) -> None:
        """Make new ends for an attached command; those of an earlier one are closed."""
        close_all(self.attached)
        for _ in range(1 if self.tty else len(LOGS)):
            end, attached = os.pipe2(os.O_CLOEXEC)
            self.ends.append(end)
            self.attached.append(attached)

    def take_ends(self) -> tuple[int, ...]:
        """What an attached command gets, to be closed by the caller: a terminal's master comes first."""
        ends = tuple(self.ends)
        self.ends.clear()
        if self.tty and self.sources:
            return (os.dup(self.sources[0]), *ends)
        return ends

    def give_sources(self) -> tuple[int, ...]:
        """The sources themselves, where no log worker stands between (exec); the caller closes them."""
        sources = tuple(self.sources)
        self.sources.clear()
        return sources

    def open_logs(self, state_dir: str) -> list[int]:
        """Descriptors of the log files, one for each output, then of the index; the caller closes them.

        Raises OSError.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        opened: list[int] = []
        try:
            for name in (*LOGS[: 1 if self.tty else len(LOGS)], "index"):
                opened.append(os.open(f"{state_dir}/{name}", flags, 0o600))
        except BaseException:
            close_all(opened)
            raise
        return opened

    def close_children(self) -> None:
        """Close the ends that the process has got by now."""
        close_all(self.children)

    def close(self) -> None:
        """Close everything."""
        for fds in (self.sources, self.attached, self.ends, self.children):
            close_all(fds)


def output_of(process: Process, guest: stage.Guest) -> Output | None:
    """Pipes for what a process writes, or its logs themselves; None where it was given descriptors. Raises OSError."""
    if guest.given_output:
        return None
    output = Output(process.tty, process.channels is not None and not process.tty)
    if output.followed:
        guest.stdio[1], guest.stdio[2] = output.make_logs(process.state_dir)
    elif not process.tty:
        guest.stdio[1], guest.stdio[2] = output.make_pipes()
    return output


def close_all(fds: list[int]) -> None:
    """Close descriptors and forget them."""
    while fds:
        os.close(fds.pop())


def exit_of(process: Process, usage: dict[str, int]) -> dict[str, Any]:
    """How a process ended, as docs/design.md describes it: code is the shell's, 128 + n for signal n."""
    status = process.wait_status
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    out_of_memory = number == signal.SIGKILL and usage.get("oom_kills", 0) > 0
    reason = ""
    if out_of_memory:
        reason = "out of memory"
    elif number:
        reason = f"killed by {_signal_name(number)}"
    return {
        "code": 128 + number if number else os.WEXITSTATUS(status),
        "signal": number,
        "oom": out_of_memory,
        "oom_kills": usage.get("oom_kills", 0),
        "reason": reason,
        "started_ns": process.started_ns,
        "ended_ns": time.time_ns(),
        "usage": {
            name: value for name, value in usage.items() if name.startswith("cpu") or name.endswith("peak_bytes")
        },
    }


def _signal_name(number: int) -> str:
    names = (name for name, value in vars(signal).items() if value == number and name.startswith("SIG"))
    return next((name for name in names if "_" not in name), f"signal {number}")


def end_unknown_children(known: set[int]) -> None:
    """Kill and collect the children that nobody knows of: whoever made one was killed before it could tell of it.

    One that is left would keep its guest's pid namespace, and so the guest, from ending.
    """
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and int(name) not in known:
            os.kill(int(name), signal.SIGKILL)  # a child's number is its own until it is collected
            os.waitpid(int(name), 0)


def complain(text: str) -> None:
    """Write a line to the log. Where its disk is full, or it was closed, the line is lost and no guest with it."""
    try:
        os.write(2, f"launcher: {text}\n".encode(errors="replace"))
    except OSError:
        return


def keep_exit(process: Process, leaving: dict[str, Any]) -> None:
    """Write exit.json. A full disk, or a folder that has gone, is no reason to end with every other guest."""
    try:
        write_exit(process.state_dir, leaving)
    except OSError as error:
        complain(f"{process.key}: exit.json: {error}")


def remove_groups(process: Process) -> None:
    """Remove a guest's control groups, if it has any of its own; what cannot be removed is told in the log."""
    if not process.owns_groups:
        return
    process.owns_groups = False
    try:
        cgroup.remove(process.groups)
    except OSError as error:
        complain(str(error))


def write_exit(state_dir: str, leaving: dict[str, Any]) -> None:
    """Put exit.json into the guest's folder, whole or not at all."""
    temporary = f"{state_dir}/exit.json.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, message.encode(leaving))
    finally:
        os.close(fd)
    os.rename(temporary, f"{state_dir}/exit.json")
