"""Bytes of whole guests: `python -m bench.sizes [--json] [--out FOLDER] [--root FOLDER] [--rounds N] [--only NAMES]`.

Of each guest, its kernel and its root images as they are used (vmlinux; EROFS, uncompressed) and as they can be stored
and still be started (bzImage; EROFS, compressed). Every form is started by `swiftlet run --as vm`, in turn, so that
what is small is known to start, and what that costs is known too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from bench import suite
from bench.installation import Installation, installation
from bench.launcher import TREE
from bench.report import Report, machine, median
from swiftlet.image import erofs
from swiftlet.image.erofs import Image
from swiftlet.image.kernel import build, profile, source
from swiftlet.image.kernel.build import Kernel
from swiftlet.image.machine import machine_root

ROOT = f"{TREE}/.cache/sizes"
KERNELS = f"{TREE}/.cache"
"""A cache of kernels, which tests share."""

ROUNDS = 3


class Guest(NamedTuple):
    """What is measured. limit: bytes that it may take as stored, 0: none. words: further options of `swiftlet run`."""

    name: str
    profile: str
    template: str
    limit: int
    command: tuple[str, ...]
    words: tuple[str, ...] = ()


GUESTS = (
    Guest("hello", "micro", "busybox", 5_000_000, ("busybox", "echo", "hello"), ("-m", "64M", "--network", "none")),
    Guest("python", "server", "python@3.11", 35_000_000, ("python3", "-c", "print('hello')")),
    Guest("toolchain", "toolchain", "toolchain", 280_000_000, ("gcc", "--version"), ("-m", "1G")),
    Guest("docker", "docker", "docker", 0, ("dockerd", "--version"), ("-m", "1G")),
)

PLAIN, PACKED = "plain", "packed"
FORMS = {"used": (PLAIN, PLAIN), "compressed_root": (PLAIN, PACKED), "stored": (PACKED, PACKED)}
"""Form -> which kernel and which images it has."""


class Lab(NamedTuple):
    """A guest that can be started in every form. kernels: digest by which each is chosen. images: the workload's."""

    guest: Guest
    kernel: Kernel
    kernels: dict[str, str]
    images: tuple[Image, ...]
    own_bytes: int


def prepare(place: Installation, guest: Guest) -> Lab:
    """Build or find the kernel, resolve the template, and make images of both kinds. Raises OSError."""
    requests = profile.requests_of(profile.profile_named(guest.profile)).values()
    kernel = build.build(source.source_at(source.DEBIAN, KERNELS), requests, KERNELS, name=guest.profile)
    kernels = _forms_of(place, kernel)
    made = place.start("--as", "vm", "--kernel", kernels[PLAIN], *guest.words, "-t", guest.template, "--", "/none")
    bundle = place.bundle(made.id)
    place.remove(made.id)
    images = []
    for lower, name in zip(bundle.rootfs.lowers, bundle.rootfs.trees, strict=True):
        image = erofs.image_of(lower, name, place.cache)
        _pack(lower, image.path)
        images.append(image)
    return Lab(guest, kernel, kernels, tuple(images), machine_root(place.cache).bytes)


def _forms_of(place: Installation, kernel: Kernel) -> dict[str, str]:
    """The kernel under its own digest, and under another one with its bzImage in vmlinux's place."""
    folder = f"{place.cache}/kernels"
    os.makedirs(folder, exist_ok=True)
    other = hashlib.sha256(f"packed {kernel.digest}".encode()).hexdigest()
    for digest in (kernel.digest, other):
        path = f"{folder}/{digest}"
        if os.path.islink(path):  # as another suite leaves it
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(kernel.folder, path)
    shutil.copyfile(kernel.bzimage, f"{folder}/{other}/vmlinux")
    return {PLAIN: kernel.digest, PACKED: other}


def _pack(tree: str, path: str) -> None:
    """Make the compressed image of a tree beside the one that is used."""
    if not os.path.exists(f"{path}.{PACKED}"):
        with open(f"{path}.new", "wb"):
            pass
        erofs.write_image(tree, f"{path}.new", compressed=True)
        os.rename(f"{path}.new", f"{path}.{PACKED}")
    if not os.path.exists(f"{path}.{PLAIN}"):
        os.link(path, f"{path}.{PLAIN}")


