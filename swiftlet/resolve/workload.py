"""YAML -> Workload, for `swiftlet run -f workload.yaml`, in the spellings that the command's flags have."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any, get_args

from swiftlet.model import spelling
from swiftlet.model.workload import GuestKind, Network, Port, Resources, Volume, Workload
from swiftlet.resolve import shape
from swiftlet.resolve.document import Document, read_document

_GUEST = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_RESOURCES = ("memory", "cpus", "cpu_weight", "pids", "disk")
_NO_LIMIT = 4_194_304
"""The kernel's PID_MAX_LIMIT on 64 bits."""


def load_workload(path: str) -> Workload:
    """The workload in a YAML file; relative sources and templates start at its folder.

    Raises NotFoundError, InputError (file, line, path into the document).
    """
    return workload_of(read_document(path), os.path.dirname(os.path.abspath(path)))


def workload_of(document: Document, base: str) -> Workload:
    """Check a document and make a Workload of it; `base` is the folder where relative paths start."""
    found = dict(shape.members(document, "$", document.root, (*_FIELDS, *_RESOURCES, "template", "resources")))
    templates = _templates(document, found, base)
    resources = _resources(document, found)
    values = {key: _FIELDS[key](document, f"$.{key}", found[key]) for key in found if key in _FIELDS}
    if "program" in values:
        values["program"] = os.path.abspath(os.path.join(base, os.path.expanduser(values["program"])))
    values["volumes"] = _volumes(document, found.get("volumes", ""), base)
    values["templates"] = templates
    return Workload(**values, resources=resources)


def _templates(document: Document, found: dict[str, Any], base: str) -> tuple[str, ...]:
    single = found.pop("template", None)
    if found.get("kind") == "unikernel" and single is None and "templates" not in found:
        return ()
    if (single is None) == ("templates" not in found):
        raise document.error("$", "needs either template or templates", "such as template: python@3.11")
    reader = shape.parsed(spelling.parse_reference)
    references: tuple[spelling.Reference, ...]
    if single is not None:
        references = (reader(document, "$.template", single),)
    else:
        references = shape.list_of(reader)(document, "$.templates", found["templates"])
    if not references:
        raise document.error("$.templates", "is empty")
    return tuple(
        os.path.abspath(os.path.join(base, reference.name)) if reference.scheme == "file" else str(reference)
        for reference in references
    )


def _resources(document: Document, found: dict[str, Any]) -> Resources:
    nested = shape.members(document, "$.resources", found.pop("resources", ""), _RESOURCES)
    values: dict[str, Any] = {}
    for name in _RESOURCES:
        if name in nested and name in found:
            raise document.error(f"$.{name}", "is given twice, here and below resources")
        for path, holder in ((f"$.resources.{name}", nested), (f"$.{name}", found)):
            if name in holder:
                values[name] = _RESOURCE_READERS[name](document, path, holder[name])
    return Resources(**values)


_RESOURCE_READERS: dict[str, shape.Reader[Any]] = {
    "memory": shape.parsed(spelling.parse_size),
    "cpus": shape.parsed(spelling.parse_cpus),
    "cpu_weight": shape.whole_number(0, 10000),
    "pids": shape.whole_number(0, _NO_LIMIT),
    "disk": shape.parsed(spelling.parse_size),
}


def _volumes(document: Document, value: Any, base: str) -> tuple[Volume, ...]:
    def parse(written: str) -> Volume:
        return Volume(**spelling.parse_volume(written, base))

    return shape.list_of(shape.parsed(parse))(document, "$.volumes", value)


def _port(written: str) -> Port:
    return Port(**spelling.parse_port(written))


def _command(document: Document, path: str, value: Any) -> tuple[str, ...]:
    """A list, or one text that is split as a shell would."""
    if not isinstance(value, str):
        return shape.list_of(shape.text)(document, path, value)
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise document.error(path, f"not a command: {error}") from None


def _environment(document: Document, path: str, value: Any) -> dict[str, str]:
    """A map, or a list of NAME=value."""
    if not isinstance(value, list):
        return shape.map_of(shape.text, shape.variable)(document, path, value)
    pairs = shape.list_of(shape.parsed(spelling.parse_environment))(document, path, value)
    for index, (name, given) in enumerate(pairs):
        if given is None:
            raise document.error(f"{path}[{index}]", f"{name} has no value", "write NAME=value")
    return {name: given or "" for name, given in pairs}


def _ulimits(document: Document, path: str, value: Any) -> dict[str, tuple[int, int]]:
    result: dict[str, tuple[int, int]] = {}
    for name, item in shape.mapping(document, path, value).items():
        where = f"{path}.{name}"
        limit = shape.text(document, where, item)
        spelled, bounds = shape.parsed(spelling.parse_ulimit)(document, where, f"{name}={limit}")
        result[spelled] = bounds
    return result


def _guest_name(document: Document, path: str, value: Any) -> str:
    written = shape.text(document, path, value)
    if not _GUEST.fullmatch(written):
        raise document.error(path, f"not a name: {written[:80]!r}", "letters, digits, _ . -; 63 at most")
    return written


def _seconds(document: Document, path: str, value: Any) -> float:
    written = shape.text(document, path, value)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", written):
        raise document.error(path, f"not a number of seconds: {written[:40]!r}")
    return float(written)


def _signal(document: Document, path: str, value: Any) -> str:
    written = shape.text(document, path, value).upper()
    if not re.fullmatch(r"(SIG)?[A-Z0-9+-]{2,12}", written):
        raise document.error(path, f"not a signal: {written[:40]!r}", "write its name, such as SIGTERM")
    return written if written.startswith("SIG") else f"SIG{written}"


_FIELDS: dict[str, shape.Reader[Any]] = {
    "templates": shape.list_of(shape.text),
    "command": _command,
    "name": _guest_name,
    "kind": shape.one_of(*get_args(GuestKind)),
    "program": shape.some_text,
    "kernel": shape.some_text,
    "master": shape.one_of("compute", "serve"),
    "placement": shape.one_of("spread", "packed"),
    "cpu_level": shape.one_of("v2", "v3", "v4"),
    "env": _environment,
    "workdir": shape.checked(lambda text: spelling.parse_guest_path(text, "workdir")),
    "user": shape.text,
    "hostname": shape.text,
    "volumes": shape.list_of(shape.text),
    "tmpfs": shape.list_of(shape.checked(lambda text: spelling.parse_guest_path(text, "tmpfs"))),
    "ports": shape.list_of(shape.parsed(_port)),
    "network": shape.one_of(*get_args(Network)),
    "read_only": shape.flag,
    "tty": shape.flag,
    "interactive": shape.flag,
    "remove": shape.flag,
    "userns": shape.flag,
    "cap_add": shape.list_of(shape.some_text),
    "cap_drop": shape.list_of(shape.some_text),
    "seccomp": shape.one_of("default", "unconfined"),
    "ulimits": _ulimits,
    "stop_signal": _signal,
    "stop_timeout": _seconds,
}
