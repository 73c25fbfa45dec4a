"""`swiftlet logs`: what a guest wrote, stdout to stdout and stderr to stderr, in the order it was written."""

from __future__ import annotations

import select
import time

from swiftlet.api.client import Client
from swiftlet.cli.foreground import write_all
from swiftlet.cli.logfile import Chunk, Log, tail
from swiftlet.cli.options import Command, Option, Parsed
from swiftlet.model.error import InputError, NotFoundError, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LOOK_SECONDS = 0.05
"""How often -f looks for more; log files cannot be polled."""

DEATHS = 10
"""Daemons that may die one after the other before -f gives up."""

LAG_SECONDS = 0.3
"""How long the log worker may need for the last output after a guest's end."""


def logs(parsed: Parsed) -> int:
    """Print a log; with -f until the guest has ended."""
    lines = _lines(parsed.one("tail", "all"))
    since = since_ns(parsed.one("since")) if parsed.on("since") else 0
    with Client() as client:
        guest = parsed.arguments[0]
        answer, fds = client.call("Logs", {"guest": guest})
        if len(fds) != 3:
            raise WireError(f"the node daemon sent {len(fds)} descriptors for the log of {guest}, not 3")
        log = Log(*fds)
        printer = Printer(log, since, timestamps=parsed.on("timestamps"))
        alive = answer.get("state") in ("Generated", "Running", "Inserting")
        printer.show(log.chunks() if lines is None else tail(log, lines, alive=alive))
        if parsed.on("follow") and alive:
            follow(client, guest, log, printer)
        printer.show(log.rest())
        log.close()
    return 0


def follow(client: Client, guest: str, log: Log, printer: Printer) -> None:
    """Print what is added until the daemon says that the guest has ended, and what comes shortly after."""
    end = End(client, guest)
    while not end.came():
        printer.show(log.chunks())
    deadline = time.monotonic() + LAG_SECONDS
    while time.monotonic() < deadline:
        if printer.show(log.chunks()):
            deadline = time.monotonic() + LAG_SECONDS
        time.sleep(LOOK_SECONDS)


class End:
    """The end of a guest, asked for at the daemon and, when that has died, at the next one."""

    def __init__(self, client: Client, guest: str) -> None:
        self.client = client
        self.guest = guest
        self._asked = False
        self._deaths = 0

    def came(self) -> bool:
        """Whether the guest has ended, waiting `LOOK_SECONDS` for it."""
        try:
            if not self._asked:
                self.client.begin("Wait", {"guest": self.guest}, more=False)
                self._asked = True
            ready, _, _ = select.select([self.client.channel.fileno()], [], [], LOOK_SECONDS)
            if not ready or self.client.fill():
                return self.client.take() is not None
        except NotFoundError:
            return True
        except WireError:
            if self._deaths > DEATHS:
                raise
        self._asked = False
        self._deaths += 1
        time.sleep(LOOK_SECONDS)
        return False


class Printer:
    """Writes chunks to our standard output and error, with the time at the beginning of each line if asked."""

    def __init__(self, log: Log, since: int, *, timestamps: bool) -> None:
        self.log = log
        self.since = since
        self.timestamps = timestamps
        self._middle = {1: False, 2: False}

    def show(self, chunks: Iterable[Chunk]) -> int:
        """Write chunks not older than `since`; returns how many there were."""
        count = 0
        for chunk in chunks:
            count += 1
            if chunk.time >= self.since:
                for data in self.log.data(chunk):
                    write_all(chunk.stream, self._stamped(chunk, data) if self.timestamps else data)
        return count

    def _stamped(self, chunk: Chunk, data: bytes) -> bytes:
        stamp = timestamp(chunk.time)
        lines = data.split(b"\n")
        middle = self._middle[chunk.stream]
        self._middle[chunk.stream] = bool(lines[-1])
        stamped = [stamp + line for line in lines[1:-1]] + (
            [stamp + lines[-1] if lines[-1] else b""] * (len(lines) > 1)
        )
        return b"\n".join([lines[0] if middle else stamp + lines[0], *stamped])


def timestamp(when_ns: int) -> bytes:
    """RFC 3339 in UTC with nanoseconds, and a space; a time that is not known is a dash."""
    if not when_ns:
        return b"- "
    seconds, fraction = divmod(when_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z ".encode()


def since_ns(text: str) -> int:
    """A time as nanoseconds of the epoch: `10m` or `1h30m` ago, `2024-05-01T12:00:00`, or seconds of the epoch."""
    import re
    from datetime import datetime

    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        factors = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
        return int((time.time() - sum(float(number) * factors[unit] for number, unit in parts)) * 1e9)
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return int(float(text) * 1e9)
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except (ValueError, OverflowError):
        raise InputError(f"--since: {text!r} is not a time", "write 10m, 2h, or 2024-05-01T12:00:00") from None


def _lines(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit():
        raise InputError(f"--tail: {text!r} is not a number of lines", "write a number or all")
    return int(text)


COMMANDS = (
    Command(
        "logs",
        "Show what a guest wrote.",
        logs,
        usage="[OPTIONS] GUEST",
        arguments=(1, 1),
        options=(
            Option("-f --follow", "go on until the guest has ended"),
            Option("-n --tail", "the last lines only (all)", "LINES"),
            Option("-t --timestamps", "put the time before each line"),
            Option("--since", "only what was written since: 10m, 2h, 2024-05-01T12:00:00", "TIME"),
        ),
        examples=("swiftlet logs -f cache", "swiftlet logs --tail 20 -t web", "swiftlet logs --since 10m web"),
    ),
)
