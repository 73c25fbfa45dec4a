"""Bundle: Workload + Rootfs + Allocation, serialisable; all that a launcher needs, without the daemon.

The launcher reads a Bundle as plain JSON (it imports the standard library and `swiftlet.linux` only), so
every field is a string, a number, a boolean, a list or a dict.
"""

from __future__ import annotations

import msgspec

from swiftlet.model.workload import Workload


class Rootfs(msgspec.Struct, frozen=True):
    """A closure stack made usable.

    lowers: absolute paths of link trees, topmost first; trees: their names in the store.
    """

    lowers: tuple[str, ...]
    trees: tuple[str, ...]
    env: dict[str, str] = {}
    entrypoint: tuple[str, ...] = ()


class CgroupPlan(msgspec.Struct, frozen=True):
    """paths: absolute cgroup folders to make, keyed by hierarchy ("" is v2, else a v1 list such as "cpu,cpuacct").

    writes: (absolute file, value) pairs done in order before anything runs in the group.
    """

    paths: dict[str, str]
    writes: tuple[tuple[str, str], ...] = ()


class Hypervisor(msgspec.Struct, frozen=True):
    """The host's process of a virtual machine, in the words in which a Bundle describes a container's.

    Where a field is in both, this one is what the launcher does, and the bundle's is what happens in the guest.
    rootfs: QEMU and the libraries that it loads. uid: a user of the host's that no other guest has.
    """

    rootfs: Rootfs
    argv: tuple[str, ...]
    uid: int
    gid: int
    volumes: tuple[tuple[str, bool], ...]
    env: dict[str, str] = {}
    cwd: str = "/"
    groups: tuple[int, ...] = ()
    capabilities: tuple[int, ...] = ()
    rlimits: dict[str, tuple[int, int]] = {}
    tmpfs: tuple[str, ...] = ()
    seccomp: str = ""
    netns: str = "new"
    read_only: bool = True
    volatile: bool = False
    userns: int = 0
    tty: bool = False


FIRST_DESCRIPTOR = 10
"""The number of the first descriptor that QEMU inherits besides standard input, output and error."""


class Machine(msgspec.Struct, frozen=True):
    """A virtual machine around a workload.

    accelerator: "kvm" or "tcg" (emulation), why: how that was found. type: QEMU's machine type. kernel: its digest.
    images: paths of the root's images on the host, the machine's own first. descriptors: what QEMU inherits besides
    standard input, output and error, in the order of their numbers from `first` on. shares: targets in the
    guest of the volumes that are served to it, in the order of their tags. snapshot: of which it is a clone. mapped:
    its images but the first are mapped from the host's memory, not read as disks. disk: bytes of one for what is
    written to the root, 0 for none.
    """

    process: Hypervisor
    accelerator: str
    why: str
    type: str
    kernel: str
    memory: int
    processors: int
    images: tuple[str, ...]
    descriptors: tuple[str, ...]
    shares: tuple[str, ...] = ()
    snapshot: str = ""
    mapped: bool = False
    disk: int = 0
    first: int = FIRST_DESCRIPTOR


class Bundle(msgspec.Struct, frozen=True):
    """One guest, ready to be launched.

    state_dir: the guest's folder in the store's `guests/`; holds upper, work, logs and exit.json.
    netns: "new" an empty namespace, "host", or "fd" (a descriptor is sent along).
    volumes: (target, is_directory) in the order of the mount descriptors that are sent along.
    capabilities: numbers that stay in the bounding set. rlimits: name without RLIMIT_ -> (soft, hard), -1 unlimited.
    volatile: the guest's own root is removed with it, so what is written there need not survive a power failure.
    userns: first host uid of a range of 65,536 mapped to the guest's 0, or 0 for no user namespace.
    machine: the virtual machine that the guest runs in, None where it shares the host's kernel.
    """

    id: str
    workload: Workload
    rootfs: Rootfs
    state_dir: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    hostname: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    cgroup: CgroupPlan
    netns: str
    volumes: tuple[tuple[str, bool], ...] = ()
    tmpfs: tuple[str, ...] = ()
    capabilities: tuple[int, ...] = ()
    rlimits: dict[str, tuple[int, int]] = {}
    seccomp: str = ""
    read_only: bool = False
    volatile: bool = False
    tty: bool = False
    userns: int = 0
    shm_bytes: int = 64 << 20
    machine: Machine | None = None
