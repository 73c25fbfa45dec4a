"""The one seam between the node and the guest kinds: how a Workload and a Rootfs become a Bundle.

A driver is a pure planner with a set of features; the launcher executes what it planned. A new guest kind
is one more driver (and, where it needs another Rootfs, one more module in `image`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from swiftlet.linux.cgroup import Layout
from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.workload import Workload

FEATURES = frozenset(("insert", "pause", "snapshot", "migrate", "balloon", "exec"))
"""What a driver may declare that its guests can do."""


class MachinePlace(NamedTuple):
    """What the node has found for a virtual machine.

    hypervisor: QEMU's own root. kernel: digest. images: paths, the machine's own first. accelerator, why: how QEMU is
    to run, and how that was found. user: a user id of the host's that no other guest has. snapshot: that
    it goes on from, "" for none. counter_khz, mapped: see `qemu.Settings`. initramfs: whether its kernel starts from
    one. preloaded: whether QEMU is preloaded with a file that is attached behind the images. watched: its start is
    looked at from outside (`guest.watch`).
    """

    hypervisor: Rootfs
    kernel: str
    images: tuple[str, ...]
    accelerator: str
    why: str
    user: int
    snapshot: str = ""
    counter_khz: int = 0
    initramfs: bool = False
    mapped: tuple[int, ...] = ()
    preloaded: bool = False
    watched: bool = False


class Place(NamedTuple):
    """What the node has decided and prepared for one guest before it is planned.

    state_dir: absolute. netns: "new", "host" or "fd". volumes: (target, is_folder) in the order of the mount
    descriptors. userns: first host uid of the guest's range, 0 for none. cgroups, cgroup_folder: where its
    control groups go. passwd, group: the texts of the root's account files. seccomp: path of the compiled program.
    machine: for a virtual machine only.
    """

    id: str
    state_dir: str
    netns: str
    volumes: tuple[tuple[str, bool], ...]
    userns: int
    cgroups: Layout
    cgroup_folder: str
    passwd: str
    group: str
    seccomp: str
    machine: MachinePlace | None = None


class Driver(Protocol):
    """A guest kind."""

    @property
    def kind(self) -> str:
        """The name by which a workload asks for it."""

    @property
    def features(self) -> frozenset[str]:
        """A subset of FEATURES."""

    def plan(self, workload: Workload, rootfs: Rootfs, place: Place) -> Bundle:
        """Everything that the launcher needs. Pure. Raises InputError when the workload asks for the impossible."""
