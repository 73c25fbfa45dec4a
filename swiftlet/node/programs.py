"""Unikernels that were built: kept in the cache by the digest of all that they are made of, target and level among it.

::

    CACHE/unikernels/DIGEST/        complete since it came there by rename
      image.elf                     what a machine starts; of the target `linux` a program of Linux
      unikernel.json                its tasks, the level of x86-64 that they are for, and its size
    CACHE/unikernels/DIGEST.json    of a program that imports modules beside it: which those were, the last time;
                                    DIGEST is without them here

A worker builds them. The program's own top level runs in a process that is shut in (`confined`).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec

from swiftlet.model.error import ConflictError, InputError
from swiftlet.node.machines import Program
from swiftlet.node.pull import stamp_of
from swiftlet.node.workers import Progress, Workers
from swiftlet.store.interim import making

if TYPE_CHECKING:
    from swiftlet.node.pull import Work

FOLDER = "unikernels"

Stamps = list[tuple[str, int, int, int]]


class Programs:
    """Finds the unikernels of programs, and has those made that are missing."""

    def __init__(self, workers: Workers, cache: str) -> None:
        self._workers = workers
        self._cache = cache
        self._known: dict[tuple[str, str], tuple[Program, Stamps]] = {}

    async def find(self, path: str, level: str, progress: Progress) -> Program:
        """The unikernel of a program as it is now. Raises InputError, KernelError, HostError, FullError, StoreError."""
        program, stamps = self._known.get((path, level), (None, []))
        if program and os.path.exists(program.image) and all((each[0], *stamp_of(each[0])) == each for each in stamps):
            return program
        found = await self._workers.run("unikernel_build", {"path": path, "level": level}, progress)
        digest = str(found["unikernel"]["digest"])
        program = Program(digest, f"{self._cache}/{FOLDER}/{digest}/image.elf")
        self._known[path, level] = program, [tuple(each) for each in found["stamps"]]
        return program


class _Made(msgspec.Struct):
    """What comes from where the program ran."""

    tasks: list[dict[str, Any]]
    modules: list[str]


def build(work: Work) -> dict[str, Any]:
    """In a worker: build a program's image, or find that it is there. Raises InputError for another target."""
    from swiftlet.unikernel import level as levels
    from swiftlet.unikernel import made
    from swiftlet.unikernel.build import check_host

    path, target = work.parameters["path"], work.parameters.get("target", made.UNIKERNEL)
    level = work.parameters.get("level") or levels.DEFAULT
    if target not in (made.UNIKERNEL, made.LINUX):
        raise InputError(f"no target: {target!r}", f"there are {made.UNIKERNEL} and {made.LINUX}")
    levels.check(level)
    check_host()
    cache = f"{work.layout.cache}/{FOLDER}"
    plain = made.digest_of(path, target, level)
    modules = _modules(f"{cache}/{plain}.json")
    stamps = _stamps(path, modules)
    digest = made.digest_of(path, target, level, modules) if all(os.path.exists(each[0]) for each in stamps) else plain
    reused = os.path.exists(f"{cache}/{digest}/unikernel.json")
    if not reused:
        result, image = _made(path, target, level, work)
        if made.digest_of(path, target, level) != plain:
            raise ConflictError(f"{path} has changed while it was built", "build it again")
        stamps = _stamps(path, result.modules)
        digest = made.digest_of(path, target, level, result.modules)
        _keep(cache, digest, image, 0o755 if target == made.LINUX else 0o444, result, level)
        _note(f"{cache}/{plain}.json", modules, result.modules)
    with open(f"{cache}/{digest}/unikernel.json") as file:
        document = {**json.load(file), "path": f"{cache}/{digest}/image.elf"}
    return {"unikernel": document, "reused": reused, "stamps": stamps}


def _made(path: str, target: str, level: str, work: Work) -> tuple[_Made, bytes]:
    from swiftlet.node import confined
    from swiftlet.unikernel.signature import from_description

    folder = os.path.dirname(path)
    result, image = confined.run(
        "swiftlet.unikernel.made:make",
        {"path": path, "target": target, "level": level},
        [path if folder == "/" else folder, os.path.realpath(path)],
        lambda text, done, total: work.progress("build", text, done, total),
    )
    try:
        made = msgspec.convert(result, _Made)
    except msgspec.ValidationError as error:
        raise InputError(f"the program's top level spoke for the compiler: {error}") from None
    beside = [os.path.normpath(name) for name in made.modules]
    if beside != made.modules or any(name.startswith(("/", "..")) or "\0" in name for name in beside):
        raise InputError("the program's top level spoke for the compiler: modules that are not beside it")
    try:
        described = from_description(made.tasks)
    except (KeyError, TypeError, ValueError):
        described = ()
    if not described or not image.startswith(b"\x7fELF"):
        raise InputError("the program's top level spoke for the compiler: no image, or tasks that are none")
    return made, image


def _modules(path: str) -> list[str]:
    try:
        with open(path) as file:
            return msgspec.json.decode(file.read(), type=list[str])
    except (OSError, msgspec.MsgspecError):
        return []


def _stamps(path: str, modules: list[str]) -> Stamps:
    beside = [os.path.join(os.path.dirname(path), name) for name in modules]
    return [(each, *stamp_of(each)) for each in (path, *beside)]


def _note(path: str, before: list[str], now: list[str]) -> None:
    """Remember which modules a program imports."""
    if before == now:
        return
    with open(f"{path}.{os.getpid()}", "w") as file:
        json.dump(now, file)
    os.rename(file.name, path)


def _keep(cache: str, digest: str, image: bytes, mode: int, made: _Made, level: str) -> None:
    os.makedirs(cache, mode=0o700, exist_ok=True)
    with making(cache) as interim:
        whole = f"{interim}/unikernel"
        os.mkdir(whole, 0o700)
        record = json.dumps({"digest": digest, "bytes": len(image), "level": level, "tasks": made.tasks}).encode()
        for name, data, rights in (("image.elf", image, mode), ("unikernel.json", record, 0o444)):
            with open(f"{whole}/{name}", "xb") as file:
                file.write(data)
            os.chmod(f"{whole}/{name}", rights)
        try:
            os.rename(whole, f"{cache}/{digest}")
        except OSError:
            if not os.path.isdir(f"{cache}/{digest}"):
                raise
