"""The OCI bundle that crun and runc run: as much isolation as a swiftlet container has by default.

A pure value after the OCI runtime specification 1.0; masked and read-only paths and capabilities are taken from
swiftlet itself, so that they are the same. What it lacks: the writable overlay (the root is a read-only folder).
"""

from __future__ import annotations

import json
import os
from typing import Any

from swiftlet.guest import view
from swiftlet.linux import capability

CAPABILITIES = [f"CAP_{name}" for name, number in capability.NUMBERS.items() if number in capability.DEFAULT]


def specification(
    root: str, argv: list[str], *, seccomp: list[str] | None = None, limits: bool = True
) -> dict[str, Any]:
    """config.json for `argv` in the folder `root`.

    seccomp: system calls that are allowed, all others fail with EPERM; None leaves the filter out.
    limits: control groups with a pids limit and the device list; False where the runtime can have none.
    """
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": argv,
            "env": ["PATH=/"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": True},
        "hostname": "bench",
        "mounts": _mounts(),
        "linux": _linux(seccomp, limits),
    }


def _mounts() -> list[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*quiet, "mode=1777", "size=64m"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
    ]


def _linux(seccomp: list[str] | None, limits: bool) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "maskedPaths": [path for path, _ in view.masked_on_host()],
        "readonlyPaths": list(view.read_only_on_host()),
    }
    if limits:
        linux["resources"] = {"pids": {"limit": 4096}, "devices": [{"allow": False, "access": "rwm"}]}
    if seccomp is not None:
        rule = {"names": seccomp, "action": "SCMP_ACT_ALLOW"}
        linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [rule],
        }
    return linux


def write_bundle(folder: str, document: dict[str, Any]) -> None:
    """Make `folder` an OCI bundle."""
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/config.json", "w") as file:
        json.dump(document, file)
