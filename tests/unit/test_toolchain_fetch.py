"""What the toolchain's example makes of the files of source packages, as apt leaves them."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

FETCH = Path(__file__).parents[2] / "examples/toolchain/fetch.sh"


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """What the `apt-get` of this test fetches; it is first in the path of `fetch`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "fetched").mkdir()
    program = tmp_path / "bin/apt-get"
    program.write_text(f"#!/bin/sh\ncase $* in *source*) cp {tmp_path}/fetched/* . ;; esac\n")
    program.chmod(0o755)
    return tmp_path / "fetched"


def fetch(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder.parent}/bin:{os.environ['PATH']}"}
    command = [str(FETCH), f"{folder.parent}/sources", "some"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def put_archive(path: Path, name: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))


def test_a_signature_beside_a_release_is_not_unpacked(fetched: Path) -> None:
    (fetched / "some_1.dsc").write_text("Files:\n 00 1 some_1.orig.tar.gz\n 00 1 some_1.orig.tar.gz.asc\n")
    put_archive(fetched / "some_1.orig.tar.gz", "some-1/main.c")
    (fetched / "some_1.orig.tar.gz.asc").write_text("-----BEGIN PGP SIGNATURE-----\n")
    done = fetch(fetched)
    assert (done.returncode, done.stdout) == (0, "some-1\n"), done.stderr
    assert (fetched.parent / "sources/some-1/main.c").is_file()


def test_a_native_package_is_named_and_nothing_is_unpacked(fetched: Path) -> None:
    (fetched / "some_1.dsc").write_text("Files:\n 00 1 some_1.tar.gz\n")
    put_archive(fetched / "some_1.tar.gz", "some/main.c")
    done = fetch(fetched)
    assert done.returncode == 1 and "some_1.dsc is of a native package" in done.stderr
    assert os.listdir(fetched.parent / "sources") == []
