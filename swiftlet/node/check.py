"""A workload from the wire, checked: whoever wrote it, what it says can be done or is refused with its path. Pure.

The command checks spelling for people's sake; a caller of the wire may have left that out. What only the host can
tell (templates, volumes' sources, ports in use) is found out when the guest is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

import msgspec

from swiftlet.model.error import InputError
from swiftlet.model.invalid import place_of
from swiftlet.model.workload import Workload

MAX_ARGUMENT = 131_072
"""Bytes of one argument or variable: the kernel's MAX_ARG_STRLEN."""

MIN_MEMORY = 1 << 20
"""Bytes. A guest's limit holds while it is set up, too: that takes about 700 KiB, before its command has any."""

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_LIMIT = re.compile(r"[a-z]{2,12}")
_TMPFS_OPTION = re.compile(
    r"rw|ro|exec|noexec|nosuid|nodev|(size|nr_inodes)=[0-9]{1,15}[kmgKMG%]?|mode=[0-7]{1,4}|[ug]id=[0-9]{1,9}"
)
_NO_LIMIT = 1 << 62


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


def _choices(path: str) -> str:
    """What a member of few values may be, as a hint; "" for any other."""
    choices = [word for word in get_args(get_type_hints(Workload).get(path[2:])) if isinstance(word, str)]
    return f"it is one of {', '.join(word for word in choices if word != 'fake')}" if choices else ""


def _complaints(workload: Workload) -> Iterable[tuple[str, str]]:
    if not workload.templates:
        yield "$.templates", "is empty; name at least one, such as python@3.11"
    yield from _texts(workload)
    yield from _numbers(workload)
    for name in ("workdir",):
        value = getattr(workload, name)
        if value and not _is_guest_path(value):
            yield f"$.{name}", f"{value!r} is not an absolute path in the guest"
    for index, volume in enumerate(workload.volumes):
        if not volume.source.startswith("/") or "\0" in volume.source:
            yield f"$.volumes[{index}].source", "is not an absolute path"
        if not _is_guest_path(volume.target) or volume.target == "/":
            yield f"$.volumes[{index}].target", f"{volume.target!r} is not a place in the guest"
    for index, target in enumerate(workload.tmpfs):
        path, _, options = target.partition(":")
        if not _is_guest_path(path) or path == "/":
            yield f"$.tmpfs[{index}]", f"{target!r} is not a place in the guest"
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


def _texts(workload: Workload) -> Iterable[tuple[str, str]]:
    """What the kernel passes on as C strings."""
    for index, argument in enumerate(workload.command):
        if "\0" in argument or len(argument.encode(errors="surrogatepass")) >= MAX_ARGUMENT:
            yield f"$.command[{index}]", "holds a NUL or is longer than 128 KiB"
    for name, value in workload.env.items():
        if not name or "=" in name or "\0" in name + value or len(name) + len(value) >= MAX_ARGUMENT:
            yield "$.env", f"{name[:40]!r} is no variable (empty, with = or NUL, or longer than 128 KiB)"


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
    for name, (soft, hard) in workload.ulimits.items():
        if not _LIMIT.fullmatch(name.lower()) or not (-1 <= soft < _NO_LIMIT and -1 <= hard < _NO_LIMIT):
            yield f"$.ulimits.{name[:20]}", "is not a limit such as nofile: [1024, 4096]"


def _is_guest_path(path: str) -> bool:
    return path.startswith("/") and "\0" not in path and ".." not in path.split("/")
