"""What is built of a program, as whoever shuts the build in asks for it (`node.confined`), and what it is named by."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

from swiftlet.model.error import InputError
from swiftlet.unikernel.build import HERE, REQUIRED
from swiftlet.unikernel.signature import described

UNIKERNEL, LINUX = "unikernel", "linux"
"""Targets."""

MOST = 16 << 20
"""Bytes of a program, or of a module beside it."""


def make(parameters: dict[str, Any], output: int, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Build the program at `path` for `target` and `level`, and write the image.

    Returns its tasks, and the modules beside it.
    """
    from swiftlet.unikernel import build, build_linux

    path = parameters["path"]
    made = build_linux if parameters["target"] == LINUX else build
    built = made.build(path, progress, parameters["level"])
    with os.fdopen(output, "wb", closefd=False) as file:
        file.write(built.image)
    return {"tasks": described(built.signatures), "modules": sorted(_modules_beside(path))}


def _modules_beside(path: str) -> Iterable[str]:
    """What the program has imported from its own folder, relative to that."""
    folder = os.path.dirname(path)
    foreign = (os.path.dirname(HERE), sys.prefix, sys.base_prefix)
    for module in list(sys.modules.values()):
        found = getattr(module, "__file__", None) or ""
        is_beside = found.startswith(f"{folder.rstrip('/')}/") and found != path
        if is_beside and not any(found.startswith(f"{each}/") for each in foreign):
            yield os.path.relpath(found, folder)


def digest_of(path: str, target: str, level: str, modules: Iterable[str] = ()) -> str:
    """What an image is named by: program, target, level, this package's sources and the versions of what compiles them.

    modules: of the program's folder, that it imports. Raises InputError where the program cannot be read.
    """
    summed = hashlib.sha256(f"{target}\0{level}\0{path}\0".encode())  # its folder too: it may read what lies there
    for each in (path, *(os.path.join(os.path.dirname(path), name) for name in modules)):
        summed.update(hashlib.sha256(_read(each)).digest())
    for folder, _, names in sorted(os.walk(HERE)):
        for name in sorted(names):
            if name.endswith((".py", ".S")):
                summed.update(f"\0{name}\0".encode() + _read(f"{folder}/{name}"))
    summed.update("".join(f"\0{name} {metadata.version(name)}" for name in REQUIRED).encode())
    return summed.hexdigest()


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST:
                raise InputError(f"{path} is no file of {MOST >> 20} MiB at most")
            return file.read(MOST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
