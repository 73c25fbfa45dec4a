"""A further command in a running guest, and a further component in it: `Exec`, `Attach` and `Insert`.

What the command may do follows from the guest's own bundle; a user is looked up in the accounts that the guest has
now, which are its own to change.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from swiftlet.guest.account import account_of
from swiftlet.linux import syscall
from swiftlet.model.bundle import Bundle
from swiftlet.model.error import ConflictError, InputError, NotFoundError
from swiftlet.node import plugs
from swiftlet.node.guests import ATTEMPTS, Guests, Progress
from swiftlet.node.machines import command_orders
from swiftlet.node.prepare import guest_file, read_bundle
from swiftlet.node.record import Exit, Guest
from swiftlet.node.volumes import INSERTED, tree_mount
from swiftlet.node.wire import close_all
from swiftlet.node.workers import Workers


class Command(NamedTuple):
    """What is to be run in a guest. user "": the guest's own; workdir "": the guest's own."""

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str
    tty: bool


class Running(NamedTuple):
    """A command that runs in a guest. fds: its pidfd and attached ends, the caller's to close."""

    pid: int
    fds: tuple[int, ...]
    ended: asyncio.Future[Exit]


async def execute(guests: Guests, guest: Guest, command: Command, *, attach: bool, stdin: int = -1) -> Running:
    """Run a command in a guest. Not to be cancelled. Raises ConflictError, InputError, LaunchError."""
    if guest.workload.kind == "unikernel":
        raise InputError(
            f"guest {guest.name} is a unikernel and has no commands to run",
            "call its tasks: swiftlet unikernel call HOST:PORT TASK",
        )
    bundle = _running_bundle(guest)
    number = secrets.token_hex(8)
    request = {**msgspec.to_builtins(bundle), **_request_of(guests, guest, bundle, command), "exec": number}
    port = await plugs.plug(guest, f"exec-{number}") if bundle.machine is not None else None
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        roles = _roles(command, attach, stdin, null)
        if port is not None:
            request |= {"orders": command_orders(bundle, request), "port": port.number}
            roles.append(("port", port.fd))
        request["roles"] = [role for role, _ in roles]
        ended = guests.execs[number] = asyncio.get_running_loop().create_future()
        reply, fds = await guests.launcher.request("exec", request, tuple(fd for _, fd in roles))
    except BaseException:
        guests.execs.pop(number, None)
        if port is not None:
            guests.spawn(plugs.unplug(guest, port))
        raise
    finally:
        os.close(null)
        if port is not None:
            plugs.close(port)
    if port is not None:
        unplugged = port
        ended.add_done_callback(lambda _: guests.spawn(plugs.unplug(guest, unplugged)))
    if not ended.done():
        guests.begun.add(number)
    if not attach:
        close_all(fds[1:])
        fds = fds[:1]
    return Running(int(reply["pid"]), fds, ended)


def _roles(command: Command, attach: bool, stdin: int, null: int) -> list[tuple[str, int]]:
    """A detached command writes to nowhere: nobody would read its pipes, and it would block on them."""
    roles = [("stdin", stdin)] if stdin >= 0 else []
    if not attach and not command.tty:
        roles += [("stdout", null), ("stderr", null)]
    return roles


def _request_of(guests: Guests, guest: Guest, bundle: Bundle, command: Command) -> dict[str, Any]:
    if not command.argv or not command.argv[0]:
        raise InputError("no command was given", f"swiftlet exec {guest.name} -- COMMAND")
    env = {**bundle.env, **({"TERM": "xterm"} if command.tty and "TERM" not in bundle.env else {}), **command.env}
    found: dict[str, Any] = {
        "argv": list(command.argv),
        "env": env,
        "cwd": command.workdir or bundle.cwd,
        "tty": command.tty,
    }
    if command.user:
        passwd, group = _account_files(guests, guest, bundle)
        account = account_of(command.user, passwd, group)
        found |= {"uid": account.uid, "gid": account.gid, "groups": list(account.groups)}
        if "HOME" not in command.env:
            env["HOME"] = account.home
    return found


