"""What long work is doing, on standard error: a bar on a terminal, else lines; with how long it will take yet.

Without a terminal each stage has one line, and one more every `LINE_SECONDS` while it goes on. Nothing is shown, and
rich is not imported, before the work has taken `PATIENCE` seconds.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from swiftlet.api.client import Client

PATIENCE = 0.3

LINE_SECONDS = 20.0
"""Between two lines of one stage, where there is no terminal."""

ESTIMATE_SECONDS = 5.0
"""A stage must have gone on for so long before it is said how long it will take yet."""

_BYTES = frozenset(("fetch", "unpack"))
"""Stages that are counted in bytes; the others count files."""


class Progress:
    """Shows the `progress` members of a stream's answers; leave it before anything else is printed."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._begin = time.monotonic()
        self._stage = ""
        self._stage_begin = self._line_at = 0.0
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
        else:
            self._write_line(step, time.monotonic())

    def _write_line(self, step: dict[str, Any], now: float) -> None:
        """One line at the beginning of a stage, and one now and then while it goes on."""
        text = " ".join(str(step.get("text", "")).split())
        if step["stage"] != self._stage:
            self._stage, self._stage_begin = str(step["stage"]), now
        elif step.get("total") and now - self._line_at >= LINE_SECONDS:
            count = _count(step["done"], step["total"], self._stage in _BYTES)
            text = count + left_text(step, now - self._stage_begin)
        else:
            return
        self._line_at = now
        sys.stderr.write(f"{self._stage}: {text}\n")
        sys.stderr.flush()

    def _advance(self, step: dict[str, Any]) -> None:
        stage, total = str(step["stage"]), step.get("total") or None
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total, text="", count="")
        done = step.get("done") or 0
        count = _count(done, total, stage in _BYTES)
        text = " ".join(str(step.get("text", "")).split())
        self._bar.update(self._tasks[stage], completed=done, total=total, text=text, count=count)


def last_of(client: Client, method: str, parameters: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """A stream's last answer; the ones before it are shown as progress. Raises what the daemon names."""
    answer: dict[str, Any] = {}
    with Progress(quiet=quiet) as progress:
        for answer, _, _ in client.stream(method, parameters):
            progress.show(answer.get("progress"))
    return answer


def left_text(step: dict[str, Any], elapsed: float) -> str:
    """How long a stage will take yet, from how long it took so far (seconds): `, 3 minutes left`; "" too early."""
    from swiftlet.cli.table import duration_text

    done, total = step.get("done") or 0, step.get("total") or 0
    if elapsed < ESTIMATE_SECONDS or not 0 < done < total:
        return ""
    return f", {duration_text(elapsed * (total - done) / done).lower()} left"


def _count(done: int, total: int | None, is_bytes: bool) -> str:
    from swiftlet.cli.table import size_text

    shown = [size_text(n) if is_bytes else str(n) for n in ([done, total] if total else [done])]
    return "/".join(shown)


def _new_bar() -> Any:
    """A rich progress display, or False where rich is not to be had."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        return False
    bar = Bar(
        TextColumn("{task.description:<9}", markup=False),
        BarColumn(bar_width=30),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[count]:<20} {task.fields[text]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    bar.start()
    return bar
