"""Where in a document msgspec found fault, taken from its message: the path goes into errors that people read."""

from __future__ import annotations

import re

import msgspec

_PATH = re.compile(r" - at `(\$[^`]*)`$")
_MEMBER = re.compile(r"object (?:missing required|contains unknown) field `([^`]*)`", re.IGNORECASE)


def place_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """(path, complaint), such as `$.ports[0].guest` and `expected int, got str`; a missing or unknown member too."""
    text = str(error)
    found = _PATH.search(text)
    path = found.group(1) if found else "$"
    complaint = text[: found.start()] if found else text
    member = _MEMBER.match(complaint)
    if member:
        path += f".{member.group(1)}"
    return path, (complaint[:1].lower() + complaint[1:]).replace("`", "")
