"""Which templates there are, and what a reference stands for, with everything that it requires.

::

    swiftlet/recipes/*.yaml             shipped
    $SWIFTLET_ROOT/templates/*.yaml     the user's own; one of the same name and version wins over a shipped one
    cache/templates/SHA256-N.json       a parsed file by its content, so that an unchanged one needs no YAML

Files of packages and libraries are not looked for here.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from swiftlet.model.closure import canonical_path
from swiftlet.model.error import CycleError, InputError, NotFoundError
from swiftlet.model.spelling import Reference, parse_reference
from swiftlet.model.template import MAX_REQUIRES, Template
from swiftlet.resolve.canonical import template_bytes, template_digest, template_from_bytes
from swiftlet.resolve.written import read_written

RECIPES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "recipes")
SHIPPED = "shipped"

_PARSED = "1"
"""Part of a parsed template's name; changes with how YAML is read."""

_PACKS_OF_ANY_PACKAGE = ("nss", "locale")
_ENVIRONMENT = {"LANG": "C.UTF-8"}


class Located(NamedTuple):
    """A template and where it was found.

    reference: the name by which closures and locks go. origin: `shipped`, a file's path, `package` or `host`.
    folder: where the relative paths of its `requires` start. digest: of the canonical template.
    """

    reference: str
    template: Template
    origin: str
    folder: str
    digest: str

    @property
    def family(self) -> bool:
        """Whether its package stands for all that is built from the same source."""
        return self.origin == "package"


class Catalogue:
    """The templates of an instance. root: its root folder; folder: where relative file references start."""

    def __init__(self, root: str, folder: str = ".", recipes: str = RECIPES) -> None:
        self.user_folder = f"{root}/templates"
        self.cache = f"{root}/cache/templates"
        self.folder = os.path.abspath(folder)
        self.recipes = recipes
        self._known: list[Located] | None = None

    def known(self) -> list[Located]:
        """Every template that can be named, sorted by name and version; a user's own hides a shipped one."""
        if self._known is None:
            found: dict[str, Located] = {}
            for path in sorted(glob.glob(f"{self.recipes}/*.yaml")):
                located = self._load(path, SHIPPED)
                found[located.reference] = located
            for path in sorted(glob.glob(f"{self.user_folder}/*.yaml")):
                located = self._load(path, path)
                found[located.reference] = located
            self._known = sorted(
                found.values(), key=lambda item: (item.template.name, version_key(item.template.version))
            )
        return self._known

    def find(self, reference: str | Reference, folder: str = "") -> Located:
        """What one reference stands for. Raises InputError, NotFoundError with near names or the versions there are."""
        wanted = parse_reference(reference) if isinstance(reference, str) else reference
        if wanted.scheme == "deb":
            return _package(wanted)
        if wanted.scheme == "host":
            return _host(wanted)
        if wanted.scheme == "file":
            return self._load(os.path.join(folder or self.folder, wanted.name), "")
        return self._named(wanted)

    def stack(self, references: Sequence[str]) -> list[Located]:
        """The templates of a stack: each reference in order, what it requires after it, none twice.

        Raises CycleError naming the cycle in order, InputError beyond MAX_REQUIRES templates, NotFoundError.
        """
        return self._closed([self.find(reference) for reference in references])

    def requires(self, located: Located) -> list[Located]:
        """What one template requires itself, in its order."""
        return [self.find(reference, located.folder) for reference in located.template.requires]

    def below(self, located: Located) -> list[Located]:
        """What one template requires, near and far."""
        return self._closed([located])[1:]

    def _closed(self, wanted: Sequence[Located]) -> list[Located]:
        found: dict[str, Located] = {}
        finished: set[str] = set()
        for located in wanted:
            self._visit(located, found, finished)
        return list(found.values())

    def _visit(self, first: Located, found: dict[str, Located], finished: set[str]) -> None:
        """Depth first, without recursion: `path` holds the templates whose requirements are being looked at."""
        path: list[tuple[Located, list[Located]]] = []
        self._enter(first, path, found, finished)
        while path:
            located, pending = path[-1]
            if not pending:
                finished.add(located.reference)
                path.pop()
                continue
            self._enter(pending.pop(0), path, found, finished)

    def _enter(
        self,
        located: Located,
        path: list[tuple[Located, list[Located]]],
        found: dict[str, Located],
        finished: set[str],
    ) -> None:
        open_names = [item.reference for item, _ in path]
        if located.reference in open_names:
            cycle = [*open_names[open_names.index(located.reference) :], located.reference]
            raise CycleError(f"templates require one another: {' -> '.join(cycle)}", "take one of the requires out")
        if located.reference in finished:
            return
        found.setdefault(located.reference, located)
        if len(found) > MAX_REQUIRES:
            raise InputError(f"{path[0][0].reference} requires more than {MAX_REQUIRES} templates")
        path.append((located, self.requires(located)))

    def _named(self, wanted: Reference) -> Located:
        same = [item for item in self.known() if item.template.name == wanted.name]
        fitting = [item for item in same if fits(item.template.version, wanted.version)]
        if fitting:
            return fitting[-1]
        if same:
            versions = ", ".join(item.template.version for item in same)
            raise NotFoundError(f"template {wanted.name} has no version {wanted.version}", f"there is {versions}")
        names = list(dict.fromkeys(item.template.name for item in self.known()))
        near = difflib.get_close_matches(wanted.name, names, 3, 0.6)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise NotFoundError(f"no template {wanted.name}", f"{hint}`-t deb:{wanted.name}` takes a Debian package")

    def _load(self, path: str, origin: str) -> Located:
        """The template in a file, from the cache where its content is known there."""
        data = read_written(path)
        cached = f"{self.cache}/{hashlib.sha256(data).hexdigest()}-{_PARSED}.json"
        template = _cached(cached)
        if template is None:
            template = self._parse(data, path, cached)
        reference = template.reference
        if not origin:
            reference += f"~{hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:8]}"
        folder = os.path.dirname(os.path.abspath(path))
        return Located(reference, template, origin or path, folder, template_digest(template))

    def _parse(self, data: bytes, path: str, cached: str) -> Template:
        from swiftlet.resolve.durable import publish
        from swiftlet.resolve.template import parse_template

        template = parse_template(data, path)
        publish(cached, template_bytes(template))
        return template


