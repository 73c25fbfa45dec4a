"""`swiftlet unikernel build --target linux` as a user has it; the result in a container, under the default filter."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from swiftlet.unikernel.client import Client
from tests.product import Product

pytestmark = [pytest.mark.root]

PRIMES = Path(__file__).parents[2] / "examples/unikernel/primes.py"


@pytest.fixture(scope="module")
def primes(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("primes") / "primes"
    told = product.ok("unikernel", "build", str(PRIMES), "--target", "linux", "-o", str(path))
    assert "count_primes(limit: int) -> int" in told
    path.parent.chmod(0o755)
    return path


def test_a_program_is_built_once_for_each_target(product: Product, primes: Path) -> None:
    assert primes.stat().st_mode & 0o777 == 0o755
    found = [product.json("unikernel", "build", str(PRIMES), *flags) for flags in ((), ("--target", "linux"))]
    assert [each["reused"] for each in found] == [False, True]
    assert found[0]["digest"] != found[1]["digest"] and found[0]["tasks"] == found[1]["tasks"]
    assert Path(found[1]["path"]).read_bytes() == primes.read_bytes()


def test_another_target_is_refused(product: Product) -> None:
    refused = product.run("unikernel", "build", str(PRIMES), "--target", "windows")
    assert refused.returncode == 125 and "no target: 'windows'" in refused.stderr


def test_it_runs_by_itself_and_is_called_as_a_unikernel(product: Product, primes: Path) -> None:
    flags = ("--address", "127.0.0.1", "--port", "0")
    with subprocess.Popen([primes, *flags], stdout=subprocess.PIPE, text=True, env={}) as process:
        assert process.stdout is not None
        where = process.stdout.readline().split()[2].rstrip(",")
        assert product.ok("unikernel", "call", where, "count_primes", "20000", "--tasks", "4") == 4 * "2262\n"
        refused = product.run("unikernel", "call", where, "count_primes", "-5")
        assert "ValueError: a limit below zero" in refused.stderr
        assert product.json("unikernel", "stats", where)["processors"][0]["tasks"] == 5
        process.terminate()


@pytest.mark.net
@pytest.mark.parametrize("mode", ["--threads", "--processes"])
def test_it_runs_in_a_container(product: Product, primes: Path, mode: str) -> None:
    """As process 1, without rights, under the default filter of system calls, and ended by `stop`."""
    flags = ("-t", "busybox", "-v", f"{primes.parent}:/app", "-p", "127.0.0.1::7000/udp", "--cap-drop", "ALL")
    product.ok("run", "-d", "-q", "--name", "primes", *flags, "--", "/app/primes", mode)
    (guest,) = product.json("inspect", "primes")
    with Client("127.0.0.1", int(guest["ports"][0].partition("->")[0].rpartition(":")[2])) as client:
        assert client.run("count_primes", [20000], 8) == [2262] * 8
    product.ok("stop", "primes")
    (guest,) = product.json("inspect", "primes")
    assert guest["exit"]["code"] == 0
    product.ok("rm", "-f", "primes")
