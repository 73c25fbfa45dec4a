"""Read-only images of trees for virtual machines: EROFS, the same bytes for the same tree, made without a mount.

::

    CACHE/images/NAME.erofs     complete since it came there by rename; 0444
    CACHE/images/NAME.json      its digest and the stamp of the file that was found to have it

An image is a cache of a tree: one that is damaged is refused and made again. It is not compressed, so that it can be
mapped into guests' memory as it is (docs/vms.md). What is stored or sent may be: every kernel of ours reads both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from typing import NamedTuple

from swiftlet.model.error import FullError, HostError, StoreError, SwiftletError
from swiftlet.store.files import write_atomic
from swiftlet.store.interim import making
from swiftlet.store.objects import MTIME

RULES = "2"
"""Changes with anything here that makes another image of the same tree."""

_UUID = "00000000-0000-0000-0000-000000000000"
_ALIGNED = 2 << 20
"""Bytes of which an image is a multiple, so that it can be mapped with large pages."""


_COMPRESSED = ("-zlz4hc,9", "-C65536")
"""The compressor that every kernel of ours undoes. Clusters of 64 KiB make of python@3.11 an eighth less."""


class Image(NamedTuple):
    """A complete image. bytes: of what it holds; the file is longer, by a hole."""

    path: str
    digest: str
    bytes: int


def image_of(tree: str, name: str, cache: str) -> Image:
    """The image of the tree at path `tree`, from the cache or made now. name: of the tree, which never changes.

    Raises HostError (no mkfs.erofs), FullError, StoreError.
    """
    folder = f"{cache}/images"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = f"{folder}/{name}-{RULES}.erofs"
    return _known(path) or _make(tree, path)


def _known(path: str) -> Image | None:
    """An image of the cache; None when it is not there, or is not what it was when it was made."""
    record = f"{path.removesuffix('.erofs')}.json"
    try:
        with open(record) as file:
            said = json.load(file)
        found = os.stat(path)
        image = Image(path, str(said["digest"]), int(said["bytes"]))
        stamp = list(said["stamp"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if stamp == _stamp(found):
        return image
    if _digest(path) != image.digest:  # cut short or changed: never given to a guest
        return None
    _record(image)
    return image


def write_image(tree: str, path: str, *, compressed: bool = False) -> None:
    """Write the image of a tree to a file that is there. Raises HostError (no mkfs.erofs), FullError, StoreError.

    compressed: half as large, for which a guest pays whenever it reads (docs/toolchain.md).
    """
    program = shutil.which("mkfs.erofs")
    if program is None:
        raise HostError("no mkfs.erofs here to make the root of a machine", "apt-get install erofs-utils")
    command = [program, "-x-1", f"-T{MTIME}", "-U", _UUID, *(_COMPRESSED if compressed else ()), "--quiet", path, tree]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise _failed(done.stderr or done.stdout, path)


def _make(tree: str, path: str) -> Image:
    try:
        with making(os.path.dirname(path)) as folder:
            interim = f"{folder}/image"
            with open(interim, "xb"):
                pass
            write_image(tree, interim)
            size = os.stat(interim).st_size
            os.truncate(interim, -(-size // _ALIGNED) * _ALIGNED)
            os.chmod(interim, 0o444)
            image = Image(path, _digest(interim), size)
            os.rename(interim, path)
    except OSError as error:
        raise StoreError(f"an image cannot be written: {error}", "swiftlet doctor") from None
    _record(image)
    return image


def _failed(said: str, path: str) -> StoreError:
    text = said.strip().splitlines()[-1:] or ["it said nothing"]
    if "No space left" in said:
        return FullError(f"no room for an image at {path}", "free some space, then run this again")
    return StoreError(f"mkfs.erofs failed: {text[0]}", "swiftlet store verify")


def _record(image: Image) -> None:
    """Note which file was found to have the digest. What cannot be noted is found out again."""
    record = f"{image.path.removesuffix('.erofs')}.json"
    said = {"digest": image.digest, "bytes": image.bytes, "stamp": _stamp(os.stat(image.path))}
    with contextlib.suppress(SwiftletError):
        write_atomic(record, json.dumps(said).encode())


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
