"""`swiftlet exec`: one more command in a running guest."""

from __future__ import annotations

import os

from swiftlet.api.client import Client
from swiftlet.cli.foreground import follow
from swiftlet.cli.options import Command, Option, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def execute(parsed: Parsed) -> int:
    """Run a command; returns its exit code, or 0 with -d."""
    parameters = parameters_of(parsed)
    with Client() as client:
        if parameters["detach"]:
            for _, fds, _ in client.stream("Exec", parameters):
                for fd in fds:
                    os.close(fd)
            return 0
        return follow(client, "Exec", parameters, interactive=parameters["interactive"], tty=parameters["tty"])


def parameters_of(parsed: Parsed) -> dict[str, Any]:
    """What `Exec` is called with."""
    from swiftlet.cli.workload import environment_of

    variables = environment_of(parsed, os.environ)
    return {
        "guest": parsed.arguments[0],
        "command": parsed.arguments[1:],
        "env": {"TERM": "xterm", **variables} if parsed.on("tty") else variables,
        "workdir": parsed.one("workdir"),
        "user": parsed.one("user"),
        "tty": parsed.on("tty"),
        "interactive": parsed.on("interactive") and not parsed.on("detach"),
        "detach": parsed.on("detach"),
    }


COMMANDS = (
    Command(
        "exec",
        "Run a command in a running guest.",
        execute,
        usage="[OPTIONS] GUEST [--] COMMAND [ARGUMENT...]",
        arguments=(2, -1),
        ours=1,
        options=(
            Option("-i --interactive", "pass standard input on"),
            Option("-t --tty", "give the command a terminal"),
            Option("-d --detach", "leave it running"),
            Option("-e --env", "a variable; NAME alone takes its value here", "NAME[=VALUE]", many=True),
            Option("--env-file", "a file with a NAME=VALUE on each line", "FILE", many=True),
            Option("-w --workdir", "working directory in the guest", "PATH"),
            Option("-u --user", "user (and group) of the command", "USER[:GROUP]"),
        ),
        about="Unlike with `run`, -t is the terminal here, as with docker. Ctrl-P Ctrl-Q leaves it.",
        examples=(
            "swiftlet exec -it cache -- redis-cli",
            "swiftlet exec cache redis-cli PING",
            "swiftlet exec -u www-data -e LANG=C.UTF-8 -w /srv web -- nginx -t",
        ),
    ),
)
