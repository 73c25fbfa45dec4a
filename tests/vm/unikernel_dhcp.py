"""Run by test_unikernel_lease in a network namespace of its own: a DHCP server of short leases, and a guest of it.

usage: unikernel_dhcp.py IMAGE [SECONDS]

Prints, as JSON, what the server heard and whether the guest answered calls. With SECONDS: how often its timer wakes up
a guest with a lease of so many until it asks for more, by a clock that leaps over the time in which it sleeps.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from swiftlet.model.error import WireError
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.failure import DeadlineError

HERE, CARD = "10.9.0.1", "52:54:00:aa:bb:cc"
EVERYBODY = "255.255.255.255"
SECONDS = 4
"""Of a lease."""

TIMER = "Servicing hardware INT=0x3a"
"""What QEMU logs of an interrupt of the kernel's TIMER_VECTOR."""

DISCOVER, OFFER, REQUEST, ACKNOWLEDGED, REFUSED = 1, 2, 3, 5, 6
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s192x4s")
_COOKIE = bytes((99, 130, 83, 99))
IP_PKTINFO = 8
"""linux/in.h; Python 3.11 has no name for it."""


class Heard(NamedTuple):
    """A message of the guest. target: whom it was sent to. holds: the address that it has. wanted, server: options."""

    at: float
    kind: int
    target: str
    holds: str
    wanted: str
    server: str


Rule = Callable[[Heard], int]
"""The kind of the answer to a message, 0 for none."""


def generous(heard: Heard) -> int:
    """Whatever is asked for is granted."""
    return OFFER if heard.kind == DISCOVER else ACKNOWLEDGED


def deaf_alone(heard: Heard) -> int:
    """What is not sent to everybody is lost."""
    return generous(heard) if heard.target == EVERYBODY else 0


def gone(heard: Heard) -> int:
    """Nothing is answered."""
    return 0


def refuses(heard: Heard) -> int:
    """Nobody may keep his address."""
    return REFUSED if heard.holds != "0.0.0.0" else generous(heard)


class Server(threading.Thread):
    """A DHCP server that does what `rule` says, and grants `address`, with `more` options."""

    def __init__(self, seconds: int) -> None:
        super().__init__(daemon=True)
        self.seconds = seconds
        self.rule: Rule = generous
        self.address = "10.9.0.50"
        self.more = b""
        self.heard: list[Heard] = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
        self.sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.sock.bind(("", 67))

    def run(self) -> None:
        while True:
            data, ancillary, _, _ = self.sock.recvmsg(2048, 128)
            heard = understood(data, socket.inet_ntoa(ancillary[0][2][8:12]))
            self.heard.append(heard)
            kind = self.rule(heard)
            if kind:
                there = heard.holds if heard.holds != "0.0.0.0" and kind != REFUSED else EVERYBODY
                self.sock.sendto(self.answer(data, kind), (there, 68))

    def answer(self, data: bytes, kind: int) -> bytes:
        """A message of a kind to whoever has sent another."""
        fields = list(_FIXED.unpack_from(data))
        fields[0], fields[8] = 2, socket.inet_aton(self.address)
        options = [(53, bytes([kind])), (54, socket.inet_aton(HERE)), (1, socket.inet_aton("255.255.255.0"))]
        options += [(51, struct.pack("!I", self.seconds))]
        coded = b"".join(bytes([number, len(value)]) + value for number, value in options)
        return _FIXED.pack(*fields) + coded + self.more + b"\xff"

    def wait(self, found: Callable[[Heard], bool], count: int = 1) -> None:
        """Until so many further messages are of a kind."""
        first, end = len(self.heard), time.monotonic() + 30
        while sum(map(found, self.heard[first:])) < count:
            assert time.monotonic() < end, self.heard
            time.sleep(0.01)
        time.sleep(0.2)  # the answer is on its way


