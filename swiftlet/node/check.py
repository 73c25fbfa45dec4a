"""A workload from the wire, checked: whoever wrote it, what it says can be done or is refused with its path. Pure.

The command checks spelling for people's sake; a caller of the wire may have left that out. What only the host can
tell (templates, volumes' sources, ports in use) is found out when the guest is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import msgspec

from swiftlet.model.error import InputError
from swiftlet.model.invalid import place_of
from swiftlet.model.workload import Port, Workload

MAX_ARGUMENT = 131_072
"""Bytes of one argument or variable: the kernel's MAX_ARG_STRLEN."""

MAX_ARGUMENTS = 2 << 20
"""Bytes of all arguments and variables with a pointer to each: what execve(2) takes with the usual stack of 8 MiB."""

MAX_VOLUMES = 128
"""Each is a descriptor in one message to the launcher, beside those of inserted components and streams."""

MIN_MEMORY = 1 << 20
"""Bytes. A guest's limit holds while it is set up, too: that takes about 700 KiB, before its command has any."""

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_LIMIT = re.compile(r"[a-z]{2,12}")
_TMPFS_OPTION = re.compile(
    r"rw|ro|exec|noexec|nosuid|nodev|(size|nr_inodes)=[0-9]{1,15}[kmgKMG%]?|mode=[0-7]{1,4}|[ug]id=[0-9]{1,9}"
)
_NO_LIMIT = 1 << 62
_ANYWHERE = "0.0.0.0"
_POINTER = 8


def workload_of(document: Any) -> Workload:
    """Decode and check. Raises InputError with the path into the document."""
    try:
        workload = msgspec.convert(document, Workload)
    except msgspec.ValidationError as error:
        path, complaint = place_of(error)
        raise InputError(f"workload: {path}: {complaint}", _choices(path)) from None
    for path, complaint in _complaints(workload):
        raise InputError(f"workload: {path}: {complaint}")
    return workload


_OF_CLONES = ("name", "ports", "remove", "hostname", "resources")
"""What of a clone's workload may be another than that of the guest that was saved."""


def clone_of(saved: Workload, document: Any) -> Workload:
    """The workload of a clone: the saved one, with what the document says instead.

    Raises InputError for what is settled by the machine's saved state, and what `workload_of` raises.
    """
    for name in document if isinstance(document, dict) else ():
        if name not in _OF_CLONES:
            raise InputError(
                f"workload: $.{name}: a clone has this of its snapshot",
                "of its own it has --name, -p, --rm and -h",
            )
    plain = {**msgspec.to_builtins(saved), "name": "", "ports": (), "hostname": ""}
    own = dict(document) if isinstance(document, dict) else {}
    if isinstance(own.get("resources"), dict):
        own["resources"] = {**plain["resources"], **own["resources"]}
    workload = workload_of({**plain, **own})
    if workload.resources.memory != saved.resources.memory or workload.resources.cpus != saved.resources.cpus:
        raise InputError("workload: $.resources: a clone has the memory and the processors of its snapshot")
    if workload.resources.pids != saved.resources.pids:
        raise InputError("workload: $.resources.pids: a clone has this of its snapshot, whose kernel it is")
    if workload.resources.disk:
        raise InputError("workload: $.resources.disk: a clone has no disk", "start a guest of its own with --disk")
    return workload


