"""`swiftlet insert`: one more template in a running guest."""

from __future__ import annotations

import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import Command, Option, Parsed
from swiftlet.cli.progress import Progress
from swiftlet.cli.workload import template_path


def insert(parsed: Parsed) -> int:
    """Put a template's files into a running guest."""
    import os

    guest, template = parsed.arguments
    with Client() as client, Progress(quiet=parsed.on("quiet")) as progress:
        parameters = {"guest": guest, "template": template_path(template, os.getcwd())}
        for answer, _, _ in client.stream("Insert", parameters):
            progress.show(answer.get("progress"))
    sys.stdout.write(f"{guest}\n")
    return 0


COMMANDS = (
    Command(
        "insert",
        "Put a template's files into a running guest.",
        insert,
        usage="GUEST TEMPLATE",
        arguments=(2, 2),
        options=(Option("-q --quiet", "show no progress"),),
        examples=("swiftlet insert web coreutils", "swiftlet insert cache deb:strace"),
    ),
)
