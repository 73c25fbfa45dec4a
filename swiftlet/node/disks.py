"""What a worker does for `image build`: a workload's root, its orders, a kernel that fits, and a disk image of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swiftlet.guest import standalone
from swiftlet.image.disk import build, formats, plan
from swiftlet.image.disk.ovf import Appliance
from swiftlet.image.disk.root import make_root
from swiftlet.image.kernel.kept import Kernel, general, kernel_named, values_of
from swiftlet.image.machine import check_layers, machine_tree
from swiftlet.image.tree import materialise
from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.error import InputError, NotFoundError
from swiftlet.model.workload import Workload
from swiftlet.node import hosts
from swiftlet.node.check import workload_of
from swiftlet.node.machines import disk_orders
from swiftlet.node.names import storage_error
from swiftlet.node.signals import signal_number
from swiftlet.store.session import Session

if TYPE_CHECKING:
    from swiftlet.node.pull import Work

_BUILD = "swiftlet kernel build --profile disk"


def image_build(work: Work) -> dict[str, Any]:
    """Build a workload's disk image in the formats that were asked for."""
    asked = work.parameters
    workload = workload_of(asked["workload"])
    if workload.resources.disk:
        raise InputError("$.resources.disk: the disk is the image itself", "--size says how large it is to be")
    _check(asked)
    build.check_programs(asked["firmware"], asked["formats"], asked["size"])
    with Session(work.layout) as session:  # which keeps the cache from being emptied, too
        kernel = kernel_for(work.layout.cache, workload.kernel, asked["firmware"], compressed=asked["compress"])
        rootfs = _rootfs(work, session, workload)
        raw = f"{session.directory}/disk.raw"
        try:
            bundle = _bundle(workload, rootfs)
            work.progress("image", "root", 0, 0)
            found = _raw(work, session.directory, bundle, kernel, raw)
            images = [_image(work, each, raw, workload, found) for each in sorted(asked["formats"], key=_raw_last)]
        except OSError as error:
            raise storage_error(error, str(error.filename2 or error.filename or session.directory)) from None
    order = list(asked["formats"])
    return {"images": sorted(images, key=lambda image: order.index(image["format"])), "kernel": kernel.digest}


def _check(asked: dict[str, Any]) -> None:
    formats.check_formats(asked["formats"])
    for member, choices in (("firmware", plan.FIRMWARE), ("at_end", tuple(standalone.AT_END))):
        words = asked[member] if member == "firmware" else (asked[member],)
        for word in words:
            if word not in choices:
                raise InputError(
                    f"--{member.replace('_', '-')}: there is no {word!r}", f"there are {', '.join(choices)}"
                )
    if not asked["formats"] or not asked["firmware"]:
        raise InputError("image build: no format, or no firmware", "leave the option out for the usual ones")
    folder = os.path.dirname(asked["output"])
    if not os.path.isabs(folder) or not os.path.isdir(folder):
        raise InputError(f"-o: {folder or asked['output']} is no folder of this host", f"mkdir {folder}")


def kernel_for(cache: str, name: str, firmware: Sequence[str], *, compressed: bool = False) -> Kernel:
    """A kernel by its profile or digest, or the newest that starts from a disk.

    Raises NotFoundError, InputError for one that does not.
    """
    if not name:
        found = next((kernel for kernel in general(cache) if not _lacking(kernel, firmware, compressed)), None)
        if found is None:
            raise NotFoundError("no kernel that starts from a disk has been built here", f"`{_BUILD}` builds one")
        return found
    kernel = kernel_named(cache, name)
    if lacking := _lacking(kernel, firmware, compressed):
        told = f"kernel {name} does not start from a disk here: it lacks {', '.join(lacking)}"
        raise InputError(f"--kernel: {told}", f"`{_BUILD}` builds one that does")
    return kernel


def _lacking(kernel: Kernel, firmware: Sequence[str], compressed: bool) -> list[str]:
    try:
        return plan.lacking(values_of(kernel), firmware, compressed=compressed)
    except OSError:
        return ["its configuration"]


def _rootfs(work: Work, session: Session, workload: Workload) -> Rootfs:
    resolver, _ = work.resolver(session)
    rootfs = materialise(session, resolver.stack(list(workload.templates)))
    check_layers(rootfs)
    return rootfs


def _bundle(workload: Workload, rootfs: Rootfs) -> Bundle:
    return standalone.plan(workload, rootfs, _text(rootfs, "etc/passwd"), _text(rootfs, "etc/group"))


def _text(rootfs: Rootfs, path: str) -> str:
    """A file of a root's topmost tree, where its composition lies."""
    try:
        with open(f"{rootfs.lowers[0]}/{path}", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _raw(work: Work, folder: str, bundle: Bundle, kernel: Kernel, path: str) -> plan.Disk:
    asked = work.parameters
    files = hosts.files(bundle.hostname, "", "")
    del files["/etc/resolv.conf"]
    orders = disk_orders(
        bundle,
        files,
        data=bool(asked["size"]),
        at_end=standalone.AT_END[asked["at_end"]],
        at_button=signal_number(bundle.workload.stop_signal),
    )
    tree = f"{folder}/root"
    make_root(tree, machine_tree(work.layout.cache), bundle.rootfs.lowers, orders)
    work.progress("image", "disk", 0, 0)
    image = build.Asked(tree, kernel.bzimage, tuple(asked["firmware"]), asked["size"], asked["compress"])
    return build.build(image, path, folder)


def _raw_last(format_: str) -> bool:
    """The raw image is moved away when the others have been made of it."""
    return format_ == "raw"


def _image(work: Work, format_: str, raw: str, workload: Workload, found: plan.Disk) -> dict[str, Any]:
    asked = work.parameters
    work.progress("image", format_, 0, 0)
    target = f"{asked['output']}.{format_}"
    made = raw
    if format_ != "raw":
        made = f"{raw}.{format_}"
        formats.convert(raw, format_, made, _appliance(asked, workload, found))
    formats.deliver(made, target)
    taken = os.stat(target)
    with open(target, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "format": format_,
        "path": target,
        "bytes": taken.st_size,
        "disk_bytes": taken.st_blocks * 512,
        "digest": digest,
    }


def _appliance(asked: dict[str, Any], workload: Workload, found: plan.Disk) -> Appliance:
    memory, processors = standalone.hardware_of(workload)
    name = os.path.basename(asked["output"])
    return Appliance(
        name=name,
        about=f"{', '.join(workload.templates)}, made by swiftlet",
        memory=memory,
        processors=processors,
        disk=f"{name}.vmdk",
        disk_bytes=0,
        capacity=found.sectors * 512,
        efi="bios" not in asked["firmware"],
    )
