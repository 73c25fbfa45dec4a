"""The launcher's death, and what differs between who runs by its word and who does by ours.

If it died, what it started is killed, since nobody can tell any more how that would end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterable

from swiftlet.model.error import SwiftletError
from swiftlet.node import record
from swiftlet.node.groups import end_groups
from swiftlet.node.guests import Guests
from swiftlet.node.record import Guest
from swiftlet.node.wire import close_all

log = logging.getLogger("swiftlet.losses")

LOST = "lost with its launcher"


def lost(guests: Guests) -> None:
    """The connection to the launcher ended."""
    guests.spawn(_after_loss(guests, [guest for guest in guests.by_id.values() if guest.is_running]))


def look_again(guests: Guests) -> None:
    """The launcher answered a request of an earlier daemon: a guest that seemed to run may not."""
    guests.spawn(compare(guests))


async def compare(guests: Guests) -> None:
    """Ask the launcher who runs, and put right what is not as was thought."""
    begun, waited = set(guests.begun), guests.spares.waiting
    try:
        answer, fds = await guests.launcher.request("list", {})
    except SwiftletError as error:
        log.warning("%s", error)
        return
    close_all(fds)
    for guest in list(guests.by_id.values()):
        if guest.is_running and guest.id not in answer["guests"]:
            await bury(guests, guest)
    for number, exit_ in answer["exits"].items():
        guests.on_exit("", number, exit_)
    _lose_execs(guests, begun.difference(answer["execs"]))
    guests.spares.lose(waited.difference(answer["guests"]))
    for stranger in set(answer["guests"]) - set(guests.by_id) - guests.spares.ids:
        await kill_stranger(guests, stranger)


async def kill_stranger(guests: Guests, id_: str) -> None:
    """Kill what the launcher runs and nobody here has a record of."""
    log.warning("guest %s runs and has no record: killed", id_)
    with contextlib.suppress(SwiftletError):
        await guests.launcher.request("kill", {"id": id_})


async def bury(guests: Guests, guest: Guest) -> None:
    """Kill what is left of a guest that no launcher knows, and note how it ended."""
    usage = await asyncio.to_thread(end_groups, guest.groups)
    if not guest.is_running:
        return
    exit_ = record.read_exit(guest.folder)
    if exit_ is None:
        started = guest.started_ns or getattr(guest.journal.last("Running"), "time_ns", 0)
        exit_ = record.made_up_exit(128 + signal.SIGKILL, signal.SIGKILL, LOST, started, usage)
        record.write_exit(guest.folder, exit_)
    guests.stopped(guest, exit_)


async def _after_loss(guests: Guests, running: list[Guest]) -> None:
    if await guests.launcher.reconnect():
        await compare(guests)  # it had only been given another client
        return
    guests.spares.lose(guests.spares.waiting)
    for guest in running:
        await bury(guests, guest)
    _lose_execs(guests, guests.begun)
    try:
        await guests.launcher.connect()
    except SwiftletError as error:
        log.error("%s", error)


def _lose_execs(guests: Guests, numbers: Iterable[str]) -> None:
    """Commands of whose end nobody will tell any more: those who wait for it shall not do so for ever."""
    for number in list(numbers):
        guests.on_exit("", number, record.made_up_exit(128 + signal.SIGKILL, signal.SIGKILL, LOST, 0))
