"""How people write things: sizes, ports, volumes, references; parsed into plain values, standard library only.

Used by the command's flags and by workload files alike, so that both understand the same. What a value
means for a guest is left to `workload` and `template`; whether a file exists is left to who opens it.
`swiftlet run -v ... -e ...` waits for this module, so `re`, `typing` and `ipaddress` (11 ms) come in when needed.
"""

from __future__ import annotations

import os

from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Any, Literal

    Scheme = Literal["template", "deb", "host", "file"]

_SIZE = r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(?:([kmgtpKMGTP])(?:[iI]?[bB])?|[bB])?"
_NAME = r"[a-z0-9][a-z0-9+._-]{0,127}"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9.+:~_-]{0,127}\*?|\*"
_SONAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}"
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def _match(pattern: str, text: str) -> re.Match[str] | None:
    import re

    return re.fullmatch(pattern, text)


class Reference:
    """What a user means by a template; a value, equal when its members are.

    template: name and version ("" is any). deb: a package and its version. host: `name` is an absolute path.
    file: `name` is the path of a YAML file as it was written.
    """

    __slots__ = ("name", "scheme", "version")

    def __init__(self, scheme: Scheme, name: str, version: str = "") -> None:
        self.scheme = scheme
        self.name = name
        self.version = version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"Reference({self.scheme!r}, {self.name!r}, {self.version!r})"

    def __str__(self) -> str:
        if self.scheme == "deb":
            return f"deb:{self.name}={self.version}" if self.version else f"deb:{self.name}"
        if self.scheme == "host":
            return f"host:{self.name}"
        return f"{self.name}@{self.version}" if self.version else self.name


def parse_size(text: str) -> int:
    """Bytes of `128M`, `1.5GiB`, `512k` or `4096`; K, M, G, T and P are powers of 1,024 as with docker."""
    match = _match(_SIZE, text.strip())
    if match is None:
        raise InputError(f"not a size: {text!r}", "write a number with K, M, G or T, such as 128M")
    number, unit = match.groups()
    whole, _, fraction = number.partition(".")
    factor = 1 << _SHIFT[(unit or "").lower()]
    size = int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)
    if size >= 1 << 63:
        raise InputError(f"size too large: {text!r}")
    return size


def parse_cpus(text: str) -> float:
    """Cores, such as `1.5`; 0 is no limit."""
    try:
        cores = float(text)
    except ValueError:
        cores = -1.0
    if not 0 <= cores <= 65536:
        raise InputError(f"not a number of CPUs: {text!r}", "write a number of cores such as 1 or 0.5")
    return cores


def parse_port(text: str) -> dict[str, Any]:
    """`[[ip:]host:]guest[/tcp|udp]` as the members of a workload's Port; host 0 is any free port."""
    rest, _, protocol = text.strip().partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp"):
        raise InputError(f"port {text!r}: unknown protocol {protocol!r}", "write tcp or udp")
    before, _, guest = rest.rpartition(":")
    host_ip, host = _split_host(before, text)
    return {
        "guest": _port_number(guest, text, lowest=1),
        "host": _port_number(host, text, lowest=0) if host else 0,
        "host_ip": host_ip,
        "protocol": protocol,
    }


def _split_host(before: str, text: str) -> tuple[str, str]:
    address, colon, host = before.rpartition(":")
    if not colon:
        return "", host
    import ipaddress

    address = address.removeprefix("[").removesuffix("]")
    try:
        return (str(ipaddress.ip_address(address)) if address else ""), host
    except ValueError:
        raise InputError(f"port {text!r}: {address!r} is not an IP address") from None


def _port_number(text: str, whole: str, lowest: int) -> int:
    if not text.isascii() or not text.isdigit() or not lowest <= int(text[:6]) <= 65535:
        raise InputError(f"port {whole!r}: {text!r} is not a port", "write HOST:GUEST, such as 8080:80")
    return int(text)


