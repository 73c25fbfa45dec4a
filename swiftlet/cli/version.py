"""`swiftlet version`: the version of the command and of the daemon that runs."""

from __future__ import annotations

import sys

from swiftlet import __version__
from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Parsed
from swiftlet.model.error import SwiftletError


def version(parsed: Parsed) -> int:
    """Print both versions; no daemon is started for it."""
    daemon = daemon_version()
    if parsed.on("json"):
        from swiftlet.cli.table import print_json

        print_json({"command": __version__, "daemon": daemon})
        return 0
    sys.stdout.write(f"swiftlet {__version__}\n")
    if daemon is not None:
        sys.stdout.write(f"daemon   {daemon}\n")
    return 0


def daemon_version() -> str | None:
    """The running daemon's version, None when none can be asked."""
    try:
        with Client(daemon=None) as client:
            return str(client.call("org.varlink.service.GetInfo")[0].get("version"))
    except SwiftletError:
        return None


COMMANDS = (
    Command(
        "version",
        "Show the version of the command and of the running daemon.",
        version,
        usage="[--json]",
        options=(JSON,),
        examples=("swiftlet version", "swiftlet version --json"),
    ),
)
