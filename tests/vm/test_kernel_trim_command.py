"""`swiftlet kernel trim` as a user has it: the real command, daemon and worker, and QEMU that starts a real kernel.

Only compiling is played: the tree of a few lines configures itself, and its builds give out the kernel of the tests, so
that a derivation takes seconds. That real derivations come to kernels that start is measured in docs/trim.md.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from swiftlet.guest import trial
from swiftlet.image.kernel.build import Kernel
from tests.product import Product, eventually
from tests.tiny_kernel import make_tree, packed

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

COPIED = "\t@cp '{folder}/vmlinux' $(O)/vmlinux\n\t@cp '{folder}/System.map' $(O)/System.map\n"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Product]:
    """A product of the test's own; nothing may be left of it at the end."""
    made = Product(str(tmp_path / "root"))
    os.mkdir(made.instance.root, 0o711)
    yield made
    made.close()
    assert made.leftovers() == []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "builds"


@pytest.fixture
def tree(tmp_path: Path, log: Path, kernel: Kernel) -> Path:
    """A tree that has no options but a few, and whose builds come to the kernel of the tests."""
    made = make_tree(tmp_path / "linux", log)
    text = (made / "Makefile").read_text()
    lines = [line for line in text.splitlines(True) if "@ld " not in line and "@nm " not in line]
    place = next(number for number, line in enumerate(lines) if line.startswith("bzImage"))
    lines.insert(place, COPIED.format(folder=kernel.folder))
    (made / "Makefile").write_text("".join(lines).replace("gzip -nc $(O)/vmlinux", "true"))
    return made


