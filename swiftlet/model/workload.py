"""Workload: what a user declares. Frozen; holds nothing that was found out at run time."""

from __future__ import annotations

from typing import Literal

import msgspec

Network = Literal["bridge", "none", "host"]
CpuLevel = Literal["", "v2", "v3", "v4"]
GuestKind = Literal["container", "vm", "unikernel", "fake"]


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder or file of the host shown in the guest. Both paths absolute."""

    source: str
    target: str
    read_only: bool = False


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published port: packets to `host` on `host_ip` ("": all) reach `guest`. host 0: any free port."""

    guest: int
    host: int = 0
    host_ip: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits, 0 for none. memory in bytes, cpus in cores (quota), cpu_weight 1..10000 (100 is usual), pids a count.

    disk: of a virtual machine, bytes for what it writes to its root; 0: that is in its memory.
    """

    memory: int = 0
    cpus: float = 0.0
    cpu_weight: int = 0
    pids: int = 4096
    disk: int = 0


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One guest to be.

    templates: `name[@version]`, `deb:NAME[=VERSION]`, `host:/path` or a YAML file's path; a unikernel has none.
    The first wins.
    command: argv; empty runs the first template's entry point.
    program: of a unikernel, the absolute path of the Python file with its tasks.
    master: of a unikernel, what its first processor does besides serving the network: run tasks too, or nothing else.
    placement: of a unikernel, whether tasks go to processors of different cores first, or fill core after core.
    cpu_level: of x86-64, that a unikernel's tasks are compiled for; "" is v2.
    kernel: of a virtual machine, a profile's name or the beginning of a digest; "" is the newest that was built.
    user: `name|uid[:group|gid]`; "" is root.
    stop_signal by name (`SIGTERM`); stop_timeout in seconds.
    """

    templates: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    name: str = ""
    kind: GuestKind = "container"
    program: str = ""
    master: Literal["compute", "serve"] = "compute"
    placement: Literal["spread", "packed"] = "spread"
    cpu_level: CpuLevel = ""
    kernel: str = ""
    env: dict[str, str] = {}
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    network: Network = "bridge"
    resources: Resources = Resources()
    read_only: bool = False
    tty: bool = False
    interactive: bool = False
    remove: bool = False
    userns: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: Literal["default", "unconfined"] = "default"
    ulimits: dict[str, tuple[int, int]] = {}
    stop_signal: str = "SIGTERM"
    stop_timeout: float = 10.0
