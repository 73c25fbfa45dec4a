"""What the host tells a virtual machine's first process, as text (docs/vms.md): pure, and of no use to containers.

An order is a letter, the number of its fields as a digit, and the fields, each ended by a zero byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from typing import NamedTuple

from swiftlet.model.bundle import Bundle, Machine

_NOSUID, _NODEV, _NOEXEC, _READ_ONLY, _REMOUNT = 2, 4, 8, 1, 32

_LOWER, _UPPER, _ROOT = "/lower", "/upper", "/root"
"""Folders of the machine's own root, on which the workload's is put together (`image.machine`)."""

_SHARED = "/run/swiftlet/shared"


_READ_AHEAD_KIB = 512
"""Of a root's images, which the host has in memory: what costs is each request (Linux's own measure is 128)."""

_DISK_OPTIONS = "discard,noinit_itable,errors=panic"
"""After an error of its disk a guest ends: its file system would hold whatever writes for ever (fs/ext4/inode.c)."""


class Card(NamedTuple):
    """A place on the network. prefix: bits of the mask."""

    hardware: str
    address: str
    prefix: int
    gateway: str


def order(key: str, *fields: str) -> str:
    """One order."""
    return f"{key}{len(fields)}" + "".join(f"{field}\0" for field in fields)


_GO = (order("F", "0"), order("s", "started"))
"""A clone's workload is let go on, and that is told."""


