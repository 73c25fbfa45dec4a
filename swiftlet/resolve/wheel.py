"""A Supply of binary wheels of PyPI: for software that Debian has too old, such as Node.js.

pip, of the interpreter that runs this, chooses and fetches; a wheel is kept by its SHA-256 like a package
file. Each path of a wheel appears in the guest below the folder that the template gives it.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from swiftlet.linux.child import leash
from swiftlet.model.closure import canonical_path
from swiftlet.model.error import FetchError, NotFoundError
from swiftlet.model.template import MAX_CLOSURE_BYTES
from swiftlet.resolve.archive import Archive, Format, Member, file_member
from swiftlet.resolve.durable import cache_error, full_disk, locked, make_folder, scratch
from swiftlet.resolve.protocol import Progress
from swiftlet.resolve.walk import MAX_FILES, Found, Want

_CHUNK = 1 << 20
_NAME = re.compile(r"([A-Za-z0-9._]+)-([^-]+)-.*\.whl")


class Wheel(msgspec.Struct, frozen=True):
    """One fetched wheel. name: as the template spells it; place: the guest folder of its paths."""

    name: str
    version: str
    sha256: str
    place: str

    @property
    def origin(self) -> str:
        """How a closure's entry names it."""
        return f"wheel:{self.name}=={self.version}"


class Wheels:
    """The wheels of one template. Close it, or use it as a context manager."""

    def __init__(self, cache: str, wheels: Sequence[Wheel]) -> None:
        self.wheels = {wheel.origin: wheel for wheel in wheels}
        self.archives = {
            wheel.origin: Archive(_place(cache, wheel.sha256), wheel.sha256, f"{cache}/index", WHEEL)
            for wheel in wheels
        }
        self._paths: dict[str, Found] = {}
        for origin, archive in self.archives.items():
            for member in archive.members.values():
                moved = msgspec.structs.replace(member, path=canonical_path(self.wheels[origin].place + member.path))
                self._paths.setdefault(moved.path, Found(moved, origin, origin, own=True))

    def __enter__(self) -> Wheels:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self.archives.values():
            archive.close()

    def own_files(self) -> Iterator[Found]:
        """Every member of the wheels."""
        yield from self._paths.values()

    def content(self, found: Found) -> tuple[int, int]:
        """A descriptor and the offset in it where a file's content starts."""
        return self.archives[found.package].content(found.member)

    def find(self, path: str) -> Found | None:
        """See Supply."""
        return self._paths.get(path)

    def by_soname(self, soname: str) -> Found | None:
        """See Supply."""
        for path, found in self._paths.items():
            if path.endswith(f"/{soname}") and found.member.facts is not None:
                return found
        return None

    def seek(self, wants: Sequence[Want]) -> bool:
        """See Supply: a wheel is all there."""
        return False

    def companions(self, found: Found) -> Iterable[str]:
        """See Supply: all of a wheel is taken anyway."""
        return ()

    def advice(self, want: Want) -> str:
        """See Supply."""
        return ""


def fetch_wheel(cache: str, name: str, version: str, place: str, progress: Progress) -> Wheel:
    """Fetch the newest wheel of `name` that fits `version` (`20.*`, exact, or "" for any) and this machine.

    Raises NotFoundError where there is none, FetchError, FullError.
    """
    requirement = f"{name}=={version}" if version else name
    progress("fetch", requirement, 0, 0)
    try:
        make_folder(f"{cache}/wheels")
        with locked(f"{cache}/wheels/lock"):
            for left in glob.glob(f"{cache}/wheels/fetch-*"):  # of a resolution that was killed
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="fetch-", dir=f"{cache}/wheels") as folder:
                _pip_download(requirement, folder)
                return _keep(cache, folder, name, place)
    except OSError as error:
        raise cache_error(error, f"{cache}/wheels") from None


def ensure_wheel(cache: str, wheel: Wheel, progress: Progress) -> None:
    """Have exactly this wheel in the cache. Raises FetchError where its index gives another file for the version."""
    if os.path.exists(_place(cache, wheel.sha256)):
        return
    fetched = fetch_wheel(cache, wheel.name, wheel.version, wheel.place, progress)
    if fetched.sha256 != wheel.sha256:
        raise FetchError(f"the package index gives another file for {wheel.origin} than the lock names")


def _place(cache: str, sha256: str) -> str:
    return f"{cache}/wheels/{sha256}.whl"


def _pip_download(requirement: str, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--retries=1"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--dest", folder, "--", requirement]
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        preexec_fn=leash(),
        check=False,
    )
    if result.returncode != 0:
        raise full_disk(result.stderr, folder) or _pip_error(requirement, result.stderr)


def _pip_error(requirement: str, text: str) -> NotFoundError | FetchError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "No matching distribution" in line or "Could not find a version" in line:
            versions = re.search(r"from versions: ([^)]*)\)", text)
            having = versions.group(1).split(", ")[-8:] if versions else []
            hint = (
                f"there is {', '.join(having)}" if having and having != ["none"] else "check the network and the name"
            )
            return NotFoundError(f"no wheel {requirement} for this machine", hint)
    return FetchError(
        f"cannot fetch the wheel {requirement}: {lines[-1] if lines else 'pip failed'}", "check the network"
    )


def _keep(cache: str, folder: str, name: str, place: str) -> Wheel:
    files = glob.glob(f"{folder}/*.whl")
    match = _NAME.fullmatch(os.path.basename(files[0])) if len(files) == 1 else None
    if match is None:
        raise FetchError(f"pip fetched no single wheel for {name}")
    with open(files[0], "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.chmod(files[0], 0o644)
    os.rename(files[0], _place(cache, digest))
    return Wheel(name, match.group(2), digest, place)


def _unpack(wheel_file: str, folder: str) -> int:
    """All members of the wheel, one after the other, in a file without a name."""
    descriptor = scratch(folder)
    try:
        with zipfile.ZipFile(wheel_file) as archive, open(descriptor, "wb", closefd=False) as output:
            for item in _items(archive, wheel_file):
                with archive.open(item) as source:
                    shutil.copyfileobj(source, output, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError) as error:
        os.close(descriptor)
        raise FetchError(f"{os.path.basename(wheel_file)}: damaged wheel ({error})") from None
    except OSError as error:
        os.close(descriptor)
        raise cache_error(error, folder) from None
    return descriptor


def _items(archive: zipfile.ZipFile, wheel_file: str) -> list[zipfile.ZipInfo]:
    """The files of a wheel in its own order; more than any closure may hold is refused before it is unpacked."""
    items = [item for item in archive.infolist() if not item.is_dir()]
    if len(items) > MAX_FILES or sum(item.file_size for item in items) > MAX_CLOSURE_BYTES:
        raise FetchError(f"{os.path.basename(wheel_file)}: a wheel larger than any closure may be")
    return items


def _index(wheel_file: str, descriptor: int) -> list[Member]:
    members = []
    offset = 0
    try:
        with zipfile.ZipFile(wheel_file) as archive:
            for item in _items(archive, wheel_file):
                path = canonical_path("/" + item.filename)
                mode = item.external_attr >> 16 & 0o777 or 0o644
                members.append(file_member(path, mode, descriptor, offset, item.file_size))
                offset += item.file_size
    except (zipfile.BadZipFile, ValueError) as error:
        raise FetchError(f"{os.path.basename(wheel_file)}: damaged wheel ({error})") from None
    return members


WHEEL = Format(_unpack, _index)
