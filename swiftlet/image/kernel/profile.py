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
        Profile("paper", "what the MicroswiftOS paper's appendix A leaves", ("base", "net", "paper")),
    )
}


def profile_named(name: str) -> Profile:
    """A profile by its name. Raises NotFoundError that lists those there are."""
    if name not in PROFILES:
        raise NotFoundError(f"no kernel profile {name}", f"there are: {', '.join(PROFILES)}")
    return PROFILES[name]


def requests_of(profile: Profile, folder: str = FRAGMENTS) -> dict[str, Wanted]:
    """What a profile asks for, by symbol. Raises InputError for a fragment that is none, OSError."""
    texts = []
    for name in profile.fragments:
        with open(f"{folder}/{name}.config") as file:
            texts.append((f"{name}.config", file.read()))
    return merged(texts)
