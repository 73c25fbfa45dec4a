"""Tables: what of a package no program reads, and in which package Debian keeps a library or a program.

Everything here is about Debian's conventions and is data; `walk` and `debian` apply it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LEFT_OUT: tuple[tuple[str, str], ...] = (
    ("documentation", r"/usr/share/(doc|doc-base|gtk-doc|help|javadoc)/.*"),
    ("manual pages", r"/usr(/local)?/share/(man|info)/.*"),
    ("packaging", r"/usr/share/(lintian|bug|apport|debconf|dpkg|reportbug)/.*|/var/lib/(dpkg|ucf)/.*"),
    ("translations", r"/usr/share/locale/[^/]+/LC_(MESSAGES|TIME)/.*|/usr/share/locale/[^/]+/.*\.(mo|qm)"),
    (
        "service units",
        r"/usr/lib/(systemd|tmpfiles\.d|sysusers\.d|udev|modprobe\.d|sysctl\.d)/.*|/etc/(systemd|udev)/.*",
    ),
    ("init scripts", r"/etc/(init|init\.d|rc[0-6S]\.d|insserv\.conf\.d|sv|runit)/.*|/etc/default/.*"),
    ("periodic jobs", r"/etc/(cron\.[a-z]+|logrotate\.d|logcheck|anacrontab)(/.*)?"),
    ("host policies", r"/etc/(apparmor\.d|selinux|ufw|fail2ban|needrestart|resolvconf|network|dhcp|ppp|kernel)/.*"),
    ("host hooks", r"/etc/(apt|dpkg|update-motd\.d|polkit-1|dbus-1|bash_completion\.d|insserv)/.*"),
    (
        "development",
        r"/usr/include/.*|.*\.(a|la|o)|/usr/(lib|share)/(.*/)?(pkgconfig|cmake|aclocal)/.*|/usr/lib/debug/.*",
    ),
    (
        "completions",
        r"/usr/share/(bash-completion|zsh|fish)/.*|/usr/share/gdb/.*|/usr/share/vim/.*|/usr/share/emacs/.*",
    ),
    ("desktop", r"/usr/share/(icons|pixmaps|applications|menu|metainfo|appdata|mime|mime-info|app-install)/.*"),
    ("desktop", r"/usr/lib/mime/.*|/usr/share/(polkit-1|dbus-1|doc-rfc|initramfs-tools|alsa|sounds)/.*"),
)
"""(what, pattern of whole canonical paths): never taken for a package's own sake. `include` brings a path back."""

_LEFT_OUT = re.compile("|".join(f"(?:{pattern})" for _, pattern in LEFT_OUT), re.DOTALL)

LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/lib64")
"""Where Debian's loader looks without being told, in canonical spelling (/lib is the same folder)."""

PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")

SINGLE_PROGRAMS = frozenset(
    ("bash", "bsdutils", "coreutils", "dash", "diffutils", "findutils", "gawk", "grep", "gzip", "hostname", "mawk")
).union(("mount", "ncurses-bin", "original-awk", "procps", "sed", "tar", "util-linux"))
"""Packages whose programs need no other file of the package: a script that needs one of them gets that one only."""

PROGRAM_PACKAGES = {
    "sh": "dash",
    "perl": "perl-base",
    "python3": "python3-minimal",
    "awk": "mawk",
    "env": "coreutils",
    "id": "coreutils",
    "install": "coreutils",
    "nawk": "mawk",
    "wish": "tk",
    "tclsh": "tcl",
    "node": "nodejs",
}
"""Programs by which scripts are run, where the package is not called like the program."""

LANGUAGES = frozenset(("java", "javascript", "lisp", "ocaml", "perl", "php", "python", "ruby", "tcl"))
"""Archive sections of languages whose modules are found by name at run time."""