def understood(data: bytes, target: str) -> Heard:
    """What a message says."""
    fields = _FIXED.unpack_from(data)
    assert fields[0] == 1 and fields[12] == _COOKIE and len(data) >= 300
    assert fields[11][:6] == bytes.fromhex(CARD.replace(":", ""))
    options, place = {}, _FIXED.size
    while data[place] != 255:
        options[data[place]] = data[place + 2 : place + 2 + data[place + 1]]
        place += 2 + data[place + 1]
    wanted, server = (socket.inet_ntoa(options[each]) if each in options else "" for each in (50, 54))
    return Heard(time.monotonic(), options[53][0], target, socket.inet_ntoa(fields[7]), wanted, server)


def answers(address: str) -> bool:
    """Whether the guest answers a call there."""
    try:
        with Client(address, 7000, silence=2) as client:
            return client.call("count_primes", 10) == 4
    except (WireError, TimeoutError, OSError):
        return False


def story(server: Server) -> dict[str, object]:
    """What happens to a guest, part by part; each ends with whether it answered."""
    told: dict[str, object] = {}

    def part(name: str, *addresses: str) -> None:
        told[name] = [list(server.heard), [answers(each) for each in addresses]]
        server.heard.clear()

    server.wait(lambda heard: heard.kind == REQUEST, 4)
    part("renewed", "10.9.0.50")
    server.wait(lambda heard: heard.kind == REQUEST)
    server.heard.clear()
    with Client("10.9.0.50", 7000) as client:
        try:
            client.run("count_primes", [10**9], 1, deadline=SECONDS + 0.5)
        except DeadlineError:
            part("busy", "10.9.0.50")
    server.rule = deaf_alone
    server.wait(lambda heard: heard.target == EVERYBODY)
    part("rebound", "10.9.0.50")
    server.rule, server.address = gone, "10.9.0.60"
    server.wait(lambda heard: heard.kind == DISCOVER)
    told["lost"] = not answers("10.9.0.50")
    server.rule = generous
    server.wait(lambda heard: heard.kind == REQUEST)
    part("moved", "10.9.0.60")
    server.rule, server.address, server.more = refuses, "10.9.0.70", bytes((58, 4, 0, 0, 0, 1, 59, 4, 0, 0, 0, 2))
    server.wait(lambda heard: heard.kind == REQUEST, 2)
    server.rule = generous
    part("refused", "10.9.0.70")
    server.wait(lambda heard: heard.kind == REQUEST, 3)
    part("as the server says", "10.9.0.70")
    return told


def wakings(log: Iterable[str]) -> int:
    """How often the timer has woken a guest up between its second message, which got it its lease, and the next."""
    sent, count = 0, 0
    for line in log:
        sent += "virtio_queue_notify" in line and " n 1 " in line
        count += sent == 2 and TIMER in line
    return count


def main() -> None:
    """Boot an image beside a server, and tell the story."""
    words = ["link set lo up", "tuntap add tap0 mode tap", f"addr add {HERE}/24 dev tap0", "link set tap0 up"]
    for each in words:
        subprocess.run(["ip", *each.split()], check=True)
    server = Server(int(sys.argv[2]) if sys.argv[2:] else SECONDS)
    server.start()
    command = "qemu-system-x86_64 -M microvm,acpi=off -accel tcg -cpu max -m 32 -nodefaults -display none -no-reboot"
    command += " -global virtio-mmio.force-legacy=false -netdev tap,id=n,ifname=tap0,script=no,downscript=no"
    command += (
        f" -device virtio-net-device,netdev=n,mac={CARD} -serial file:{sys.argv[1]}.console -kernel {sys.argv[1]}"
    )
    log = f"{sys.argv[1]}.log"
    if sys.argv[2:]:
        command += f" -icount shift=0,sleep=off -trace virtio_queue_notify -d int -D {log}"
    machine = subprocess.Popen(command.split(), stdin=subprocess.DEVNULL)
    try:
        if sys.argv[2:]:
            server.wait(lambda heard: heard.target == HERE)
        else:
            print(json.dumps(story(server)))
        assert machine.poll() is None
    finally:
        machine.kill()
        machine.wait()
    if sys.argv[2:]:
        with open(log, errors="replace") as file:
            print(json.dumps(wakings(file)))


if __name__ == "__main__":
    main()
