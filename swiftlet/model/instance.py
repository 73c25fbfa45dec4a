"""Where one installation of swiftlet keeps its things, and the tag that keeps two of them apart."""

from __future__ import annotations

import os

from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ROOT = "/var/lib/swiftlet"
DEFAULT_RUN = "/run/swiftlet"

_SEPARATORS = ",:\\"
"""What the options of an overlay, a part of which both folders are, take for their own."""


class Instance:
    """Absolute paths. tag: "" for the default root, else six hex digits, part of every name in the kernel.

    A value: equal when its fields are. No NamedTuple, because every command loads this and `typing` costs 4 ms.
    """

    __slots__ = ("root", "run", "tag")

    def __init__(self, root: str, run: str, tag: str) -> None:
        self.root = root
        self.run = run
        self.tag = tag

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instance) and (self.root, self.run) == (other.root, other.run)

    def __hash__(self) -> int:
        return hash((self.root, self.run))

    def __repr__(self) -> str:
        return f"Instance(root={self.root!r}, run={self.run!r}, tag={self.tag!r})"

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
    """The instance that SWIFTLET_ROOT and SWIFTLET_RUN name; an empty one is as one that is not set.

    Raises InputError for a folder in which no guest could be started.
    """
    root = _folder("SWIFTLET_ROOT", environment.get("SWIFTLET_ROOT") or DEFAULT_ROOT)
    run = environment.get("SWIFTLET_RUN") or (DEFAULT_RUN if root == DEFAULT_ROOT else f"{root}/run")
    return Instance(root, _folder("SWIFTLET_RUN", run), "" if root == DEFAULT_ROOT else _tag_of(root))


def _folder(variable: str, path: str) -> str:
    """An absolute path, also of a relative one."""
    found = os.path.abspath(path)
    bad = next((each for each in found if each in _SEPARATORS or not each.isprintable()), "")
    if bad:
        hint = f"choose a folder whose path has none of {' '.join(_SEPARATORS)} and can be printed"
        raise InputError(f"{variable} {found!r} holds {bad!r}, which no overlay's options can", hint)
    return found


def _tag_of(root: str) -> str:
    import hashlib

    return hashlib.sha256(root.encode()).hexdigest()[:6]
