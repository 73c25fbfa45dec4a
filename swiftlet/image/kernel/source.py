"""Kernel trees: an archive such as Debian's linux-source unpacked once, or any tree by its path.

::

    CACHE/sources/NAME-DIGEST/      an archive's content, complete since it came there by rename
    CACHE/sources.lock              held by whoever unpacks one
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from swiftlet.image.kernel import kept
from swiftlet.model.error import FullError, InputError, KernelError

DEBIAN = "/usr/src/linux-source-6.1.tar.xz"
"""Where Debian's package of that name puts it."""

TREE_BYTES = 1500 << 20
"""What an unpacked kernel tree takes."""

_ARCHIVE = re.compile(r"(.+?)\.tar(?:\.(?:xz|gz|zst|bz2))?")


class Source(NamedTuple):
    """A tree. digest: changes with the archive, or with any file of a tree that was given by path."""

    path: str
    version: str
    digest: str


def source_at(path: str, cache: str, unpacking: Callable[[], None] = lambda: None) -> Source:
    """The tree of an archive, unpacked below `cache` if it was not yet, or a tree as it lies there.

    unpacking: called before that, which takes seconds. Raises InputError for what is neither, KernelError for an
    archive that is cut short, FullError.
    """
    if os.path.isdir(path):
        return Source(os.path.abspath(path), version_of(path), _digest_of_tree(path))
    match = _ARCHIVE.fullmatch(os.path.basename(path))
    if match is None or not os.path.isfile(path):
        hint = "apt-get install linux-source-6.1" if path == DEBIAN else "give a kernel tree, or a tar archive of one"
        raise InputError(f"{path} is no kernel source", hint)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    tree = f"{cache}/sources/{match[1]}-{digest[:16]}"
    if not os.path.isdir(tree):
        unpacking()
        os.makedirs(os.path.dirname(tree), exist_ok=True)
        with kept.locked(os.path.dirname(tree)):
            if not os.path.isdir(tree):  # else somebody else was faster
                _unpack(path, tree)
    return Source(tree, version_of(tree), digest)


def _unpack(archive: str, tree: str) -> None:
    interim = tempfile.mkdtemp(prefix=".unpacking-", dir=os.path.dirname(tree))
    try:
        command = [
            "tar",
            "--extract",
            "--no-same-owner",
            "--strip-components=1",
            f"--file={archive}",
            f"--directory={interim}",
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            if "No space left on device" in done.stderr:
                hint = f"an unpacked tree takes about {TREE_BYTES >> 20} MiB"
                raise FullError(f"no space left in {os.path.dirname(tree)} to unpack {archive}", hint)
            last = done.stderr.strip().rpartition("\n")[2]
            raise KernelError(f"{archive} cannot be unpacked: {last}", "is it whole? install its package again")
        version_of(interim)
        os.rename(interim, tree)
    finally:
        shutil.rmtree(interim, ignore_errors=True)


def version_of(tree: str) -> str:
    """The version that a tree's Makefile says, as in 6.1.192. Raises InputError where there is none."""
    try:
        with open(f"{tree}/Makefile") as file:
            text = file.read(4096)
    except OSError:
        raise InputError(f"{tree} is no kernel tree: it has no Makefile that can be read") from None
    found = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) =[ \t]*(\S*)$", text, re.MULTILINE))
    if not {"VERSION", "PATCHLEVEL", "SUBLEVEL"} <= found.keys():
        raise InputError(f"{tree} is no kernel tree: its Makefile names no version")
    return f"{found['VERSION']}.{found['PATCHLEVEL']}.{found['SUBLEVEL']}{found.get('EXTRAVERSION', '')}"


def _digest_of_tree(tree: str) -> str:
    """Of names, sizes and times: a tree has a gigabyte, and who works on one has changed few files."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            stamp = os.lstat(f"{folder}/{name}")
            digest.update(
                f"{folder[len(tree) :]}/{name}\0{stamp.st_size}\0{stamp.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
    return digest.hexdigest()
