"""What each part of a kernel takes when it starts, from a console with `initcall_debug`: milliseconds by object file.

Only what runs as an initcall is timed. A kernel without KALLSYMS names it by its address, which its log has as well as
its console. The times are those of the machine on which it ran: emulated, they are large, and fair among themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from swiftlet.image.kernel import trace
from swiftlet.image.kernel.kbuild import Needs, lost_without
from swiftlet.image.kernel.printk import Record
from swiftlet.image.kernel.symbols import Symbols

WORDS = "initcall_debug ignore_loglevel"
"""What the kernel is told, so that its console has every initcall."""

_RETURNED = re.compile(r"initcall ([\w.]+)\+0x[0-9a-f]+/0x[0-9a-f]+ returned -?\d+ after (\d+) usecs")


def read_console(text: str) -> dict[str, float]:
    """Milliseconds by the names of the functions; 0 is left out, of two with one name the times are added."""
    found: dict[str, float] = {}
    for name, microseconds in _RETURNED.findall(text):
        if int(microseconds):
            found[name] = found.get(name, 0.0) + int(microseconds) / 1e3
    return found


def addresses_of(names: Iterable[str], system_map: str) -> dict[int, str]:
    """Where functions lie, by System.map's text; those of which there are two are left out."""
    wanted = set(names)
    rows = [(name, int(address, 16)) for address, name in re.findall(r"^([0-9a-f]+) [tT] (\S+)$", system_map, re.M)]
    count = Counter(name for name, _ in rows)
    return {address: name for name, address in rows if name in wanted and count[name] == 1}


def by_object(console: str, folder: str, tree: str) -> dict[str, float]:
    """Milliseconds by object file, for a kernel that was built with lines. Raises HostError, KernelError, OSError."""
    calls = read_console(console)
    with open(f"{folder}/System.map") as file:
        places = addresses_of(calls, file.read())
    found: dict[str, float] = {}
    for address, place in trace.lines_at(folder, places, tree):
        stem, _, ending = place.file.rpartition(".")
        if ending == "c" and address in places:
            path = f"{stem}.o"
            found[path] = round(found.get(path, 0.0) + calls[places.pop(address)], 3)
    return found


def cost_of(
    symbol: str, milliseconds: Mapping[str, float], needs: Mapping[str, Needs], values: Mapping[str, str]
) -> float | None:
    """What the objects take at the start that would not be there without an option; None where none is timed."""
    timed = {path: needs[path] for path in milliseconds if path in needs}
    lost = lost_without(symbol, timed, values)
    return round(sum(milliseconds[path] for path in lost), 3) if lost else None


class Initcall(NamedTuple):
    """One call. end_ns: of the kernel's clock. result: 0, or the number of an error with a minus."""

    name: str
    end_ns: int
    milliseconds: float
    result: int


_LOGGED = re.compile(r"initcall (?:0x([0-9a-f]+)|([\w.]+)\+\S+) returned (-?\d+) after (\d+) usecs")


def read_log(records: Iterable[Record], symbols: Symbols) -> list[Initcall]:
    """Every initcall of a kernel's log, in the order in which they ended."""
    found = []
    for record in records:
        if match := _LOGGED.match(record.text):
            address, name, result, microseconds = match.groups()
            called = name or symbols.name(int(address, 16)) or f"0x{address}"
            found.append(Initcall(called, record.ns, int(microseconds) / 1e3, int(result)))
    return found


_DECLARED = re.compile(r"^\s*(?:\w*initcall(?:_sync)?|module_init)\s*\(\s*(\w+)\s*\)", re.MULTILINE)
_DRIVER = re.compile(r"^\s*(?:module|builtin)_\w*driver\s*\(\s*(\w+)", re.MULTILINE)


def declared_in(source: str) -> set[str]:
    """The functions that a source file declares to be initcalls; of a driver's macro the one that it makes."""
    return {*_DECLARED.findall(source), *(f"{name}_init" for name in _DRIVER.findall(source))}


def objects_of(names: Iterable[str], objects: Iterable[str], tree: str) -> dict[str, str]:
    """Initcall -> the object file that declares it; left out are those that several do, or none whose source is there.

    objects: paths in the build. tree: the kernel's source.
    """
    wanted = set(names)
    found: dict[str, str] = {}
    several: set[str] = set()
    for path in objects:
        try:
            with open(f"{tree}/{path.removesuffix('.o')}.c", errors="replace") as file:
                declared = declared_in(file.read()) & wanted
        except OSError:
            continue
        several |= declared & found.keys()
        found |= dict.fromkeys(declared, path)
    return {name: path for name, path in found.items() if name not in several}
