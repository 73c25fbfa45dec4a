"""YAML -> Template: the Reg paper's figure 6 as it stands, and swiftlet's additions, checked field by field.

Finding the file is `catalogue`'s business, finding what it names the resolver's.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from swiftlet.model import spelling
from swiftlet.model.error import InputError
from swiftlet.model.template import Directory, Generate, Template
from swiftlet.resolve import shape
from swiftlet.resolve.document import Document, Lines, parse_document, read_document

PACKS = (
    "certificates",
    "gconv",
    "java-certificates",
    "ldconfig",
    "locale",
    "media-types",
    "nss",
    "openssl",
    "shell",
    "terminfo",
    "timezones",
)
"""Names that `packs:` accepts; `resolve.packs` says what each holds."""

MAX_USER = 65535
"""Ids of a guest: a user namespace of ours maps 65,536 of them."""

_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}")
_SONAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\*?")
"""A name, or the beginning of names."""
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def _matching(pattern: re.Pattern[str], what: str) -> shape.Reader[str]:
    def read(document: Document, path: str, value: Any) -> str:
        written = shape.some_text(document, path, value)
        if not pattern.fullmatch(written):
            raise document.error(path, f"not a {what}: {written[:80]!r}")
        return written

    return read


def _glob(document: Document, path: str, value: Any) -> str:
    written = shape.some_text(document, path, value)
    if not written.startswith("/") or ".." in written.split("/"):
        raise document.error(path, f"not a pattern of absolute paths: {written[:80]!r}")
    return written


def _required(document: Document, path: str, value: Any) -> str:
    """The whole spelling; a file's path stays relative to the file that names it."""
    return str(shape.parsed(spelling.parse_reference)(document, path, value))


def _octal(document: Document, path: str, value: Any) -> str:
    written = shape.text(document, path, value)
    if not re.fullmatch(r"0?[01]?[0-7]{3}", written):
        raise document.error(path, f"not a directory's mode: {written[:40]!r}", "write it in octal, such as 0755")
    return written


def _directory(document: Document, path: str, value: Any) -> Directory:
    if value == "":
        return Directory()
    found = shape.members(document, path, value, ("mode", "user"))
    mode = _octal(document, f"{path}.mode", found.get("mode", "0755"))
    return Directory(mode, _matching(_USER, "user")(document, f"{path}.user", found.get("user", "root")))


def _generate(document: Document, path: str, value: Any) -> Generate:
    found = shape.members(document, path, value, ("run", "outputs"))
    run = shape.list_of(shape.text)(document, f"{path}.run", found.get("run", ""))
    outputs = shape.list_of(shape.guest_path)(document, f"{path}.outputs", found.get("outputs", ""))
    if not run or not outputs:
        raise document.error(path, "needs run (a command) and outputs (the paths that it makes)")
    return Generate(run, outputs)


def _link_target(document: Document, path: str, value: Any) -> str:
    written = shape.some_text(document, path, value)
    if len(written) > 4000:
        raise document.error(path, "target too long")
    return written


_FIELDS: dict[str, shape.Reader[Any]] = {
    "name": _matching(_NAME, "name"),
    "version": _matching(_VERSION, "version"),
    "description": shape.text,
    "files": shape.map_of(shape.guest_path),
    "libs": shape.list_of(shape.checked(spelling.parse_library)),
    "requires": shape.list_of(_required),
    "packages": shape.list_of(shape.checked(spelling.parse_package)),
    "wheels": shape.map_of(shape.guest_path, shape.checked(spelling.parse_wheel)),
    "packs": shape.list_of(shape.one_of(*PACKS)),
    "include": shape.list_of(_glob),
    "exclude": shape.list_of(_glob),
    "links": shape.map_of(_link_target, shape.guest_path),
    "directories": shape.map_of(_directory, shape.guest_path),
    "users": shape.map_of(shape.whole_number(0, MAX_USER), _matching(_USER, "user")),
    "env": shape.map_of(shape.text, shape.variable),
    "entrypoint": shape.list_of(shape.text),
    "without": shape.map_of(
        shape.list_of(_matching(_FUNCTION, "function's name")), _matching(_SONAME, "library's name")
    ),
    "generate": shape.list_of(_generate),
}


def load_template(path: str) -> Template:
    """The template in a YAML file. Raises NotFoundError or InputError naming file, line and path."""
    return template_of(read_document(path))


def parse_template(data: bytes, name: str) -> Template:
    """The template in `data`; errors call it `name`."""
    return template_of(parse_document(data, name))


def template_of(document: Document) -> Template:
    """Check a document and make a Template of it. Raises InputError."""
    found = shape.members(document, "$", document.root, _FIELDS)
    for key in ("name", "version"):
        if key not in found:
            raise document.error("$", f"has no {key}", "a template has at least name and version")
    values = {key: _FIELDS[key](document, f"$.{key}", value) for key, value in found.items()}
    template = Template(**values)
    _check_users(document, template)
    return template


def check_template(template: Template, name: str) -> None:
    """Raise InputError unless a template that did not come from YAML could have come from there.

    Its own name and version may be those of `deb:` and `host:`, which no file can have.
    """
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(template))
    plain |= {"name": "x", "version": "1", "users": {user: str(uid) for user, uid in template.users.items()}}
    checked = template_of(Document(name, plain, Lines(0, {})))
    if msgspec.structs.replace(checked, name=template.name, version=template.version) != template:
        raise InputError(f"{name}: a template whose paths are not in their canonical spelling")


def _check_users(document: Document, template: Template) -> None:
    for path, directory in template.directories.items():
        if directory.user != "root" and directory.user not in template.users:
            raise document.error(f"$.directories.{path}.user", f"{directory.user} is not among users")
