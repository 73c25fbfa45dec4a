"""The programs that run inside the guests (`guests/*.c`), compiled once: static, with the compiler of swiftlet-init."""

from __future__ import annotations

import hashlib
import os
import subprocess

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guests")

_COMMAND = ("musl-gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def program(name: str, cache: str) -> str:
    """The path of the compiled `guests/NAME.c`, in a folder named by what it was made of. Raises OSError."""
    source = f"{SOURCES}/{name}.c"
    with open(source, "rb") as file:
        digest = hashlib.sha256("\0".join(_COMMAND).encode() + file.read()).hexdigest()[:16]
    folder = f"{cache}/programs/{digest}"
    path = f"{folder}/{name}"
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        done = subprocess.run([*_COMMAND, source, "-o", f"{path}.new"], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{name}.c did not compile: {done.stderr.strip()[:300]}")
        os.rename(f"{path}.new", path)
    return path