LIBRARY_PACKAGES = {
    "ld-linux-x86-64.so.2": "libc6",
    "libcrypto.so.3": "libssl3",
    "libcrypto.so.1.1": "libssl1.1",
    "libz.so.1": "zlib1g",
    "libform.so.6": "libncurses6",
    "libgomp.so.1": "libgomp1",
    "libaio.so.1": "libaio1",
} | {
    f"{name}.so.{version}": "libc6"
    for name, version in (
        *(("libc", "6"), ("libm", "6"), ("libdl", "2"), ("libpthread", "0"), ("librt", "1"), ("libutil", "1")),
        *(("libresolv", "2"), ("libanl", "1"), ("libmvec", "1"), ("libnsl", "1"), ("libthread_db", "1")),
        *(("libBrokenLocale", "1"), ("libnss_files", "2"), ("libnss_dns", "2"), ("libnss_compat", "2")),
    )
}
"""Libraries whose package is not called after them; the naming policy finds the others."""


_MODULES = re.compile(r"/usr/(lib|share)/([^/]*-linux-gnu/)?(python|perl|ruby|nodejs|node_modules|tcl|php)[^/]*/.*")


def is_module(path: str) -> bool:
    """Whether a file is a module of a language: its `#!` line is for whoever tries it out by hand."""
    return _MODULES.fullmatch(path) is not None


def is_left_out(path: str) -> bool:
    """Whether no program reads this path of its own package."""
    return _LEFT_OUT.fullmatch(path) is not None


def why_left_out(path: str) -> str:
    """The kind of thing that a path is which is left out; "" for one that is taken."""
    for what, pattern in LEFT_OUT:
        if re.fullmatch(pattern, path, re.DOTALL):
            return what
    return ""


def library_packages(soname: str) -> list[str]:
    """Package names for a soname by Debian's library packaging guide, likeliest first.

    libpcre2-8.so.0 is in libpcre2-8-0, libssl.so.3 in libssl3, libgcc_s.so.1 in libgcc-s1; some carry
    a suffix of an ABI change (zlib1g, libssl3t64).
    """
    name, _, version = soname.partition(".so")
    if not version and "-" in name:  # libtcl-8.6.so, libfoo-1.2.so: the version is in the name
        name, _, version = name.rpartition("-")
    name = name.lower().replace("_", "-")
    version = version.lstrip(".")
    joint = "-" if version and name[-1:].isdigit() else ""
    base = f"{name}{joint}{version}"
    known = LIBRARY_PACKAGES.get(soname)
    found = [known] if known else []
    for candidate in (base, f"{name}-{version}" if version else name):
        found += [candidate, f"{candidate}t64", f"{candidate}g"]
    return list(dict.fromkeys(found))


def program_packages(path: str) -> list[str]:
    """Package names for a program's path, likeliest first."""
    name = path.rpartition("/")[2]
    bare = re.sub(r"[0-9.]+$", "", name)
    found = [
        PROGRAM_PACKAGES.get(name, ""),
        name,
        f"{name}-minimal",
        f"{name}-base",
        PROGRAM_PACKAGES.get(bare, ""),
        bare,
    ]
    return [candidate for candidate in dict.fromkeys(found) if candidate]


def likeness(soname: str, package: str) -> int:
    """How much a package's name resembles a library's; for ordering candidates. 0 is not at all."""
    stem = re.sub(r"[^a-z]", "", soname.partition(".so")[0].lower().removeprefix("lib"))
    other = re.sub(r"[^a-z]", "", package.lower().removeprefix("lib"))
    length = 0
    for ours, theirs in zip(stem, other, strict=False):
        if ours != theirs:
            break
        length += 1
    return length


def glob_pattern(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """One pattern for shell globs over whole paths: `*` and `?` stay within a name, `**` crosses folders.

    A pattern that names a folder covers what is below it.
    """
    parts = [_translate(pattern.rstrip("/")) for pattern in patterns]
    return re.compile("(?:" + "|".join(parts) + ")(?:/.*)?", re.DOTALL) if parts else None


def _translate(pattern: str) -> str:
    pieces = re.split(r"(\*\*|\*|\?)", pattern)
    spelled = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(spelled.get(piece) or re.escape(piece) for piece in pieces)


def is_chosen(path: str, include: re.Pattern[str] | None, exclude: re.Pattern[str] | None) -> bool:
    """Whether a template takes a path of its own packages: `include` wins over `exclude` and over the tables."""
    if path.startswith(("/dev/", "/proc/", "/run/", "/sys/", "/tmp/", "/var/run/", "/var/lock/")):
        return False
    if include is not None and include.fullmatch(path):
        return True
    return not is_left_out(path) and (exclude is None or not exclude.fullmatch(path))
