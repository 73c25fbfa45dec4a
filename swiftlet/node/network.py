"""A guest's network: a prepared namespace, an address, published ports; taken when it starts, given back when it ends.

The facade over `pool` (namespaces), `ports` (published ports) and `firewall` (rules) that `guests` uses. What has
to survive the daemon is written to the guest's `network.json` by `guests`; this module is told at its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from swiftlet.model.error import SwiftletError
from swiftlet.model.instance import Instance
from swiftlet.model.workload import Port
from swiftlet.node.firewall import Published
from swiftlet.node.pool import DEFAULT_SIZE, Pool, Prepared
from swiftlet.node.ports import Ports

log = logging.getLogger("swiftlet.network")

_QUEUED, _FRAME_BYTES = 2000, 1 << 16
"""At most so many packets wait at a tap (its queue has room for 1,000), each with a header of virtio's before it."""


class Attached(msgspec.Struct):
    """A guest's place on the bridge, as it lies in `network.json`.

    ports: (protocol, host address, host port, guest port) of each that is published.
    """

    address: str
    prefix: int
    gateway: str
    hardware: str
    interface: str
    number: int
    ports: list[tuple[str, str, int, int]] = []

    @property
    def shown_ports(self) -> list[str]:
        """As listings show them: `0.0.0.0:8080->80/tcp`."""
        return [f"{host_ip}:{host}->{guest}/{protocol}" for protocol, host_ip, host, guest in self.ports]

    @property
    def document(self) -> dict[str, Any]:
        """For `inspect`."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {**found, "ports": self.shown_ports}


class Network:
    """The bridge network of one instance."""

    def __init__(self, instance: Instance, size: int | None = None) -> None:
        chosen = os.environ.get("SWIFTLET_POOL", "") if size is None else str(size)
        self._pool = Pool(instance, int(chosen) if chosen.isdigit() else DEFAULT_SIZE)
        self._ports = Ports()
        self._inserting: dict[str, Future[None]] = {}

    def begin(self, adopted: dict[str, tuple[str, Attached]]) -> None:
        """Set up in the background. adopted: id -> (name, place) of the guests that run already."""
        for guest, (name, attached) in adopted.items():
            self._hold_again(guest, name, attached)
        addresses = {guest: attached.address for guest, (_, attached) in adopted.items()}
        self._pool.begin(addresses, self._ports.everything())

    def _hold_again(self, guest: str, name: str, attached: Attached) -> None:
        ports = [Port(target, host, host_ip, protocol) for protocol, host_ip, host, target in attached.ports]  # type: ignore[arg-type]
        try:
            self._ports.hold(guest, name, attached.address, ports)
        except SwiftletError as error:
            log.warning("guest %s keeps running without its ports: %s", name, error)

    async def attach(
        self, guest: str, name: str, ports: Sequence[Port], *, machine: bool = False
    ) -> tuple[Attached, int]:
        """A place on the bridge and the descriptor of its namespace (of a machine's tap), which belongs to the caller.

        A machine's ports may not lead anywhere yet when this returns; it starts meanwhile, and `published` waits.
        Not to be cancelled: what the thread is just making would be lost.
        Raises ConflictError (a port is in use), HostError (no bridge can be had here), InputError.
        """
        prepared = self._pool.take_ready(machine=machine)
        if prepared is None:
            prepared = await asyncio.wrap_future(self._pool.take_tap() if machine else self._pool.take())
        attached = _attached(prepared)
        try:
            self.publish(guest, name, attached, ports)
            if machine:
                forget_packets(prepared.netns)
            else:
                await self.published(guest)
        except BaseException:
            os.close(prepared.netns)
            self._pool.release(prepared.number)
            raise
        return attached, prepared.netns

    async def published(self, guest: str) -> None:
        """Return when a guest's ports lead to it. Raises HostError; they are nobody's then."""
        inserting = self._inserting.pop(guest, None)
        if inserting is None:
            return
        try:
            await asyncio.wrap_future(inserting)
        except BaseException:
            self._withdraw(guest)
            raise

    def publish(self, guest: str, name: str, attached: Attached, ports: Sequence[Port]) -> None:
        """Publish ports of a guest that has its place, which is noted there. They lead to it when `published` returns.

        Raises ConflictError (a port is in use), InputError.
        """
        if not ports:
            return
        published = self._ports.hold(guest, name, attached.address, ports)
        self._inserting[guest] = self._pool.run(lambda setting: self._ports.insert(setting, published))
        attached.ports = [(port.protocol, port.host_ip, port.host_port, port.guest_port) for port in published]

    def detach(self, guest: str, attached: Attached) -> None:
        """Give everything back; the rules go in the background, in order with those that come."""
        self._inserting.pop(guest, None)
        self._withdraw(guest)
        self._pool.release(attached.number)

    def _withdraw(self, guest: str) -> None:
        published: list[Published] = self._ports.release(guest)
        if published:
            self._pool.run(lambda setting: self._ports.take_out(setting, published))

    async def close(self, *, remove: bool) -> None:
        """Let go of the pool; `remove` bridge and rules too, when no guest is left."""
        await asyncio.to_thread(lambda: self._pool.close(remove=remove))


def _attached(prepared: Prepared) -> Attached:
    return Attached(
        address=str(prepared.address),
        prefix=prepared.prefix,
        gateway=str(prepared.gateway),
        hardware=prepared.hardware,
        interface=prepared.interface,
        number=prepared.number,
    )


def forget_packets(tap: int) -> None:
    """Drop what has come to a tap while there was no machine: who asked has given up by now, or asks again.

    A clone would answer for the guest that it was made of, whose address it has until it is told its own.
    """
    with contextlib.suppress(BlockingIOError):
        for _ in range(_QUEUED):
            os.read(tap, _FRAME_BYTES)
