from __future__ import annotations

import hashlib
import os
import zipfile

import pytest

from swiftlet.model.error import FetchError
from swiftlet.resolve.archive import PACKAGE, Archive
from swiftlet.resolve.wheel import WHEEL, Wheel, Wheels
from tests.unit.debian_sample import Sample
from tests.unit.elf_sample import build_elf


def opened(path, folder, form=PACKAGE):
    digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
    return Archive(str(path), digest, str(folder), form)


def content(archive, path):
    member = archive.members[path]
    descriptor, offset = archive.content(member)
    return os.pread(descriptor, member.size, offset)


@pytest.fixture
def package(tmp_path):
    files = {
        "/bin/tool": (b"#!/bin/sh\necho\n", 0o4755),
        "/usr/bin/other": ("hard", "/bin/tool"),
        "/lib/x.so": build_elf(needed=["libc.so.6"]),
        "/lib/bad.so": build_elf()[:80],
        "/usr/share/l": ("link", "../../etc/x"),
        "/etc/empty": b"",
        "/var/d": ("folder", 0o1777),
    }
    return Sample(tmp_path / "sample").add("x", files=files)


def test_members_have_canonical_paths_digests_and_facts(package, tmp_path):
    with opened(package, tmp_path / "index") as archive:
        tool, library = archive.members["/usr/bin/tool"], archive.members["/usr/lib/x.so"]
        assert tool.script == "/bin/sh" and tool.mode == 0o4755
        assert tool.digest == hashlib.sha256(b"#!/bin/sh\necho\n").hexdigest()
        assert library.facts is not None and library.facts.needed == ("libc.so.6",)
        assert "cut short" in archive.members["/usr/lib/bad.so"].unusable
        assert archive.members["/usr/share/l"].target == "../../etc/x"
        assert archive.members["/var/d"].mode == 0o1777
        assert content(archive, "/usr/bin/tool") == b"#!/bin/sh\necho\n"


def test_a_hard_link_has_the_content_of_its_other_name(package, tmp_path):
    with opened(package, tmp_path / "index") as archive:
        assert content(archive, "/usr/bin/other") == b"#!/bin/sh\necho\n"


def test_the_second_time_nothing_is_unpacked_until_content_is_asked_for(package, tmp_path):
    with opened(package, tmp_path / "index") as first:
        members = first.members
    hidden = package.rename(tmp_path / "hidden.deb")
    digest = hashlib.sha256(hidden.read_bytes()).hexdigest()
    with Archive(str(package), digest, str(tmp_path / "index"), PACKAGE) as second:
        assert second.members == members
        with pytest.raises(FetchError):
            second.content(members["/etc/empty"])


def test_a_damaged_index_is_made_again(package, tmp_path):
    with opened(package, tmp_path / "index") as first:
        members = first.members
    (index,) = (tmp_path / "index").iterdir()
    index.write_bytes(b'[{"path": 3}]')
    with opened(package, tmp_path / "index") as second:
        assert second.members == members


@pytest.mark.parametrize("cut", [0, 10, 100, 1000])
def test_a_damaged_package_is_named(package, tmp_path, cut):
    damaged = tmp_path / "damaged.deb"
    damaged.write_bytes(package.read_bytes()[:cut])
    with pytest.raises(FetchError, match=r"damaged\.deb"):
        opened(damaged, tmp_path / "index")
    assert not (tmp_path / "index").exists() or not list((tmp_path / "index").iterdir())


def wheel(tmp_path, files):
    path = tmp_path / "w-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in files.items():
            item = zipfile.ZipInfo(name)
            item.external_attr = mode << 16
            archive.writestr(item, data)
    return path


def test_a_wheel_appears_below_its_place(tmp_path):
    path = wheel(tmp_path, {"p/bin/tool": (b"#!/bin/sh\n", 0o755), "p/data": (b"x" * 1000, 0o644)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "cache" / "wheels").mkdir(parents=True)
    path.rename(tmp_path / "cache" / "wheels" / f"{digest}.whl")
    with Wheels(str(tmp_path / "cache"), [Wheel("w", "1", digest, "/usr/lib/w")]) as wheels:
        tool, data = wheels.find("/usr/lib/w/p/bin/tool"), wheels.find("/usr/lib/w/p/data")
        assert tool is not None and tool.member.mode == 0o755 and tool.source == "wheel:w==1"
        assert data is not None
        descriptor, offset = wheels.content(data)
        assert os.pread(descriptor, data.member.size, offset) == b"x" * 1000


@pytest.mark.parametrize("name", ["../../etc/passwd", "p/../../x", "a\\..\\..\\x/../.."])
def test_a_wheel_that_climbs_is_refused(tmp_path, name):
    with pytest.raises(FetchError, match="damaged wheel"):
        opened(wheel(tmp_path, {name: (b"x", 0o644)}), tmp_path / "index", WHEEL)


def test_a_wheel_that_declares_ten_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    path = wheel(tmp_path, {"x": (b"x", 0o644)})
    data = bytearray(path.read_bytes())
    for size in (22, 24):  # uncompressed size in the local header, and in the central directory
        place = 22 if size == 22 else data.index(b"PK\1\2") + 24
        data[place : place + 4] = b"\xfe\xff\xff\xff"
    path.write_bytes(data)
    import swiftlet.resolve.wheel as module

    limit = module.MAX_CLOSURE_BYTES
    module.MAX_CLOSURE_BYTES = 1 << 30
    try:
        with pytest.raises(FetchError, match="larger than any closure"):
            opened(path, tmp_path / "index", WHEEL)
    finally:
        module.MAX_CLOSURE_BYTES = limit


def test_a_wheel_whose_content_is_damaged_is_named(tmp_path):
    path = wheel(tmp_path, {"x": (b"hello" * 100, 0o644)})
    data = bytearray(path.read_bytes())
    data[35] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FetchError, match=r"w-1-py3-none-any\.whl"):
        opened(path, tmp_path / "index", WHEEL)
