"""A workload on a disk image, for hosts that know nothing of it. Pure: planned once, never launched.

What happens inside is a container's plan, as in a virtual machine of ours (`machine`); around it is nothing of ours.
"""

from __future__ import annotations

import math

import msgspec

from swiftlet.guest.container import ContainerDriver
from swiftlet.guest.driver import Place
from swiftlet.guest.machine import memory_of
from swiftlet.linux.cgroup import Layout
from swiftlet.model.bundle import Bundle, CgroupPlan, Rootfs
from swiftlet.model.error import InputError
from swiftlet.model.workload import Resources, Workload

AT_END = {"off": 0x4321FEDC, "restart": 0x01234567, "stay": 0xCDEF0123}
"""What the machine does when its workload has ended -> the number by which reboot(2) knows it."""

HOSTNAME = "swiftlet"

_NO_HOST = Layout({"": "/sys/fs/cgroup"})
"""A container's plan names control groups, of which a machine elsewhere has none."""


def plan(workload: Workload, rootfs: Rootfs, passwd: str, group: str) -> Bundle:
    """What runs in the machine, and as whom. Raises InputError for what an image cannot have."""
    _refuse(workload)
    place = Place(
        id=workload.name or HOSTNAME,
        state_dir="/",
        netns="new",
        volumes=(),
        userns=0,
        cgroups=_NO_HOST,
        cgroup_folder="",
        passwd=passwd,
        group=group,
        seccomp="",
    )
    unlimited = msgspec.structs.replace(workload, resources=Resources(pids=0))
    inside = ContainerDriver().plan(unlimited, rootfs, place)
    return msgspec.structs.replace(inside, workload=workload, cgroup=CgroupPlan({}))


def hardware_of(workload: Workload) -> tuple[int, int]:
    """Bytes of memory and processors that a machine should have for a workload. Raises InputError."""
    return memory_of(workload), max(1, math.ceil(workload.resources.cpus))


def _refuse(workload: Workload) -> None:
    if workload.volumes:
        raise InputError(
            f"$.volumes: {workload.volumes[0].source} is a place of this host, which a disk image leaves",
            "put the files into a template (`files:`), or add room for files of its own with --size",
        )
    if workload.network != "bridge":
        raise InputError(
            f"$.network: a disk image has whatever card its host gives it, not {workload.network!r}",
            "leave --network out, and give the machine no card where it should have none",
        )
    if workload.tty or workload.interactive:
        raise InputError("$.tty: nobody sits at a disk image's terminal", "leave --tty and -i out")
    if workload.userns:
        raise InputError("$.userns: a machine shares no users with the host", "leave --userns out: it is apart anyway")
