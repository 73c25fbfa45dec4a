"""How long kernels take: `python -m bench.kernels [--json] [--out FOLDER] [--root FOLDER] [--quick]`.

Everything in an empty folder, each step once, but for those that take no minutes: Debian's source is unpacked, every
profile is configured, the one that the tests use is compiled as the first of a cache, and is asked for again. Nothing
else may run beside it: compilers take every processor.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from bench import suite
from bench.installation import Installation, installation
from bench.launcher import TREE
from bench.report import Report, machine, median
from swiftlet.image.kernel import build, profile, source
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.source import Source
from swiftlet.model.error import SwiftletError

ROOT = f"{TREE}/.cache/bench-kernels"
FULL, QUICK = "disk", "micro"
ASKED = 5

Made = TypeVar("Made")


def timed(report: Report, name: str, work: Callable[[], Made]) -> Made:
    """Do something, and record the seconds that it took."""
    begin = time.monotonic()
    made = work()
    report.add(name, time.monotonic() - begin, "s")
    print(f"bench: {name} {report.metrics[name].value:.1f}", file=sys.stderr)
    return made


def run(root: str, name: str) -> Report:
    """The whole suite. name: of the profile that is compiled. Raises OSError."""
    report = Report("kernels", machine())
    shutil.rmtree(root, ignore_errors=True)
    try:
        with installation(root) as place:
            _measure(place, name, report)
    except SwiftletError as error:
        raise OSError(str(error)) from None
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return report


def _measure(place: Installation, name: str, report: Report) -> None:
    cache = place.cache
    tree = timed(report, "unpack_s", lambda: source.source_at(source.DEBIAN, cache))
    report.add("source_bytes", _bytes_below(tree.path), "bytes")
    report.extra |= {"profile": name, "version": tree.version, "options": {}}
    for each in profile.PROFILES:
        report.extra["options"][each] = timed(report, f"{each}_configure_s", partial(_configure, tree, each, cache))
    kernel = timed(report, "build_s", lambda: build.build(tree, _requests(name), cache, name=name))
    report.extra["steps"] = kernel.steps
    for what, size in kernel.sizes.items():
        report.add(f"{what}_bytes", size, "bytes")
    again = [_asked(place, name) for _ in range(ASKED)]
    report.add("asked_ms", median(again), "ms", again)


def _bytes_below(folder: str) -> int:
    """What the files of a tree take on the disk."""
    return 512 * sum(os.lstat(f"{at}/{name}").st_blocks for at, _, names in os.walk(folder) for name in names)


def _requests(name: str) -> list[Wanted]:
    return list(profile.requests_of(profile.profile_named(name)).values())


def _configure(tree: Source, name: str, cache: str) -> int:
    """Configure a profile in a folder of its own; how many options are on."""
    with tempfile.TemporaryDirectory(dir=cache) as work:
        return build.configure(tree, _requests(name), work).count("=y\n")


def _asked(place: Installation, name: str) -> float:
    """Milliseconds of `swiftlet kernel build` where there is such a kernel already."""
    begin = time.monotonic()
    place.call("kernel", "build", "-p", name)
    return (time.monotonic() - begin) * 1e3


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"{name:<32}{metric.value:>14.1f}  {metric.unit}" for name, metric in report.metrics.items()]
    return "\n".join([f"profile {report.extra['profile']}, {report.extra['steps']} steps of make", *lines])


def main() -> int:
    """Measure, print, and write kernels.json where --out says."""
    parser = suite.arguments("kernels", __doc__, "kernels.json")
    parser.add_argument("--root", metavar="FOLDER", default=ROOT, help="where it is done; emptied before and after")
    parser.add_argument("--quick", action="store_true", help=f"compile {QUICK} instead of {FULL}")
    options = parser.parse_args()
    if not suite.is_root("kernels", "a daemon is asked"):
        return suite.REFUSED
    return suite.run("kernels", options, lambda: run(options.root, QUICK if options.quick else FULL), table)


if __name__ == "__main__":
    sys.exit(main())
