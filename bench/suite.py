"""What all suites' commands have in common: their words, who may run them, and where the document goes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from bench.report import Report

REFUSED = 125
"""Exit code where nothing was measured."""


def arguments(name: str, about: str | None, written: str) -> argparse.ArgumentParser:
    """A parser with the words of every suite. about: its module's documentation. written: files that --out makes."""
    described = (about or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=described)
    parser.add_argument("--json", action="store_true", help="print the document with all samples instead of tables")
    parser.add_argument("--out", metavar="FOLDER", help=f"write {written} there")
    return parser


def refused(name: str, why: str) -> int:
    """Say why nothing is measured."""
    print(f"bench.{name}: {why}", file=sys.stderr)
    return REFUSED


def is_root(name: str, why: str) -> bool:
    """Whether root runs it; else it is said why nobody else can."""
    if os.geteuid():
        refused(name, f"{why}, and only root may do that (try sudo)")
        return False
    return True


def run(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[], Report],
    table: Callable[[Report], str],
    draw: Callable[[Report, str], None] | None = None,
) -> int:
    """Measure and print; with --out write NAME.json and what `draw` makes of the path without an ending."""
    try:
        report = measure()
    except OSError as error:
        print(f"bench.{name}: {error}", file=sys.stderr)
        return 1
    print(report.text() if options.json else table(report))
    if options.out:
        os.makedirs(options.out, exist_ok=True)
        with open(f"{options.out}/{name}.json", "w") as file:
            file.write(report.text() + "\n")
        if draw is not None:
            draw(report, f"{options.out}/{name}")
    return 0
