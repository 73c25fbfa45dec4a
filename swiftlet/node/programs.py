"""Unikernels that were built: kept in the cache by the digest of all that they are made of.

::

    CACHE/unikernels/DIGEST/    complete since it came there by rename
      image.elf                 what a machine starts
      unikernel.json            its tasks and its size

A worker builds them, for that loads compilers and runs the program's own top level.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from swiftlet.node.machines import Program
from swiftlet.node.workers import Progress, Workers
from swiftlet.store.interim import making

if TYPE_CHECKING:
    from swiftlet.node.pull import Work

FOLDER = "unikernels"


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
    """In a worker: build a program's image, or find that it is there."""
    from swiftlet.unikernel import build as unikernel

    path = work.parameters["path"]
    unikernel.check_host()
    digest = unikernel.digest_of(path)
    folder = f"{work.layout.cache}/{FOLDER}/{digest}"
    record = f"{folder}/unikernel.json"
    reused = os.path.exists(record)
    if not reused:
        built = unikernel.build(path, lambda text, done, total: work.progress("build", text, done, total))
        _keep(folder, built.image, unikernel.document_of(digest, built))
    with open(record) as file:
        return {"unikernel": {**json.load(file), "path": f"{folder}/image.elf"}, "reused": reused}


def _keep(folder: str, image: bytes, document: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    with making(os.path.dirname(folder)) as interim:
        whole = f"{interim}/unikernel"
        os.mkdir(whole, 0o700)
        for name, data in (("image.elf", image), ("unikernel.json", json.dumps(document).encode())):
            with open(f"{whole}/{name}", "xb") as file:
                file.write(data)
            os.chmod(f"{whole}/{name}", 0o444)
        try:
            os.rename(whole, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
