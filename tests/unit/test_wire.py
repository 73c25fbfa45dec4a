"""`node.wire`: what is too much for a message is refused before it is sent, and a closed connection holds nobody up."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest

from swiftlet.linux.channel import MAX_FDS, MAX_MESSAGE, Channel, OversizeError
from swiftlet.model.error import InputError
from swiftlet.node.wire import Wire


def nothing(*_: object) -> None:
    pass


async def wire_and_peer() -> tuple[Wire, Channel]:
    ours, theirs = socket.socketpair()
    return Wire(ours, nothing, nothing), Channel(theirs)


@pytest.mark.parametrize(
    ("message", "descriptors", "told"),
    [({"text": "x" * MAX_MESSAGE}, 0, "bytes is longer than"), ({}, MAX_FDS + 1, "201 descriptors are more than")],
)
def test_a_message_that_no_peer_takes_is_refused_and_the_connection_goes_on(
    message: dict[str, str], descriptors: int, told: str
) -> None:
    """A peer that was sent so much would end the connection, and with it what everybody else waits for."""
    null = os.open("/dev/null", os.O_RDONLY)

    async def scenario() -> None:
        wire, peer = await wire_and_peer()
        with pytest.raises(InputError, match=told):
            await wire.send(message, (null,) * descriptors)
        await wire.send({"text": "next"}, (null,))
        received = peer.receive()
        assert received is not None and received[0]["text"] == "next"
        with pytest.raises(OversizeError, match=told):
            peer.send(message, (null,) * descriptors)
        os.close(received[1][0])
        wire.close()
        peer.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
    os.close(null)


def test_who_waits_to_send_hears_at_once_that_the_connection_was_closed() -> None:
    async def scenario() -> None:
        wire, peer = await wire_and_peer()
        sending = asyncio.create_task(wire.send({"text": "x" * (MAX_MESSAGE - 100)}))
        await asyncio.sleep(0.05)
        wire.close()
        before = time.monotonic()
        with pytest.raises(OSError, match="the connection ended meanwhile"):
            await sending
        assert time.monotonic() - before < 5
        again, other = await wire_and_peer()  # its socket has the old one's number
        sending = asyncio.create_task(again.send({"text": "x" * (MAX_MESSAGE - 100)}))
        await asyncio.sleep(0.05)
        received = await asyncio.to_thread(other.receive)
        assert received is not None
        await sending
        again.close()
        peer.close()
        other.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
