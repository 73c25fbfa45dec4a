"""The host's memory: what guests give back, what clones have in common, and that none can change it for the others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

VM = ("--as", "vm", "-m", "512M", "-t", "busybox", "--", "busybox")
FILL = "dd if=/dev/zero of=/tmp/big bs=1M count=200 2>/dev/null"
MIB = 1 << 20


def anonymous(pid: int) -> int:
    """Bytes of a process that are nobody else's and no file's, and of memory files that it maps."""
    found = dict.fromkeys(("Pss_Anon", "Pss_Shmem"), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split(":")
        if name in found:
            found[name] = int(size.split()[0]) << 10
    return sum(found.values())


@pytest.fixture(scope="module")
def snapshot(product: Product) -> Iterator[str]:
    product.ok("run", "-d", "--name", "origin", *VM, "sleep", "1000")
    product.ok("snapshot", "origin", "here")
    product.ok("rm", "-f", "origin")
    yield "origin:here"
    product.ok("snapshot", "rm", "origin:here")


def test_what_a_guest_has_freed_the_host_has_again(product: Product) -> None:
    key = product.ok("run", "-d", *VM, "sleep", "1000").strip()
    pid = product.json("inspect", key)[0]["pid"]
    product.ok("exec", key, "busybox", "sh", "-c", FILL)
    full = anonymous(pid)
    assert full > 200 * MIB
    product.ok("exec", key, "busybox", "rm", "/tmp/big")
    eventually(lambda: anonymous(pid) < full - 150 * MIB)
    product.ok("rm", "-f", key)


def test_what_clones_write_is_their_own(product: Product, snapshot: str) -> None:
    saved = Path(product.environment["SWIFTLET_ROOT"], "snapshots", snapshot, "ram")
    before = hashlib.sha256(saved.read_bytes()).digest(), saved.stat().st_blocks
    one, other = product.ok("run", "--from", snapshot, "--count", "2").split()
    for _ in range(3):  # more than the guest has, if what was freed were not written again
        product.ok("exec", one, "busybox", "sh", "-c", f"{FILL}; rm /tmp/big")
    assert product.ok("exec", other, "busybox", "sh", "-c", "ls /tmp; echo lives") == "lives\n"
    assert (hashlib.sha256(saved.read_bytes()).digest(), saved.stat().st_blocks) == before
    (known,) = product.json("inspect", one)
    assert known["state"] == "Running"
    assert Path(known["folder"], "console").read_text() == ""  # nothing failed that its QEMU tells of
    eventually(lambda: anonymous(known["pid"]) < 100 * MIB)  # what was freed has gone back, though the file stays
    product.ok("rm", "-f", one, other)


def test_a_clone_has_its_memorys_file_for_reading_only(product: Product, snapshot: str) -> None:
    (key,) = product.ok("run", "--from", snapshot).split()
    pid = product.json("inspect", key)[0]["pid"]
    saved = os.stat(Path(product.environment["SWIFTLET_ROOT"], "snapshots", snapshot, "ram"))
    modes = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        found = os.stat(f"/proc/{pid}/fd/{name}")
        if (found.st_dev, found.st_ino) == (saved.st_dev, saved.st_ino):
            flags = Path(f"/proc/{pid}/fdinfo/{name}").read_text().split("flags:")[1].split()[0]
            modes.append(int(flags, 8) & os.O_ACCMODE)
    assert modes
    assert set(modes) == {os.O_RDONLY}
    product.ok("rm", "-f", key)


def test_clones_of_one_snapshot_read_the_same_pages(product: Product, snapshot: str) -> None:
    keys = product.ok("run", "--from", snapshot, "--count", "4").split()
    pids = [each["pid"] for each in product.json("inspect", *keys)]
    own = [anonymous(pid) for pid in pids]
    assert max(own) < 40 * MIB  # of 512 MiB, and of the 45 or more that its kernel and its programs take
    product.ok("rm", "-f", *keys)


def test_a_snapshot_whose_memory_is_gone_is_told(product: Product, snapshot: str) -> None:
    saved = Path(product.environment["SWIFTLET_ROOT"], "snapshots", snapshot, "ram")
    before = product.json("ps", "-a")
    saved.rename(saved.with_name("elsewhere"))
    try:
        done = product.run("run", "--from", snapshot)
        assert done.returncode == 125
        assert f"snapshot {snapshot} cannot be read" in done.stderr
    finally:
        saved.with_name("elsewhere").rename(saved)
    assert product.json("ps", "-a") == before
