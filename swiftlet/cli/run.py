"""`swiftlet run`: declares a workload from flags and stays with its guest, or leaves it running."""

from __future__ import annotations

import os
import sys

from swiftlet.api.client import Client
from swiftlet.cli.foreground import follow
from swiftlet.cli.options import Command, Option, Parsed, rewrite_terminal
from swiftlet.cli.workload import OPTIONS, combine, declared
from swiftlet.model.error import InputError, NotFoundError, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = ("container", "vm", "unikernel", "fake")
"""The last is of tests, and in no help."""

UNIKERNEL = "unikernel"
"""The kind of guest whose program is no command: flags may stand behind it."""


def run(parsed: Parsed) -> int:
    """Run a guest; returns its exit code, or 0 with -d."""
    try:
        return _run(parsed)
    except (InputError, NotFoundError) as error:
        from swiftlet.cli.elsewhere import with_terminal

        interactive = parsed.on("interactive") and not parsed.on("tty")
        raise with_terminal(error, parsed.many("template"), interactive=interactive) from None


def _run(parsed: Parsed) -> int:
    with Client() as client:
        workload = workload_of(parsed, client)
        quiet = parsed.on("quiet")
        if parsed.on("from"):
            return _clone(client, parsed, workload)
        if parsed.on("count"):
            raise InputError("run: --count is of clones", "swiftlet run --from GUEST:SNAPSHOT --count NUMBER")
        if parsed.on("detach"):
            return _leave(client, workload, quiet)
        interactive, tty = bool(workload.get("interactive")), bool(workload.get("tty"))
        parameters = {"workload": workload, "detach": False}
        return follow(client, "Run", parameters, interactive=interactive, tty=tty, quiet=quiet)


def workload_of(parsed: Parsed, client: Client, command: str = "run") -> dict[str, Any]:
    """The workload that flags (and a file, which the daemon reads) declare. command: which is typed."""
    for template in parsed.many("template"):
        if template.startswith("-"):
            from swiftlet.cli.elsewhere import TERMINAL

            raise InputError(f"{command}: -t needs the name of a template, not {template!r}", TERMINAL)
    workload = declared(parsed, os.environ, os.getcwd())
    if parsed.on("file"):
        workload = combine(read_file(parsed.one("file"), client), workload)
    if parsed.on("from"):
        return workload
    if workload.get("kind") == UNIKERNEL:
        return _of_program(workload, command)
    if workload.get("kind", _KINDS[0]) not in _KINDS:
        raise InputError(f"{command}: no kind of guest: {workload['kind']}", "--as container, vm or unikernel")
    if not workload.get("templates"):
        given = f" -t {parsed.arguments[0]}" if parsed.arguments else " -t TEMPLATE"
        hint = f"name one, as in: swiftlet {command}{given}; `swiftlet template ls` lists them"
        raise InputError(f"{command}: no template", hint)
    if workload.get("tty"):
        workload["env"] = {"TERM": "xterm", **workload.get("env", {})}
    return workload


def _of_program(workload: dict[str, Any], command: str) -> dict[str, Any]:
    """A unikernel's workload: the file with its tasks is what else would be a command."""
    words = workload.pop("command", [])
    if words:
        workload["program"] = os.path.abspath(words[0])
    if len(words) > 1:
        raise InputError(f"{command}: a unikernel has no arguments: {words[1]}", "its tasks get theirs when called")
    if not workload.get("program"):
        raise InputError(f"{command}: no program", f"swiftlet {command} --as unikernel primes.py -p 7000:7000/udp")
    return workload


def read_file(path: str, client: Client) -> dict[str, Any]:
    """A workload file as a workload, which the daemon makes of its text. Raises InputError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 20)
    except OSError as error:
        raise InputError(f"workload file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"workload file {path} is not UTF-8 text") from None
    absolute = os.path.abspath(path)
    parameters = {"text": text, "base": os.path.dirname(absolute), "path": path}
    workload = client.call("ParseWorkload", parameters)[0].get("workload")
    if not isinstance(workload, dict):
        raise WireError("the node daemon sent no workload")
    return workload


def _clone(client: Client, parsed: Parsed, workload: dict[str, Any]) -> int:
    """Start clones of a snapshot, and leave them running; a name is numbered when there are several."""
    count = int(parsed.one("count", "1")) if parsed.one("count", "1").isdigit() else 0
    if not 0 < count <= _CLONES:
        raise InputError(f"run: --count {parsed.one('count')!r} is not from 1 to {_CLONES}")
    fixed = next((port["host"] for port in workload.get("ports", ()) if port.get("host")), 0)
    if count > 1 and fixed:
        raise InputError(f"run: {count} clones cannot all have port {fixed}", "-p GUEST alone takes any free port")
    name = workload.get("name", "")
    for number in range(1, count + 1):
        asked = {**workload, "name": f"{name}-{number}"} if name and count > 1 else workload
        _leave(client, asked, True, parsed.one("from"))
    return 0


_CLONES = 1000


def _leave(client: Client, workload: dict[str, Any], quiet: bool, snapshot: str = "") -> int:
    from swiftlet.cli.progress import Progress

    if workload.get("interactive") and not workload.get("tty"):
        raise InputError("run -d -i: nobody would write to its standard input", "leave -i out, or write -dit")
    with Progress(quiet=quiet) as progress:
        asked = {"workload": workload, "detach": True, **({"snapshot": snapshot} if snapshot else {})}
        for answer, fds, _ in client.stream("Run", asked):
            for fd in fds:
                os.close(fd)
            progress.show(answer.get("progress"))
            started = answer.get("started")
    if not started:
        raise WireError("the node daemon did not say what it started")
    sys.stdout.write(started["id"][:12] + "\n")
    return 0


COMMANDS = (
    Command(
        "run",
        "Start a guest from templates and run a command in it.",
        run,
        usage="[OPTIONS] -t TEMPLATE... [--] [COMMAND [ARGUMENT...]]",
        arguments=(0, -1),
        ours=0,
        rewrite=rewrite_terminal,
        whole=lambda parsed: parsed.one("as") == UNIKERNEL,
        options=(
            *OPTIONS,
            Option("-d --detach", "leave it running and print its id"),
            Option("-q --quiet", "show no progress"),
            Option("--from", "go on from a snapshot of a virtual machine, detached", "GUEST:NAME"),
            Option("--count", "with --from: so many clones", "NUMBER"),
        ),
        about=(
            "Without COMMAND the first template's entry point runs. Exit code, signals and output are the guest's;\n"
            "Ctrl-P Ctrl-Q leaves a terminal (-it) with the guest running. -t is a template here, so a terminal is\n"
            "asked for with -it (also -ti, -itd, -dit) or --tty. When the reader of the output leaves, so does this\n"
            "command (141), and the guest goes on."
        ),
        examples=(
            "swiftlet run -t python@3.11 -v .:/app -w /app -- python3 app.py",
            "swiftlet run -it --rm -t nodejs@20 -t coreutils -e NAME=x -- node -e 'console.log(process.env.NAME)'",
            "swiftlet run -t deb:redis-server -d --name cache -- redis-server",
            "swiftlet run -t nginx@1.22 -d -p 8080:80 -m 128M --cpus 1 --pids 100 -v ./site:/usr/share/nginx/html:ro",
            "swiftlet run -f workload.yaml --name second",
            "swiftlet run --as unikernel primes.py -d --cpus 4 -p 7000:7000/udp",
            "swiftlet run --from web:ready --count 20",
        ),
    ),
)
