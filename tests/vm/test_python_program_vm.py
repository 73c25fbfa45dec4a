"""What a Python program finds in its virtual machine: the same as in its container (tests/root)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.product import Product
from tests.root.test_python_program import (
    AS_ROOT,
    UNPRIVILEGED,
    probed,
    test_a_python_program_finds,
    test_a_python_program_knows_its_account_where_there_is_one,
    test_a_python_program_trusts_the_usual_authorities_and_knows_the_time_zones,
)

__all__ = [
    "test_a_python_program_finds",
    "test_a_python_program_knows_its_account_where_there_is_one",
    "test_a_python_program_trusts_the_usual_authorities_and_knows_the_time_zones",
]

pytestmark = [pytest.mark.root, pytest.mark.net, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture(scope="module", params=[AS_ROOT, UNPRIVILEGED], ids=["as-root", "unprivileged"])
def found(request: pytest.FixtureRequest, product: Product, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe printed: run plainly, and by somebody who may write to /tmp alone."""
    return probed(product, tmp_path_factory.mktemp("probe"), "--as", "vm", *request.param)
