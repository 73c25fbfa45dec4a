"""Kernels that were not built here: a distribution's, taken into the cache as it is, with an initramfs of its modules.

What boots a machine is then that kernel's bzImage (`kept`), by the same names and commands as one that was built.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil

from swiftlet.image.kernel import configuration, initramfs, kept
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.machine import loader
from swiftlet.model.error import ConflictError, FullError, InputError, StoreError

RULES = "1"
"""Changes with anything here that makes another kernel of the same files."""

_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_VERSION_AT, _SETUP = 0x20E, 0x200
"""Documentation/x86/boot.rst: where a bzImage says that it is one, and where its version is."""

_BESIDE = (("System.map", "System.map"), ("config", "config"))
"""What distributions put beside vmlinuz-RELEASE, and what it is kept as."""


def take(path: str, modules: str, name: str, cache: str) -> Kernel:
    """The kernel of a bzImage such as /boot/vmlinuz-RELEASE, from the cache or taken into it now.

    modules: the folder of its modules, "" for /lib/modules/RELEASE beside its /boot. name: by which it is found again,
    "" for its release. Raises InputError for what is no kernel or lacks what machines need, FullError, StoreError.
    """
    if name:
        kept.checked_name(name)
    image = _read(path)
    release = release_of(image)
    if not release:
        raise InputError(
            f"{path} is no Linux kernel for this processor", "give a bzImage, such as /boot/vmlinuz-RELEASE"
        )
    modules = modules or f"{os.path.dirname(os.path.dirname(path))}/lib/modules/{release}"
    if not os.path.isdir(f"{modules}/kernel"):
        raise InputError(f"{modules} has no modules of Linux {release}", "say where they are: --modules FOLDER")
    archive = initramfs.for_kernel(modules, loader(cache))
    digest = hashlib.sha256(b"\0".join((RULES.encode(), image, archive))).hexdigest()
    os.makedirs(f"{cache}/kernels", exist_ok=True)
    try:
        with kept.locked(f"{cache}/kernels", wait=False):
            found = kept.kernel_of(cache, digest) or _keep(path, release, image, archive, f"{cache}/kernels/{digest}")
    except BlockingIOError:
        raise ConflictError("a kernel is being built here", "import this one when that has ended") from None
    return kept.remember(found, digest, name or release, ())


def release_of(image: bytes) -> str:
    """What `uname -r` says where this bzImage runs; "" for what is none."""
    if image[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return ""
    at = int.from_bytes(image[_VERSION_AT : _VERSION_AT + 2], "little") + _SETUP
    found = re.match(rb"[0-9][!-~]{0,63}", image[at : at + 64])
    return found[0].decode() if found else ""


def _keep(path: str, release: str, image: bytes, archive: bytes, folder: str) -> Kernel:
    interim = f"{folder}.new"
    shutil.rmtree(interim, ignore_errors=True)
    os.makedirs(interim)
    try:
        _write(f"{interim}/bzImage", image)
        _write(f"{interim}/{kept.INITRAMFS}", archive)
        for theirs, ours in _BESIDE:
            beside = f"{os.path.dirname(path)}/{theirs}-{release}"
            if os.path.isfile(beside):
                shutil.copyfile(beside, f"{interim}/{ours}")
        kept.write_record(interim, _record(path, release, image, archive, interim))
        os.rename(interim, folder)
    except OSError as error:
        shutil.rmtree(interim, ignore_errors=True)
        kind = FullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        raise kind(
            f"a kernel cannot be kept in {os.path.dirname(folder)}: {error.strerror}", "free some space"
        ) from None
    kernel = kept.kernel_of(os.path.dirname(os.path.dirname(folder)), os.path.basename(folder))
    assert kernel is not None
    return kernel


def _record(path: str, release: str, image: bytes, archive: bytes, folder: str) -> dict[str, object]:
    try:
        with open(f"{folder}/config") as file:
            values = configuration.read(file.read())
    except FileNotFoundError:
        values = {}
    return {
        "version": release,
        "bytes": len(image),
        "sizes": {"bzimage": len(image), "initramfs": len(archive)},
        "seconds": 0.0,
        "source": {"path": path, "version": release, "digest": hashlib.sha256(image).hexdigest()},
        "compiler": "not built here",
        "options": len(values),
        "steps": 0,
    }


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", "give a bzImage, such as /boot/vmlinuz-RELEASE") from None