def _cached(path: str) -> Template | None:
    try:
        with open(path, "rb") as file:
            return template_from_bytes(file.read(), path)
    except (OSError, InputError):
        return None


def fits(version: str, wanted: str) -> bool:
    """Whether a template's version is meant by what was asked for: 1.22.1 by 1.22, any by "" and *."""
    wanted = wanted.removesuffix("*").removesuffix(".")
    return not wanted or version == wanted or version.startswith((f"{wanted}.", f"{wanted}-", f"{wanted}+"))


def version_key(version: str) -> list[tuple[int, str]]:
    """Sorts 3.9 before 3.11."""
    parts: Iterable[str] = re.findall(r"[0-9]+|[^0-9]+", version)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _package(wanted: Reference) -> Located:
    """A template for a Debian package that has none: the package, and what nearly every program reads."""
    package = f"{wanted.name}={wanted.version}" if wanted.version else wanted.name
    template = Template(
        name=f"deb:{wanted.name}",
        version=wanted.version or "any",
        packages=(package,),
        packs=_PACKS_OF_ANY_PACKAGE,
        env=_ENVIRONMENT,
    )
    return Located(str(wanted), template, "package", "/", template_digest(template))


def _host(wanted: Reference) -> Located:
    """A template for one program of this host."""
    path = canonical_path(wanted.name)
    template = Template(
        name=str(wanted),
        version="host",
        files={wanted.name.rpartition("/")[2] or "file": path},
        entrypoint=(path,),
    )
    return Located(str(wanted), template, "host", "/", template_digest(template))
