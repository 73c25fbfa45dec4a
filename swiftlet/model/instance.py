"""Where one installation of swiftlet keeps its things, and the tag that keeps two of them apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

DEFAULT_ROOT = "/var/lib/swiftlet"
DEFAULT_RUN = "/run/swiftlet"


class Instance(NamedTuple):
    """Absolute paths. tag: "" for the default root, else six hex digits, part of every name in the kernel."""

    root: str
    run: str
    tag: str

    @property
    def socket(self) -> str:
        """Where the daemon listens."""
        return f"{self.run}/node.sock"

    @property
    def launcher_socket(self) -> str:
        """Where the launcher listens."""
        return f"{self.run}/launcher.sock"

    @property
    def cgroup(self) -> str:
        """The folder of all guests' cgroups below each hierarchy's root."""
        return f"swiftlet-{self.tag}" if self.tag else "swiftlet"

    @property
    def bridge(self) -> str:
        """The bridge's interface name (15 bytes at most)."""
        return f"swl{self.tag}" if self.tag else "swiftlet0"

    @property
    def table(self) -> str:
        """The nftables table's name."""
        return f"swiftlet_{self.tag}" if self.tag else "swiftlet"


def instance_of(environment: Mapping[str, str] = os.environ) -> Instance:
    """The instance that SWIFTLET_ROOT and SWIFTLET_RUN name."""
    root = os.path.abspath(environment.get("SWIFTLET_ROOT") or DEFAULT_ROOT)
    run = environment.get("SWIFTLET_RUN") or (DEFAULT_RUN if root == DEFAULT_ROOT else f"{root}/run")
    tag = "" if root == DEFAULT_ROOT else hashlib.sha256(root.encode()).hexdigest()[:6]
    return Instance(root, os.path.abspath(run), tag)
