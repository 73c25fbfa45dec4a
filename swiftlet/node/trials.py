"""Workloads, and the gate, as the checks of a kernel: each kernel is tried with them in machines of their own.

A workload passes when it ends by itself with code 0; one that publishes ports passes when each of them answers, and
when it then ends as it is told to. What it is made of is that of a guest, but for what belongs to a node: its volumes
are copied into an image, and its network is QEMU's own. The gate (`swiftlet guest check`) passes when every check of
its program does, judged as there. How a machine is run and watched is `guest.trial`'s.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from swiftlet.gate import program as gate
from swiftlet.gate.verdict import COMPARED, MEASURED, Circumstances, judge, said_by
from swiftlet.guest import orders, trial
from swiftlet.guest.driver import MachinePlace, Place
from swiftlet.guest.machine import MachineDriver
from swiftlet.image import erofs
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.kernel.trim import Check, Checked
from swiftlet.image.machine import check_layers, machine_root
from swiftlet.linux.cgroup import Layout
from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.error import HostError, InputError
from swiftlet.model.workload import Port, Workload
from swiftlet.node.machines import LIMITS, NETWORK_SETTINGS, counter_khz
from swiftlet.node.volumecopy import copy_volume

TRACED_SLOWER = 4
"""By so much a machine may take longer while its code is logged, beyond what any was seen to."""

GATE_SECONDS = 180.0
"""The gate's program measures and computes; emulated on a busy host it took 25 s."""

ADDRESS = trial.CARD.address
"""Of every trial's machine, on QEMU's own network."""

_NOWHERE = Layout({"": "/sys/fs/cgroup"}, ("memory", "cpu", "pids"))
"""What is planned for the host's control groups is not carried out: a trial is bounded by its time."""

_HEAD_ENDS = b"\r\n\r\n"

_VOLUMES = "volumes-"
"""Begins the name of a copy of volumes; those of the store's trees are digests."""


class Tried(NamedTuple):
    """A workload that is ready to be tried. images: paths. files: guest path -> text. seconds: it may take."""

    bundle: Bundle
    images: tuple[str, ...]
    files: Mapping[str, str]
    ports: tuple[int, ...]
    seconds: float

    def on(self, kernel: Kernel, trace: str, words: str, paths: tuple[str, ...], *, ends: bool) -> trial.Verdict:
        """Try a kernel. trace: a folder for one more log, "" for none; paths, ends: see `trial.Trial`."""
        wanted = trial.Trial(
            kernel=kernel.vmlinux,
            images=self.images,
            orders=_orders(self.bundle, {**NETWORK_SETTINGS, **self.files}),
            ports=self.ports,
            paths=paths,
            ends=ends,
            memory=self.bundle.machine.memory if self.bundle.machine else 0,
            trace=f"{trace}/{len(os.listdir(trace))}.log" if trace else "",
            words=words,
            counter_khz=counter_khz(),
            seconds=self.seconds * (TRACED_SLOWER if trace else 1),
        )
        try:
            return trial.run(wanted)
        except OSError as error:
            raise HostError(f"no machine can be started to try a kernel: {error}", "swiftlet doctor") from None


def tried(
    workload: Workload,
    rootfs: Rootfs,
    accounts: tuple[str, str],
    cache: str,
    files: Mapping[str, str],
    folder: str,
    seconds: float = trial.DEADLINE_SECONDS,
) -> Tried:
    """What trials of a workload are made of. accounts: the texts of the root's passwd and group.

    folder: for the image of a copy of volumes, which is nobody else's and is to go with the folder. Other images
    that are missing are made in the cache. Raises InputError for what a trial cannot do, HostError, FullError,
    StoreError.
    """
    if workload.volumes:
        raise InputError("$.volumes: a trial has none", "put what it needs into its root, as `with_volumes` does")
    check_layers(rootfs)
    images = (
        machine_root(cache).path,
        *(_image(lower, name, cache, folder) for lower, name in zip(rootfs.lowers, rootfs.trees, strict=True)),
    )
    ports = tuple(port.guest for port in workload.ports if port.protocol == "tcp")
    return Tried(_planned(workload, rootfs, images, accounts), images, files, ports, seconds)


