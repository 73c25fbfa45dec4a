"""`swiftlet doctor`: what this host has and lacks, found out by trying, and what follows from it.

Everything that could change the host is tried in a child with namespaces of its own that vanish with it, and under a
deadline. Runs in a worker (`pull`), so that a probe that hangs harms nothing. Nothing is put right here.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Literal, NamedTuple

from swiftlet.linux import cgroup, mount, namespace, pidfd, syscall
from swiftlet.model.error import SwiftletError
from swiftlet.model.instance import Instance
from swiftlet.node import firewall
from swiftlet.node.canary import try_kvm
from swiftlet.store.layout import Layout

Status = Literal["ok", "limited", "missing"]

PROBE_SECONDS = 5.0

_OLDEST, _WANTED = (5, 10), (6, 1)
"""Kernels: `volatile` overlays and openat2 need 5.10; 6.1 is Debian 12's."""

_LEAST_MEMORY = 256 << 20
_LEAST_SPACE = 1 << 30
_YEAR_OF_THIS = 2024


class Finding(NamedTuple):
    """status: ok, limited (something cannot be used), missing (no guest can run). consequence: "" when all is well."""

    name: str
    status: Status
    detail: str
    consequence: str = ""


class ProbeError(Exception):
    """A probe failed; the text says why."""


def examine(instance: Instance) -> list[Finding]:
    """Try everything. Takes a second or two, a few more where something hangs."""
    layout = Layout(instance)
    probes: list[tuple[str, Callable[[], Finding]]] = [
        ("root", _root),
        ("kernel", _kernel),
        ("overlay", lambda: _overlay(layout)),
        ("mount interface", _mount_interface),
        ("control groups", _control_groups),
        ("seccomp", _seccomp),
        ("user namespaces", _user_namespaces),
        ("id-mapped mounts", lambda: _mapped_mounts(layout)),
        ("bridge network", _bridge),
        ("packet filter", _packet_filter),
        ("spoofing guard", _bridge_filter),
        ("other firewalls", lambda: _other_firewalls(instance)),
        ("KVM", _kvm),
        ("store", lambda: _store(layout)),
        ("memory", _memory),
        ("clock", _clock),
    ]
    return [_try(name, probe) for name, probe in probes]


def _try(name: str, probe: Callable[[], Finding]) -> Finding:
    try:
        return probe()
    except Exception as error:
        return Finding(name, "limited", f"could not be found out: {error}", "unknown")


