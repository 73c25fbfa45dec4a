"""From a source and requests to a kernel: the tree's own tools configure it, every request is checked, it is compiled.

The digest is of the source, the configuration, the compiler and the rules here, so an equal kernel is built once. Two
builds of one digest give the same bytes: no time, user, host or path is in them. What is kept of a build, and how it is
found again, is `kept`'s; how the tree's tools are run is `make`'s.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence

from swiftlet.image.kernel import configuration, footprint, kconfig, kept
from swiftlet.image.kernel.configuration import Unmet, Wanted
from swiftlet.image.kernel.expression import failing_parts
from swiftlet.image.kernel.kept import Kernel as Kernel
from swiftlet.image.kernel.kept import kernel_of as kernel_of
from swiftlet.image.kernel.kept import kernels_of as kernels_of
from swiftlet.image.kernel.make import Make, Progress, check_room, check_tools, compiler, no_progress
from swiftlet.image.kernel.source import Source
from swiftlet.model.error import KernelError

RULES = "1"
"""Changes with anything here that makes the same request another kernel."""

ROOM_BYTES = 600 << 20
"""What a build takes on the disk while it runs: measured 250 MB for the largest profile, and its compiler's cache."""

_ALONE = ".compiled-"

_AND_LINES = ((), ("lines",))
"""What a digest is made of besides: kernels with and without lines are two, for only one of them has them."""

STEPS_FOR_OPTION = 2.25
"""Steps of make for each option that is on, for the first estimate (measured: 2113 for the 941 of profile docker)."""


def build(
    source: Source,
    requests: Iterable[Wanted],
    cache: str,
    progress: Progress = no_progress,
    jobs: int = 0,
    name: str = "",
    *,
    lines: bool = False,
) -> Kernel:
    """The kernel that a source and requests make, from the cache or built now. name: of the profile, to find it again.

    lines: keep vmlinux.lines too, which says of every instruction its line of the source. Of two builds at a time the
    second waits. Raises HostError (a missing tool), KernelError (a request that is not met, a compiler's error),
    FullError.
    """
    check_tools()
    requests = list(requests)
    asked = _text_digest(RULES, source.digest, configuration.render(requests), compiler(), *_AND_LINES[lines])
    found = kept.kernel_asked(cache, asked)
    if found is None:
        os.makedirs(f"{cache}/kernels", exist_ok=True)
        waiting = functools.partial(progress, "wait", "another kernel is being built", 0, 0)
        with kept.locked(f"{cache}/kernels", waiting=waiting) as lock:
            alone = "" if lines else _alone(cache, asked)
            make = Make(source, _work(cache, asked), cache, lock, lines=lines, alone=alone)
            found = kept.kernel_asked(cache, asked) or _built(make, requests, cache, progress, jobs)
    return kept.remember(found, asked, name, requests)


def _work(cache: str, asked: str) -> str:
    return f"{cache}/kernels/.work-{asked[:16]}"


def _alone(cache: str, asked: str) -> str:
    """Where the first build of a cache keeps what it compiled until it is done, "" where this is another one.

    Most who build a kernel build one. Who builds a second, or another after one that failed, may build more, and then
    what they have in common is worth finding. A user's own cache of compilers is left to its own settings.
    """
    own = f"{_ALONE}{asked[:16]}"
    if {*_compiled(cache)} - {own} or kernels_of(cache) or "CCACHE_DIR" in os.environ:
        return ""
    return f"{cache}/kernels/{own}"


def _compiled(cache: str) -> list[str]:
    return [name for name in os.listdir(f"{cache}/kernels") if name.startswith(_ALONE)]


def _built(make: Make, requests: Sequence[Wanted], cache: str, progress: Progress, jobs: int) -> Kernel:
    """Configure and, unless another request has come to the same kernel before, compile."""
    kept.clear(f"{cache}/kernels")  # of builds that were killed: what they compiled is in ccache's keeping
    check_room(f"{cache}/kernels", ROOM_BYTES)
    try:
        text = configured(make, requests, progress)
        digest = _text_digest(RULES, make.source.digest, text, compiler(), *_AND_LINES[make.lines])
        kernel = kernel_of(cache, digest) or _compile(make, text, cache, digest, progress, jobs)
        for name in _compiled(cache):
            shutil.rmtree(f"{cache}/kernels/{name}", ignore_errors=True)
        return kernel
    finally:
        shutil.rmtree(make.work, ignore_errors=True)


