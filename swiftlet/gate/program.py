"""The program of checks, compiled when it is first asked for: one static executable, for guests and for this host.

::

    CACHE/checks/DIGEST/guest-check    DIGEST: of the sources, the flags and the compiler's version

It appears whole or not at all, and another source, flag or compiler makes another one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess

from swiftlet.model.error import HostError
from swiftlet.resolve.durable import full_disk, locked, make_folder
from swiftlet.store.interim import making

SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "checks")

NAME = "guest-check"

PORT = 8080
"""Where the program serves its page in a guest."""

FLAGS = ("-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-ffp-contract=off")
"""-ffp-contract=off: host and guest must round alike, whatever a compiler thinks of fused operations."""

_HINT = "install a C compiler and the C library's static part, as by: apt-get install gcc libc6-dev"


def program(cache: str) -> str:
    """The path of the compiled program, from the cache or compiled now (a few seconds).

    Raises HostError where there is no compiler or it refuses, StoreError or FullError for the cache.
    """
    sources = sorted(name for name in os.listdir(SOURCES) if name.endswith((".c", ".h")))
    folder = f"{make_folder(f'{cache}/checks')}/{digest_of(sources, _compiler())}"
    with locked(f"{cache}/checks/lock"):
        if not os.path.exists(f"{folder}/{NAME}"):
            _compile([name for name in sources if name.endswith(".c")], folder)
    return f"{folder}/{NAME}"


def digest_of(sources: list[str], compiler: str, folder: str = SOURCES) -> str:
    """What a program is named by: its sources with their names, the flags and the compiler."""
    summed = hashlib.sha256("\0".join((compiler, *FLAGS)).encode())
    for name in sources:
        with open(f"{folder}/{name}", "rb") as file:
            summed.update(f"\0{name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return summed.hexdigest()[:32]


def _compiler() -> str:
    try:
        asked = subprocess.run(["gcc", "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        raise HostError("the checks are compiled here once, and this host has no gcc", _HINT) from None
    return asked.stdout.partition("\n")[0]


def _compile(sources: list[str], folder: str) -> None:
    """Compile beside and rename into place."""
    with making(os.path.dirname(folder)) as work:
        command = ["gcc", *FLAGS, "-o", f"{work}/{NAME}", *sources]
        done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            if full := full_disk(done.stderr, work):
                raise full
            told = [line for line in done.stderr.splitlines() if "error" in line] or [
                f"gcc ended with {done.returncode}"
            ]
            raise HostError(f"the checks cannot be compiled: {told[0]}", _HINT)
        os.makedirs(folder, exist_ok=True)
        os.rename(f"{work}/{NAME}", f"{folder}/{NAME}")


def host_lines(program: str, *words: str) -> list[str]:
    """What the program says on this host. Raises HostError when it cannot be run."""
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise HostError(f"the checks cannot be run on this host: {error.strerror}") from None
    if done.returncode > 1:
        raise HostError(f"the checks cannot be run on this host: {done.stderr.strip() or done.returncode}")
    return done.stdout.splitlines()


def host_page(program: str) -> bytes:
    """The page that the program serves."""
    return subprocess.run([program, "page"], check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
