"""A disk that is full when a machine's root or a snapshot is to be written: told, undone, done when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.image.kernel.kept import Kernel
from tests.product import Product, eventually, unmount
from tests.vm import stock
from tests.vm.conftest import CACHE, PROFILE, installed

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

RUN = ("run", "--rm", "--as", "vm", "-t", "busybox", "--", "busybox", "echo", "room")
ROOMY = 2 << 30


class Disk:
    """A file system of a test's own, as large as it is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOMY},mode=711", "tmpfs", str(path)], check=True)

    def leave(self, free: int) -> None:
        """Make it so large that this many bytes are free."""
        found = os.statvfs(self.path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        self.resize(used + free)

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """The disk on which the installation is."""
    made = Disk(tmp_path_factory.mktemp("disk"))
    yield made
    unmount(made.path)


@pytest.fixture(scope="module")
def small(disk: Disk, kernel: Kernel) -> Iterator[Product]:
    """An installation on it, with everything that a machine of busybox takes."""
    root = disk.path / "root"
    root.mkdir(0o711)
    with installed(root, kernel) as made:
        assert made.ok(*RUN) == "room\n"
        yield made
        disk.resize(ROOMY)


@pytest.fixture(autouse=True)
def roomy(small: Product, disk: Disk) -> None:
    """Each test begins with room, also after one that failed while the disk was full."""
    disk.resize(ROOMY)


def half_made(product: Product) -> list[str]:
    """What is under way, or was left by something that failed.

    A guest's remains ("guest-...") are deleted behind the answer to the command, so a look may still see them.
    """
    found = [name for name in os.listdir(f"{product.instance.root}/cache/images") if name.startswith(".")]
    return found + [name for name in os.listdir(f"{product.instance.root}/tmp") if not name.endswith(".lock")]


def test_a_root_that_does_not_fit_is_told_and_is_made_when_there_is_room(small: Product, disk: Disk) -> None:
    images = Path(small.instance.root, "cache/images")
    largest = max(images.glob("*.erofs"), key=lambda path: path.stat().st_blocks)
    taken = largest.stat().st_blocks * 512
    for path in (largest, largest.with_suffix(".json")):
        path.unlink()
    disk.leave(taken // 2)
    failed = small.run(*RUN)
    assert failed.returncode == 125
    assert "swiftlet: no room for an image at" in failed.stderr
    assert "hint: free some space" in failed.stderr
    assert not largest.exists()
    eventually(lambda: half_made(small) == [])
    assert small.json("ps", "-a") == []
    disk.resize(ROOMY)
    assert small.ok(*RUN) == "room\n"


def test_a_snapshot_that_does_not_fit_is_told_and_its_machine_goes_on(small: Product, disk: Disk) -> None:
    small.ok("run", "-d", "--name", "src", *RUN[2:6], "--", "busybox", "sleep", "1000")
    disk.leave(8 << 20)
    failed = small.run("snapshot", "src", "ready")
    assert failed.returncode == 125
    assert "no space left" in failed.stderr.lower()
    assert "hint: " in failed.stderr
    assert os.listdir(f"{small.instance.root}/snapshots") == []
    eventually(lambda: half_made(small) == [])
    assert small.ok("exec", "src", "busybox", "echo", "here") == "here\n"
    disk.resize(ROOMY)
    eventually(lambda: small.ok("snapshot", "src", "ready") == "src:ready\n")  # the command's port goes after its end
    small.ok("run", "--from", "src:ready", "--name", "one")
    assert small.ok("exec", "one", "busybox", "hostname") == small.json("inspect", "one")[0]["id"] + "\n"
    small.ok("rm", "-f", "src", "one")
    small.ok("snapshot", "rm", "src:ready")


def test_a_guest_on_a_host_that_is_full_gets_errors_or_ends_and_does_not_hang(small: Product, disk: Disk) -> None:
    small.ok("run", "-d", "--name", "writer", "--disk", "1G", *RUN[2:6], "--", "busybox", "sleep", "1000")
    disk.leave(32 << 20)
    write = "dd if=/dev/urandom of=/large bs=1M count=200 conv=fsync"
    done = small.run("exec", "writer", "busybox", "sh", "-c", write, timeout=60)
    assert done.returncode != 0
    disk.resize(ROOMY)
    small.run("kill", "writer")
    small.ok("start", "writer")  # what its journal has is there
    assert small.ok("exec", "writer", "busybox", "echo", "again") == "again\n"
    small.ok("rm", "-f", "writer")


@pytest.mark.net
def test_a_distributions_kernel_that_does_not_fit_is_told_and_is_taken_when_there_is_room(
    small: Product, disk: Disk
) -> None:
    image = stock.vmlinuz(CACHE)
    disk.leave(4 << 20)
    failed = small.run("kernel", "import", image, "--name", "stock")
    assert failed.returncode == 125
    assert "a kernel cannot be kept in" in failed.stderr and "No space left on device" in failed.stderr
    assert "hint: free some space" in failed.stderr
    assert [each["name"] for each in small.json("kernel", "ls")] == [PROFILE]
    assert not [name for name in os.listdir(f"{small.instance.root}/cache/kernels") if name.endswith(".new")]
    disk.resize(ROOMY)
    assert small.json("kernel", "import", image, "--name", "stock")["name"] == "stock"
