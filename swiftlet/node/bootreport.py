"""What two starts of one machine tell: the one as it is always started, and the one that was looked into. Pure.

All times are milliseconds since the daemon was asked. Those of the start that was looked into have the pauses taken
out, in which the machine stood still; what the looking then still costs is the difference of the two starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from swiftlet.image.kernel.initcalls import Initcall
from swiftlet.image.kernel.kbuild import Needs
from swiftlet.node.bootwatch import Look, Recording

MARKS = (
    ("generating", "asked", "the daemon begins"),
    ("generated", "prepared", "root, images and command line are there"),
    ("launched", "launched", "its network and volumes are there, the launcher has made its process"),
    ("qemu", "QEMU begins", "that process executes QEMU"),
    ("monitor", "QEMU ready", "its monitor greets"),
    ("kernel", "kernel", "its first instruction: a breakpoint there"),
    ("init", "init", "the kernel's log: it runs its first process"),
    ("running", "workload", "the machine reports that the workload's process has begun"),
    ("ready", "service", "its ports take connections"),
)
"""Moment, what it is called, and how it is known."""

IDLE = frozenset(("do_idle", "poll_idle"))
"""Functions below which a processor has nothing to do."""

_DIGITS = 3
_RUNS_INIT = "Run "
_PARTS = ("start_kernel", "kernel_init_freeable", "kernel_init", "rest_init", "do_basic_setup", "x86_64_start_kernel")
"""Functions whose own callees are parts of a start; what they do besides calling initcalls is told apart."""

_OF_INITCALLS = frozenset(("do_initcalls", "do_initcall_level", "do_one_initcall", "do_pre_smp_initcalls", *_PARTS))


class Origin(NamedTuple):
    """Where an initcall is from. path: of its object file. needs: for which options that is built, "" not known."""

    path: str
    needs: Needs


class Named(NamedTuple):
    """A stack in words, the outermost first. resolved: "function", "file" where no more can be told, else ""."""

    frames: tuple[str, ...]
    resolved: str


def report(
    plain: Recording,
    watched: Recording,
    calls: list[Initcall],
    origins: Mapping[str, Origin],
    name: Callable[[Look], Named],
    jiffy_ms: float,
) -> dict[str, Any]:
    """All that is shown, as JSON. jiffy_ms: in what steps the kernel's clock goes until it has found a finer one."""
    clock = _Clock(watched)
    moments = {**watched.moments}
    if (init := _init_ns(watched)) is not None:
        moments["init"] = init
    named = [(look, name(look)) for look in watched.looks]
    rows = initcall_rows(calls, clock, origins, looked_at(named), jiffy_ms)
    marks = _marks(plain.moments, {key: clock.host(ns) for key, ns in moments.items() if key != "init"}, init, clock)
    return {
        "marks": marks,
        "phases": phases(marks),
        "initcalls": rows,
        "removable": ranking(rows, named),
        "stacks": folded(named, moments.get("running", 0)),
        "activity": [[clock.host(look.ns), _ms(look.weight_ns), activity(look, each)] for look, each in named],
        "looks": looks_of(watched, named),
        "cost": cost(plain, watched),
    }


class _Clock:
    """Milliseconds since the start that was looked into was asked for."""

    def __init__(self, seen: Recording) -> None:
        self._seen = seen
        self._begin = seen.moments.get("generating", 0)

    def host(self, ns: int) -> float:
        """Of the host's clock, without pauses."""
        return _ms(self._seen.unpaused(ns) - self._begin)

    def guest(self, ns: int) -> float | None:
        """Of the guest's own; None where the two could not be compared."""
        offset = self._seen.clock_offset_ns
        return None if offset is None else _ms(ns + offset - self._begin)


def _init_ns(seen: Recording) -> int | None:
    return next((each.ns for each in seen.log if each.text.startswith(_RUNS_INIT) and "as init" in each.text), None)


def _marks(
    plain: Mapping[str, int], watched: Mapping[str, float], init: int | None, clock: _Clock
) -> list[dict[str, Any]]:
    begin = plain.get("generating", 0)
    looked: dict[str, float | None] = {**watched}
    if init is not None:
        looked["init"] = clock.guest(init)
    return [
        {
            "mark": title,
            "ms": _ms(plain[key] - begin) if key in plain else None,
            "watched_ms": looked.get(key),
            "how": how,
        }
        for key, title, how in MARKS
        if key in plain or looked.get(key) is not None
    ]


