"""The figure of a boot profile: above what happened when, below where the time went (a flame graph, roots on top)."""

from __future__ import annotations

import math
from typing import NamedTuple

from swiftlet.cli.drawing import Box, Drawing, Line, Words, check_path
from swiftlet.cli.drawing import write as write_drawing

__all__ = ["check_path", "figure", "write"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

WIDTH, LEFT, RIGHT = 1500, 20, 20
ROW = 17
CALLS = 30
"""Initcalls that have a bar of their own: the longest."""

_STRIP = 24
_LEAST_PIXELS = 1.0
_COLORS = {"firmware": "#b5a4d6", "kernel": "#f2a65a", "programs": "#7fb3d9", "program": "#7fb3d9", "idle": "#dddddd"}
_OTHERS = ("#f6c28b", "#f2a65a", "#eeb76b", "#f4b183")
_PROGRAMS = ("#a9cde8", "#7fb3d9", "#93c0e0", "#b9d6ec")
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def write(found: dict[str, Any], path: str) -> None:
    """Draw a profile to a file. Raises HostError, OSError."""
    write_drawing(figure(found), path)


def figure(found: dict[str, Any]) -> Drawing:
    """The whole figure. Pure."""
    boxes: list[Box] = []
    lines: list[Line] = []
    words: list[Words] = [Words(LEFT, 26, _title(found), 15)]
    marks = [mark for mark in found["marks"] if mark["watched_ms"] is not None]
    end = max([mark["watched_ms"] for mark in marks] + [row[0] for row in found["activity"]] + [1.0])
    boot = _boot(marks, end)
    bottom = _timeline(found, marks, _Range(0.0, end, 48.0), boxes, lines, words)
    if boot[1] - boot[0] < end:
        bottom = _timeline(found, marks, _Range(*boot, bottom + 40), boxes, lines, words)
    bottom = _calls(found, _Range(*boot, bottom + 10), boxes, words)
    for part, title in (("boot", "until the workload begins"), ("workload", "then, until it serves")):
        bottom = _flame([each for each in found["stacks"] if each["part"] == part], title, boxes, words, bottom + 45)
    return Drawing(WIDTH, int(bottom) + 30, tuple(boxes), tuple(lines), tuple(words))


def _boot(marks: list[dict[str, Any]], end: float) -> tuple[float, float]:
    """From when to when the machine boots."""
    at = {mark["mark"]: mark["watched_ms"] for mark in marks}
    return at.get("QEMU begins", 0.0), at.get("workload", end)


class _Range(NamedTuple):
    """A stretch of time, in milliseconds, and where it is drawn."""

    start: float
    end: float
    y: float

    def x(self, ms: float) -> float:
        """Where a moment is."""
        return LEFT + (min(max(ms, self.start), self.end) - self.start) * self.scale

    @property
    def scale(self) -> float:
        """Pixels for a millisecond."""
        return (WIDTH - LEFT - RIGHT) / max(self.end - self.start, 0.001)


def _title(found: dict[str, Any]) -> str:
    machine, cost = found["machine"], found["cost"]
    measured = (
        f", {cost['ms']:.0f} ms from QEMU's begin to {cost['until']} (drawn: a second start, looked into)"
        if cost["ms"]
        else ""
    )
    names = ", ".join(found["templates"])
    return f"{names}: Linux {found['kernel']['version']}, {machine['type']}, {machine['accelerator']}{measured}"


def _timeline(
    found: dict[str, Any],
    marks: list[dict[str, Any]],
    span: _Range,
    boxes: list[Box],
    lines: list[Line],
    words: list[Words],
) -> float:
    """Marks, and what the processors did; where it ends."""
    shown = [mark for mark in marks if span.start <= mark["watched_ms"] <= span.end]
    strip_at = span.y + ROW * len(shown) + 4
    for row, mark in enumerate(shown):
        x, y = span.x(mark["watched_ms"]), span.y + ROW * row
        lines.append(Line(x, y, x, strip_at + _STRIP))
        text = f"{mark['mark']} {mark['watched_ms']:.0f} ms"
        at_end = x + len(text) * 7 > WIDTH - RIGHT
        words.append(Words(x - 3 if at_end else x + 3, y + 10, text, at_end=at_end))
    boxes += _activity(found, span, strip_at)
    words += _axis(span, strip_at + _STRIP + 12)
    for place, name in enumerate(("firmware", "kernel", "program", "idle")):
        x = WIDTH - RIGHT - 400 + 100 * place
        boxes.append(Box(x, 16, 12, 12, _COLORS[name]))
        words.append(Words(x + 16, 26, name))
    return strip_at + _STRIP + 16


def _calls(found: dict[str, Any], span: _Range, boxes: list[Box], words: list[Words]) -> float:
    """The longest initcalls, in their order; where they end."""
    calls = sorted((row for row in found["initcalls"][:CALLS] if row["start_ms"] is not None), key=_start)
    for row, call in enumerate(calls):
        boxes.append(_call(call, span, span.y + ROW * row))
        words.append(_call_text(call, span, span.y + ROW * row))
    return span.y + ROW * len(calls)


def _start(row: dict[str, Any]) -> float:
    return float(row["start_ms"])


def _activity(found: dict[str, Any], span: _Range, y: float) -> Iterator[Box]:
    """The strip of what was found at each look: the time since the one before."""
    share = _STRIP / max(1, found["machine"]["processors"])
    before, row = -1.0, 0
    for at, weight, what in found["activity"]:
        row = row + 1 if at == before else 0
        before = at
        if span.start <= at and at - weight <= span.end:
            x = span.x(at - weight)
            yield Box(x, y + row * share, max(span.x(at) - x, 0.3), share, _COLORS[what], f"{what}, {at:.1f} ms")


def _axis(span: _Range, y: float) -> Iterator[Words]:
    step = next((step for step in _STEPS if (span.end - span.start) / step <= 16), _STEPS[-1])
    for number in range(math.ceil(span.start / step), int(span.end / step) + 1):
        x = span.x(number * step)
        yield Words(x, y, f"{number * step}", 9, "#777777", at_end=x > WIDTH - RIGHT - 30)


def _call(call: dict[str, Any], span: _Range, y: float) -> Box:
    option = f", {' or '.join(call['options'])}" if call["options"] else ""
    x, end = span.x(call["start_ms"]), span.x(call["start_ms"] + call["ms"])
    return Box(x, y, max(end - x, 1.0), ROW - 3, _COLORS["kernel"], f"{call['name']} {call['ms']} ms{option}")


def _call_text(call: dict[str, Any], span: _Range, y: float) -> Words:
    end = span.x(call["start_ms"] + call["ms"])
    text = f"{call['name']} {call['ms']:.1f} ms" + (f"  {call['options'][0]}" if call["options"] else "")
    at_end = end + len(text) * 7 > WIDTH - RIGHT
    return Words(span.x(call["start_ms"]) - 4 if at_end else end + 4, y + 11, text, 10, at_end=at_end)


class _Node:
    """A function with what it called. ms: of it and of all that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ms = 0.0
        self.callees: dict[str, _Node] = {}


def _tree(stacks: list[dict[str, Any]]) -> _Node:
    root = _Node("all")
    for stack in stacks:
        node = root
        node.ms += stack["ms"]
        for frame in stack["frames"]:
            node = node.callees.setdefault(frame, _Node(frame))
            node.ms += stack["ms"]
    return root


def _flame(stacks: list[dict[str, Any]], title: str, boxes: list[Box], words: list[Words], top: float) -> float:
    """A flame graph; where it ends."""
    root = _tree(stacks)
    if not root.ms:
        return top - 45
    words.append(Words(LEFT, top - 8, f"where the processors were {title}, {root.ms:.0f} ms", 13))
    scale = (WIDTH - LEFT - RIGHT) / root.ms
    deepest = top
    left: list[tuple[_Node, float, float, str]] = [(root, LEFT, top, "")]
    while left:
        node, x, y, kind = left.pop()
        boxes.append(_frame(node, x, y, scale, kind, root.ms))
        deepest = max(deepest, y + ROW)
        for callee in sorted(node.callees.values(), key=lambda each: -each.ms):
            if callee.ms * scale >= _LEAST_PIXELS:
                left.append((callee, x, y + ROW, kind or callee.name))
            x += callee.ms * scale
    return deepest


def _frame(node: _Node, x: float, y: float, scale: float, kind: str, whole: float) -> Box:
    colors = _PROGRAMS if kind == "programs" else _OTHERS
    color = _COLORS.get(node.name) or ("#cccccc" if not kind else colors[sum(node.name.encode()) % len(colors)])
    title = f"{node.name}: {node.ms:.1f} ms, {node.ms / whole:.1%}"
    return Box(x, y, max(node.ms * scale - 0.5, 0.3), ROW - 1, color, title, node.name)
