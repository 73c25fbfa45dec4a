"""Rounds of boots: every configuration once, then every one again, so that what disturbs the host disturbs them all.

Each configuration is started twice in a round: as it is shipped, for the times that are compared, and traced (its
kernel writes to the console from its first instructions on), for the moments in between. What is written costs time,
so the two are never mixed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from bench import machines
from bench.boot import Machine, Start
from bench.installation import Guest, Installation
from bench.launcher import TREE
from bench.machines import MEMORY_MIB, Host
from bench.report import Report, median, spread
from bench.stock import ANSWER_PORT, HELLO_PORT, Stock
from bench.tap import tap
from swiftlet.image.kernel.build import Kernel
from swiftlet.model.bundle import Bundle

HELLO = f"{TREE}/examples/hello-web"
FACTS = "/facts.json"
"""A page of hello-web that takes its database, its time zones and its certificates."""

STOCK_SECONDS, OURS_SECONDS = 240.0, 60.0

ATTEMPTS = 3

SOURCE, SNAPSHOT = "bench-source", "bench-source:ready"

READY_METRICS = {
    "stock": "stock_ready_ms",
    "stockkernel": "stockkernel_ours_ms",
    "q35": "q35_ready_ms",
    "ours": "ours_qemu_ready_ms",
}
"""Configuration -> the metric of its service's first answer."""

FAILED = "failed"
"""In samples, the starts of each configuration that came to nothing and were made again."""

Samples = dict[str, dict[str, list[float]]]
"""Configuration -> moment -> milliseconds."""


class Lab(NamedTuple):
    """Everything that is there before anything is measured. answer: the program. bundle: of a guest that runs it."""

    place: Installation
    installed: Stock
    answer: str
    checks: str
    bundle: Bundle
    kernel: Kernel
    host: Host


def configurations(lab: Lab, *, traced: bool) -> list[Start]:
    """The machines that QEMU is asked for directly."""
    return [
        machines.stock(lab.installed, lab.host, traced=traced),
        machines.stock_kernel(lab.installed, lab.bundle, lab.host, traced=traced),
        machines.ours(lab.bundle, lab.kernel.vmlinux, lab.host, "q35", traced=traced),
        machines.ours(lab.bundle, lab.kernel.vmlinux, lab.host, "microvm", traced=traced),
    ]


def moments(start: Start) -> set[str]:
    """What a machine is waited for."""
    wanted = {"ready"} | ({"login"} if start.name == "stock" else set())
    return wanted | ({"kernel", "process"} if start.traced else set())


def keep(samples: Samples, start: Start, seen: dict[str, float]) -> None:
    """Add a machine's moments to its configuration's."""
    kept = samples.setdefault(f"{start.name}_traced" if start.traced else start.name, {})
    for name, value in seen.items():
        kept.setdefault(name, []).append(value)


def boot(start: Start, samples: Samples) -> None:
    """Start a machine, wait until its service answers, end it; again where a kernel of Debian's did not get there.

    Such a kernel tries whether its timer is in time, and gives up where a busy host was not. Every failure is counted.
    Raises OSError.
    """
    for left in reversed(range(ATTEMPTS if start.name.startswith("stock") else 1)):
        try:
            _boot(start, samples)
        except OSError as error:
            if not left:
                raise
            print(f"bench: again: {error}", file=sys.stderr)
            samples.setdefault(FAILED, {}).setdefault(start.name, []).append(1.0)
        else:
            return


def _boot(start: Start, samples: Samples) -> None:
    seconds = STOCK_SECONDS if start.name == "stock" else OURS_SECONDS
    with tap() as wire, Machine(start, wire) as machine:
        seen = machine.wait(moments(start), seconds)
        if start.name == "stock":
            seen["hello"] = machine.wait_for_port("hello", HELLO_PORT, FACTS, seconds)
        keep(samples, start, seen)


def answer_words(answer: str) -> list[str]:
    """The words of `swiftlet run` for the service: a program of the host's keeps its path in the guest."""
    return ["--as", "vm", "-m", f"{MEMORY_MIB}M", "-t", f"host:{answer}", "--", answer, str(ANSWER_PORT)]


def command(lab: Lab) -> Guest:
    """`swiftlet run --as vm`, as typed, until the service answers."""
    return lab.place.serve(lambda port: ["-d", "-p", f"{port}:{ANSWER_PORT}", *answer_words(lab.answer)])


def hello(lab: Lab) -> Guest:
    """The same for examples/hello-web, with its folder as a volume as its workload file has it."""
    words = ["--as", "vm", "-m", f"{MEMORY_MIB}M", "-t", "python@3.11", "-v", f"{HELLO}:/app:ro", "-w", "/app"]
    return lab.place.serve(lambda port: ["-d", *words, "-p", f"{port}:{HELLO_PORT}", "--", "python3", "app.py"], FACTS)


