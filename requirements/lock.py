"""Writes requirements/{runtime,dev,bench}.txt: names, versions and hashes of wheels, and no addresses.

Asks pip itself what it would install for the dependencies that pyproject.toml names, on this platform (the
locks are for Debian 12, x86-64, Python 3.11). dev and bench hold only what they add to runtime, at runtime's
versions. Run by `./dev lock`; read by `./dev` with --require-hashes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

Pins = dict[str, tuple[str, str]]
"""Project name (lower case) -> (version, SHA-256 of the wheel)."""


def report(requirements: list[str], constraints: Pins) -> Pins:
    """What pip would install for these and everything they need. Raises CalledProcessError when it cannot."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--only-binary", ":all:", "--report", "-"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, (version, _) in constraints.items())
        file.flush()
        command += ["--constraint", file.name, *requirements]
        answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return dict(pin_of(item) for item in answer["install"])


def pin_of(item: dict[str, Any]) -> tuple[str, tuple[str, str]]:
    """One entry of pip's installation report as (name, (version, SHA-256))."""
    metadata, archive = item["metadata"], item["download_info"]["archive_info"]
    return metadata["name"].lower(), (metadata["version"], archive["hashes"]["sha256"])


def text(pins: Pins, extra: str) -> str:
    """A lock file's text, sorted by name."""
    lines = [f"# {extra}: written by `./dev lock` from pyproject.toml; for Debian 12, x86-64, Python 3.11."]
    lines += [f"{name}=={version} --hash=sha256:{sha256}" for name, (version, sha256) in sorted(pins.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Resolve everything at once, then each part at those versions; write the files when all could be resolved."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    base, extras = project["dependencies"], project["optional-dependencies"]
    everything = report([*base, *(name for extra in extras.values() for name in extra)], {})
    locks = {"runtime": report(base, everything)}
    for extra, wanted in extras.items():
        added = report([*base, *wanted], everything)
        locks[extra] = {name: pin for name, pin in added.items() if name not in locks["runtime"]}
    for name, pins in locks.items():
        (HERE / f"{name}.txt").write_text(text(pins, name))
        print(f"requirements/{name}.txt: {len(pins)} packages")


if __name__ == "__main__":
    main()
