"""The launcher's side of the log worker: starts it, hands it descriptors, and starts another when it dies."""

from __future__ import annotations

import fcntl
import os
import sys
import termios

from swiftlet.guest import pump
from swiftlet.guest.process import Output, close_all, complain
from swiftlet.linux.channel import Channel
from swiftlet.linux.lean import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SPARE_NETWORKS, FEW_NETWORKS = 4, 2


class LogWorker:
    """The worker and what it was given: enough to give the same to the next one."""

    def __init__(self, watch: Callable[[int, Callable[[], None] | None], None], null: int) -> None:
        """null: a descriptor of /dev/null, which the launcher's mounts lack later."""
        self._watch = watch
        self._null = null
        self._outputs: dict[str, tuple[str, Output]] = {}
        self._flushing: dict[str, Callable[[], None]] = {}
        self._consoles: dict[str, int] = {}
        self._networks: list[int] = []
        self._ordered = 0
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            keep = theirs.detach()
            _close_all_but(keep)
            pump.main(keep)
        theirs.close()
        self._channel = Channel(ours)
        self._watch(ours.fileno(), self._read)
        self._ordered = 0
        self.order_networks()

    def take_network(self) -> int:
        """A network namespace that is ready, to be closed by the caller; -1 when there is none at the moment."""
        return self._networks.pop() if self._networks else -1

    def order_networks(self, low: int = SPARE_NETWORKS) -> None:
        """Have as many made as are missing, if fewer than `low` are there.

        Making one holds up whoever waits for the kernel's RCU, as a guest's end does, so this is best called after.
        """
        if len(self._networks) + self._ordered >= low:
            return
        while len(self._networks) + self._ordered < SPARE_NETWORKS:
            self._ordered += 1
            self._send({"do": "network"})

    def add(self, key: str, state_dir: str, output: Output, logs: list[int]) -> None:
        """Let a guest's outputs be moved to its logs, and to its attached ends if it has any.

        logs: what `Output.open_logs` gave; closed here. One message, since what the guest writes between two would
        not reach the attached ends.
        """
        self._outputs[key] = (state_dir, output)
        order: dict[str, object] = {"do": "add", "key": key, "terminal": output.tty, "attached": len(output.attached)}
        order["followed"] = output.followed
        self._send(order, (*output.sources, *logs, *output.attached))
        close_all(logs)

    def logs_of(self, state_dir: str, output: Output) -> list[int]:
        """The logs of a guest that lives, open; nothing keeps them where its folder has gone or the disk is full."""
        try:
            return output.open_logs(state_dir)
        except OSError as error:
            complain(f"{state_dir}: its log is lost: {error}")
            return [os.dup(self._null) for _ in range(2 if output.tty else 3)]

    def attach(self, key: str, output: Output) -> None:
        """Let a guest's outputs be copied to its attached ends as well."""
        self._send({"do": "attach", "key": key}, tuple(output.attached))

    def watch_console(self, key: str, console: int) -> None:
        """Keep a machine's console short until it is forgotten. console: of the caller, who closes it after that."""
        self._consoles[key] = console
        self._send({"do": "console", "key": key}, (console,))

    def forget_console(self, key: str) -> None:
        """Nobody writes to a machine's console any more."""
        if self._consoles.pop(key, None) is not None:
            self._send({"do": "forget", "key": key})

    def is_drained(self, key: str) -> bool:
        """Whether nothing of a guest's outputs is left to be moved."""
        return key not in self._outputs

    def is_behind(self, key: str) -> bool:
        """Whether something that a guest wrote may not be in its log yet.

        A pipe that is empty was emptied into the log by the very call that emptied it; of a terminal one cannot tell.
        """
        found = self._outputs.get(key)
        return found is not None and (found[1].tty or found[1].followed or any(map(_waiting, found[1].sources)))

    def end(self, key: str) -> None:
        """Nobody will write the logs of this guest any more."""
        self._send({"do": "end", "key": key})

    def flush(self, key: str, then: Callable[[], None]) -> None:
        """Call `then` when all that has been written up to now is in the logs, or as much as can be."""
        self._flushing[key] = then
        self._send({"do": "flush", "key": key})

    def _send(self, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(message, fds)
        except OSError:
            return  # it has died; `_read` sees that and the next worker is told everything

    def _read(self) -> None:
        try:
            alive = self._channel.fill()
        except OSError:
            alive = False
        while (taken := self._channel.take()) is not None:
            message, fds = taken
            if fds:
                self._ordered -= 1
                self._networks.extend(fds)
            elif "closed" in message:
                self._forget(message["closed"])
            elif "flushed" in message:
                self._flushed(message["flushed"])
        if not alive:
            self._restart()

    def _forget(self, key: str) -> None:
        """All has been moved. A quick guest may have ended before its start was told: its ends are wanted then."""
        found = self._outputs.pop(key, None)
        if found is not None and found[1].told:
            found[1].close()

    def _flushed(self, key: str) -> None:
        then = self._flushing.pop(key, None)
        if then is not None:
            then()

    def _restart(self) -> None:
        self._watch(self._channel.fileno(), None)
        self._channel.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._start()
        for key, (state_dir, output) in list(self._outputs.items()):
            self.add(key, state_dir, output, self.logs_of(state_dir, output))
        for key, console in self._consoles.items():
            self._send({"do": "console", "key": key}, (console,))
        for key in self._flushing:
            self._send({"do": "flush", "key": key})


def _close_all_but(keep: int) -> None:
    """The worker holds nothing of the launcher's but its own connection (and 0 to 2)."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _waiting(pipe: int) -> int:
    """Bytes that lie in a pipe."""
    count = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)
