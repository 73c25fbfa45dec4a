"""Fixtures for tests that run virtual machines: one kernel for all of them, built once and kept in the tree's cache.

It is of the profile `disk`, which has all that `server` has (a test sees to that) and what firmware's start takes
besides, so that machines and disk images are tried with one build.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swiftlet.image.kernel import build, profile, source
from swiftlet.image.kernel.build import Kernel
from swiftlet.image.kernel.source import Source
from tests.product import Product

CACHE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), ".cache")
PROFILE = "disk"


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
    return build.build(debian_source, requests, CACHE, name=PROFILE)


@contextmanager
def installed(root: Path, kernel: Kernel, **environment: str) -> Iterator[Product]:
    """An installation in a folder, with a kernel; when it is closed nothing of it may be left."""
    folder = root / "cache/kernels"
    folder.mkdir(parents=True)
    (folder / kernel.digest).symlink_to(kernel.folder)
    made = Product(str(root))
    made.environment |= environment
    yield made
    made.close()
    assert made.leftovers() == []


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory, kernel: Kernel) -> Iterator[Product]:
    """An installation with a kernel. What a test resolves, the next one finds: QEMU takes half a minute of its own."""
    with installed(tmp_path_factory.mktemp("swiftlet"), kernel) as made:
        yield made


@pytest.fixture
def kind() -> tuple[str, ...]:
    """Flags of `run` that say what a guest is, for tests that are those of containers too."""
    return ("--as", "vm")
