"""Kernel trees from archives and by path, and what is said of requests that a kernel cannot meet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from swiftlet.image.kernel import build, configuration, kconfig
from swiftlet.image.kernel.configuration import Unmet, Wanted
from swiftlet.image.kernel.source import source_at
from swiftlet.model.error import HostError, InputError, KernelError

MAKEFILE = "# SPDX\nVERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 192\nEXTRAVERSION =\nNAME = Curry Ramen\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "linux-source-6.1"
    made.mkdir()
    (made / "Makefile").write_text(MAKEFILE)
    (made / "Kconfig").write_text("config A\n\tbool\n")
    return made


def packed(tree: Path) -> Path:
    archive = tree.parent / f"{tree.name}.tar.xz"
    subprocess.run(["tar", "-C", str(tree.parent), "-cJf", str(archive), tree.name], check=True)
    return archive


def test_an_archive_is_unpacked_once(tree: Path, tmp_path: Path) -> None:
    archive, cache = str(packed(tree)), str(tmp_path / "cache")
    source = source_at(archive, cache)
    assert source.version == "6.1.192" and os.listdir(f"{cache}/sources") == [os.path.basename(source.path)]
    Path(source.path, "mark").touch()
    assert source_at(archive, cache) == source and os.path.exists(f"{source.path}/mark")


def test_an_archive_that_is_cut_short_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    archive = packed(tree)
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(KernelError, match="cannot be unpacked"):
        source_at(str(archive), str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "cache/sources") == []


def test_an_archive_of_something_else_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    (tree / "Makefile").unlink()
    with pytest.raises(InputError, match="no kernel tree"):
        source_at(str(packed(tree)), str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "cache/sources") == []


def test_a_tree_by_path_is_another_source_when_a_file_of_it_changes(tree: Path, tmp_path: Path) -> None:
    before = source_at(str(tree), str(tmp_path))
    assert source_at(str(tree), str(tmp_path)) == before
    (tree / "Kconfig").write_text("config B\n\tbool\n")
    assert source_at(str(tree), str(tmp_path)).digest != before.digest


@pytest.mark.parametrize("name", ["nothing", "Makefile"])
def test_what_is_no_source_is_refused(tree: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no kernel source"):
        source_at(str(tree / name), str(tmp_path))


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name in ("flex", "bc") else f"/usr/bin/{name}")
    with pytest.raises(HostError) as caught:
        build.check_tools()
    assert "bc flex" in caught.value.hint


def option(title: str, *conditions: str) -> kconfig.Option:
    return kconfig.Option("CONFIG_A", title, conditions, "Kconfig", 1)


@pytest.mark.parametrize(
    ("definitions", "asked", "value", "said"),
    [
        ([], "y", "n", "is no option of this kernel"),
        ([option("A", "NET && !SMALL")], "y", "n", "needs NET"),
        ([option("A", "NET"), option("A", "PCI")], "y", "n", "needs NET or PCI"),
        ([option("")], "y", "n", "cannot be asked for"),
        ([option("A")], "n", "y", "stays y: another option selects it"),
        ([option("A")], "5", "4", "became 4"),
    ],
)
def test_it_says_why_a_request_was_not_met(
    definitions: list[kconfig.Option], asked: str, value: str, said: str
) -> None:
    unmet = Unmet(Wanted("CONFIG_A", asked, "mine.config", 7), value)
    message, _ = build.explained([unmet], {}, {"CONFIG_A": definitions} if definitions else {})
    assert message.startswith(f"CONFIG_A={asked} (mine.config, line 7) ") and said in message


def test_a_damaged_record_is_no_kernel(tmp_path: Path) -> None:
    folder = tmp_path / "kernels/abc"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"version": "6.1')
    assert build.kernel_of(str(tmp_path), "abc") is None and build.kernels_of(str(tmp_path)) == []


def test_equal_requests_are_rendered_alike_whatever_fragment_they_come_from() -> None:
    one = configuration.merged([("a", "CONFIG_A=y\n"), ("b", "CONFIG_B=y\n")])
    two = configuration.merged([("c", "CONFIG_A=y\nCONFIG_B=y\n")])
    assert configuration.render(one.values()) == configuration.render(two.values())
