"""A disk image as values: which partitions it has and where, what the kernel is told, which programs make it. Pure.

::

    bios        MBR   [GRUB in the gap]              FAT: kernel   EROFS: root   [ext4: what is written]
    efi         GPT                                  FAT: kernel   EROFS: root   [ext4: what is written]
    bios,efi    GPT   [GRUB in its own partition]    FAT: kernel   EROFS: root   [ext4: what is written]

Firmware of the EFI kind starts the kernel itself, from the place where it looks on any disk. The last partition is
there when a size was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID, uuid5

from swiftlet.image.disk.table import MIB, SECTOR, Partition
from swiftlet.model.error import InputError

FIRMWARE = ("bios", "efi")

KERNEL_FILE = "/EFI/BOOT/BOOTX64.EFI"
"""Where firmware looks for what to start on a disk that it knows nothing of (UEFI specification 2.10, 3.5.1.1)."""

ROOT_LABEL = "swiftlet-root"
"""By which a kernel that EFI firmware starts finds its root: in its built-in words (kernels/disk.config)."""

_LEAST_FAT = 40 * MIB
"""FAT32, which is what firmware has to understand, begins at 65,525 clusters."""

_LEAST_DATA = 16 * MIB

_NAMESPACE = UUID("5f1f6d3e-61a4-5a0c-9f5c-0d4b9c1f7a52")
"""Of our own, so that an image's identifiers come from its content."""

_WORDS = "rootfstype=erofs rootwait ro init=/init ip=dhcp random.trust_cpu=on panic=10"
_CONSOLES = "console=tty0 console=ttyS0,115200"

_NEEDED_OPTIONS = (
    "CONFIG_ACPI", "CONFIG_PCI", "CONFIG_EROFS_FS", "CONFIG_OVERLAY_FS", "CONFIG_TMPFS", "CONFIG_DEVTMPFS",
    "CONFIG_IP_PNP_DHCP", "CONFIG_SERIAL_8250_CONSOLE",
)  # fmt: skip

PROGRAMS: Mapping[str, str] = {
    "mkfs.erofs": "erofs-utils",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mcopy": "mtools",
    "grub-mkimage": "grub-common grub-pc-bin",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
}
"""Programs that make images, and the Debian packages that have them."""


class Disk(NamedTuple):
    """sectors: of the whole. core_at, core_room: where GRUB's second part goes, 0 without a BIOS.

    words: the kernel's command line, as GRUB gives it. signature: of the older table, id: of GPT.
    """

    gpt: bool
    sectors: int
    partitions: tuple[Partition, ...]
    core_at: int
    core_room: int
    words: str
    signature: int
    id: UUID

    def partition(self, name: str) -> Partition | None:
        """A partition by its name."""
        return next((each for each in self.partitions if each.name == name), None)

    def number(self, name: str) -> int:
        """A partition's number in the table, from 1."""
        return [each.name for each in self.partitions].index(name) + 1


def disk(firmware: Sequence[str], kernel_bytes: int, root_bytes: int, size: int, key: str) -> Disk:
    """Where everything goes. size: bytes of the disk, 0 for no more than needed. key: identifiers come from it.

    Raises InputError when the size is too small.
    """
    gpt = "efi" in firmware
    wanted = [("swiftlet-grub", "bios", MIB)] if gpt and "bios" in firmware else []
    wanted.append(("swiftlet-boot", "boot", max(_LEAST_FAT, _whole(kernel_bytes) + 4 * MIB)))
    wanted.append((ROOT_LABEL, "linux", _whole(root_bytes)))
    end = MIB + sum(sectors for _, _, sectors in wanted)
    least = end + (MIB if gpt else 0)  # for the table's other copy
    data = size // SECTOR // MIB * MIB - least
    if size and data < _LEAST_DATA:
        needed = (least + _LEAST_DATA) * SECTOR >> 20
        raise InputError(f"--size: {size} bytes are too few", f"this image and room to write in take {needed}M")
    if size:
        wanted.append(("swiftlet-data", "linux", data))
    sectors = least + max(0, data)
    partitions = _placed(wanted, key)
    signature = int.from_bytes(_id(key, "disk").bytes[:4], "little") | 1
    core_at, core_room = (1, MIB - 1) if not gpt else (MIB, MIB)
    if "bios" not in firmware:
        core_at = core_room = 0
    number = next(place for place, each in enumerate(partitions, 1) if each.name == ROOT_LABEL)
    root = str(partitions[number - 1].id) if gpt else f"{signature:08x}-{number:02x}"
    words = f"{_CONSOLES} loglevel=4 root=PARTUUID={root} {_WORDS}"
    return Disk(gpt, sectors, partitions, core_at, core_room, words, signature, _id(key, "disk"))


def _placed(wanted: Sequence[tuple[str, str, int]], key: str) -> tuple[Partition, ...]:
    placed = []
    start = MIB
    for name, kind, sectors in wanted:
        placed.append(Partition(name, kind, start, sectors, _id(key, name)))
        start += sectors
    return tuple(placed)


def _whole(size: int) -> int:
    """Sectors of so many bytes, in whole MiB."""
    return -(-size // (MIB * SECTOR)) * MIB


def _id(key: str, what: str) -> UUID:
    return uuid5(_NAMESPACE, f"{key} {what}")


def programs(firmware: Sequence[str], formats: Sequence[str], size: int) -> list[str]:
    """Programs of PROGRAMS that an image takes."""
    needed = ["mkfs.erofs", "mkfs.vfat", "mmd", "mcopy"]
    needed += ["grub-mkimage"] if "bios" in firmware else []
    needed += ["mke2fs"] if size else []
    return needed + (["qemu-img"] if set(formats) - {"raw"} else [])


def lacking(values: Mapping[str, str], firmware: Sequence[str], *, compressed: bool = False) -> list[str]:
    """Options without which a kernel of this configuration would not start from such an image."""
    needed = (*_NEEDED_OPTIONS, *(("CONFIG_EROFS_FS_ZIP",) if compressed else ()))
    missing = [option for option in needed if values.get(option) != "y"]
    if "efi" in firmware:
        missing += [option for option in ("CONFIG_EFI_STUB", "CONFIG_EFI_PARTITION") if values.get(option) != "y"]
        if f"root=PARTLABEL={ROOT_LABEL}" not in values.get("CONFIG_CMDLINE", ""):
            missing.append("CONFIG_CMDLINE with the root")
    return missing
