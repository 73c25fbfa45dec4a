"""What a Python program finds in its container: everything that the usual program takes for granted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.product import Product
from tests.root import python_probe

pytestmark = [pytest.mark.root, pytest.mark.net]

EXAMPLE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "examples/hello-web"
)

EXPECTED: dict[str, Any] = {
    "tls_with_the_trusted_certificate": "TLSv1.3",
    "tls_with_others_only": "self-signed certificate",
    "tls_with_another_name": "Hostname mismatch, certificate is not valid for 'example.org'.",
    "database": [python_probe.TEXT],
    "library_c": 0,
    "library_z": 0xCBF43926,
    "library_that_is_not_there": None,
    "shell": [4, "got 42\n", 5],
    "summer_and_winter": ["CET +0100", "CEST +0200"],
    "language": ["C.UTF-8", "UTF-8", "utf-8"],
    "localhost": ["127.0.0.1", "::1"],
    "own_name": True,
    "services": [443, "redis", 6],
    "temporary_files": ["/tmp", 10, "0o41777"],
    "processes": 285,
    "shared_memory": 300,
    "threads": 328350,
    "modules_that_fail": [],
}


AS_ROOT = ()
MAPPED = ("--userns",)
UNPRIVILEGED = ("-u", "1000:1000", "--read-only", "--tmpfs", "/tmp")


WORKLOAD = """
template: python@3.11
command: python3 /probe/probe.py
volumes: [.:/probe:ro]
remove: true
"""


def probed(product: Product, folder: Path, *options: str) -> dict[str, Any]:
    """What the probe prints, of a guest with these flags of `run`, and the flags."""
    folder.chmod(0o755)
    shutil.copy(python_probe.__file__, folder / "probe.py")
    shutil.copy(f"{EXAMPLE}/localhost-test-only.pem", folder)
    (folder / "localhost-test-only.pem").chmod(0o644)
    (folder / "workload.yaml").write_text(WORKLOAD)
    done = product.run("run", "-q", "-f", f"{folder}/workload.yaml", *options)
    assert done.returncode == 0, done.stderr
    text, facts = done.stdout.splitlines()
    assert text == python_probe.TEXT
    return {**json.loads(facts), "options": options}


@pytest.fixture(scope="module", params=[AS_ROOT, MAPPED, UNPRIVILEGED], ids=["as-root", "userns", "unprivileged"])
def found(request: pytest.FixtureRequest, product: Product, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe printed: run plainly, with user ids of its own, and by somebody who may write to /tmp alone."""
    return probed(product, tmp_path_factory.mktemp("probe"), *request.param)


@pytest.mark.parametrize("fact", sorted(EXPECTED))
def test_a_python_program_finds(fact: str, found: dict[str, Any]) -> None:
    assert found[fact] == EXPECTED[fact], found[fact]


def test_a_python_program_trusts_the_usual_authorities_and_knows_the_time_zones(found: dict[str, Any]) -> None:
    assert found["authorities"] > 100 and found["time_zones"] > 500


def test_a_python_program_knows_its_account_where_there_is_one(found: dict[str, Any]) -> None:
    if "-u" in found["options"]:
        assert "uid not found: 1000" in found["own_account"]["failed"], "a number needs no account, as with docker"
    else:
        assert found["own_account"] == ["root", "/root", "/root"]