def _image(tree: str, name: str, cache: str, folder: str) -> str:
    return erofs.image_of(tree, name, folder if name.startswith(_VOLUMES) else cache).path


def check_of(found: Tried) -> Check:
    """The check that a workload is."""

    def check(kernel: Kernel, *, trace: str = "", words: str = "") -> Checked:
        said = found.on(kernel, trace, words, ("/",), ends=False)
        return Checked(said.passed, said.why, said.boot_ms, said.console)

    return check


def gate_workload(program: str) -> Workload:
    """The gate as a workload: its program alone, which serves its page and ends when it has been asked to."""
    command = (program, "run", "--serve", str(gate.PORT))
    return Workload(templates=(f"host:{program}",), command=command, ports=(Port(gate.PORT, 0, "127.0.0.1"),))


def gate_of(program: str, found: Tried) -> Check:
    """The check that the gate is. program: path, as of `gate.program`. Raises HostError when it does not run here."""
    names = gate.host_lines(program, "list")
    compared = ",".join(name for name in names if name.partition(".")[0] in (COMPARED, MEASURED))
    host = said_by(gate.host_lines(program, "run", "--only", compared))
    page = gate.host_page(program)

    def check(kernel: Kernel, *, trace: str = "", words: str = "") -> Checked:
        began = time.time()
        said = found.on(kernel, trace, words, ("/", "/quit"), ends=True)
        web = "" if said.answer.partition(_HEAD_ENDS)[2] == page else "the page did not come as it should be"
        why = said.why.partition("; the last of its console")[0]
        seen = Circumstances(began, time.time(), web, why)
        failed = [each for each in judge(names, said_by(said.output.splitlines()), host, seen) if not each.ok]
        told = "; ".join(f"{each.check}: {each.problem}" for each in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        return Checked(not failed, told + more, said.boot_ms, said.console)

    return check


def all_of(checks: Sequence[tuple[str, Check]]) -> Check:
    """All checks as one, each with its name; what is timed (`words`) is the first alone."""

    def check(kernel: Kernel, *, trace: str = "", words: str = "") -> Checked:
        first: Checked | None = None
        for name, each in checks[:1] if words else checks:
            said = each(kernel, trace=trace, words=words)
            if not said.passed:
                return said._replace(why=f"{name}: {said.why}")
            first = first or said
        assert first is not None
        return first

    return check


def with_volumes(workload: Workload, rootfs: Rootfs, folder: str) -> tuple[Workload, Rootfs]:
    """A workload without its volumes, and its root with a copy of them on top, made in `folder`.

    Owners and modes are kept. Raises InputError for what cannot be copied.
    """
    if not workload.volumes:
        return workload, rootfs
    os.mkdir(folder, 0o755)
    for place, volume in enumerate(workload.volumes):
        try:
            copy_volume(volume, folder)
        except OSError as error:
            raise InputError(f"$.volumes[{place}]: {volume.source} cannot be copied for a trial: {error}") from None
    name = f"{_VOLUMES}{digest_of(folder)[:32]}"
    layered = msgspec.structs.replace(rootfs, lowers=(folder, *rootfs.lowers), trees=(name, *rootfs.trees))
    return msgspec.structs.replace(workload, volumes=()), layered


def digest_of(folder: str) -> str:
    """Of names, modes, owners and contents below a folder. Raises OSError."""
    digest = hashlib.sha256()
    for path, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            whole = f"{path}/{name}"
            found = os.lstat(whole)
            about = f"{whole[len(folder) :]}\0{found.st_mode:o}\0{found.st_uid}:{found.st_gid}\0"
            digest.update(about.encode(errors="surrogateescape"))
            if os.path.islink(whole):
                digest.update(os.readlink(whole).encode(errors="surrogateescape"))
            elif name in names:
                with open(whole, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


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
    apart = msgspec.structs.replace(workload, kind="vm", network="bridge", tty=False, interactive=False, userns=False)
    return MachineDriver().plan(apart, rootfs, place)


def _orders(bundle: Bundle, files: Mapping[str, str]) -> str:
    assert bundle.machine is not None
    entropy = secrets.token_hex(64)
    return orders.start(bundle, bundle.machine, trial.CARD, files, time.time_ns(), entropy, LIMITS)
