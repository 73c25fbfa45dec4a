"""What the program of checks said in a guest, judged beside what it said on this host. Pure.

Every check that was wanted gets a verdict: one that says nothing has failed. Of the algorithms each number must be the
host's within TOLERANCE (the MicroswiftOS paper's, appendix B); what is measured is told and not judged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from swiftlet.gate.options import NEEDS

TOLERANCE = 1e-8

COMPARED = "algorithms"
MEASURED = "ipc"
"""Areas that the host runs too: the one must be equal, the other is shown beside."""

CLOCK = "timers.realtime"
CLOCK_SECONDS = 60.0
"""How far a guest's clock may be from the host's."""

WEB = "web.page"


class Said(NamedTuple):
    """A check's line. because: the check whose matter the problem is, where it is another's."""

    ok: bool
    problem: str
    because: str
    milliseconds: float
    values: Mapping[str, Any]


class Verdict(NamedTuple):
    """What became of a check. values: what was measured, a host's number beside the guest's as `NAME_host`."""

    check: str
    ok: bool
    problem: str
    options: tuple[str, ...]
    milliseconds: float
    values: Mapping[str, Any]


class Circumstances(NamedTuple):
    """What the judge is told beside the lines. began, ended: seconds after 1970. web, guest: problems, or ""."""

    began: float
    ended: float
    web: str = ""
    guest: str = ""


def line_of(text: str) -> dict[str, Any] | None:
    """A line of the program's as an object; None for what is none (a kernel's message on the same console)."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def said_by(lines: Iterable[str]) -> dict[str, Said]:
    """What was said of each check, the first word counting."""
    found: dict[str, Said] = {}
    for text in lines:
        line = line_of(text)
        name = line.get("check") if line else None
        if line is None or not isinstance(name, str) or name in found:
            continue
        values, milliseconds = line.get("values"), line.get("ms")
        found[name] = Said(
            line.get("ok") is True,
            str(line.get("problem") or ""),
            str(line.get("because") or ""),
            float(milliseconds) if isinstance(milliseconds, int | float) else 0.0,
            values if isinstance(values, dict) else {},
        )
    return found


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The checks that `only` (checks and areas) means, all for []. Raises KeyError with what means none."""
    for word in only:
        if not any(_means(word, name) for name in names):
            raise KeyError(word)
    return [name for name in names if not only or any(_means(word, name) for word in only)]


def _means(word: str, name: str) -> bool:
    return word in (name, name.partition(".")[0])


def judge(
    names: Sequence[str], guest: Mapping[str, Said], host: Mapping[str, Said], circumstances: Circumstances
) -> list[Verdict]:
    """A verdict for each name, in their order."""
    return [_verdict(name, guest.get(name), host.get(name), circumstances) for name in names]


def _verdict(name: str, guest: Said | None, host: Said | None, circumstances: Circumstances) -> Verdict:
    problem, values = _judged(name, guest, host, circumstances)
    about = guest.because if guest and guest.because else name
    options = NEEDS.get(about, ()) if problem else ()
    return Verdict(name, not problem, problem, options, guest.milliseconds if guest else 0.0, values)


def _judged(
    name: str, guest: Said | None, host: Said | None, circumstances: Circumstances
) -> tuple[str, Mapping[str, Any]]:
    """(what is wrong or "", what was measured)."""
    if guest is not None and not guest.ok:
        return guest.problem or "failed without a reason", {}
    if name == WEB and circumstances.web:
        return circumstances.web, {}
    if guest is None:
        return f"said nothing: {circumstances.guest or 'the guest ended before it'}", {}
    area = name.partition(".")[0]
    if area == COMPARED:
        return _compared(guest, host)
    if area == MEASURED:
        beside = {f"{key}_host": value for key, value in (host.values if host else {}).items()}
        return "", {**guest.values, **beside}
    if name == CLOCK:
        return _clock(guest.values.get("realtime_s"), circumstances), {}
    return "", guest.values


def _compared(guest: Said, host: Said | None) -> tuple[str, Mapping[str, Any]]:
    if host is None or not host.ok:
        return f"fails on this host: {host.problem if host else 'it said nothing'}", {}
    if guest.values.keys() != host.values.keys():
        return f"gives {', '.join(guest.values)} where this host gives {', '.join(host.values)}", {}
    largest, count = 0.0, 0
    for key, wanted in host.values.items():
        problem, difference = difference_of(key, guest.values[key], wanted)
        if problem:
            return problem, {}
        largest, count = max(largest, difference), count + len(wanted)
    return "", {"numbers": count, "largest_difference": largest}


def difference_of(name: str, guest: Any, host: Any) -> tuple[str, float]:
    """(what is wrong or "", the largest difference) of two lists of numbers."""
    if not isinstance(guest, list) or not isinstance(host, list) or len(guest) != len(host) or not host:
        return f"{name} has another length than on this host", math.inf
    if not all(isinstance(number, int | float) for number in (*guest, *host)):
        return f"{name} holds something that is no number", math.inf
    differences = [abs(one - other) for one, other in zip(guest, host, strict=True)]
    for index, difference in enumerate(differences):
        if not difference <= TOLERANCE:  # a NaN is not
            return f"{name}[{index}] is {guest[index]!r} and on this host {host[index]!r}", difference
    return "", max(differences)


def _clock(told: Any, circumstances: Circumstances) -> str:
    if not isinstance(told, int | float):
        return "tells no time"
    early, late = circumstances.began - told, told - circumstances.ended
    if max(early, late) <= CLOCK_SECONDS:
        return ""
    return f"the guest's clock is {max(early, late):.0f} s {'behind' if early > late else 'ahead of'} this host's"