def phases(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What lies between two marks of the start that was looked into."""
    known = [mark for mark in marks if mark["watched_ms"] is not None]
    known.sort(key=lambda mark: mark["watched_ms"])
    return [
        {
            "phase": f"{first['mark']} - {second['mark']}",
            "start_ms": first["watched_ms"],
            "end_ms": second["watched_ms"],
        }
        for first, second in itertools.pairwise(known)
    ]


def looked_at(named: Iterable[tuple[Look, Named]]) -> dict[str, float]:
    """Milliseconds below each function of the kernel, by the looks that found it on a stack."""
    found: dict[str, float] = {}
    for look, each in named:
        for frame in set(each.frames) if look.place == "kernel" else ():
            found[frame] = found.get(frame, 0.0) + look.weight_ns / 1e6
    return found


def initcall_rows(
    calls: Iterable[Initcall],
    clock: Any,
    origins: Mapping[str, Origin],
    looked: Mapping[str, float],
    jiffy_ms: float,
) -> list[dict[str, Any]]:
    """The table of initcalls, the longest first. options: any of the last group is what it is there for.

    ms is the kernel's own time; where its clock went in whole jiffies yet, which says little, what the looks say.
    """
    rows = []
    for call in calls:
        end, origin, timed = clock.guest(call.end_ns), origins.get(call.name), call.milliseconds
        rows.append(
            {
                "name": call.name,
                "ms": round(looked.get(call.name, 0.0), _DIGITS) if (coarse := is_coarse(call, jiffy_ms)) else timed,
                "coarse": coarse,
                "start_ms": None if end is None else round(end - timed, _DIGITS),
                "result": call.result,
                "object": origin.path if origin else None,
                "options": list(origin.needs[-1]) if origin and origin.needs else [],
            }
        )
    return sorted(rows, key=lambda row: (-row["ms"], row["name"]))


def is_coarse(call: Initcall, jiffy_ms: float) -> bool:
    """Whether a time is of a clock that goes in jiffies: some of them exactly, and not nothing."""
    return call.milliseconds > 0 and not call.milliseconds % jiffy_ms


def ranking(rows: Iterable[Mapping[str, Any]], named: Iterable[tuple[Look, Named]]) -> list[dict[str, Any]]:
    """What to remove, by milliseconds: options with all initcalls that are there for them, then what has no option.

    Initcalls are timed by the kernel; the rest of its start is known by the looks that found it there.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        option = " or ".join(row["options"])
        key = (option, "" if option else row["name"])
        entry = found.setdefault(key, {"option": option or None, "ms": 0.0, "calls": [], "known": _known(row)})
        entry["ms"] = round(entry["ms"] + row["ms"], _DIGITS)
        entry["calls"].append(row["name"])
    for part, milliseconds in _parts(named).items():
        known = "looks; not an initcall"
        found["", f"{part}()"] = {"option": None, "ms": milliseconds, "calls": [part], "known": known}
    return sorted((entry for entry in found.values() if entry["ms"]), key=lambda entry: -entry["ms"])


def _known(row: Mapping[str, Any]) -> str:
    how = "looks" if row["coarse"] else "timed"
    if row["options"]:
        return f"{how}; the option's own objects"
    return f"{how}; always built" if row["object"] else f"{how}; its object is not known"


def _parts(named: Iterable[tuple[Look, Named]]) -> dict[str, float]:
    """Milliseconds below each function that the kernel's start consists of, where that is no initcall."""
    found: dict[str, float] = {}
    for look, each in named:
        callers = [place for place, frame in enumerate(each.frames) if frame in _PARTS]
        if look.place == "kernel" and callers and callers[-1] + 1 < len(each.frames):
            callee = each.frames[callers[-1] + 1]
            if callee not in _OF_INITCALLS and not IDLE.intersection(each.frames):
                found[callee] = found.get(callee, 0.0) + look.weight_ns / 1e6
    return {name: round(milliseconds, _DIGITS) for name, milliseconds in found.items()}


def folded(named: Iterable[tuple[Look, Named]], begun_ns: int) -> list[dict[str, Any]]:
    """Stacks with the milliseconds that were spent in each, the longest first.

    part: "boot" until the workload's process had begun, at `begun_ns` (0: it never did), then "workload".
    """
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for look, each in named:
        key = "workload" if 0 < begun_ns < look.ns else "boot", each.frames
        found[key] = found.get(key, 0.0) + look.weight_ns / 1e6
    rows = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [{"part": part, "frames": list(frames), "ms": round(ms, _DIGITS)} for (part, frames), ms in rows]


def activity(look: Look, named: Named) -> str:
    """What a processor did: "firmware", "kernel", "program", or "idle"."""
    return "idle" if look.place == "kernel" and IDLE.intersection(named.frames) else look.place


def looks_of(watched: Recording, named: list[tuple[Look, Named]]) -> dict[str, Any]:
    """How many looks there were, and of how many the function is known, only the file, or nothing."""
    count = {kind: sum(each.resolved == kind for _, each in named) for kind in ("function", "file", "")}
    return {
        "count": len(named),
        "functions": count["function"],
        "files": count["file"],
        "unknown": count[""],
        "paused_ms": _ms(watched.paused_ns),
    }


def cost(plain: Recording, watched: Recording) -> dict[str, Any]:
    """What looking has cost: both starts from QEMU's begin to the last mark that both have."""
    last = next((key for key in ("ready", "running") if key in plain.moments and key in watched.moments), "")
    if not last or "qemu" not in plain.moments or "qemu" not in watched.moments:
        return {"until": None, "ms": None, "watched_ms": None, "unpaused_ms": None}
    begin, end = watched.moments["qemu"], watched.moments[last]
    return {
        "until": next(title for key, title, _ in MARKS if key == last),
        "ms": _ms(plain.moments[last] - plain.moments["qemu"]),
        "watched_ms": _ms(end - begin),
        "unpaused_ms": _ms(watched.unpaused(end) - watched.unpaused(begin)),
    }


def _ms(ns: int) -> float:
    return round(ns / 1e6, _DIGITS)
