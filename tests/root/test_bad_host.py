"""A host that cannot do what is asked of it: full disks, no network, no root, no overlay: said and survived."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.linux import syscall
from tests.product import COMMAND, Product, eventually, unmount
from tests.refusal import Refusal, refusal_of, refused

pytestmark = [pytest.mark.root, pytest.mark.net]

MS_REMOUNT = 32


def run(product: Product, prefix: list[str], *arguments: str, **environment: str) -> Refusal:
    """A command that must fail, started by way of another one."""
    command = [*prefix, COMMAND, *arguments]
    env = {**product.environment, **environment}
    return refusal_of(
        subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    )


def sound(product: Product) -> bool:
    """Whether nothing in the store is damaged, and nothing of a guest or a half-done pull is there."""
    eventually(lambda: not any(name.startswith("guest-") for name in os.listdir(f"{product.instance.root}/tmp")))
    root = product.instance.root
    left = [name for name in os.listdir(f"{root}/tmp") if not name.endswith(".lock")]
    return not product.json("store", "verify")["damaged"] and left == [] and os.listdir(f"{root}/guests") == []


# A full disk


@pytest.fixture
def small_disk(installation: Product) -> Iterator[Product]:
    """An installation on a disk of 1 MiB."""
    syscall.mount("small", installation.instance.root, "tmpfs", 0, "size=1m,mode=711")
    yield installation
    installation.close()
    unmount(installation.instance.root)


def resize(product: Product, size: int) -> None:
    syscall.mount("small", product.instance.root, "tmpfs", MS_REMOUNT, f"size={size}")


def used_bytes(product: Product) -> int:
    found = os.statvfs(product.instance.root)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_a_disk_that_fills_up_anywhere_in_a_pull_is_said_and_a_larger_one_goes_on(small_disk: Product) -> None:
    """Lists, packages, their contents and objects are written one after the other: it fills up in each of them."""
    nginx = ("run", "--rm", "-q", "-t", "nginx@1.22", "--", "nginx", "-v")
    found = refused(small_disk, *nginx)
    assert found.code == 125 and found.message.startswith("no space left "), found
    resize(small_disk, 1 << 30)
    small_disk.ok("template", "resolve", "-q", "busybox")
    told = []
    for power in (19, 21, 22, 23, 24, 26):
        resize(small_disk, used_bytes(small_disk) + (1 << power))
        done = small_disk.run(*nginx)
        if done.returncode == 0:
            break
        found = refusal_of(done)
        assert found.code == 125 and found.message.startswith("no space left "), found
        assert small_disk.json("ps", "-a") == []
        told.append(found.message)
    assert done.returncode == 0 and "nginx version" in done.stderr
    assert len(told) > 2 and len(set(told)) > 1, told
    assert sound(small_disk)


def test_a_disk_that_fills_up_while_files_are_generated_is_said(small_disk: Product, tmp_path: Path) -> None:
    resize(small_disk, 30 << 20)
    (tmp_path / "big.yaml").write_text(
        "name: big\nversion: 1\nfiles: {busybox: /usr/bin/busybox}\n"
        "generate: [{run: [/usr/bin/busybox, sh, -c, busybox yes >/big], outputs: [/big]}]\n"
    )
    found = refused(small_disk, "template", "resolve", str(tmp_path / "big.yaml"), "-q")
    assert found.code == 125 and found.message.startswith("no space left "), found
    assert sound(small_disk)


@contextlib.contextmanager
def full(product: Product) -> Iterator[None]:
    """While entered, the disk takes nothing more."""
    filler = f"{product.instance.root}/filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 20))
    yield
    os.unlink(filler)


def test_on_a_full_disk_nothing_starts_and_what_runs_can_be_stopped_and_removed(small_disk: Product) -> None:
    resize(small_disk, 100 << 20)
    busybox = ("-q", "-t", "host:/usr/bin/busybox")
    small_disk.ok("run", "-d", "--name", "early", *busybox, "--", "busybox", "sleep", "1000")
    small_disk.ok("run", "-d", "--name", "other", *busybox, "--", "busybox", "sleep", "1000")
    with full(small_disk):
        found = refused(small_disk, "run", "--rm", *busybox, "--", "busybox", "true")
        assert found.code == 125 and found.message.startswith("no space left "), found
        assert [guest["name"] for guest in small_disk.json("ps", "-a")] == ["other", "early"]
        small_disk.ok("stop", "--timeout", "0", "early")
        assert small_disk.ok("wait", "early") == "137\n"
        small_disk.stop_daemon()
        assert {guest["name"]: guest["state"] for guest in small_disk.json("ps", "-a")} == {
            "early": "Stopped", "other": "Running",
        }  # fmt: skip
        small_disk.ok("rm", "early")
        small_disk.ok("rm", "-f", "other")
        assert small_disk.json("ps", "-a") == []
    assert small_disk.ok("run", "--rm", *busybox, "--", "busybox", "echo", "after") == "after\n"
    assert sound(small_disk)


# No network


NO_NETWORK = ["unshare", "--net"]


def test_without_a_network_packages_and_wheels_are_said_to_be_out_of_reach(installation: Product) -> None:
    started = time.monotonic()
    found = run(installation, NO_NETWORK, "run", "-q", "-t", "nginx@1.22")
    assert found.code == 125 and found.message.startswith("cannot fetch ") and "network" in found.hint
    found = run(installation, NO_NETWORK, "run", "-q", "-t", "nodejs@20")
    assert found.code == 125 and found.message.startswith("cannot fetch ") and "network" in found.hint
    assert time.monotonic() - started < 60
    assert sound(installation)


def test_a_proxy_that_is_dead_is_said(installation: Product) -> None:
    proxy = "http://127.0.0.1:9"
    found = run(installation, [], "template", "resolve", "-q", "nginx@1.22", http_proxy=proxy, https_proxy=proxy)
    assert found.code == 125 and found.message.startswith("cannot fetch ") and "127.0.0.1" in found.message


def test_what_is_resolved_needs_no_network(installation: Product) -> None:
    installation.ok("template", "resolve", "-q", "busybox")
    installation.stop_daemon()
    command = [*NO_NETWORK, COMMAND, "run", "--rm", "-q", "-t", "busybox", "--", "echo", "runs"]
    done = subprocess.run(command, env=installation.environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "runs\n"), done.stderr


# No root


def test_who_is_not_root_is_told_so_with_and_without_a_daemon(installation: Product) -> None:
    # Reading is left to him: the tree may lie in a folder that root alone enters.
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all,+dac_read_search"]
    nobody += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    expected = (125, "swiftlet needs root and this is user 65534", "run it with sudo")
    assert run(installation, nobody, "ps") == expected
    assert not os.path.exists(installation.instance.run)
    installation.ok("ps")
    for words in (("ps",), ("run", "-t", "busybox"), ("template", "ls"), ("doctor",)):
        assert run(installation, nobody, *words) == expected


# No overlay


def test_a_store_where_overlay_cannot_write_is_told_with_where_to_go(installation: Product, tmp_path: Path) -> None:
    """As in a container whose own root is an overlay."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    syscall.mount("overlay", installation.instance.root, "overlay", 0, options)
    try:
        found = refused(installation, "run", "-q", "-t", "host:/usr/bin/busybox", "--", "busybox", "true")
        assert found.code == 125 and installation.instance.root in found.message and "overlay" in found.message, found
        assert "SWIFTLET_ROOT" in found.hint
        assert installation.json("ps", "-a") == []
    finally:
        installation.close()
        unmount(installation.instance.root)


LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.ENODEV
MOUNT, FSOPEN = 165, 430


def take_overlay_away() -> None:
    """From here on mount(2) without flags, by which an overlay is mounted, and fsopen(2) answer as to a file system
    that the kernel does not have."""
    program = [
        (LOAD, 0, 0, 0),  # the system call's number
        (EQUALS, 3, 0, FSOPEN),
        (EQUALS, 0, 3, MOUNT),
        (LOAD, 0, 0, 16 + 3 * 8),  # the low half of its fourth argument
        (EQUALS, 0, 1, 0),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]
    filters = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(filters, len(filters))
    header = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_seccomp, seccomp_mode_filter = 22, 2
    if libc.prctl(pr_set_seccomp, seccomp_mode_filter, ctypes.c_char_p(header), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def test_a_kernel_without_overlay_is_told(installation: Product) -> None:
    command = [COMMAND, "run", "-q", "-t", "host:/usr/bin/busybox", "--", "busybox", "true"]
    done = subprocess.run(
        command, env=installation.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        preexec_fn=take_overlay_away,
    )  # fmt: skip
    found = refusal_of(done)
    assert found == (125, "this kernel has no overlay file system", "swiftlet doctor"), found
    assert installation.json("ps", "-a") == []
    doctor = installation.run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(doctor.stdout)}
    assert (doctor.returncode, findings["overlay"]["status"]) == (1, "missing")


def test_without_apt_what_needs_no_packages_still_runs(installation: Product, tmp_path: Path) -> None:
    for name in ("ip", "nft", "sh", "env"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}" if os.path.exists(f"/usr/bin/{name}") else f"/usr/sbin/{name}")
    installation.environment["PATH"] = str(tmp_path)
    found = refused(installation, "run", "-q", "-t", "busybox")
    assert found == (125, "this host has no apt-get or dpkg-deb", "templates of packages need a Debian host")
    assert (
        installation.ok("run", "--rm", "-q", "-t", "host:/usr/bin/busybox", "--", "busybox", "echo", "runs") == "runs\n"
    )


# A user who gives up


def test_ctrl_c_in_the_middle_of_a_pull_ends_it_and_the_next_one_goes_on(installation: Product) -> None:
    process = installation.spawn("run", "--rm", "-t", "nginx@1.22", "--", "nginx", "-v")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("fetch: "):
            break
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1].count("Traceback") == 0
    assert process.returncode == 130
    eventually(lambda: installation.pid("node.pull") is None)
    assert installation.json("ps", "-a") == []
    assert sound(installation)
    assert installation.run("run", "--rm", "-q", "-t", "nginx@1.22", "--", "nginx", "-v").returncode == 0
