"""apt in a folder of its own: which packages a set of packages needs, what they are, and fetching them.

Its status file is empty, so what this host has installed does not matter; its sources, keys and
configuration are the host's, with hooks that act on the host taken out. Package lists are copied from the
host where it has them, so that most resolutions need no `update`. Reading a package file is `archive`'s
business, choosing files `walk`'s.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence

import msgspec

from swiftlet.linux.child import leash
from swiftlet.model.error import FetchError, HostError, NotFoundError, ResolveError, SwiftletError
from swiftlet.resolve.durable import cache_error, full_disk, locked, make_folder, publish
from swiftlet.resolve.protocol import Progress, no_progress

HOST_LISTS = "/var/lib/apt/lists"

MAX_AGE = 86400.0
"""Seconds after which package lists are fetched anew before something is resolved; what is resolved stays."""

_CONFIGURATION = """\
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Pre-Invoke;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear Dir::Cache;
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::State::extended_states "{folder}/state/extended_states";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Log "{folder}/log";
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
"""

_INSTALL = re.compile(r"^Inst (\S+) \((\S+) ")
_MISSING = re.compile(r"Unable to locate package (\S+)|Package '?([^'\s]+)'? has no installation candidate")
_VERSION = re.compile(r"Version '(\S+?)' for '(\S+?)' was not found")
_POLL = 0.1


class Package(msgspec.Struct, frozen=True):
    """What apt knows of one version of a package. source: its Debian source package. depends, recommends: names."""

    name: str
    version: str
    source: str
    section: str
    size: int
    sha256: str
    depends: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """How a closure's entry names it."""
        return f"deb:{self.name}={self.version}"


class StaleListsError(FetchError):
    """The archive no longer has what the package lists name; an update may help."""


class UnknownPackageError(NotFoundError):
    """The package lists know no such package or version; an update may help."""


