"""The nftables rules of one instance, as values in nft's JSON; and the one function that applies them.

Two tables, both named after the instance. In family `ip`::

    raw          what came over the bridge for 127.0.0.0/8 is dropped (it could come in, since the bridge has
                 route_localnet for the sake of ports published on 127.0.0.1; CVE-2020-8558), and so is what
                 does not come from the subnet
    prerouting   a published port of this host becomes the guest's address and port
    output       the same for connections of the host itself, to 127.0.0.1 too
    postrouting  what leaves the subnet takes the host's address; so does what came through a published port
                 back into the bridge (hairpin), and what the host sends from 127.0.0.1
    forward      only answers, published ports and other guests reach a guest; uplinks do not reach one another
                 through the forwarding that was switched on for the guests

and in family `bridge`, where the kernel has it::

    prerouting   a guest's interface sends IPv4 and ARP only, from the addresses that belong to it

A published port is an element in two maps, because nft 1.0.6 crashes on a map whose value is a concatenation.
Which rules are wanted when is left to `network`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple

from swiftlet.model.error import HostError

Rule = dict[str, Any]

ANYWHERE = "0.0.0.0"
"""Stands in the maps for a port that is published on every address of the host."""


class Published(NamedTuple):
    """One published port. host_ip: an address of this host, or ANYWHERE."""

    protocol: str
    host_ip: str
    host_port: int
    guest_ip: str
    guest_port: int


class Owner(NamedTuple):
    """The addresses that the guest behind one interface of the bridge may send from."""

    interface: str
    hardware: str
    address: IPv4Address


class Setting(NamedTuple):
    """What the rules of an instance depend on. uplinks: interfaces that forwarding was switched on for."""

    table: str
    bridge: str
    ports_prefix: str
    subnet: IPv4Network
    uplinks: tuple[str, ...] = ()


def apply(rules: list[Rule]) -> None:
    """Apply all of the rules or none, in one transaction. Raises HostError with nft's own first line."""
    document = json.dumps({"nftables": rules})
    try:
        done = subprocess.run(["nft", "-j", "-f", "-"], input=document, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HostError("nft is not installed", "apt-get install nftables, or run with --network host") from None
    if done.returncode != 0:
        line = next((line for line in done.stderr.splitlines() if "Error" in line), done.stderr.strip()[:200])
        raise HostError(f"nft refused the rules: {line or f'exit status {done.returncode}'}", "swiftlet doctor")


def base_rules(setting: Setting) -> list[Rule]:
    """The `ip` table from nothing, whatever was there before; every published port is gone then."""
    table = {"family": "ip", "name": setting.table}
    commands: list[Rule] = [{"add": {"table": table}}, {"delete": {"table": table}}, {"add": {"table": table}}]
    for protocol in ("tcp", "udp"):
        for what, value in (("address", "ipv4_addr"), ("port", "inet_service")):
            commands.append(_map(setting, f"{protocol}_{what}", value))
    for name, kind, hook, priority, rules in _chains(setting):
        chain = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        commands.append({"add": {"chain": {"family": "ip", "table": setting.table, "name": name, **chain}}})
        for rule in rules:
            commands.append({"add": {"rule": {"family": "ip", "table": setting.table, "chain": name, "expr": rule}}})
    return commands


def _map(setting: Setting, name: str, value: str) -> Rule:
    key = ["ipv4_addr", "inet_service"]
    return {"add": {"map": {"family": "ip", "table": setting.table, "name": name, "type": key, "map": value}}}


def _chains(setting: Setting) -> list[tuple[str, str, str, int, list[list[Rule]]]]:
    """(name, type, hook, priority, rules); priorities are those of iptables' raw, dstnat, filter and srcnat."""
    to_guest = _translations()
    return [
        ("raw", "filter", "prerouting", -300, _strangers(setting)),
        ("prerouting", "nat", "prerouting", -100, to_guest),
        ("output", "nat", "output", -100, to_guest),
        ("postrouting", "nat", "postrouting", 100, _masquerades(setting)),
        ("forward", "filter", "forward", 0, _forwards(setting)),
    ]


def _strangers(setting: Setting) -> list[list[Rule]]:
    """With route_localnet the kernel no longer refuses 127.0.0.0/8 on the bridge, as source or as destination."""
    inward = _interface("iifname", "==", setting.bridge)
    return [
        [inward, _match(_field("ip", "daddr"), "==", _LOOPBACK), {"drop": None}],
        [inward, _match(_field("ip", "saddr"), "!=", _prefix(setting.subnet)), {"drop": None}],
    ]


def _translations() -> list[list[Rule]]:
    """For each protocol: a port of one address first, then a port of any address."""
    rules = []
    for protocol in ("tcp", "udp"):
        for address in (_field("ip", "daddr"), ANYWHERE):
            rules.append([_match(_LOCAL_TYPE, "==", "local"), *_translation(protocol, address)])
    return rules


def _translation(protocol: str, address: Rule | str) -> list[Rule]:
    port = _field(protocol, "dport")
    if address == ANYWHERE:
        # A constant cannot be part of a map's key: the mark-free way is to take the low bits of the address away.
        address = {"&": [_field("ip", "daddr"), ANYWHERE]}
    key = {"concat": [address, port]}
    lookup = {what: {"map": {"key": key, "data": f"@{protocol}_{what}"}} for what in ("address", "port")}
    return [{"dnat": {"family": "ip", "addr": lookup["address"], "port": lookup["port"]}}]


def _masquerades(setting: Setting) -> list[list[Rule]]:
    ours = _match(_field("ip", "saddr"), "==", _prefix(setting.subnet))
    out, not_out = (_interface("oifname", operator, setting.bridge) for operator in ("==", "!="))
    return [
        [ours, not_out, {"masquerade": None}],
        [ours, out, _status("dnat"), {"masquerade": None}],
        [out, _match(_field("ip", "saddr"), "==", _LOOPBACK), {"masquerade": None}],
    ]


def _forwards(setting: Setting) -> list[list[Rule]]:
    out = _interface("oifname", "==", setting.bridge)
    rules: list[list[Rule]] = [
        [out, _match({"ct": {"key": "state"}}, "in", ["established", "related"]), {"accept": None}],
        [out, _status("dnat"), {"accept": None}],
        [out, _interface("iifname", "!=", setting.bridge), {"drop": None}],
    ]
    if setting.uplinks:
        between = {"set": list(setting.uplinks)}
        rules.append([_interface("iifname", "==", between), _interface("oifname", "==", between), {"drop": None}])
    return rules


def publish(setting: Setting, ports: Iterable[Published]) -> list[Rule]:
    """Add published ports."""
    return [{"add": {"element": element}} for element in _elements(setting, ports)]


def withdraw(setting: Setting, ports: Iterable[Published]) -> list[Rule]:
    """Take published ports away; one that is not there makes the whole transaction fail."""
    return [{"delete": {"element": element}} for element in _elements(setting, ports)]


def _elements(setting: Setting, ports: Iterable[Published]) -> list[Rule]:
    elements = []
    for port in ports:
        key = {"concat": [port.host_ip, port.host_port]}
        for what, value in (("address", port.guest_ip), ("port", port.guest_port)):
            place = {"family": "ip", "table": setting.table, "name": f"{port.protocol}_{what}"}
            elements.append({**place, "elem": [[key, value]]})
    return elements


def guard_rules(setting: Setting, owners: Iterable[Owner]) -> list[Rule]:
    """The `bridge` table from nothing: what guests may send at all."""
    table = {"family": "bridge", "name": setting.table}
    here = {"family": "bridge", "table": setting.table}
    kinds = ["ifname", "ether_addr", "ipv4_addr"]
    chain = {"type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}
    commands: list[Rule] = [{"add": {"table": table}}, {"delete": {"table": table}}, {"add": {"table": table}}]
    commands.append({"add": {"set": {**here, "name": "owners", "type": kinds}}})
    commands.append({"add": {"chain": {**here, "name": "prerouting", **chain}}})
    for rule in _guards(setting.ports_prefix):
        commands.append({"add": {"rule": {**here, "chain": "prerouting", "expr": rule}}})
    return commands + own(setting, owners)


def own(setting: Setting, owners: Iterable[Owner]) -> list[Rule]:
    """Let the guests behind these interfaces send from their addresses."""
    values = [{"concat": [owner.interface, owner.hardware, str(owner.address)]} for owner in owners]
    if not values:
        return []
    return [{"add": {"element": {"family": "bridge", "table": setting.table, "name": "owners", "elem": values}}}]


def _guards(prefix: str) -> list[list[Rule]]:
    from_guest = _interface("iifname", "==", f"{prefix}*")
    kind, hardware, interface = _field("ether", "type"), _field("ether", "saddr"), {"meta": {"key": "iifname"}}
    rules = []
    for protocol, sender in (("ip", _field("ip", "saddr")), ("arp", _field("arp", "saddr ip"))):
        whose = {"concat": [interface, hardware, sender]}
        rules.append([from_guest, _match(kind, "==", protocol), _match(whose, "!=", "@owners"), {"drop": None}])
    rules.append([from_guest, _match(kind, "!=", {"set": ["ip", "arp"]}), {"drop": None}])
    return rules


def remove_rules(setting: Setting, family: str) -> list[Rule]:
    """Take a family's table away, if it is there."""
    table = {"family": family, "name": setting.table}
    return [{"add": {"table": table}}, {"delete": {"table": table}}]


_LOCAL_TYPE = {"fib": {"result": "type", "flags": ["daddr"]}}


def _prefix(network: IPv4Network) -> Rule:
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


_LOOPBACK = _prefix(IPv4Network("127.0.0.0/8"))


def _field(protocol: str, field: str) -> Rule:
    return {"payload": {"protocol": protocol, "field": field}}


def _match(left: Rule, operator: str, right: Any) -> Rule:
    return {"match": {"op": operator, "left": left, "right": right}}


def _interface(which: str, operator: str, name: Any) -> Rule:
    return _match({"meta": {"key": which}}, operator, name)


def _status(flag: str) -> Rule:
    return _match({"ct": {"key": "status"}}, "in", flag)
