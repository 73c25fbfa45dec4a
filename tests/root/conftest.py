"""Fixtures for tests that need root: a launcher of their own and a root file system of one static busybox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launching import TestLauncher
from tests.product import Product

APPLETS = """
sh ls cat mount umount id ps echo sleep hostname ip df tty stty mkdir rm mv ln chmod chown mknod dd touch kill head
grep true false env pwd stat seq yes readlink test printf wc nslookup wget nc ulimit
"""


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lower layer: busybox, its applets, the folders that every root has."""
    root = tmp_path_factory.mktemp("busybox")
    for name in ("usr/bin", "proc", "sys", "dev", "etc", "tmp", "root", "run"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is installed by ./dev test"
    shutil.copy(busybox, root / "usr/bin/busybox")
    for name in APPLETS.split():
        (root / "usr/bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    root.chmod(0o755)
    return str(root)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[TestLauncher]:
    """A running launcher; when the test is over none of its guests and none of its control groups may be left."""
    made = TestLauncher(str(tmp_path), f"swiftlet-test-{os.getpid()}")
    yield made
    made.close()


@pytest.fixture
def kind() -> tuple[str, ...]:
    """Flags of `run` that say what a guest is: nothing, for containers."""
    return ()


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """swiftlet as a user has it. What a test resolves, the next one finds; at the end nothing may be left."""
    made = Product(str(tmp_path_factory.mktemp("swiftlet")))
    os.chmod(made.instance.root, 0o711)
    yield made
    made.close()
    assert made.leftovers() == []


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Product]:
    """As `product`, for one test alone: it may be damaged and its processes killed, and still nothing may be left."""
    made = Product(str(tmp_path / "root"))
    os.mkdir(made.instance.root, 0o711)
    yield made
    made.close()
    assert made.leftovers() == []
