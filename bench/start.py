"""Start-up: `python -m bench.start [--json] [--quick] [--out FOLDER]`.

How long from asking for a container to its program's end, for swiftlet's launcher and its peers, interleaved in one
run: every arm once, then every arm again, so that what disturbs the machine disturbs them all. Then the command as
a user types it, and a storm of containers one after the other with many kept alive. What isolation each arm gives
is probed from inside and printed beside its time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from bench import isolation, peers, program, seccomp, suite
from bench.command import command
from bench.launcher import launcher
from bench.peers import Arm, Keeper, Place
from bench.report import Report, machine, median, percentile, spread

EDGE = 20
"""Starts at each end of a storm that are compared."""


class Size(NamedTuple):
    """rounds: of all arms. storm, alive: containers in a launcher's storm, and how many of them stay at once.

    command_storm: the same for `swiftlet run -d`; engine_storm, engine_alive: for docker.
    """

    rounds: int
    storm: int
    alive: int
    command_storm: int
    engine_storm: int
    engine_alive: int


FULL = Size(rounds=500, storm=1000, alive=200, command_storm=1000, engine_storm=1000, engine_alive=200)
QUICK = Size(rounds=100, storm=300, alive=200, command_storm=100, engine_storm=40, engine_alive=20)


@contextlib.contextmanager
def prepared() -> Iterator[Place]:
    """A folder with the root that every peer runs in; removed at the end."""
    folder = tempfile.mkdtemp(prefix="swiftlet-bench-", dir="/var/tmp")
    try:
        root = f"{folder}/root"
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
            os.makedirs(f"{root}/{name}")
        program.write_program(f"{root}/true", program.EXIT_ZERO)
        program.write_program(f"{root}/pause", program.WAIT_FOREVER)
        if busybox := shutil.which("busybox"):
            shutil.copy(busybox, f"{root}/busybox")
        archive = f"{folder}/root.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        yield Place(folder, root, archive)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def entered(stack: contextlib.ExitStack, place: Place, report: Report) -> list[Arm]:
    """Every arm whose program is installed, entered on `stack`; what is not there is noted in the report."""
    filter_names, filter_program = seccomp.default(place.folder)
    known: dict[str, list[contextlib.AbstractContextManager[Arm]]] = {
        "tar": [launcher(place, filter_program)],
        "unshare": [peers.unshare(place)],
        "bwrap": [peers.bubblewrap(place)],
        "crun": [peers.oci_runtime("crun", place, seccomp=names) for names in (filter_names, None)],
        "runc": [peers.oci_runtime("runc", place, seccomp=filter_names)],
        "dockerd": [peers.docker(place)],
        "podman": [peers.podman(place, network=network) for network in ("", "host")],
    }
    report.extra["missing"] = [name for name in known if not peers.available(name)]
    arms = [stack.enter_context(arm) for name, group in known.items() if peers.available(name) for arm in group]
    return [*arms, stack.enter_context(command(place))]


def probe(arms: list[Arm], place: Place) -> dict[str, dict[str, str]]:
    """Arm -> what it gives; also starts each once, so that nothing is cold when it counts."""
    table = {}
    for arm in arms:
        answer = ""
        if os.path.exists(f"{place.root}/busybox"):
            answer = arm.run(["/busybox", "sh", "-c", isolation.PROBE], output=True).output
        table[arm.name] = {**isolation.compare(answer), "control groups": arm.control_groups, "note": arm.note}
    return table


def measure(arms: list[Arm], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every start, by arm. Raises OSError when a container does not end with 0."""
    samples: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for number in range(rounds):
        for arm in arms:
            if number % arm.period == 0:
                finished = arm.run(["/true"])
                if finished.code:
                    raise OSError(f"{arm.name}: exit code {finished.code}")
                samples[arm.name].append(finished.milliseconds)
    return samples


def storm(keeper: Keeper, count: int, alive: int) -> list[float]:
    """Start `count` containers one after the other, the newest `alive` of them running; milliseconds of each start."""
    running: list[str] = []
    times = []
    try:
        for _ in range(count):
            guest, elapsed = keeper.stay(["/pause"])
            running.append(guest)
            times.append(elapsed)
            if len(running) > alive:
                keeper.end(running.pop(0))
    finally:
        for guest in running:
            keeper.end(guest)
    return times


