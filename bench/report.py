"""What a suite hands over: metrics with their raw samples, and the machine they were taken on, as JSON.

Leaves measuring to the suites and drawing to `figure`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Metric:
    """value in `unit`; samples: every measurement that it was made from, in the order they were taken."""

    value: float
    unit: str
    samples: list[float] = field(default_factory=list)


@dataclass
class Report:
    """One run of one suite. extra: further members of the JSON document (isolation, notes).

    unmeasured: metrics that belong to the suite and were not taken, with their units; null in the document.
    """

    suite: str
    machine: dict[str, Any]
    metrics: dict[str, Metric] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str, samples: Sequence[float] = ()) -> None:
        """Record a metric, rounded to what a clock can tell (a microsecond, for milliseconds)."""
        self.metrics[name] = Metric(round(value, 4), unit, [round(sample, 4) for sample in samples])

    def text(self) -> str:
        """The document as JSON."""
        document = asdict(self)
        extra = document.pop("extra")
        for name, unit in document.pop("unmeasured").items():
            document["metrics"][name] = {"value": None, "unit": unit, "samples": []}
        return json.dumps(document | extra, ensure_ascii=False)


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `share` of all samples do not exceed."""
    ordered = sorted(samples)
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[int(rank) - 1]


def median(samples: Sequence[float]) -> float:
    """The median, 0 of nothing."""
    return statistics.median(samples) if samples else 0.0


def spread(samples: Sequence[float]) -> float:
    """Half the distance between the quartiles: what a difference must exceed to be more than noise."""
    return (percentile(samples, 0.75) - percentile(samples, 0.25)) / 2 if samples else 0.0


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory in MiB, kernel, distribution, load, and the hour."""
    return {
        "processor": _line("/proc/cpuinfo", "model name", ":"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(_line("/proc/meminfo", "MemTotal", ":").split()[0]) // 1024,
        "kernel": platform.release(),
        "system": _line("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _line(path: str, key: str, separator: str) -> str:
    with open(path) as file:
        for line in file:
            name, _, value = line.partition(separator)
            if name.strip() == key:
                return value.strip()
    return "0"
