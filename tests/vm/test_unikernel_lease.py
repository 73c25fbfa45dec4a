"""A unikernel's address from DHCP: kept as long as a server says so, and not longer."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swiftlet.unikernel.build import build
from tests.vm.unikernel_dhcp import DISCOVER, EVERYBODY, HERE, REQUEST, SECONDS, Heard

pytestmark = [pytest.mark.root, pytest.mark.timeout(120, func_only=True)]

HOME = Path(__file__).parents[2]
NONE = "0.0.0.0"
FIRST, SECOND, THIRD = "10.9.0.50", "10.9.0.60", "10.9.0.70"
SLACK = 0.3
"""Seconds that a machine may be late, where the host has other work."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lease") / "primes.elf"
    path.write_bytes(build(str(HOME / "examples/unikernel/primes.py")).image)
    return path


def told_by(*words: object) -> Any:
    """What `unikernel_dhcp` tells, in a network namespace of its own."""
    command = ["unshare", "-n", sys.executable, Path(__file__).parent / "unikernel_dhcp.py", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(HOME)})
    assert done.returncode == 0, done.stderr + Path(f"{words[0]}.console").read_text()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def story(image: Path) -> dict[str, Any]:
    """What a server of short leases heard."""
    return {**told_by(image), "console": Path(f"{image}.console").read_text()}


def heard(story: dict[str, Any], part: str) -> list[Heard]:
    """The messages of a part of the story, at the end of which the guest answered."""
    messages, answered = story[part]
    assert answered == [True]
    return [Heard(*each) for each in messages]


def pauses(messages: list[Heard]) -> list[float]:
    """Seconds between messages."""
    return [after.at - before.at for before, after in itertools.pairwise(messages)]


def test_more_time_is_asked_for_after_half_of_it(story: dict[str, Any]) -> None:
    first, asked, *renewals = heard(story, "renewed")
    assert first[1:] == (DISCOVER, EVERYBODY, NONE, "", "")
    assert asked[1:] == (REQUEST, EVERYBODY, NONE, FIRST, HERE)
    assert [each[1:] for each in renewals] == [(REQUEST, HERE, FIRST, "", "")] * 3
    assert pauses([asked, *renewals]) == pytest.approx([SECONDS / 2] * 3, abs=SLACK)


def test_a_task_that_takes_longer_than_the_lease_does_not_end_it(story: dict[str, Any]) -> None:
    """The only processor runs it: more time is asked for in the timer's interrupt, and granted unseen."""
    unseen, everybody, *_ = messages = heard(story, "busy")
    assert [each[1:] for each in (unseen, everybody)] == [
        (REQUEST, HERE, FIRST, "", ""),
        (REQUEST, EVERYBODY, FIRST, "", ""),
    ]
    assert {each.kind for each in messages} == {REQUEST}


def test_everybody_is_asked_when_the_server_is_silent(story: dict[str, Any]) -> None:
    *_, alone, everybody = heard(story, "rebound")
    assert alone[1:] == (REQUEST, HERE, FIRST, "", "")
    assert everybody[1:] == (REQUEST, EVERYBODY, FIRST, "", "")
    assert everybody.at - alone.at == pytest.approx(SECONDS * 3 / 8, abs=SLACK)


def test_an_address_is_given_up_when_its_time_is_over_and_another_one_serves(story: dict[str, Any]) -> None:
    assert story["lost"], "nobody answers at the old address"
    messages = heard(story, "moved")
    kept = [each for each in messages if each.holds == FIRST]
    assert [each.target for each in kept] == [HERE, EVERYBODY]
    first, *further = messages[2:-1]
    assert first.at - kept[1].at == pytest.approx(SECONDS / 8, abs=2 * SLACK)
    assert {each[1:] for each in (first, *further)} == {(DISCOVER, EVERYBODY, NONE, "", "")}
    assert messages[-1][1:] == (REQUEST, EVERYBODY, NONE, SECOND, HERE)
    waits = pauses([first, *further])
    assert all(after == pytest.approx(2 * before, abs=SLACK) for before, after in itertools.pairwise(waits))
    told = story["console"].partition("ready\n")[2].splitlines()
    assert told == ["the time of the address is over", f"network {SECOND}", f"network {THIRD}"]


def test_an_address_that_is_refused_is_given_up_at_once(story: dict[str, Any]) -> None:
    refused, *anew = heard(story, "refused")
    assert refused[1:] == (REQUEST, HERE, SECOND, "", "")
    assert [each[1:] for each in anew] == [
        (DISCOVER, EVERYBODY, NONE, "", ""),
        (REQUEST, EVERYBODY, NONE, THIRD, HERE),
    ]


def test_the_server_says_when_it_is_to_be_asked(story: dict[str, Any]) -> None:
    assert pauses(heard(story, "as the server says")) == pytest.approx([1, 1], abs=SLACK)


@pytest.mark.parametrize(("seconds", "least", "most"), [(3600, 4, 6), (86400, 78, 80)])
def test_an_idle_machine_waits_in_steps_of_nine_minutes(image: Path, seconds: int, least: int, most: int) -> None:
    assert least <= told_by(image, seconds) <= most
