"""Tables, sizes and ages for people, as docker prints them. Plain text: rich would cost 39 ms."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from swiftlet.cli.options import Parsed

_DAY = 86400
_UNITS = (
    ("second", 1, 60),
    ("minute", 60, 3600),
    ("hour", 3600, 2 * _DAY),
    ("day", _DAY, 14 * _DAY),
    ("week", 7 * _DAY, 60 * _DAY),
    ("month", 30 * _DAY, 730 * _DAY),
    ("year", 365 * _DAY, 1 << 62),
)
"""Unit, its seconds, and up to how many seconds it is used (go-units' steps, which docker's users know)."""


def print_table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Aligned columns with three spaces between them."""
    sys.stdout.write(table(titles, rows))


def print_list(
    parsed: Parsed,
    rows: list[dict[str, Any]],
    key: str,
    titles: tuple[str, ...],
    line: Callable[[dict[str, Any]], tuple[str, ...]],
) -> None:
    """A listing in the form that was asked for: JSON, with -q the `key` of each, else a table."""
    if parsed.on("json"):
        print_json(rows)
    elif parsed.on("quiet"):
        sys.stdout.write("".join(f"{row[key]}\n" for row in rows))
    else:
        print_table(titles, [line(row) for row in rows])


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """The text of a table."""
    lines = [titles, *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "".join("   ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def printable(text: str) -> str:
    """Text without control characters: names and command lines come from others than the reader."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def print_json(value: Any) -> None:
    """Indented JSON."""
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def size_text(count: int | None) -> str:
    """Bytes as `1.5MiB`; "-" when not known."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}TiB"


def duration_text(seconds: float) -> str:
    """A duration in its largest fitting unit: `3 minutes`, `About an hour`."""
    if seconds < 1:
        return "Less than a second"
    unit, length = next((unit, length) for unit, length, limit in _UNITS if seconds < limit)
    count = int(seconds / length)
    if count == 1 and unit in ("minute", "hour"):
        return "About a minute" if unit == "minute" else "About an hour"
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def age_text(when_ns: int, now: float | None = None) -> str:
    """How long ago a wall-clock time was: `3 minutes ago`."""
    return duration_text((time.time() if now is None else now) - when_ns / 1e9) + " ago"


def status_text(guest: dict[str, Any], now: float | None = None) -> str:
    """A guest's state as docker's `ps` words it: `Up 3 minutes`, `Exited (0) 2 hours ago`."""
    now = time.time() if now is None else now
    state = str(guest["state"])
    if state in ("Running", "Inserting") and guest.get("started_ns"):
        up = "Up " + duration_text(now - guest["started_ns"] / 1e9)
        return up if state == "Running" else f"{up} (Inserting)"
    ended = guest.get("exit")
    if state == "Stopped" and ended:
        when = ended.get("ended_ns") or guest.get("ended_ns")
        memory = ", out of memory" if ended.get("oom") else ""
        return f"Exited ({ended['code']}{memory})" + (f" {age_text(when, now)}" if when else "")
    return state
