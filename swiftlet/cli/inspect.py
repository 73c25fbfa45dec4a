"""`swiftlet inspect`: everything that is known of guests, as JSON."""

from __future__ import annotations

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Parsed
from swiftlet.cli.table import print_json


def inspect(parsed: Parsed) -> int:
    """Print a list with one object for each guest named."""
    with Client() as client:
        found = [client.call("Inspect", {"guest": guest})[0]["guest"] for guest in parsed.arguments]
    print_json(found)
    return 0


COMMANDS = (
    Command(
        "inspect",
        "Show everything that is known of guests: workload, bundle, states, network, usage.",
        inspect,
        usage="GUEST...",
        arguments=(1, -1),
        options=(JSON,),
        about="The output is always a JSON list, as with docker.",
        examples=("swiftlet inspect cache", "swiftlet inspect --json cache web"),
    ),
)
