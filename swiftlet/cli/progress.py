"""What long work is doing: a bar on a terminal, else one line for each stage, on standard error.

Nothing is shown, and rich is not imported, before the work has taken `PATIENCE` seconds.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

PATIENCE = 0.3

_BYTES = frozenset(("fetch", "unpack"))
"""Stages that are counted in bytes; the others count files."""


class Progress:
    """Shows the `progress` members of a stream's answers; leave it before anything else is printed."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._begin = time.monotonic()
        self._stage = ""
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def show(self, step: dict[str, Any] | None) -> None:
        """Take one `{"stage", "text", "done", "total"}`."""
        if not step or self._quiet or time.monotonic() - self._begin < PATIENCE:
            return
        if self._bar is None and sys.stderr.isatty():
            self._bar = _new_bar()
        if self._bar:
            self._advance(step)
        elif step["stage"] != self._stage:
            self._stage = str(step["stage"])
            sys.stderr.write(f"{self._stage}: {' '.join(str(step.get('text', '')).split())}\n")
            sys.stderr.flush()

    def _advance(self, step: dict[str, Any]) -> None:
        stage, total = str(step["stage"]), step.get("total") or None
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total, text="", count="")
        done = step.get("done") or 0
        count = _count(done, total, stage in _BYTES)
        text = " ".join(str(step.get("text", "")).split())
        self._bar.update(self._tasks[stage], completed=done, total=total, text=text, count=count)


def _count(done: int, total: int | None, is_bytes: bool) -> str:
    from swiftlet.cli.table import size_text

    shown = [size_text(n) if is_bytes else str(n) for n in ([done, total] if total else [done])]
    return "/".join(shown)


def _new_bar() -> Any:
    """A rich progress display, or False where rich is not to be had."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
    except ImportError:
        return False
    bar = Bar(
        TextColumn("{task.description:<9}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]:<20} {task.fields[text]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    bar.start()
    return bar
