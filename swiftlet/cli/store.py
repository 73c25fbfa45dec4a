"""`swiftlet store`: how full it is, whether it is whole, and what nobody needs any more."""

from __future__ import annotations

import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed
from swiftlet.cli.progress import Progress
from swiftlet.cli.table import print_json, size_text
from swiftlet.cli.template import REPAIR, report_damage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def stat(parsed: Parsed) -> int:
    """Print what the store holds."""
    with Client() as client:
        found = client.call("StoreStat")[0]
    if parsed.on("json"):
        print_json(found)
        return 0
    lines = [
        ("objects", f"{found['objects']} ({size_text(found['object_bytes'])})"),
        ("shared", f"{size_text(found['shared_bytes'])} used more than once"),
        ("trees", str(found["trees"])),
        ("closures", str(found["closures"])),
        ("guests", str(found["guests"])),
        ("cache", size_text(found["cache_bytes"])),
    ]
    sys.stdout.write("".join(f"{name:<10}{value}\n" for name, value in lines))
    return 0


def verify(parsed: Parsed) -> int:
    """Check every object against its name."""
    answer: dict[str, Any] = {}
    with Client() as client, Progress(quiet=parsed.on("quiet")) as progress:
        for answer, _, _ in client.stream("StoreVerify", {"repair": parsed.on("repair")}):
            progress.show(answer.get("progress"))
    return report_damage(answer, parsed)


def gc(parsed: Parsed) -> int:
    """Remove what no template and no guest needs."""
    dry = parsed.on("dry-run")
    with Client() as client:
        found = client.call("StoreGc", {"cache": parsed.on("cache"), "dry_run": dry})[0]
    if parsed.on("json"):
        print_json(found)
        return 0
    verb = "would remove" if dry else "removed"
    counts = f"{found['objects']} objects, {found['trees']} trees, {found['closures']} closures"
    sys.stdout.write(f"{verb} {counts}: {size_text(found['bytes'])}\n")
    return 0


COMMANDS = (
    Command(
        "store stat",
        "Show what the store holds.",
        stat,
        usage="[--json]",
        options=(JSON,),
        examples=("swiftlet store stat", "swiftlet store stat --json"),
    ),
    Command(
        "store verify",
        "Check every stored file against its digest.",
        verify,
        usage="[--repair] [--json]",
        options=(REPAIR, Option("-q --quiet", "show no progress"), JSON),
        examples=("swiftlet store verify", "swiftlet store verify --repair"),
    ),
    Command(
        "store gc",
        "Remove what no template and no guest needs.",
        gc,
        usage="[--dry-run] [--cache]",
        options=(
            Option("--cache", "the cache of downloads too"),
            Option("--dry-run", "only say what would be removed"),
            JSON,
        ),
        examples=("swiftlet store gc", "swiftlet store gc --dry-run --cache"),
    ),
)
