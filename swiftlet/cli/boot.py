"""`swiftlet boot profile`: where the time of a virtual machine's start goes, in tables and in a figure."""

from __future__ import annotations

import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed
from swiftlet.cli.progress import Progress
from swiftlet.cli.run import workload_of
from swiftlet.cli.table import print_json, table
from swiftlet.cli.workload import OPTIONS as WORKLOAD_OPTIONS
from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROWS = 15


_OF_WORKLOADS = ("as", "kernel", "memory", "disk", "cpus", "publish", "volume", "env", "network", "user", "workdir")


def profile(parsed: Parsed) -> int:
    """Start copies of a machine, look into them, show what was seen."""
    path = parsed.one("output")
    if path:
        from swiftlet.cli.bootfigure import check_path

        check_path(path)
    found: dict[str, Any] = {}
    with Client() as client:
        asked = _asked(parsed, client)
        with Progress(quiet=parsed.on("quiet")) as progress:
            for answer, _, _ in client.stream("BootProfile", asked):
                progress.show(answer.get("progress"))
                found = answer.get("profile") or found
    if path:
        from swiftlet.cli.bootfigure import write

        write(found, path)
    if parsed.on("json"):
        print_json(found)
    elif not parsed.on("quiet"):
        sys.stdout.write(text_of(found))
    return 0


def _asked(parsed: Parsed, client: Client) -> dict[str, Any]:
    if parsed.on("template") or parsed.on("file"):
        return {"workload": workload_of(parsed, client, "boot profile")}
    if len(parsed.arguments) != 1:
        raise InputError(
            "boot profile: name one guest, or a workload with -t or -f", "swiftlet boot profile --help shows examples"
        )
    for name in _OF_WORKLOADS:
        if parsed.on(name):
            raise InputError(
                f"boot profile: --{name} beside a guest, which has its own", "name a workload with -t or -f"
            )
    return {"guest": parsed.arguments[0]}


def text_of(found: dict[str, Any]) -> str:
    """The whole report for a terminal."""
    parts = [
        _heading(found),
        table(("MARK", "MS", "LOOKED INTO", "HOW IT IS KNOWN"), [_mark(mark) for mark in found["marks"]]),
        _calls(found["initcalls"]),
        _removable(found["removable"]),
        _self_times(found["stacks"]),
        _looks(found),
    ]
    return "\n".join(part for part in parts if part)


def _heading(found: dict[str, Any]) -> str:
    kernel, machine = found["kernel"], found["machine"]
    return (
        f"{', '.join(found['templates'])} on Linux {kernel['version']} ({kernel['name'] or kernel['digest'][:12]}), "
        f"{machine['type']}, {machine['accelerator']}, {machine['processors']} processor(s)\n"
    )


def _mark(mark: dict[str, Any]) -> tuple[str, ...]:
    return mark["mark"], _ms(mark["ms"]), _ms(mark["watched_ms"]), mark["how"]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _calls(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no initcalls: this kernel keeps no log that can be read\n"
    whole = sum(row["ms"] for row in rows)
    shown: list[tuple[str, ...]] = [
        (
            f"{'~' * row['coarse']}{row['ms']:.2f}",
            _ms(row["start_ms"]),
            row["name"],
            row["object"] or "-",
            " or ".join(row["options"]) or "-",
        )
        for row in rows[:ROWS]
    ]
    text = table(("MS", "AT", "INITCALL", "OBJECT", "OPTION"), shown)
    left = f", the longest {len(shown)} above" if len(rows) > len(shown) else ""
    what = f"{len(rows)} initcalls, {whole:.1f} ms{left}"
    told = f"{text}{what}; the kernel's own times, ~ by looks where its clock was coarse\n"
    return told if any(row["object"] for row in rows) else f"{told}{_NO_OBJECTS}\n"


_NO_OBJECTS = (
    "no options are known: the kernel's source has gone, or it was built before its objects were listed beside it"
)


def _removable(rows: list[dict[str, Any]]) -> str:
    shown: list[tuple[str, ...]] = [
        (f"{row['ms']:.2f}", row["option"] or "-", _few(row["calls"]), row["known"]) for row in rows[:ROWS]
    ]
    return table(("MS", "TO REMOVE", "WHAT RUNS", "HOW IT IS KNOWN"), shown) if shown else ""


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _self_times(stacks: list[dict[str, Any]]) -> str:
    """Where the processors were until the workload began, by the innermost function."""
    found: dict[tuple[str, str], float] = {}
    for stack in (each for each in stacks if each["part"] == "boot"):
        key = stack["frames"][0], stack["frames"][-1]
        found[key] = found.get(key, 0.0) + stack["ms"]
    whole = sum(found.values())
    rows = sorted(found.items(), key=lambda item: -item[1])[:ROWS]
    shown: list[tuple[str, ...]] = [(f"{ms:.1f}", f"{ms / whole:.1%}", *key) for key, ms in rows] if whole else []
    return table(("MS", "SHARE", "IN", "FUNCTION ITSELF, UNTIL THE WORKLOAD"), shown) if shown else ""


def _looks(found: dict[str, Any]) -> str:
    looks, cost = found["looks"], found["cost"]
    count = max(1, looks["count"])
    text = (
        f"{looks['count']} looks: {looks['functions'] / count:.1%} with every function named, "
        f"{looks['files'] / count:.1%} with the file only, {looks['unknown'] / count:.1%} with neither; "
        f"the machine stood still for {looks['paused_ms']:.0f} ms meanwhile\n"
    )
    if not found["stacks_read"]:
        text += "stacks are of one function each: this kernel has no tables for its stacks that are known here\n"
    if cost["ms"]:
        more = cost["unpaused_ms"] / cost["ms"] - 1
        text += (
            f"from QEMU's begin to {cost['until']}: {cost['ms']:.0f} ms as it always is, {cost['watched_ms']:.0f} "
            f"looked into, {cost['unpaused_ms']:.0f} of these without the pauses ({more:+.1%})\n"
        )
    return text


_NOT_HERE = frozenset(("interactive", "tty", "rm", "name"))

COMMANDS = (
    Command(
        "boot profile",
        "Show where the time of a virtual machine's start goes.",
        profile,
        usage="[OPTIONS] GUEST | [OPTIONS] --as vm -t TEMPLATE [-- COMMAND...]",
        arguments=(0, -1),
        options=(
            Option("-o --output", "draw timeline and flame graph: FILE.svg or FILE.png", "FILE"),
            Option("-q --quiet", "show nothing, only draw"),
            *(option for option in WORKLOAD_OPTIONS if option.key not in _NOT_HERE),
            JSON,
        ),
        about=(
            "Two throw-away copies of the guest are started: one as it always is, for the marks, and one that is\n"
            "stopped every 2 ms to see where it is. The guest itself is left alone."
        ),
        examples=(
            "swiftlet boot profile web",
            "swiftlet boot profile web -o boot.svg",
            "swiftlet boot profile --as vm -t python@3.11 --json -- python3 -c pass",
        ),
    ),
)