@pytest.fixture
def words(tmp_path: Path, tree: Path) -> tuple[str, ...]:
    """A derivation from a workload that ends well when its volume is there."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/here").write_text("")
    (tmp_path / "checks.yaml").write_text(
        "template: host:/usr/bin/busybox\ncommand: busybox test -e /data/here\nvolumes:\n  - ./data:/data:ro\n"
    )
    asked = ("--workload", str(tmp_path / "checks.yaml"), "--name", "mine", "--compare", "micro", "--from", "net")
    return ("kernel", "trim", *asked, "--source", str(packed(tree)))


def worker(installation: Product) -> int:
    """The process that derives."""
    found = installation.pid("node.pull")
    assert found is not None
    return found


def qemus(parent: int) -> list[int]:
    """The machines that a process tries kernels in."""
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(number) for number in file.read().split() if user_of(int(number)) == trial.USER]


def user_of(number: int) -> int:
    try:
        with open(f"/proc/{number}/status") as file:
            return int(next(line for line in file if line.startswith("Uid:")).split()[1])
    except OSError:
        return -1


def journal(installation: Product) -> dict[str, Any]:
    (found,) = Path(installation.instance.root, "cache/trim").glob("*/trim.json")
    said: dict[str, Any] = json.loads(found.read_text())
    return said


def unpacked(installation: Product) -> Path:
    (found,) = Path(installation.instance.root, "cache/sources").glob("linux-*")
    return found


def copies_of_volumes(installation: Product) -> list[Path]:
    """What is left of them under the installation; images of other trees are to stay."""
    assert list(Path(installation.instance.root, "cache/images").glob("*.erofs"))
    return list(Path(installation.instance.root).rglob("volumes*"))


def folders_of_trials() -> set[str]:
    """What machines of trials have been given, whose ever they are."""
    return set(glob(f"{tempfile.gettempdir()}/swiftlet-trial-*"))


def builds(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_kernel_is_derived_and_known_to_the_other_commands(
    installation: Product, words: tuple[str, ...], log: Path
) -> None:
    found = installation.json(*words)
    assert found["complete"] and found["kernel"]["names"] == ["mine"] and all(run["passed"] for run in found["runs"])
    assert found["compared"]["profile"] == "micro" and found["compared"]["boot_ms"] > 0
    listed = installation.json("kernel", "ls")
    assert {name for kernel in listed for name in kernel["names"]} == {"mine", "micro"} and len(listed) == 2
    gone = installation.json("kernel", "explain", "INET", "mine")
    assert gone["value"] == "n" and gone["evidence"]["told"] == "dropped because run 1 passed without it"
    assert "derived: dropped because run 1 passed without it" in installation.ok("kernel", "explain", "INET", "mine")
    assert installation.json("kernel", "explain", "INET")["kernel"]["names"] == ["micro"]  # what anybody gets
    only = installation.json("kernel", "diff", "mine", "micro")
    assert "CONFIG_NET" not in {each["symbol"] for each in only["only_before"]}
    before = builds(log)
    assert installation.json(*words)["runs"] == found["runs"] and builds(log) == before
    assert copies_of_volumes(installation) == []


def test_checks_that_fail_on_the_full_kernel_are_told_with_the_workload(
    installation: Product, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "data/here").unlink()
    done = installation.run(*words)
    assert done.returncode == 125 and done.stdout == ""
    assert "the checks fail on the full kernel: workload 1: the workload ended with code 1" in done.stderr
    assert copies_of_volumes(installation) == []


@pytest.mark.crash
@pytest.mark.parametrize("by", ["ctrl-c", "kill"])
def test_a_derivation_that_is_broken_off_while_it_builds_goes_on_where_it_was(
    installation: Product, words: tuple[str, ...], log: Path, by: str
) -> None:
    running = installation.spawn(*words)
    eventually(lambda: builds(log) == 1 and qemus(worker(installation)))  # the full kernel is there, and is tried
    slow = unpacked(installation) / "slow"
    slow.write_text("20")  # whoever sleeps outlives make, and has its lock
    eventually(lambda: builds(log) == 2, 120)
    known = journal(installation)["runs"]
    assert len(known) == 1
    if by == "kill":
        os.kill(worker(installation), signal.SIGKILL)
        assert running.wait(30) == 125
    else:
        running.send_signal(signal.SIGINT)
        assert "the same command goes on where it was" in running.communicate(timeout=30)[1]
        assert running.returncode == 130
    slow.unlink()
    found = installation.json(*words)
    assert journal(installation)["runs"][:1] == known and found["complete"] and len(found["runs"]) == 2
    assert builds(log) == 2 + 1 + 1  # the one that was broken off, again, and the profile's


@pytest.mark.crash
def test_a_derivation_that_is_killed_while_it_tries_a_kernel_leaves_no_machine_and_goes_on(
    installation: Product, words: tuple[str, ...], log: Path
) -> None:
    before = folders_of_trials()
    running = installation.spawn(*words)
    machines = eventually(lambda: qemus(worker(installation)))
    assert all(user_of(number) == trial.USER for number in machines)
    os.kill(worker(installation), signal.SIGKILL)
    assert running.wait(30) == 125
    eventually(lambda: all(user_of(number) == -1 for number in machines), 5)
    assert eventually(lambda: folders_of_trials() <= before)  # those of other tests come and go
    assert installation.json(*words)["complete"]
    assert builds(log) == 3  # the full kernel was not built again


def test_a_derivation_starts_from_the_configuration_of_a_tree_or_of_a_distribution(
    installation: Product, words: tuple[str, ...], tmp_path: Path, tree: Path
) -> None:
    for name in ("SOUND", "RADIO"):
        (tree / "Kconfig").write_text(f'{(tree / "Kconfig").read_text()}\nconfig {name}\n\tbool "{name}"\n')
    defconfig = tree / "arch/x86/configs/x86_64_defconfig"
    defconfig.parent.mkdir(parents=True, exist_ok=True)
    defconfig.write_text("CONFIG_SOUND=m\nCONFIG_UNKNOWNTHING=y\n")
    place = words.index("--from") + 1
    asked = [*words[:-1], str(packed(tree))]
    found = installation.json(*asked[:place], "defconfig", *asked[place + 1 :])
    assert found["complete"] and all(run["passed"] for run in found["runs"])
    told = installation.json("kernel", "explain", "SOUND", "mine")
    assert told["evidence"]["told"] == "dropped because run 1 passed without it"

    own = tmp_path / "config-6.1-cloud"
    own.write_text("CONFIG_RADIO=m\n")
    installation.json(*asked[:place], str(own), *asked[place + 1 :])
    assert installation.json("kernel", "explain", "RADIO", "mine")["evidence"]["run"] == 1


def test_a_start_that_is_no_configuration_is_refused(
    installation: Product, words: tuple[str, ...], tmp_path: Path, log: Path
) -> None:
    bad = tmp_path / "bad.config"
    bad.write_text("what?\n")
    place = words.index("--from") + 1
    for start, told in (
        (str(bad), "bad.config, line 1: 'what?' is no option"),
        (f"{tmp_path}/none", f"--from {tmp_path}/none: No such file or directory"),
        ("defconfig", "has no arch/x86/configs/x86_64_defconfig"),
        ("debian", "no kernel profile debian"),
    ):
        done = installation.run(*words[:place], start, *words[place + 1 :])
        assert done.returncode == 125 and told in done.stderr, done.stderr
    assert builds(log) == 0
