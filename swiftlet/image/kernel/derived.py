"""What a derivation came to: the kernel, every option with what is known of it, and the file beside the kernel.

::

    CACHE/kernels/DIGEST/derived.json    the name, the checks, the runs, and each option's evidence, kept or dropped
    CACHE/kernels/DIGEST/boot.json       milliseconds of the start by option, which `kernel explain` shows
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.derive import Evidence
from swiftlet.image.kernel.journal import Run
from swiftlet.image.kernel.kept import BOOT_FILE, DERIVED_FILE, Kernel
from swiftlet.image.kernel.trace import Phase

_RAN = {
    Phase.INIT: "ran when the kernel started, and was given up",
    Phase.BOOT: "ran before the first process",
    Phase.USE: "ran",
}


class Found(NamedTuple):
    """One option of the result. why: what is known of it. place: the line that ran, "" when none did.

    bytes: of the objects that would not be there without it, milliseconds: of their initcalls in the full kernel; None
    where it has none of its own. failed: the run that failed without it and the fewest others, None where it was never
    tried away.
    """

    symbol: str
    value: str
    why: str
    place: str
    bytes: int | None
    milliseconds: float | None
    failed: int | None


class Dropped(NamedTuple):
    """An option that the full kernel had and the result has not. run: the first that passed without it.

    bytes, milliseconds: as in Found.
    """

    symbol: str
    run: int
    bytes: int | None
    milliseconds: float | None


class Result(NamedTuple):
    """What a derivation came to. complete: False when the budget ended it. counts: instructions, lines, files."""

    kernel: Kernel
    full: Kernel
    requests: list[Wanted]
    options: list[Found]
    dropped: list[Dropped]
    runs: list[Run]
    counts: Mapping[str, int]
    complete: bool


def why(symbol: str, reasons: Mapping[str, str], evidence: Mapping[str, Evidence], kept: set[str]) -> tuple[str, str]:
    """What is known of an option that is on, and where it ran. kept: what stays whatever runs."""
    ran = evidence.get(symbol)
    place = f"{ran.place.file}:{ran.place.line}" if ran else ""
    if symbol in kept:
        return "kept whatever runs", place
    if ran:
        return _RAN[ran.phase], place
    return reasons.get(symbol, "selected, or by default"), ""


def first_without(symbol: str, runs: Iterable[Run]) -> int:
    """The number of the first run that passed without an option."""
    return next(run.number for run in runs if run.passed and symbol in run.off)


def failed_without(symbol: str, runs: Iterable[Run]) -> int | None:
    """The number of the run that failed without an option and the fewest others; None when there is none."""
    failed = [run for run in runs if not run.passed and symbol in run.off]
    return min(failed, key=lambda run: (len(run.off), run.number)).number if failed else None


def told(option: Found | Dropped, runs: Sequence[Run]) -> str:
    """Why an option is there or gone, as one sentence for people."""
    if isinstance(option, Dropped):
        return f"dropped because run {option.run} passed without it"
    because = f"{option.place} {option.why}" if option.place and option.why in _RAN.values() else option.why
    if option.failed is None:
        return f"kept because {because}" if option.why in _RAN.values() else because
    others = len(runs[option.failed].off) - 1
    return f"kept because {because}, and run {option.failed} failed without it and {others} others"


def save(result: Result, name: str, checks: Sequence[str]) -> None:
    """Keep the evidence beside the kernel. checks: their names, for people. Raises OSError."""
    rows = {
        "name": name,
        "checks": list(checks),
        "full": {"digest": result.full.digest, "bytes": result.full.bytes, "options": result.full.options},
        "complete": result.complete,
        "counts": dict(result.counts),
        "runs": [run._asdict() for run in result.runs],
        "options": [each._asdict() for each in result.options],
        "dropped": [each._asdict() for each in result.dropped],
    }
    timed = {each.symbol: each.milliseconds for each in result.options if each.milliseconds is not None}
    write(f"{result.kernel.folder}/{DERIVED_FILE}", json.dumps(rows, indent=1))
    write(f"{result.kernel.folder}/{BOOT_FILE}", json.dumps({"options": timed}))


def write(path: str, text: str) -> None:
    """Write a file whole or not at all. Raises OSError."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


def read(kernel: Kernel) -> dict[str, Any] | None:
    """What is kept of a kernel's derivation; None for one that was not derived."""
    try:
        with open(f"{kernel.folder}/{DERIVED_FILE}") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"runs", "options", "dropped"} <= found.keys() else None


def evidence_of(symbol: str, saved: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known of one option: {told, place, run, bytes, milliseconds}; None for one that was never on."""
    runs = [Run(**{**row, "off": tuple(row["off"])}) for row in saved["runs"]]
    found: Found | Dropped | None = None
    for row in saved["options"]:
        found = Found(**row) if row["symbol"] == symbol else found
    for row in saved["dropped"]:
        found = Dropped(**row) if row["symbol"] == symbol else found
    if found is None:
        return None
    return {
        "told": told(found, runs),
        "place": found.place if isinstance(found, Found) else "",
        "run": found.run if isinstance(found, Dropped) else found.failed,
        "bytes": found.bytes,
        "milliseconds": found.milliseconds,
    }