class Apt:
    """One isolated apt, shared by all resolutions of an instance; each call holds its lock."""

    def __init__(self, cache: str, progress: Progress = no_progress) -> None:
        self.folder = f"{cache}/apt"
        self.debs = f"{cache}/debs"
        self.progress = progress
        self.updated = False
        self._ready = False
        self._names: list[str] = []

    def update(self) -> None:
        """Fetch the package lists anew. Raises FetchError when no source answers."""
        self._prepare()
        self.progress("fetch", "package lists", 0, 0)
        with locked(f"{self.folder}/lock"):
            result = self._run("apt-get", "-qq", "update")
        if full := full_disk(result.stderr, self.folder):
            raise full
        if result.returncode != 0 and not self._has_lists():
            raise FetchError(f"cannot fetch the package lists: {_reason(result)}", _NETWORK_HINT)
        if result.returncode != 0:
            self.progress("fetch", f"package lists: {_reason(result)}; using those that are here", 0, 0)
        else:
            self._note_fetched(time.time())
        self.updated = True
        self._names = []

    def closure(self, wanted: Sequence[str]) -> list[Package]:
        """The packages that apt would install for `name` or `name=version` into an empty system.

        Raises NotFoundError for an unknown name (with near ones) or version (with those that are), and
        ResolveError when the packages cannot be together.
        """
        result = self._ask("apt-get", "-s", "install", "--no-install-recommends", "--", *wanted)
        if result.returncode != 0:
            raise self._refusal(result, wanted)
        chosen = _installs(result.stdout)
        return self.show([f"{name.partition(':')[0]}={version}" for name, version in chosen])

    def show(self, wanted: Sequence[str]) -> list[Package]:
        """What is known of `name` (the version apt would take) or `name=version`; unknown ones are left out."""
        found: list[Package] = []
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            result = self._ask("apt-cache", "--no-all-versions", "show", "--", *part)
            found.extend(_packages(result.stdout))
        return found

    def names(self) -> list[str]:
        """All package names of the lists."""
        if not self._names:
            self._names = self._ask("apt-cache", "pkgnames").stdout.split()
        return self._names

    def versions(self, name: str) -> list[str]:
        """The versions of a package that can be had, newest first."""
        lines = self._ask("apt-cache", "madison", "--", name).stdout.splitlines()
        found = [line.split("|")[1].strip() for line in lines if line.count("|") >= 2]
        return list(dict.fromkeys(found))

    def fetch(self, packages: Iterable[Package]) -> dict[str, str]:
        """Package files by name, those fetched before among them; each is checked against its SHA-256.

        Raises FetchError, StaleListsError when the archive has moved on, FullError.
        """
        wanted = list(packages)
        missing = [package for package in wanted if not os.path.exists(self._place(package.sha256))]
        if missing:
            self._prepare()
            with locked(f"{self.folder}/lock"):
                self._download([package for package in missing if not os.path.exists(self._place(package.sha256))])
        return {package.name: self._place(package.sha256) for package in wanted}

    def _place(self, sha256: str) -> str:
        return f"{self.debs}/{sha256}.deb"

    def _download(self, packages: list[Package]) -> None:
        make_folder(self.debs)
        try:
            with tempfile.TemporaryDirectory(prefix="fetch-", dir=self.folder) as folder:
                _allow_sandbox_user(folder)
                try:
                    self._watch(packages, folder)
                finally:  # a full disk or a cut line in the middle loses nothing that has come whole
                    for path in glob.glob(f"{folder}/*.deb"):
                        self._keep(path, {package.sha256 for package in packages})
        except OSError as error:
            raise cache_error(error, self.debs) from None
        for package in packages:
            if not os.path.exists(self._place(package.sha256)):
                raise StaleListsError(f"the archive gave another {package.name} {package.version} than its list says")

    def _keep(self, path: str, digests: set[str]) -> None:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest in digests:
            os.chmod(path, 0o644)
            os.rename(path, self._place(digest))

    def _watch(self, packages: list[Package], folder: str) -> None:
        """Run the download and report how many bytes have arrived."""
        total = sum(package.size for package in packages)
        label = packages[0].name if len(packages) == 1 else f"{len(packages)} packages"
        command = ["apt-get", "-qq", "-c", self._configuration, "download", "--"]
        command += [f"{package.name}={package.version}" for package in packages]
        with tempfile.TemporaryFile() as output:
            process = _start(command, folder, output.fileno())
            try:
                while process.poll() is None:
                    self.progress("fetch", label, min(_bytes_in(folder), total), total)
                    time.sleep(_POLL)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            output.seek(0)
            text = output.read().decode(errors="replace")
        if process.returncode != 0:
            raise full_disk(text, self.folder) or _fetch_error(text, label)
        self.progress("fetch", label, total, total)

    def _refusal(self, result: subprocess.CompletedProcess[str], wanted: Sequence[str]) -> SwiftletError:
        for line in result.stderr.splitlines():
            version = _VERSION.search(line)
            if version:
                return self._no_version(version.group(2), version.group(1))
            missing = _MISSING.search(line)
            if missing:
                return self._no_package(missing.group(1) or missing.group(2))
        reason = _conflict(result.stdout) or _reason(result)
        return ResolveError(f"the packages {', '.join(wanted)} cannot be installed together: {reason}")

    def _no_version(self, name: str, version: str) -> NotFoundError:
        having = self.versions(name)
        hint = "there is " + ", ".join(having[:8]) if having else "the package exists only by name"
        return UnknownPackageError(f"Debian package {name} has no version {version}", hint)

    def _no_package(self, name: str) -> NotFoundError:
        near = difflib.get_close_matches(name, self.names(), 4, 0.75)
        hint = f"did you mean {', '.join(near)}?" if near else "`swiftlet template ls` shows what needs no package name"
        return UnknownPackageError(f"no Debian package {name}", hint)

    def _prepare(self) -> None:
        """Make the folder and its lists; fetch them where the host has none."""
        if self._ready:
            return
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise HostError("this host has no apt-get or dpkg-deb", "templates of packages need a Debian host")
        for name in ("state/lists/partial", "cache/archives/partial", "log"):
            make_folder(f"{self.folder}/{name}")
        with locked(f"{self.folder}/lock"):
            if not os.path.exists(f"{self.folder}/state/status"):  # a newer one makes apt index all lists again
                publish(f"{self.folder}/state/status", b"")
            publish(self._configuration, _CONFIGURATION.format(folder=self.folder).encode())
            self._clear()
            if not self._has_lists():
                self._copy_lists()
        self._ready = True
        if not self._has_lists() or self._age() > MAX_AGE:
            self.update()

    def _clear(self) -> None:
        """Remove what a resolution that was killed, or an apt that ran out of space, left half-made."""
        for left in glob.glob(f"{self.folder}/fetch-*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in glob.glob(f"{self.folder}/cache/*.bin.*"):
            with contextlib.suppress(OSError):
                os.unlink(left)

    def _age(self) -> float:
        """Seconds since the lists were fetched, by us or by the host that they were copied from."""
        try:
            return time.time() - os.stat(f"{self.folder}/state/fetched").st_mtime
        except OSError:
            return MAX_AGE + 1

    def _note_fetched(self, when: float) -> None:
        publish(f"{self.folder}/state/fetched", b"")
        os.utime(f"{self.folder}/state/fetched", (when, when))

    @property
    def _configuration(self) -> str:
        return f"{self.folder}/apt.conf"

    def _has_lists(self) -> bool:
        return bool(glob.glob(f"{self.folder}/state/lists/*_Packages*"))

    def _copy_lists(self) -> None:
        """The host's lists, all of them or none: with half of a list half of the packages would be unknown."""
        place = f"{self.folder}/state/lists"
        shutil.rmtree(f"{place}.new", ignore_errors=True)
        try:
            os.makedirs(f"{place}.new/partial")
            for path in glob.glob(f"{HOST_LISTS}/*_*"):
                if os.path.isfile(path):
                    shutil.copy2(path, f"{place}.new/")
            shutil.rmtree(place)
            os.rename(f"{place}.new", place)
            if os.path.isdir(f"{HOST_LISTS}/partial"):  # apt leaves this folder changed by every update
                self._note_fetched(os.stat(f"{HOST_LISTS}/partial").st_mtime)
        except OSError as error:
            shutil.rmtree(f"{place}.new", ignore_errors=True)
            raise cache_error(error, self.folder) from None

    def _ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self._prepare()
        with locked(f"{self.folder}/lock"):
            result = self._run(*arguments)
        if result.returncode != 0 and (full := full_disk(result.stderr, self.folder)):
            raise full
        return result

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "-c", self._configuration, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=_environment(),
            cwd=self.folder,
            preexec_fn=leash(),
            check=False,
        )


_NETWORK_HINT = "check the network; what has been fetched is kept"


def _environment() -> dict[str, str]:
    """Of the caller's, only what says how to reach the archive: proxies, and an apt configuration of one's own."""
    names = [name for name in os.environ if name.lower().endswith("_proxy") or name == "APT_CONFIG"]
    kept = {name: os.environ[name] for name in names}
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _start(command: list[str], folder: str, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=_environment(),
        cwd=folder,
        preexec_fn=leash(),
    )


def _allow_sandbox_user(folder: str) -> None:
    """Let apt fetch as its own user, where that one can reach the folder."""
    os.chmod(folder, 0o755)
    if os.geteuid() == 0:
        try:
            shutil.chown(folder, "_apt")
        except LookupError:
            pass


def _bytes_in(folder: str) -> int:
    total = 0
    for entry in os.scandir(folder):
        try:
            total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # renamed by apt meanwhile
            continue
    return total


def _installs(output: str) -> list[tuple[str, str]]:
    found = (_INSTALL.match(line) for line in output.splitlines())
    return [(match.group(1), match.group(2)) for match in found if match]


def _packages(output: str) -> Iterable[Package]:
    for stanza in output.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if "SHA256" in fields and "Version" in fields:
            yield _package(fields)


def _package(fields: dict[str, str]) -> Package:
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        source=fields.get("Source", fields["Package"]).partition(" ")[0],
        section=fields.get("Section", "").rpartition("/")[2],
        size=int(fields.get("Size", "0")),
        sha256=fields["SHA256"],
        depends=_relations(fields.get("Pre-Depends", "")) + _relations(fields.get("Depends", "")),
        recommends=_relations(fields.get("Recommends", "")),
    )


def _relations(text: str) -> tuple[str, ...]:
    """The names in a relation field, alternatives too, without versions."""
    names = (re.split(r"[\s(:\[]", part.strip(), maxsplit=1)[0] for part in re.split(r"[,|]", text))
    return tuple(dict.fromkeys(name for name in names if name))


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """The most telling line of apt's complaint."""
    lines = [line[3:].strip() for line in result.stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return lines[0] if lines else f"apt ended with status {result.returncode}"


def _conflict(output: str) -> str:
    """The first line of apt's list of unmet dependencies."""
    _, found, rest = output.partition("unmet dependencies:\n")
    return rest.strip().splitlines()[0].strip() if found and rest.strip() else ""


def _fetch_error(text: str, label: str) -> FetchError:
    failed = [line for line in text.splitlines() if line.startswith("E: Failed to fetch")]
    if any("404" in line for line in failed) or "was not found" in text:
        return StaleListsError(f"cannot fetch {label}: the archive no longer has what its list names")
    if failed:
        reason = failed[0].removeprefix("E: Failed to fetch ").partition("  ")
        return FetchError(f"cannot fetch {label}: {(reason[2] or reason[0]).strip()}", _NETWORK_HINT)
    other = [line[3:] for line in text.splitlines() if line.startswith("E: ")]
    return FetchError(f"cannot fetch {label}: {other[0] if other else 'apt-get download failed'}", _NETWORK_HINT)
