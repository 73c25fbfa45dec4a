"""What a worker does for `kernel trim`: workloads and the gate as checks, a kernel derived from them, and how it
compares with a profile made by hand.

The state is CACHE/trim/KEY, where KEY is of all that decides what comes out: the same command goes on where it was.
"""

from __future__ import annotations

import functools
import hashlib
import os
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from swiftlet.gate.options import NEEDS
from swiftlet.gate.program import program
from swiftlet.guest import trial
from swiftlet.image.kernel import build, configuration, derived, footprint, kept, profile, trim, wished
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.kernel.make import Make
from swiftlet.image.kernel.source import DEBIAN, Source, source_at
from swiftlet.image.kernel.trim import Check
from swiftlet.image.tree import materialise
from swiftlet.model.error import InputError
from swiftlet.model.workload import Workload
from swiftlet.node import hosts, trials
from swiftlet.node.check import workload_of
from swiftlet.node.kernels import requested
from swiftlet.store.guard import Guard
from swiftlet.store.session import Session

if TYPE_CHECKING:
    from swiftlet.node.pull import Work

KEPT = "kept"
"""The fragment of what stays whatever runs."""

KNOWN = "net"
"""The smallest profile with a network: what it has is tried away last, and so is what the gate is known to need."""

SERVED = "# A volume of this host's is served to the guest.\nCONFIG_FUSE_FS=y\nCONFIG_VIRTIO_FS=y\n"
"""A trial has a copy of the volumes and no server of them, so what that takes is kept where there are any."""

WRITTEN = "# What the guest writes is on a disk.\nCONFIG_EXT4_FS=y\n"
"""A trial's is in its memory."""

STARTS = 3
"""How often each kernel of a comparison is started, in turn."""


def kernel_trim(work: Work) -> dict[str, Any]:
    """Derive a kernel and tell what it came to."""
    asked = work.parameters
    name = kept.checked_name(asked["name"])
    workloads = [workload_of(each) for each in asked["workloads"]]
    if not workloads and not asked["gate"]:
        raise InputError("kernel trim: no checks", "give --workload FILE, --gate, or both")
    if asked["budget"] < 2:
        raise InputError("--budget: fewer than 2 kernels derive nothing", "12 are usual; the full one is one of them")
    trial.check_programs()
    compared = profile.profile_named(asked["compare"])
    _, needed = requested(asked["profile"], asked["fragments"])
    cache = work.layout.cache
    with Guard(work.layout) as guard:  # so that nobody empties the cache meanwhile
        checks, about = _checks(work, workloads, guard.directory)
        path = asked["source"] or DEBIAN
        source = source_at(path, cache, lambda: work.progress("unpack", os.path.basename(path), 0, 0))
        start = _start(work, source, needed, f"{guard.directory}/start")
        stays = _kept(workloads)
        check = trials.all_of(checks)
        state = f"{cache}/trim/{trim.key_of(source, start, stays, about)[:16]}"
        os.makedirs(state, exist_ok=True)
        waiting = functools.partial(work.progress, "wait", "another derivation from these checks runs", 0, 0)
        with kept.locked(state, waiting=waiting):
            last = _last(source, f"{state}/known")
            result = trim.trim(
                source, start, stays, check, cache, state,
                last=last, name=name, budget=asked["budget"], about=about, checks=[each for each, _ in checks],
                progress=work.progress,
            )  # fmt: skip
        return {"derived": {**_told(result), "compared": _compared(work, source, result, compared, check)}}


def _start(work: Work, source: Source, needed: list[Wanted], folder: str) -> list[Wanted]:
    """What is needed, and what can be had besides of the configuration that is named, if one is.

    folder: where the tree's tools judge it.
    """
    given = work.parameters["wished"]
    if given is None:
        return needed
    if given["text"] is None and given["name"] != wished.DEFCONFIG:
        raise InputError(f"--from {given['name']}: no text of it", f"only {wished.DEFCONFIG} needs none")
    text = wished.text_of_tree(source) if given["text"] is None else given["text"]
    return wished.over(source, wished.builtin(text, given["name"]), needed, folder, work.progress)


def _kept(workloads: Sequence[Workload]) -> list[Wanted]:
    texts = [(f"{KEPT}.config", profile.shipped(KEPT))]
    if any(workload.volumes for workload in workloads):
        texts.append(("volumes", SERVED))
    if any(workload.resources.disk for workload in workloads):
        texts.append(("disk", WRITTEN))
    return list(configuration.merged(texts).values())


