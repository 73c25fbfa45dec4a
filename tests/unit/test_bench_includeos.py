"""The suite of tasks on several processors: what it draws, and the command line that it starts machines by."""

from __future__ import annotations

import os

from bench import includeos, includeos_figure
from bench.report import Report


def test_the_figure_is_drawn_of_whatever_arms_there_are(tmp_path):
    report = Report("includeos", {})
    samples = {"1": [[0.1, 3, 1, 0], [0.2, 4, 0, 0]], "2": [[0.2, 7, 1, 0]]}
    report.extra = {"limit": 1000, "counts": [1, 2], "arms": {"unikernel": samples, "processes": samples}}
    includeos_figure.draw(report, str(tmp_path / "figure"))
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_machines_are_started_by_the_drivers_own_words():
    words = includeos._by_hand("qemu", "image", 7, " run=0:1")
    assert words[0] == "qemu"
    assert "-sandbox" not in words and "tap,id=net,fd=7" in words and words[-2:] == ["-serial", "stdio"]
    assert (
        words[words.index("-machine") + 1]
        == "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=on,dump-guest-core=off"
    )
    assert words[words.index("-append") + 1] == f"address={includeos.GUEST} run=0:1"


def test_the_time_of_a_process_is_counted():
    before = includeos.ticks_of(os.getpid())
    while includeos.ticks_of(os.getpid())[0] < before[0] + 2:
        sum(range(100_000))
    assert len(before) == 3 and before[2] == 0
