"""Template -> entries: asks apt and pip what there is, lets the walker choose, adds packs, puts files in the store.

This is the long way, taken when nothing is cached; whether it must be taken is the resolver's decision.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from swiftlet.model.closure import Entry
from swiftlet.model.error import BadElfError, HostError, NotFoundError, ResolveError
from swiftlet.model.spelling import parse_library, parse_package, parse_wheel
from swiftlet.model.template import Generate, Template
from swiftlet.resolve import policy
from swiftlet.resolve.apt import Apt, Package
from swiftlet.resolve.assembly import (
    GENERATED,
    Assembly,
    add_empty_folders,
    check_paths,
    store_members,
)
from swiftlet.resolve.debian import Universe, belonging
from swiftlet.resolve.host import HOST, HostFiles, Stamp
from swiftlet.resolve.packs import PACKS, implied, with_needed
from swiftlet.resolve.protocol import Objects, Progress, Sandbox, file_mode, is_executable
from swiftlet.resolve.supplies import Supplies
from swiftlet.resolve.unlinked import unlinked
from swiftlet.resolve.walk import Found, Walker, Want, follow
from swiftlet.resolve.wheel import Wheel, Wheels, ensure_wheel, fetch_wheel


class Pinned(NamedTuple):
    """The exact packages and wheels that a lock names."""

    packages: tuple[Package, ...]
    wheels: tuple[Wheel, ...]


class Assembled(NamedTuple):
    """What a template turned out to be. borrowed: names of those `packages` that came with required templates."""

    entries: list[Entry]
    packages: tuple[Package, ...]
    wheels: tuple[Wheel, ...]
    stamps: tuple[Stamp, ...]
    borrowed: tuple[str, ...] = ()


class Tools(NamedTuple):
    """What assembling works with. cache: the instance's cache folder."""

    objects: Objects
    apt: Apt
    cache: str
    progress: Progress
    sandbox: Sandbox | None


def assemble(
    template: Template,
    tools: Tools,
    *,
    below: Sequence[Entry] = (),
    beneath: Sequence[Package] = (),
    family: bool = False,
    pinned: Pinned | None = None,
) -> Assembled:
    """Resolve one template and put its files into the store.

    below: the entries of what it requires; beneath: the packages that those are of. family: its packages stand for
    all that is built from their sources (`deb:NAME`). pinned: take these versions and no others. Raises
    NotFoundError, ResolveError and its kinds, FetchError, FullError, StoreError, HostError.
    """
    with ExitStack() as stack:
        packages, own = _packages(template, tools, family, pinned)
        universe = stack.enter_context(Universe(tools.apt, tools.cache, packages, own)) if packages else None
        wheels = stack.enter_context(Wheels(tools.cache, _wheels(template, tools, pinned)))
        host = stack.enter_context(HostFiles())
        others = _others(beneath, packages)
        lower = stack.enter_context(Universe(tools.apt, tools.cache, others, (), fixed=True)) if others else None
        supplies = Supplies(universe, wheels, host, tools.apt, lower)
        provided = frozenset((*(entry.path for entry in below), *template.links))
        walker = Walker(supplies, provided, _library_path(template), template.without)
        assembly = Assembly(walker, supplies, tools.objects)
        _fill(assembly, template, family)
        _unlink(assembly, template)
        store_members(assembly, tools.progress)
        _generate(assembly, template, tools, below)
        entries = [taken.entry for taken in walker.taken.values()]
        check_paths(entries)
        read = [universe.packages[name] for name in sorted(universe.archives)] if universe else []
        borrowed = _borrowed(lower, entries)
        return Assembled(
            entries,
            (*read, *borrowed),
            tuple(wheels.wheels.values()),
            tuple(host.stamps.values()),
            tuple(package.name for package in borrowed),
        )


def _others(beneath: Sequence[Package], packages: Sequence[Package]) -> list[Package]:
    """Of what required templates brought, topmost first, each once; a version that is the template's own wins."""
    own = {package.name for package in packages}
    found: dict[str, Package] = {}
    for package in beneath:
        if package.name not in own:
            found.setdefault(package.name, package)
    return list(found.values())


