"""Fixtures for tests that run virtual machines: one kernel for all of them, built once and kept in the tree's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.image.kernel import build, profile, source
from swiftlet.image.kernel.build import Kernel
from tests.product import Product

CACHE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), ".cache")
PROFILE = "server"


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """The kernel of the tests: minutes the first time."""
    os.makedirs(CACHE, exist_ok=True)
    requests = profile.requests_of(profile.profile_named(PROFILE)).values()
    return build.build(source.source_at(source.DEBIAN, CACHE), requests, CACHE)


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
