"""What a worker does about kernels: build, import, list, show, compare, explain, remove. For `pull`, which answers."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from swiftlet.image.kernel import build, configuration, derived, footprint, foreign, kconfig, kept, profile
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.explain import Configuration
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.kernel.source import DEBIAN, source_at
from swiftlet.model.error import InputError
from swiftlet.store.guard import Guard

if TYPE_CHECKING:
    from swiftlet.node.pull import Work

_TINY = ("kernel/configs/tiny-base.config", "kernel/configs/tiny.config", "arch/x86/configs/tiny.config")
"""What tinyconfig asks for: its files, of which a tree has some."""


def kernel_build(work: Work) -> dict[str, Any]:
    """Build a kernel, or find that it is there."""
    asked = work.parameters
    name, requests = requested(asked["profile"], asked["fragments"])
    cache = work.layout.cache
    before = {kernel.digest for kernel in kept.kernels_of(cache)}
    with Guard(work.layout):  # so that nobody empties the cache meanwhile
        path = asked["source"] or DEBIAN
        source = source_at(path, cache, lambda: work.progress("unpack", os.path.basename(path), 0, 0))
        kernel = build.build(source, requests, cache, work.progress, name=name)
    return {"kernel": kernel.told(), "reused": kernel.digest in before}


def kernel_import(work: Work) -> dict[str, Any]:
    """Take a kernel that was not built here, with an initramfs of its modules."""
    asked = work.parameters
    cache = work.layout.cache
    before = {kernel.digest for kernel in kept.kernels_of(cache)}
    with Guard(work.layout):
        kernel = foreign.take(asked["path"], asked["modules"] or "", asked["name"] or "", cache)
    return {"kernel": kernel.told(), "reused": kernel.digest in before}


def requested(name: str, fragments: Iterable[Mapping[str, Any]]) -> tuple[str, list[Wanted]]:
    """The requests of a profile and of the fragments over it, and the name under which its kernel is found again.

    fragments: {name, text} each; text None is a fragment that swiftlet ships. Raises NotFoundError, InputError.
    """
    chosen = profile.profile_named(name)
    texts = profile.texts_of(chosen)
    for each in fragments:
        own = os.path.basename(each["name"])
        texts.append((own, profile.shipped(own) if each.get("text") is None else each["text"]))
        name += f"+{own.removesuffix('.config')}"
    return name, list(configuration.merged(texts).values())


def kernels(work: Work) -> dict[str, Any]:
    """All kernels, the newest first."""
    return {"kernels": [kernel.told() for kernel in kept.listed(work.layout.cache)]}


def kernel(work: Work) -> dict[str, Any]:
    """One kernel, with what it was asked for."""
    found = kept.kernel_named(work.layout.cache, work.parameters["kernel"])
    requests = kept.requests_of(found, work.parameters["kernel"])
    return {"kernel": found.told(), "requests": [each._asdict() for each in requests.values()]}


def kernel_diff(work: Work) -> dict[str, Any]:
    """In what two kernels differ."""
    cache, asked = work.layout.cache, work.parameters
    before, after = kept.kernel_named(cache, asked["before"]), kept.kernel_named(cache, asked["after"])
    changes = configuration.difference(kept.values_of(before), kept.values_of(after))
    return {
        "before": before.told(),
        "after": after.told(),
        "only_before": [each._asdict() for each in changes if each.after == "n"],
        "only_after": [each._asdict() for each in changes if each.before == "n"],
        "changed": [each._asdict() for each in changes if "n" not in (each.before, each.after)],
    }


def kernel_remove(work: Work) -> dict[str, Any]:
    """Remove a kernel."""
    found = kept.kernel_named(work.layout.cache, work.parameters["kernel"])
    return {"kernel": found.told(), "bytes": kept.remove(work.layout.cache, found)}


def kernel_explain(work: Work) -> dict[str, Any]:
    """Why an option is as it is in a kernel, and what it costs."""
    found = kept.kernel_named(work.layout.cache, work.parameters["kernel"] or "")
    values = kept.values_of(found)
    options = _options_of(found)
    symbol = _symbol(work.parameters["option"], options or values)
    if options is not None and symbol not in options:
        raise InputError(f"Linux {found.version} has no option {symbol}", _near(symbol, options))
    explained = _configuration(found, values, options or {}, work.parameters["kernel"] or "")
    objects = footprint.read(found.folder)
    cost = footprint.cost_of(symbol, objects, values) if objects and symbol in values else None
    saved = derived.read(found)
    return {
        "kernel": found.told(),
        "option": symbol,
        "value": explained.value(symbol),
        "chain": [step._asdict() for step in explained.chain(symbol)],
        "definitions": [_definition(option, values) for option in explained.options.get(symbol, ())],
        "selected_by": [option.symbol for option in explained.selecting(symbol)],
        "objects": cost.objects if cost else None,
        "bytes": cost.bytes if cost else None,
        "milliseconds": _milliseconds(found, symbol),
        "evidence": derived.evidence_of(symbol, saved) if saved else None,
    }


def _symbol(text: str, known: Container[str]) -> str:
    """An option as somebody types it: with or without CONFIG_, in small letters too."""
    plain = text[7:] if text.upper().startswith("CONFIG_") else text
    if not re.fullmatch(r"\w+", plain, re.ASCII):
        raise InputError(f"not an option of a kernel: {text[:80]!r}", "as in CONFIG_EXT4_FS, or EXT4_FS")
    return f"CONFIG_{plain}" if f"CONFIG_{plain}" in known else f"CONFIG_{plain.upper()}"


def _near(symbol: str, options: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(symbol, options, n=3)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _options_of(found: Kernel) -> dict[str, list[kconfig.Option]] | None:
    """What the kernel's tree says of its options; None where the tree has gone."""
    path = found.source.get("path", "")
    return kconfig.read_tree(path) if path and os.path.exists(f"{path}/Kconfig") else None


def _configuration(
    found: Kernel, values: Mapping[str, str], options: Mapping[str, list[kconfig.Option]], name: str
) -> Configuration:
    basis: dict[str, Wanted] = {}
    for path in _TINY:
        try:
            with open(f"{found.source.get('path')}/{path}") as file:
                basis |= configuration.merged([(path, file.read())])
        except (OSError, InputError):
            continue
    return Configuration(values, kept.requests_of(found, name), options, basis)


def _definition(option: kconfig.Option, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": option.title,
        "file": option.file,
        "line": option.line,
        "conditions": list(option.conditions),
        "failing": kconfig.failing(option, values),
        "selects": [clause.what for clause in option.selects],
        "help": option.help,
    }


def _milliseconds(found: Kernel, symbol: str) -> float | None:
    """What an option costs when the kernel starts, where that was measured."""
    import json

    try:
        with open(f"{found.folder}/{kept.BOOT_FILE}") as file:
            measured = json.load(file)["options"].get(symbol)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return float(measured) if isinstance(measured, int | float) else None