def _account_files(guests: Guests, guest: Guest, bundle: Bundle) -> tuple[str, str]:
    passwd, group = guests.preparer.account_files(bundle.rootfs)
    return guest_file(guest.folder, "/etc/passwd") or passwd, guest_file(guest.folder, "/etc/group") or group


def _running_bundle(guest: Guest) -> Bundle:
    if guest.state != "Running":
        raise ConflictError(f"guest {guest.name} is {guest.state}, not Running")
    bundle = read_bundle(guest.folder)
    if bundle is None:
        raise ConflictError(f"guest {guest.name} has lost its bundle.json", "stop and remove it")
    return bundle


async def attach(guests: Guests, guest: Guest) -> tuple[int, ...]:
    """The pidfd and new ends of a guest's outputs. Not to be cancelled. Raises ConflictError."""
    if not guest.is_running:
        raise ConflictError(f"guest {guest.name} is {guest.state}, not Running", f"swiftlet start -a {guest.name}")
    _, pidfd = await guests.launcher.request("pidfd", {"id": guest.id})
    try:
        _, ends = await guests.launcher.request("attach", {"id": guest.id})
    except BaseException:
        close_all(pidfd)
        raise
    return (*pidfd, *ends)


async def insert(guests: Guests, workers: Workers, guest: Guest, template: str, progress: Progress) -> None:
    """Add a template's files to a running guest: those that it lacks, and nothing that it has is changed.

    Raises what resolving raises; ConflictError (not running, nothing new), LaunchError. The guest is as before then.
    """
    _running_bundle(guest)
    if "insert" not in guests.preparer.driver(guest.workload.kind).features:
        raise InputError(f"guests of kind {guest.workload.kind} take no components")
    for left in reversed(range(ATTEMPTS)):
        found = await workers.run("component", {"template": template}, progress)
        try:
            await guests.finish(_insert(guests, guest, template, found["closures"]), lambda _: ())
        except NotFoundError:  # collected just now
            if not left:
                raise
        else:
            break


async def _insert(guests: Guests, guest: Guest, template: str, closures: Sequence[dict[str, Any]]) -> None:
    async with guest.busy:
        bundle = _running_bundle(guest)
        guest.journal.enter("Inserting", template)
        outcome = f"{template} was not inserted"
        try:
            await _insert_all(guests, guest, bundle, closures)
            outcome = f"{template} was inserted"
        finally:
            if guest.state == "Inserting":
                guest.journal.note("Running", outcome)


async def _insert_all(guests: Guests, guest: Guest, bundle: Bundle, closures: Sequence[dict[str, Any]]) -> None:
    for closure in closures:
        digest = closure["digest"]
        place = f"{INSERTED}/{digest}"
        if digest in bundle.rootfs.trees or (place, True) in bundle.volumes:
            continue
        links = [(path, f"{place}{path}") for path in closure["paths"] if _lacks(guest, bundle, path)]
        kept = msgspec.structs.replace(bundle, volumes=(*bundle.volumes, (place, True)))
        guests.preparer.write(kept)  # first: what is mounted below must be a tree that stays
        try:
            await _insert_one(guests, bundle, digest, {"place": place, "links": links})
        except BaseException:
            guests.preparer.write(bundle)
            raise
        bundle = kept


async def _insert_one(guests: Guests, bundle: Bundle, digest: str, what: dict[str, Any]) -> None:
    tree = tree_mount(f"{os.path.dirname(bundle.rootfs.lowers[0])}/{digest}")
    try:
        request = {**msgspec.to_builtins(bundle), "exec": secrets.token_hex(8), **what}
        _, fds = await guests.launcher.request("insert", request, (tree,))
        close_all(fds)
    finally:
        os.close(tree)


def _lacks(guest: Guest, bundle: Bundle, path: str) -> bool:
    """Whether a guest has nothing at a path, neither from its templates nor of its own."""
    if any(os.path.lexists(f"{lower}{path}") for lower in bundle.rootfs.lowers):
        return False
    upper = os.open(f"{guest.folder}/upper", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(syscall.openat2(upper, path.lstrip("/"), os.O_PATH | os.O_NOFOLLOW, syscall.RESOLVE_BENEATH))
    except OSError:
        return True
    finally:
        os.close(upper)
    return False
