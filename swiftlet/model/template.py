"""Template: a runtime environment template (the Reg paper's RET, its figure 6), as a frozen value.

A template names files by their place in the guest and where they come from (packages, wheels, this
host); it never says how they are started on a host. Reading YAML is `resolve.template`'s business.
"""

from __future__ import annotations

import msgspec

MAX_REQUIRES = 64
"""Templates that one stack may hold; overlay takes 500 lowers, a page of mount options fewer."""

MAX_CLOSURE_BYTES = 8 << 30
"""A template whose files exceed this is refused: nobody needs it, an enemy might."""


class Generate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files that are made, not fetched: `run` is executed once in a sandbox over the template's own files."""

    run: tuple[str, ...]
    outputs: tuple[str, ...]


class Directory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory that the software expects to find; `user` is a key of `Template.users`, or root."""

    mode: str = "0755"
    user: str = "root"


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a runtime consists of. `files`, `libs`, `name`, `version` are the paper's; the rest is ours.

    files: name -> absolute path in the guest of a file or folder, taken from `packages` when one of them
        has it, else from this host.
    libs: `soname@version`, e.g. `libpthread@0` for libpthread.so.0; `libfoo@` for a bare libfoo.so.
    requires: other templates, `name@version`.
    packages: Debian packages, `name` or `name=version` where version may end in `*`.
    wheels: binary wheels of PyPI, `name==version` where version may end in `.*`: each archive path is placed
        below the guest path given as value.
    packs: named sets of what a tracer misses (nss, certificates, timezones, locale, gconv, terminfo, openssl, ...).
    include, exclude: glob patterns over guest paths, applied to the template's own packages.
    links: symbolic links, path -> target.
    without: libraries that its programs name and never call, soname -> their functions' names or beginnings of
        those with a `*`, of which those need none whose functions have versions (`resolve.unlinked`).
    users: name -> uid (and gid) to be found in /etc/passwd and /etc/group.
    """

    name: str
    version: str
    description: str = ""
    files: dict[str, str] = {}
    libs: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    wheels: dict[str, str] = {}
    packs: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    links: dict[str, str] = {}
    directories: dict[str, Directory] = {}
    users: dict[str, int] = {}
    env: dict[str, str] = {}
    entrypoint: tuple[str, ...] = ()
    without: dict[str, tuple[str, ...]] = {}
    generate: tuple[Generate, ...] = ()

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"
