"""A guest in the foreground: its output copied to ours, our signals and keys to it, its exit code as ours.

One poll loop and no thread. The guest's output comes straight from the launcher's pipes, so the daemon may
die meanwhile: the loop connects to the next one and waits there for the exit. As with docker, losing our
standard output ends this command (141) and not the guest. What is started is the caller's business.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from swiftlet.cli.signals import Forwarding, Interrupted
from swiftlet.model.error import HostError, InputError, NotFoundError, SwiftletError, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from swiftlet.api.client import Client
    from swiftlet.cli.feed import Feed

CHUNK = 65536

DRAIN_SECONDS = 2.0
"""How long a silent output is still read after the exit: a process that left the guest's sight may hold it."""

RECONNECTS = 5


def follow(
    client: Client,
    method: str,
    parameters: dict[str, Any],
    *,
    interactive: bool = False,
    tty: bool = False,
    quiet: bool = False,
) -> int:
    """Make a call that starts something and stay with it until it ends; returns its exit code (0 when detached).

    interactive: our standard input goes to the guest, with tty as the keys of its console.
    """
    from swiftlet.cli.progress import Progress

    if interactive and tty and not os.isatty(0):
        raise InputError("standard input is not a terminal", "leave --tty (the t of -it) out")
    with Forwarding() as signals:
        given, fill = _input(interactive and not tty)
        with Progress(quiet=quiet) as progress:
            client.begin(method, parameters, given)
            while True:
                answer, received, _ = client.receive()
                if "started" in answer:
                    break
                if "exited" in answer:
                    return int(answer["exited"]["code"])
                progress.show(answer.get("progress"))
        if not received:
            raise WireError(f"the node daemon sent no descriptors with its answer to {method}")
        if fill >= 0:
            os.close(given[0])
        signals.pidfd = received[0]
        if method != "Exec" and answer["started"].get("kind", "container") != "container":
            signals.send = _sender(client, answer["started"]["id"])
        return Foreground(client, answer["started"], received, signals, method).run(interactive and tty, fill)


def _sender(client: Client, guest: str) -> Callable[[int], None]:
    """Has the daemon signal a guest, over a connection of its own: the other is busy with the guest."""

    def send(number: int) -> None:
        with type(client)(client.instance, daemon=None) as other:
            other.call("Kill", {"guest": guest, "signal": str(int(number))})

    return send


def _input(wanted: bool) -> tuple[tuple[int, ...], int]:
    """(what is sent along as the guest's standard input, the end that we fill or -1)."""
    if not wanted:
        return (), -1
    from swiftlet.cli.feed import open_input

    given, fill = open_input()
    return (given,), fill