def _in_space(flags: int, probe: Callable[[], str]) -> str:
    """The probe's text, from a child in new namespaces. Raises ProbeError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _in_child(probe, flags, writer)
    os.close(writer)
    handle = os.pidfd_open(child)
    try:
        if not pidfd.has_ended(handle, PROBE_SECONDS):
            os.kill(child, signal.SIGKILL)
            raise ProbeError(f"it hangs for more than {PROBE_SECONDS:.0f} s")
        os.waitpid(child, 0)
        text = os.read(reader, 4096).decode()
    finally:
        os.close(handle)
        os.close(reader)
    if not text.startswith("+"):
        raise ProbeError(text[1:] or "the probe died")
    return text[1:]


def _in_child(probe: Callable[[], str], flags: int, writer: int) -> None:
    try:
        syscall.unshare(flags)
        if flags & namespace.NEWNS:
            syscall.mount("none", "/", "", mount.MS_REC | mount.MS_PRIVATE)
        text = "+" + probe()
    except BaseException as error:
        text = "-" + (error.strerror or str(error) if isinstance(error, OSError) else str(error))
    os.write(writer, text.encode()[:4096])
    os._exit(0)


def _root() -> Finding:
    if os.geteuid() != 0:
        return Finding("root", "missing", f"this is user {os.geteuid()}", "nothing can be run: use sudo")
    with open("/proc/self/status") as file:
        line = next((line for line in file if line.startswith("CapEff")), "CapEff: 0")
    held = int(line.split()[1], 16)
    needed = {"sys_admin": 21, "net_admin": 12, "sys_chroot": 18, "mknod": 27, "setuid": 7}
    lacking = [name for name, number in needed.items() if not held >> number & 1]
    if lacking:
        text = f"root without {', '.join(f'CAP_{name.upper()}' for name in lacking)}"
        return Finding("root", "missing", text, "guests cannot be set up: is this inside a container?")
    return Finding("root", "ok", "with the capabilities that are needed")


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if numbers < _OLDEST:
        return Finding("kernel", "missing", release, f"too old: at least {_OLDEST[0]}.{_OLDEST[1]} is needed")
    if numbers < _WANTED:
        return Finding("kernel", "limited", release, "older than what swiftlet is tested with (6.1)")
    return Finding("kernel", "ok", f"{release}, Python {platform.python_version()}")


def _overlay(layout: Layout) -> Finding:
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=layout.tmp) as folder:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{folder}/{name}")

        def probe() -> str:
            lowers = [f"{folder}/lower"]
            mount.overlay(lowers, f"{folder}/upper", f"{folder}/work", f"{folder}/merged", volatile=True)
            with open(f"{folder}/merged/file", "w") as file:
                file.write("x")
            return "mounts and takes a file"

        try:
            return Finding("overlay", "ok", _in_space(namespace.NEWNS, probe))
        except ProbeError as error:
            text = "no container can run: modprobe overlay, or put SWIFTLET_ROOT on ext4, xfs or btrfs"
            return Finding("overlay", "missing", str(error), text)


def _mount_interface() -> Finding:
    try:
        os.close(syscall.fsopen("tmpfs"))
    except OSError as error:
        text = "volumes cannot be shown in guests (Linux 5.12 can)"
        return Finding("mount interface", "limited", f"fsopen: {error.strerror}", text)
    return Finding("mount interface", "ok", "open_tree, move_mount, mount_setattr")


def _control_groups() -> Finding:
    layout = cgroup.detect()
    lacking = [name for name in ("memory", "cpu", "pids") if layout.hierarchy_of(name) is None]
    where = ", ".join(f"{key or 'v2'}" for key in layout.hierarchies)
    detail = f"{layout.kind}: {where}" if layout.kind != "unified" else "version 2"
    if not layout.hierarchies:
        text = "guests cannot be tracked: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        return Finding("control groups", "missing", "none are mounted", text)
    if lacking:
        text = f"no limits for {', '.join(lacking)}"
        return Finding("control groups", "limited", f"{detail}; no {', '.join(lacking)}", text)
    return Finding("control groups", "ok", detail)


def _seccomp() -> Finding:
    with open("/proc/self/status") as file:
        if not any(line.startswith("Seccomp:") for line in file):
            return Finding("seccomp", "missing", "this kernel has none", "only with --seccomp unconfined")
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        text = "no profile can be compiled: apt-get install libseccomp2"
        return Finding("seccomp", "missing", "libseccomp is not installed", text)
    return Finding("seccomp", "ok", "kernel and libseccomp")


def _user_namespaces() -> Finding:
    try:
        os.close(namespace.user_namespace(1 << 30))
    except OSError as error:
        return Finding("user namespaces", "limited", str(error), "--userns cannot be used")
    return Finding("user namespaces", "ok", "can be made")


def _mapped_mounts(layout: Layout) -> Finding:
    userns = namespace.user_namespace(1 << 30)
    try:
        tree = syscall.open_tree(syscall.AT_FDCWD, layout.trees, 1)
        try:
            syscall.mount_setattr(tree, "", set_=mount.ATTR_IDMAP, userns=userns)
        finally:
            os.close(tree)
    except OSError as error:
        return Finding("id-mapped mounts", "limited", error.strerror or "", "--userns cannot be used with this store")
    finally:
        os.close(userns)
    return Finding("id-mapped mounts", "ok", "on the store's file system")


def _bridge() -> Finding:
    from swiftlet.node.links import End, Links

    subnet = IPv4Network("10.63.0.0/16")

    def probe() -> str:
        links = Links()
        links.ensure_bridge("probe0", subnet, "02:42:0a:3f:00:01")
        end = End("probe1", "02:42:0a:3f:00:02", subnet.network_address + 2, 16, subnet.network_address + 1)
        os.close(links.make_namespace(end))
        return "bridge and veth pairs"

    try:
        return Finding("bridge network", "ok", _in_space(namespace.NEWNET, probe))
    except ProbeError as error:
        return Finding("bridge network", "limited", str(error), "run guests with --network host or none")


_PROBE_SETTING = firewall.Setting("probe", "probe0", "probev", IPv4Network("10.63.0.0/16"), ("lo",))


def _packet_filter() -> Finding:
    if shutil.which("nft") is None:
        text = "no bridge network and no published ports: apt-get install nftables"
        return Finding("packet filter", "limited", "nft is not installed", text)
    port = firewall.Published("tcp", firewall.ANYWHERE, 80, "10.63.0.2", 80)

    def probe() -> str:
        firewall.apply(firewall.base_rules(_PROBE_SETTING) + firewall.publish(_PROBE_SETTING, [port]))
        return "nftables with NAT and maps"

    try:
        return Finding("packet filter", "ok", _in_space(namespace.NEWNET, probe))
    except (ProbeError, SwiftletError) as error:
        return Finding("packet filter", "limited", str(error), "no bridge network and no published ports")


def _bridge_filter() -> Finding:
    def probe() -> str:
        firewall.apply(firewall.guard_rules(_PROBE_SETTING, []))
        return "guests cannot use one another's addresses"

    try:
        return Finding("spoofing guard", "ok", _in_space(namespace.NEWNET, probe))
    except ProbeError as error:
        text = "a guest on the bridge can take another one's address (the kernel lacks nf_tables_bridge)"
        return Finding("spoofing guard", "limited", str(error), text)


def _other_firewalls(instance: Instance) -> Finding:
    """A policy of drop in somebody else's forward chain also drops what guests send; ours cannot overrule it."""
    done = subprocess.run(["nft", "-j", "list", "chains"], capture_output=True, text=True, timeout=PROBE_SECONDS)
    if done.returncode:
        return Finding("other firewalls", "ok", "none (nft lists no chains)")
    dropping = dropping_chains(done.stdout, instance.table)
    if not dropping:
        return Finding("other firewalls", "ok", "none drops forwarded packets by policy")
    way = f"nft insert rule {dropping[0]} iifname {instance.bridge} accept (and the same with oifname)"
    text = f"guests on the bridge may not reach the network, nor be reached: {way}"
    return Finding("other firewalls", "limited", f"policy drop in {', '.join(dropping)}", text)