def _last(source: Source, folder: str) -> set[str]:
    """What guests are known to need. folder: where the profile is configured. Raises KernelError."""
    requests = profile.requests_of(profile.profile_named(KNOWN)).values()
    values = configuration.read(build.settled(Make(source, folder), list(requests)))
    return {symbol for symbol, value in values.items() if value == "y"}.union(*NEEDS.values())


def _checks(work: Work, workloads: Sequence[Workload], folder: str) -> tuple[list[tuple[str, Check]], str]:
    """The checks with their names, and all that they are made of as a text. folder: see `_tried`."""
    found: list[tuple[str, Check]] = []
    about: list[str] = []
    for place, workload in enumerate(workloads):
        name = workload.name or f"workload {place + 1}"
        tried, trees = _tried(work, workload, f"{folder}/{place}")
        found.append((name, trials.check_of(tried)))
        about += [msgspec.json.encode(msgspec.structs.replace(workload, volumes=())).decode(), *trees]
    if work.parameters["gate"]:
        work.progress("compile", "the gate's checks", 0, 0)
        path = program(work.layout.cache)
        tried, trees = _tried(work, trials.gate_workload(path), folder)
        found.append(("gate", trials.gate_of(path, tried._replace(seconds=trials.GATE_SECONDS))))
        about += ["gate", *trees]
    return found, hashlib.sha256("\0".join(about).encode()).hexdigest()


def _tried(work: Work, workload: Workload, folder: str) -> tuple[trials.Tried, tuple[str, ...]]:
    """A workload that is ready to be tried, and the names of its root's trees.

    folder: for the image of its volumes, which is there for as long as kernels are tried with it.
    """
    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        rootfs = materialise(session, resolver.stack(list(workload.templates)))
        work.progress("image", ", ".join(workload.templates), 0, 0)
        accounts = _text(rootfs.lowers[0], "etc/passwd"), _text(rootfs.lowers[0], "etc/group")
        plain, layered = trials.with_volumes(workload, rootfs, f"{session.directory}/volumes")
        files = hosts.files(workload.hostname or "trial", trials.ADDRESS, "")
        return trials.tried(plain, layered, accounts, work.layout.cache, files, folder), layered.trees


def _text(tree: str, path: str) -> str:
    """A file of a root's topmost tree, where its composition lies."""
    try:
        with open(f"{tree}/{path}", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _told(result: derived.Result) -> dict[str, Any]:
    return {
        "kernel": result.kernel.told(),
        "full": result.full.told(),
        "complete": result.complete,
        "kept": len(result.options),
        "dropped": len(result.dropped),
        "runs": [{**run._asdict(), "off": len(run.off)} for run in result.runs],
        "counts": dict(result.counts),
    }


def _compared(
    work: Work, source: Source, result: derived.Result, by_hand: profile.Profile, check: Check
) -> dict[str, Any]:
    """The derived kernel beside one of a profile: sizes, starts in turn, and what only the derived one has."""
    requests = profile.requests_of(by_hand).values()
    other = build.build(source, requests, work.layout.cache, work.progress, name=by_hand.name)
    starts: list[tuple[float, float]] = []
    for turn in range(STARTS):
        work.progress("start", f"both kernels, {turn + 1} of {STARTS} times", 0, 0)
        starts.append((check(result.kernel, words="quiet").boot_ms, check(other, words="quiet").boot_ms))
    return {
        "profile": by_hand.name,
        "kernel": other.told(),
        "boot_ms": statistics.median(first for first, _ in starts),
        "profile_boot_ms": statistics.median(second for _, second in starts),
        "only_derived": _only(result.kernel, other),
    }


def _only(kernel: Kernel, other: Kernel) -> list[dict[str, Any]]:
    """What a kernel has and another has not, the largest first; bytes None where it has no objects of its own."""
    values, others = kept.values_of(kernel), kept.values_of(other)
    objects = footprint.read(kernel.folder) or {}
    costs = {symbol: footprint.cost_of(symbol, objects, values) for symbol in values.keys() - others.keys()}
    rows = [{"symbol": symbol, "bytes": cost.bytes if cost else None} for symbol, cost in sorted(costs.items())]
    return sorted(rows, key=lambda row: -(row["bytes"] or 0))
