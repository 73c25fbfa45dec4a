"""`swiftlet kernel`: kernels for guests that are machines; which there are, what is in them and why."""

from __future__ import annotations

import os
import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed, check_one_form
from swiftlet.cli.progress import last_of
from swiftlet.cli.table import age_text, print_json, print_list, printable, size_text
from swiftlet.cli.trim import COMMAND as TRIM
from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PROFILE = "server"


def build(parsed: Parsed) -> int:
    """Build a kernel, or find that it is there."""
    check_one_form(parsed, "kernel build")
    parameters: dict[str, Any] = {
        "profile": parsed.one("profile", DEFAULT_PROFILE),
        "fragments": [fragment(given) for given in parsed.many("config")],
    }
    if parsed.on("source"):
        parameters["source"] = _absolute(parsed.one("source"))
    with Client() as client:
        answer = last_of(client, "KernelBuild", parameters, quiet=parsed.on("quiet"))
    kernel = answer["kernel"]
    if parsed.on("json"):
        print_json({**kernel, "reused": answer["reused"]})
    elif parsed.on("quiet"):
        sys.stdout.write(f"{kernel['digest']}\n")
    else:
        how = "was there already" if answer["reused"] else f"built in {kernel['seconds']:.0f} s"
        sizes = f"{kernel['options']} options, vmlinux {size_text(kernel['bytes'])}"
        sys.stdout.write(f"{kernel['name']}  {kernel['digest'][:12]}  Linux {kernel['version']}, {sizes}, {how}\n")
    return 0


_FRAGMENT = 1 << 20
"""Characters of the longest configuration that is read: distributions' have a quarter."""


def fragment(given: str, flag: str = "--config") -> dict[str, str]:
    """A fragment of the caller's own, read here because the daemon has another folder; else one of swiftlet's."""
    if "/" not in given and not given.endswith(".config"):
        return {"name": given}
    try:
        if os.path.exists(given) and not os.path.isfile(given):
            raise InputError(f"{flag} {given}: not a file")
        with open(given, encoding="utf-8") as file:
            text = file.read(_FRAGMENT + 1)
    except OSError as error:
        raise InputError(f"{flag} {given}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{flag} {given}: not a text") from None
    if len(text) > _FRAGMENT:
        raise InputError(f"{flag} {given}: more than {_FRAGMENT >> 20} MiB are no configuration")
    return {"name": os.path.basename(given), "text": text}


def import_(parsed: Parsed) -> int:
    """Take a kernel that was not built here."""
    check_one_form(parsed, "kernel import")
    parameters: dict[str, Any] = {"path": _absolute(parsed.arguments[0])}
    if parsed.on("modules"):
        parameters["modules"] = _absolute(parsed.one("modules"))
    if parsed.on("name"):
        parameters["name"] = parsed.one("name")
    with Client() as client:
        answer = client.call("KernelImport", parameters)[0]
    kernel = answer["kernel"]
    if parsed.on("json"):
        print_json({**kernel, "reused": answer["reused"]})
    elif parsed.on("quiet"):
        sys.stdout.write(f"{kernel['digest']}\n")
    else:
        sizes = ", ".join(f"{name} {size_text(kernel['sizes'][name])}" for name in ("bzimage", "initramfs"))
        how = ", was there already" if answer["reused"] else ""
        sys.stdout.write(f"{kernel['name']}  {kernel['digest'][:12]}  Linux {kernel['version']}, {sizes}{how}\n")
    return 0


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def ls(parsed: Parsed) -> int:
    """List the kernels that are there."""
    check_one_form(parsed, "kernel ls")
    with Client() as client:
        kernels = client.call("Kernels")[0]["kernels"]
    titles = ("KERNEL", "NAMES", "VERSION", "OPTIONS", "VMLINUX", "BZIMAGE", "BUILT")
    print_list(parsed, kernels, "digest", titles, _line)
    return 0


def _line(kernel: dict[str, Any]) -> tuple[str, ...]:
    sizes = kernel["sizes"]
    return (
        kernel["digest"][:12],
        ", ".join(kernel["names"]) or "-",
        kernel["version"],
        str(kernel["options"]),
        size_text(kernel["bytes"]),
        size_text(sizes.get("bzimage")),
        age_text(kernel["built_ns"]) if kernel["built_ns"] else "-",
    )


