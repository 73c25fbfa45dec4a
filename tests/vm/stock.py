"""Debian's own kernel for virtual machines, as its package has it: fetched once, and nothing of it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

PACKAGE = "linux-image-cloud-amd64"


def vmlinuz(cache: str) -> str:
    """The kernel's path, its modules where `kernel import` looks for them; fetched into `cache` if it is not there."""
    package = _depends_on(PACKAGE)
    folder = f"{cache}/debian/{package}"
    if not os.path.isdir(folder):
        os.makedirs(f"{cache}/debian", exist_ok=True)
        work = tempfile.mkdtemp(prefix=".", dir=f"{cache}/debian")
        try:
            _done(["apt-get", "-qq", "download", package], work)
            (deb,) = (name for name in os.listdir(work) if name.endswith(".deb"))
            _done(["dpkg-deb", "-x", deb, "it"], work)
            os.rename(f"{work}/it", folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    (name,) = (name for name in os.listdir(f"{folder}/boot") if name.startswith("vmlinuz-"))
    return f"{folder}/boot/{name}"


def _depends_on(package: str) -> str:
    """The kernel that the package for the newest one stands for."""
    told = _done(["apt-cache", "depends", package], "/")
    return next(line.split()[1] for line in told.splitlines() if "Depends:" in line)


def _done(command: list[str], folder: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=600).stdout
