"""Images of trees: the same bytes for the same tree, and none that was changed is ever used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from swiftlet.image import erofs
from swiftlet.model.error import HostError, StoreError
from swiftlet.store.objects import MTIME

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no mkfs.erofs: ./dev test installs it")


@pytest.fixture
def tree(tmp_path: Path) -> str:
    made = tmp_path / "tree"
    (made / "usr/bin").mkdir(parents=True)
    (made / "usr/bin/x").write_bytes(os.urandom(10_000))
    (made / "bin").symlink_to("usr/bin")
    return str(made)


def test_a_tree_gives_the_same_bytes_at_every_time(tree: str, tmp_path: Path) -> None:
    first = erofs.image_of(tree, "a", str(tmp_path / "one"))
    os.utime(f"{tree}/usr/bin/x", (1, 1))
    second = erofs.image_of(tree, "a", str(tmp_path / "two"))
    assert first.digest == second.digest
    assert os.stat(first.path).st_size % (2 << 20) == 0
    assert os.stat(first.path).st_mode & 0o777 == 0o444


def test_files_have_the_date_that_they_have_in_the_store(tree: str, tmp_path: Path) -> None:
    """By it Python knows which modules it has compiled, and make what is to be made."""
    image = erofs.image_of(tree, "a", str(tmp_path))
    for path in ("/usr", "/usr/bin/x", "/bin"):
        said = subprocess.run(["dump.erofs", f"--path={path}", image.path], capture_output=True, text=True, check=True)
        found = re.search(r"^Timestamp: (\S+ \S+?)(\.0*)?$", said.stdout, re.MULTILINE)
        assert found and found[1] == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(MTIME)), said.stdout


def test_an_image_is_made_once(tree: str, tmp_path: Path) -> None:
    first = erofs.image_of(tree, "a", str(tmp_path))
    number = os.stat(first.path).st_ino
    assert erofs.image_of(tree, "a", str(tmp_path)) == first
    assert os.stat(first.path).st_ino == number


@pytest.mark.parametrize("damage", ["changed", "cut short", "no record", "a record of nothing"])
def test_an_image_that_is_not_what_was_made_is_made_again(tree: str, tmp_path: Path, damage: str) -> None:
    image = erofs.image_of(tree, "a", str(tmp_path))
    record = image.path.replace(".erofs", ".json")
    os.chmod(image.path, 0o644)
    if damage == "changed":
        with open(image.path, "r+b") as file:
            file.seek(1024)
            file.write(b"x")
    elif damage == "cut short":
        os.truncate(image.path, 512)
    elif damage == "no record":
        os.unlink(record)
    else:
        Path(record).write_text("{}")
    again = erofs.image_of(tree, "a", str(tmp_path))
    assert again.digest == image.digest
    assert erofs._digest(again.path) == image.digest


def test_a_compressed_image_is_smaller_and_the_same_at_every_time(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "text").write_text("".join(f"line {number}\n" for number in range(100_000)))
    written = []
    for name, compressed in (("plain", False), ("one", True), ("two", True)):
        (tmp_path / name).touch()
        erofs.write_image(str(tree), str(tmp_path / name), compressed=compressed)
        written.append((tmp_path / name).read_bytes())
    assert len(written[1]) < len(written[0]) / 2
    assert written[1] == written[2]


def test_a_tree_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"mkfs\.erofs failed"):
        erofs.image_of(str(tmp_path / "none"), "a", str(tmp_path))
    assert os.listdir(tmp_path / "images") == []


def test_without_the_tool_it_says_what_to_install(tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"mkfs\.erofs") as caught:
        erofs.image_of(tree, "a", str(tmp_path))
    assert "erofs-utils" in caught.value.hint