def show(parsed: Parsed) -> int:
    """Show what a kernel is made of."""
    with Client() as client:
        found = client.call("Kernel", {"kernel": parsed.arguments[0]})[0]
    if parsed.on("json"):
        print_json(found)
        return 0
    kernel, sizes = found["kernel"], found["kernel"]["sizes"]
    memory = ", ".join(f"{name} {size_text(sizes[name])}" for name in ("text", "data", "bss") if name in sizes)
    rows = (
        ("kernel", kernel["digest"]),
        ("profile", ", ".join(kernel["names"])),
        ("version", f"Linux {kernel['version']}, {kernel['compiler']}"),
        ("source", f"{kernel['source'].get('path', '-')} ({kernel['source'].get('digest', '')[:12]})"),
        ("options", f"{kernel['options']} on, {len(found['requests'])} asked for ({_fragments(found['requests'])})"),
        ("sizes", f"vmlinux {size_text(kernel['bytes'])}, bzImage {size_text(sizes.get('bzimage'))}"),
        ("memory", memory),
        ("built", f"in {kernel['seconds']:.0f} s, {kernel['steps']} steps"),
        ("folder", kernel["folder"]),
    )
    sys.stdout.write("".join(f"{name:<9}{printable(text)}\n" for name, text in rows))
    return 0


def _fragments(requests: list[dict[str, Any]]) -> str:
    names = [request["fragment"] for request in requests]
    return ", ".join(f"{names.count(name)} by {name}" for name in dict.fromkeys(names))


def diff(parsed: Parsed) -> int:
    """Show in what two kernels differ."""
    before, after = parsed.arguments
    with Client() as client:
        found = client.call("KernelDiff", {"before": before, "after": after})[0]
    if parsed.on("json"):
        print_json(found)
        return 0
    for sign, member in (("-", "only_before"), ("+", "only_after"), ("~", "changed")):
        for change in found[member]:
            sys.stdout.write(f"{sign} {_change(sign, change)}\n")
    counts = (len(found["only_before"]), len(found["only_after"]), len(found["changed"]))
    sys.stdout.write(f"{counts[0]} only in {before}, {counts[1]} only in {after}, {counts[2]} changed\n")
    for name in ("vmlinux", "bzimage", "text", "data", "bss"):
        sizes = [found[side]["sizes"].get(name) for side in ("before", "after")]
        if None not in sizes:
            sys.stdout.write(f"{name:<8} {size_text(sizes[0]):>9} -> {size_text(sizes[1]):>9}  {_grown(*sizes)}\n")
    return 0


def _change(sign: str, change: dict[str, str]) -> str:
    value = f"{change['before']} -> {change['after']}" if sign == "~" else change["after" if sign == "+" else "before"]
    return printable(f"{change['symbol']}={value}")


def _grown(before: int, after: int) -> str:
    return f"{(after - before) / before:+.1%}" if before else ""


def explain(parsed: Parsed) -> int:
    """Say why an option of a kernel is on or off, and what it costs."""
    option, kernel = (*parsed.arguments, None)[:2]
    with Client() as client:
        found = client.call("KernelExplain", {"option": option, "kernel": kernel})[0]
    if parsed.on("json"):
        print_json(found)
        return 0
    lines = []
    for depth, step in enumerate(found["chain"]):
        source = f"  [{step['source']}]" if step["source"] else ""
        lines.append("  " * depth + f"{step['symbol']}={step['value']}: {step['why']}{source}")
    lines += _evidence(found["evidence"], on=found["value"] != "n") if found.get("evidence") else []
    lines += _costs(found) if found["value"] != "n" else []
    for definition in found["definitions"]:
        lines += _definition(definition)
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    return 0


def _evidence(evidence: dict[str, Any], *, on: bool) -> list[str]:
    """What a derivation knows of the option; of one that is gone, what it was worth in the full kernel."""
    size = size_text(evidence["bytes"]) if evidence["bytes"] is not None else "no object files of its own"
    time = f", {evidence['milliseconds']:.3g} ms of its start" if evidence["milliseconds"] is not None else ""
    return [f"derived: {evidence['told']}", *([] if on else [f"it had, in the full kernel: {size}{time}"])]


def _costs(found: dict[str, Any]) -> list[str]:
    if found["bytes"] is None:
        size = "no object files of its own: its bytes cannot be told"
    else:
        files = "object file" if found["objects"] == 1 else "object files"
        size = f"{size_text(found['bytes'])} in {found['objects']} {files} that would not be there without it"
    time = "not measured" if found["milliseconds"] is None else f"{found['milliseconds']:.3g} ms"
    return [f"costs: {size}", f"start: {time}"]