def configure(source: Source, requests: Iterable[Wanted], work: str) -> str:
    """Let the tree's own tools make the configuration in `work`: its text. Raises KernelError, see `configured`."""
    return configured(Make(source, work), list(requests))


def configured(make: Make, requests: Sequence[Wanted], progress: Progress = no_progress) -> str:
    """The configuration that the tree's own tools make of requests.

    Raises KernelError that says of each request that was not met which of its dependencies is missing.
    """
    text = settled(make, requests, progress)
    values = configuration.read(text)
    unmet = configuration.unmet(requests, values)
    if unmet:
        raise KernelError(*explained(unmet, values, kconfig.read_tree(make.source.path)))
    return text


def settled(make: Make, requests: Sequence[Wanted], progress: Progress = no_progress) -> str:
    """What the tree's own tools make of requests, whether they followed all of them or not.

    Starts from tinyconfig, merges the requests, and lets olddefconfig decide the rest. Raises KernelError.
    """
    work, tree = make.work, make.source.path
    os.makedirs(work, exist_ok=True)
    progress("configure", f"Linux {make.source.version}", 0, 3)
    make.target("tinyconfig")
    progress("configure", f"{len(requests)} requests", 1, 3)
    with open(f"{work}/requests.config", "w") as file:
        file.write(configuration.render(requests))
    merge = f"{tree}/scripts/kconfig/merge_config.sh"
    make.run([merge, "-m", "-O", work, f"{work}/.config", f"{work}/requests.config"])
    progress("configure", "what follows from them", 2, 3)
    make.target("olddefconfig")
    progress("configure", "", 3, 3)
    with open(f"{work}/.config") as file:
        return file.read()


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
    hidden = [part for definition in definitions for part in failing_parts(definition.shown, values)]
    return f"can be asked for only with {' and '.join(hidden)}" if hidden else f"became {each.value}"


def expected_steps(options: int, known: Iterable[Kernel]) -> int:
    """How many steps a build of so many options will take: by the kernel here that is nearest in size, else a guess."""
    measured = [kernel for kernel in known if kernel.steps and kernel.options]
    if not measured:
        return round(options * STEPS_FOR_OPTION)
    nearest = min(measured, key=lambda kernel: abs(kernel.options - options))
    return round(nearest.steps * options / nearest.options)


def _compile(make: Make, text: str, cache: str, digest: str, progress: Progress, jobs: int) -> Kernel:
    begin = time.monotonic()
    values = configuration.read(text)
    expected = expected_steps(len(values), kernels_of(cache))
    steps = make.compile(
        ["vmlinux", "bzImage"],
        jobs or os.cpu_count() or 1,
        lambda done, step: progress("compile", step, done, max(expected, done)),
    )
    progress("compile", "", steps, steps)
    progress("keep", "what each part takes", 0, 0)
    folder = f"{cache}/kernels/{digest}"
    interim = f"{folder}.new"
    shutil.rmtree(interim, ignore_errors=True)
    os.makedirs(interim)
    sizes = _collect(make, interim)
    footprint.write(interim, footprint.measured(make, values))
    said = {
        "version": make.source.version,
        "bytes": sizes["vmlinux"],
        "sizes": sizes,
        "seconds": round(time.monotonic() - begin, 1),
        "source": make.source._asdict(),
        "compiler": compiler(),
        "options": len(values),
        "steps": steps,
    }
    kept.write_record(interim, said)
    shutil.rmtree(folder, ignore_errors=True)  # one whose kernel.json was damaged
    os.rename(interim, folder)
    kernel = kernel_of(cache, digest)
    assert kernel is not None
    return kernel


def _collect(make: Make, folder: str) -> dict[str, int]:
    """Copy what is kept of a finished build; its sizes in bytes: of the two images, and of the kernel in memory."""
    work = make.work
    make.run(["objcopy", "--strip-all", f"{work}/vmlinux", f"{folder}/vmlinux"])
    for name, kept_as in (("arch/x86/boot/bzImage", "bzImage"), ("System.map", "System.map"), (".config", "config")):
        shutil.copyfile(f"{work}/{name}", f"{folder}/{kept_as}")
    if make.lines:
        shutil.copyfile(f"{work}/vmlinux", f"{folder}/{kept.LINES}")
    text, data, bss = make.run(["size", f"{work}/vmlinux"]).splitlines()[1].split()[:3]
    images = {name.lower(): os.stat(f"{folder}/{name}").st_size for name in ("vmlinux", "bzImage")}
    return {**images, "text": int(text), "data": int(data), "bss": int(bss)}


def _text_digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
