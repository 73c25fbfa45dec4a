"""Every example as a machine, with two processors: two thousand calls of it come to what they come to under CPython."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.product import Product
from tests.unit.test_unikernel_python import EXAMPLES, NAMES, compare, compare_equations
from tests.vm.test_unikernel import Service

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture
def service(product: Product, request: pytest.FixtureRequest) -> Iterator[Service]:
    name = request.node.callspec.params["name"]
    yield Service(product, name, "--cpus", "2", program=(EXAMPLES / f"{name}.py").read_text())
    product.ok("rm", "-f", name)


@pytest.mark.parametrize("name", [*NAMES, "linear"])
def test_an_example_does_what_it_does_under_cpython(service: Service, name: str) -> None:
    with service.client() as client:
        if name == "linear":
            compare_equations(client)
        else:
            compare(client, name)
