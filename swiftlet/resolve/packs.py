"""Named packs: what programs read that no edge of their files leads to (name service, certificates, locales ...).

A pack says from which Debian packages it takes what, and makes the rest. What is made here is the same on
every host: it depends on nothing but the packages' files.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from swiftlet.model.error import ResolveError
from swiftlet.resolve.assembly import Assembly
from swiftlet.resolve.protocol import EXECUTABLE
from swiftlet.resolve.walk import Want

NSSWITCH = b"""\
passwd:         files
group:          files
shadow:         files
hosts:          files dns
networks:       files
protocols:      files
services:       files
ethers:         files
rpc:            files
netgroup:       files
"""
"""The files and dns services are part of libc itself since 2.34, so no libnss_*.so is needed for them."""

LDCONFIG = b"""\
#!/bin/sh
# Lists the libraries that the loader finds without a cache, in the form of `ldconfig -p`; other calls do nothing.
[ "$1" = -p ] || exit 0
set -- /lib/x86_64-linux-gnu/*.so* /usr/lib/*.so* /usr/local/lib/*.so*
echo "$# libs found in the default folders"
for library; do
    [ -e "$library" ] && printf '\\t%s (libc6,x86-64) => %s\\n' "${library##*/}" "$library"
done
exit 0
"""
"""A stack's libraries come from several templates and may be added to while it runs; a cache would know some."""

CERTIFICATES = "/usr/share/ca-certificates"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
JAVA_STORE = "/etc/ssl/certs/java/cacerts"
_STORE_MAGIC = 0xFEEDFEED
_STORE_DATE_MS = 315619200000
_STORE_PASSWORD = "changeit"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


class Pack(NamedTuple):
    """packages: where it takes files from. needs: packs that it is nothing without."""

    packages: tuple[str, ...]
    apply: Callable[[Assembly], None]
    needs: tuple[str, ...] = ()


def _name_service(assembly: Assembly) -> None:
    assembly.write("/etc/nsswitch.conf", NSSWITCH, "pack nss: where libc looks names up")
    assembly.write("/etc/host.conf", b"multi on\n", "pack nss: all addresses of a name count")
    for path in ("/etc/services", "/etc/protocols"):
        _require(assembly, path, "pack nss: names of ports and protocols")


def _certificates(assembly: Assembly) -> None:
    bundle = b"".join(content.strip() + b"\n" for _, content in _authorities(assembly))
    assembly.write(BUNDLE, bundle, "pack certificates: every authority of ca-certificates")
    assembly.link("/usr/lib/ssl/cert.pem", BUNDLE, "pack certificates: OpenSSL's default place")
    assembly.link("/usr/lib/ssl/certs", "/etc/ssl/certs", "pack certificates: OpenSSL's default folder")


def _authorities(assembly: Assembly) -> list[tuple[str, bytes]]:
    """(path, PEM text) of each authority, by path."""
    found = [found for found in assembly.below(CERTIFICATES) if found.member.path.endswith(".crt")]
    if not found:
        raise ResolveError("package ca-certificates holds no certificates")
    return [(item.member.path, assembly.read(item)) for item in sorted(found, key=lambda item: item.member.path)]


def _java_certificates(assembly: Assembly) -> None:
    content = java_store(_authorities(assembly))
    assembly.write(
        JAVA_STORE, content, "pack java-certificates: every authority of ca-certificates, as Java reads them"
    )


def java_store(authorities: Iterable[tuple[str, bytes]]) -> bytes:
    """A JKS key store (password `changeit`, as Java expects) of PEM certificates; the same for the same input."""
    entries = []
    for path, text in authorities:
        match = _PEM.search(text)
        if match is None:
            continue
        der = base64.b64decode(match.group(1))
        alias = path.rpartition("/")[2].removesuffix(".crt").lower().encode()
        entry = struct.pack(">IH", 2, len(alias)) + alias + struct.pack(">QH", _STORE_DATE_MS, 5) + b"X.509"
        entries.append(entry + struct.pack(">I", len(der)) + der)
    body = struct.pack(">III", _STORE_MAGIC, 2, len(entries)) + b"".join(entries)
    seal = hashlib.sha1(_STORE_PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body)
    return body + seal.digest()


