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
            return _stay(client, parsed.arguments[0], interactive=parsed.on("interactive"), quiet=parsed.on("quiet"))
        for guest in parsed.arguments:
            with Progress(quiet=parsed.on("quiet")) as progress:
                for answer, fds, _ in client.stream("Start", {"guest": guest, "attach": False}):
                    progress.show(answer.get("progress"))
                    for fd in fds:
                        os.close(fd)
            sys.stdout.write(f"{guest}\n")
    return 0


def _stay(client: Client, guest: str, *, interactive: bool, quiet: bool) -> int:
    tty = False
    if interactive:  # whether it has a terminal was said when it was declared
        tty = bool(client.call("Inspect", {"guest": guest})[0]["guest"]["workload"].get("tty"))
    return follow(client, "Start", {"guest": guest, "attach": True}, interactive=interactive, tty=tty, quiet=quiet)


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
        usage="[-a [-i]] GUEST...",
        arguments=(1, -1),
        options=(
            Option("-a --attach", "stay with the guest: its output, signals and exit code"),
            Option("-i --interactive", "pass standard input on (with -a)"),
            Option("-q --quiet", "show no progress"),
        ),
        examples=("swiftlet start cache", "swiftlet start -a job", "swiftlet start -ai shell"),
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
