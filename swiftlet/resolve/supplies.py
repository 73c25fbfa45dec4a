"""Several supplies as one: packages, wheels, this host, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swiftlet.resolve.apt import Apt
from swiftlet.resolve.debian import Universe, offering
from swiftlet.resolve.host import HOST, HostFiles
from swiftlet.resolve.walk import Found, Want
from swiftlet.resolve.wheel import Wheels


class Supplies:
    """A Supply made of a template's packages, its wheels, the host's files that it names, and libraries from beneath.

    beneath: the packages that the templates which it requires were made of, asked last.
    """

    def __init__(
        self, universe: Universe | None, wheels: Wheels, host: HostFiles, apt: Apt, beneath: Universe | None = None
    ) -> None:
        self.universe = universe
        self.beneath = beneath
        self.wheels = wheels
        self.host = host
        self.apt = apt
        supplies = (universe, wheels, host, beneath)
        self.all: list[Universe | Wheels | HostFiles] = [supply for supply in supplies if supply is not None]

    def find(self, path: str) -> Found | None:
        """See Supply; a folder of one supply does not hide a file or link of another."""
        best: Found | None = None
        for supply in self.all:
            found = supply.find(path)
            if found is not None and (best is None or best.member.kind == "directory"):
                best = found
        return best

    def by_soname(self, soname: str) -> Found | None:
        """See Supply."""
        found = (supply.by_soname(soname) for supply in self.all)
        return next((hit for hit in found if hit is not None), None)

    def seek(self, wants: Sequence[Want]) -> bool:
        """See Supply; this host is looked at last of what the template names, and what lies beneath after it."""
        return any(supply.seek(wants) for supply in self.all)

    def companions(self, found: Found) -> Iterable[str]:
        """See Supply."""
        return self._of(found).companions(found)

    def advice(self, want: Want) -> str:
        """See Supply."""
        found = next((text for supply in self.all if (text := supply.advice(want))), "")
        package = offering(self.apt, want) if self.universe is None else ""
        return f"package {package} should have it: {found or 'add it to packages'}" if package else found

    def content(self, found: Found) -> tuple[int, int]:
        """A descriptor and the offset in it where a file's content starts."""
        return self._of(found).content(found)

    def _of(self, found: Found) -> Universe | Wheels | HostFiles:
        if found.package == HOST:
            return self.host
        for universe in (self.universe, self.beneath):
            if universe is not None and universe.holds(found):
                return universe
        return self.wheels
