"""`swiftlet guest check`: whether a guest, of whatever kind and kernel, has what ordinary software needs."""

from __future__ import annotations

import os
import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed
from swiftlet.cli.table import print_json, printable, table
from swiftlet.cli.workload import OPTIONS, declared
from swiftlet.model.error import InputError, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from swiftlet.cli.progress import Progress
    from swiftlet.gate.verdict import Verdict

PASSED_ON = frozenset(
    ("as", "kernel", "memory", "cpus", "pids", "network", "read-only", "userns", "tmpfs", "cap-add", "cap-drop")
).union(("seccomp", "ulimit", "hostname"))
"""Options of `run` that say what the guest is like: the same ones mean the same here."""


def check(parsed: Parsed) -> int:
    """Run the checks in a guest and print what became of them; 1 when one failed."""
    from swiftlet.cli.progress import Progress

    with Client() as client, Progress(quiet=parsed.on("quiet")) as progress:
        verdicts = _verdicts(parsed, client, progress)
    failed = any(not verdict.ok for verdict in verdicts)
    kind = parsed.one("as", "container")
    if parsed.on("json"):
        print_json({"kind": kind, "ok": not failed, "checks": [verdict._asdict() for verdict in verdicts]})
    else:
        sys.stdout.write(report(verdicts, kind))
    return 1 if failed else 0


def _verdicts(parsed: Parsed, client: Client, progress: Progress) -> list[Verdict]:
    from swiftlet.cli import gate
    from swiftlet.gate.program import host_lines, host_page
    from swiftlet.gate.verdict import COMPARED, MEASURED, judge, said_by

    without = _numbers(parsed)
    program = _program(client, progress)
    names = _names(host_lines(program, "list"), parsed)
    both = [name for name in names if name.partition(".")[0] in (COMPARED, MEASURED)]
    host = said_by(host_lines(program, "run", "--only", ",".join(both))) if both else {}
    listener = gate.Listener(client, host_page(program), progress, len(names))
    workload = workload_of(parsed, program, names, without)
    heard = listener.run(workload)
    circumstances = heard.circumstances
    if "ports" not in workload:
        circumstances = circumstances._replace(web=f"no port can be published with network {workload.get('network')}")
    return judge(names, said_by(heard.lines), host, circumstances)


def _program(client: Client, progress: Progress) -> str:
    for answer, _, _ in client.stream("CheckProgram"):
        progress.show(answer.get("progress"))
        if answer.get("path"):
            return str(answer["path"])
    raise WireError("the node daemon did not say where the checks are")


def _names(known: list[str], parsed: Parsed) -> list[str]:
    from swiftlet.gate.verdict import chosen

    only = [word for text in parsed.many("only") for word in text.split(",") if word]
    try:
        return chosen(known, only)
    except KeyError as error:
        areas = dict.fromkeys(name.partition(".")[0] for name in known)
        hint = f"a check is named as in the table without --only; areas are {', '.join(areas)}"
        raise InputError(f"guest check: there is no check or area {error.args[0]!r}", hint) from None


def _numbers(parsed: Parsed) -> list[str]:
    """The numbers of the system calls that --without names."""
    if not parsed.on("without"):
        return []
    from swiftlet.linux.syscall_table import NUMBERS

    words = [word for text in parsed.many("without") for word in text.split(",") if word]
    unknown = next((word for word in words if word not in NUMBERS), None)
    if unknown is not None:
        raise InputError(f"guest check: there is no system call {unknown!r}", "names are as in `man 2 syscalls`")
    return [str(NUMBERS[word]) for word in words]


def workload_of(parsed: Parsed, program: str, names: list[str], without: list[str]) -> dict[str, Any]:
    """The guest: the program alone, as the options say; its page is published where there is a bridge to do it on."""
    from swiftlet.gate.program import PORT
    from swiftlet.gate.verdict import WEB

    command = [program, "run", "--only", ",".join(names)]
    workload: dict[str, Any] = {"templates": [f"host:{program}"], "remove": True, **declared(parsed, {}, os.getcwd())}
    if without:
        command += ["--without", ",".join(without)]
    if WEB in names and workload.get("network", "bridge") == "bridge":
        command += ["--serve", str(PORT)]
        workload["ports"] = [{"guest": PORT, "host": 0, "host_ip": "127.0.0.1"}]
    return {**workload, "command": command}


def report(verdicts: list[Verdict], kind: str) -> str:
    """A table of all, then what broke and what it usually needs, then the sum."""
    rows: list[tuple[str, ...]] = [
        (each.check, "ok" if each.ok else "FAILED", f"{each.milliseconds:.1f}" if each.ok else "-", _measured(each))
        for each in verdicts
    ]
    lines = [table(("CHECK", "RESULT", "MS", "MEASURED"), rows)]
    failed = [verdict for verdict in verdicts if not verdict.ok]
    for (problem, options), names in _by_problem(failed).items():
        lines.append(f"\n{', '.join(names)}: {printable(problem)}\n")
        if options:
            lines.append(f"  usually needs: {', '.join(options)}\n")
    if failed and kind == "container":
        lines.append("\na container has this host's kernel: look for a right, a limit or a device that it lacks, too\n")
    if failed:
        lines.append(f"\n{len(failed)} of {len(verdicts)} checks failed: not all software will run as a {kind} here\n")
    else:
        lines.append(f"\nall {len(verdicts)} checks passed as a {kind}\n")
    return "".join(lines)


def _by_problem(failed: list[Verdict]) -> dict[tuple[str, tuple[str, ...]], list[str]]:
    """What broke and its options -> the checks; what several stand on is told once."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for verdict in failed:
        found.setdefault((verdict.problem, verdict.options), []).append(verdict.check)
    return found


def _measured(verdict: Verdict) -> str:
    """Numbers as `NAME VALUE`, the host's beside the guest's."""
    parts = []
    for name, value in verdict.values.items():
        if not name.endswith("_host"):
            host = verdict.values.get(f"{name}_host")
            parts.append(f"{name} {_text(value)}" + (f" (host {_text(host)})" if host is not None else ""))
    return ", ".join(parts)


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


COMMANDS = (
    Command(
        "guest check",
        "Prove that a guest has what ordinary software needs.",
        check,
        usage="[--as KIND] [--only NAME,...] [--json] [OPTIONS]",
        options=(
            *(option for option in OPTIONS if option.key in PASSED_ON),
            Option("--only", "these checks or areas (files, signals.mask)", "NAME,...", many=True),
            Option("--without", "play a kernel without these system calls: what then fails?", "CALL,...", many=True),
            Option("-q --quiet", "show no progress"),
            JSON,
        ),
        about=(
            "A program of checks runs in a guest that holds nothing else: algorithms whose results must be this\n"
            "host's within 1e-8, messages between processes, files, signals, threads, timers, memory, sockets,\n"
            "processes, the system's own files, and a page that this host fetches through a published port. The\n"
            "other options are `run`'s. What fails is named with the kernel options that it usually needs. Exit\n"
            "code 1: something failed."
        ),
        examples=(
            "swiftlet guest check",
            "swiftlet guest check --as container --only files,signals.mask --json",
            "swiftlet guest check --network none --memory 256M",
            "swiftlet guest check --as vm --kernel 1f2e3d --cpus 2",
            "swiftlet guest check --only files --without inotify_init1",
        ),
    ),
)
