"""`swiftlet ps`: the guests of this host."""

from __future__ import annotations

import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, QUIET, Command, Option, Parsed, check_one_form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TITLES = ("GUEST ID", "TEMPLATES", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")


def ps(parsed: Parsed) -> int:
    """List guests, newest first."""
    check_one_form(parsed, "ps")
    with Client() as client:
        guests = client.call("List", {"all": parsed.on("all")})[0]["guests"]
    guests.sort(key=lambda guest: -guest["created_ns"])
    if parsed.on("quiet"):
        sys.stdout.write("".join(f"{guest['id'][:12]}\n" for guest in guests))
        return 0
    from swiftlet.cli.table import print_json, print_table

    if parsed.on("json"):
        print_json(guests)
    else:
        print_table(TITLES, [row(guest, parsed.on("no-trunc")) for guest in guests])
    return 0


def row(guest: dict[str, Any], whole: bool = False) -> tuple[str, ...]:
    """One line of the table."""
    from swiftlet.cli.table import age_text, status_text

    command = " ".join(guest["command"])
    if guest["kind"] == "unikernel" and not whole:
        command = command.rpartition("/")[2]
    if len(command) > 30 and not whole:
        command = command[:29] + "…"
    return (
        guest["id"] if whole else guest["id"][:12],
        ",".join(guest["templates"]),
        f'"{command}"',
        age_text(guest["created_ns"]),
        status_text(guest),
        ", ".join(guest.get("ports") or []),
        guest["name"],
    )


COMMANDS = (
    Command(
        "ps",
        "List running guests, newest first.",
        ps,
        usage="[-a] [-q | --json]",
        options=(
            Option("-a --all", "stopped guests too"),
            QUIET,
            JSON,
            Option("--no-trunc", "show ids and commands whole"),
        ),
        examples=("swiftlet ps", "swiftlet ps -a", "swiftlet ps -q", "swiftlet ps --json"),
    ),
)
