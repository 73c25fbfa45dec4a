"""Which options a kernel's object files are built for, as the tree's Makefiles say: `obj-$(CONFIG_X) += x.o`.

::

    fs/Makefile        obj-$(CONFIG_EXT4_FS) += ext4/
    fs/ext4/Makefile   ext4-$(CONFIG_EXT4_FS_POSIX_ACL) += acl.o      fs/ext4/acl.o needs both

Rules that are computed (`$(patsubst ...)`) and conditions other than "this option is on" are not understood: what they
add counts as added without a condition. Format: Documentation/kbuild/makefiles.rst of the tree. Reads, runs nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_RULE = re.compile(r"([\w.-]+?)-(y|objs|\$\(CONFIG_\w+\)|\$\(subst m,y,\$\(CONFIG_\w+\)\))\s*[:+]?=\s*(.*)")
_OPTION = re.compile(r"CONFIG_\w+")
_ON = re.compile(
    r"ifdef\s+(CONFIG_\w+)|ifeq\s*\(\s*\$\((CONFIG_\w+)\)\s*,\s*y\s*\)|ifneq\s*\(\s*\$\((CONFIG_\w+)\)\s*,\s*\)"
)
_IF = re.compile(r"(ifdef|ifndef|ifeq|ifneq|else|endif)\b")

Needs = tuple[tuple[str, ...], ...]
"""Every group must have an option that is on. () is built always."""


class Rule(NamedTuple):
    """`target-$(CONFIG_X) += entry` in one Makefile. options: all must be on."""

    target: str
    entry: str
    options: tuple[str, ...]


def rules_of(text: str, arch: str = "x86") -> list[Rule]:
    """The rules of a Makefile that name objects and folders."""
    found: list[Rule] = []
    around: list[str] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.partition("#")[0].strip()
        if match := _IF.match(line):
            _step(match[1], line, around)
        elif match := _RULE.match(line):
            options = tuple(filter(None, (*around, *_OPTION.findall(match[2]))))
            names = match[3].replace("$(SRCARCH)", arch).split()
            found += [Rule(match[1], name, options) for name in names if name.endswith((".o", "/"))]
    return found


def _step(word: str, line: str, around: list[str]) -> None:
    """Follow one line of a conditional; "" stands for a condition that is not understood."""
    if word == "endif":
        del around[-1:]
    elif word == "else":
        around[-1:] = [""]
    else:
        match = _ON.match(line)
        around.append(next(filter(None, match.groups())) if match else "")


class Tree:
    """The Makefiles of a tree, each read once. values: the configuration; rules that it has off are passed over."""

    def __init__(self, path: str, values: Mapping[str, str]) -> None:
        self._path = path
        self._values = values
        self._rules: dict[str, list[Rule]] = {}
        self._needs: dict[str, Needs] = {}

    def needs(self, objects: Iterable[str]) -> dict[str, Needs]:
        """What each object (by its path in the build, such as fs/ext4/acl.o) is built for."""
        return {each: self._of(each) for each in objects}

    def _of(self, path: str) -> Needs:
        if path not in self._needs:
            self._needs[path] = ()  # of a composite that lists itself
            folder, name = os.path.split(path.rstrip("/"))
            self._needs[path] = self._found(folder, name + "/" * path.endswith("/"))
        return self._needs[path]

    def _found(self, folder: str, name: str) -> Needs:
        """From the nearest Makefile that names it, in its folder or above."""
        above = folder
        while True:
            entry = f"{folder[len(above) :].lstrip('/')}/{name}".lstrip("/")
            rules = [rule for rule in self._read(above) if rule.entry == entry and self._is_on(rule)]
            if rules:
                return self._joined(above, rules)
            if not above:
                return self._of(f"{folder}/") if folder else ()
            above = os.path.dirname(above)

    def _joined(self, folder: str, rules: list[Rule]) -> Needs:
        groups = _either(rule.options for rule in rules)
        composites = {f"{folder}/{rule.target}.o".lstrip("/") for rule in rules} if _all_composite(rules) else set()
        outer = [self._of(each) for each in sorted(composites)] or [self._of(f"{folder}/") if folder else ()]
        return tuple(dict.fromkeys((*outer[0], *groups)))

    def _is_on(self, rule: Rule) -> bool:
        return all(self._values.get(option, "n") != "n" for option in rule.options)

    def _read(self, folder: str) -> list[Rule]:
        if folder not in self._rules:
            self._rules[folder] = []
            for name in ("Kbuild", "Makefile"):
                try:
                    with open(f"{self._path}/{folder}/{name}", errors="replace") as file:
                        self._rules[folder] += rules_of(file.read())
                except OSError:
                    continue
        return self._rules[folder]


def _all_composite(rules: list[Rule]) -> bool:
    return all(rule.target not in ("obj", "lib", "head", "core", "drivers", "libs") for rule in rules)


def _either(alternatives: Iterable[tuple[str, ...]]) -> Needs:
    """Needs of which one alternative (all of its options) is enough; () where one needs nothing."""
    rows = list(dict.fromkeys(alternatives))
    if not all(rows):
        return ()
    if len(rows) == 1:
        return tuple((option,) for option in rows[0])
    return (tuple(dict.fromkeys(option for row in rows for option in row)),)


def lost_without(option: str, needs: Mapping[str, Needs], values: Mapping[str, str]) -> list[str]:
    """The objects that would not be built if this option alone were off in a configuration."""
    return [
        each
        for each, groups in needs.items()
        if any(all(other == option or values.get(other, "n") == "n" for other in group) for group in groups)
    ]
