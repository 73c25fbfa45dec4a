"""Kernels that were not built here: what is taken, the initramfs of their modules, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from swiftlet.image.kernel import foreign, initramfs, kept
from swiftlet.model.error import InputError

RELEASE = "6.1.0-9-test"


def module(needs: str = "") -> bytes:
    """What of a module is read."""
    return b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0intree=Y\0"


MODULES = {
    "drivers/virtio/virtio.ko": module(),
    "drivers/virtio/virtio_ring.ko": module("virtio"),
    "drivers/virtio/virtio_pci.ko": module("virtio_ring,virtio"),
    "drivers/block/virtio_blk.ko": module("virtio"),
    "drivers/char/virtio_console.ko": module("virtio"),
    "drivers/char/hw_random/virtio-rng.ko": module("virtio"),
    "fs/erofs/erofs.ko": module("libcrc32c"),
    "lib/libcrc32c.ko": module(),
    "fs/unwanted.ko": module(),
}


def bzimage(release: str = RELEASE) -> bytes:
    image = bytearray(0x400)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x100).to_bytes(2, "little")
    text = f"{release} (somebody@somewhere) #1 SMP".encode()
    image[0x300 : 0x300 + len(text)] = text
    return bytes(image)


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    """A folder as distributions have it, with a kernel whose overlay file system is built in."""
    for name, content in MODULES.items():
        path = tmp_path / "lib/modules" / RELEASE / "kernel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "lib/modules" / RELEASE / "modules.builtin").write_text("kernel/fs/overlayfs/overlay.ko\n")
    (tmp_path / "boot").mkdir()
    (tmp_path / f"boot/vmlinuz-{RELEASE}").write_bytes(bzimage())
    (tmp_path / f"boot/config-{RELEASE}").write_text("CONFIG_SMP=y\nCONFIG_EROFS_FS=m\n")
    return tmp_path / "boot"


@pytest.fixture(autouse=True)
def loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the place of the program that a compiler makes."""
    (tmp_path / "loader").write_bytes(b"program")
    monkeypatch.setattr(foreign, "loader", lambda cache: str(tmp_path / "loader"))


def taken(boot: Path, cache: str, modules: str = "", name: str = "") -> kept.Kernel:
    return foreign.take(f"{boot}/vmlinuz-{RELEASE}", modules, name, cache)


def test_modules_come_after_what_they_need_and_once() -> None:
    needs = {"pci": ["virtio", "ring"], "virtio": [], "ring": ["virtio"], "erofs": [], "unwanted": []}
    assert initramfs.in_order(needs, ("pci", "erofs", "built-in")) == ["virtio", "ring", "pci", "erofs"]


def test_modules_that_need_one_another_are_taken_once_each() -> None:
    assert initramfs.in_order({"a": ["b"], "b": ["a"], "c": ["c"]}, ("a", "c")) == ["b", "a", "c"]


def test_what_lies_beside_modules_is_left_out_and_only_compressed_ones_are_refused(boot: Path) -> None:
    folder = boot.parent / "lib/modules" / RELEASE
    for name in ("erofs.ko.debug", "erofs.kobold"):
        (folder / "kernel/fs" / name).write_text("")
    assert initramfs.modules_of(str(folder))["erofs"] == f"{folder}/kernel/fs/erofs/erofs.ko"
    for ending in ("gz", "xz", "zst"):
        packed = folder / f"kernel/fs/other.ko.{ending}"
        packed.write_text("")
        with pytest.raises(InputError, match="is compressed"):
            initramfs.modules_of(str(folder))
        packed.unlink()


def test_what_a_module_needs_is_read_from_it() -> None:
    assert initramfs.dependencies_of(module("a,b-c")) == ["a", "b_c"]
    assert initramfs.dependencies_of(module()) == initramfs.dependencies_of(b"nothing") == []


@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here: ./dev test installs it")
def test_an_initramfs_is_what_cpio_reads(boot: Path, tmp_path: Path) -> None:
    made = initramfs.for_kernel(f"{boot.parent}/lib/modules/{RELEASE}", f"{tmp_path}/loader")
    assert len(made) % 4 == 0
    (tmp_path / "out").mkdir()
    subprocess.run(["busybox", "cpio", "-i", "-d"], input=made, cwd=tmp_path / "out", check=True, capture_output=True)
    assert (tmp_path / "out/lib/erofs.ko").read_bytes() == module("libcrc32c")
    assert (tmp_path / "out/init").read_bytes() == b"program" and os.access(tmp_path / "out/init", os.X_OK)
    order = (tmp_path / "out/modules").read_text().split()
    assert order[:3] == ["/lib/virtio.ko", "/lib/virtio_ring.ko", "/lib/virtio_pci.ko"]
    assert order[-3:] == ["/lib/libcrc32c.ko", "/lib/erofs.ko", "/lib/virtio_rng.ko"]
    assert "/lib/unwanted.ko" not in order


def test_a_kernel_is_taken_once_and_found_by_its_name(boot: Path, tmp_path: Path) -> None:
    cache = f"{tmp_path}/cache"
    made = taken(boot, cache)
    assert (made.version, kept.names_of(made)) == (RELEASE, [RELEASE])
    assert made.image == made.bzimage and made.initramfs and kept.values_of(made)["CONFIG_SMP"] == "y"
    again = taken(boot, cache, name="stock")
    assert again.digest == made.digest == kept.kernel_named(cache, "stock").digest
    assert [name for name in os.listdir(f"{cache}/kernels") if name.endswith(".new")] == []


@pytest.mark.parametrize("name", ["server", ".x", "beef"])
def test_a_name_that_would_make_it_everybodys_or_nobodys_is_refused_before_anything_is_read(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is no name for a kernel"):
        foreign.take(f"{tmp_path}/none", "", name, f"{tmp_path}/cache")


def compress(module: Path) -> None:
    module.rename(f"{module}.xz")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda boot: (boot / f"vmlinuz-{RELEASE}").write_bytes(b"MZ" * 999), "is no Linux kernel for this processor"),
        (lambda boot: (boot / f"vmlinuz-{RELEASE}").unlink(), "No such file"),
        (lambda boot: (boot / f"vmlinuz-{RELEASE}").write_bytes(bzimage("9.9")), "has no modules of Linux 9.9"),
        (lambda boot: next(boot.parent.rglob("virtio_blk.ko")).unlink(), "has no virtio_blk"),
        (lambda boot: next(boot.parent.rglob("modules.builtin")).unlink(), "has no overlay"),
        (lambda boot: compress(next(boot.parent.rglob("erofs.ko"))), "is compressed"),
    ],
)  # fmt: skip
def test_what_cannot_start_a_machine_is_refused_and_leaves_nothing(change, told, boot: Path, tmp_path: Path) -> None:
    change(boot)
    with pytest.raises(InputError) as caught:
        taken(boot, f"{tmp_path}/cache")
    assert told in str(caught.value) and caught.value.hint
    assert kept.kernels_of(f"{tmp_path}/cache") == []
