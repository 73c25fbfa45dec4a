"""Machines with a disk for what they write: it is kept until `rm`, goes back when it is removed, and can be full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.product import Product, eventually

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]

VM = ("--as", "vm", "-t", "busybox", "-t", "coreutils")


def disk(product: Product, name: str) -> os.stat_result:
    root = Path(product.instance.root)
    return os.stat(root / "guests" / os.readlink(root / "names" / name) / "disk")


def test_what_is_written_is_there_when_it_is_started_again(product: Product) -> None:
    named = "cat /kept 2>/dev/null; cat /proc/sys/kernel/random/uuid >>/kept"
    script = f"{named}; rm -rf /etc/hosts; mkdir -p /etc/hosts; df -P / | tail -n 1"
    first = product.ok("run", "--name", "keeper", "--disk", "100M", *VM, "--", "sh", "-c", script).splitlines()
    size = int(first[0].split()[1])  # in KiB
    assert 80 << 10 < size < 100 << 10
    assert disk(product, "keeper").st_size == 100 << 20
    assert disk(product, "keeper").st_blocks * 512 < 16 << 20
    for _ in range(2):
        product.ok("start", "keeper")
        product.ok("wait", "keeper")
    seen = [line for line in product.ok("logs", "keeper").splitlines() if not line.startswith("overlay")]
    assert len(seen) == 3 and seen[0] == seen[1]  # the second start showed one line, the third two
    product.ok("rm", "keeper")


def test_more_fits_than_there_is_memory_and_goes_back_when_it_is_removed(product: Product) -> None:
    asked = ("-d", "--name", "large", "-m", "96M", "--disk", "1G", *VM)
    product.ok("run", *asked, "--", "sleep", "1000")
    product.ok("exec", "large", "dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=200", "conv=fsync", "status=none")
    assert disk(product, "large").st_blocks * 512 > 200 << 20
    product.ok("exec", "large", "sh", "-c", "rm /large; sync")
    assert eventually(lambda: disk(product, "large").st_blocks * 512 < 64 << 20)
    product.ok("rm", "-f", "large")


def test_a_killed_machine_has_what_was_synced(product: Product) -> None:
    product.ok("run", "-d", "--name", "cut", "--disk", "64M", *VM, "--", "sleep", "1000")
    product.ok("exec", "cut", "sh", "-c", "echo safe >/synced; sync")
    product.ok("kill", "cut")
    product.run("wait", "cut")
    product.ok("start", "cut")
    assert product.ok("exec", "cut", "cat", "/synced") == "safe\n"
    product.ok("rm", "-f", "cut")


def test_a_full_disk_is_the_guests_own_error(product: Product) -> None:
    words = (
        "run",
        "--rm",
        "--disk",
        "16M",
        *VM,
        "--",
        "sh",
        "-c",
        "dd if=/dev/zero of=/x bs=1M count=64; echo went on",
    )
    done = product.run(*words)
    assert done.returncode == 0 and "No space left" in done.stderr and "went on" in done.stdout


def test_a_disk_that_cannot_be_mounted_is_told_and_nothing_is_run(product: Product) -> None:
    product.ok("run", "-d", "--name", "broken", "--disk", "64M", *VM, "--", "sleep", "1000")
    product.ok("kill", "broken")
    root = Path(product.instance.root)
    file = root / "guests" / os.readlink(root / "names/broken") / "disk"
    with open(file, "r+b") as written:
        written.write(bytes(1 << 20))
    done = product.run("start", "broken")
    assert done.returncode == 126 and "could not be set up: m /dev/vd" in done.stderr, done.stderr
    assert product.json("inspect", "broken")[0]["state"] == "Stopped"
    product.ok("rm", "broken")


def test_what_no_disk_can_be_had_of_is_refused(product: Product) -> None:
    for words, told in (
        (("-t", "busybox"), "a container has no disk of its own"),
        (("--as", "vm", "-t", "busybox", "--disk", "1M"), "too little for a disk"),
        (("--as", "vm", "-t", "busybox", "--disk", "lots"), "lots"),
        (("--as", "vm", "-t", "busybox", "--disk", "8P"), "of the file system that it is to lie on"),
    ):
        disk_words = () if "--disk" in words else ("--disk", "64M")
        done = product.run("run", "--rm", *words, *disk_words, "--", "true")
        assert done.returncode == 125 and told in done.stderr, done.stderr
    product.ok("run", "-d", "--name", "kept", "--disk", "64M", *VM, "--", "sleep", "1000")
    assert "has a disk" in product.run("snapshot", "kept", "ready").stderr
    product.ok("rm", "-f", "kept")