def check_command(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Of a further command in a guest what `workload_of` checks of its own. Raises InputError."""
    for path, complaint in _texts(command, env):
        raise InputError(f"exec: {path}: {complaint}")


def _choices(path: str) -> str:
    """What a member of few values may be, as a hint; "" for any other."""
    choices = [word for word in get_args(get_type_hints(Workload).get(path[2:])) if isinstance(word, str)]
    return f"it is one of {', '.join(word for word in choices if word != 'fake')}" if choices else ""


_UNIKERNELS = "is for a unikernel only (--as unikernel)"


def _complaints(workload: Workload) -> Iterable[tuple[str, str]]:
    if workload.kind == "unikernel":
        if not _is_guest_path(workload.program):
            yield "$.program", "is the absolute path of a Python file with tasks"
        if workload.command:
            yield "$.command", "a unikernel runs its tasks and nothing else"
    elif workload.program:
        yield "$.program", _UNIKERNELS
    elif not workload.templates:
        yield "$.templates", "is empty; name at least one, such as python@3.11"
    if workload.kind != "unikernel":
        for name, usual in (("master", "compute"), ("placement", "spread"), ("cpu_level", "")):
            if getattr(workload, name) != usual:
                yield f"$.{name}", _UNIKERNELS
    elif workload.master == "serve" and workload.resources.cpus <= 1:
        yield "$.master", "a processor that only serves leaves none for tasks: give it two (--cpus 2)"
    yield from _texts(workload.command, workload.env)
    yield from _numbers(workload)
    for name in ("workdir",):
        value = getattr(workload, name)
        if value and not _is_guest_path(value):
            yield f"$.{name}", f"{value!r} is not an absolute path in the guest"
    if len(workload.volumes) > MAX_VOLUMES:
        yield "$.volumes", f"{len(workload.volumes)} volumes are more than {MAX_VOLUMES}"
    for index, volume in enumerate(workload.volumes):
        if not volume.source.startswith("/") or "\0" in volume.source:
            yield f"$.volumes[{index}].source", "is not an absolute path"
        yield from _place(f"$.volumes[{index}].target", volume.target, volume.target)
    for index, target in enumerate(workload.tmpfs):
        path, _, options = target.partition(":")
        yield from _place(f"$.tmpfs[{index}]", target, path)
        for option in filter(None, options.split(",")):
            if not _TMPFS_OPTION.fullmatch(option):
                yield (
                    f"$.tmpfs[{index}]",
                    f"{option!r} is no option of a tmpfs; there are size=, mode=, uid=, gid=, exec",
                )
    if workload.hostname and not _HOSTNAME.fullmatch(workload.hostname):
        yield "$.hostname", f"{workload.hostname!r} is not a host name"
    if workload.ports and workload.network != "bridge":
        yield "$.ports", f"ports are published on the bridge only, not with network {workload.network}"


def _texts(command: Sequence[str], env: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """What the kernel passes on as C strings."""
    total = _POINTER * (len(command) + len(env))
    for index, argument in enumerate(command):
        total += (size := _size(argument))
        if "\0" in argument or size > MAX_ARGUMENT:
            yield f"$.command[{index}]", "holds a NUL or is longer than 128 KiB"
    for name, value in env.items():
        total += (size := _size(f"{name}={value}"))
        if not name or "=" in name or "\0" in name + value or size > MAX_ARGUMENT:
            yield "$.env", f"{name[:40]!r} is no variable (empty, with = or NUL, or longer than 128 KiB)"
    if total > MAX_ARGUMENTS:
        yield "$.command", f"with its variables takes {total} bytes, more than the {MAX_ARGUMENTS} that can be executed"


def _size(text: str) -> int:
    """Bytes of a C string, its end included."""
    return len(text.encode(errors="surrogatepass")) + 1


def _numbers(workload: Workload) -> Iterable[tuple[str, str]]:
    resources = workload.resources
    if not 0 <= resources.memory < _NO_LIMIT:
        yield "$.resources.memory", "is not a number of bytes"
    elif 0 < resources.memory < MIN_MEMORY:
        yield "$.resources.memory", f"{resources.memory} bytes is less than 1M, which setting a guest up takes of it"
    if not (math.isfinite(resources.cpus) and 0 <= resources.cpus <= 65536):
        yield "$.resources.cpus", "is not a number of cores"
    if not 0 <= resources.cpu_weight <= 10000:
        yield "$.resources.cpu_weight", "is not from 1 to 10000"
    if not 0 <= resources.pids <= 4_194_304:
        yield "$.resources.pids", "is not from 1 to 4194304"
    if not (math.isfinite(workload.stop_timeout) and 0 <= workload.stop_timeout <= 1e9):
        yield "$.stop_timeout", "is not a number of seconds"
    for index, port in enumerate(workload.ports):
        if not (0 < port.guest < 65536 and 0 <= port.host < 65536):
            yield f"$.ports[{index}]", "is not from 1 to 65535"
        if any(_collide(port, other) for other in workload.ports[:index]):
            yield f"$.ports[{index}]", f"{port.host}/{port.protocol} is published twice"
    for name, (soft, hard) in workload.ulimits.items():
        if not _LIMIT.fullmatch(name.lower()) or not (-1 <= soft < _NO_LIMIT and -1 <= hard < _NO_LIMIT):
            yield f"$.ulimits.{name[:20]}", "is not a limit such as nofile: [1024, 4096]"


def _collide(one: Port, other: Port) -> bool:
    """Whether two published ports are one of the host's; each that is to be any free one (0) is another."""
    addresses = {port.host_ip or _ANYWHERE for port in (one, other)}
    same = (one.host, one.protocol) == (other.host, other.protocol)
    return same and one.host != 0 and (len(addresses) == 1 or _ANYWHERE in addresses)


def _place(where: str, written: str, path: str) -> Iterable[tuple[str, str]]:
    """Where a volume or tmpfs is to be: anywhere but over what the guest is kept in by (CVE-2019-16884)."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not _is_guest_path(path) or not parts:
        yield where, f"{written!r} is not a place in the guest"
    elif parts[0] == "proc" or parts in (["dev"], ["sys"]):
        yield where, f"{written!r} is the kernel's: nothing can be at or below /proc, nor in place of /dev or /sys"


def _is_guest_path(path: str) -> bool:
    return path.startswith("/") and "\0" not in path and ".." not in path.split("/")