def record_starts(report: Report, samples: dict[str, list[float]]) -> None:
    """The percentiles of each arm and the ratios to the peers."""
    for name, values in samples.items():
        report.add(f"{name}_p50_ms", median(values), "ms", values)
        report.add(f"{name}_p99_ms", percentile(values, 0.99), "ms")
        report.add(f"{name}_spread_ms", spread(values), "ms")
    ours, typed = median(samples["start"]), median(samples["cli"])
    for name in samples.keys() - {"start", "cli"}:
        report.add(f"ratio_{name}", ours / median(samples[name]), "of its time")
    for name in samples.keys() & {"docker", "podman", "podman_host"}:
        report.add(f"ratio_cli_{name}", typed / median(samples[name]), "of its time")


def record_storm(report: Report, prefix: str, times: list[float], alive: int) -> None:
    """First and last starts of a storm."""
    report.add(f"{prefix}storm_ms", median(times), "ms", times)
    report.add(f"{prefix}storm_first_ms", median(times[:EDGE]), "ms")
    report.add(f"{prefix}storm_last_ms", median(times[-EDGE:]), "ms")
    report.extra.setdefault("storms", {})[prefix.rstrip("_") or "launcher"] = {
        "containers": len(times),
        "alive": min(alive, len(times)),
    }


def run(size: Size) -> Report:
    """The whole suite."""
    report = Report("start", machine())
    with prepared() as place, contextlib.ExitStack() as stack:
        arms = entered(stack, place, report)
        report.extra["isolation"] = probe(arms, place)
        record_starts(report, measure(arms, size.rounds))
        by_name: dict[str, Any] = {arm.name: arm for arm in arms}
        record_storm(report, "", storm(by_name["start"], size.storm, size.alive), size.alive)
        record_storm(report, "cli_", storm(by_name["cli"], size.command_storm, size.alive), size.alive)
        if "docker" in by_name:
            times = storm(by_name["docker"], size.engine_storm, size.engine_alive)
            record_storm(report, "docker_", times, size.engine_alive)
    report.extra["quick"] = size is QUICK
    return report


def table(report: Report) -> str:
    """The report for people: times, then isolation, then the storms."""
    arms: dict[str, dict[str, str]] = report.extra["isolation"]
    value = {name: metric.value for name, metric in report.metrics.items()}
    lines = [f"{'start to exit of a static true':<32}{'p50':>9}{'p99':>9}   starts"]
    for name, given in arms.items():
        count = len(report.metrics[f"{name}_p50_ms"].samples)
        lines.append(
            f"{name:<32}{value[f'{name}_p50_ms']:9.2f}{value[f'{name}_p99_ms']:9.2f}   {count:<7} {given['note']}"
        )
    lines += ["", f"{'isolation (probed inside)':<28}" + "".join(f"{name:>12}" for name in arms)]
    for feature in isolation.FEATURES:
        lines.append(f"{feature:<28}" + "".join(f"{given.get(feature, '?'):>12}" for given in arms.values()))
    lines += ["", f"{'storm':<16}{'containers':>11}{'alive':>7}{'first 20':>10}{'last 20':>10}"]
    for name, storm_of in report.extra["storms"].items():
        prefix = "" if name == "launcher" else f"{name}_"
        first, last = value[f"{prefix}storm_first_ms"], value[f"{prefix}storm_last_ms"]
        lines.append(f"{name:<16}{storm_of['containers']:>11}{storm_of['alive']:>7}{first:10.2f}{last:10.2f}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write start.json and start.png where --out says."""
    parser = suite.arguments("start", __doc__, "start.json and start.png")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and a smaller storm, under 50 s")
    options = parser.parse_args()
    if not suite.is_root("start", "containers are started"):
        return suite.REFUSED
    return suite.run("start", options, lambda: run(QUICK if options.quick else FULL), table, _draw)


def _draw(report: Report, path: str) -> None:
    from bench.figure import draw

    draw(report, f"{path}.png")


if __name__ == "__main__":
    sys.exit(main())
