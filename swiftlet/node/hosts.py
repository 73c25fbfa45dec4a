"""The three files of /etc that depend on where a guest runs: resolv.conf, hosts and hostname. Pure, but for one read.

They are written into the guest's upper folder before it starts, so the guest may change them as it likes.
"""

from __future__ import annotations

from ipaddress import ip_address

_UPSTREAM = "/run/systemd/resolve/resolv.conf"
"""Where systemd-resolved tells its own servers, when /etc/resolv.conf names only its local stub."""


def read_resolver(path: str = "/etc/resolv.conf", upstream: str = _UPSTREAM) -> str:
    """The text from which guests' resolv.conf is made; "" when the host has none."""
    text = _read(path)
    if not _servers(text) and (better := _read(upstream)):
        return better
    return text


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""


def files(hostname: str, address: str, resolver: str, *, shares_host: bool = False) -> dict[str, str]:
    """Guest path -> content. address: the guest's own, "" for none. shares_host: it is in the host's network."""
    own = f"{address or '127.0.1.1'}\t{hostname}\n"
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}"
    return {
        "/etc/hostname": f"{hostname}\n",
        "/etc/hosts": hosts,
        "/etc/resolv.conf": resolver if shares_host else without_loopback(resolver),
    }


def without_loopback(resolver: str) -> str:
    """resolv.conf without the servers that only the host itself can reach (a guest's 127.0.0.1 is its own)."""
    lines = [line for line in resolver.splitlines() if not _is_loopback(line)]
    return "".join(f"{line}\n" for line in lines)


def _servers(resolver: str) -> list[str]:
    lines = [line for line in resolver.splitlines() if line.split()[:1] == ["nameserver"]]
    return [line for line in lines if not _is_loopback(line)]


def _is_loopback(line: str) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return False
    try:
        return ip_address(words[1].partition("%")[0]).is_loopback
    except ValueError:
        return False
