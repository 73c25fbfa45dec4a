"""A machine whose QEMU stands still long after its start: it can be ended, and nobody else has to wait for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from swiftlet.api.client import Client
from swiftlet.model.error import SwiftletError
from tests.product import Product, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

RUN = ("run", "-d", "--as", "vm", "-t", "busybox")
GRACE = 2.0
SLACK = 8.0
"""Seconds that a command may take besides, on a busy machine."""


@pytest.fixture
def hung(product: Product) -> Iterator[int]:
    """QEMU of a machine `hung`, which is stopped, beside a machine `well`: its process number."""
    product.ok(*RUN, "--name", "well", "--", "busybox", "sleep", "1000")
    product.ok(*RUN, "--name", "hung", "--", "busybox", "sleep", "1000")
    number = next(guest["pid"] for guest in product.json("ps") if guest["name"] == "hung")
    os.kill(number, signal.SIGSTOP)
    yield number
    for name in ("well", "hung"):
        product.run("rm", "-f", name)


def seconds_of(product: Product, *arguments: str) -> float:
    """How long a command takes that succeeds."""
    begin = time.monotonic()
    product.ok(*arguments)
    return time.monotonic() - begin


def test_it_is_ended_within_its_grace_and_leaves_its_neighbour_alone(product: Product, hung: int) -> None:
    assert GRACE <= seconds_of(product, "stop", "-t", f"{GRACE:.0f}", "hung") < GRACE + SLACK
    ended = product.json("inspect", "hung")[0]
    assert (ended["state"], ended["exit"]["code"]) == ("Stopped", 137)
    assert not os.path.exists(f"/proc/{hung}")
    assert product.ok("exec", "well", "busybox", "echo", "fine") == "fine\n"


def test_it_is_removed_by_force(product: Product, hung: int) -> None:
    assert seconds_of(product, "rm", "-f", "hung") < SLACK
    eventually(lambda: not os.path.exists(f"/proc/{hung}"))


def test_whoever_asks_for_others_need_not_wait_for_those_who_ask_for_it(product: Product, hung: int) -> None:
    waiting = [product.spawn("exec", "hung", "busybox", "true") for _ in range(4)]
    waiting.append(product.spawn("snapshot", "hung", "never"))
    end = time.monotonic() + 12  # while one after the other tries to reach its monitor, and gives up
    while time.monotonic() < end:
        for command in (("ps",), ("ps", "-a"), ("inspect", "hung"), ("stats",), ("logs", "hung")):
            assert seconds_of(product, *command) < SLACK
        assert product.ok("exec", "well", "busybox", "echo", "fine") == "fine\n"
    for each in waiting:
        _, errors = each.communicate(timeout=60)
        assert each.returncode == 125
        assert "the machine's monitor does not answer" in errors
    assert product.json("snapshot", "ls") == []


def test_it_is_ended_even_when_it_takes_no_more_orders(product: Product, hung: int) -> None:
    with Client(product.instance, daemon=None) as client, pytest.raises(SwiftletError):
        for _ in range(100_000):
            client.call("Kill", {"guest": "hung", "signal": "SIGUSR1"})
    assert seconds_of(product, "stop", "-t", f"{GRACE:.0f}", "hung") < GRACE + SLACK
    assert product.ok("exec", "well", "busybox", "echo", "fine") == "fine\n"


def test_it_goes_on_when_it_is_let_go_on(product: Product, hung: int) -> None:
    os.kill(hung, signal.SIGCONT)
    assert product.ok("exec", "hung", "busybox", "echo", "here") == "here\n"
