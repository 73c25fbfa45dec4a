"""Network namespaces made before they are needed, by a thread of their own.

Making one takes a few milliseconds of netlink; a start takes a finished one from the pool in microseconds. The
thread also sets up the bridge and its rules, and gives addresses back once their interfaces have gone (the kernel
takes them down in its own time; nobody waits for that). All public methods may be called from any thread.

A namespace in the pool is held by its descriptor alone, so that it vanishes with the daemon however that ends.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from swiftlet.model.error import HostError, SwiftletError
from swiftlet.model.instance import Instance
from swiftlet.node import firewall
from swiftlet.node.addresses import Addresses, choose_subnet, hardware_address
from swiftlet.node.firewall import Owner, Published, Setting

if TYPE_CHECKING:
    from swiftlet.node.links import End, Links

log = logging.getLogger("swiftlet.network")

DEFAULT_SIZE = 4

_COOLING_SECONDS = 0.3
"""The kernel has usually taken an interface down by then, in a batch with others."""

_GUARDED_AT_ONCE = 256
"""Addresses whose owners are told to nftables in one go; names of interfaces follow from addresses."""


class Prepared(NamedTuple):
    """A place that is ready. netns: the descriptor of its namespace (of its tap, for a machine), the taker's."""

    netns: int
    number: int
    address: IPv4Address
    prefix: int
    gateway: IPv4Address
    hardware: str
    interface: str


class Pool:
    """The thread and what it has prepared. `begin` starts it; errors of the set-up come out of `take`."""

    def __init__(self, instance: Instance, size: int = DEFAULT_SIZE) -> None:
        self._instance = instance
        self._size = size
        self._ready: deque[Prepared] = deque()
        self._taps: deque[Prepared] = deque()
        self._taps_wanted = 0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._cooling: deque[tuple[float, int]] = deque()
        self._links: Links | None = None
        self._addresses: Addresses | None = None
        self._setting: Setting | None = None
        self._guarded: int | None = 0
        self._closing = False
        self._before: tuple[dict[str, str], list[Published]] = ({}, [])
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._ports_prefix = f"swl{instance.tag}v"

    def begin(self, adopted: dict[str, str], published: list[Published]) -> None:
        """Start the thread. adopted: guest -> address of those that run; published: their ports."""
        self._before = (adopted, published)
        self._thread.start()
        self._jobs.put(self._try_set_up)

    @property
    def setting(self) -> Setting | None:
        """What the rules are made from; None before the network is set up."""
        return self._setting

    def take_ready(self, *, machine: bool = False) -> Prepared | None:
        """A namespace (or a tap) that is ready, if there is one; the thread then makes another.

        Taps are made ahead from when there was a machine.
        """
        if machine:
            self._taps_wanted = self._size
        prepared = _popped(self._taps if machine else self._ready)
        if prepared is None:
            return None
        self._jobs.put(_nothing)
        return prepared

    def take(self) -> Future[Prepared]:
        """A namespace that is made now, or was ready just then. The future raises HostError, OSError."""
        return self._take(lambda: _popped(self._ready) or self._make())

    def take_tap(self) -> Future[Prepared]:
        """A tap for a machine, made now or ready just then. The future raises HostError, OSError."""
        return self._take(lambda: _popped(self._taps) or self._make(machine=True))

    def _take(self, make: Callable[[], Prepared]) -> Future[Prepared]:
        result: Future[Prepared] = Future()
        self._jobs.put(lambda: self._make_for(result, make))
        return result

    def release(self, number: int) -> None:
        """The guest that had this address has gone."""
        self._jobs.put(lambda: self._cooling.append((time.monotonic() + _COOLING_SECONDS, number)))

    def run(self, work: Callable[[Setting], None]) -> Future[None]:
        """Do `work` in the thread once the network is set up."""
        result: Future[None] = Future()
        self._jobs.put(lambda: self._work_for(result, work))
        return result

    def close(self, *, remove: bool) -> None:
        """Stop the thread and let go of the pool; `remove` the bridge and the rules too (when no guest is left)."""
        if self._thread.ident is None:
            return
        self._closing = True
        self._jobs.put(lambda: self._tear_down(remove))
        self._jobs.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_COOLING_SECONDS if self._cooling else None)
            except queue.Empty:
                self._cool_down()
                continue
            if job is None:
                return
            self._do(job)
            self._cool_down()
            while self._jobs.empty() and not self._closing and self._links and (make := self._missing()):
                if not self._do(make):
                    break

    def _missing(self) -> Callable[[], None] | None:
        if len(self._ready) < self._size:
            return self._refill
        return self._refill_taps if len(self._taps) < self._taps_wanted else None

    def _do(self, job: Callable[[], None]) -> bool:
        try:
            job()
        except Exception:
            log.exception("network thread")
            return False
        return True

    def _try_set_up(self) -> None:
        try:
            self._set_up(*self._before)
        except (SwiftletError, OSError) as error:
            log.error("network: %s", error)

    def _set_up(self, adopted: dict[str, str], published: list[Published]) -> None:
        """The bridge, forwarding, the rules, and an end to what an earlier daemon left."""
        from swiftlet.node.links import Links

        links = Links()
        try:
            instance = self._instance
            subnet = links.subnet_of(instance.bridge) or choose_subnet(instance.tag, links.networks(instance.bridge))
            addresses = Addresses(f"{instance.root}/leases", subnet)
            links.ensure_bridge(instance.bridge, subnet, hardware_address(addresses.gateway))
            setting = Setting(instance.table, instance.bridge, self._ports_prefix, subnet, _forward(instance, links))
            firewall.apply(firewall.base_rules(setting) + firewall.publish(setting, published))
            self._sweep(links, addresses, adopted)
        except BaseException:
            links.close()
            raise
        self._addresses, self._setting = addresses, setting
        self._begin_guard()
        self._links = links

    def _sweep(self, links: Links, addresses: Addresses, adopted: dict[str, str]) -> None:
        numbers = {addresses.number(address) for address in adopted.values()}
        addresses.keep_only(numbers - {0})
        kept = {self._interface(number) for number in numbers}
        for name in links.interfaces(self._ports_prefix):
            if name not in kept:
                links.remove(name)

    def _begin_guard(self) -> None:
        assert self._setting is not None
        try:
            firewall.apply(firewall.guard_rules(self._setting, self._owners(0)))
            self._guarded = _GUARDED_AT_ONCE
        except HostError as error:
            log.warning("guests can use one another's addresses: no bridge rules here: %s", error)
            self._guarded = None

    def _owners(self, start: int) -> list[Owner]:
        assert self._addresses is not None
        last = min(start + _GUARDED_AT_ONCE, self._addresses.last + 1)
        return [self._owner(number) for number in range(max(start, 2), last)]

    def _owner(self, number: int) -> Owner:
        assert self._addresses is not None
        address = self._addresses.address(number)
        return Owner(self._interface(number), hardware_address(address), address)

    def _interface(self, number: int) -> str:
        return f"{self._ports_prefix}{number:x}"

    def _need(self) -> Links:
        """The set-up network; tried again when it failed before, since the host may have been mended."""
        if self._links is None:
            self._set_up(*self._before)
        assert self._links is not None
        return self._links

    def _refill(self) -> None:
        self._ready.append(self._make())

    def _refill_taps(self) -> None:
        self._taps.append(self._make(machine=True))

    @staticmethod
    def _make_for(result: Future[Prepared], make: Callable[[], Prepared]) -> None:
        if not result.set_running_or_notify_cancel():
            return
        try:
            result.set_result(make())
        except BaseException as error:
            result.set_exception(error)

    def _work_for(self, result: Future[None], work: Callable[[Setting], None]) -> None:
        if not result.set_running_or_notify_cancel():
            return
        try:
            self._need()
            assert self._setting is not None
            work(self._setting)
            result.set_result(None)
        except BaseException as error:
            result.set_exception(error)

    def _make(self, *, machine: bool = False) -> Prepared:
        from swiftlet.node.links import End

        links = self._need()
        assert self._addresses is not None
        addresses = self._addresses
        number = addresses.lease("pool")
        try:
            self._guard(number)
            interface, hardware, address = self._owner(number)
            end = End(interface, hardware, address, addresses.subnet.prefixlen, addresses.gateway)
            netns = self._make_end(links.make_tap if machine else links.make_namespace, links, end)
        except BaseException:
            addresses.release(number)
            raise
        return Prepared(netns, number, address, end.prefix, end.gateway, hardware, interface)

    @staticmethod
    def _make_end(make: Callable[[End], int], links: Links, end: End) -> int:
        try:
            return make(end)
        except FileExistsError:
            links.remove(end.interface)
            return make(end)

    def _guard(self, number: int) -> None:
        assert self._setting is not None
        while self._guarded is not None and number >= self._guarded:
            firewall.apply(firewall.own(self._setting, self._owners(self._guarded)))
            self._guarded += _GUARDED_AT_ONCE

    def _cool_down(self) -> None:
        """Give back the addresses whose interfaces have gone; help those along that will not go."""
        now = time.monotonic()
        if self._addresses is None:
            return
        while self._cooling and self._cooling[0][0] <= now:
            _, number = self._cooling.popleft()
            if self._links is not None and self._links.exists(self._interface(number)):
                self._links.remove(self._interface(number))
            self._addresses.release(number)

    def _tear_down(self, remove: bool) -> None:
        gone = [number for _, number in self._cooling]
        for prepared in (*self._ready, *self._taps):
            os.close(prepared.netns)
            gone.append(prepared.number)
        self._ready.clear()
        self._taps.clear()
        if self._addresses is not None:
            for number in gone:
                self._addresses.release(number)
        if self._links is None:
            return
        if remove and self._setting is not None:
            _remove_all(self._links, self._setting)
        self._links.close()
        self._links = None