def _borrowed(lower: Universe | None, entries: Sequence[Entry]) -> list[Package]:
    """The packages from beneath that files were taken of."""
    sources = {entry.source for entry in entries}
    read = [lower.packages[name] for name in sorted(lower.archives)] if lower else []
    return [package for package in read if package.origin in sources]


def _packages(
    template: Template, tools: Tools, family: bool, pinned: Pinned | None
) -> tuple[Sequence[Package], Iterable[str]]:
    """The packages to choose from, and the names of the template's own."""
    packs = [name for pack in with_needed(template.packs) for name in PACKS[pack].packages]
    if not template.packages and not packs:
        return (), ()
    tools.progress("resolve", template.reference, 0, 0)
    packages = pinned.packages if pinned else tools.apt.closure([*template.packages, *dict.fromkeys(packs)])
    names = [parse_package(package)[0] for package in template.packages]
    if family:
        return packages, [name for own in names for name in belonging(packages, own)]
    known = {package.name for package in packages}
    for name in names:
        if name not in known:
            raise NotFoundError(f"Debian package {name} has nothing to install", "it may be a virtual package")
    return packages, names


def _wheels(template: Template, tools: Tools, pinned: Pinned | None) -> Sequence[Wheel]:
    if pinned:
        for wheel in pinned.wheels:
            ensure_wheel(tools.cache, wheel, tools.progress)
        return pinned.wheels
    found = []
    for requirement, place in template.wheels.items():
        name, version = parse_wheel(requirement)
        found.append(fetch_wheel(tools.cache, name, version, place, tools.progress))
    return found


