"""The peer of the virtual machines: Debian 12 as it is installed, with its cloud kernel, initramfs, systemd and ssh.

::

    CACHE/stock/KEY/       complete since it came there by rename; KEY: of the packages' versions and what is added
      kernel initrd        Debian's
      loader.cpio          an initramfs with which the same kernel boots our image
      disk                 ext4, never written to: guests write beside it
      stock.json           the installed packages, sizes

mmdebstrap installs into a folder and mke2fs makes a file system of it: nothing is mounted. Added are the services that
are measured, with systemd units, and python3 and nginx for them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.tap import GUEST, HOST, PREFIX, READY_PORT
from swiftlet.image.kernel import initramfs

RULES = "2"
"""Changes with anything here that makes another image of the same packages."""

BASE = (
    "ca-certificates",
    "dbus",
    "ifupdown",
    "initramfs-tools",
    "linux-image-cloud-amd64",
    "openssh-server",
    "systemd-sysv",
    "tzdata",
)
WORKLOADS = ("nginx", "python3")

ANSWER_PORT, HELLO_PORT, CONTROL_PORT = 8080, 8000, 8100

_INSTALL_SECONDS = 1800

_MODULES = tuple(name for name in initramfs.WANTED if name != "virtiofs")
"""What the measured machine has: no volume, and so no driver for one that would cost it time."""

_FILES = {
    "etc/fstab": "/dev/vda / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "stock\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 stock\n",
    "etc/network/interfaces": f"""auto lo eth0
iface lo inet loopback
iface eth0 inet static
    address {GUEST}/{PREFIX}
    gateway {HOST}
""",
    "etc/systemd/system/bench-answer.service": f"""[Unit]
After=network.target
[Service]
ExecStart=/opt/bench/answer {ANSWER_PORT} {HOST} {READY_PORT}
""",
    "etc/systemd/system/bench-hello.service": """[Unit]
After=network.target bench-answer.service
[Service]
WorkingDirectory=/opt/hello-web
ExecStart=/usr/bin/python3 app.py
""",
    "etc/systemd/system/bench-control.socket": f"[Socket]\nListenStream={CONTROL_PORT}\nAccept=yes\n",
    "etc/systemd/system/bench-control@.service": """[Service]
ExecStart=-/opt/bench/control
StandardInput=socket
StandardOutput=socket
""",
    "opt/bench/control": """#!/bin/sh
read -r word
case $word in
settled*) exec systemctl is-system-running --wait ;;
checks*) exec /opt/bench/guest-check run --only ipc,algorithms ;;
nginx*) systemctl start nginx && echo started ;;
esac
""",
}
"""What is added to the installation. The control socket starts further work in a guest that has booted."""

_ENABLED = {
    "multi-user.target.wants": ("bench-answer.service", "bench-hello.service"),
    "sockets.target.wants": ("bench-control.socket",),
}
_DISABLED = ("multi-user.target.wants/nginx.service",)


class Stock(NamedTuple):
    """An installation in the cache. versions: of the packages asked for."""

    folder: str
    versions: dict[str, str]
    root_bytes: int

    @property
    def kernel(self) -> str:
        """Debian's kernel."""
        return f"{self.folder}/kernel"

    @property
    def initrd(self) -> str:
        """Debian's initramfs."""
        return f"{self.folder}/initrd"

    @property
    def loader(self) -> str:
        """The initramfs with which Debian's kernel boots our image."""
        return f"{self.folder}/loader.cpio"

    @property
    def disk(self) -> str:
        """The root file system."""
        return f"{self.folder}/disk"


