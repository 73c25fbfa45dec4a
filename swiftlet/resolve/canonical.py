"""The one spelling of a template that digests are taken of, and back. Imports no YAML: it is on the short way."""

from __future__ import annotations

import hashlib

import msgspec

from swiftlet.model.error import InputError
from swiftlet.model.template import Template


def template_bytes(template: Template) -> bytes:
    """JSON with sorted keys: two spellings of one template have the same bytes."""
    return msgspec.json.encode(template, order="deterministic")


def template_digest(template: Template) -> str:
    """SHA-256 (hex) of the canonical form."""
    return hashlib.sha256(template_bytes(template)).hexdigest()


def template_from_bytes(data: bytes, name: str) -> Template:
    """The inverse of `template_bytes`; errors call it `name`. Raises InputError."""
    try:
        return msgspec.json.decode(data, type=Template)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name}: {error}") from None
