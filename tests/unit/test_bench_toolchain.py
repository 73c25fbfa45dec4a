"""The benches of toolchains, of containers in machines and of sizes: what they read, what they add up."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from bench import sizes, toolchain
from bench.report import Report
from swiftlet.image import erofs
from swiftlet.image.kernel.build import Kernel

SAID = """\x1b[37minfo: reading kernel config ...\x1b[m

Generally Necessary:
- \x1b[37mcgroup hierarchy\x1b[m: \x1b[32mcgroupv2\x1b[m
- \x1b[37mCONFIG_VETH\x1b[m: \x1b[32menabled\x1b[m
- \x1b[1mCONFIG_BRIDGE\x1b[m: \x1b[1;31mmissing\x1b[m

Optional Features:
- \x1b[37mCONFIG_SECCOMP\x1b[m: \x1b[32menabled\x1b[m
- \x1b[1mCONFIG_MEMCG_SWAP\x1b[m: \x1b[1;31mmissing\x1b[m
    \x1b[1;30m(cgroup swap accounting is currently enabled)\x1b[m
- Network Drivers:
  - "\x1b[34moverlay\x1b[m":
    - \x1b[1mCONFIG_VXLAN\x1b[m: \x1b[1;31mmissing\x1b[m
"""


def test_what_mobys_check_calls_necessary_is_told_from_what_is_optional() -> None:
    found = toolchain.checked(SAID)
    assert found.enabled == ("cgroup hierarchy", "CONFIG_VETH")
    assert found.missing == ("CONFIG_BRIDGE",)
    assert found.optional_missing == ("CONFIG_MEMCG_SWAP", "CONFIG_VXLAN")


@pytest.mark.parametrize(
    "text", ["", "error: cannot find kernel config", "Generally Necessary:\n- CONFIG_VETH: enabled"]
)
def test_a_check_that_did_not_get_to_its_end_is_no_pass(text: str) -> None:
    with pytest.raises(OSError, match="wrote something else"):
        toolchain.checked(text)


@pytest.mark.skipif(not os.path.exists(toolchain.BUSYBOX), reason="no busybox-static: ./dev test installs it")
def test_the_containers_root_has_its_programs_and_its_page(tmp_path: Path) -> None:
    toolchain.image_archive(str(tmp_path / "root.tar"))
    with tarfile.open(tmp_path / "root.tar") as archive:
        assert archive.getmember("bin/httpd").linkname == "busybox"
        assert archive.getmember("bin/busybox").mode & 0o111
        page = archive.extractfile("www/index.html")
        assert page is not None
        assert page.read().decode() == toolchain.PAGE


@pytest.fixture
def lab(tmp_path: Path) -> sizes.Lab:
    if shutil.which("mkfs.erofs") is None:
        pytest.skip("no mkfs.erofs: ./dev test installs it")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "text").write_text("a line like every other\n" * 20_000)
    image = erofs.image_of(str(tree), "name", str(tmp_path))
    sizes._pack(str(tree), image.path)
    (tmp_path / "vmlinux").write_bytes(b"x" * 900)
    (tmp_path / "bzImage").write_bytes(b"x" * 300)
    kernel = Kernel(str(tmp_path), "digest", "6.1", 900, 1.0)
    guest = sizes.Guest("hello", "micro", "busybox", 100_000, ())
    return sizes.Lab(guest, kernel, {}, (image,), 4096)


def test_what_is_chosen_is_what_a_machine_is_given(lab: sizes.Lab, tmp_path: Path) -> None:
    for kind in (sizes.PACKED, sizes.PLAIN, sizes.PLAIN, sizes.PACKED):
        sizes.choose(lab, kind)
        given = erofs.image_of(
            str(tmp_path / "gone"), "name", str(tmp_path)
        )  # found, for there is nothing to make it of
        assert Path(given.path).read_bytes() == Path(f"{lab.images[0].path}.{kind}").read_bytes()


def test_sizes_are_of_what_images_hold_and_the_limit_is_of_what_is_stored(lab: sizes.Lab) -> None:
    report = Report("sizes", {})
    report.extra["met"] = {}
    sizes.record(lab, report)
    values = {name.removeprefix("hello_"): metric.value for name, metric in report.metrics.items()}
    assert values["root_bytes"] == 4096 + lab.images[0].bytes < 1 << 20  # the file is longer: 2 MiB, of which a hole
    assert values["used_bytes"] == 900 + values["root_bytes"]
    assert values["stored_bytes"] == 300 + values["root_compressed_bytes"] < values["used_bytes"]
    assert report.extra["met"] == {"hello": True}
    sizes.record(lab._replace(guest=lab.guest._replace(limit=1000)), report)
    assert report.extra["met"] == {"hello": False}
