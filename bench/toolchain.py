"""Work inside guests: `python -m bench.toolchain [--json] [--out FOLDER] [--root FOLDER] [--only HALF]`.

`container`: a machine with the kernel of the profile docker and the template docker, in which moby's own check of the
configuration is run and Docker's engine imports an image, runs it, and publishes a page that is fetched through the
machine's own published port. `build`: Lua, thirty thousand lines of C, built with the template toolchain in a machine
and in a container, and asked to compute.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

from bench import suite
from bench.installation import Installation, free_port, installation
from bench.launcher import TREE
from bench.report import Report, machine
from bench.sizes import KERNELS
from swiftlet.image.kernel import build, profile, source

ROOT = f"{TREE}/.cache/toolchain"
FETCH = f"{TREE}/examples/toolchain/fetch.sh"
BUSYBOX = "/bin/busybox"
"""A static program of this host, of which the container's image is made."""

CHECK = "/usr/share/docker.io/contrib/check-config.sh"
PAGE = "a container in a machine\n"

_READY_SECONDS = 180.0
_BUILD_SECONDS = 1200.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OPTION = re.compile(r"- (?P<name>[^:]+): (?P<state>.*)")

LUA = "cp -r /src/lua-* /tmp/lua && make -s -j2 -C /tmp/lua/src linux && /tmp/lua/src/lua -e '{}'"
PROGRAM = "local s = 0 for n = 1, 1000 do s = s + n * n end print(_VERSION, s)"
LUA_SAYS = "Lua 5.4\t333833500\n"


class Checked(NamedTuple):
    """What check-config.sh found: the names of options in its first section and in the others, by their state."""

    enabled: tuple[str, ...]
    missing: tuple[str, ...]
    optional_missing: tuple[str, ...]


def checked(text: str) -> Checked:
    """Read what check-config.sh wrote. Raises OSError when it is not what that script writes."""
    _, found, rest = _COLOUR.sub("", text).partition("Generally Necessary:\n")
    necessary, divided, optional = rest.partition("Optional Features:\n")
    if not found or not divided:
        raise OSError(f"check-config.sh wrote something else: {text[:200]!r}")
    states = {match["name"].strip(): match["state"].strip() for match in _OPTION.finditer(necessary)}
    missing = tuple(name for name, state in states.items() if "missing" in state or "nonexistent" in state)
    others = {match["name"].strip(): match["state"].strip() for match in _OPTION.finditer(optional)}
    return Checked(
        tuple(name for name in states if name not in missing),
        missing,
        tuple(name for name, state in others.items() if state.startswith("missing")),
    )


