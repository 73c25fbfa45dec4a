"""Signals as users name them. Pure."""

from __future__ import annotations

import signal

from swiftlet.model.error import InputError


def signal_number(name: str) -> int:
    """A signal by its name, with or without SIG, or by its number. Raises InputError."""
    text = name.upper()
    if text.isascii() and text.isdigit() and 0 < int(text[:4]) <= signal.NSIG:
        return int(text)
    try:
        return signal.Signals[text if text.startswith("SIG") else f"SIG{text}"].value
    except KeyError:
        raise InputError(f"no signal {name[:40]!r}", "write its name, such as SIGTERM or HUP") from None
