"""What each object file of a built kernel takes, and for which options it was built; kept as objects.json.

Code that stands in `#ifdef CONFIG_X` of a file which is there anyway is not told apart: such an option has no objects
of its own, and its bytes are not known.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from swiftlet.image.kernel.kbuild import Needs, Tree, lost_without
from swiftlet.image.kernel.make import Make

FILE = "objects.json"


class Object(NamedTuple):
    """bytes: of code and data in memory (text, data, bss), before the linker drops what nobody uses."""

    bytes: int
    needs: Needs


class Cost(NamedTuple):
    """What a kernel would be without if one option were off and nothing else changed."""

    objects: int
    bytes: int


def measured(make: Make, values: Mapping[str, str]) -> dict[str, Object]:
    """The objects that a finished build linked, by path. Raises KernelError."""
    sizes: dict[str, int] = {}
    for archive in _archives(make.work):
        names = {os.path.normpath(name) for name in make.run(["ar", "t", archive]).split()}
        there = sorted(name for name in names if os.path.isfile(f"{make.work}/{name}"))
        sizes |= _sizes(make, there)
    needs = Tree(make.source.path, values).needs(sizes)
    return {path: Object(size, needs[path]) for path, size in sizes.items()}


def _archives(work: str) -> list[str]:
    """vmlinux.a has all that is linked in any case (since 6.1), the libraries what others refer to.

    They are thin: what `ar` lists are paths, from the folder in which it is asked.
    """
    whole = ["vmlinux.a"] if os.path.exists(f"{work}/vmlinux.a") else []
    found = glob.glob("lib/lib.a", root_dir=work) + glob.glob("arch/*/lib/lib.a", root_dir=work)
    return whole + found


def _sizes(make: Make, paths: list[str]) -> dict[str, int]:
    found = {}
    for start in range(0, len(paths), 500):  # a command line has an end
        for line in make.run(["size", *paths[start : start + 500]]).splitlines()[1:]:
            words = line.split()
            found[words[5]] = int(words[3])
    return found


def write(folder: str, objects: Mapping[str, Object]) -> None:
    """Keep a table beside its kernel. Raises OSError."""
    with open(f"{folder}/{FILE}", "w") as file:
        json.dump({path: list(each) for path, each in sorted(objects.items())}, file, separators=(",", ":"))


def read(folder: str) -> dict[str, Object] | None:
    """The table of a kernel, None where there is none or it is damaged."""
    try:
        with open(f"{folder}/{FILE}") as file:
            rows = json.load(file)
        return {path: Object(size, tuple(map(tuple, needs))) for path, (size, needs) in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def cost_of(symbol: str, objects: Mapping[str, Object], values: Mapping[str, str]) -> Cost | None:
    """What an option that is on costs; None where it has no objects of its own."""
    lost = lost_without(symbol, {path: each.needs for path, each in objects.items()}, values)
    return Cost(len(lost), sum(objects[path].bytes for path in lost)) if lost else None