def parse_volume(text: str, base: str) -> dict[str, Any]:
    """`source:target[:ro|rw]` as the members of a workload's Volume; a relative source starts at folder `base`."""
    source, _, rest = text.partition(":")
    target, colon, option = rest.partition(":")
    if not source or not target:
        raise InputError(f"volume {text!r} has no target", "write SOURCE:TARGET or SOURCE:TARGET:ro")
    if colon and option not in ("ro", "rw"):
        raise InputError(f"volume {text!r}: unknown option {option!r}", "write ro or rw")
    return {
        "source": os.path.abspath(os.path.join(base, os.path.expanduser(source))),
        "target": parse_guest_path(target, f"volume {text!r}"),
        "read_only": option == "ro",
    }


def parse_guest_path(text: str, what: str) -> str:
    """An absolute guest path without `..` or NUL; `what` names its owner in the error."""
    if not text.startswith("/") or "\0" in text or ".." in text.split("/"):
        raise InputError(f"{what}: {text!r} is not an absolute path in the guest")
    return text


def parse_environment(text: str) -> tuple[str, str | None]:
    """`NAME=value`, or `NAME` alone with None: the caller's own value is meant."""
    name, equals, value = text.partition("=")
    if not _is_variable(name) or "\0" in value:
        raise InputError(f"not an environment variable: {text!r}", "write NAME=value")
    return name, (value if equals else None)


def _is_variable(name: str) -> bool:
    """Letters, digits, `_`, and after the first also `.` and `-`."""
    return name.isascii() and name[:1] not in (".", "-") and name.replace(".", "_").replace("-", "_").isidentifier()


def parse_ulimit(text: str) -> tuple[str, tuple[int, int]]:
    """`nofile=1024[:4096]` as name and (soft, hard); `unlimited` or -1 is no limit."""
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    if not equals or not name.isalpha():
        raise InputError(f"not a limit: {text!r}", "write NAME=SOFT[:HARD], such as nofile=1024:4096")
    first = _limit(soft, text)
    return name.lower(), (first, _limit(hard, text) if colon else first)


def _limit(text: str, whole: str) -> int:
    if text in ("unlimited", "-1"):
        return -1
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InputError(f"limit {whole!r}: {text!r} is not a number")
    return int(text)


def parse_reference(text: str) -> Reference:
    """What `-t` and `requires` accept: `name[@version]`, `deb:NAME[=VERSION]`, `host:/path`, a path to a YAML file."""
    if text.startswith("deb:"):
        name, version = parse_package(text[4:])
        return Reference("deb", name, version)
    if text.startswith("host:"):
        return Reference("host", parse_guest_path(text[5:], f"template {text!r}"))
    if text.endswith((".yaml", ".yml")) and "\0" not in text:
        return Reference("file", text)
    name, at, version = text.partition("@")
    if not _match(_NAME, name) or (at and not _match(_VERSION, version)):
        raise InputError(
            f"not a template: {text[:100]!r}", "write NAME, NAME@VERSION, deb:PACKAGE, host:/path or a .yaml file"
        )
    return Reference("template", name, version)


def parse_package(text: str) -> tuple[str, str]:
    """A Debian package, `name` or `name=version` (version may end in `*`), as (name, version or "")."""
    name, equals, version = text.partition("=")
    if not _match(_NAME, name) or (equals and not _match(_VERSION, version)):
        raise InputError(f"not a Debian package: {text[:100]!r}", "write NAME or NAME=VERSION")
    return name, version


def parse_wheel(text: str) -> tuple[str, str]:
    """A wheel of PyPI, `name==version` (version may end in `.*`) or `name`, as (name, version or "")."""
    name, equals, version = text.partition("==")
    if not _match(_NAME, name.lower()) or (equals and not _match(_VERSION, version)):
        raise InputError(f"not a wheel: {text[:100]!r}", "write NAME==VERSION or NAME==20.*")
    return name, version


def parse_library(text: str) -> str:
    """A soname from the paper's spelling: `libc@6` is libc.so.6, `libfoo@` is libfoo.so."""
    name, at, version = text.partition("@")
    if not at or not _match(_SONAME, name) or (version and not _match(_SONAME, version)):
        raise InputError(f"not a library: {text[:100]!r}", "write NAME@VERSION, such as libc@6 for libc.so.6")
    return f"{name}.so.{version}" if version else f"{name}.so"
