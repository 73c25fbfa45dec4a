"""A Supply of Debian packages: those of a template and all that they depend on, fetched when an edge leads there.

apt says which packages belong together; which of them are fetched is decided here, by Debian's naming of
library packages first and by their dependencies next, so that most of a dependency closure is never
downloaded. Reading one package is `archive`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from swiftlet.model.error import NotFoundError, SwiftletError
from swiftlet.resolve import policy
from swiftlet.resolve.apt import Apt, Package
from swiftlet.resolve.archive import PACKAGE, Archive, Member
from swiftlet.resolve.walk import Found, Want

MAX_GUESSES = 12
"""Packages that are fetched at once on the mere chance that they hold a missing file."""


class Universe:
    """The packages of one template. Close it, or use it as a context manager.

    own: names of those that the template asks for. fixed: these are what required templates brought, so libraries are
    taken from them, or from packages that they depend on, and nothing else.
    """

    def __init__(
        self, apt: Apt, cache: str, packages: Iterable[Package], own: Iterable[str], *, fixed: bool = False
    ) -> None:
        self.apt = apt
        self.fixed = fixed
        self.index = f"{cache}/index"
        self.packages = {package.name: package for package in packages}
        self.own = set(own)
        self.archives: dict[str, Archive] = {}
        self._paths: dict[str, tuple[str, Member]] = {}
        self._sonames: dict[str, str] = {}
        self._tried: set[tuple[str, str, int]] = set()
        self.load(sorted(self.own))

    def __enter__(self) -> Universe:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self.archives.values():
            archive.close()

    def load(self, names: Iterable[str]) -> bool:
        """Fetch and read packages; False when all of them were here already."""
        wanted = [self.packages[name] for name in names if name in self.packages and name not in self.archives]
        if not wanted:
            return False
        files = self.apt.fetch(wanted)
        for number, package in enumerate(wanted):
            self.apt.progress("unpack", package.name, number, len(wanted))
            archive = Archive(files[package.name], package.sha256, self.index, PACKAGE)
            self.archives[package.name] = archive
            for path, member in archive.members.items():
                before = self._paths.get(path)
                if before is None or (before[1].kind == "directory" != member.kind):
                    self._paths[path] = (package.name, member)
            if package.name in self.own:
                self._learn_sonames(archive)
        return True

    def add(self, names: Sequence[str]) -> list[str]:
        """Bring packages into the universe that the template does not depend on, with what they depend on.

        Gives back the names that exist.
        """
        known = self.apt.show([name for name in names if name not in self.packages])
        if known:
            for package in self.apt.closure([f"{package.name}={package.version}" for package in known]):
                self.packages.setdefault(package.name, package)
        return [name for name in names if name in self.packages]

    def own_files(self, names: Iterable[str] | None = None) -> Iterator[Found]:
        """Every member of the template's own packages."""
        for name in sorted(self.own) if names is None else names:
            for member in self.archives[name].members.values():
                yield self._found(name, member)

    def content(self, found: Found) -> tuple[int, int]:
        """A descriptor and the offset in it where a file's content starts."""
        return self.archives[found.package].content(found.member)

    def holds(self, found: Found) -> bool:
        """Whether this is of a package that has been read here."""
        return found.package in self.archives and self.packages[found.package].origin == found.source

    def find(self, path: str) -> Found | None:
        """See Supply."""
        hit = self._paths.get(path)
        return None if hit is None else self._found(*hit)

    def by_soname(self, soname: str) -> Found | None:
        """See Supply."""
        path = self._sonames.get(soname)
        return None if path is None else self.find(path)

    def companions(self, found: Found) -> Iterable[str]:
        """The other files of a program's package and of those built with it, unless the program stands alone."""
        if self.fixed or found.package in policy.SINGLE_PROGRAMS or found.package not in self.packages:
            return ()
        family = self.family([found.package], self.packages)
        self.load(family)
        for name in family:
            self._learn_sonames(self.archives[name])
        return [item.member.path for item in self.own_files(family) if not policy.is_left_out(item.member.path)]

    def family(self, names: Iterable[str], among: dict[str, Package]) -> list[str]:
        """These packages and all others of the closure that are built from the same sources."""
        sources = {among[name].source for name in names if name in among}
        return [name for name, package in among.items() if package.source in sources]

    def seek(self, wants: Sequence[Want]) -> bool:
        """See Supply: fetch the likeliest packages for all wants; a far guess only when no near one is left."""
        if self.fixed:
            wants = [want for want in wants if want.kind == "library"]
        for step in range(len(self._steps)):
            candidates: list[str] = []
            for want in {(want.kind, want.name): want for want in wants}.values():
                candidates += self._candidates(want, step)
            if candidates and self.load(dict.fromkeys(candidates)):
                return True
        return False

    def advice(self, want: Want) -> str:
        """See Supply."""
        if self.fixed:
            return ""
        guesses = _guesses(want)
        package = offering(self.apt, want, self.packages)
        if package:
            return f"package {package} should have it: add it to the template's packages"
        return f"no package is called {guesses[0]}; leave {want.by} out with `exclude`" if guesses else ""

    def _found(self, package: str, member: Member) -> Found:
        known = self.packages[package]
        return Found(member, package, known.origin, package in self.own)

    def _learn_sonames(self, archive: Archive) -> None:
        for path, member in archive.members.items():
            if member.facts is not None and not member.facts.program:
                self._sonames.setdefault(path.rpartition("/")[2], path)
                self._sonames.setdefault(member.facts.soname or path, path)

    @property
    def _steps(self) -> tuple[Callable[[Want], list[str]], ...]:
        return (self._by_name, self._by_archive, self._by_dependency, self._by_likeness)

    def _candidates(self, want: Want, step: int) -> list[str]:
        """Packages to look into for a want, the given step afield; each step is taken once for each want."""
        key = (want.kind, want.name, step)
        if key in self._tried:
            return []
        self._tried.add(key)
        return [name for name in self._steps[step](want) if name in self.packages and name not in self.archives]

    def _by_name(self, want: Want) -> list[str]:
        """What the package should be called."""
        return [name for name in _guesses(want) if name in self.packages][:2]

    def _by_dependency(self, want: Want) -> list[str]:
        """What the needing file's package depends on itself."""
        package = self.packages.get(want.package)
        depends = [name for name in (package.depends if package else ()) if name in self.packages]
        if want.kind == "library":
            libraries = [name for name in depends if self._is_library(name)]
            return sorted(libraries, key=lambda name: -policy.likeness(want.name, name))[:MAX_GUESSES]
        return [name for name in depends if not self._is_library(name)][:MAX_GUESSES]

    def _by_archive(self, want: Want) -> list[str]:
        """What is recommended with the needing file's package, or is a small program that nothing has to depend on.

        Beneath a template: what the packages there depend on, of which they needed nothing themselves.
        """
        package = self.packages.get(want.package)
        accepted = policy.SINGLE_PROGRAMS.union(package.recommends if package else ())
        if self.fixed:
            accepted = frozenset(name for package in self.packages.values() for name in package.depends)
        guesses = [name for name in _guesses(want) if name in accepted]
        return self.add([name for name in guesses if name not in self.packages])[:1]

    def _by_likeness(self, want: Want) -> list[str]:
        """Any library package of the closure, those with a similar name first."""
        if want.kind != "library":
            return []
        libraries = [name for name in self.packages if self._is_library(name) and name not in self.archives]
        return sorted(libraries, key=lambda name: -policy.likeness(want.name, name))[:MAX_GUESSES]

    def _is_library(self, name: str) -> bool:
        return self.packages[name].section in ("libs", "oldlibs") or name.startswith("lib")


