"""The kernels that are there: found by profile or digest, compared, removed.

::

    CACHE/kernels/DIGEST/     complete since it came there by rename
      vmlinux                 the ELF image that QEMU starts directly (PVH), without symbols
      bzImage                 the same kernel compressed, for firmware
      initramfs               of one that was not built here: its drivers are modules (`foreign`); it has no vmlinux
      System.map config       symbols for profiles, and the whole configuration
      vmlinux.lines           vmlinux with symbols and source lines, where somebody is to trace it (`trace`)
      objects.json            what each object file takes, and for which options it is there (`footprint`)
      kernel.json             what it was made of, sizes, seconds, and for whom it was built (`asked`)
    CACHE/kernels.lock        held by whoever builds or removes
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from swiftlet.image.kernel import configuration
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.model.error import InputError, NotFoundError

_SHORTEST = 4
"""Digits that a digest's beginning must have, so that no profile's name is taken for one."""

_BEGINNING = re.compile(f"[0-9a-f]{{{_SHORTEST},64}}")
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,60}")

LINES = "vmlinux.lines"

INITRAMFS = "initramfs"

BOOT_FILE = "boot.json"
"""Beside a kernel: milliseconds of its start by option, where somebody has measured them."""

DERIVED_FILE = "derived.json"
"""Beside a kernel that was derived: the evidence (`derived`)."""

_KEPT_REQUESTS = 16
"""Builds that a kernel remembers having been asked for by."""


class Kernel(NamedTuple):
    """A kernel that is there. seconds: that its build took. bytes: of vmlinux. built_ns: when it was last asked for.

    name: of the profile it was last built for, with the fragments that were added: `server`, `server+mine`.
    """

    folder: str
    digest: str
    version: str
    bytes: int
    seconds: float
    name: str = ""
    built_ns: int = 0
    options: int = 0
    sizes: Mapping[str, int] = {}
    source: Mapping[str, str] = {}
    compiler: str = ""
    steps: int = 0

    @property
    def vmlinux(self) -> str:
        """The image that QEMU starts directly."""
        return f"{self.folder}/vmlinux"

    @property
    def bzimage(self) -> str:
        """The image for firmware and boot loaders."""
        return f"{self.folder}/bzImage"

    @property
    def initramfs(self) -> str:
        """What a kernel starts from whose drivers are modules; "" for one that has them built in."""
        path = f"{self.folder}/{INITRAMFS}"
        return path if os.path.exists(path) else ""

    @property
    def image(self) -> str:
        """What QEMU is given."""
        return self.bzimage if self.initramfs else self.vmlinux

    def told(self) -> dict[str, Any]:
        """As JSON, for whoever asks from outside. vmlinux: None where there is none (`initramfs`)."""
        members, names = self._asdict(), [name for name in names_of(self) if not _is_hidden(name)]
        name = names[-1] if names else ""
        vmlinux = self.vmlinux if os.path.exists(self.vmlinux) else None
        return {**members, "name": name, "vmlinux": vmlinux, "bzimage": self.bzimage, "names": names}


def kernel_of(cache: str, digest: str) -> Kernel | None:
    """A kernel of the cache."""
    folder = f"{cache}/kernels/{digest}"
    said = _record(folder)
    try:
        asked = said.get("asked") or [{}]
        return Kernel(
            folder, digest, said["version"], said["bytes"], said["seconds"], asked[-1].get("name", ""),
            asked[-1].get("when_ns", 0), said.get("options", 0), said.get("sizes", {}),
            said["source"] if isinstance(said["source"], dict) else {"digest": said["source"]},
            said.get("compiler", ""), said.get("steps", 0),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, IndexError):
        return None


@functools.cache
def _configuration(folder: str) -> frozenset[str]:
    """The lines of a kernel's configuration, which never changes."""
    try:
        with open(f"{folder}/config") as file:
            return frozenset(file.read().splitlines())
    except OSError:
        return frozenset()