def dropping_chains(listing: str, own: str) -> list[str]:
    """`family table chain` of every forward chain whose policy is drop, in the output of `nft -j list chains`."""
    chains = [item["chain"] for item in json.loads(listing)["nftables"] if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["table"] != own
    ]


def _kvm() -> Finding:
    verdict = try_kvm()
    if verdict.works:
        return Finding("KVM", "ok", verdict.detail)
    return Finding("KVM", "limited", verdict.detail, "virtual machines run under emulation; containers do not need it")


def _store(layout: Layout) -> Finding:
    space = os.statvfs(layout.root)
    free = space.f_bavail * space.f_frsize
    lacking = _lacking_features(layout)
    if lacking:
        text = "put SWIFTLET_ROOT on ext4, xfs or btrfs"
        return Finding("store", "missing", f"{layout.root} lacks {', '.join(lacking)}", text)
    if free < _LEAST_SPACE or space.f_favail < 10000:
        text = "templates may not fit: swiftlet store gc, or free some space"
        return Finding("store", "limited", f"{free >> 20} MiB and {space.f_favail} files free", text)
    return Finding("store", "ok", f"{layout.root}, {free >> 30} GiB free")


def _lacking_features(layout: Layout) -> list[str]:
    lacking = []
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=layout.tmp) as folder:
        try:
            unnamed = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
            os.close(unnamed)
        except OSError:
            lacking.append("unnamed files (O_TMPFILE)")
        with open(f"{folder}/file", "w"):
            pass
        try:
            os.link(f"{folder}/file", f"{layout.trees}/.doctor-{os.getpid()}")
            os.unlink(f"{layout.trees}/.doctor-{os.getpid()}")
        except OSError:
            lacking.append("hard links between its folders")
    return lacking


def _memory() -> Finding:
    with open("/proc/meminfo") as file:
        numbers = {line.split(":")[0]: int(line.split()[1]) << 10 for line in file if line.split()[1:]}
    available = numbers.get("MemAvailable", 0)
    detail = f"{available >> 20} of {numbers.get('MemTotal', 0) >> 20} MiB available"
    if available < _LEAST_MEMORY:
        return Finding("memory", "limited", detail, "guests may be killed for memory")
    return Finding("memory", "ok", detail)


def _clock() -> Finding:
    now = time.gmtime()
    if now.tm_year < _YEAR_OF_THIS:
        text = "certificates and package lists will be refused: set the clock"
        return Finding("clock", "limited", time.strftime("%Y-%m-%d", now), text)
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M UTC", now))
