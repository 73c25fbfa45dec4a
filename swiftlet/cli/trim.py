"""`swiftlet kernel trim`: a kernel derived from what checks do, and how it compares with one made by hand."""

from __future__ import annotations

import os
import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed, check_one_form
from swiftlet.cli.progress import last_of
from swiftlet.cli.run import read_file
from swiftlet.cli.table import print_json, printable, size_text, table
from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHOWN = 12
"""Options that make a derived kernel larger than a profile, the largest first; the others are in --json."""


def trim(parsed: Parsed) -> int:
    """Derive a kernel and print what it came to."""
    check_one_form(parsed, "kernel trim")
    with Client() as client:
        asked = _asked(parsed, client)
        try:
            found = last_of(client, "KernelTrim", asked, quiet=parsed.on("quiet"))["derived"]
        except KeyboardInterrupt:
            sys.stderr.write("broken off; the same command goes on where it was\n")
            raise
    if parsed.on("json"):
        print_json(found)
    elif parsed.on("quiet"):
        sys.stdout.write(f"{found['kernel']['digest']}\n")
    else:
        sys.stdout.write(report(found, asked))
    return 0


def _asked(parsed: Parsed, client: Client) -> dict[str, Any]:
    from swiftlet.cli.kernel import fragment

    asked: dict[str, Any] = {
        "workloads": [read_file(path, client) for path in parsed.many("workload")],
        "gate": parsed.on("gate"),
        "fragments": [fragment(given) for given in parsed.many("config")],
        "budget": _budget(parsed.one("budget", "12")),
    }
    for key, member in (("name", "name"), ("compare", "compare")):
        if parsed.on(key):
            asked[member] = parsed.one(key)
    if parsed.on("from"):
        start = parsed.one("from")
        whole = start == "defconfig" or "/" in start or start.endswith(".config")
        asked |= {"wished": _configuration(start)} if whole else {"profile": start}
    if parsed.on("source"):
        asked["source"] = os.path.abspath(os.path.expanduser(parsed.one("source")))
    if not asked["workloads"] and not asked["gate"]:
        raise InputError("kernel trim: no checks", "give --workload FILE, --gate, or both")
    return asked


def _configuration(given: str) -> dict[str, str]:
    """A whole configuration: the tree's own by its name, one of the caller's by its path."""
    from swiftlet.cli.kernel import fragment

    return {"name": given} if given == "defconfig" else fragment(given, "--from")


def _budget(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise InputError(f"--budget: {text!r} is no number of kernels", "12 are usual")
    return int(text)


def report(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """The runs, the kernel beside the full one and the profile's, and what is to be known of it."""
    kernel, compared = found["kernel"], found["compared"]
    runs = [_run(run) for run in found["runs"]]
    lines = [table(("RUN", "RESULT", "OPTIONS OFF", "VMLINUX", "START", "TOOK", "ASKED"), runs), "\n"]
    rows = [
        _beside("full", found["full"], None),
        _beside(kernel["name"], kernel, compared["boot_ms"]),
        _beside(compared["profile"], compared["kernel"], compared["profile_boot_ms"]),
    ]
    lines.append(table(("KERNEL", "OPTIONS", "VMLINUX", "BZIMAGE", "TEXT+DATA+BSS", "START"), rows))
    lines += [f"\n{line}\n" for line in _larger(kernel, compared)]
    if not found["complete"]:
        more = f"{asked['budget']} kernels were not enough to try everything"
        lines.append(f"{more}: the same with a larger --budget goes on\n")
    lines.append(f"{kernel['name']}  {kernel['digest'][:12]}  swiftlet run --as vm --kernel {kernel['name']} ...\n")
    lines.append(f"why an option is in it, or not: swiftlet kernel explain CONFIG_X {kernel['name']}\n")
    return "".join(lines)


def _run(run: dict[str, Any]) -> tuple[str, ...]:
    why = str(run["why"]).partition("\n")[0]
    told = run["what"] if run["passed"] else f"{run['what']}: {why}"
    start = f"{run['boot_ms']:.0f} ms" if run["boot_ms"] >= 0 else "-"
    return (
        str(run["number"]),
        "passed" if run["passed"] else "FAILED",
        str(run["off"]),
        size_text(run["bytes"]) if run["bytes"] else "-",
        start,
        f"{run['seconds']:.0f} s",
        printable(told),
    )


def _beside(name: str, kernel: dict[str, Any], boot_ms: float | None) -> tuple[str, ...]:
    sizes = kernel["sizes"]
    memory = sum(sizes.get(part, 0) for part in ("text", "data", "bss"))
    start = "-" if boot_ms is None or boot_ms < 0 else f"{boot_ms:.0f} ms"
    return (
        printable(name),
        str(kernel["options"]),
        size_text(kernel["bytes"]),
        size_text(sizes.get("bzimage")),
        size_text(memory),
        start,
    )


def _larger(kernel: dict[str, Any], compared: dict[str, Any]) -> list[str]:
    """Whether it is smaller than the profile's kernel; if not, what makes it larger."""
    profile = compared["profile"]
    measures = {"vmlinux": "bytes of vmlinux", "bzimage": "bytes of bzImage"}
    larger = [
        f"{kernel['sizes'][name] - compared['kernel']['sizes'][name]} more {told}"
        for name, told in measures.items()
        if kernel["sizes"][name] > compared["kernel"]["sizes"][name]
    ]
    if not larger:
        return [f"smaller than {profile}, in vmlinux and bzImage"]
    parts = [each for each in compared["only_derived"] if each["bytes"]][:_SHOWN]
    named = ", ".join(f"{each['symbol']} {size_text(each['bytes'])}" for each in parts)
    return [f"larger than {profile} by {' and '.join(larger)}; {profile} has not: {named or 'nothing with objects'}"]


COMMAND = Command(
    "kernel trim",
    "Derive a kernel from what checks do.",
    trim,
    usage="--workload FILE... [OPTIONS]",
    options=(
        Option("--workload", "a workload file that passes by itself, or whose ports answer", "FILE", many=True),
        Option("--gate", "what `swiftlet guest check` checks has to pass, too"),
        Option("--budget", "kernels that may be built, the full one included (12)", "COUNT"),
        Option("--name", "of the kernel that comes out (derived)", "NAME"),
        Option("--from", "the start: a profile (full), defconfig, or a configuration by its path", "START"),
        Option("--config", "lines of a configuration over that profile: a file, or pmem", "FRAGMENT", many=True),
        Option("--source", "a kernel tree or an archive of one (Debian's linux-source-6.1)", "PATH"),
        Option("--compare", "the profile that the result is shown beside (server)", "PROFILE"),
        Option("-q --quiet", "print the digest only, and no progress"),
        JSON,
    ),
    examples=(
        "swiftlet kernel trim --workload checks.yaml",
        "swiftlet kernel trim --workload examples/hello-web/workload.yaml --gate --name hello-web",
        "swiftlet kernel trim --gate --budget 6 --json",
    ),
    about="It takes as long as its kernels do, minutes each. Broken off at any moment, the same command goes on.",
)
