"""Disk images as values: tables, GRUB, places, OVF; and that the same input gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

import pytest

from swiftlet.image.disk import build, formats, grub, plan, table
from swiftlet.image.disk.ovf import Appliance, descriptor
from swiftlet.image.disk.root import make_root
from swiftlet.image.kernel import configuration, profile
from swiftlet.model.error import FullError, HostError, InputError, StoreError

BOTH = ("bios", "efi")
MIB = 1 << 20

needs_programs = pytest.mark.skipif(
    any(build._which(name) is None for name in plan.PROGRAMS) or not os.path.isdir(grub.FOLDER),
    reason="no programs for disk images: ./dev test installs them",
)


def disk(firmware: tuple[str, ...] = BOTH, size: int = 0, key: str = "k") -> plan.Disk:
    return plan.disk(firmware, 5 * MIB, 3 * MIB + 1, size, key)


# Places


@pytest.mark.parametrize("firmware", [("bios",), ("efi",), BOTH])
@pytest.mark.parametrize("size", [0, 200 * MIB, 5 << 40])
def test_partitions_are_aligned_in_order_and_leave_room_for_the_tables(firmware: tuple[str, ...], size: int) -> None:
    found = disk(firmware, size)
    end = table.MIB
    for each in found.partitions:
        assert each.start == end
        assert each.start % table.MIB == each.sectors % table.MIB == 0
        end += each.sectors
    assert end + (table.BACKUP_SECTORS if found.gpt else 0) <= found.sectors
    assert found.sectors * 512 == size or not size
    assert (found.partition("swiftlet-data") is not None) == bool(size)


def test_a_bios_alone_gets_the_old_table_with_grub_in_the_gap() -> None:
    found = disk(("bios",))
    assert not found.gpt
    assert (found.core_at, found.core_room) == (1, table.MIB - 1)
    assert f"root=PARTUUID={found.signature:08x}-02 " in found.words


def test_both_kinds_of_firmware_share_one_kernel_and_grub_has_a_partition() -> None:
    found = disk()
    assert [each.kind for each in found.partitions] == ["bios", "boot", "linux"]
    assert found.core_at == found.partitions[0].start
    assert f"root=PARTUUID={found.partitions[2].id} " in found.words
    assert "loglevel=4" in found.words
    assert "initrd" not in grub.configuration(plan.KERNEL_FILE, found.words)


def test_efi_alone_needs_no_grub() -> None:
    assert disk(("efi",)).core_room == 0


def test_a_size_without_room_to_write_in_is_refused_with_the_least() -> None:
    with pytest.raises(InputError) as caught:
        disk(size=50 * MIB)
    assert str(50 * MIB) in str(caught.value)
    least = int(caught.value.hint.rpartition(" ")[2].removesuffix("M"))
    assert disk(size=least * MIB).sectors == least * table.MIB
    with pytest.raises(InputError):
        disk(size=(least - 1) * MIB)


def test_identifiers_come_from_the_content_alone() -> None:
    assert disk() == disk()
    assert disk(key="other").id != disk().id
    assert disk(("bios",), key="other").signature != disk(("bios",)).signature


# Tables


def test_the_old_table_marks_what_starts() -> None:
    found = disk(("bios",))
    content = table.mbr(found.partitions, found.signature)
    assert len(content) == 512 - grub.CODE_BYTES
    assert content[-2:] == b"\x55\xaa"
    assert struct.unpack_from("<I", content)[0] == found.signature
    flag, kind, start, sectors = struct.unpack_from("<B3xB3xII", content, 6)
    assert (flag, kind, start, sectors) == (0x80, 0x0C, found.partitions[0].start, found.partitions[0].sectors)


def test_both_copies_of_the_new_table_agree_and_their_checksums_hold() -> None:
    found = disk()
    written = table.gpt(found.partitions, found.sectors, found.id)
    last = found.sectors - 1
    for place, other in ((1, last), (last, 1)):
        header = written[place]
        fields = struct.unpack_from("<8sIIIIQQQQ16sQIII", header)
        assert fields[0] == b"EFI PART"
        assert fields[3] == zlib.crc32(header[:16] + bytes(4) + header[20:92])
        assert fields[5:7] == (place, other)
        assert UUID(bytes_le=fields[9]) == found.id
        assert zlib.crc32(written[fields[10]]) == fields[13]
    assert written[2] == written[last - 32]
    assert "swiftlet-root".encode("utf-16-le") in written[2]


def test_a_disk_beyond_two_tebibytes_has_a_protective_entry_that_can_be_said() -> None:
    assert struct.unpack_from("<I", table.protective(1 << 34), 18)[0] == 0xFFFFFFFF


# GRUB


def boot_image() -> bytes:
    image = bytearray(512)
    image[0x66:0x68] = b"\xeb\x05"
    image[-2:] = b"\x55\xaa"
    return bytes(image)


def core_image(sectors: int = 5) -> bytes:
    image = bytearray(sectors * 512 - 100)
    struct.pack_into("<QHH", image, 500, 1, sectors - 1, 0x820)
    return bytes(image)


def test_the_first_sector_says_where_the_second_part_lies() -> None:
    code = grub.boot_code(boot_image(), 2048)
    assert len(code) == grub.CODE_BYTES
    assert struct.unpack_from("<Q", code, 0x5C)[0] == 2048
    assert code[0x66:0x68] == b"\x90\x90"


def test_the_second_part_says_where_its_rest_lies() -> None:
    placed = grub.core(core_image(), 2048, 2048)
    assert len(placed) == 5 * 512
    assert struct.unpack_from("<QHH", placed, 500) == (2049, 4, 0x820)


@pytest.mark.parametrize("image", [b"", bytes(512), boot_image()[:-1], boot_image() + b"x"])
def test_another_first_sector_is_refused(image: bytes) -> None:
    with pytest.raises(HostError, match=r"boot\.img"):
        grub.boot_code(image, 1)


@pytest.mark.parametrize("image", [b"", bytes(512), core_image()[:-512], core_image() + bytes(512)])
def test_another_second_part_is_refused(image: bytes) -> None:
    with pytest.raises(HostError, match=r"core\.img"):
        grub.core(image, 1, 2047)


def test_a_second_part_that_is_too_long_is_refused() -> None:
    with pytest.raises(HostError, match="there are 4 for it"):
        grub.core(core_image(), 1, 4)


# Kernels


def test_the_profile_has_what_every_disk_needs_and_the_words_for_efi() -> None:
    asked = {each.symbol: each.value for each in profile.requests_of(profile.profile_named("disk")).values()}
    assert plan.lacking(asked, BOTH, compressed=True) == []


def test_only_a_kernel_that_undoes_it_is_given_a_compressed_root() -> None:
    asked = {each.symbol: each.value for each in profile.requests_of(profile.profile_named("disk")).values()}
    del asked["CONFIG_EROFS_FS_ZIP"]
    assert plan.lacking(asked, BOTH) == []
    assert plan.lacking(asked, BOTH, compressed=True) == ["CONFIG_EROFS_FS_ZIP"]


def test_a_kernel_for_machines_of_ours_is_told_what_it_lacks() -> None:
    asked = {each.symbol: each.value for each in profile.requests_of(profile.profile_named("server")).values()}
    assert "CONFIG_ACPI" in plan.lacking(asked, ("bios",))
    assert "CONFIG_EFI_STUB" not in plan.lacking(asked, ("bios",))
    assert {"CONFIG_EFI_STUB", "CONFIG_CMDLINE with the root"} <= set(plan.lacking(asked, ("efi",)))


def test_pci_is_asked_for_wherever_acpi_is() -> None:
    for each in profile.PROFILES.values():
        asked = {found.symbol: found.value for found in profile.requests_of(each).values()}
        assert asked.get("CONFIG_ACPI", "n") == "n" or asked.get("CONFIG_PCI") == "y", each.name


def test_no_line_of_the_fragment_is_lost() -> None:
    with open(f"{profile.FRAGMENTS}/disk.config") as file:
        assert len(configuration.read_fragment(file.read(), "disk")) > 40


# Formats


def test_a_format_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="vdi") as caught:
        formats.check_formats(("raw", "vdi"))
    assert caught.value.hint == "there are raw, qcow2, vhd, ova"


def test_the_descriptor_says_what_the_machine_needs_whatever_its_name() -> None:
    appliance = Appliance('a & "b" <c>', "x > y", 256 * MIB, 2, 'a & "b" <c>.vmdk', 77, 128 * MIB, efi=True)
    tree = ElementTree.fromstring(descriptor(appliance))
    rasd = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
    ovf = "{http://schemas.dmtf.org/ovf/envelope/1}"
    kinds = {item.findtext(f"{rasd}ResourceType"): item for item in tree.iter(f"{ovf}Item")}
    assert set(kinds) == {"3", "4", "10", "17", "20"}
    assert kinds["4"].findtext(f"{rasd}VirtualQuantity") == "256"
    assert kinds["17"].findtext(f"{rasd}Parent") == kinds["20"].findtext(f"{rasd}InstanceID")
    for item in kinds.values():
        names = [child.tag for child in item]
        assert names == sorted(names)
    assert next(tree.iter(f"{ovf}File")).get(f"{ovf}href") == appliance.disk
    assert 'vmw:value="efi"' in descriptor(appliance)
    assert "vmw:value" not in descriptor(appliance._replace(efi=False))


# Making


@pytest.fixture
def machine(tmp_path: Path) -> str:
    made = tmp_path / "machine"
    for name in ("dev", "proc", "sys", "upper", "root", "lower/0", "lower/1"):
        (made / name).mkdir(parents=True)
    (made / "init").write_bytes(b"init")
    return str(made)


@pytest.fixture
def lower(tmp_path: Path) -> str:
    made = tmp_path / "tree"
    (made / "usr/bin").mkdir(parents=True)
    (made / "usr/bin/x").write_bytes(os.urandom(100_000))
    (made / "usr/bin/y").symlink_to("x")
    (made / "usr").chmod(0o711)
    return str(made)


def asked(tmp_path: Path, name: str, machine: str, lower: str, firmware: tuple[str, ...], size: int) -> build.Asked:
    folder = str(tmp_path / f"root-{name}")
    make_root(folder, machine, [lower], "x0")
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(b"kernel" * 1000)
    return build.Asked(folder, str(kernel), firmware, size)


def test_a_root_has_the_trees_as_links_and_the_orders_for_root_alone(tmp_path: Path, machine: str, lower: str) -> None:
    root = asked(tmp_path, "a", machine, lower, BOTH, 0).tree
    assert os.path.samefile(f"{root}/lower/0/usr/bin/x", f"{lower}/usr/bin/x")
    assert os.readlink(f"{root}/lower/0/usr/bin/y") == "x"
    assert os.stat(f"{root}/lower/0/usr").st_mode & 0o777 == 0o711
    assert os.listdir(f"{root}/lower/1") == []
    assert os.stat(f"{root}/orders").st_mode & 0o777 == 0o400


@needs_programs
@pytest.mark.parametrize(("firmware", "size"), [(("bios",), 0), (("efi",), 0), (BOTH, 128 * MIB)])
def test_the_same_input_gives_the_same_disk_at_every_time(
    tmp_path: Path, machine: str, lower: str, firmware: tuple[str, ...], size: int
) -> None:
    digests = []
    for name in ("one", "two"):
        again = str(tmp_path / f"lower-{name}")
        shutil.copytree(lower, again, symlinks=True, copy_function=shutil.copy)
        path, work = str(tmp_path / f"{name}.raw"), tmp_path / name
        work.mkdir()
        build.build(asked(tmp_path, name, machine, again, firmware, size), path, str(work))
        digests.append(hashlib.sha256(Path(path).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert os.stat(path).st_blocks * 512 < os.stat(path).st_size / 2


@needs_programs
@pytest.mark.parametrize(("firmware", "size"), [(("bios",), 0), (BOTH, 128 * MIB)])
def test_other_peoples_programs_find_nothing_wrong(
    tmp_path: Path, machine: str, lower: str, firmware: tuple[str, ...], size: int
) -> None:
    path = str(tmp_path / "x.raw")
    made = build.build(asked(tmp_path, "x", machine, lower, firmware, size), path, str(tmp_path))
    told = subprocess.run([str(build._which("sfdisk")), "--verify", path], capture_output=True, text=True)
    assert "No errors detected" in told.stdout, told.stderr
    checks = {"swiftlet-boot": ["fsck.vfat", "-n"], "swiftlet-data": ["e2fsck", "-fn"]}
    for name, command in checks.items():
        place = made.partition(name)
        if place is not None:
            part = str(tmp_path / name)
            with open(path, "rb") as disk_file, open(part, "wb") as file:
                disk_file.seek(place.start * 512)
                file.write(disk_file.read(place.sectors * 512))
            done = subprocess.run([str(build._which(command[0])), command[1], part], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", sorted(plan.PROGRAMS))
def test_a_missing_program_is_told_with_its_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_which", lambda wanted: None if wanted == name else "/bin/true")
    monkeypatch.setattr(grub, "FOLDER", "/nowhere")
    with pytest.raises(HostError) as caught:
        build.check_programs(BOTH, ("raw", "ova"), 1 << 30)
    assert name in str(caught.value)
    assert caught.value.hint.startswith("apt-get install ")
    assert set(plan.PROGRAMS[name].split()) <= set(caught.value.hint.split())


def test_an_image_for_efi_in_raw_form_takes_no_grub_and_no_qemu() -> None:
    assert not {"grub-mkimage", "qemu-img", "mke2fs"} & set(plan.programs(("efi",), ("raw",), 0))


def test_a_program_that_fails_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_which", lambda name: "/bin/sh")
    with pytest.raises(StoreError, match="mcopy failed: it hurts"):
        build.run(["mcopy", "-c", "echo it hurts >&2; exit 1"], str(tmp_path / "x"))
    with pytest.raises(FullError):
        build.run(["mcopy", "-c", "echo No space left on device >&2; exit 1"], str(tmp_path / "x"))


def test_a_delivered_image_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "x.raw").write_text("old")
    formats.deliver(str(tmp_path / "new"), str(tmp_path / "x.raw"))
    assert (tmp_path / "x.raw").read_text() == "new"
    assert os.listdir(tmp_path) == ["x.raw"]
