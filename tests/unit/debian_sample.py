"""Makes Debian packages and an archive of them in a folder, for tests of what reads packages without any network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


class Sample:
    """An archive in `folder` that apt is pointed at by APT_CONFIG."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = folder / "pool"
        self.pool.mkdir(parents=True)
        self.stanzas: list[str] = []

    def add(self, name: str, version: str = "1.0", files: Mapping[str, object] | None = None, **fields: str) -> Path:
        """A package of these files: bytes, ("link", target), ("hard", path), ("folder", mode), (bytes, mode)."""
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        control = {"Package": name, "Version": version, "Architecture": "amd64", "Maintainer": "x <x@y>"}
        control |= {key.replace("_", "-"): value for key, value in fields.items()} | {"Description": "sample"}
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN" / "control").write_text("".join(f"{key}: {value}\n" for key, value in control.items()))
        for path, content in (files or {}).items():
            _place(tree, path, content)
        package = self.pool / f"{name}_{version.replace(':', '%3a')}_amd64.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, package], check=True, capture_output=True
        )
        data = package.read_bytes()
        control |= {
            "Filename": f"./pool/{package.name}",
            "Size": str(len(data)),
            "SHA256": hashlib.sha256(data).hexdigest(),
        }
        self.stanzas.append("".join(f"{key}: {value}\n" for key, value in control.items()))
        self.publish()
        return package

    def publish(self) -> None:
        """Write the list of packages."""
        (self.folder / "Packages").write_text("\n".join(self.stanzas))

    def configuration(self) -> str:
        """The path of an apt configuration that knows this archive only."""
        (self.folder / "sources.list").write_text(f"deb [trusted=yes] file:{self.folder} ./\n")
        path = self.folder / "apt.conf"
        path.write_text(f'Dir::Etc::sourcelist "{self.folder}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n')
        return str(path)


def _place(tree: Path, path: str, content: object) -> None:
    place = tree / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case bytes():
            place.write_bytes(content)
        case ("link", str(target)):
            place.symlink_to(target)
        case ("hard", str(target)):
            os.link(tree / target.lstrip("/"), place)
        case ("folder", int(mode)):
            place.mkdir()
            place.chmod(mode)
        case (bytes(data), int(mode)):
            place.write_bytes(data)
            place.chmod(mode)
