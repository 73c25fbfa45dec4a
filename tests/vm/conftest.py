"""Fixtures for tests that run virtual machines: one kernel for all of them, built once and kept in the tree's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.image.kernel import build, profile, source
from swiftlet.image.kernel.build import Kernel
from swiftlet.image.kernel.source import Source
from tests.product import Product

CACHE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), ".cache")
PROFILE = "server"


@pytest.fixture(scope="session")
def debian_source() -> Source:
    """Debian's kernel source, unpacked (seven seconds the first time)."""
    if not os.path.exists(source.DEBIAN):
        pytest.skip("linux-source-6.1 is not installed; ./dev test installs it")
    os.makedirs(CACHE, exist_ok=True)
    return source.source_at(source.DEBIAN, CACHE)


@pytest.fixture(scope="session")
def kernel(debian_source: Source) -> Kernel:
    """The kernel of the tests: minutes the first time."""
    requests = profile.requests_of(profile.profile_named(PROFILE)).values()
    return build.build(debian_source, requests, CACHE)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, kernel: Kernel) -> Iterator[Product]:
    """An installation with a kernel; when its tests are over nothing of it may be left."""
    root = tmp_path_factory.mktemp("swiftlet")
    folder = Path(root) / "cache/kernels"
    folder.mkdir(parents=True)
    (folder / kernel.digest).symlink_to(kernel.folder)
    made = Product(str(root))
    yield made
    made.close()
    assert made.leftovers() == []
