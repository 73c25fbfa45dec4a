"""What a machine's guest reports is taken as it comes, and a machine that is to wait is stopped at its word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.guest.channels import Channels
from swiftlet.linux.lean import socket


class Machine:
    """The other ends of a machine's channels."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self._orders = socket.socket(fileno=os.dup(channels.given["orders"]))
        self._script = socket.socket(fileno=os.dup(channels.given["script"]))

    def report(self, text: str) -> None:
        self._orders.send(text.encode())
        self.channels.take_reports()

    def heard(self) -> tuple[str, str]:
        """Orders and script since it was asked last."""
        found = []
        for each in (self._orders, self._script):
            each.setblocking(False)
            try:
                found.append(each.recv(1 << 16).decode())
            except BlockingIOError:
                found.append("")
        return found[0], found[1]

    def close(self) -> None:
        self._orders.close()
        self._script.close()
        self.channels.close()


def machine(folder: Path, **how: object) -> Machine:
    orders = "" if how.get("waits") and not how.get("halt") else "orders"
    return Machine(Channels(str(folder), ["orders", "monitor"], orders, "script;", **how))  # type: ignore[arg-type]


@pytest.fixture
def halting(tmp_path: Path) -> Iterator[Machine]:
    made = machine(tmp_path, waits=True, halt="stop;")
    yield made
    made.close()


def test_a_machine_that_waits_for_everything_rests_from_the_beginning(tmp_path: Path) -> None:
    made = machine(tmp_path, waits=True)
    assert made.heard() == ("", "script;") and made.channels.waits and made.channels.resting
    made.channels.begin("orders", "go;")
    assert made.heard() == ("orders", "go;") and not made.channels.waits
    made.close()


def test_one_that_is_told_ahead_is_stopped_once_when_it_has_done_that(halting: Machine) -> None:
    assert halting.heard() == ("orders", "script;") and not halting.channels.resting
    halting.report("said ah")
    assert halting.heard() == ("", "") and not halting.channels.resting
    halting.report("ead\n")
    assert halting.heard() == ("", "stop;") and halting.channels.resting and not halting.channels.started
    halting.report("said ahead\n")
    halting.channels.begin("more", "go;")
    assert halting.heard() == ("more", "go;")
    halting.report("said started\n")
    assert halting.channels.started


def test_a_machine_that_does_not_wait_is_stopped_by_no_word(tmp_path: Path) -> None:
    made = machine(tmp_path)
    made.heard()
    made.report("said ahead\nsaid held\n")
    assert made.heard() == ("", "") and made.channels.held
    made.close()


def test_a_monitor_that_is_gone_ends_nothing(halting: Machine) -> None:
    halting._script.close()
    os.close(halting.channels.given.pop("script"))
    halting.report("said ahead\n")
    assert not halting.channels.resting