def offering(apt: Apt, want: Want, known: Container[str] = ()) -> str:
    """The package, not among the `known`, that should have a missing file by its name; "" where there is none."""
    try:
        return next((name for name in _guesses(want) if name not in known and apt.show([name])), "")
    except SwiftletError:  # no apt, or no lists: it is another error that is being told
        return ""


def _guesses(want: Want) -> list[str]:
    if want.kind == "library":
        return [name for soname in want.name.split("|") for name in policy.library_packages(soname)]
    if want.name.startswith("/") and not want.name.startswith(policy.PROGRAM_FOLDERS):
        return ["libc6"] if "/ld-linux" in want.name else []
    return policy.program_packages(want.name)


def belonging(packages: Iterable[Package], name: str) -> list[str]:
    """A package and those of its dependencies, near and far, without which it is nothing.

    These are the ones built from the same Debian source; and for a module of a language (its section says so)
    the other modules that it depends on, with the interpreter, since no edge of a file leads to them.
    Raises NotFoundError for a virtual package.
    """
    known = {package.name: package for package in packages}
    if name not in known:
        raise NotFoundError(f"Debian package {name} has nothing to install", "it may be a virtual package")
    language = known[name].section if known[name].section in policy.LANGUAGES else ""
    found, pending = {name}, [name]
    while pending:
        package = known[pending.pop()]
        for other in package.depends:
            if other not in known or other in found:
                continue
            if known[other].source == package.source or (language and known[other].section == language):
                found.add(other)
                pending.append(other)
    return sorted(found)
