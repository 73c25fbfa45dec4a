"""The walker: from a template's own files along every edge that a program follows, to the files it takes.

Edges: PT_INTERP, DT_NEEDED (DT_RUNPATH with $ORIGIN, then the default folders), symbol versions,
`.note.dlopen`, `#!` lines and symbolic links, also across packages. Nothing is read from a disk here: a
Supply finds members by path and goes to look for more when asked (`debian`, `host`), so that packages are
fetched only once an edge leads to them. Each file taken remembers which file caused it, and why.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from swiftlet.model.closure import Entry, canonical_path
from swiftlet.model.error import BadElfError, MissingLibraryError, ResolveError
from swiftlet.model.template import MAX_CLOSURE_BYTES
from swiftlet.resolve.archive import Member
from swiftlet.resolve.policy import LIBRARY_FOLDERS, PROGRAM_FOLDERS, is_module
from swiftlet.resolve.protocol import file_mode

MAX_FILES = 500_000
"""Entries of one closure."""

MAX_LINKS = 40
"""Symbolic links that one path may lead through; the kernel's limit."""

KERNEL_FOLDERS = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/run")
"""What lies there is made when a guest starts; a link that leads there is whole."""


class Found(NamedTuple):
    """A member and where it comes from. package: its name in the supply. own: asked for by the template itself."""

    member: Member
    package: str
    source: str
    own: bool


class Want(NamedTuple):
    """Something that is needed and not found yet. optional: the closure is whole without it."""

    kind: Literal["library", "path"]
    name: str
    by: str
    package: str
    why: str
    optional: bool = False


class Supply(Protocol):
    """Where members come from."""

    def find(self, path: str) -> Found | None:
        """The member at exactly this canonical path, among what has been looked at so far."""

    def by_soname(self, soname: str) -> Found | None:
        """A library of the template's own packages of this name, wherever it lies: its program loads it by path."""

    def seek(self, wants: Sequence[Want]) -> bool:
        """Look further for these; False when there is nowhere left to look."""

    def companions(self, found: Found) -> Iterable[str]:
        """Paths that a program of this package cannot do without: its package's other files."""

    def advice(self, want: Want) -> str:
        """What to tell a user who lacks this."""


class Taken(NamedTuple):
    """An entry of the closure to be, and the member whose bytes it has (None for links and folders)."""

    entry: Entry
    found: Found | None


