"""Kernel configurations: what is read, merged, and found to be missing."""

from __future__ import annotations

import os

import pytest

from swiftlet.image.kernel import configuration, profile
from swiftlet.image.kernel.configuration import Change
from swiftlet.model.error import InputError, NotFoundError

FRAGMENT = """\
# A comment, and then options.
CONFIG_SMP=y
CONFIG_NR_CPUS=64

# CONFIG_MODULES is not set
CONFIG_CMDLINE="a \\"quoted\\" word"
"""


def test_a_fragment_is_read_with_the_place_of_each_request() -> None:
    found = configuration.read_fragment(FRAGMENT, "base.config")
    assert [(wanted.symbol, wanted.value, wanted.line) for wanted in found] == [
        ("CONFIG_SMP", "y", 2),
        ("CONFIG_NR_CPUS", "64", 3),
        ("CONFIG_MODULES", "n", 5),
        ("CONFIG_CMDLINE", '"a \\"quoted\\" word"', 6),
    ]


@pytest.mark.parametrize("line", ["SMP=y", "CONFIG_SMP", "CONFIG_SMP=yes", 'CONFIG_X="open', "CONFIG_A=y CONFIG_B=y"])
def test_a_line_that_is_no_option_is_named(line: str) -> None:
    with pytest.raises(InputError, match=r"x\.config, line 2: "):
        configuration.read_fragment(f"CONFIG_SMP=y\n{line}\n", "x.config")


def test_the_later_fragment_wins_and_what_is_rendered_is_read_again() -> None:
    found = configuration.merged([("a", "CONFIG_A=y\nCONFIG_B=1\n"), ("b", "# CONFIG_A is not set\n")])
    assert found["CONFIG_A"].value == "n" and found["CONFIG_A"].fragment == "b"
    text = configuration.render(found.values())
    assert text == "CONFIG_B=1\n# CONFIG_A is not set\n"
    assert configuration.merged([("again", text)]).keys() == found.keys()


def test_what_the_tools_did_not_follow_is_found() -> None:
    asked = configuration.merged(
        [("a", 'CONFIG_A=y\nCONFIG_B=16\n# CONFIG_C is not set\nCONFIG_D="x"\n# CONFIG_E is not set\n')]
    )
    result = configuration.read('# CONFIG_A is not set\nCONFIG_B=0x10\nCONFIG_C=y\nCONFIG_D="x"\n')
    assert [(each.wanted.symbol, each.value) for each in configuration.unmet(asked.values(), result)] == [
        ("CONFIG_A", "n"),
        ("CONFIG_C", "y"),
    ]


def test_two_configurations_differ_where_they_do() -> None:
    before, after = configuration.read("CONFIG_A=y\nCONFIG_B=m\n"), configuration.read("CONFIG_B=y\nCONFIG_C=3\n")
    assert configuration.difference(before, after) == [
        Change("CONFIG_A", "y", "n"),
        Change("CONFIG_B", "m", "y"),
        Change("CONFIG_C", "n", "3"),
    ]
    assert configuration.difference(before, before) == []


def test_every_profile_is_whole_and_each_holds_the_one_before() -> None:
    asked = {name: set(profile.requests_of(each)) for name, each in profile.PROFILES.items()}
    assert asked["micro"] < asked["net"] < asked["server"]
    named = {fragment for each in profile.PROFILES.values() for fragment in each.fragments}
    assert named <= {name.removesuffix(".config") for name in os.listdir(profile.FRAGMENTS)}


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(NotFoundError) as caught:
        profile.profile_named("macro")
    assert "micro, net, server" in caught.value.hint


def test_what_every_derived_kernel_keeps_is_nowhere_asked_to_be_off_at_the_start() -> None:
    start = profile.requests_of(profile.profile_named("full"))
    kept = configuration.read_fragment(profile.shipped("kept"), "kept.config")
    assert kept and all(start.get(each.symbol, each).value == each.value for each in kept)
