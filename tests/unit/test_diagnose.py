"""What is said of a machine that has ended before its workload began, by what its console has."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftlet.model.bundle import Hypervisor, Machine, Rootfs
from swiftlet.model.error import LaunchError, SwiftletError
from swiftlet.model.workload import Workload
from swiftlet.node.diagnose import KernelFiles, ended_early
from swiftlet.node.journal import Journal
from swiftlet.node.record import Guest

QEMUS = "qemu-system-x86_64: cannot set up guest memory 'ram': Cannot allocate memory"
KERNELS = "Kernel panic - not syncing: Out of memory and no killable processes..."
PROGRAMS = "sh: can't fork: Cannot allocate memory"


def told(folder: Path, console: str, snapshot: str = "") -> SwiftletError:
    (folder / "console").write_text(f"a line before\n{console}\n")
    guest = Guest("ab12", "web", str(folder), Workload(("x",)), Journal("ab12", str(folder)))
    process = Hypervisor(Rootfs((), ()), (), 0, 0, ())
    machine = Machine(process, "tcg", "", "microvm", "", 256 << 20, 1, (), (), snapshot=snapshot)
    return ended_early(LaunchError("it ended"), guest, machine, KernelFiles("", f"{folder}/System.map", ""))


def test_where_the_host_has_no_memory_the_guest_is_not_told_to_take_more(tmp_path: Path) -> None:
    error = told(tmp_path, QEMUS)
    assert str(error) == f"this host has no 256 MiB of memory for guest web: {QEMUS}"
    assert error.hint and "-m " not in error.hint.replace("free -m", "")


@pytest.mark.parametrize("console", [KERNELS, PROGRAMS])
def test_where_the_guest_has_too_little_it_is_to_be_given_more_unless_it_is_a_clone(
    console: str, tmp_path: Path
) -> None:
    error = told(tmp_path, console)
    assert "256 MiB of memory are too little for guest web" in str(error) and "-m 512M" in error.hint
    clone = told(tmp_path, console, "web:warm")
    assert str(clone) == str(error) and "web:warm" in clone.hint and "-m" not in clone.hint
