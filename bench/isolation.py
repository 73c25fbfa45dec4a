"""What isolation an arm really gives: found out by a probe that runs inside it, never claimed.

The probe is a shell script for a static busybox; `compare` turns its answers into the rows of a table. Control
groups cannot be seen from inside a cgroup namespace; `peers` says what each arm has.
"""

from __future__ import annotations

import os

NAMESPACES = ("mnt", "pid", "ipc", "uts", "net", "cgroup", "user")

PROBE = """
for name in mnt pid ipc uts net cgroup user; do echo "ns $name $(readlink /proc/self/ns/$name)"; done
while read key value rest; do
  case $key in CapEff:|NoNewPrivs:|Seccomp:) echo "status $key $value";; esac
done </proc/self/status
while read a b c d point options rest; do
  case $point in /|/dev|/proc/*|/sys/*) echo "mount $point $options ${rest##* - }";; esac
done </proc/self/mountinfo
echo "devices $(ls /dev 2>/dev/null | wc -l)"
"""
"""Runs with `sh -c`. Reads /proc of its own; an arm without /proc answers nothing, which is an answer too."""


FEATURES = (
    *NAMESPACES,
    "writable layer",
    "own /dev",
    "masked or read-only paths",
    "capabilities held",
    "no_new_privs",
    "seccomp",
)


def compare(output: str) -> dict[str, str]:
    """Feature -> "yes", "no", or what there is of it; {} when the probe could not answer."""
    answers = [line.split(" ") for line in output.splitlines() if line]
    if not any(answer[0] == "ns" for answer in answers):
        return {}
    table = {name: _namespace(answers, name) for name in NAMESPACES}
    mounts = {answer[1]: answer[2:] for answer in answers if answer[0] == "mount"}
    table["writable layer"] = _writable(mounts.get("/", []))
    table["own /dev"] = _yes("/dev" in mounts)
    table["masked or read-only paths"] = str(sum(_protects(point) for point in mounts))
    return table | _privileges(answers)


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def _namespace(answers: list[list[str]], name: str) -> str:
    inside = next((answer[2] for answer in answers if answer[:2] == ["ns", name] and len(answer) > 2), "")
    return _yes(bool(inside) and inside != os.readlink(f"/proc/self/ns/{name}"))


def _protects(point: str) -> bool:
    """Whether a mount hides or protects part of /proc or /sys (control groups are a view, not a protection)."""
    return point.startswith(("/proc/", "/sys/")) and not point.startswith("/sys/fs/cgroup")


def _writable(root: list[str]) -> str:
    if not root or "ro" in root[0].split(","):
        return "no"
    return "overlay" if "overlay" in root else "shared with the source"


def _privileges(answers: list[list[str]]) -> dict[str, str]:
    status = {answer[1]: answer[2] for answer in answers if answer[0] == "status" and len(answer) > 2}
    return {
        "capabilities held": str(int(status.get("CapEff:", "0"), 16).bit_count()),
        "no_new_privs": _yes(status.get("NoNewPrivs:") == "1"),
        "seccomp": _yes(status.get("Seccomp:") == "2"),
    }
