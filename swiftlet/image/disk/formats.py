"""A raw disk image in the formats that hosts take: qemu-img writes them, an OVA is a tar archive around one."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping

from swiftlet.image.disk.build import copy_into, run
from swiftlet.image.disk.ovf import Appliance, descriptor
from swiftlet.model.error import InputError

FORMATS: Mapping[str, tuple[str, ...]] = {
    "raw": (),
    "qcow2": ("-c", "-O", "qcow2"),
    "vhd": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "ova": ("-O", "vmdk", "-o", "subformat=streamOptimized"),
}
"""Format -> words for qemu-img. A VHD is fixed and its size kept, in whole MiB, for Azure takes no other."""


def check_formats(names: tuple[str, ...]) -> None:
    """Raise InputError for a format that is none of FORMATS."""
    for name in names:
        if name not in FORMATS:
            raise InputError(f"--format: there is no {name!r}", f"there are {', '.join(FORMATS)}")


def convert(raw: str, format_: str, path: str, appliance: Appliance) -> None:
    """Write the raw image `raw` to `path` in another format. Raises HostError, FullError, StoreError, OSError."""
    if format_ == "ova":
        _write_ova(raw, path, appliance)
    else:
        run(["qemu-img", "convert", "-f", "raw", *FORMATS[format_], raw, path], path)


def _write_ova(raw: str, path: str, appliance: Appliance) -> None:
    """The descriptor first, then digests, then the disk: so that a reader of the stream knows what comes."""
    disk = f"{path}.vmdk"
    run(["qemu-img", "convert", "-f", "raw", *FORMATS["ova"], raw, disk], path)
    try:
        text = descriptor(appliance._replace(disk_bytes=os.stat(disk).st_size)).encode()
        name = appliance.disk.removesuffix(".vmdk")
        with open(disk, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        said = f"SHA256({name}.ovf)= {hashlib.sha256(text).hexdigest()}\nSHA256({appliance.disk})= {digest}\n"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            _add(archive, f"{name}.ovf", text)
            _add(archive, f"{name}.mf", said.encode())
            with open(disk, "rb") as file:
                archive.addfile(_member(appliance.disk, os.stat(disk).st_size), file)
    finally:
        if os.path.exists(disk):
            os.unlink(disk)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def deliver(made: str, target: str) -> None:
    """Move a file that was made to where it was asked for, at once and as a whole. Raises OSError."""
    os.chmod(made, 0o644)
    try:
        os.rename(made, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    interim = f"{os.path.dirname(target)}/.{os.path.basename(target)}.{os.getpid()}.new"
    try:
        _copy(made, interim)
        os.rename(interim, target)
    finally:
        if os.path.exists(interim):
            os.unlink(interim)
    os.unlink(made)


def _copy(source: str, target: str) -> None:
    """Copy a file with its holes."""
    with open(target, "xb") as write:
        copy_into(write.fileno(), source, 0)
        write.truncate(os.stat(source).st_size)