def _library_path(template: Template) -> list[str]:
    return [folder for folder in template.env.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/")]


def _fill(assembly: Assembly, template: Template, family: bool) -> None:
    """Everything but what is generated."""
    own = _chosen(assembly, template)
    for found in own:
        if found.member.kind != "directory":
            assembly.walker.take(found.member.path, f"part of {found.package}")
    _listed_files(assembly, template)
    for library in template.libs:
        soname = parse_library(library)
        where = "" if assembly.supplies.universe else HOST
        assembly.walker.need(Want("library", soname, "", where, f"listed in libs as {library}"))
    _add_packs(assembly, with_needed(template.packs))
    assembly.walker.run()
    if family:
        more = implied(_related(assembly), assembly.walker.taken)
        _add_packs(assembly, [name for name in more if name not in template.packs])
    _declared(assembly, template)
    assembly.walker.run()
    add_empty_folders(assembly, own, _own(assembly))


def _add_packs(assembly: Assembly, names: Iterable[str]) -> None:
    for name in names:
        _load(assembly, PACKS[name].packages)
        PACKS[name].apply(assembly)


def _related(assembly: Assembly) -> set[str]:
    """What the packages that have been read depend on or recommend."""
    universe = assembly.supplies.universe
    read = [universe.packages[name] for name in universe.archives] if universe else []
    return {name for package in read for name in (*package.depends, *package.recommends)}


def _load(assembly: Assembly, packages: Iterable[str]) -> None:
    universe = assembly.supplies.universe
    if universe is not None:
        universe.load(universe.add(list(packages)))


def _chosen(assembly: Assembly, template: Template) -> list[Found]:
    """The members of the template's own packages and wheels that it takes for their own sake."""
    include = policy.glob_pattern(template.include)
    exclude = policy.glob_pattern(template.exclude)
    return [found for found in _own(assembly) if policy.is_chosen(found.member.path, include, exclude)]


def _own(assembly: Assembly) -> list[Found]:
    universe = assembly.supplies.universe
    return [*(universe.own_files() if universe else ()), *assembly.supplies.wheels.own_files()]


def _listed_files(assembly: Assembly, template: Template) -> None:
    """The paper's `files`: from a package where one has it, else from this host; a folder with all below it."""
    for name, path in template.files.items():
        why = f"listed in files as {name}"
        found = assembly.walker.take(path, why)
        if found is None and assembly.supplies.host.open(path):
            found = assembly.walker.take(path, why)
            for item in assembly.supplies.host.below(path):
                assembly.walker.take(item.member.path, why)
                found = item
        if found is None and template.name.startswith("host:"):
            raise NotFoundError(f"{template.name}: {_lacking(path)}")
        if found is None:
            raise NotFoundError(
                f"$.files.{name} of {template.reference}: no package of it has {path}, nor has this host",
                "name the package that has it in `packages`",
            )
        if found.member.unusable and found.member.mode & 0o111:
            raise BadElfError(f"{found.member.unusable} ({found.source})")
        if found.member.kind == "directory":
            assembly.take_below(found.member.path, why)
        if path in template.entrypoint[:1]:
            _check_program(path, follow(assembly.supplies, path))


def _lacking(path: str) -> str:
    """Why nothing of this host can be taken at a path."""
    if os.path.lexists(path):
        return "that is no file or folder of a disk, so no guest can have it"
    return "this host has no such file"


def _check_program(path: str, found: Found | None) -> None:
    """Raise BadElfError for what the template says is to be executed and the kernel cannot execute."""
    if found is None or found.member.kind == "directory":
        raise BadElfError(f"{path} is no program: it is a folder")
    if found.member.facts is None and not found.member.script:
        raise BadElfError(f"{path} is no program: neither an ELF file nor a script that begins with #!")


def _declared(assembly: Assembly, template: Template) -> None:
    """Links and folders that the template spells out; they win over what packages have."""
    for path, target in template.links.items():
        assembly.link(path, target, f"link of {template.reference}")
        if not target.startswith(("/dev/", "/proc/")):
            absolute = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
            want = Want("path", posixpath.normpath(absolute), path, "", f"target of {path}", optional=True)
            assembly.walker.need(want)
    for path, directory in template.directories.items():
        owner = template.users.get(directory.user, 0)
        assembly.folder(path, f"folder of {template.reference}", int(directory.mode, 8), owner)


def _unlink(assembly: Assembly, template: Template) -> None:
    """Take the libraries off the programs that are not to load them. Raises ResolveError, BadElfError."""
    left = set(template.without)
    for path, (entry, found) in list(assembly.walker.taken.items()):
        facts = found.member.facts if found else None
        gone = [soname for soname in facts.needed if soname in template.without] if facts else []
        left -= set(gone)
        if found is not None and gone:
            descriptor, offset = assembly.supplies.content(found)
            made = unlinked(descriptor, offset, found.member.size, f"{path} ({found.source})", template.without)
            assembly.write(path, made, f"{entry.why}, without {', '.join(gone)}"[:500], found.member.mode)
    if left:
        raise ResolveError(f"$.without.{min(left)} of {template.reference}: none of its own files needs that library")


def _generate(assembly: Assembly, template: Template, tools: Tools, below: Sequence[Entry]) -> None:
    """Run the template's commands over what there is so far, and keep what they make."""
    for generate in template.generate:
        if tools.sandbox is None:
            raise HostError(
                f"{template.reference} generates {generate.outputs[0]}, and there is no sandbox to run it in",
                "resolve it through the daemon",
            )
        command = " ".join(generate.run)
        tools.progress("generate", command[:60], 0, 0)
        entries = {entry.path: entry for entry in below}
        entries |= {path: taken.entry for path, taken in assembly.walker.taken.items()}
        made = tools.sandbox(list(entries.values()), generate.run)
        for path, (mode, content) in sorted(_outputs(template, generate, made).items()):
            stored = assembly.objects.put_bytes(content, executable=is_executable(mode))
            why = f"made by `{command[:200]}`"
            entry = Entry(path, "file", file_mode(mode), stored.digest, stored.size, source=GENERATED, why=why)
            assembly.walker.add(entry)


def _outputs(
    template: Template, generate: Generate, made: dict[str, tuple[int, bytes]]
) -> dict[str, tuple[int, bytes]]:
    """What a command made of what it was to make. Raises ResolveError for an output that is not there."""
    chosen: dict[str, tuple[int, bytes]] = {}
    for output in generate.outputs:
        pattern = policy.glob_pattern([output])
        found = {path: made[path] for path in made if pattern is not None and pattern.fullmatch(path)}
        if not found:
            raise ResolveError(f"{template.reference}: `{' '.join(generate.run)[:80]}` did not make {output}")
        chosen.update(found)
    return chosen