def has(kernel: Kernel, options: Iterable[str]) -> bool:
    """Whether all these options (without CONFIG_) are built into a kernel."""
    return all(f"CONFIG_{name}=y" in _configuration(kernel.folder) for name in options)


def kernels_of(cache: str) -> list[Kernel]:
    """All kernels of the cache, the newest first."""
    try:
        names = os.listdir(f"{cache}/kernels")
    except FileNotFoundError:
        return []
    found = [kernel for name in names if (kernel := kernel_of(cache, name)) is not None]
    return sorted(found, key=lambda kernel: (-kernel.built_ns, kernel.digest))


def _is_hidden(name: str) -> bool:
    """A kernel that was only tried has a name with a dot in front, as hidden files do."""
    return name.startswith(".")


def listed(cache: str) -> list[Kernel]:
    """The kernels that people asked for, the newest first: those that were only tried are left out."""
    return [each for each in kernels_of(cache) if not names_of(each) or not all(map(_is_hidden, names_of(each)))]


def general(cache: str) -> list[Kernel]:
    """Those that anybody may get who names none, the newest first: what was derived is for one workload."""
    return [each for each in listed(cache) if not _is_derived_only(each)]


def _is_derived_only(kernel: Kernel) -> bool:
    from swiftlet.image.kernel.profile import PROFILES

    names = {name.partition("+")[0] for name in names_of(kernel)}
    return os.path.exists(f"{kernel.folder}/{DERIVED_FILE}") and not names & {*PROFILES}


def kernel_named(cache: str, text: str) -> Kernel:
    """A kernel by its name (the newest of it), its digest, or the digest's beginning; "" is the newest general one.

    Raises NotFoundError that says what builds it, InputError for a beginning that several have.
    """
    kernels = kernels_of(cache)
    if not text and (found_general := general(cache)):
        return found_general[0]
    found = [(when, kernel) for kernel in kernels for name, when in _names(kernel) if name == text]
    if found:
        return max(found, key=lambda each: each[0])[1]
    if _BEGINNING.fullmatch(text):
        begin = [kernel for kernel in kernels if kernel.digest.startswith(text)]
        if len(begin) > 1:
            raise InputError(
                f"{text} is the beginning of {len(begin)} kernels", ", ".join(k.digest[:16] for k in begin)
            )
        if begin:
            return begin[0]
    raise _unknown(text, kernels)


def _unknown(text: str, kernels: list[Kernel]) -> NotFoundError:
    from swiftlet.image.kernel.profile import PROFILES

    if text in PROFILES or not kernels or not text:
        profile = text if text in PROFILES else "server"
        told = f"no kernel of profile {text} is built" if text else "no kernel is built"
        return NotFoundError(told, f"`swiftlet kernel build --profile {profile}` builds one")
    names = sorted({name for kernel in kernels for name in names_of(kernel) if not _is_hidden(name)})
    return NotFoundError(
        f"no kernel {text}", f"there are: {', '.join(names)}; `swiftlet kernel ls` shows their digests"
    )


def checked_name(name: str) -> str:
    """A name that somebody gives a kernel. Raises InputError for one that is a profile's, hidden or like a digest's."""
    from swiftlet.image.kernel.profile import PROFILES

    if not _NAME.fullmatch(name) or name in PROFILES or _BEGINNING.fullmatch(name):
        hint = "small letters, digits, '.', '_' and '-', no profile's name and no digest's, as in: --name hello-web"
        raise InputError(f"--name: {name!r} is no name for a kernel", hint)
    return name


def names_of(kernel: Kernel) -> list[str]:
    """What a kernel was built for, the newest last: two profiles may come to one configuration."""
    return [name for name, _ in _names(kernel)]


def _names(kernel: Kernel) -> list[tuple[str, int]]:
    asked = _record(kernel.folder).get("asked") or []
    return [(each["name"], each["when_ns"]) for each in asked if each.get("name")]


