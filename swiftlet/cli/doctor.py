"""`swiftlet doctor`: what this host can and cannot do, and what follows."""

from __future__ import annotations

import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Parsed
from swiftlet.cli.table import print_json, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MARKS = {"ok": "ok      ", "limited": "limited ", "missing": "MISSING "}


def doctor(parsed: Parsed) -> int:
    """Print the findings; 1 when something is missing without which no guest runs."""
    with Client() as client:
        findings = client.call("Doctor")[0]["findings"]
    if parsed.on("json"):
        print_json(findings)
    else:
        sys.stdout.write(report(findings))
    return 1 if any(finding["status"] == "missing" for finding in findings) else 0


def report(findings: list[dict[str, Any]]) -> str:
    """The list for people: the consequence below everything that is not as it should be."""
    lines = []
    width = max((len(finding["name"]) for finding in findings), default=0)
    for finding in findings:
        mark = _MARKS.get(finding["status"], finding["status"])
        lines.append(f"{mark} {finding['name']:<{width}}  {finding.get('detail') or ''}")
        if finding["status"] != "ok" and finding.get("consequence"):
            lines.append(" " * (len(mark) + width + 3) + f"-> {finding['consequence']}")
    counts = {status: sum(finding["status"] == status for finding in findings) for status in _MARKS}
    lines += ["", f"{counts['ok']} ok, {counts['limited']} limited, {counts['missing']} missing"]
    return "".join(f"{printable(line).rstrip()}\n" for line in lines)


COMMANDS = (
    Command(
        "doctor",
        "Say what this host can and cannot do, and what follows.",
        doctor,
        usage="[--json]",
        options=(JSON,),
        about="Exit code 1: something is missing without which no guest can run.",
        examples=("swiftlet doctor", "swiftlet doctor --json"),
    ),
)