def _remove_all(links: Links, setting: Setting) -> None:
    for name in [*links.interfaces(setting.ports_prefix), setting.bridge]:
        links.remove(name)
    for family in ("ip", "bridge"):
        try:
            firewall.apply(firewall.remove_rules(setting, family))
        except HostError as error:
            log.warning("rules of family %s stay: %s", family, error)


def _popped(ready: deque[Prepared]) -> Prepared | None:
    """The next one, None where there is none: both the loop and the thread take them."""
    try:
        return ready.popleft()
    except IndexError:
        return None


def _nothing() -> None:
    """Wakes the thread so that it refills."""


def _forward(instance: Instance, links: Links) -> tuple[str, ...]:
    """Let packets go from the bridge to the uplinks and back; returns the uplinks that had to be changed.

    Where the host forwards anyway nothing is changed but the bridge.
    """
    from swiftlet.node.links import get_sysctl, set_sysctl

    conf = "net/ipv4/conf"
    for name in ("forwarding", "route_localnet"):
        set_sysctl(f"{conf}/{instance.bridge}/{name}", "1")
    if get_sysctl(f"net/ipv6/conf/{instance.bridge}/disable_ipv6") == "0":
        set_sysctl(f"net/ipv6/conf/{instance.bridge}/disable_ipv6", "1")
    if get_sysctl("net/ipv4/ip_forward") == "1":
        return ()
    uplinks = links.uplinks()
    for name in uplinks:
        set_sysctl(f"{conf}/{name}/forwarding", "1")
    return tuple(uplinks)
