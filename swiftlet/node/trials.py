"""A workload as the checks of a kernel: each kernel is tried with it in a machine of its own (`guest.trial`).

It passes when it ends by itself with code 0; one that publishes ports passes when each of them answers, and when it
then ends as it is told to. What it is made of is that of a guest, but for what belongs to a node: it has no volumes,
and its network is QEMU's own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

import msgspec

from swiftlet.guest import orders, trial
from swiftlet.guest.driver import MachinePlace, Place
from swiftlet.guest.machine import MachineDriver
from swiftlet.image import erofs
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.kernel.trim import Check, Checked
from swiftlet.image.machine import machine_root
from swiftlet.linux.cgroup import Layout
from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.error import HostError, InputError
from swiftlet.model.workload import Workload
from swiftlet.node.machines import LIMITS, NETWORK_SETTINGS

TRACED_SLOWER = 4
"""By so much a machine may take longer while its code is logged, beyond what any was seen to."""

_NOWHERE = Layout({"": "/sys/fs/cgroup"}, ("memory", "cpu", "pids"))
"""What is planned for the host's control groups is not carried out: a trial is bounded by its time."""


def check_of(
    workload: Workload,
    rootfs: Rootfs,
    accounts: tuple[str, str],
    cache: str,
    files: Mapping[str, str],
    seconds: float = trial.DEADLINE_SECONDS,
) -> Check:
    """The checks that a workload is. accounts: the texts of the root's passwd and group. files: guest path -> text.

    Images that are missing are made. Raises InputError for what a trial cannot do, HostError, FullError, StoreError.
    """
    if workload.volumes:
        raise InputError("$.volumes: checks of a kernel run without volumes", "put what they need into a template")
    images = (
        machine_root(cache).path,
        *(erofs.image_of(lower, name, cache).path for lower, name in zip(rootfs.lowers, rootfs.trees, strict=True)),
    )
    bundle = _planned(workload, rootfs, images, accounts)
    ports = tuple(port.guest for port in workload.ports if port.protocol == "tcp")

    def check(kernel: Kernel, *, trace: str = "", words: str = "") -> Checked:
        wanted = trial.Trial(
            kernel=kernel.vmlinux,
            images=images,
            orders=_orders(bundle, {**NETWORK_SETTINGS, **files}),
            ports=ports,
            memory=bundle.machine.memory if bundle.machine else 0,
            trace=trace,
            words=words,
            seconds=seconds * (TRACED_SLOWER if trace else 1),
        )
        try:
            found = trial.run(wanted)
        except OSError as error:
            raise HostError(f"no machine can be started to try a kernel: {error}", "swiftlet doctor") from None
        return Checked(found.passed, found.why, found.boot_ms, found.console)

    return check


def _planned(workload: Workload, rootfs: Rootfs, images: tuple[str, ...], accounts: tuple[str, str]) -> Bundle:
    machine = MachinePlace(rootfs, "", images, "tcg", "code is logged under emulation", 0)
    place = Place(
        id="trial",
        state_dir="",
        netns="fd",
        volumes=(),
        userns=0,
        cgroups=_NOWHERE,
        cgroup_folder="trial",
        passwd=accounts[0],
        group=accounts[1],
        seccomp="",
        machine=machine,
    )
    return MachineDriver().plan(msgspec.structs.replace(workload, kind="vm", network="bridge"), rootfs, place)


def _orders(bundle: Bundle, files: Mapping[str, str]) -> str:
    assert bundle.machine is not None
    entropy = secrets.token_hex(64)
    return orders.start(bundle, bundle.machine, trial.CARD, files, time.time_ns(), entropy, LIMITS)
