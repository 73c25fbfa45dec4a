"""How a command that cannot do what it is asked must fail: one clear line, with one more for a hint at most."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

from tests.product import Product


class Refusal(NamedTuple):
    """What a command that failed said. hint: "" where it gave none."""

    code: int
    message: str
    hint: str


def refusal_of(done: subprocess.CompletedProcess[str]) -> Refusal:
    """Take apart what it wrote; nothing may be on standard output, and no trace of Python's anywhere."""
    found = re.fullmatch(r"swiftlet: ([^\n]+)\n(?:  hint: ([^\n]+)\n)?", done.stderr)
    assert found and done.stdout == "", f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    for unclear in ("Errno", "Traceback", "internal error"):
        assert unclear not in done.stderr, done.stderr
    assert len(found[1]) < 400, found[1]
    return Refusal(done.returncode, found[1], found[2] or "")


def refused(product: Product, *arguments: str) -> Refusal:
    """A command that must fail."""
    return refusal_of(product.run(*arguments, timeout=120))