def image_archive(path: str) -> None:
    """Write the archive of a root with nothing but busybox, for `docker import`."""
    with tarfile.open(path, "w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for name in ("sh", "httpd", "hostname"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        page = tarfile.TarInfo("www/index.html")
        page.size = len(PAGE)
        archive.addfile(page, io.BytesIO(PAGE.encode()))


def have_kernel(place: Installation, name: str) -> str:
    """The digest of a profile's kernel, which the installation has then; built where it is not there (minutes)."""
    requests = profile.requests_of(profile.profile_named(name)).values()
    kernel = build.build(source.source_at(source.DEBIAN, KERNELS), requests, KERNELS, name=name)
    link = f"{place.cache}/kernels/{kernel.digest}"
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if not os.path.lexists(link):
        os.symlink(kernel.folder, link)
    return kernel.digest


def containers(place: Installation, report: Report) -> None:
    """Docker's engine in a machine: from its start to a page of a container of its. Raises OSError."""
    with tempfile.TemporaryDirectory() as folder:
        image_archive(f"{folder}/busybox.tar")
        _containers(place, report, folder)


def _containers(place: Installation, report: Report, folder: str) -> None:
    port = free_port()
    words = ["--as", "vm", "--kernel", have_kernel(place, "docker"), "-m", "1G", "--cap-add", "ALL"]
    words += ["-p", f"127.0.0.1:{port}:8080", "-v", f"{folder}:/share:ro", "-t", "docker"]
    begin = time.perf_counter()
    guest = place.start(*words).id
    try:
        _eventually(lambda: place.call("exec", guest, "docker", "info"))
        report.add("docker_ready_ms", (time.perf_counter() - begin) * 1000, "ms")
        _check(place, guest, report)
        _run_container(place, guest, port, report)
    finally:
        place.remove(guest)


def _check(place: Installation, guest: str, report: Report) -> None:
    """Its exit code says nothing: it is 1 wherever anything optional is missing, and no kernel has all of it."""
    found = checked(place.call("exec", guest, "bash", "-c", f"bash {CHECK} || true"))
    report.extra["check_config"] = found._asdict()
    report.add("check_config_necessary_missing", len(found.missing), "options")


def _run_container(place: Installation, guest: str, port: int, report: Report) -> None:
    def docker(*words: str) -> tuple[str, float]:
        begin = time.perf_counter()
        told = place.call("exec", guest, "docker", *words)
        return told, (time.perf_counter() - begin) * 1000

    report.add("docker_import_ms", docker("import", "/share/busybox.tar", "box")[1], "ms")
    name, milliseconds = docker("run", "--rm", "--hostname", "inner", "box", "/bin/hostname")
    report.add("docker_run_ms", milliseconds, "ms")
    docker("run", "-d", "-p", "8080:80", "-m", "64m", "box", "/bin/httpd", "-f", "-p", "80", "-h", "/www")
    page = _eventually(lambda: _page(port))
    if (name, page) != ("inner\n", PAGE):
        raise OSError(f"the container said {name!r} and {page!r}")
    told = docker("info", "-f", "{{.ServerVersion}} {{.Driver}} cgroup v{{.CgroupVersion}} {{.KernelVersion}}")[0]
    report.extra["docker"] = told.strip()
    report.add("docker_page_matches", 1, "of 1")


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
        return str(answer.read().decode())


def _eventually(ask: Callable[[], str]) -> str:
    """The first answer. Raises OSError with the last refusal."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def lua(place: Installation, report: Report) -> None:
    """Lua from its authors' source, with their own flags (-O2), in both kinds of guest. Raises OSError."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([FETCH, folder, "lua5.4"], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"Lua's source cannot be fetched: {done.stderr.strip()}")
        _lua(place, report, folder)


def _lua(place: Installation, report: Report, folder: str) -> None:
    kernel = ("--kernel", have_kernel(place, "toolchain"))
    for kind, words in (("container", ()), ("vm", kernel)):
        limits = ["-m", "1G", "--cpus", "2", "-v", f"{folder}:/src:ro", "-t", "toolchain"]
        place.call("run", "--rm", "--as", kind, *words, *limits, "--", "gcc", "--version")  # images are made
        begin = time.perf_counter()
        command = ["bash", "-c", LUA.format(PROGRAM)]
        told = place.call("run", "--rm", "--as", kind, *words, *limits, "--", *command, seconds=_BUILD_SECONDS)
        report.add(f"lua_{kind}_s", time.perf_counter() - begin, "s")
        if told != LUA_SAYS:
            raise OSError(f"Lua said {told!r} in a {kind}")


SUITES = {"container": containers, "build": lua}


def run(root: str, names: list[str]) -> Report:
    """The whole suite, or what is named of it."""
    report = Report("toolchain", machine())
    with installation(root) as place:
        for name in names:
            print(f"bench: {name} ({time.strftime('%H:%M:%S')})", file=sys.stderr)
            SUITES[name](place, report)
    return report


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"{name:<40}{metric.value:>12.1f}  {metric.unit}" for name, metric in report.metrics.items()]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in report.extra.items())])


def main() -> int:
    """Measure, print, and write toolchain.json where --out says."""
    parser = suite.arguments("toolchain", __doc__, "toolchain.json")
    parser.add_argument("--root", metavar="FOLDER", default=ROOT, help="where templates are kept between runs")
    parser.add_argument("--only", choices=tuple(SUITES), help="half of it")
    options = parser.parse_args()
    if not suite.is_root("toolchain", "machines are started"):
        return suite.REFUSED
    chosen = [options.only] if options.only else list(SUITES)
    return suite.run("toolchain", options, lambda: run(options.root, chosen), table)


if __name__ == "__main__":
    sys.exit(main())
