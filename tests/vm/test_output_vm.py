"""How much a machine writes is bounded by nothing of the machine's."""

from __future__ import annotations

import pytest

from tests.product import Product

pytestmark = [pytest.mark.root, pytest.mark.timeout(200, func_only=True)]


def test_a_small_machine_may_write_more_than_it_has_memory(product: Product) -> None:
    words = ("--rm", "--as", "vm", "-m", "64M", "-t", "busybox", "--", "busybox", "head", "-c", "80000000", "/dev/zero")
    assert len(product.ok("run", *words, timeout=100)) == 80_000_000