class Walker:
    """Collects what a set of roots needs. Add roots with `take`, follow their edges with `run`."""

    def __init__(
        self,
        supply: Supply,
        provided: frozenset[str] = frozenset(),
        library_path: Sequence[str] = (),
        without: Iterable[str] = (),
    ) -> None:
        self.supply = supply
        self.provided = provided
        self.without = frozenset(without)
        self.folders = (*library_path, *LIBRARY_FOLDERS)
        self.taken: dict[str, Taken] = {}
        self.size = 0
        self._open: deque[Want] = deque()
        self._edges: deque[Found] = deque()
        self._checked: dict[str, Found] = {}

    def take(self, path: str, why: str, by: str = "") -> Found | None:
        """Take the member at a path and the links on the way to it; None when the way ends at nothing."""
        done: list[str] = []
        todo = _parts(path)
        links = 0
        found: Found | None = None
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            done.append(part)
            here = canonical_path("/" + "/".join(done))
            done = here[1:].split("/")
            found = self.supply.find(here)
            if found is None or found.member.kind != "symlink":
                continue
            self._add(found, why, by)
            links += 1
            if links > MAX_LINKS:
                return None
            done = [] if found.member.target.startswith("/") else done[:-1]
            todo += _parts(found.member.target)
        if found is not None and found.member.kind == "file":
            self._add(found, why, by)
        return found

    def add(self, entry: Entry, found: Found | None = None) -> None:
        """Add an entry as it is, over one that is there. Raises ResolveError beyond the limits of a closure."""
        before = self.taken.get(entry.path)
        self.taken[entry.path] = Taken(entry, found)
        self.size += entry.size - (before.entry.size if before else 0)
        if self.size > MAX_CLOSURE_BYTES:
            raise ResolveError(f"the closure is larger than {MAX_CLOSURE_BYTES >> 30} GiB")
        if len(self.taken) > MAX_FILES:
            raise ResolveError(f"the closure has more than {MAX_FILES} files")

    def need(self, want: Want) -> None:
        """Want something; `run` finds it."""
        self._open.append(want)

    def run(self) -> None:
        """Follow all edges until nothing is wanted. Raises MissingLibraryError, BadElfError, ResolveError."""
        while True:
            while self._edges:
                self._follow(self._edges.popleft())
            unmet = [want for want in self._open if not self._meet(want)]
            self._open = deque(unmet)
            if self._edges:
                continue
            if not unmet:
                return
            if not self.supply.seek(unmet):
                self._give_up(unmet)
                self._open.clear()

    def _add(self, found: Found, why: str, by: str) -> None:
        member = found.member
        if member.path in self.taken:
            return
        is_file = member.kind == "file"
        entry = Entry(
            path=member.path,
            kind=member.kind,
            mode=file_mode(member.mode) if is_file else 0o777 if member.kind == "symlink" else member.mode & 0o1777,
            digest=member.digest,
            size=member.size,
            target=member.target,
            source=found.source,
            why=why,
            by=by if by != member.path else "",
        )
        self.add(entry, found if is_file else None)
        self._edges.append(found)

    def _follow(self, found: Found) -> None:
        """Want what a member that has just been taken needs."""
        member = found.member
        if member.kind == "symlink":
            self._follow_link(found)
        elif member.facts is not None:
            self._follow_elf(found)
        elif member.script and member.mode & 0o111 and not is_module(member.path):
            self._follow_script(found)

    def _follow_link(self, found: Found) -> None:
        target = link_target(found.member)
        if not target.startswith(tuple(f"{folder}/" for folder in KERNEL_FOLDERS)):
            why = f"target of {found.member.path}"
            self.need(Want("path", target, found.member.path, found.package, why, optional=True))

    def _follow_elf(self, found: Found) -> None:
        member, facts = found.member, found.member.facts
        assert facts is not None
        if facts.interpreter and facts.program:
            why = f"loader of {member.path} (PT_INTERP)"
            self.need(Want("path", facts.interpreter, member.path, found.package, why))
        for soname in facts.needed:
            if soname in self.without:
                continue
            why = f"needed by {member.path} (DT_NEEDED {soname})"
            self.need(Want("library", soname, member.path, found.package, why))
        for note in facts.dlopen:
            if note.priority in ("required", "recommended"):
                why = f"opened by {member.path} (.note.dlopen {note.feature})".replace(" )", ")")
                optional = note.priority != "required"
                self.need(Want("library", "|".join(note.sonames), member.path, found.package, why, optional))

    def _follow_script(self, found: Found) -> None:
        path = found.member.path
        for program in script_programs(found.member.script):
            self.need(Want("path", program, path, found.package, f"runs {path} (#!)", optional=True))

    def _meet(self, want: Want) -> bool:
        return self._meet_library(want) if want.kind == "library" else self._meet_path(want)

    def _meet_path(self, want: Want) -> bool:
        for path in self._spellings(want.name):
            if path in self.provided:
                return True
            found = self.take(path, want.why, want.by)
            if found is not None:
                if _is_program(found.member) and not found.own:
                    self._take_companions(found)
                return True
        return False

    def _spellings(self, name: str) -> list[str]:
        """A path as it is, or a program's bare name in each folder of programs."""
        return [name] if name.startswith("/") else [f"{folder}/{name}" for folder in PROGRAM_FOLDERS]

    def _take_companions(self, found: Found) -> None:
        why = f"part of {found.package}, to which {found.member.path} belongs"
        for path in self.supply.companions(found):
            self.take(path, why, found.member.path)

    def _meet_library(self, want: Want) -> bool:
        needer = self.supply.find(want.by)
        for soname in want.name.split("|"):
            chosen = self._find_library(soname, needer)
            if chosen is not None:
                path, found = chosen
                self.take(path, want.why, want.by)
                self._check_versions(soname, needer, found)
                return True
        return False

    def _find_library(self, soname: str, needer: Found | None) -> tuple[str, Found] | None:
        """Where the loader would find a soname: the path that it opens, and the file at its end."""
        if "/" in soname:
            candidates = [soname] if soname.startswith("/") else []
        else:
            candidates = [f"{folder}/{soname}" for folder in self._search_path(needer)]
        for path in candidates:
            found = self._library_at(path)
            if found is not None:
                return path, found
        loaded = self.supply.by_soname(soname)
        return None if loaded is None else (loaded.member.path, loaded)

    def _search_path(self, needer: Found | None) -> Iterable[str]:
        if needer is not None and needer.member.facts is not None:
            origin = posixpath.dirname(needer.member.path)
            for folder in needer.member.facts.runpath:
                folder = folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
                if folder.startswith("/") and "$" not in folder:
                    yield canonical_path(posixpath.normpath(folder))
        yield from self.folders

    def _library_at(self, path: str) -> Found | None:
        """The usable library at the end of a path's links, without taking anything."""
        found = follow(self.supply, path)
        if found is None or found.member.kind != "file":
            return None
        if found.member.unusable:  # the loader passes over a library of another class, too
            self._checked.setdefault(path.rpartition("/")[2], found)
        return found if found.member.facts is not None else None

    def _check_versions(self, soname: str, needer: Found | None, library: Found) -> None:
        """The loader refuses a library that lacks a version it must have; so do we, and say which."""
        if needer is None or needer.member.facts is None or library.member.facts is None:
            return
        offered = library.member.facts.defines
        lacking = [name for name in needer.member.facts.versions.get(soname, ()) if name not in offered]
        if offered and lacking:
            raise ResolveError(
                f"{needer.member.path} ({needer.source}) needs {lacking[0]} of {soname}, "
                f"but {library.member.path} ({library.source}) does not define it",
                "the two come from different releases; take both from the same one",
            )

    def _is_provided(self, want: Want) -> bool:
        """Whether the loader finds a library in a template below, of which no package is known (a host's, say)."""
        folders = list(self._search_path(self.supply.find(want.by))) if want.kind == "library" else []
        names = want.name.split("|")
        return any(f"{folder}/{name}" in self.provided for folder in folders for name in names)

    def _give_up(self, unmet: list[Want]) -> None:
        for want in unmet:
            if want.optional:
                continue
            if self._is_provided(want):
                continue
            name = want.name.partition("|")[0]
            bad = self._checked.get(name)
            if bad is not None:
                raise BadElfError(f"{bad.member.unusable}; {want.by} needs it")
            told = f"{want.by or f'the template ({want.why})'} needs {name}, which is nowhere to be found"
            kind = MissingLibraryError if want.kind == "library" else ResolveError
            raise kind(told, self.supply.advice(want))


