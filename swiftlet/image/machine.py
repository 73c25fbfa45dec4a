"""The machine's own root: swiftlet-init, compiled once, and the folders on which a workload's root is put together."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

from swiftlet.image.erofs import Image, image_of
from swiftlet.model.bundle import Rootfs
from swiftlet.model.error import HostError, InputError, KernelError
from swiftlet.store.interim import making

SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guestinit")

LOWERS = 22
"""Trees that a workload's root may be stacked from: each is a disk, for which a machine has so many places."""

_FOLDERS = ("dev", "proc", "sys", "upper", "root", *(f"lower/{number}" for number in range(LOWERS)))

_COMPILE = (
    "musl-gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-result",
    "-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu",
)  # fmt: skip
"""The kernel's own headers come last: musl's are meant wherever both have one."""


def check_layers(rootfs: Rootfs) -> None:
    """Raise InputError for a root of more layers than a machine takes."""
    if len(rootfs.lowers) > LOWERS:
        told = f"$.templates: {len(rootfs.lowers)} layers, and a machine takes {LOWERS}"
        raise InputError(told, "put several of them into one template of your own")


def machine_root(cache: str) -> Image:
    """The image that every machine starts from. Raises HostError (no compiler), KernelError, FullError, StoreError."""
    tree = machine_tree(cache)
    return image_of(tree, os.path.basename(tree), cache)


def machine_tree(cache: str) -> str:
    """Where the tree of that image lies. Raises HostError (no compiler), KernelError."""
    sources = sorted(name for name in os.listdir(SOURCES) if name.endswith((".c", ".h")))
    digest = hashlib.sha256("\0".join((*_COMPILE, *_FOLDERS)).encode())
    for name in sources:
        with open(f"{SOURCES}/{name}", "rb") as file:
            digest.update(file.read())
    name = f"machine-{digest.hexdigest()[:16]}"
    os.makedirs(f"{cache}/images", mode=0o700, exist_ok=True)
    tree = f"{cache}/images/{name}"
    if not os.path.isdir(tree):
        _make_tree(tree, [each for each in sources if each.endswith(".c")])
    return tree


def loader(cache: str) -> str:
    """The compiled program that is the first one of a kernel whose drivers are modules.

    Raises HostError (no compiler), KernelError, OSError.
    """
    source = f"{SOURCES}/loader/loader.c"
    with open(source, "rb") as file:
        digest = hashlib.sha256("\0".join(_COMPILE).encode() + file.read()).hexdigest()
    os.makedirs(f"{cache}/images", mode=0o700, exist_ok=True)
    path = f"{cache}/images/loader-{digest[:16]}"
    if not os.path.exists(path):
        with making(os.path.dirname(path)) as interim:
            _compile([source], f"{interim}/loader")
            os.rename(f"{interim}/loader", path)
    return path


def _compile(sources: list[str], program: str) -> None:
    if shutil.which(_COMPILE[0]) is None:
        raise HostError("no compiler here for a machine's first process", "apt-get install musl-tools linux-libc-dev")
    command = [*_COMPILE, *sources, "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise KernelError(f"swiftlet-init did not compile: {(done.stderr.splitlines() or ['?'])[0]}")


def _make_tree(tree: str, sources: list[str]) -> None:
    try:
        with making(os.path.dirname(tree)) as folder:
            interim = f"{folder}/tree"
            for each in ("", *_FOLDERS):
                os.makedirs(f"{interim}/{each}", mode=0o755)
            for each, _, _ in os.walk(interim):
                os.chmod(each, 0o755)
            _compile([f"{SOURCES}/{name}" for name in sources], f"{interim}/init")
            os.rename(interim, tree)
    except OSError:
        if not os.path.isdir(tree):
            raise
