"""`swiftlet start` and `swiftlet attach`: a stopped guest again, and a running guest's output here."""

from __future__ import annotations

import os
import sys

from swiftlet.api.client import Client
from swiftlet.cli.foreground import follow
from swiftlet.cli.options import Command, Option, Parsed
from swiftlet.cli.progress import Progress
from swiftlet.model.error import InputError


def start(parsed: Parsed) -> int:
    """Start guests; with -a stay with the one named and return its exit code."""
    with Client() as client:
        if parsed.on("attach"):
            if len(parsed.arguments) > 1:
                raise InputError("start: only one guest can be attached to", "leave -a out to start several")
            guest = parsed.arguments[0]
            return follow(client, "Start", {"guest": guest, "attach": True}, quiet=parsed.on("quiet"))
        for guest in parsed.arguments:
            with Progress(quiet=parsed.on("quiet")) as progress:
                for answer, fds, _ in client.stream("Start", {"guest": guest, "attach": False}):
                    progress.show(answer.get("progress"))
                    for fd in fds:
                        os.close(fd)
            sys.stdout.write(f"{guest}\n")
    return 0


def attach(parsed: Parsed) -> int:
    """Show a running guest's output from now on (and give it our keys, where it has a terminal)."""
    with Client() as client:
        keys = os.isatty(0) and not parsed.on("no-stdin")
        return follow(client, "Attach", {"guest": parsed.arguments[0]}, interactive=keys, tty=keys)


COMMANDS = (
    Command(
        "start",
        "Start stopped guests again.",
        start,
        usage="[-a] GUEST...",
        arguments=(1, -1),
        options=(
            Option("-a --attach", "stay with the guest: its output, signals and exit code"),
            Option("-q --quiet", "show no progress"),
        ),
        examples=("swiftlet start cache", "swiftlet start -a job"),
    ),
    Command(
        "attach",
        "Follow a running guest's output, and its terminal where it has one.",
        attach,
        usage="[--no-stdin] GUEST",
        arguments=(1, 1),
        options=(Option("--no-stdin", "watch only: keys stay here"),),
        about="Signals go to the guest; Ctrl-P Ctrl-Q leaves a terminal with the guest running.",
        examples=("swiftlet attach shell", "swiftlet attach --no-stdin shell"),
    ),
)
