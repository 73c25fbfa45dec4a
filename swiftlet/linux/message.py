"""Messages as JSON bytes, without importing `json`: that costs the command 6 ms (it pulls in re and enum).

The interpreter's own C encoder and scanner do the work. Whatever the scanner does not like, and any
interpreter without these two, goes to `json`, so that results and errors are those of `json`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def encode(value: object) -> bytes:
    """Compact ASCII JSON. Raises TypeError for what JSON has no form for, ValueError for a circular value."""
    return "".join(_encoder(value)).encode()


def decode(raw: bytes) -> Any:
    """The value of UTF-8 JSON. Raises ValueError when it is none, RecursionError when it is nested too deeply."""
    text = raw.decode()
    try:
        value, end = _scan(text, 0)
    except (StopIteration, SystemError):
        end = -1
    if end == len(text):
        return value
    import json

    return json.loads(text)


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


class _Context:
    """What the C scanner asks its decoder for; the values are those of `json.loads`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _make_encoder() -> Callable[[object], tuple[str, ...]]:
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        import json

        return lambda value: (json.dumps(value, separators=(",", ":")),)
    # A new encoder each time: its first argument remembers the containers on the way, to find circles.
    return lambda value: make_encoder({}, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)(
        value, 0
    )


def _make_scanner() -> Callable[[str, int], tuple[Any, int]]:
    try:
        from _json import make_scanner
    except ImportError:

        def give_up(text: str, index: int) -> tuple[Any, int]:
            raise StopIteration

        return give_up
    context: Any = _Context
    return make_scanner(context)


_encoder = _make_encoder()
_scan = _make_scanner()
