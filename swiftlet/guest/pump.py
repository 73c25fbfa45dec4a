"""The log worker: moves what guests write to their logs, and to a command that is attached. Child of the launcher.

It may be killed at any moment: the launcher holds every descriptor too and starts another. Bytes go from a
guest's pipe to its log by one splice, so a chunk is either still in the pipe or in the log, never lost in
between; an attached command is given a copy by tee before that. A slow attached command slows its guest, as a
pipe does, and nobody else. When the launcher is killed it goes on until its guests have closed their outputs.
It also makes empty network namespaces in advance, 0.3 ms each that no start waits for.
Imports the standard library and `swiftlet.linux` only.
"""

from __future__ import annotations

import errno
import os
import select
import time

from swiftlet.guest import console
from swiftlet.guest.logindex import Index
from swiftlet.guest.process import complain
from swiftlet.linux import inotify, namespace, syscall
from swiftlet.linux.channel import Channel
from swiftlet.linux.lean import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHUNK = 1 << 16


class Stream:
    """One output of one guest: where it comes from, its log, and at most one attached command."""

    def __init__(self, pump: Pump, key: str, number: int, source: int, index: Index, terminal: bool) -> None:
        self.pump = pump
        self.key = key
        self.number = number
        self.source = source
        self.log = index.logs[number]
        self.index = index
        self.terminal = terminal
        self.attached = -1
        self.pending = b""
        self.ended = False

    @property
    def offset(self) -> int:
        """Bytes in the log."""
        return self.index.sizes[self.number]

    def attach(self, fd: int) -> None:
        """Give everything from now on to `fd` as well; an earlier attached command sees the end of its stream."""
        if self.ended:
            os.close(fd)
            return
        self.detach()
        os.set_blocking(fd, False)
        self.attached = fd

    def detach(self) -> None:
        """Close the attached end, if any, and go on reading."""
        if self.attached >= 0:
            self.pump.watch(self.attached, None)
            os.close(self.attached)
            self.attached = -1
            self.pending = b""
            self.pump.watch(self.source, self)

    def move(self) -> None:
        """The source has something: move one chunk."""
        try:
            if self.terminal:
                self._move_terminal()
            else:
                self._move_pipe()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose last user has gone says EIO
                raise
            self.end()

    def _move_pipe(self) -> None:
        count = CHUNK
        if self.attached >= 0:
            try:
                count = syscall.tee(self.source, self.attached, CHUNK)
            except BlockingIOError:
                return self._wait_for_attached()
            except BrokenPipeError:
                return self.detach()
            if count == 0:
                return self.end()
        try:
            moved = os.splice(self.source, self.log, count, offset_dst=self.offset)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            os.read(self.source, count)  # a full disk must not stop the guest
            return None
        if moved == 0:
            return self.end()
        return self._record(moved)

    def _move_terminal(self) -> None:
        data = os.read(self.source, CHUNK)
        if not data:
            return self.end()
        try:
            written = os.pwrite(self.log, data, self.offset)
        except OSError:
            written = 0
        self._record(written)
        if self.attached >= 0:
            self.pending += data
            self._write_pending()
        return None

    def _write_pending(self) -> None:
        try:
            self.pending = self.pending[os.write(self.attached, self.pending) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return self.detach()
        if self.pending:
            self._wait_for_attached()
        return None

    def _wait_for_attached(self) -> None:
        """The attached command does not read: leave the source alone until it does."""
        self.pump.watch(self.source, None)
        self.pump.watch(self.attached, self, select.EPOLLOUT)

    def attached_ready(self) -> None:
        """The attached command reads again (or has gone)."""
        self.pump.watch(self.attached, None)
        if self.pending:
            self._write_pending()
        if not self.pending:
            self.pump.watch(self.source, self)

    def _record(self, count: int) -> None:
        self.index.note(time.time_ns(), count, self.number)

    def end(self) -> None:
        """The guest has closed this output for good."""
        if self.ended:
            return
        self.ended = True
        if self.attached >= 0:
            self.pump.watch(self.attached, None)
            os.close(self.attached)
        self._close()
        self.source = self.log = self.attached = -1  # these numbers are soon somebody else's
        self.pump.stream_ended(self)

    def _close(self) -> None:
        """Give up where it comes from and its log."""
        self.pump.watch(self.source, None)
        for fd in (self.source, self.log):
            os.close(fd)


class Followed(Stream):
    """A log that its guest's machine writes itself: what is added is noted, and copied to an attached command.

    A slow attached command slows nobody: it reads from the log, at its own pace.
    """

    def __init__(self, pump: Pump, key: str, number: int, index: Index) -> None:
        super().__init__(pump, key, number, -1, index, False)
        self.watch = inotify.watch_writes(pump.inotify, self.log)
        self.copied = self.offset
        self.last = False

    def attach(self, fd: int) -> None:
        """See `Stream.attach`."""
        super().attach(fd)
        self.copied = self.offset

    def detach(self) -> None:
        """Close the attached end, if any."""
        if self.attached >= 0:
            self.pump.watch(self.attached, None)
            os.close(self.attached)
            self.attached = -1
            if self.last:
                self.end()

    def move(self) -> None:
        """Note what the log has grown by, and copy it."""
        grown = os.fstat(self.log).st_size - self.offset
        if grown > 0:
            self._record(grown)
        self._copy()

    def _copy(self) -> None:
        try:
            while self.attached >= 0 and self.copied < self.offset:
                moved = os.sendfile(self.attached, self.log, self.copied, min(CHUNK, self.offset - self.copied))
                self.copied += moved
                if not moved:
                    break  # its beginning was given up meanwhile
        except BlockingIOError:
            self.pump.watch(self.attached, self, select.EPOLLOUT)
        except BrokenPipeError:
            self.detach()

    def attached_ready(self) -> None:
        """The attached command reads again, or has gone."""
        self.pump.watch(self.attached, None)
        self._copy()
        if self.last and (self.attached < 0 or self.copied >= self.offset):
            self.end()

    def _close(self) -> None:
        inotify.unwatch(self.pump.inotify, self.watch)
        self.pump.followed.pop(self.watch, None)
        os.close(self.log)

    def finish(self) -> None:
        """The machine has ended: go on only until the attached command has everything."""
        self.move()
        self.last = True
        if not self.ended and (self.attached < 0 or self.copied >= self.offset):
            self.end()


class Pump:
    """All streams of all guests, and the connection to the launcher."""

    def __init__(self, control: Channel) -> None:
        self.control = control
        self.epoll = select.epoll()
        self.watched: dict[int, Stream] = {}
        self.guests: dict[str, list[Stream]] = {}
        self.alone = False
        self.inotify = inotify.open_queue()
        self.followed: dict[int, Followed] = {}
        self.consoles: dict[int, tuple[str, int]] = {}
        self.epoll.register(self.inotify, select.EPOLLIN)
        self.epoll.register(control.fileno(), select.EPOLLIN)

    def watch(self, fd: int, stream: Stream | None, events: int = select.EPOLLIN) -> None:
        """Wait for `fd` on behalf of `stream`, or no longer (None)."""
        if fd in self.watched:
            self.epoll.unregister(fd)
            del self.watched[fd]
        if stream is not None:
            self.epoll.register(fd, events)
            self.watched[fd] = stream

    def serve(self) -> None:
        """Work until the launcher has gone and every guest that it had has closed its outputs."""
        while not (self.alone and not self.guests):
            for fd, _ in self.epoll.poll():
                stream = self.watched.get(fd)
                if stream is not None:
                    self._ready(fd, stream)
                elif fd == self.inotify:
                    self._grown()
                elif fd == self.control.fileno() and not self._commands():
                    self._be_alone()

    def _grown(self) -> None:
        for number in inotify.events(self.inotify):
            stream = self.followed.get(number)
            if stream is not None and not stream.ended:
                stream.move()
            elif number in self.consoles:
                self._cut(self.consoles[number][1])

    def _watch_console(self, key: str, fd: int) -> None:
        """A console that cannot be watched is let grow: all other guests' logs are worth more."""
        try:
            self.consoles[inotify.watch_writes(self.inotify, fd)] = key, fd
        except OSError as error:
            complain(f"log worker: console of {key}: {error}")
            os.close(fd)
        else:
            self._cut(fd)

    @staticmethod
    def _cut(fd: int) -> None:
        try:
            console.cut(fd)
        except OSError as error:
            complain(f"log worker: console: {error}")

    def _forget_console(self, key: str) -> None:
        for number, (each, fd) in list(self.consoles.items()):
            if each == key:
                del self.consoles[number]
                inotify.unwatch(self.inotify, number)
                os.close(fd)

    def _be_alone(self) -> None:
        """The launcher has gone. What it had started may go on writing to pipes, but machines end with it."""
        self.alone = True
        self.epoll.unregister(self.control.fileno())
        for stream in list(self.followed.values()):
            stream.finish()

    @staticmethod
    def _ready(fd: int, stream: Stream) -> None:
        if fd == stream.source:
            stream.move()
        else:
            stream.attached_ready()

    def _commands(self) -> bool:
        try:
            if not self.control.fill():
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        while (taken := self.control.take()) is not None:
            self._command(*taken)
        return True

    def _command(self, message: dict[str, Any], fds: tuple[int, ...]) -> None:
        key = message.get("key", "")
        if message["do"] == "network":
            fd = namespace.network_namespace()
            self._tell({"network": True}, (fd,))
            os.close(fd)
        elif message["do"] == "add":
            count = len(fds) - message["attached"]
            if message["followed"]:
                self._follow(key, fds[:count])
            else:
                self._add(key, message["terminal"], fds[:count])
            self._attach(key, fds[count:])
        elif message["do"] == "attach":
            self._attach(key, fds)
        elif message["do"] == "end":
            for stream in list(self.followed.values()):
                if stream.key == key:
                    stream.finish()
        elif message["do"] == "console":
            self._watch_console(key, *fds)
        elif message["do"] == "forget":
            self._forget_console(key)
        elif message["do"] == "flush":
            self._flush(key)
            self._tell({"flushed": key})

    def _add(self, key: str, terminal: bool, fds: tuple[int, ...]) -> None:
        *pairs, last = fds
        half = len(pairs) // 2
        index = Index(last, dict(enumerate(pairs[half:], 1)))
        self.guests[key] = [
            Stream(self, key, number, source, index, terminal) for number, source in enumerate(pairs[:half], 1)
        ]
        for stream in self.guests[key]:
            os.set_blocking(stream.source, False)
            self.watch(stream.source, stream)

    def _follow(self, key: str, fds: tuple[int, ...]) -> None:
        *logs, last = fds
        index = Index(last, dict(enumerate(logs, 1)))
        self.guests[key] = []
        for number in index.logs:
            stream = Followed(self, key, number, index)
            self.followed[stream.watch] = stream
            self.guests[key].append(stream)
            stream.move()

    def _attach(self, key: str, fds: tuple[int, ...]) -> None:
        streams = self.guests.get(key, [])
        for stream, fd in zip(streams, fds, strict=False):
            stream.attach(fd)
        for fd in fds[len(streams) :]:
            os.close(fd)

    def _flush(self, key: str) -> None:
        """Move what is there already, as far as an attached command does not hold it up."""
        for stream in list(self.guests.get(key, [])):
            for _ in range(64):
                if stream.ended or (stream.source not in self.watched and not isinstance(stream, Followed)):
                    break
                before = stream.offset
                stream.move()
                if not stream.ended and stream.offset == before:
                    break

    def stream_ended(self, stream: Stream) -> None:
        """Tell the launcher when a guest's last stream has ended."""
        streams = self.guests.get(stream.key, [])
        if all(each.ended for each in streams):
            self.guests.pop(stream.key, None)
            stream.index.close()
            self._tell({"closed": stream.key})

    def _tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Tell the launcher, which may have been killed."""
        try:
            self.control.send(message, fds)
        except OSError:
            return


def main(fd: int) -> None:
    """Serve the launcher at the other end of socket `fd` until it has gone."""
    syscall.prctl(syscall.PR_SET_NAME, b"swiftlet-logs")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    sock.setblocking(True)
    try:
        Pump(Channel(sock)).serve()
    except BaseException as error:
        complain(f"log worker: {error!r}")
        os._exit(1)
    os._exit(0)
