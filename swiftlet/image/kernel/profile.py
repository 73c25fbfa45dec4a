"""Profiles: kernels made by hand, each a list of fragments (swiftlet/kernels/*.config) over the tree's tinyconfig.

They are what `kernel trim` is compared with, and what runs where nothing was derived.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from swiftlet.image.kernel.configuration import Wanted, merged
from swiftlet.model.error import NotFoundError

FRAGMENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "kernels")


class Profile(NamedTuple):
    """fragments: names without their ending, in the order in which they are merged."""

    name: str
    about: str
    fragments: tuple[str, ...]


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("micro", "one process and its files, no network", ("base",)),
        Profile("net", "micro with the internet protocols over one card", ("base", "net")),
        Profile("server", "net with disks, control groups and namespaces", ("base", "net", "server")),
        Profile("pmem", "server with its root mapped from the host's memory", ("base", "net", "server", "pmem")),
        Profile("toolchain", "server for compilers, debuggers and shells", ("base", "net", "server", "toolchain")),
        Profile("docker", "server that is itself a host of containers", ("base", "net", "server", "docker")),
        Profile(
            "full",
            "what distributions have, to derive smaller ones from",
            ("base", "net", "server", "toolchain", "docker", "full"),
        ),
        Profile("paper", "what the MicroswiftOS paper's appendix A leaves", ("base", "net", "paper")),
        Profile("disk", "server for disk images under any firmware", ("base", "net", "server", "disk")),
    )
}


def profile_named(name: str) -> Profile:
    """A profile by its name. Raises NotFoundError that lists those there are."""
    if name not in PROFILES:
        raise NotFoundError(f"no kernel profile {name}", f"there are: {', '.join(PROFILES)}")
    return PROFILES[name]


def texts_of(profile: Profile, folder: str = FRAGMENTS) -> list[tuple[str, str]]:
    """A profile's fragments as (name, text), in their order. Raises OSError."""
    return [(f"{name}.config", shipped(name, folder)) for name in profile.fragments]


def shipped(name: str, folder: str = FRAGMENTS) -> str:
    """The text of a fragment that comes with swiftlet, with or without its ending. Raises NotFoundError."""
    try:
        with open(f"{folder}/{os.path.basename(name).removesuffix('.config')}.config") as file:
            return file.read()
    except FileNotFoundError:
        there = sorted(each.removesuffix(".config") for each in os.listdir(folder) if each.endswith(".config"))
        hint = f"there are: {', '.join(there)}; a file of yours is given by its path, as ./mine.config"
        raise NotFoundError(f"no kernel fragment {name}", hint) from None


def requests_of(profile: Profile, folder: str = FRAGMENTS) -> dict[str, Wanted]:
    """What a profile asks for, by symbol. Raises InputError for a fragment that is none, OSError."""
    return merged(texts_of(profile, folder))
