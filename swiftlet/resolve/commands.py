"""Where a command is that a guest lacks: for the hint of `command not found`, and nothing rests on it.

The guest may have it outside its PATH or under another name (nobody runs update-alternatives), else a template may.

What is resolved is known by its files; of other templates what they spell out counts, and for packages what this
host's dpkg knows of its own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable

from swiftlet.model.closure import Closure, canonical_path
from swiftlet.model.spelling import parse_package
from swiftlet.resolve import policy
from swiftlet.resolve.catalogue import Located

MOST = 3
"""Templates that a hint names."""

DPKG_SECONDS = 5.0

_ALTERNATIVES = {
    "awk": ("mawk", "gawk", "original-awk"),
    "editor": ("nano", "vim.tiny", "vim.basic", "vim.nox"),
    "pager": ("less",),
    "vi": ("vim.basic", "vim.tiny", "vim.nox", "nvi"),
}
"""Commands whose programs are not called after them."""

_IN_PATH = tuple(f"{folder}/" for folder in policy.PROGRAM_FOLDERS)
_FOLDERS = (*policy.PROGRAM_FOLDERS, "/bin", "/sbin")
_COMMAND = re.compile(rf"(?:(?:{'|'.join(_FOLDERS)})/)?([A-Za-z0-9_\[][A-Za-z0-9+._-]{{0,63}})")


def templates_with(
    command: str, known: Iterable[Located], resolved: Callable[[Located], Closure | None], *, host: bool = True
) -> list[str]:
    """What to write behind `-t` for a command (its name, or its path in a folder of programs), likeliest first.

    host: ask this host's dpkg too. [] where nobody is known to have it.
    """
    match = _COMMAND.fullmatch(command)
    if match is None:
        return []
    name = match[1]
    paths = {f"{folder}/{name}" for folder in policy.PROGRAM_FOLDERS}
    packages = _packages_of(name) if host else {}
    found = [each.template.name for each in known if _has(each, resolved(each), paths, packages)]
    if name in found:
        return [name]
    return list(dict.fromkeys(found or [f"deb:{package}" for package in packages]))[:MOST]


def programs_like(command: str, closures: Iterable[Closure]) -> list[str]:
    """Paths in a stack of programs called like a command that was not found, else of what Debian's alternatives
    would make of it (php: php8.2, nc: nc.openbsd, vi: vim.tiny). [] where there are none.
    """
    name = command.rpartition("/")[2]
    programs = [
        entry.path
        for closure in closures
        for entry in closure.entries
        if entry.kind == "file" and entry.mode & 0o111 and entry.path != command
    ]
    same = [path for path in programs if path.rpartition("/")[2] == name]
    others = [path for path in programs if path.startswith(_IN_PATH) and _is_alternative(path.rpartition("/")[2], name)]
    return list(dict.fromkeys(same or others))[:MOST]


def _is_alternative(program: str, name: str) -> bool:
    if program in _ALTERNATIVES.get(name, ()):
        return True
    return re.fullmatch(rf"{re.escape(name)}(-?[0-9][0-9.]*|\.[a-z]+)", program) is not None


def _has(located: Located, closure: Closure | None, paths: set[str], packages: dict[str, str]) -> bool:
    if closure is not None:
        return any(entry.path in paths and entry.kind != "directory" for entry in closure.entries)
    template = located.template
    spelled = {*template.links, *template.files.values(), *template.include, *template.entrypoint[:1]}
    if spelled & paths:
        return True
    include, exclude = policy.glob_pattern(template.include), policy.glob_pattern(template.exclude)
    own = {parse_package(package)[0] for package in template.packages}
    return any(policy.is_chosen(packages[package], include, exclude) for package in own if package in packages)


def _packages_of(name: str) -> dict[str, str]:
    """Which packages of this host have a program of this name, and where; none on a host without dpkg."""
    paths = [f"{folder}/{name.replace('[', chr(92) + '[')}" for folder in _FOLDERS]
    try:
        answer = subprocess.run(
            ["dpkg-query", "--search", *paths],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DPKG_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = {}
    for line in answer.splitlines():
        owners, _, path = line.partition(": ")
        if path.startswith("/") and not line.startswith("diversion "):
            found |= {owner.partition(":")[0]: canonical_path(path) for owner in owners.split(", ")}
    return found
