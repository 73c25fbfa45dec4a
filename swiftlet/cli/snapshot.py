"""`swiftlet snapshot`: saves a running virtual machine, from which clones go on; lists and removes what was saved."""

from __future__ import annotations

import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed
from swiftlet.cli.table import age_text, print_json, print_table, size_text
from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def take(parsed: Parsed) -> int:
    """Save a guest under a name."""
    guest, name = parsed.arguments
    if parsed.on("now") and parsed.on("port"):
        raise InputError("--now and --port: either it is waited for, or not")
    asked: dict[str, Any] = {"guest": guest, "name": name}
    if parsed.on("now") or parsed.on("port"):
        asked["ports"] = [_port(each) for each in parsed.many("port")]
    with Client() as client:
        answer, _ = client.call("Snapshot", asked)
    sys.stdout.write(f"{answer['snapshot']['name']}\n")
    return 0


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise InputError(f"--port: {text!r} is no port of the guest", "a number from 1 to 65535")
    return int(text)


def listing(parsed: Parsed) -> int:
    """All snapshots."""
    with Client() as client:
        found = client.call("Snapshots", {})[0]["snapshots"]
    if parsed.on("json"):
        print_json(found)
        return 0
    rows: list[tuple[str, ...]] = []
    for each in found:
        sizes = size_text(each["memory"]), size_text(each["bytes"])
        clones = str(len(each["clones"]))
        rows.append((each["name"], ",".join(each["templates"]), *sizes, clones, age_text(each["created_ns"])))
    print_table(("SNAPSHOT", "TEMPLATES", "MEMORY", "ON DISK", "CLONES", "CREATED"), rows)
    return 0


def remove(parsed: Parsed) -> int:
    """Remove snapshots; clones that run go on."""
    from swiftlet.cli.lifecycle import each

    def act(client: Client, name: str) -> str:
        client.call("RemoveSnapshot", {"snapshot": name})
        return name

    return each(parsed, act)


COMMANDS = (
    Command(
        "snapshot take",
        "Save a running virtual machine, to start clones from it.",
        take,
        usage="GUEST NAME",
        arguments=(2, 2),
        about=(
            "Waits until the guest listens on every TCP port that it publishes, a minute at most, has run for\n"
            "three seconds, and has nothing to do, a second at most. Then the machine stands still for a moment\n"
            "and goes on; signals and commands for it wait until then. The word `take` may be left out.\n"
            "`swiftlet run --from GUEST:NAME` starts a clone: the same machine with a name, an address, a clock and\n"
            "random numbers of its own."
        ),
        options=(
            Option("--port", "wait until the guest listens on this port of its own instead", "PORT", many=True),
            Option("--now", "wait for nothing"),
        ),
        examples=(
            "swiftlet snapshot take web ready",
            "swiftlet snapshot take web ready --port 8000",
            "swiftlet snapshot take web early --now",
        ),
    ),
    Command(
        "snapshot ls",
        "List the machines that were saved.",
        listing,
        about="CLONES: guests that were made of it, running or stopped; --json has their names.",
        options=(JSON,),
        examples=("swiftlet snapshot ls",),
    ),
    Command(
        "snapshot rm",
        "Remove saved machines; clones that run go on, stopped ones cannot be started again.",
        remove,
        usage="GUEST:NAME...",
        arguments=(1, -1),
        examples=("swiftlet snapshot rm web:ready",),
    ),
)