def start(
    bundle: Bundle,
    machine: Machine,
    card: Card | None,
    files: Mapping[str, str],
    now_ns: int,
    entropy: str,
    limits: Mapping[str, int],
) -> str:
    """Everything from the root file system to the workload's execution.

    files: guest path -> text. now_ns: the wall clock. entropy: hexadecimal digits. limits: name -> number of
    setrlimit(2).
    """
    kept = ("whatever",) if machine.disk else ()  # of a place that it has made unusable before: its own loss
    told = [
        *_root(machine),
        *_kernel_file_systems(bundle.shm_bytes),
        *_volumes(bundle, machine.shares),
        *(order("f", path, "0644", text, *kept) for path, text in files.items()),
        order("n", "lo", "", "127.0.0.1", "255.0.0.0", ""),
        order("f", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0", "1", "optional"),  # as in a container
        *identity(bundle.hostname, card, now_ns, entropy, boots=True),
        *_limits(bundle),
    ]
    if bundle.read_only:
        told.append(_remounted(_READ_ONLY))
    return "".join(told) + command(bundle.argv, bundle.env, bundle, limits, terminal=(0, 0) if bundle.tty else None)


def resume(bundle: Bundle, card: Card | None, files: Mapping[str, str], now_ns: int, entropy: str) -> str:
    """What a clone is told when it goes on: who it is, to let its workload go on, and to say when it has."""
    return "".join([*_told_anew(bundle, files), *identity(bundle.hostname, card, now_ns, entropy), *_GO])


def ahead(bundle: Bundle, card: Card | None, files: Mapping[str, str], now_ns: int, entropy: str) -> str:
    """The same for a clone whose workload is to be held until it is told `go_on`."""
    told = [*_told_anew(bundle, files), *identity(bundle.hostname, card, now_ns, entropy)]
    told.append(order("F", "1"))  # it is held already: so the way is known when it is let go
    if card is not None:
        told.append(order("R", card.gateway))
    return "".join([*told, order("s", "ahead")])


def go_on(bundle: Bundle, files: Mapping[str, str], now_ns: int, *, renamed: bool) -> str:
    """What is left to tell it then. files: those that have become others. renamed: its host name is another one."""
    named = [order("h", bundle.hostname)] if renamed else []
    return "".join([*(_told_anew(bundle, files) if files else ()), *named, _clock(now_ns), *_GO])


def unikernel(card: Card | None) -> str:
    """What a unikernel is told: where it is, and that there is no more to wait for (`unikernel.kernel.orders`)."""
    return "".join(_card(card)) + order("b")


def on_disk(
    bundle: Bundle, files: Mapping[str, str], limits: Mapping[str, int], *, data: bool, at_end: int, at_button: int
) -> str:
    """The orders of a disk image, which lie in its root: nobody is there to tell it more, and its disks' names,
    address and clock are found out by its kernel.

    data: whether there is a partition for what is written. at_end: what reboot(2) is to do when the workload has
    ended. at_button: number of the signal that the workload gets when the host wants its end.
    """
    upper = ("/dev/data", "ext4") if data else ("tmpfs", "tmpfs")
    told = [
        order("m", upper[0], _UPPER, upper[1], "0", "" if data else "mode=755"),
        *_overlay(len(bundle.rootfs.lowers)),
        *_kernel_file_systems(bundle.shm_bytes),
        *_volumes(bundle, ()),
        *(order("f", path, "0644", text) for path, text in files.items()),
        order("l", "/proc/net/pnp", "/etc/resolv.conf"),  # the servers that DHCP told the kernel
        order("h", bundle.hostname),
        order("n", "lo", "", "127.0.0.1", "255.0.0.0", ""),
        *_limits(bundle),
        order("w", str(at_end), str(at_button)),
    ]
    if bundle.read_only:
        told.append(_remounted(_READ_ONLY))
    return "".join(told) + command(bundle.argv, bundle.env, bundle, limits, terminal=None)


def identity(hostname: str, card: Card | None, now_ns: int, entropy: str, *, boots: bool = False) -> list[str]:
    """What makes one guest another one than its clone. boots: it is told when it has done so, and now_ns was before."""
    return [order("e", entropy), _clock(now_ns, *(["start"] if boots else [])), order("h", hostname), *_card(card)]


def _clock(now_ns: int, *of: str) -> str:
    return order("t", str(now_ns // 10**9), str(now_ns % 10**9), *of)


def _told_anew(bundle: Bundle, files: Mapping[str, str]) -> Iterable[str]:
    """Names are written, for a moment, where nothing else may be."""
    written = [order("f", path, "0644", text) for path, text in files.items()]
    return [_remounted(0), *written, _remounted(_READ_ONLY)] if bundle.read_only else written


def _remounted(flags: int) -> str:
    return order("m", "none", "/", "", str(_REMOUNT | flags), "")


def _card(card: Card | None) -> list[str]:
    if card is None:
        return []
    mask = str(IPv4Network(f"0.0.0.0/{card.prefix}").netmask)
    return [order("n", "eth0", card.hardware, card.address, mask, card.gateway)]


def command(
    argv: Sequence[str],
    env: Mapping[str, str],
    bundle: Bundle,
    limits: Mapping[str, int],
    *,
    terminal: tuple[int, int] | None,
) -> str:
    """Run a command as a bundle's user, with its limits and capabilities. terminal: rows and columns."""
    return "".join(
        [
            *(order("a", word) for word in argv),
            *(order("v", f"{name}={value}") for name, value in env.items()),
            order("c", bundle.cwd),
            order("u", str(bundle.uid), str(bundle.gid)),
            order("g", " ".join(map(str, bundle.groups))),
            order("q", f"{sum(1 << number for number in bundle.capabilities):x}"),
            *(
                order("r", f"{limits[name]} {soft} {hard}")
                for name, (soft, hard) in bundle.rlimits.items()
                if name in limits
            ),
            *([order("y", *map(str, terminal))] if terminal is not None else []),
            order("x"),
        ]
    )


def _limits(bundle: Bundle) -> Iterable[str]:
    """How many processes and threads there may be, in the guest's own kernel."""
    if bundle.workload.resources.pids:
        yield order("j", str(bundle.workload.resources.pids))


def _root(machine: Machine) -> Iterable[str]:
    """The images under an overlay whose upper layer is in the guest's memory, or on its disk."""
    images = len(machine.images) - 1
    for number in range(images):
        device, how = (f"pmem{number}", "dax=always") if machine.mapped else (_disk(1 + number), "")
        if not machine.mapped:
            yield order("f", f"/sys/block/{device}/queue/read_ahead_kb", "0", str(_READ_AHEAD_KIB), "whatever")
        yield order("m", f"/dev/{device}", f"{_LOWER}/{number}", "erofs", str(_READ_ONLY), how)
    if machine.disk:
        device = _disk(1 if machine.mapped else 1 + images)
        yield order("m", f"/dev/{device}", _UPPER, "ext4", "0", _DISK_OPTIONS)
    else:
        yield order("m", "tmpfs", _UPPER, "tmpfs", "0", "mode=755")
    yield from _overlay(images)


def _disk(number: int) -> str:
    """The name that a kernel gives to a disk, counted from 0; the machine's own root is the first."""
    return f"vd{chr(ord('a') + number)}"


def _overlay(lowers: int) -> Iterable[str]:
    for name in ("upper", "work"):
        yield order("d", f"{_UPPER}/{name}", "0755")
    lower = ":".join(f"{_LOWER}/{number}" for number in range(lowers))
    options = f"lowerdir={lower},upperdir={_UPPER}/upper,workdir={_UPPER}/work"
    yield order("m", "overlay", _ROOT, "overlay", "0", options)
    yield order("p", _ROOT)


def _kernel_file_systems(shm_bytes: int) -> Iterable[str]:
    strict = str(_NOSUID | _NODEV | _NOEXEC)
    yield order("m", "devpts", "/dev/pts", "devpts", str(_NOSUID | _NOEXEC), "ptmxmode=0666,mode=0620,gid=5")
    yield order("m", "shm", "/dev/shm", "tmpfs", strict, f"size={shm_bytes},mode=1777")
    yield order("m", "mqueue", "/dev/mqueue", "mqueue", strict, "")
    for target, name in (
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ):
        yield order("l", target, f"/dev/{name}")


def _volumes(bundle: Bundle, shares: Sequence[str]) -> Iterable[str]:
    for number, target in enumerate(shares):
        name = f"share{number}"
        is_folder = dict(bundle.volumes).get(target, True)
        place = target if is_folder else f"{_SHARED}/{number}"
        yield order("m", name, place, "virtiofs", str(_NOSUID | _NODEV), "")
        if not is_folder:
            yield order("b", f"{place}/{target.rpartition('/')[2]}", target)
    for specification in bundle.tmpfs:
        target, _, options = specification.partition(":")
        words = [
            word for word in options.split(",") if word not in ("", "rw", "ro", "nosuid", "nodev", "noexec", "exec")
        ]
        yield order("m", "tmpfs", target, "tmpfs", str(_NOSUID | _NODEV), ",".join(words))