class Foreground:
    """One running guest and the ends that belong to it.

    received: its pidfd; then two pipes, or a console and a pipe of what is written to it. The console of an exec comes
    alone: it has no log, and nobody else reads it.
    """

    def __init__(
        self, client: Client, started: dict[str, Any], received: tuple[int, ...], signals: Forwarding, method: str
    ) -> None:
        self.client = client
        self.guest = str(started["id"])
        self.name = str(started.get("name") or self.guest[:12])
        self.pidfd = received[0]
        ends = list(received[1:])
        self.console = ends[0] if ends and os.isatty(ends[0]) else None
        if self.console is not None and len(ends) > 1:
            del ends[0]
        self.outputs = dict(zip(ends, (1, 2), strict=False))
        self.signals = signals
        self.waits = method != "Exec"
        self.exit: dict[str, Any] | None = None
        self.feed: Feed | None = None
        self.reconnects = 0
        self.poll = select.poll()

    def run(self, keys: bool, fill: int) -> int:
        """Copy until the guest has ended; returns its exit code.

        keys: our standard input is typed into the console. fill: else, a pipe's end that it goes into, or -1.
        """
        for fd in (self.client.channel.fileno(), *self.outputs):
            self.poll.register(fd, select.POLLIN)
        if fill >= 0:
            from swiftlet.cli.feed import Feed

            self.feed = Feed(self.poll, fill, owned=True)
        if self.console is None:
            return self._run()
        from swiftlet.cli.feed import Feed
        from swiftlet.cli.terminal import DetachKeys, RawMode

        self._mind_size(self.console)
        with RawMode(0 if keys else None):
            if keys:
                awaited = select.POLLIN if self.console in self.outputs else 0
                self.feed = Feed(self.poll, self.console, awaited=awaited, detach=DetachKeys())
            code = self._run()
        if self._detached():  # out of raw mode, where a new line would not go back to the first column
            sys.stderr.write("\ndetached\n")
        return code

    def _mind_size(self, console: int) -> None:
        from swiftlet.cli.terminal import copy_size, is_terminal

        screen = next((fd for fd in (0, 1, 2) if is_terminal(fd)), None)
        if screen is not None:
            copy_size(screen, console)
            self.signals.resized = lambda: copy_size(screen, console)

    def _run(self) -> int:
        try:
            self._take_answers()
            self._loop()
        except Interrupted as interrupt:
            hint = f"end it with: swiftlet kill {self.name}"
            sys.stderr.write(f"swiftlet: {self.name} does not answer Ctrl-C and goes on running\n  hint: {hint}\n")
            return 128 + interrupt.number
        finally:
            self.signals.resized = None
        return 0 if self._detached() else self._code()

    def _detached(self) -> bool:
        return self.feed is not None and self.feed.detached

    def _loop(self) -> None:
        while not self._detached() and (self.exit is None or self.outputs):
            events = self.poll.poll(DRAIN_SECONDS * 1000 if self.exit is not None else None)
            if not events and self.exit is not None:
                return
            for fd, event in events:
                self._serve(fd, event)

    def _serve(self, fd: int, event: int) -> None:
        feed = self.feed
        if fd in self.outputs:
            if feed and event & select.POLLOUT:
                feed.send()
            if event & ~select.POLLOUT:
                self._copy(fd)
        elif feed and fd == 0:
            feed.read()
        elif feed and fd == feed.target:
            if event & (select.POLLERR | select.POLLHUP):
                feed.drop()
            else:
                feed.send()
        elif self.exit is None:
            self._read_answers(fd)

    def _copy(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # what a console says when its last program has gone
                raise
            data = b""
        if data:
            write_all(self.outputs[fd], data)
        else:
            if self.feed and self.feed.target == fd:
                self.feed.drop()
            self.poll.unregister(fd)
            del self.outputs[fd]
            os.close(fd)

    def _read_answers(self, fd: int) -> None:
        if self.client.fill():
            self._take_answers()
        else:
            self.poll.unregister(fd)
            self._ask_again()

    def _take_answers(self) -> None:
        """Take what has come. A guest that the daemon does not know any more was removed: the kernel is asked."""
        known = True
        try:
            while self.exit is None and (message := self.client.take()) is not None:
                self.exit = message[0].get("exited")
        except NotFoundError:
            known = False
        if self.exit is not None or not known:
            self.poll.unregister(self.client.channel.fileno())
        if not known:
            self.exit = self._exit_by_kernel()

    def _ask_again(self) -> None:
        """The daemon died: wait for the guest at the next one.

        Where there is none to be had, or for an exec, which no daemon knows any more, the kernel is asked.
        """
        while self.waits and self.reconnects < RECONNECTS:
            self.reconnects += 1
            try:
                self.client.begin("Wait", {"guest": self.guest}, more=False)
            except HostError:
                break
            except WireError:
                time.sleep(0.05 * self.reconnects)
            else:
                self.poll.register(self.client.channel.fileno(), select.POLLIN)
                return
        self.exit = self._exit_by_kernel()

    def _exit_by_kernel(self) -> dict[str, Any]:
        from swiftlet.linux.pidfd import exit_status, has_ended

        while self.outputs and not has_ended(self.pidfd):
            for fd, event in self.poll.poll(100):
                self._serve(fd, event)
        has_ended(self.pidfd, 1 << 20)
        for _ in range(100):
            status = exit_status(self.pidfd)
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                return {"code": code if code >= 0 else 128 - code}
            time.sleep(0.01)  # ended, and not yet reaped by its parent
        raise WireError(f"{self.name} has ended; its exit code was lost with the node daemon")

    def _code(self) -> int:
        ended = self.exit or {}
        if ended.get("oom"):
            sys.stderr.write(f"swiftlet: {self.name} ran out of memory and was killed\n  hint: raise --memory\n")
        code = ended.get("code")
        if not isinstance(code, int):
            raise SwiftletError(f"{self.name} has ended and the node daemon does not say how")
        return code


def write_all(fd: int, data: bytes) -> None:
    """Write everything to a descriptor of ours. A reader or terminal that has gone raises BrokenPipeError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody who shares our output made it non-blocking
            waiting = select.poll()
            waiting.register(fd, select.POLLOUT)
            waiting.poll()
        except OSError as error:
            if error.errno == errno.EIO:
                raise BrokenPipeError(errno.EPIPE, "the terminal has gone") from None
            raise
