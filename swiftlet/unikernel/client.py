"""Calls a unikernel's tasks over UDP: sends again what is lost, and puts together what comes in parts. No library."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from swiftlet.model.error import InputError, NotFoundError, SwiftletError, WireError
from swiftlet.unikernel import wire
from swiftlet.unikernel.failure import failure_of
from swiftlet.unikernel.signature import Signature, from_description
from swiftlet.unikernel.value import packed, unpacked
from swiftlet.unikernel.wire import Message, Outcome

_PATIENCE = 0.25
"""Seconds after which a request is sent again, at first: then twice as long each time."""

_LONGEST = 2.0
_SOON = 0.02
"""Seconds after which parts of an answer are asked for, when others of it have come."""

_AT_ONCE = 32
_LOST = b"its first part is missing"

_SILENT = (
    "is it running? swiftlet ps; or its first processor is at a long task: "
    "--deadline ends those, and with --cpus 2 --master serve it runs none"
)
_SILENCE = 5.0
"""Seconds without a word from the other side after which it is given up."""


class Client:
    """A service at an address. Not safe among threads."""

    def __init__(self, host: str, port: int, *, silence: float = _SILENCE) -> None:
        """silence: seconds without a word after which the service is given up. Raises NotFoundError."""
        try:
            found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise NotFoundError(f"{host}: {getattr(error, 'strerror', '') or error}") from None
        self.name = f"{host}:{port}"
        self._silence = silence
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.connect(found[0][4])
        self._next = int.from_bytes(os.urandom(7), "little")
        self._signatures: tuple[Signature, ...] = ()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def signatures(self) -> tuple[Signature, ...]:
        """The service's tasks. Raises WireError."""
        if not self._signatures:
            try:
                self._signatures = from_description(json.loads(self.read(wire.DESCRIBE)))
            except (KeyError, TypeError, ValueError):
                raise WireError(f"{self.name} describes itself in a way that cannot be read") from None
        return self._signatures

    def find(self, name: str) -> tuple[int, Signature]:
        """A task's place and signature. Raises NotFoundError, WireError."""
        for place, each in enumerate(self.signatures()):
            if each.name == name:
                return place, each
        names = ", ".join(each.name for each in self._signatures)
        raise NotFoundError(f"{self.name} has no task {name!r}", f"it has {names}")

    def call(self, name: str, *arguments: Any, deadline: float = 0.0) -> Any:
        """Run one task and return its result; what it raised is raised. deadline: seconds, 0 for none."""
        return self.run(name, arguments, 1, deadline)[0]

    def run(self, name: str, arguments: Sequence[Any], count: int, deadline: float = 0.0) -> list[Any]:
        """Run `count` tasks of the same arguments; their results. Raises what the first that failed raised."""
        place, signature = self.find(name)
        outcomes = self.outcomes(place, packed(signature, arguments), count, deadline)
        for each in outcomes:
            if each.status:
                raise failure_of(each, signature)
        return [unpacked(signature.result, each.data) for each in outcomes]

    def outcomes(self, task: int, payload: bytes, count: int, deadline: float = 0.0) -> list[Outcome]:
        """How each of `count` tasks ended. Raises WireError, InputError where the service refuses."""
        milliseconds = max(1, round(deadline * 1000)) if deadline else 0
        parts = wire.parts_of(len(payload))
        message = Message(wire.CALL, self._number(), task, 0, count, milliseconds, 0, parts, len(payload))
        try:
            return wire.outcomes_of(self._answer(message, payload), count)
        except ValueError as error:
            raise WireError(f"{self.name}: {error}") from None
        except KeyboardInterrupt:  # nobody waits for it any more
            self.send(wire.encoded(Message(wire.CANCEL, message.id)))
            raise

    def read(self, kind: int) -> bytes:
        """What a service tells of itself, part by part. Raises WireError."""
        data = b""
        while True:
            message = Message(kind, self._number(), part=len(data) // wire.PART)
            reply, payload = self._exchange(wire.encoded(message), message)
            data += payload
            if len(data) >= reply.length:
                return data
            if len(payload) != wire.PART:
                raise WireError(f"{self.name} answers in parts of another size")

    @property
    def last(self) -> int:
        """The number of the request that was sent last, as `unikernel trace` has it."""
        return self._next

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _exchange(self, datagram: bytes, message: Message) -> tuple[Message, bytes]:
        """Send a datagram until its answer comes."""
        begin = time.monotonic()
        patience = _PATIENCE
        while time.monotonic() - begin < self._silence:
            self.send(datagram)
            found = self.receive(message.id, patience)
            if found is not None:
                return found
            patience = min(2 * patience, _LONGEST)
        raise WireError(f"{self.name} does not answer", _SILENT)

    def _answer(self, message: Message, payload: bytes) -> bytes:
        """Send a call, in parts where it is long, and return its whole answer."""
        begin = time.monotonic()
        patience = _PATIENCE
        found: dict[int, bytes] = {}
        self._send_parts(message, payload, 0)
        last, parts = begin, 0
        while True:
            got = self.receive(message.id, patience)
            now = time.monotonic()
            if got is None:
                if now - last > self._silence and not self._is_alive():
                    raise WireError(f"{self.name} does not answer any more", _SILENT)
                if found:
                    self._fetch(message, found, parts)
                else:
                    self._send_parts(message, payload, 0)
                    patience = min(2 * patience, _LONGEST)
                continue
            last = now
            reply, data = got
            if reply.kind == wire.REFUSED and data.startswith(_LOST) and len(payload) > wire.PART:
                self._send_parts(message, payload, 0)  # its place was given to another call
            elif reply.kind == wire.REFUSED:
                raise InputError(f"{self.name} refuses the call: {data.decode(errors='replace')}")
            elif reply.kind == wire.WANTED:
                self._send_parts(message, payload, reply.part)
            elif reply.kind == wire.BUSY:
                time.sleep(patience)
                self._send_parts(message, payload, 0)
            elif reply.kind == wire.REPLY | wire.CALL:
                found[reply.part] = data
                parts, patience = reply.parts, _SOON
                if len(found) == reply.parts:
                    return b"".join(found[part] for part in range(reply.parts))

    def _fetch(self, message: Message, found: dict[int, bytes], parts: int) -> None:
        """Ask for the first parts of an answer that have not come."""
        missing = (part for part in range(parts) if part not in found)
        for part in itertools.islice(missing, _AT_ONCE):
            self.send(wire.encoded(Message(wire.FETCH, message.id, part=part)))

    def _send_parts(self, message: Message, payload: bytes, part: int) -> None:
        data = payload[part * wire.PART : (part + 1) * wire.PART]
        self.send(wire.encoded(message._replace(part=part), data))

    def _is_alive(self) -> bool:
        try:
            self.read(wire.HEALTH)
        except WireError:
            return False
        return True

    def send(self, datagram: bytes) -> None:
        """Send one datagram, which may be lost. Raises WireError."""
        try:
            self._sock.send(datagram)
        except ConnectionRefusedError:
            return  # of an earlier datagram; this one may still find somebody
        except OSError as error:
            raise WireError(f"{self.name}: {error.strerror}") from None

    def receive(self, id_: int, seconds: float) -> tuple[Message, bytes] | None:
        """The next datagram of a request; None when none comes in time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                found = wire.decoded(self._sock.recv(2048))
            except TimeoutError:
                return None
            except ConnectionRefusedError:
                time.sleep(min(left, 0.02))
                return None
            except OSError as error:
                raise WireError(f"{self.name}: {error.strerror}") from None
            if found is not None and found[0].id == id_:
                return found
        return None


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT, or HOST alone. Raises InputError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, 7000
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 1 << 16:
        raise InputError(f"no address: {text!r}", "HOST:PORT, as in localhost:7000")
    return host, int(port)


__all__ = ["Client", "SwiftletError", "address_of"]
