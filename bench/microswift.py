"""Virtual machines: `python -m bench.microswift [--json] [--quick] [--out FOLDER] [--root FOLDER]`.

From QEMU's start to a service that answers, for the MicroswiftOS paper's three configurations (a stock system, its
kernel with our image, our kernel with our image), interleaved in one run; then clones instead of boots, what twenty of
each take of memory, messages between processes, a web server, and sizes on disk. `bench.machines` says what the
configurations are.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import NamedTuple

from bench import bootup, compiler, memory, services, stock, suite
from bench.bootup import Lab
from bench.installation import Installation, installation
from bench.launcher import TREE
from bench.machines import MEMORY_MIB, Host
from bench.report import Report, machine
from swiftlet.gate import program
from swiftlet.image.erofs import image_of
from swiftlet.image.machine import loader, machine_root
from swiftlet.linux import tsc
from swiftlet.node import canary

ROOT = f"{TREE}/.cache/microswift"

SETTLE_SECONDS = 1.0
"""After the last guest was started, before memory is counted: starting takes some that is given back."""

NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "mkfs.erofs": "erofs-utils",
    "musl-gcc": "musl-tools",
    "gcc": "gcc",
    "ip": "iproute2",
}
"""Program -> Debian package. ab (apache2-utils) is missed only where the web server is measured."""


class Size(NamedTuple):
    """rounds: of all boots. periods: see `bootup.measure`. boots, clones: alive at once when memory is counted.

    requests: of each web server in one of work_rounds. traced: the stock guest that works is a traced one.
    """

    rounds: int
    periods: dict[str, int]
    boots: int
    clones: int
    requests: int
    work_rounds: int
    traced: bool


FULL = Size(10, {"stock": 2, "stock_traced": 2}, boots=20, clones=20, requests=1000, work_rounds=5, traced=False)
QUICK = Size(1, {"stock": 0, "stock_traced": 0}, boots=2, clones=20, requests=200, work_rounds=1, traced=True)
"""One stock guest takes half of the time, so there is only the one that works, and it gives the moments too."""


def prepare(place: Installation) -> Lab:
    """Everything that is measured, installed, compiled and started once. Raises OSError."""
    place.kernel()
    cache = place.cache
    answer = compiler.program("answer", cache)
    checks = program.program(cache)
    programs = {"answer": answer, "guest-check": checks}
    installed = stock.stock(cache, programs, loader(cache), bootup.HELLO)
    for template in ("python@3.11", "nginx"):
        _make_image(place, template)
    bundle = place.bundle(bootup.take_snapshot(place, answer))
    host = Host("kvm" if canary.try_kvm().works else "tcg", tsc.frequency_khz())
    return Lab(place, installed, answer, checks, bundle, place.kernel_of(bundle), host)


def _make_image(place: Installation, template: str) -> None:
    """Have a template's root made, unless an earlier run has: no time of it may be in a boot's."""
    mark = f"{place.cache}/bench-{template}"
    if not os.path.exists(mark):
        guest = place.start("--as", "vm", "-m", f"{MEMORY_MIB}M", "-t", template, "--", "/no-such-program")
        place.remove(guest.id)
        with open(mark, "w"):
            pass


def count_memory(lab: Lab, report: Report, boots: int, clones: int) -> None:
    """The memory of machines that were booted, and then of clones, all alive at once, and of the next clone."""
    place = lab.place
    words = bootup.answer_words(lab.answer)
    booted = [place.start(*words).id for _ in range(boots)]
    total = _memory_of(place, booted)
    place.remove(*booted)
    report.add(f"pss_{boots}_boots_bytes", total, "bytes")
    report.add("pss_boot_bytes", total / boots, "bytes")
    cloned = place.call("run", "--from", bootup.SNAPSHOT, "--count", str(clones)).split()
    total = _memory_of(place, cloned)
    report.add("pss_spare_bytes", memory.of_processes(memory.processes(place.waiting())), "bytes")
    place.remove(*cloned)
    report.add(f"pss_{clones}_clones_bytes", total, "bytes")
    report.add("pss_clone_bytes", total / clones, "bytes")
    report.add("ratio_pss", report.metrics["pss_clone_bytes"].value / report.metrics["pss_boot_bytes"].value, "of it")


def _memory_of(place: Installation, guests: list[str]) -> int:
    time.sleep(SETTLE_SECONDS)
    return memory.of_processes(pid for guest in place.inspect(*guests) for pid in memory.processes(guest))


def count_sizes(lab: Lab, report: Report) -> None:
    """Bytes on disk; of roots that of the python template, which hello-web starts from."""
    cache = lab.place.cache
    guest = lab.place.start("-t", "python@3.11", "--", "python3", "-c", "")
    rootfs = lab.place.bundle(guest.id).rootfs
    images = [image_of(path, name, cache) for path, name in zip(rootfs.lowers, rootfs.trees, strict=True)]
    own = machine_root(cache).bytes
    report.add("kernel_bytes", os.stat(lab.kernel.bzimage).st_size, "bytes")
    report.add("kernel_vmlinux_bytes", os.stat(lab.kernel.vmlinux).st_size, "bytes")
    report.add("root_bytes", own + sum(image.bytes for image in images), "bytes")
    report.add("machine_root_bytes", own, "bytes")
    report.unmeasured["toolchain_bytes"] = "bytes"
    kernel, initrd = os.stat(lab.installed.kernel).st_size, os.stat(lab.installed.initrd).st_size
    report.add("stock_kernel_bytes", kernel + initrd, "bytes")
    report.add("stock_root_bytes", lab.installed.root_bytes, "bytes")


def run(size: Size, root: str) -> Report:
    """The whole suite."""
    report = Report("microswift", machine())
    report.extra |= {"missing": [], "quick": size is QUICK, "memory_mib": MEMORY_MIB}
    with installation(root) as place:
        _tell("preparing")
        lab = prepare(place)
        report.extra["accelerator"] = lab.host.accelerator
        report.extra["kernel"] = {"digest": lab.kernel.digest, "version": lab.kernel.version}
        report.extra["stock"] = {name: lab.installed.versions[name] for name in (*stock.BASE, *stock.WORKLOADS)}
        _tell("booting")
        samples = bootup.measure(lab, size.rounds, size.periods)
        _tell("working")
        services.work(lab, report, samples, size.requests, size.work_rounds, traced=size.traced)
        bootup.record(report, samples)
        place.remove(bootup.SOURCE)
        _tell("counting memory")
        count_memory(lab, report, size.boots, size.clones)
        count_sizes(lab, report)
    return report


def _tell(stage: str) -> None:
    """What is going on, for whoever waits."""
    print(f"bench: {stage} ({time.strftime('%H:%M:%S')})", file=sys.stderr)


def missing() -> dict[str, str]:
    """The programs that this host lacks, and their packages."""
    return {name: package for name, package in NEEDED.items() if shutil.which(name) is None}


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"{'metric':<40}{'value':>16}  {'unit':<12}samples"]
    for name, metric in report.metrics.items():
        if not name.endswith("_spread_ms"):
            lines.append(f"{name:<40}{metric.value:>16.3f}  {metric.unit:<12}{len(metric.samples) or ''}")
    for name, found in report.extra.get("algorithms", {}).items():
        wrong = {check: problem for check, problem in found.items() if problem != services.SAME}
        lines.append(f"algorithms, {name}: {wrong or 'all ' + services.SAME}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write microswift.json, .png and .svg where --out says."""
    parser = suite.arguments("microswift", __doc__, "microswift.json, microswift.png and microswift.svg")
    parser.add_argument("--quick", action="store_true", help="one round and one stock guest, under 55 s")
    parser.add_argument("--root", metavar="FOLDER", default=ROOT, help="where images are kept between runs")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"of boots, instead of {FULL.rounds}")
    options = parser.parse_args()
    if not suite.is_root("microswift", "machines are started"):
        return suite.REFUSED
    if lacking := missing():
        hint = f"apt-get install {' '.join(lacking.values())}"
        return suite.refused("microswift", f"missing {', '.join(lacking)}: {hint}")
    size = QUICK if options.quick else FULL
    size = size._replace(rounds=options.rounds or size.rounds)
    return suite.run("microswift", options, lambda: run(size, options.root), table, _draw)


def _draw(report: Report, path: str) -> None:
    from bench.microswift_figure import draw

    draw(report, path)


if __name__ == "__main__":
    sys.exit(main())