def choose(lab: Lab, kind: str) -> None:
    """Put images of a kind where `swiftlet run` looks for them, with the record that says that they are whole."""
    for image in lab.images:
        path = image.path
        os.unlink(path)
        os.link(f"{path}.{kind}", path)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = image.bytes if kind == PLAIN else os.stat(path).st_size
        with open(f"{path.removesuffix('.erofs')}.json", "w") as record:
            json.dump({"digest": digest, "bytes": size, "stamp": []}, record)


def start(place: Installation, lab: Lab, kernel: str) -> tuple[float, str]:
    """Run the guest's command in a machine: milliseconds of the whole command, and what it wrote."""
    guest = lab.guest
    words = ["--rm", "--as", "vm", "--kernel", lab.kernels[kernel], *guest.words, "-t", guest.template]
    begin = time.perf_counter()
    told = place.call("run", *words, "--", *guest.command)
    return (time.perf_counter() - begin) * 1000, told


def measure(place: Installation, lab: Lab, report: Report, rounds: int) -> None:
    """Sizes, and the time of every form when they are started in turn. Raises OSError."""
    samples: dict[str, list[float]] = {form: [] for form in FORMS}
    said = set()
    try:
        for _ in range(rounds):
            for form, (kernel, images) in FORMS.items():
                choose(lab, images)
                start(place, lab, kernel)  # the daemon checks images that are new to it, which takes time
                milliseconds, told = start(place, lab, kernel)
                samples[form].append(milliseconds)
                said.add(told)
    finally:
        choose(lab, PLAIN)
    if len(said) != 1:
        raise OSError(f"{lab.guest.name}: not every form said the same: {sorted(said)}")
    record(lab, report)
    for form, found in samples.items():
        report.add(f"{lab.guest.name}_{form}_run_ms", median(found), "ms", found)


def record(lab: Lab, report: Report) -> None:
    """The sizes. Images are told by what they hold: the hole behind it takes nothing."""
    name = lab.guest.name
    used = lab.own_bytes + sum(image.bytes for image in lab.images)
    stored = lab.own_bytes + sum(os.stat(f"{image.path}.{PACKED}").st_size for image in lab.images)
    vmlinux, bzimage = (os.stat(path).st_size for path in (lab.kernel.vmlinux, lab.kernel.bzimage))
    for what, size in (
        ("kernel_vmlinux", vmlinux),
        ("kernel_bzimage", bzimage),
        ("root", used),
        ("root_compressed", stored),
        ("bzimage_and_root", bzimage + used),
        ("used", vmlinux + used),
        ("stored", bzimage + stored),
    ):
        report.add(f"{name}_{what}_bytes", size, "bytes")
    if lab.guest.limit:
        report.add(f"{name}_limit_bytes", lab.guest.limit, "bytes")
        report.extra["met"][name] = bzimage + stored <= lab.guest.limit


def run(root: str, guests: Sequence[Guest], rounds: int) -> Report:
    """The whole suite."""
    report = Report("sizes", machine())
    report.extra |= {"met": {}, "kernels": {}}
    with installation(root) as place:
        for guest in guests:
            print(f"bench: {guest.name} ({time.strftime('%H:%M:%S')})", file=sys.stderr)
            lab = prepare(place, guest)
            report.extra["kernels"][guest.name] = {"profile": guest.profile, "digest": lab.kernel.digest}
            measure(place, lab, report, rounds)
    return report


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"{'metric':<40}{'value':>16}  unit"]
    lines += [f"{name:<40}{metric.value:>16.0f}  {metric.unit}" for name, metric in report.metrics.items()]
    lines += [f"{name}: {'within' if met else 'OVER'} its limit" for name, met in report.extra["met"].items()]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write sizes.json where --out says."""
    parser = suite.arguments("sizes", __doc__, "sizes.json")
    parser.add_argument("--root", metavar="FOLDER", default=ROOT, help="where images are kept between runs")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of starts in every form")
    parser.add_argument("--only", metavar="NAMES", default="", help="guests, separated by commas")
    options = parser.parse_args()
    if not suite.is_root("sizes", "machines are started"):
        return suite.REFUSED
    wanted = options.only.split(",") if options.only else [guest.name for guest in GUESTS]
    guests = [guest for guest in GUESTS if guest.name in wanted]
    return suite.run("sizes", options, lambda: run(options.root, guests, options.rounds), table)


if __name__ == "__main__":
    sys.exit(main())
