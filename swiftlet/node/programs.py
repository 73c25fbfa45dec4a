"""Unikernels that were built: kept in the cache by the digest of all that they are made of, the target among it.

::

    CACHE/unikernels/DIGEST/    complete since it came there by rename
      image.elf                 what a machine starts; of the target `linux` a program of Linux
      unikernel.json            its tasks and its size

A worker builds them, for that loads compilers and runs the program's own top level.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from swiftlet.model.error import InputError
from swiftlet.node.machines import Program
from swiftlet.node.workers import Progress, Workers
from swiftlet.store.interim import making

if TYPE_CHECKING:
    from swiftlet.node.pull import Work

FOLDER = "unikernels"
UNIKERNEL, LINUX = "unikernel", "linux"
"""Targets."""


class Programs:
    """Finds the unikernels of programs, and has those made that are missing."""

    def __init__(self, workers: Workers, cache: str) -> None:
        self._workers = workers
        self._cache = cache

    async def find(self, path: str, progress: Progress) -> Program:
        """The unikernel of a program as it is now. Raises InputError, KernelError, HostError, FullError, StoreError."""
        found = await self._workers.run("unikernel_build", {"path": path}, progress)
        digest = str(found["unikernel"]["digest"])
        return Program(digest, f"{self._cache}/{FOLDER}/{digest}/image.elf")


def build(work: Work) -> dict[str, Any]:
    """In a worker: build a program's image, or find that it is there. Raises InputError for another target."""
    from swiftlet.unikernel import build as unikernel
    from swiftlet.unikernel import build_linux as linux

    path, target = work.parameters["path"], work.parameters.get("target", UNIKERNEL)
    if target not in (UNIKERNEL, LINUX):
        raise InputError(f"no target: {target!r}", f"there are {UNIKERNEL} and {LINUX}")
    unikernel.check_host()
    digest = unikernel.digest_of(path, target)
    folder = f"{work.layout.cache}/{FOLDER}/{digest}"
    record = f"{folder}/unikernel.json"
    reused = os.path.exists(record)
    if not reused:
        make = linux.build if target == LINUX else unikernel.build
        built = make(path, lambda text, done, total: work.progress("build", text, done, total))
        _keep(folder, built.image, 0o755 if target == LINUX else 0o444, unikernel.document_of(digest, built))
    with open(record) as file:
        return {"unikernel": {**json.load(file), "path": f"{folder}/image.elf"}, "reused": reused}


def _keep(folder: str, image: bytes, mode: int, document: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    with making(os.path.dirname(folder)) as interim:
        whole = f"{interim}/unikernel"
        os.mkdir(whole, 0o700)
        record = json.dumps(document).encode()
        for name, data, rights in (("image.elf", image, mode), ("unikernel.json", record, 0o444)):
            with open(f"{whole}/{name}", "xb") as file:
                file.write(data)
            os.chmod(f"{whole}/{name}", rights)
        try:
            os.rename(whole, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