def stock(cache: str, programs: Mapping[str, str], loader: str, hello: str) -> Stock:
    """The installation from the cache, or made now (minutes).

    programs: name below /opt/bench -> file. loader: `image.machine.loader`.
    hello: the folder of examples/hello-web. Raises OSError.
    """
    key = _key([*programs.values(), loader, *(f"{hello}/{name}" for name in sorted(os.listdir(hello)))])
    folder = f"{cache}/stock/{key}"
    if not os.path.exists(folder):
        _install(folder, programs, loader, hello)
    with open(f"{folder}/stock.json") as file:
        said = json.load(file)
    return Stock(folder, said["versions"], said["root_bytes"])


def _key(files: Sequence[str]) -> str:
    """Of what apt would install, and everything that is added."""
    summed = hashlib.sha256(json.dumps([RULES, _candidates(), _FILES, _ENABLED, _DISABLED]).encode())
    for path in files:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                summed.update(hashlib.file_digest(file, "sha256").digest())
    return summed.hexdigest()[:16]


def _candidates() -> list[str]:
    """The versions that this host's package lists have; [] where it has none, and one installation is then kept."""
    command = ["apt-cache", "policy", *BASE, *WORKLOADS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    except OSError:
        return []
    return [line.strip() for line in done.stdout.splitlines() if "Candidate:" in line]


def _install(folder: str, programs: Mapping[str, str], loader: str, hello: str) -> None:
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    work = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(folder))
    try:
        print("bench: installing Debian 12 into a folder (minutes, once)", file=sys.stderr)
        root, made = f"{work}/root", f"{work}/made"
        os.mkdir(made)
        _must(["mmdebstrap", "--mode=root", f"--include={','.join((*BASE, *WORKLOADS))}", "bookworm", root])
        _add(root, programs, hello)
        _collect(root, made, loader)
        os.chmod(made, 0o755)
        os.rename(made, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _add(root: str, programs: Mapping[str, str], hello: str) -> None:
    """Everything that makes the installation one that is measured."""
    for path, text in _FILES.items():
        _write(f"{root}/{path}", text, 0o755 if path.startswith("opt/") else 0o644)
    for name, source in programs.items():
        shutil.copy(source, f"{root}/opt/bench/{name}")
    shutil.copytree(hello, f"{root}/opt/hello-web", ignore=shutil.ignore_patterns("__pycache__"))
    units = f"{root}/etc/systemd/system"
    for folder, names in _ENABLED.items():
        os.makedirs(f"{units}/{folder}", exist_ok=True)
        for name in names:
            os.symlink(f"/etc/systemd/system/{name}", f"{units}/{folder}/{name}")
    for name in _DISABLED:
        os.unlink(f"{units}/{name}")
    # The page that swiftlet's nginx serves, so that both send the same bytes.
    shutil.copy(f"{root}/usr/share/nginx/html/index.html", f"{root}/var/www/html/index.html")
    _must(["systemd-machine-id-setup", f"--root={root}"])  # an installed system has one: it is no first boot


def _write(path: str, text: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def _collect(root: str, made: str, loader: str) -> None:
    """Kernel, initramfs, disk and what is known of them."""
    release = os.listdir(f"{root}/lib/modules")[0]
    shutil.copy(f"{root}/boot/vmlinuz-{release}", f"{made}/kernel")
    shutil.copy(f"{root}/boot/initrd.img-{release}", f"{made}/initrd")
    with open(f"{made}/loader.cpio", "wb") as file:
        file.write(initramfs.for_kernel(f"{root}/lib/modules/{release}", loader, _MODULES))
    used = int(_must(["du", "-s", "--block-size=1", root]).split()[0])
    size = f"{(used * 5 // 4 >> 20) + 256}M"
    _must(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", root, f"{made}/disk", size])
    said: dict[str, Any] = {"versions": _versions(root), "root_bytes": used, "kernel": release}
    _write(f"{made}/stock.json", json.dumps(said, indent=1), 0o644)


def _versions(root: str) -> dict[str, str]:
    told = _must(["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"])
    return dict(line.split(" ", 1) for line in told.splitlines())


def _must(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_INSTALL_SECONDS
    )
    if done.returncode:
        raise OSError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