def _time_zones(assembly: Assembly) -> None:
    folder = "/usr/share/zoneinfo"
    why = "pack timezones"
    if not assembly.take_below(folder, why, without=(f"{folder}/right", f"{folder}/posix")):
        raise ResolveError("package tzdata holds no time zones")
    assembly.link("/etc/localtime", f"{folder}/Etc/UTC", "pack timezones: UTC unless TZ says otherwise")
    assembly.write("/etc/timezone", b"Etc/UTC\n", why)


def _locale(assembly: Assembly) -> None:
    if not assembly.take_below("/usr/lib/locale", "pack locale: C.UTF-8"):
        raise ResolveError("package libc-bin holds no locale")


def _gconv(assembly: Assembly) -> None:
    assembly.take_below("/usr/lib/x86_64-linux-gnu/gconv", "pack gconv: character sets of iconv")


def _terminfo(assembly: Assembly) -> None:
    for folder in ("/usr/lib/terminfo", "/usr/share/terminfo", "/etc/terminfo"):
        assembly.take_below(folder, "pack terminfo: what terminals can do")


def _openssl(assembly: Assembly) -> None:
    _require(assembly, "/etc/ssl/openssl.cnf", "pack openssl: its configuration")
    assembly.link("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf", "pack openssl: where libcrypto looks for it")
    for name in ("engines-3", "ossl-modules"):
        assembly.take_below(f"/usr/lib/x86_64-linux-gnu/{name}", "pack openssl: opened by libcrypto when configured")


def _shell(assembly: Assembly) -> None:
    want = Want("path", "/usr/bin/sh", "", "dash", "pack shell: for system() and subprocess")
    assembly.walker.need(want)


def _ldconfig(assembly: Assembly) -> None:
    why = "pack ldconfig: Python's ctypes.util.find_library runs `ldconfig -p`"
    assembly.write("/usr/sbin/ldconfig", LDCONFIG, why, EXECUTABLE)


def _media_types(assembly: Assembly) -> None:
    _require(assembly, "/etc/mime.types", "pack media-types: types by file name")


def _require(assembly: Assembly, path: str, why: str) -> None:
    if not assembly.take(path, why):
        raise ResolveError(f"{path} is not where it should be ({why})")


PACKS: dict[str, Pack] = {
    "nss": Pack(("netbase",), _name_service),
    "certificates": Pack(("ca-certificates",), _certificates),
    "java-certificates": Pack(("ca-certificates",), _java_certificates),
    "timezones": Pack(("tzdata",), _time_zones),
    "locale": Pack(("libc-bin",), _locale),
    "gconv": Pack(("libc6",), _gconv),
    "terminfo": Pack(("ncurses-base",), _terminfo),
    "openssl": Pack(("openssl", "libssl3"), _openssl),
    "shell": Pack(("dash",), _shell),
    "ldconfig": Pack((), _ldconfig, needs=("shell",)),
    "media-types": Pack(("media-types",), _media_types),
}


def with_needed(names: Iterable[str]) -> list[str]:
    """The packs of a template and those that they need, each once."""
    found: list[str] = []
    pending = list(names)
    while pending:
        name = pending.pop(0)
        if name not in found:
            found.append(name)
            pending += PACKS[name].needs
    return found


_IMPLIED_BY_PACKAGE = {
    "ca-certificates": "certificates",
    "ca-certificates-java": "java-certificates",
    "media-types": "media-types",
    "ncurses-base": "terminfo",
    "netbase": "nss",
    "openssl": "openssl",
    "tzdata": "timezones",
}
"""What it means that a package depends on, or recommends, one of these: it reads its data."""

_IMPLIED_BY_FILE = {"/usr/lib/x86_64-linux-gnu/libtinfo.so.6": "terminfo"}
"""Libraries that read data on which nothing declares to depend, since every Debian system has it."""


def implied(related: Iterable[str], paths: Container[str]) -> list[str]:
    """The packs that a package without a recipe needs.

    related: names of what its packages depend on or recommend. paths: what has been taken.
    """
    found = {_IMPLIED_BY_PACKAGE[name] for name in related if name in _IMPLIED_BY_PACKAGE}
    found.update(pack for path, pack in _IMPLIED_BY_FILE.items() if path in paths)
    return sorted(found)
