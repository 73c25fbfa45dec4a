"""`swiftlet stats`: what guests use, once or until Ctrl-C."""

from __future__ import annotations

import sys
import time

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed
from swiftlet.cli.table import print_json, size_text, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TITLES = ("GUEST ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PRIVATE", "SHARED", "PIDS")

SAMPLE_SECONDS = 0.5
REFRESH_SECONDS = 1.0

_CLEAR = "\033[H\033[J"


def stats(parsed: Parsed) -> int:
    """Show usage. CPU is counted between two samples, 100 % is one core."""
    once = parsed.on("no-stream") or parsed.on("json") or not sys.stdout.isatty()
    with Client() as client:
        if parsed.on("json"):
            print_json(_sample(client, parsed.arguments)[1])
            return 0
        before = _sample(client, parsed.arguments)
        time.sleep(SAMPLE_SECONDS)
        while True:
            after = _sample(client, parsed.arguments)
            text = table(TITLES, rows(before, after))
            sys.stdout.write(text if once else _CLEAR + text)
            sys.stdout.flush()
            if once:
                return 0
            before = after
            time.sleep(REFRESH_SECONDS)


def rows(before: tuple[int, list[dict[str, Any]]], after: tuple[int, list[dict[str, Any]]]) -> list[tuple[str, ...]]:
    """Lines of the table from two samples, each (monotonic nanoseconds, stats)."""
    earlier = {stat["id"]: stat["cpu_ns"] for stat in before[1]}
    elapsed = max(after[0] - before[0], 1)
    return [_row(stat, (stat["cpu_ns"] - earlier.get(stat["id"], stat["cpu_ns"])) / elapsed) for stat in after[1]]


def _row(stat: dict[str, Any], cores: float) -> tuple[str, ...]:
    used, limit = stat["memory_bytes"], stat.get("memory_limit")
    return (
        stat["id"][:12],
        stat["name"],
        f"{cores * 100:.2f}%",
        f"{size_text(used)} / {size_text(limit) if limit else 'none'}",
        f"{used / limit * 100:.2f}%" if limit else "-",
        size_text(stat.get("private_bytes")),
        size_text(stat.get("shared_bytes")),
        str(stat["pids"]),
    )


def _sample(client: Client, guests: list[str]) -> tuple[int, list[dict[str, Any]]]:
    found = client.call("Stats", {"guests": guests})[0]["stats"]
    return time.monotonic_ns(), found


COMMANDS = (
    Command(
        "stats",
        "Show what running guests use: CPU, memory, processes.",
        stats,
        usage="[--no-stream | --json] [GUEST...]",
        arguments=(0, -1),
        options=(Option("--no-stream", "once, instead of every second until Ctrl-C"), JSON),
        about=(
            "CPU %        of one core, between two samples\n"
            "MEM USAGE    what the kernel charges to the guest's control group, and holds against its limit: memory,\n"
            "             files in the page cache (charged to whoever read them first), the kernel's own for it\n"
            "PRIVATE      pages in the memory of its processes that one process alone maps, files' pages among them\n"
            "SHARED       its part of the pages that several processes map (a library of two guests: half to each)\n"
            "PIDS         processes and threads\n\n"
            "PRIVATE and SHARED, summed over guests, are what guests have mapped, no page twice. They can exceed MEM\n"
            "USAGE: a file that this host or another guest read first is mapped here and charged there."
        ),
        examples=("swiftlet stats", "swiftlet stats --no-stream cache", "swiftlet stats --json"),
    ),
)
