"""What a new daemon finds, and what it makes of it: running guests go on, ended ones are told, half-made ones vanish.

The truth is on the disk (`guests/`, journals, exit.json), with the launcher (who runs) and in the kernel (control
groups). This runs once, before the daemon listens, so nothing else changes any of it meanwhile.
"""

from __future__ import annotations

import logging
from typing import Any

from swiftlet.guest import qemu
from swiftlet.linux import cgroup
from swiftlet.model.error import SwiftletError
from swiftlet.model.instance import Instance
from swiftlet.node import record
from swiftlet.node.groups import end_groups
from swiftlet.node.guests import Guests
from swiftlet.node.journal import Journal, read_journal
from swiftlet.node.losses import bury, kill_stranger
from swiftlet.node.network import Attached
from swiftlet.node.prepare import read_bundle
from swiftlet.node.ready import let_go
from swiftlet.node.record import Guest
from swiftlet.node.snapshots import go_on, is_saving
from swiftlet.node.wire import close_all

log = logging.getLogger("swiftlet.adopt")

CUT_OFF = "its start was cut off"


async def adopt(guests: Guests, instance: Instance) -> dict[str, tuple[str, Attached]]:
    """Take over all that is there. Returns id -> (name, place on the bridge) of the guests that run."""
    for grave in guests.names.graves():
        guests.delete_later(grave)
    running = await _running(guests)
    names = guests.names.all_names()
    for id_ in guests.names.all_guests():
        try:
            await _adopt_one(guests, id_, names.get(id_, ""), running.get(id_))
        except (OSError, SwiftletError) as error:
            log.error("guest %s: %s", id_, error)
    for id_, name in names.items():
        if id_ not in guests.by_id:
            guests.names.release(name, id_)
    await _end_strangers(guests, instance, set(running))
    guests.preparer.keep_ranges({guest.userns for guest in guests.by_id.values() if guest.userns})
    return {
        guest.id: (guest.name, guest.attached)
        for guest in guests.by_id.values()
        if guest.is_running and guest.attached is not None
    }


async def _running(guests: Guests) -> dict[str, dict[str, Any]]:
    """Who runs, by the launcher; nobody when there is none.

    Raises LaunchError when there is one that does not answer: its guests must not be taken for dead.
    """
    try:
        answer, fds = await guests.launcher.request("list", {})
    except SwiftletError as error:
        if guests.launcher.connected:
            raise
        log.error("%s", error)
        return {}
    close_all(fds)
    found: dict[str, dict[str, Any]] = answer["guests"]
    return found


async def _adopt_one(guests: Guests, id_: str, name: str, running: dict[str, Any] | None) -> None:
    folder = guests.names.folder(id_)
    journal = read_journal(id_, folder)
    guest = record.read_guest(id_, name, folder, journal)
    waits = running is not None and running.get("waits", False)  # a machine that was started ahead (`spares`)
    if guest is None or waits or journal.state in ("Generating", "Removed") or (not running and _never_ran(journal)):
        await _remove_half_made(guests, id_, name, guest)
        return
    if not name:
        guest.name = guests.names.claim("", id_)
    guests.add(guest)
    if running:
        _go_on(guest, running)
        if _is_looked_at(guest):
            await _remove_copy(guests, guest)
        elif guest.workload.kind == "vm":
            guests.spawn(_let_go_on(guests, guest))  # nobody waits for a monitor that may be hung
    else:
        await _not_running(guests, guest)


def _never_ran(journal: Journal) -> bool:
    """It was being created when the daemon went; a stopped guest that was to be started again is not that."""
    return journal.state in ("Generating", "Removed") or (
        journal.state == "Generated" and journal.last("Running") is None and journal.last("Stopped") is None
    )


def _go_on(guest: Guest, running: dict[str, Any]) -> None:
    """It runs; the journal may lack that, when the daemon went right after it had asked for the start."""
    guest.pid = int(running["pid"])
    guest.started_ns = int(running["started_ns"])
    guest.exit = None
    if guest.state == "Stopped":
        guest.journal.note("Generated", "found running")
    if guest.state in ("Generated", "Inserting"):
        guest.journal.note("Running", "found running")


def _is_looked_at(guest: Guest) -> bool:
    """Whether it is a profile's copy that is looked into: whoever did that has gone with his daemon."""
    bundle = read_bundle(guest.folder)
    return bundle is not None and bundle.machine is not None and qemu.DEBUGGER in bundle.machine.descriptors


async def _remove_copy(guests: Guests, guest: Guest) -> None:
    log.info("guest %s was looked into by an earlier daemon: removed", guest.name)
    guest.attached = None  # as for one that does not run
    await guests.remove(guest, force=True)


async def _let_go_on(guests: Guests, guest: Guest) -> None:
    """Let a machine and its workload go on, if an earlier daemon was killed while it saved it."""
    try:
        if is_saving(guest):
            await go_on(guest)
        await let_go(guest, guests.launcher)  # last: it is told the time, which is to be right when it hears it
    except (OSError, SwiftletError) as error:
        log.error("guest %s stands still, since an earlier daemon was killed while it saved it: %s", guest.name, error)


async def _not_running(guests: Guests, guest: Guest) -> None:
    """It does not run. What it held is swept as a whole: its address, by `network`, since no running guest has it."""
    guest.attached = None
    if guest.state == "Generated" and guest.exit is None:
        guest.journal.note("Stopped", CUT_OFF)
    elif guest.state == "Generated":
        guest.journal.note("Running", "found ended")
    if guest.is_running:
        await bury(guests, guest)
    elif guest.workload.remove:
        await guests.remove(guest, force=False)


async def _remove_half_made(guests: Guests, id_: str, name: str, guest: Guest | None) -> None:
    log.info("guest %s was being made: removed", name or id_)
    if guest is not None:
        end_groups(guest.groups)
        if guest.userns:
            guests.preparer.release_range(guest.userns)
    if name:
        guests.names.release(name, id_)
    guests.delete_later(guests.names.put_away(id_))


async def _end_strangers(guests: Guests, instance: Instance, running: set[str]) -> None:
    """Guests that run without a folder, and control groups without a guest: what is left of roots that were deleted."""
    for id_ in running - set(guests.by_id):
        await kill_stranger(guests, id_)
    try:
        groups = cgroup.groups_below(guests.preparer.cgroups, instance.cgroup)
    except (OSError, SwiftletError) as error:
        log.warning("%s", error)
        return
    for id_, paths in groups.items():
        if id_ not in running:
            end_groups(paths)
