"""From a source and requests to a kernel: the tree's own tools configure it, every request is checked, it is compiled.

::

    CACHE/kernels/DIGEST/     complete since it came there by rename
      vmlinux                 the ELF image that QEMU starts directly (PVH), without symbols
      bzImage                 the same kernel compressed, for firmware
      System.map config       symbols for profiles, and the whole configuration
      kernel.json             version, digest, what it was made of, sizes, seconds

The digest is of the source, the configuration, the compiler and the rules here, so an equal kernel is built once. Two
builds of one digest give the same bytes: no time, user, host or path is in them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from swiftlet.image.kernel import configuration, kconfig
from swiftlet.image.kernel.configuration import Unmet, Wanted
from swiftlet.image.kernel.source import Source
from swiftlet.model.error import HostError, KernelError

RULES = "1"
"""Changes with anything here that makes the same request another kernel."""

TOOLS = {
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "objcopy": "binutils",
}
"""Programs that a build takes, and the Debian packages that have them (libelf-dev and libc6-dev besides)."""

_SAME_EVERYWHERE = {
    "KBUILD_BUILD_TIMESTAMP": "@0",
    "KBUILD_BUILD_USER": "swiftlet",
    "KBUILD_BUILD_HOST": "swiftlet",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C",
}

_STEPS = ("  CC ", "  AS ", "  AR ", "  LD ", "  HOSTCC ", "  OBJCOPY ")

STEPS = 1750
"""Steps of a kernel of these profiles, for the first estimate; later ones are those of the last build."""

Progress = Callable[[int, int, str], None]


class Kernel(NamedTuple):
    """A kernel that is there. seconds: that its build took. bytes: of vmlinux."""

    folder: str
    digest: str
    version: str
    bytes: int
    seconds: float

    @property
    def vmlinux(self) -> str:
        """The image that QEMU starts directly."""
        return f"{self.folder}/vmlinux"

    @property
    def bzimage(self) -> str:
        """The image for firmware and boot loaders."""
        return f"{self.folder}/bzImage"


def no_progress(done: int, total: int, step: str) -> None:
    """A Progress that nobody watches: steps done, steps in all (a guess), the last step."""


def build(
    source: Source, requests: Iterable[Wanted], cache: str, progress: Progress = no_progress, jobs: int = 0
) -> Kernel:
    """The kernel that a source and requests make, from the cache or built now.

    Raises HostError (a missing tool), KernelError (a request that is not met, a compiler's error).
    """
    check_tools()
    requests = list(requests)
    os.makedirs(f"{cache}/kernels", exist_ok=True)
    work = f"{cache}/kernels/.work-{_text_digest(source.digest, configuration.render(requests))[:16]}"
    with _locked(f"{work}.lock"):
        text = configure(source, requests, work)
        digest = _text_digest(RULES, source.digest, text, _compiler())
        found = kernel_of(cache, digest)
        if found is None:
            found = _compile(source, work, f"{cache}/kernels/{digest}", digest, progress, jobs or os.cpu_count() or 1)
        shutil.rmtree(work, ignore_errors=True)
        return found


def kernel_of(cache: str, digest: str) -> Kernel | None:
    """A kernel of the cache."""
    folder = f"{cache}/kernels/{digest}"
    try:
        with open(f"{folder}/kernel.json") as file:
            said = json.load(file)
        return Kernel(folder, digest, said["version"], said["bytes"], said["seconds"])
    except (OSError, ValueError, KeyError):
        return None


def kernels_of(cache: str) -> list[Kernel]:
    """All kernels of the cache, the newest first."""
    try:
        names = os.listdir(f"{cache}/kernels")
    except FileNotFoundError:
        return []
    found = [kernel for name in names if (kernel := kernel_of(cache, name)) is not None]
    return sorted(found, key=lambda kernel: -os.stat(f"{kernel.folder}/kernel.json").st_mtime_ns)


def check_tools() -> None:
    """Raise HostError when a program that a build takes is missing."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise HostError("programs that build kernels are missing", f"apt-get install {' '.join(missing)} libelf-dev")


def configure(source: Source, requests: Iterable[Wanted], work: str) -> str:
    """Let the tree's own tools make the configuration in `work`: its text.

    Starts from tinyconfig, merges the requests, and lets olddefconfig decide the rest. Raises KernelError that says of
    each request that was not met which of its dependencies is missing.
    """
    requests = list(requests)
    os.makedirs(work, exist_ok=True)
    _make(source, work, "tinyconfig")
    with open(f"{work}/requests.config", "w") as file:
        file.write(configuration.render(requests))
    merge = [
        f"{source.path}/scripts/kconfig/merge_config.sh",
        "-m",
        "-O",
        work,
        f"{work}/.config",
        f"{work}/requests.config",
    ]
    _run(merge, work)
    _make(source, work, "olddefconfig")
    with open(f"{work}/.config") as file:
        text = file.read()
    values = configuration.read(text)
    unmet = configuration.unmet(requests, values)
    if unmet:
        raise KernelError(*explained(unmet, values, kconfig.read_tree(source.path)))
    return text


def explained(
    unmet: Iterable[Unmet], values: Mapping[str, str], options: Mapping[str, list[kconfig.Option]]
) -> tuple[str, str]:
    """Message and hint for requests that were not met: what each has become, and what is in its way."""
    told = []
    for each in unmet:
        wanted = each.wanted
        told.append(
            f"{wanted.symbol}={wanted.value} ({wanted.fragment}, line {wanted.line}) {_why(each, values, options)}"
        )
    return "; ".join(told), "ask for what is missing too, or for less"


def _why(each: Unmet, values: Mapping[str, str], options: Mapping[str, list[kconfig.Option]]) -> str:
    definitions = options.get(each.wanted.symbol, [])
    if not definitions:
        return "is no option of this kernel"
    if each.wanted.value == "n":
        return f"stays {each.value}: another option selects it"
    failing = [kconfig.failing(definition, values) for definition in definitions]
    if all(failing):
        return "needs " + " or ".join(" and ".join(dict.fromkeys(parts)) for parts in failing)
    if not any(definition.title for definition in definitions):
        return "cannot be asked for: only other options select it"
    return f"became {each.value}"


def _compile(source: Source, work: str, folder: str, digest: str, progress: Progress, jobs: int) -> Kernel:
    begin = time.monotonic()
    command = [*_make_command(source, work), f"-j{jobs}", "vmlinux", "bzImage"]
    steps = _watched(command, work, progress)
    interim = f"{folder}.new"
    shutil.rmtree(interim, ignore_errors=True)
    os.makedirs(interim)
    _run(["objcopy", "--strip-all", f"{work}/vmlinux", f"{interim}/vmlinux"], work)
    shutil.copyfile(f"{work}/arch/x86/boot/bzImage", f"{interim}/bzImage")
    shutil.copyfile(f"{work}/System.map", f"{interim}/System.map")
    shutil.copyfile(f"{work}/.config", f"{interim}/config")
    size = os.stat(f"{interim}/vmlinux").st_size
    kernel = Kernel(folder, digest, source.version, size, round(time.monotonic() - begin, 1))
    said = {
        "version": kernel.version,
        "bytes": size,
        "seconds": kernel.seconds,
        "source": source.digest,
        "steps": steps,
    }
    with open(f"{interim}/kernel.json", "w") as file:
        json.dump(said, file)
    shutil.rmtree(folder, ignore_errors=True)  # one whose kernel.json was damaged
    os.rename(interim, folder)
    return kernel


def _watched(command: list[str], work: str, progress: Progress) -> int:
    """Run a build, telling its steps; returns how many there were. Raises KernelError with the compiler's words."""
    steps = 0
    tail: list[str] = []
    environment = {**os.environ, **_SAME_EVERYWHERE}
    with subprocess.Popen(
        command, cwd=work, env=environment, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_STEPS):
                steps += 1
                progress(steps, max(STEPS, steps), line.split()[-1])
            else:
                tail = [*tail[-30:], line.rstrip()]
    if process.returncode:
        told = [line for line in tail if "error" in line.lower() or "***" in line] or tail
        raise KernelError(f"the kernel did not compile: {told[0] if told else 'make said nothing'}", f"see {work}")
    return steps


def _make(source: Source, work: str, target: str) -> None:
    _run([*_make_command(source, work), "-s", target], work)


def _make_command(source: Source, work: str) -> list[str]:
    compiler = "ccache gcc" if shutil.which("ccache") else "gcc"
    return ["make", "-C", source.path, f"O={work}", f"CC={compiler}"]


def _run(command: list[str], work: str) -> None:
    done = subprocess.run(
        command, cwd=work, env={**os.environ, **_SAME_EVERYWHERE}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise KernelError(
            f"{os.path.basename(command[0])} {command[-1]} failed: {said[-1] if said else done.returncode}"
        )


def _compiler() -> str:
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True).stdout.partition("\n")[0]


def _text_digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class _locked:
    """Holds a lock file: of two builds of the same request the second finds what the first has made."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