def follow(supply: Supply, path: str) -> Found | None:
    """The member at the end of a path's links, or None."""
    done: list[str] = []
    todo = _parts(path)
    found: Found | None = None
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        done = canonical_path("/" + "/".join((*done, part)))[1:].split("/")
        found = supply.find("/" + "/".join(done))
        if found is not None and found.member.kind == "symlink":
            links += 1
            if links > MAX_LINKS:
                return None
            done = [] if found.member.target.startswith("/") else done[:-1]
            todo += _parts(found.member.target)
    return found


def _parts(path: str) -> list[str]:
    """The names of a path, last first."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def link_target(member: Member) -> str:
    """Where a symbolic link points, as a canonical path (links on the way are not followed)."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(member.path), member.target))
    return canonical_path("/" + joined.lstrip("/"))


def script_programs(line: str) -> list[str]:
    """The programs that a `#!` line runs: canonical paths, or a bare name that `env` looks up."""
    words = line.split()
    if not words or not words[0].startswith("/") or ".." in words[0].split("/"):
        return []
    programs = [canonical_path(words[0])]
    if programs[0].endswith("/env"):
        names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        if names and "/" not in names[0]:
            programs.append(names[0])
    return programs


def _is_program(member: Member) -> bool:
    if member.kind != "file" or not member.mode & 0o111:
        return False
    return bool(member.script) or (member.facts is not None and member.facts.program)
