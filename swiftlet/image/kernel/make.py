"""Runs a kernel tree's own tools: with an environment that is the same everywhere, progress, and their words kept.

Compilers run at the lowest priority, for guests come first; with ccache, so that a build that was broken off goes on
where it was. make ends with this process, however that ends.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable

from swiftlet.image.kernel.source import Source
from swiftlet.linux import syscall
from swiftlet.model.error import FullError, HostError, KernelError

Progress = Callable[[str, str, int, int], None]
"""Told the stage (unpack, wait, configure, compile, keep), what is being done, steps done and in all (0: not known)."""

TOOLS = {
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "objcopy": "binutils",
}
"""Programs that a build takes, and the Debian packages that have them."""

HEADERS = {"stdio.h": "libc6-dev", "gelf.h": "libelf-dev"}
"""Headers that the tree's own programs are compiled with, and their packages."""

NICENESS = 10

_SAME_EVERYWHERE = {
    "KBUILD_BUILD_TIMESTAMP": "@0",
    "KBUILD_BUILD_USER": "swiftlet",
    "KBUILD_BUILD_HOST": "swiftlet",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C",
}

_STEPS = ("  CC ", "  AS ", "  AR ", "  LD ", "  HOSTCC ", "  OBJCOPY ")

_LINES = ("KCFLAGS=-g1", "KAFLAGS=-g1")
"""Lines and what was inlined, no types: a fifth of what CONFIG_DEBUG_INFO makes, and no option differs for it."""

_PLAIN = ("KCFLAGS=-ftrack-macro-expansion=0",)
"""Where a token of a macro came from is for warnings only; not to remember it saves a tenth, to the same bytes."""

_FULL = ("No space left on device", "Disk quota exceeded")

_FULL_HINT = "free some space, or run `swiftlet store gc --cache`"


def no_progress(stage: str, text: str, done: int, total: int) -> None:
    """A Progress that nobody watches."""


def check_tools() -> None:
    """Raise HostError when a program or a header that a build takes is missing."""
    missing = {tool: package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if "gcc" not in missing:
        missing |= {header: package for header, package in HEADERS.items() if not _has_header(header)}
    if missing:
        packages = sorted({*missing.values(), *(HEADERS.values() if "gcc" in missing else ())})
        raise HostError(f"cannot build kernels without {', '.join(missing)}", f"apt-get install {' '.join(packages)}")


def _has_header(name: str) -> bool:
    command = ["gcc", "-E", "-x", "c", "-o", os.devnull, "-"]
    return subprocess.run(command, input=f"#include <{name}>\n", text=True, capture_output=True).returncode == 0


def check_room(folder: str, needed: int) -> None:
    """Raise FullError when a folder's file system has fewer free bytes than are needed."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        room = f"{needed >> 20} MiB are needed in {folder} and {free >> 20} MiB are free"
        raise FullError(f"no room to build a kernel: {room}", _FULL_HINT)


def compiler() -> str:
    """What the compiler says of itself."""
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True).stdout.partition("\n")[0]


class Make:
    """A tree's tools for one build. work: the folder of what they make. cache: where ccache keeps what it compiled.

    lock: a descriptor that every process started here holds until its end. lines: whether what is compiled says of
    every instruction which line of the source it came from. alone: where ccache keeps what it compiled instead, for
    builds of these very sources and this configuration only: it then need not preprocess each file to find out whether
    it is the same for another configuration, which is a fifth of a build's time.
    """

    def __init__(
        self, source: Source, work: str, cache: str = "", lock: int = -1, *, lines: bool = False, alone: str = ""
    ) -> None:
        self.source = source
        self.work = work
        self.lines = lines
        self.alone = alone
        self._lock = (lock,) if lock >= 0 else ()
        self._environment = {**os.environ, **_SAME_EVERYWHERE}
        if cache:
            self._environment.setdefault("CCACHE_DIR", f"{cache}/ccache")

    def target(self, name: str) -> None:
        """Make one of the tree's targets. Raises KernelError, FullError."""
        self.run([*self._make(), "-s", name])

    def run(self, command: list[str]) -> str:
        """Run a program to its end: what it wrote. Raises KernelError with its last words, FullError."""
        done = subprocess.run(
            command, cwd=self.work, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", pass_fds=self._lock,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            _raise_if_full(said, self.work)
            name = f"{os.path.basename(command[0])} {os.path.basename(command[-1])}"
            raise KernelError(f"{name} failed: {_telling(said.splitlines(), str(done.returncode))}")
        return done.stdout

    def compile(self, targets: list[str], jobs: int, step: Callable[[int, str], None]) -> int:
        """Compile, telling each step (number, file); returns how many there were.

        Raises KernelError with the compiler's words, FullError.
        """
        steps = 0
        tail: list[str] = []
        alone = {"CCACHE_DIR": self.alone, "CCACHE_DEPEND": "1"} if self.alone else {}
        with subprocess.Popen(
            [*self._make(), f"-j{jobs}", *targets], cwd=self.work, env={**self._environment, **alone}, text=True,
            errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=self._lock, preexec_fn=_go_with_parent,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_STEPS):
                    steps += 1
                    step(steps, line.split()[-1])
                else:
                    tail = [*tail[-200:], line.rstrip()]
        if process.returncode:
            _raise_if_full("\n".join(tail), self.work)
            log = f"{os.path.dirname(self.work)}/failed.log"
            with open(log, "w") as file:
                file.write("\n".join(tail) + "\n")
            raise KernelError(f"the kernel did not compile: {_telling(tail, 'make said nothing')}", f"see {log}")
        return steps

    def _make(self) -> list[str]:
        compiler = "ccache gcc" if shutil.which("ccache", path=self._environment.get("PATH")) else "gcc"
        flags = _LINES if self.lines else _PLAIN
        return ["make", "-C", self.source.path, f"O={self.work}", f"CC={compiler}", *_lister(), *flags]


def _go_with_parent() -> None:
    """For a child, before it executes: it ends when this process does, and yields to everything else."""
    syscall.prctl(syscall.PR_SET_PDEATHSIG, signal.SIGTERM)
    os.nice(NICENESS)


@functools.cache
def _lister() -> tuple[str, ...]:
    """The program that lists the names in each object, told of the compiler's own plugin.

    Otherwise it tries all that are installed, for each object anew; with LLVM's that is six times the listing's own
    time, and a thirtieth of a build.
    """
    name = "liblto_plugin.so"
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return (f"NM=nm --plugin={found}",) if os.path.isabs(found) else ()


def _telling(lines: list[str], otherwise: str) -> str:
    """The line of a program's last words that says most."""
    errors = [line for line in lines if "error" in line.lower() and "***" not in line]
    return (errors or lines or [otherwise])[0 if errors else -1].strip()


def _raise_if_full(said: str, folder: str) -> None:
    if any(words in said for words in _FULL):
        raise FullError(f"no space left in {folder}", _FULL_HINT)
