"""`swiftlet image`: disk images of workloads, for hosts that swiftlet does not run on."""

from __future__ import annotations

import os
import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed
from swiftlet.cli.progress import Progress
from swiftlet.cli.run import workload_of
from swiftlet.cli.table import print_json, print_table, size_text
from swiftlet.cli.workload import OPTIONS as WORKLOAD_OPTIONS
from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMATS = ("raw", "qcow2", "vhd", "ova")
"""What a NAME may end in, which is then no part of it. The daemon decides what there is."""


def build(parsed: Parsed) -> int:
    """Make disk images of a workload and say where they are."""
    answer: dict[str, Any] = {}
    quiet = parsed.on("quiet")
    with Client() as client:
        workload = workload_of(parsed, client, "image build")
        output, formats = _output(parsed, workload)
        asked = {
            "workload": workload,
            "output": output,
            "formats": formats,
            "firmware": _words(parsed.one("firmware", "bios,efi")),
            "size": _size(parsed),
            "at_end": parsed.one("at-end", "off"),
            "compress": parsed.on("compress"),
        }
        with Progress(quiet=quiet) as progress:
            for answer, _, _ in client.stream("ImageBuild", asked):
                progress.show(answer.get("progress"))
    images = answer["images"]
    if parsed.on("json"):
        print_json(images)
    elif quiet:
        sys.stdout.write("".join(f"{image['path']}\n" for image in images))
    else:
        rows = [_row(image) for image in images]
        print_table(("FORMAT", "SIZE", "ON DISK", "SHA256", "PATH"), rows)
    return 0


def _row(image: dict[str, Any]) -> tuple[str, ...]:
    sizes = size_text(image["bytes"]), size_text(image["disk_bytes"])
    return image["format"], *sizes, image["digest"][:12], image["path"]


def _output(parsed: Parsed, workload: dict[str, Any]) -> tuple[str, list[str]]:
    """Where to, without an ending, and the formats: what was asked for, else what the name ends in, else raw."""
    name = parsed.one("output") or workload.get("name") or _name_of(str(workload["templates"][0]))
    stem, dot, ending = name.rpartition(".")
    known = bool(dot and stem and ending in FORMATS)
    formats = _words(parsed.one("format")) if parsed.on("format") else [ending if known else "raw"]
    path = os.path.abspath(stem if known else name)
    if not os.path.basename(path) or name.endswith("/"):
        raise InputError(f"-o: {name} names a folder", f"name the image too: {name.rstrip('/')}/NAME")
    return path, formats


def _name_of(template: str) -> str:
    """A file's name from a template's: python@3.11 is python-3.11."""
    name = os.path.basename(template)
    return name.removesuffix(".yaml").removesuffix(".yml").replace("@", "-").replace(":", "-").replace("=", "-")


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _size(parsed: Parsed) -> int:
    if not parsed.on("size"):
        return 0
    from swiftlet.model.spelling import parse_size

    return parse_size(parsed.one("size"))


_OF_A_GUEST = frozenset(
    ("volume", "interactive", "tty", "rm", "publish", "network", "userns", "seccomp", "as", "stop-timeout")
)
"""Options of `run` that mean nothing for a machine that starts somewhere else."""

COMMANDS = (
    Command(
        "image build",
        "Make a disk image of a workload that boots anywhere.",
        build,
        usage="[OPTIONS] -t TEMPLATE [-- COMMAND...]",
        arguments=(0, -1),
        ours=0,
        options=(
            Option("-o --output", "the images' path without their ending; the template's name is usual", "NAME"),
            Option("--format", "raw (usual), qcow2, vhd, ova, separated by commas", "FORMATS"),
            Option("--firmware", "bios, efi or both (usual) that are to start it", "FIRMWARE"),
            Option("--size", "of the disk: what is written stays there; else it is in memory", "SIZE"),
            Option("--at-end", "when the workload has ended: off (usual), restart or stay", "WHAT"),
            Option("--compress", "the root: half as large, and its machine takes longer to read it"),
            *(option for option in WORKLOAD_OPTIONS if option.key not in _OF_A_GUEST),
            Option("-q --quiet", "no progress, print paths only"),
            JSON,
        ),
        about="Its kernel is one that was built with the profile `disk`, or --kernel.",
        examples=(
            "swiftlet image build -t python@3.11 -o web --format qcow2 -- python3 -m http.server",
            "swiftlet image build -f workload.yaml -o web --format ova,vhd --firmware efi --size 4G",
        ),
    ),
)
