"""`swiftlet wait`, `kill`, `stop` and `rm`: calls about guests, each tried whatever became of the one before."""

from __future__ import annotations

import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import Command, Option, Parsed
from swiftlet.model.error import InputError, SwiftletError, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


DEATHS = 10
"""Daemons that may die one after the other before `wait` gives up."""


def each(parsed: Parsed, act: Callable[[Client, str], str]) -> int:
    """Do something to every guest named, printing what `act` returns; the first error's exit code is ours."""
    code = 0
    with Client() as client:
        for guest in parsed.arguments:
            try:
                sys.stdout.write(f"{act(client, guest)}\n")
            except SwiftletError as error:
                from swiftlet.cli.main import print_error

                sys.stdout.flush()
                print_error(error)
                code = code or error.exit_code
    return code


def wait(parsed: Parsed) -> int:
    """Print the exit code of each guest when it has ended."""
    return each(parsed, _ended)


def _ended(client: Client, guest: str) -> str:
    """The exit code of a guest, asked for at the next daemon when one dies meanwhile."""
    deaths = 0
    while True:
        try:
            return str(client.call("Wait", {"guest": guest})[0]["exited"]["code"])
        except WireError:
            deaths += 1
            if deaths == DEATHS:
                raise


def kill(parsed: Parsed) -> int:
    """Send a signal to each guest."""
    signal = signal_name(parsed.one("signal", "KILL"))

    def act(client: Client, guest: str) -> str:
        client.call("Kill", {"guest": guest, "signal": signal})
        return guest

    return each(parsed, act)


def stop(parsed: Parsed) -> int:
    """Ask each guest to end, and kill it after a time."""
    timeout = _seconds(parsed.one("timeout")) if parsed.on("timeout") else None

    def act(client: Client, guest: str) -> str:
        client.call("Stop", {"guest": guest, "timeout": timeout})
        return guest

    return each(parsed, act)


def rm(parsed: Parsed) -> int:
    """Remove each guest."""

    def act(client: Client, guest: str) -> str:
        client.call("Remove", {"guest": guest, "force": parsed.on("force")})
        return guest

    return each(parsed, act)


def signal_name(text: str) -> str:
    """`SIGTERM` for TERM, sigterm or 15. Raises InputError."""
    import signal

    try:
        if text.isdigit():
            return signal.Signals(int(text)).name
        name = text.upper()
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].name
    except (ValueError, KeyError):
        raise InputError(f"there is no signal {text!r}", "`kill -l` lists them") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1 << 32:
        raise InputError(f"--timeout: {text!r} is not a number of seconds")
    return seconds


COMMANDS = (
    Command(
        "wait",
        "Wait until guests have ended and print their exit codes.",
        wait,
        usage="GUEST...",
        arguments=(1, -1),
        examples=("swiftlet wait job",),
    ),
    Command(
        "kill",
        "Send a signal to guests (SIGKILL when none is named).",
        kill,
        usage="[-s SIGNAL] GUEST...",
        arguments=(1, -1),
        options=(Option("-s --signal", "name or number of the signal", "SIGNAL"),),
        examples=("swiftlet kill cache", "swiftlet kill -s HUP web"),
    ),
    Command(
        "stop",
        "Ask guests to end; kill those that do not.",
        stop,
        usage="[--timeout SECONDS] GUEST...",
        arguments=(1, -1),
        options=(
            Option("-t --time --timeout", "seconds to wait before killing (the guest's stop_timeout)", "SECONDS"),
        ),
        examples=("swiftlet stop cache", "swiftlet stop --timeout 2 web cache"),
    ),
    Command(
        "rm",
        "Remove stopped guests with all they wrote.",
        rm,
        usage="[-f] GUEST...",
        arguments=(1, -1),
        options=(Option("-f --force", "running guests too: kill them first"),),
        examples=("swiftlet rm cache", "swiftlet rm -f web"),
    ),
)
