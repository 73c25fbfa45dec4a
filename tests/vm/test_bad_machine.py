"""Machines that do not come to their workload: one clear error that says where, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.image.kernel.kept import Kernel
from tests.product import Product, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

RUN = ("run", "--rm", "--as", "vm", "-t", "busybox")

# An ELF image with the note that QEMU starts kernels by (PVH: include/xen/interface/elfnote.h, 18), which spins.
SPINNING = """
.section .note, "a", @note
.long 4, 4, 18
.asciz "Xen"
.long spinning_for_ever
.text
.code32
.globl spinning_for_ever
spinning_for_ever:
.fill 64, 1, 0x90
jmp spinning_for_ever
.fill 64, 1, 0x90
"""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, kernel: Kernel) -> Iterator[Product]:
    """An installation that waits for a machine for five seconds only."""
    root = tmp_path_factory.mktemp("swiftlet")
    folder = Path(root) / "cache/kernels"
    folder.mkdir(parents=True)
    (folder / kernel.digest).symlink_to(kernel.folder)
    made = Product(str(root))
    made.environment["SWIFTLET_READY_SECONDS"] = "5"
    yield made
    made.close()
    assert made.leftovers() == []


def put_kernel(product: Product, digest: str, image: bytes, symbols: str = "") -> None:
    folder = Path(product.instance.root) / "cache/kernels" / digest
    folder.mkdir(parents=True)
    (folder / "vmlinux").write_bytes(image)
    (folder / "System.map").write_text(symbols)
    said = {"version": "0", "bytes": len(image), "seconds": 0.0, "source": {"digest": "x"}, "asked": []}
    (folder / "kernel.json").write_text(json.dumps(said))


def test_a_kernel_that_hangs_is_given_up_and_told_where_it_was(impatient: Product, tmp_path: Path) -> None:
    (tmp_path / "spin.s").write_text(SPINNING)
    subprocess.run(
        ["gcc", "-nostdlib", "-static", "-m64", "-Wl,-Ttext=0x200000,-e,spinning_for_ever,--build-id=none",
         "-o", str(tmp_path / "spin"), str(tmp_path / "spin.s")], check=True,
    )  # fmt: skip
    symbols = "0000000000200000 T spinning_for_ever\n0000000000200100 T behind_it\n"
    put_kernel(impatient, "f" * 64, (tmp_path / "spin").read_bytes(), symbols)
    begin = time.monotonic()
    failed = impatient.run(*RUN, "--kernel", "ffff", "--", "busybox", "true")
    assert failed.returncode == 126
    assert "not begun its workload after 5 s" in failed.stderr
    assert "in spinning_for_ever" in failed.stderr
    assert time.monotonic() - begin < 60
    assert impatient.json("ps", "-a") == []


def test_what_is_no_kernel_is_refused_with_qemus_words(impatient: Product) -> None:
    put_kernel(impatient, "e" * 64, b"not an image at all")
    failed = impatient.run(*RUN, "--kernel", "eeee", "--", "busybox", "true")
    assert failed.returncode == 126
    assert "qemu" in failed.stderr
    assert impatient.json("ps", "-a") == []


def test_qemu_that_stands_still_is_given_up(impatient: Product) -> None:
    """SIGSTOP as soon as it is there: neither the guest nor the monitor answers."""
    stopped: list[int] = []

    def stop_it() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end and not stopped:
            for name in filter(str.isdigit, os.listdir("/proc")):
                try:
                    words = Path(f"/proc/{name}/cmdline").read_bytes()
                    if b"qemu-system-x86_64" in words and Path(f"/proc/{name}/cgroup").read_text().count(
                        impatient.instance.cgroup
                    ):
                        os.kill(int(name), signal.SIGSTOP)
                        stopped.append(int(name))
                        return
                except (OSError, ProcessLookupError):
                    continue

    thread = threading.Thread(target=stop_it)
    thread.start()
    failed = impatient.run(*RUN, "--", "busybox", "true")
    thread.join()
    assert stopped
    assert failed.returncode == 126
    assert "QEMU itself does not answer" in failed.stderr
    assert impatient.json("ps", "-a") == []
    eventually(lambda: not os.path.exists(f"/proc/{stopped[0]}"))


@pytest.mark.parametrize("memory", ["33M", "36M"])
def test_too_little_memory_is_told(impatient: Product, memory: str) -> None:
    done = impatient.run(
        *RUN, "-m", memory, "--", "busybox", "sh", "-c", "busybox dd if=/dev/zero of=/x bs=1M count=99"
    )
    assert done.returncode != 0
    assert done.stderr


def test_a_program_for_another_machine_is_refused(impatient: Product, tmp_path: Path) -> None:
    arm = bytearray(Path("/usr/bin/busybox").read_bytes()[:4096])
    arm[18:20] = b"\xb7\x00"  # e_machine: AArch64
    (tmp_path / "alien").write_bytes(bytes(arm))
    os.chmod(tmp_path / "alien", 0o755)
    done = impatient.run(*RUN, "-v", f"{tmp_path}:/x", "--", "/x/alien")
    assert done.returncode == 126
    assert "cannot be executed: Exec format error" in done.stderr


def test_an_image_that_was_changed_is_not_used(impatient: Product) -> None:
    assert impatient.ok(*RUN, "--", "busybox", "echo", "fine") == "fine\n"
    images = Path(impatient.instance.root) / "cache/images"
    for image in images.glob("*.erofs"):
        os.chmod(image, 0o644)
        with open(image, "r+b") as file:
            file.seek(4096)
            file.write(b"\0" * 4096)
    assert impatient.ok(*RUN, "--", "busybox", "echo", "fine") == "fine\n"
