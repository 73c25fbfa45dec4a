"""What a derivation has found out so far, on disk: whoever begins it again goes on where it was.

::

    STATE/trim.json     of what it is (`key`), the evidence, every run; complete since it came there by rename

Builds are slow and checks may take longer, so every answer is kept at once, by the configuration it is about. The
derivation itself is the same steps each time; begun again, it comes to the next question without asking the old ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from swiftlet.image.kernel.derive import Evidence
from swiftlet.image.kernel.trace import Phase, Place
from swiftlet.model.error import InputError

FILE = "trim.json"


class Run(NamedTuple):
    """One kernel and what the checks said. what: that was tried, for people. kernel: its digest, "" if none came to be.

    bytes: of vmlinux. boot_ms: until the workload's process was there. seconds: for building and checking.
    off: the options that were on in the full kernel and not in this one.
    """

    number: int
    what: str
    configuration: str
    kernel: str
    passed: bool
    why: str
    bytes: int
    boot_ms: float
    seconds: float
    off: tuple[str, ...]


def digest_of(values: Mapping[str, str]) -> str:
    """Of a configuration: two that are equal make the same kernel."""
    return hashlib.sha256("".join(f"{name}={value}\n" for name, value in sorted(values.items())).encode()).hexdigest()


class Journal:
    """The state of one derivation. runs: in their order. evidence: None until the full kernel was traced.

    counts, initcalls: see `note_trace`.
    """

    def __init__(self, folder: str, key: str) -> None:
        """Take up what is there. Raises InputError when that is of another derivation, OSError."""
        self.folder = folder
        self.key = key
        self.runs: list[Run] = []
        self.evidence: dict[str, Evidence] | None = None
        self.counts: dict[str, int] = {}
        self.initcalls: dict[str, float] = {}
        os.makedirs(folder, exist_ok=True)
        try:
            with open(f"{folder}/{FILE}") as file:
                self._take(json.load(file))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{folder}/{FILE} is damaged", "remove it to begin again") from None

    def _take(self, said: Mapping[str, Any]) -> None:
        if said["key"] != self.key:
            raise InputError(
                f"{self.folder} holds the state of another derivation", "give another folder, or remove it"
            )
        self.runs = [Run(**{**row, "off": tuple(row["off"])}) for row in said["runs"]]
        if said["evidence"] is not None:
            rows = (Evidence(symbol, Place(*place), Phase(phase)) for symbol, place, phase in said["evidence"])
            self.evidence = {each.symbol: each for each in rows}
        self.counts = dict(said["counts"])
        self.initcalls = dict(said["initcalls"])

    def run_of(self, configuration: str) -> Run | None:
        """What is known of a configuration."""
        return next((run for run in self.runs if run.configuration == configuration), None)

    def note_run(self, run: Run) -> None:
        """Keep a run."""
        self.runs.append(run)
        self._write()

    def note_trace(
        self, evidence: Iterable[Evidence], counts: Mapping[str, int], initcalls: Mapping[str, float], run: Run
    ) -> None:
        """Keep what the trace has shown, and the run that it is of.

        counts: of instructions, lines, files. initcalls: milliseconds by object.
        """
        self.evidence = {each.symbol: each for each in evidence}
        self.counts = dict(counts)
        self.initcalls = dict(initcalls)
        self.runs.append(run)
        self._write()

    def _write(self) -> None:
        rows = None if self.evidence is None else [list(each) for each in self.evidence.values()]
        said = {
            "key": self.key,
            "counts": self.counts,
            "initcalls": self.initcalls,
            "runs": [run._asdict() for run in self.runs],
            "evidence": rows,
        }
        interim = f"{self.folder}/{FILE}.new"
        with open(interim, "w") as file:
            json.dump(said, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(interim, f"{self.folder}/{FILE}")
