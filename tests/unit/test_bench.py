"""The bench: its arithmetic, its programs, its probe, and that the peers are asked for as much as swiftlet gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import isolation, oci, program, seccomp
from bench.report import Report, median, percentile, spread
from bench.spawner import Spawner
from bench.start import storm
from swiftlet.linux import capability


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_sample_that_was_taken(share: float, value: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_spread_is_half_the_distance_between_the_quartiles() -> None:
    assert spread([1, 2, 3, 4]) == 1
    assert spread([5, 5, 5]) == 0
    assert median([]) == 0


def test_the_smallest_program_ends_with_zero_and_the_other_waits(tmp_path: Path) -> None:
    program.write_program(f"{tmp_path}/true", program.EXIT_ZERO)
    program.write_program(f"{tmp_path}/pause", program.WAIT_FOREVER)
    assert os.path.getsize(tmp_path / "true") < 200
    assert subprocess.run([tmp_path / "true"]).returncode == 0
    waiting = subprocess.Popen([tmp_path / "pause"])
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.1)
    waiting.kill()
    assert waiting.wait() == -9


def test_a_report_is_json_with_every_sample() -> None:
    report = Report("start", {"cores": 2})
    report.add("start_p50_ms", 2.00004, "ms", [1.0, 2.00004, 3.0])
    report.extra["quick"] = True
    document = json.loads(report.text())
    assert document == {
        "suite": "start",
        "machine": {"cores": 2},
        "metrics": {"start_p50_ms": {"value": 2.0, "unit": "ms", "samples": [1.0, 2.0, 3.0]}},
        "quick": True,
    }


def test_the_probe_run_outside_finds_no_isolation() -> None:
    answer = subprocess.run(["/bin/sh", "-c", isolation.PROBE], capture_output=True, text=True).stdout
    found = isolation.compare(answer)
    assert [found[name] for name in isolation.NAMESPACES] == ["no"] * len(isolation.NAMESPACES)
    assert found["seccomp"] in ("no", "yes")
    assert set(found) == set(isolation.FEATURES)


def test_a_probe_that_could_not_answer_is_not_taken_for_an_answer() -> None:
    assert isolation.compare("sh: readlink: not found\n") == {}


def test_the_peers_bundle_asks_for_what_a_default_container_gives() -> None:
    document = oci.specification("/root", ["/true"], seccomp=["read"])
    process, linux = document["process"], document["linux"]
    assert len(process["capabilities"]["bounding"]) == len(capability.DEFAULT) == 14
    assert process["noNewPrivileges"]
    assert {each["type"] for each in linux["namespaces"]} == {"pid", "network", "ipc", "uts", "mount", "cgroup"}
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["seccomp"]["syscalls"] == [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]


def test_the_filter_of_the_peers_allows_what_a_program_needs_and_not_what_breaks_out(tmp_path: Path) -> None:
    names, path = seccomp.default(str(tmp_path))
    assert {"read", "execve", "clone", "arch_prctl", "exit_group"} <= set(names)
    assert not {"mount", "bpf", "unshare", "init_module", "keyctl"} & set(names)
    assert os.path.getsize(path) % 8 == 0


def test_a_spawner_times_what_it_starts_and_tells_codes_signals_and_output() -> None:
    with Spawner() as spawner:
        slept = spawner.run([sys.executable, "-IS", "-c", "import time; time.sleep(0.05)"])
        assert slept.code == 0
        assert 50 <= slept.milliseconds < 5000
        assert spawner.run(["sh", "-c", "exit 3"]).code == 3
        assert spawner.run(["sh", "-c", "kill -9 $$"]).code == 137
        assert spawner.run(["sh", "-c", "echo out; echo err >&2"], output=True).output == "out\nerr\n"


def test_a_spawner_whose_preparation_fails_says_why_and_leaves_no_child() -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    spawner = Spawner(fail)
    with pytest.raises(OSError, match="no such thing"):
        spawner.__enter__()
    with pytest.raises(ChildProcessError):
        os.waitpid(spawner._pid, os.WNOHANG)


class Counting:
    """A keeper that counts what is alive."""

    name = "counting"

    def __init__(self) -> None:
        self.alive: list[str] = []
        self.most = 0
        self.started = 0

    def stay(self, argv: object) -> tuple[str, float]:
        self.started += 1
        self.alive.append(str(self.started))
        self.most = max(self.most, len(self.alive))
        return str(self.started), float(self.started)

    def end(self, guest: str) -> None:
        assert self.alive.pop(0) == guest


def test_a_storm_keeps_the_newest_alive_and_leaves_none() -> None:
    keeper = Counting()
    times = storm(keeper, 50, 20)
    assert times == [float(number) for number in range(1, 51)]
    assert keeper.most == 21
    assert not keeper.alive