def _definition(definition: dict[str, Any]) -> list[str]:
    title = definition["title"] or "(nobody can ask for it)"
    lines = ["", f"{title}  [{definition['file']}:{definition['line']}]"]
    if definition["conditions"]:
        lines.append(f"  needs: {' && '.join(definition['conditions'])}")
    if definition["failing"]:
        lines.append(f"  which fails in: {', '.join(definition['failing'])}")
    if definition["selects"]:
        lines.append(f"  selects: {', '.join(definition['selects'])}")
    return lines + [f"  {line}" for line in definition["help"].splitlines()]


def rm(parsed: Parsed) -> int:
    """Remove kernels; what cannot be removed is told, the others are."""
    from swiftlet.cli.lifecycle import each

    def remove(client: Client, kernel: str) -> str:
        return str(client.call("KernelRemove", {"kernel": kernel})[0]["kernel"]["digest"])

    return each(parsed, remove)


_SILENT = Option("-q --quiet", "print the digest only, and no progress")

COMMANDS = (
    Command(
        "kernel build",
        "Build a kernel for machines.",
        build,
        usage="[OPTIONS]",
        options=(
            Option(
                "-p --profile",
                "what it is for (server): micro, net, pmem, toolchain, docker, disk, full, paper",
                "PROFILE",
            ),
            Option("--source", "a kernel tree or an archive of one (Debian's linux-source-6.1)", "PATH"),
            Option("--config", "lines of a configuration over the profile: a file, or pmem", "FRAGMENT", many=True),
            _SILENT,
            JSON,
        ),
        examples=(
            "swiftlet kernel build --profile micro",
            "swiftlet kernel build -p toolchain --config pmem --config ./mine.config",
            "swiftlet kernel build --source ~/linux --json",
        ),
        about="Minutes the first time; the same again is found at once, and one that was broken off goes on.",
    ),
    TRIM,
    Command(
        "kernel import",
        "Take a distribution's kernel for machines.",
        import_,
        usage="[OPTIONS] VMLINUZ",
        arguments=(1, 1),
        options=(
            Option("--modules", "the folder of its modules (/lib/modules/RELEASE beside its /boot)", "FOLDER"),
            Option("--name", "the name by which it is meant (its release)", "NAME"),
            Option("-q --quiet", "print the digest only"),
            JSON,
        ),
        examples=(
            "swiftlet kernel import /boot/vmlinuz-6.1.0-56-cloud-amd64 --name stock",
            "swiftlet kernel import ./boot/vmlinuz-6.1.0-56-cloud-amd64 --modules ./modules --json",
        ),
        about=(
            "It boots with a small initramfs of the modules that a machine needs, on a machine with PCI. What runs on\n"
            "it is as on any other: --kernel NAME."
        ),
    ),
    Command(
        "kernel ls",
        "List the kernels that are built.",
        ls,
        usage="[-q | --json]",
        options=(Option("-q --quiet", "print digests only"), JSON),
        examples=("swiftlet kernel ls", "swiftlet kernel ls --json"),
    ),
    Command(
        "kernel show",
        "Show what a kernel is made of.",
        show,
        usage="[--json] KERNEL",
        arguments=(1, 1),
        options=(JSON,),
        examples=("swiftlet kernel show server", "swiftlet kernel show --json 3f9a"),
        about="KERNEL is the name of a profile (the newest of it) or the beginning of a digest.",
    ),
    Command(
        "kernel diff",
        "Show in what two kernels differ.",
        diff,
        usage="[--json] KERNEL KERNEL",
        arguments=(2, 2),
        options=(JSON,),
        examples=("swiftlet kernel diff net server",),
    ),
    Command(
        "kernel explain",
        "Say why an option of a kernel is on or off.",
        explain,
        usage="[--json] CONFIG_X [KERNEL]",
        arguments=(1, 2),
        options=(JSON,),
        examples=("swiftlet kernel explain CONFIG_CRC16", "swiftlet kernel explain btrfs_fs server"),
        about="KERNEL is the newest one where it is left out.",
    ),
    Command(
        "kernel rm",
        "Remove kernels.",
        rm,
        usage="KERNEL...",
        arguments=(1, -1),
        examples=("swiftlet kernel rm server", "swiftlet kernel rm 3f9a"),
    ),
)
