"""kill -9 of the daemon, of QEMU and of a volume's server at random moments: machines that live go on, nothing is left.

SWIFTLET_CRASHES says how many kills there are, SWIFTLET_SEED makes their moments others.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.product import Product, eventually

pytestmark = [pytest.mark.root, pytest.mark.crash, pytest.mark.timeout(3000, func_only=True)]

CRASHES = int(os.environ.get("SWIFTLET_CRASHES", "12"))
SEED = int(os.environ.get("SWIFTLET_SEED", "7"))

SCRIPT = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"


def below(parent: int) -> list[int]:
    """The processes below one, itself included."""
    table: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        table.setdefault(int(fields[1]), []).append(int(name))
    found = [parent]
    for each in found:
        found += table.get(each, [])
    return found


def strike(product: Product, kind: str, spared: set[int], moments: random.Random) -> None:
    """Kill one process of a kind, if there is one at this moment that is not spared."""
    if kind == "daemon":
        found = [number] if (number := product.pid("api.daemon")) else []
    else:
        word = {"machine": "qemu-system-x86", "server": "virtiofsd"}[kind]
        launcher = product.pid("guest.launcher") or 0
        found = [number for number in below(launcher)[1:] if comm(number).startswith(word) and number not in spared]
    if found:
        try:
            os.kill(moments.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return


def comm(number: int) -> str:
    try:
        return Path(f"/proc/{number}/comm").read_text().strip()
    except OSError:
        return ""


def taps(product: Product) -> list[str]:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    return [line for line in links.splitlines() if f"{product.instance.bridge}v" in line and "tun" in line]


def half_made(product: Product) -> list[str]:
    """What is in the store's folder for things that are being made, and among the images."""
    folder = f"{product.instance.root}/tmp"
    images = os.listdir(f"{product.instance.root}/cache/images")
    hidden = [name for name in images if name.startswith(".")]
    return hidden + [name for name in os.listdir(folder) if os.path.isdir(f"{folder}/{name}")]


def test_a_snapshot_that_was_half_made_goes_with_the_next_daemon(product: Product) -> None:
    """Killed while the memory is being copied, of which there is enough for that to take a while."""
    fill = "busybox dd if=/dev/zero of=/tmp/full bs=1M count=200 && echo filled; busybox sleep 100000"
    run = (
        "run",
        "-d",
        "--as",
        "vm",
        "-m",
        "512M",
        "--name",
        "full",
        "-t",
        "busybox",
        "--",
        "busybox",
        "sh",
        "-c",
        fill,
    )
    product.ok(*run)
    eventually(lambda: "filled" in product.ok("logs", "full"), 120)
    taking = product.spawn("snapshot", "full", "never")
    folder = Path(product.instance.root, "tmp")
    ram = eventually(lambda: next((each for each in folder.glob("*/*/ram") if each.stat().st_blocks), None))
    os.kill(product.pid("api.daemon") or 0, signal.SIGKILL)
    assert ram.exists(), "it was killed in the middle"
    taking.communicate(timeout=60)
    assert product.json("snapshot", "ls") == []
    eventually(lambda: half_made(product) == [])
    assert [(guest["name"], guest["state"]) for guest in product.json("ps")] == [("full", "Running")]
    assert product.ok("exec", "full", "busybox", "echo", "fine") == "fine\n", "it does not stand still"
    product.ok("rm", "-f", "full")


def test_killing_daemon_machine_or_server_at_any_moment_leaves_nothing(product: Product, tmp_path: Path) -> None:
    moments = random.Random(SEED)
    run = ("run", "-d", "--as", "vm", "-t", "busybox")
    product.ok(*run, "--name", "anchor", "--", "busybox", "sh", "-c", SCRIPT)
    product.ok(*run, "--name", "source", "--", "busybox", "sleep", "100000")
    product.ok("snapshot", "source", "ready")
    spared = {guest["pid"] for guest in product.json("ps")}
    kinds = [("daemon", "machine", "server")[number % 3] for number in range(CRASHES)]
    moments.shuffle(kinds)
    for number, kind in enumerate(kinds):
        commands = [
            (*run, "--name", f"plain-{number}", "-p", "80", "--", "busybox", "sh", "-c", SCRIPT),
            (*run, "--name", f"volume-{number}", "-v", f"{tmp_path}:/x", "--", "busybox", "sh", "-c", SCRIPT),
            ("run", "--from", "source:ready", "--name", f"clone-{number}"),
            ("exec", "anchor", "busybox", "seq", "1", "1000"),
            ("snapshot", "source", f"s{number}"),
        ]
        begun = [product.spawn(*command) for command in moments.sample(commands, 2)]
        time.sleep(moments.random() * 1.2)
        strike(product, kind, spared, moments)
        for each in begun:
            each.communicate(timeout=120)
        # A daemon that is just dying may still take a connection, and no answer comes.
        (guests,) = eventually(lambda: [product.json("ps", "-a")])
        for guest in guests:
            if guest["name"] not in ("anchor", "source"):
                product.ok("rm", "-f", guest["id"])
        for each in product.json("snapshot", "ls"):
            if each["name"] != "source:ready":
                product.ok("snapshot", "rm", each["name"])
        assert product.ok("exec", "source", "busybox", "echo", "fine", timeout=60) == "fine\n", (
            "it does not stand still"
        )
    states = {guest["name"]: guest["state"] for guest in product.json("ps", "-a")}
    assert states == {"anchor": "Running", "source": "Running"}, "machines that nobody struck survive all that"
    first = product.ok("logs", "anchor").count("\n")
    eventually(lambda: product.ok("logs", "anchor").count("\n") > first)
    lines = product.ok("logs", "anchor").splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)], "no line is lost or torn"
    assert os.listdir(f"{product.instance.root}/snapshots") == ["source:ready"]
    eventually(lambda: half_made(product) == [])
    for guest in ("anchor", "source"):
        product.ok("rm", "-f", guest)
    product.ok("snapshot", "rm", "source:ready")
    launcher = product.pid("guest.launcher")
    names = [comm(number) for number in below(launcher or 0)[1:]]
    assert not [name for name in names if name.startswith(("qemu", "virtiofsd"))]
    eventually(lambda: taps(product) == [])
