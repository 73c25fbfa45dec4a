"""The files of a Debian package or a wheel: read once into an index, kept by the archive's SHA-256, unpacked never.

::

    cache/debs/SHA256.deb        the package file as it was fetched; wheels/SHA256.whl likewise
    cache/index/SHA256-N.json    its members, with their digests and what the walker asks of them; N: INDEX_VERSION

The tar inside is written by `dpkg-deb --fsys-tarfile` into a file without a name, where members are read
by offset. When the index is there already, the tar is made only once a content is asked for that the store
lacks. Choosing members is `walk`'s business.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from swiftlet.linux.child import leash
from swiftlet.model.closure import canonical_path
from swiftlet.model.error import BadElfError, FetchError
from swiftlet.resolve.durable import full_disk, publish, scratch
from swiftlet.resolve.elf import MAGIC, Facts, read_facts

INDEX_VERSION = "1"
"""Part of an index's name; changes with anything that `_index` writes."""

_BLOCK = 1 << 20


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """One path of an archive.

    path: canonical. mode: as in the archive. offset, size: content within the tar. target: a link's, as written.
    facts: of an ELF object. unusable: why an ELF file cannot be used (32-bit, damaged). script: its `#!` line.
    """

    path: str
    kind: Literal["file", "directory", "symlink"]
    mode: int = 0
    size: int = 0
    offset: int = 0
    digest: str = ""
    target: str = ""
    facts: Facts | None = None
    unusable: str = ""
    script: str = ""


class Format(NamedTuple):
    """How a kind of archive is read.

    unpack: (archive file, folder for scratch files) -> descriptor of all its content, uncompressed.
    members: (archive file, that descriptor) -> members with offsets into it. Both raise FetchError where it is damaged.
    """

    unpack: Callable[[str, str], int]
    members: Callable[[str, int], list[Member]]


class Archive:
    """One archive file. `members` by canonical path. Close it, or use it as a context manager."""

    def __init__(self, file: str, digest: str, folder: str, form: Format) -> None:
        self.file = file
        self._content = -1
        self._folder = folder
        self._form = form
        index = f"{folder}/{digest}-{INDEX_VERSION}.json"
        self.members = _load(index)
        if not self.members:
            self.members = {member.path: member for member in form.members(file, self._descriptor())}
            publish(index, msgspec.json.encode(list(self.members.values())))

    def content(self, member: Member) -> tuple[int, int]:
        """A descriptor and the offset in it where a file's content starts; the descriptor stays ours."""
        return self._descriptor(), member.offset

    def close(self) -> None:
        """Give the unpacked content back to the disk."""
        if self._content >= 0:
            os.close(self._content)
            self._content = -1

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _descriptor(self) -> int:
        if self._content < 0:
            self._content = self._form.unpack(self.file, self._folder)
        return self._content


def _load(index: str) -> dict[str, Member]:
    """The members in an index file; none when there is no such file or it is damaged (it is made again then)."""
    try:
        with open(index, "rb") as file:
            members = msgspec.json.decode(file.read(), type=list[Member])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {member.path: member for member in members}


def _unpack(package_file: str, folder: str) -> int:
    """The package's tar in a file without a name, in the cache's file system (it can be large)."""
    descriptor = scratch(folder)
    try:
        result = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", package_file],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            preexec_fn=leash(),
            check=False,
        )
    except OSError as error:
        os.close(descriptor)
        raise FetchError(f"cannot run dpkg-deb: {error.strerror}", "install the package dpkg") from None
    if result.returncode != 0:
        os.close(descriptor)
        problem = result.stderr.decode(errors="replace").strip().splitlines() or ["unknown error"]
        damaged = FetchError(f"{os.path.basename(package_file)}: damaged package ({problem[-1]})")
        raise full_disk("\n".join(problem), folder) or damaged
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _index_tar(package_file: str, descriptor: int) -> list[Member]:
    found: dict[str, Member] = {}
    with open(descriptor, "rb", closefd=False) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for item in tar:
                    member = _member_of(item, descriptor, found)
                    if member is not None:
                        found[member.path] = member
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise FetchError(f"{os.path.basename(package_file)}: damaged package ({error})") from None
    return list(found.values())


def _member_of(item: tarfile.TarInfo, descriptor: int, found: dict[str, Member]) -> Member | None:
    """The member that a tar header stands for; None for devices, the root, and links to nothing."""
    path = canonical_path("/" + item.name.removeprefix("."))
    if path == "/":
        return None
    if item.isdir():
        return Member(path, "directory", item.mode)
    if item.issym():
        return Member(path, "symlink", 0o777, target=item.linkname)
    if item.islnk():
        linked = found.get(canonical_path("/" + item.linkname.removeprefix(".")))
        return None if linked is None else msgspec.structs.replace(linked, path=path)
    if item.isreg():
        return file_member(path, item.mode, descriptor, item.offset_data, item.size)
    return None


def file_member(path: str, mode: int, descriptor: int, offset: int, size: int) -> Member:
    """A regular file's member, with its digest and what it is, read at `offset` of a descriptor."""
    start = os.pread(descriptor, min(size, 256), offset)
    facts, unusable, script = None, "", ""
    if start.startswith(MAGIC):
        try:
            facts = read_facts(descriptor, path, offset=offset, size=size)
        except BadElfError as error:
            unusable = str(error)
    elif start.startswith(b"#!"):
        script = start[2:].split(b"\n", 1)[0].decode(errors="replace").strip()
    digest = _digest(descriptor, offset, size)
    return Member(path, "file", mode, size, offset, digest, facts=facts, unusable=unusable, script=script)


def _digest(descriptor: int, offset: int, size: int) -> str:
    """SHA-256 (hex) of a part of a file. Raises ValueError where the file ends early."""
    state = hashlib.sha256()
    end = offset + size
    while offset < end:
        block = os.pread(descriptor, min(_BLOCK, end - offset), offset)
        if not block:
            raise ValueError("cut short")
        state.update(block)
        offset += len(block)
    return state.hexdigest()


PACKAGE = Format(_unpack, _index_tar)
"""A Debian package file."""