def clone(lab: Lab) -> Guest:
    """`swiftlet run --from`, as typed, until the clone answers."""
    return lab.place.serve(lambda port: ["--from", SNAPSHOT, "-p", f"{port}:{ANSWER_PORT}"])


def clone_alone(lab: Lab) -> Guest:
    """The same right after another, which took the machine that waited to be the next clone."""
    first = clone(lab)
    try:
        return clone(lab)
    finally:
        lab.place.remove(first.id)


def take_snapshot(place: Installation, answer: str) -> str:
    """Boot the guest that clones are made of and save it; its id."""
    guest = place.start("--name", SOURCE, *answer_words(answer))
    place.call("snapshot", SOURCE, SNAPSHOT.removeprefix(f"{SOURCE}:"), "--port", str(ANSWER_PORT))
    return guest.id


def measure(lab: Lab, rounds: int, periods: dict[str, int]) -> Samples:
    """All rounds. periods: an arm is measured in every n-th round, 0: never; 1 where nothing is said."""
    samples: Samples = {}
    typed = {"command": command, "clone": clone, "clone_alone": clone_alone, "hello": hello}
    for number in range(rounds):
        for traced in (False, True):
            for start in _due(configurations(lab, traced=traced), number, periods):
                boot(start, samples)
        for name, run in typed.items():
            guest = run(lab)
            kept = samples.setdefault(name, {})
            kept.setdefault("ready", []).append(guest.milliseconds)
            kept.setdefault("launched", []).append(guest.launched)
            lab.place.remove(guest.id)
    return samples


def _due(starts: Iterable[Start], number: int, periods: dict[str, int]) -> list[Start]:
    found = []
    for start in starts:
        period = periods.get(f"{start.name}_traced" if start.traced else start.name, 1)
        if period and number % period == 0:
            found.append(start)
    return found


def record(report: Report, samples: Samples) -> None:
    """The medians of all moments, and the ratios of the paper's figure 4."""
    for name, metric in READY_METRICS.items():
        _add(report, metric, samples.get(name, samples[f"{name}_traced"])["ready"])
        for moment, values in samples.get(f"{name}_traced", {}).items():
            _add(report, f"{name}_traced_{moment}_ms", values)
    stock = samples.get("stock", samples["stock_traced"])
    _add(report, "stock_login_ms", stock["login"])
    _add(report, "stock_hello_ms", stock["hello"])
    _add(report, "ours_ready_ms", samples["command"]["ready"])
    _add(report, "ours_hello_ms", samples["hello"]["ready"])
    _add(report, "clone_ms", samples["clone"]["launched"])
    _add(report, "clone_typed_ms", samples["clone"]["ready"])
    _add(report, "clone_alone_ms", samples["clone_alone"]["launched"])
    report.extra["failed_starts"] = {name: len(found) for name, found in samples.get(FAILED, {}).items()}
    report.extra["stock_was_traced"] = "stock" not in samples
    _ratios(report)


def _add(report: Report, name: str, values: list[float]) -> None:
    report.add(name, median(values), "ms", values)
    report.add(f"{name.removesuffix('_ms')}_spread_ms", spread(values), "ms")


def _ratios(report: Report) -> None:
    """Each is the first's time as a part of the second's."""
    compared = {
        "ratio_ready": ("ours_ready_ms", "stock_ready_ms"),
        "ratio_ready_qemu": ("ours_qemu_ready_ms", "stock_ready_ms"),
        "ratio_ready_same_machine": ("q35_ready_ms", "stock_ready_ms"),
        "ratio_stockkernel": ("stockkernel_ours_ms", "stock_ready_ms"),
        "ratio_hello_web": ("ours_hello_ms", "stock_hello_ms"),
        "ratio_clone": ("clone_ms", "ours_qemu_ready_ms"),
        "ratio_clone_alone": ("clone_alone_ms", "ours_qemu_ready_ms"),
        "ratio_clone_typed": ("clone_typed_ms", "ours_ready_ms"),
        "ratio_clone_stock": ("clone_ms", "stock_ready_ms"),
        "ratio_first_process_same_machine": ("q35_traced_process_ms", "stock_traced_process_ms"),
        "ratio_first_process_own_machine": ("ours_traced_process_ms", "stock_traced_process_ms"),
    }
    value = {name: metric.value for name, metric in report.metrics.items()}
    for name, (first, second) in compared.items():
        report.add(name, value[first] / value[second], "of its time")
