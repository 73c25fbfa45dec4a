"""The program of checks for tests: compiled once for all of them, and what it says as values."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from typing import Any

import pytest

from swiftlet.gate import program as gate_program


@functools.cache
def _cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="swiftlet-checks-")


@functools.cache
def program() -> str:
    """The path of the compiled program."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; ./dev test installs it")
    return gate_program.program(_cache().name)


def output(*words: str, check: bool = True) -> str:
    """What the program prints, run on this host."""
    done = subprocess.run([program(), *words], check=False, capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def values_of(check: str) -> dict[str, Any]:
    """What a check that passes measured."""
    (line,) = output("run", "--only", check).splitlines()
    return dict(json.loads(line)["values"])


def inputs_of(check: str) -> list[dict[str, Any]]:
    """An algorithm's problems."""
    return [json.loads(line) for line in output("inputs", check).splitlines()]
