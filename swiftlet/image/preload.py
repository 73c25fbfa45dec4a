"""What is loaded into a clone's QEMU: a library of one page that lets it have its memory's file for reading only."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

from swiftlet.model.error import HostError, KernelError
from swiftlet.store.interim import making

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "preload", "opener.c")

_COMPILE = (
    "gcc", "-shared", "-fPIC", "-Os", "-s", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-nostdlib",
    "-Wl,-z,now", "-Wl,-z,relro", "-Wl,--build-id=none",
)  # fmt: skip
"""Linked to no library: what it calls is QEMU's own C library's."""


def opener(cache: str) -> str:
    """Where the library lies, compiled once. Raises HostError (no compiler), KernelError, OSError."""
    with open(SOURCE, "rb") as file:
        digest = hashlib.sha256("\0".join(_COMPILE).encode() + file.read()).hexdigest()
    folder = f"{cache}/images"
    path = f"{folder}/opener-{digest[:16]}.so"
    if os.path.exists(path):
        return path
    if shutil.which(_COMPILE[0]) is None:
        raise HostError("no compiler here for what clones are started with", "apt-get install gcc libc6-dev")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with making(folder) as work:
        interim = f"{work}/opener.so"
        command = [*_COMPILE, SOURCE, "-o", interim]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        if done.returncode:
            raise KernelError(f"opener.c did not compile: {(done.stderr.splitlines() or ['?'])[0]}")
        os.chmod(interim, 0o444)
        os.rename(interim, path)
    return path