def requests_of(kernel: Kernel, name: str = "") -> dict[str, Wanted]:
    """What a kernel was asked for, by symbol: under a name, or last."""
    asked = _record(kernel.folder).get("asked") or []
    named = [each for each in asked if each.get("name") == name] or asked
    return {row[0]: Wanted(*row) for row in named[-1]["requests"]} if named else {}


def values_of(kernel: Kernel) -> dict[str, str]:
    """A kernel's whole configuration. Raises OSError."""
    with open(f"{kernel.folder}/config") as file:
        return configuration.read(file.read())


def kernel_asked(cache: str, digest: str) -> Kernel | None:
    """A kernel that was made for equal requests of an equal source before: `digest` is theirs, see `remember`."""
    for kernel in kernels_of(cache):
        if any(each.get("digest") == digest for each in _record(kernel.folder).get("asked") or []):
            return kernel
    return None


def remember(kernel: Kernel, digest: str, name: str, requests: Iterable[Wanted]) -> Kernel:
    """Note that a kernel was asked for by these requests under this name; gives it back with that. Raises OSError.

    digest: of the source and the requests, by which the same is found without configuring it again.
    """
    now = {"name": name, "when_ns": time.time_ns(), "digest": digest, "requests": [list(each) for each in requests]}
    with _held(kernel.folder):
        said = _record(kernel.folder)
        asked = [each for each in said.get("asked", []) if each.get("name") != name][1 - _KEPT_REQUESTS :]
        write_record(kernel.folder, {**said, "asked": [*asked, now]})
    return kernel_of(os.path.dirname(os.path.dirname(kernel.folder)), kernel.digest) or kernel


@contextmanager
def _held(folder: str) -> Iterator[None]:
    """Hold one kernel's record. Who finds a kernel waits for no build: those have the cache's lock for minutes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_record(folder: str, said: Mapping[str, Any]) -> None:
    """Write kernel.json beside and rename. Raises OSError."""
    with open(f"{folder}/kernel.json.new", "w") as file:
        json.dump(said, file)
    os.rename(f"{folder}/kernel.json.new", f"{folder}/kernel.json")


def _record(folder: str) -> dict[str, Any]:
    try:
        with open(f"{folder}/kernel.json") as file:
            said = json.load(file)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def remove(cache: str, kernel: Kernel) -> int:
    """Remove a kernel; returns its bytes on the disk. A guest that runs keeps what it was started from."""
    with os.scandir(kernel.folder) as entries:
        size = sum(entry.stat().st_size for entry in entries)
    with locked(f"{cache}/kernels"):
        grave = f"{cache}/kernels/.removed-{kernel.digest[:16]}-{os.getpid()}"
        os.rename(kernel.folder, grave)
        shutil.rmtree(grave)
    return size


def sweep(cache: str, patience: float = 0.0) -> None:
    """Remove what builds that were killed left half-made; leaves everything alone while one runs. Never raises.

    patience: seconds to wait for the compilers of a killed build, which hold its lock until they have died too.
    """
    deadline = time.monotonic() + patience
    for folder in (f"{cache}/kernels", f"{cache}/sources"):
        while not _cleared(folder) and time.monotonic() < deadline:
            time.sleep(0.1)


def _cleared(folder: str) -> bool:
    """Clear a folder, unless somebody holds its lock."""
    try:
        with locked(folder, wait=False):
            clear(folder)
    except BlockingIOError:
        return False
    except OSError:
        pass  # nothing is there
    return True


def clear(folder: str) -> None:
    """Remove what is half-made, for one who holds the folder's lock."""
    for name in os.listdir(folder):
        if name.startswith((".work-", ".removed-", ".unpacking-")) or name.endswith(".new"):
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)


@contextmanager
def locked(folder: str, *, wait: bool = True, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold a folder's lock, which leaves with the process and with all that inherited its descriptor.

    waiting: called once before waiting for somebody else. Raises BlockingIOError where `wait` is off, OSError.
    """
    lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            if waiting is not None:
                waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)
