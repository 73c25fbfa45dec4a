"""Makes a raw disk image from a tree and a kernel: the executor of what `plan`, `table` and `grub` say.

File systems are made where they lie, by programs that take an offset into a file, so nothing is mounted and no
privilege is needed. The same input gives the same bytes. The file has holes wherever nothing was written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from swiftlet.image.disk import grub, table
from swiftlet.image.disk.plan import KERNEL_FILE, PROGRAMS, Disk, disk, programs
from swiftlet.image.disk.table import SECTOR, Partition
from swiftlet.image.erofs import write_image
from swiftlet.model.error import FullError, HostError, StoreError

_SECONDS = 600
"""After which a program that makes a file system is taken to hang."""

_SAME_EVERYWHERE = {"SOURCE_DATE_EPOCH": "315532800", "E2FSPROGS_FAKE_TIME": "315532800", "TZ": "UTC", "LC_ALL": "C"}
"""1980, with which FAT's calendar begins: no file is from when the image was made."""

_NOTHING_LEFT = 256 << 10
"""Bytes free on a disk below which a program's failure is put down to that."""


class Asked(NamedTuple):
    """What an image is to be. tree: of its root. kernel: a bzImage. size: bytes, 0 for no more than needed.

    compressed: the root.
    """

    tree: str
    kernel: str
    firmware: tuple[str, ...]
    size: int
    compressed: bool = False


def check_programs(firmware: Sequence[str], formats: Sequence[str], size: int) -> None:
    """Raise HostError when a program that an image takes is missing."""
    missing = [name for name in programs(firmware, formats, size) if _which(name) is None]
    if "bios" in firmware and not os.path.exists(f"{grub.FOLDER}/boot.img"):
        missing.append("grub-mkimage")
    if missing:
        packages = sorted({package for name in missing for package in PROGRAMS[name].split()})
        raise HostError(
            f"programs that make disk images are missing: {', '.join(dict.fromkeys(missing))}",
            f"apt-get install {' '.join(packages)}",
        )


def build(asked: Asked, path: str, work: str) -> Disk:
    """Write the raw image to `path`, a new file; `work` is a folder for what is needed meanwhile.

    Raises InputError (a size that is too small), HostError, FullError, StoreError, OSError.
    """
    root = f"{work}/root.erofs"
    with open(root, "xb"):
        pass
    write_image(asked.tree, root, compressed=asked.compressed)
    kernel_bytes, root_bytes = os.stat(asked.kernel).st_size, os.stat(root).st_size
    key = f"{_digest(root)} {_digest(asked.kernel)}"
    found = disk(asked.firmware, kernel_bytes, root_bytes, asked.size, key)
    with open(path, "xb") as file:
        file.truncate(found.sectors * SECTOR)
        _write_table(file.fileno(), found)
        if found.core_room:
            _write_grub(file.fileno(), found, work)
        start = _named(found, "swiftlet-root").start
        copy_into(file.fileno(), root, start * SECTOR)
    os.unlink(root)
    _make_fat(path, _named(found, "swiftlet-boot"), asked.kernel)
    data = found.partition("swiftlet-data")
    if data is not None:
        _make_ext4(path, data)
    return found


def _named(found: Disk, name: str) -> Partition:
    partition = found.partition(name)
    assert partition is not None
    return partition


def _write_table(file: int, found: Disk) -> None:
    if not found.gpt:
        _write(file, table.mbr(found.partitions, found.signature), grub.CODE_BYTES)
        return
    _write(file, table.protective(found.sectors), grub.CODE_BYTES)
    for sector, content in table.gpt(found.partitions, found.sectors, found.id).items():
        _write(file, content, sector * SECTOR)


def _write_grub(file: int, found: Disk, work: str) -> None:
    """The first sector's code and core.img, which grub-mkimage puts together."""
    with open(f"{work}/grub.cfg", "w") as configuration:
        configuration.write(grub.configuration(KERNEL_FILE, found.words))
    prefix = grub.prefix(found.number("swiftlet-boot"), found.gpt)
    options = ["-O", "i386-pc", "-d", grub.FOLDER, "-p", prefix, "-c", f"{work}/grub.cfg", "-o", f"{work}/core.img"]
    run(["grub-mkimage", *options, *grub.modules(found.gpt)], work)
    with open(f"{grub.FOLDER}/boot.img", "rb") as boot, open(f"{work}/core.img", "rb") as core:
        _write(file, grub.boot_code(boot.read(), found.core_at), 0)
        _write(file, grub.core(core.read(), found.core_at, found.core_room), found.core_at * SECTOR)


def _make_fat(path: str, place: Partition, kernel: str) -> None:
    """The partition that firmware or GRUB reads the kernel from."""
    number = f"{place.id.fields[0]:08x}"
    run(
        [
            "mkfs.vfat", "-F", "32", "-s", "1", "-S", "512", "-i", number, "-n", "SWIFTLET", "--invariant",
            "-h", str(place.start), f"--offset={place.start}", path, str(place.sectors // 2),
        ],
        path,
    )  # fmt: skip
    where = f"{path}@@{place.start * SECTOR}"
    folder, name = KERNEL_FILE.rpartition("/")[::2]
    run(["mmd", "-i", where, *(f"::{part}" for part in _above(folder))], path)
    run(["mcopy", "-i", where, kernel, f"::{folder}/{name}"], path)


def _above(folder: str) -> list[str]:
    """A folder and those above it, the topmost first."""
    parts = folder.strip("/").split("/")
    return ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]


def _make_ext4(path: str, place: Partition) -> None:
    """Where a workload's own files stay over a restart, empty."""
    options = f"offset={place.start * SECTOR},hash_seed={place.id},root_owner=0:0,lazy_itable_init=1,nodiscard"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "swiftlet-data", "-U", str(place.id)]
    run([*command, "-m", "0", "-E", options, path, f"{place.sectors // 2}k"], path)


def run(command: Sequence[str], path: str) -> None:
    """Run a program that makes an image. Raises HostError, StoreError, FullError when the disk of `path` is full."""
    program = _which(command[0])
    if program is None:
        raise HostError(f"no {command[0]} here", f"apt-get install {PROGRAMS[command[0]]}")
    try:
        done = subprocess.run(
            [program, *command[1:]], env={**os.environ, **_SAME_EVERYWHERE}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StoreError(f"{command[0]} did not end within {_SECONDS} s", "try again") from None
    if done.returncode == 0:
        return
    said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
    room = os.statvfs(os.path.dirname(path))
    if "No space left" in said or room.f_bavail * room.f_frsize < _NOTHING_LEFT:
        raise FullError(f"no room for a disk image at {path}", "free some space, then run this again")
    raise StoreError(f"{command[0]} failed: {said}")


def _which(name: str) -> str | None:
    """A program's path; those that make file systems lie where a user's own path may not lead."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _write(file: int, content: bytes, offset: int) -> None:
    while content:
        count = os.pwrite(file, content, offset)
        content, offset = content[count:], offset + count


def copy_into(file: int, source: str, offset: int) -> None:
    """Copy a file to a place in another, but for its holes."""
    with open(source, "rb") as read:
        size = os.stat(source).st_size
        for start, end in _without_holes(read.fileno(), size):
            while start < end:
                chunk = os.pread(read.fileno(), min(1 << 20, end - start), start)
                _write(file, chunk, offset + start)
                start += len(chunk)


def _without_holes(file: int, size: int) -> list[tuple[int, int]]:
    """Beginnings and ends of what a file of a size has besides holes."""
    found = []
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            break
        end = os.lseek(file, start, os.SEEK_HOLE)
        found.append((start, end))
    return found


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
