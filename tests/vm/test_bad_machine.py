"""Machines that do not come to their workload: one clear error that says where, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.image.kernel.kept import Kernel
from tests.product import Product, eventually
from tests.vm.conftest import installed
from tests.vm.patched import FAULT, HANG, patched

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

RUN = ("run", "--rm", "--as", "vm", "-t", "busybox")

# An ELF image with the note that QEMU starts kernels by (PVH: include/xen/interface/elfnote.h, 18), which writes a line
# to the first serial port, and spins.
SPINNING = """
.section .note, "a", @note
.long 4, 4, 18
.asciz "Xen"
.long spinning_for_ever
.text
.code32
.globl spinning_for_ever
spinning_for_ever:
mov $words, %esi
mov $0x3f8, %edx
say: lodsb
test %al, %al
jz spin
outb %al, %dx
jmp say
spin: jmp spin
words: .asciz "these are its last words\\n"
.fill 64, 1, 0x90
"""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, kernel: Kernel) -> Iterator[Product]:
    """An installation that waits for a machine for five seconds only: on a busy host those that could start do not."""
    with installed(tmp_path_factory.mktemp("swiftlet"), kernel, SWIFTLET_READY_SECONDS="5") as made:
        yield made


def symbols_of(kernel: Kernel) -> str:
    return Path(kernel.folder, "System.map").read_text()


def put_kernel(product: Product, digest: str, image: bytes, symbols: str = "") -> None:
    folder = Path(product.instance.root) / "cache/kernels" / digest
    folder.mkdir(parents=True)
    (folder / "vmlinux").write_bytes(image)
    (folder / "System.map").write_text(symbols)
    said = {"version": "0", "bytes": len(image), "seconds": 0.0, "source": {"digest": "x"}, "asked": []}
    (folder / "kernel.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def spinning(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image that never comes to a workload."""
    folder = tmp_path_factory.mktemp("spinning")
    (folder / "spin.s").write_text(SPINNING)
    subprocess.run(
        ["gcc", "-nostdlib", "-static", "-m64", "-Wl,-Ttext=0x200000,-e,spinning_for_ever,--build-id=none",
         "-o", str(folder / "spin"), str(folder / "spin.s")], check=True,
    )  # fmt: skip
    return (folder / "spin").read_bytes()


def test_a_guest_that_never_becomes_ready_is_given_up_and_its_last_words_are_told(
    impatient: Product, spinning: bytes
) -> None:
    symbols = "0000000000200000 T spinning_for_ever\n0000000000200100 T behind_it\n"
    put_kernel(impatient, "f" * 64, spinning, symbols)
    failed = impatient.run(*RUN, "--kernel", "ffff", "--", "busybox", "true")
    assert failed.returncode == 126
    assert "not begun its workload after 5 s" in failed.stderr
    assert "in spinning_for_ever" in failed.stderr
    assert "the last of its console: these are its last words" in failed.stderr
    assert impatient.json("ps", "-a") == []


def test_a_kernel_that_hangs_is_told_with_the_initcall_that_it_is_in(impatient: Product, kernel: Kernel) -> None:
    put_kernel(impatient, "d" * 64, patched(kernel, "inetdev_init", HANG), symbols_of(kernel))
    failed = impatient.run(*RUN, "--kernel", "dddd", "--", "busybox", "true")
    assert failed.returncode == 126
    assert "its kernel is in inetdev_init, in the initcall inet_init" in failed.stderr
    assert impatient.json("ps", "-a") == []


def test_a_kernel_that_faults_is_told_with_its_initcall_and_its_console_is_kept(
    impatient: Product, kernel: Kernel
) -> None:
    put_kernel(impatient, "c" * 64, patched(kernel, "inetdev_init", FAULT), symbols_of(kernel))
    failed = impatient.run(*RUN, "--kernel", "cccc", "--", "busybox", "true")
    assert failed.returncode == 126
    assert "died in the initcall inet_init" in failed.stderr
    assert "Kernel panic - not syncing: Attempted to kill init!" in failed.stderr
    kept = re.search(r"its console: (\S+)$", failed.stderr.strip())
    assert kept and "invalid opcode" in Path(kept[1]).read_text()
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


@pytest.mark.parametrize("memory", ["32M", "36M", "44M"])
def test_too_little_memory_for_the_kernel_is_told_with_how_much_is_enough(
    impatient: Product, product: Product, memory: str
) -> None:
    failed = impatient.run(*RUN, "-m", memory, "--", "busybox", "true")
    assert failed.returncode == 126
    assert f"{memory[:-1]} MiB of memory are too little for guest" in failed.stderr
    advice = re.search(r"hint: give it more: -m (\d+M)$", failed.stderr.strip())
    assert advice, failed.stderr
    assert product.ok(*RUN, "-m", advice[1], "--", "busybox", "echo", "enough") == "enough\n"


def test_a_workload_that_takes_all_memory_is_told_from_one_that_was_killed(product: Product) -> None:
    begin = ("run", "-d", "--as", "vm", "-t", "busybox", "-m", "64M")
    greedy = "x=0123456789abcdef; while :; do x=$x$x; done"
    hungry = product.ok(*begin, "--", "busybox", "sh", "-c", greedy).strip()
    assert product.ok("wait", hungry) == "137\n"
    killed = product.ok(*begin, "--", "busybox", "sh", "-c", "kill -9 $$").strip()
    assert product.ok("wait", killed) == "137\n"
    assert [product.json("inspect", each)[0]["exit"]["oom"] for each in (hungry, killed)] == [True, False]
    product.ok("rm", hungry, killed)


def test_more_memory_than_the_host_has_is_refused_at_once(impatient: Product) -> None:
    failed = impatient.run(*RUN, "-m", "9000G", "--", "busybox", "true")
    assert failed.returncode == 125
    assert re.search(r"\$\.resources\.memory: 9216000 MiB are more than this host's \d+ MiB", failed.stderr)
    assert "hint: " in failed.stderr


def test_a_program_for_another_machine_is_refused(product: Product, tmp_path: Path) -> None:
    arm = bytearray(Path("/usr/bin/busybox").read_bytes()[:4096])
    arm[18:20] = b"\xb7\x00"  # e_machine: AArch64
    (tmp_path / "alien").write_bytes(bytes(arm))
    os.chmod(tmp_path / "alien", 0o755)
    done = product.run(*RUN, "-v", f"{tmp_path}:/x", "--", "/x/alien")
    assert done.returncode == 126
    assert "cannot be executed: Exec format error" in done.stderr


def test_an_image_that_was_changed_is_not_used(product: Product) -> None:
    assert product.ok(*RUN, "--", "busybox", "echo", "fine") == "fine\n"
    images = Path(product.instance.root) / "cache/images"
    for image in images.glob("*.erofs"):
        os.chmod(image, 0o644)
        with open(image, "r+b") as file:
            file.seek(4096)
            file.write(b"\0" * 4096)
    assert product.ok(*RUN, "--", "busybox", "echo", "fine") == "fine\n"
