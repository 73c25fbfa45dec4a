"""Run in a network namespace of its own: `unshare -n python unikernel_fuzz.py IMAGE SECONDS SEED REQUESTS`.

Sends a unikernel frames that are changed at random, and checks again and again that it still answers right; then sends
it requests, some of them twice, and counts what comes back. Prints what it counted as JSON.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import sys
import time

from swiftlet.unikernel import wire
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.figures import figures_of
from swiftlet.unikernel.wire import Message

HERE, THERE, CARD = "10.9.0.1", "10.9.0.2", "52:54:00:00:00:01"
WINDOW = 16
BATCH = 500


def main() -> None:
    image, seconds, seed, requests = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    for words in (
        "link set lo up",
        "tuntap add tap0 mode tap",
        f"addr add {HERE}/24 dev tap0",
        "link set tap0 up",
        f"neigh add {THERE} lladdr {CARD} dev tap0",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    command = ["qemu-system-x86_64", "-M", "microvm,acpi=off,pit=off,pic=off,rtc=off", "-accel", "tcg", "-cpu", "max"]
    command += [
        "-smp",
        "2,sockets=2",
        "-m",
        "32",
        "-nodefaults",
        "-display",
        "none",
        "-serial",
        f"file:{image}.console",
    ]
    command += [
        "-no-reboot",
        "-global",
        "virtio-mmio.force-legacy=false",
        "-kernel",
        image,
        "-append",
        f"address={THERE}",
    ]
    command += [
        "-netdev",
        "tap,id=n,ifname=tap0,script=no,downscript=no",
        "-device",
        f"virtio-net-device,netdev=n,mac={CARD}",
    ]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        with Client(THERE, 7000) as client:
            told = fuzz(client, seconds, random.Random(seed))
            told |= ask(client, requests, random.Random(seed))
            assert machine.poll() is None
        print(json.dumps(told))
    except BaseException:
        with open(f"{image}.console", errors="replace") as console:
            sys.stderr.write(f"machine: {machine.poll()}; its console:\n{console.read()[-3000:]}\n")
        raise
    finally:
        machine.kill()
        machine.wait()


def fuzz(client: Client, seconds: float, moments: random.Random) -> dict[str, int]:
    """Changed frames, and right answers in between."""
    assert client.call("add", 1, 2) == 3
    before = figures_of(client)
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("tap0", 0))
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(BATCH):
            frame = changed(moments, frame_of(moments))
            if frame:
                raw.send(frame)
                sent += 1
        assert client.call("add", 40, 2) == 42
    raw.close()
    after = figures_of(client)
    assert after["memory_left"] == before["memory_left"]
    return {"frames": sent, **{name: after[name] - before[name] for name in ("received", "malformed", "net_malformed")}}


def frame_of(moments: random.Random) -> bytearray:
    """A frame that is right: a request, a ping or a question for an address."""
    ethernet = bytes.fromhex(CARD.replace(":", "")) + os.urandom(6)
    kind = moments.randrange(4)
    if kind == 0:
        arp = struct.pack(
            ">HHBBH6s4s6s4s",
            1,
            0x0800,
            6,
            4,
            1,
            os.urandom(6),
            socket.inet_aton(HERE),
            bytes(6),
            socket.inet_aton(THERE),
        )
        return bytearray(ethernet + b"\x08\x06" + arp)
    if kind == 1:
        body = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + os.urandom(moments.randrange(60))
        body = body[:2] + struct.pack("<H", checksum(body)) + body[4:]
        return bytearray(ethernet + b"\x08\x00" + internet(1, body))
    numbers = struct.pack("<qq", 20, 22)
    asked = moments.choice(
        (wire.CALL, wire.CALL, wire.DESCRIBE, wire.STATISTICS, wire.HEALTH, wire.FETCH, wire.CANCEL, 77)
    )
    message = Message(
        asked, moments.getrandbits(20), moments.randrange(3), 0, moments.choice((1, 2, 40)), 0, 0, 1, len(numbers)
    )
    payload = wire.encoded(message, numbers)
    udp = struct.pack(">HHHH", moments.randrange(1, 65536), 7000, 8 + len(payload), 0) + payload
    return bytearray(ethernet + b"\x08\x00" + internet(17, udp))


def internet(protocol: int, body: bytes) -> bytes:
    """A packet of IP."""
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, socket.inet_aton(HERE), socket.inet_aton(THERE)
    )
    return head[:10] + struct.pack("<H", checksum(head)) + head[12:] + body


def checksum(data: bytes) -> int:
    """RFC 1071, as it is stored."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"<{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def changed(moments: random.Random, frame: bytearray) -> bytes:
    """A frame with some of its bytes changed, cut short, or made longer; a request to end the machine it never is."""
    whole = frame[46:47] != bytes([wire.SHUTDOWN])
    for _ in range(moments.choice((0, 1, 1, 2, 8))):
        frame[moments.randrange(14, len(frame))] = moments.randrange(256)
    cut = moments.randrange(4)
    if cut == 0:
        del frame[moments.randrange(15, len(frame) + 1) :]
    elif cut == 1:
        frame += os.urandom(moments.randrange(1, 1400))
    if (
        moments.random() < 0.7 and len(frame) >= 34 and frame[12:14] == b"\x08\x00"
    ):  # so that more than the sum is looked at
        frame[24:26] = bytes(2)
        frame[24:26] = struct.pack("<H", checksum(bytes(frame[14:34])))
    return bytes(frame[:1514]) if whole and frame[46:47] != bytes([wire.SHUTDOWN]) else b""


def ask(client: Client, requests: int, moments: random.Random) -> dict[str, int]:
    """Requests, several under way at a time, some sent twice: each is answered, rightly, and computed once."""
    place, _ = client.find("add")
    before = figures_of(client)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((THERE, 7000))
    sock.settimeout(0.5)
    waiting: dict[int, int] = {}
    number, answered, again, twice = 0, 0, 0, 0
    while answered < requests:
        while len(waiting) < WINDOW and number < requests:
            number += 1
            value = moments.getrandbits(40)
            waiting[number] = value
            datagram = wire.encoded(Message(wire.CALL, number, place, length=16), struct.pack("<qq", value, number))
            sock.send(datagram)
            if moments.random() < 0.01:
                sock.send(datagram)
                twice += 1
        try:
            found = wire.decoded(sock.recv(2048))
        except TimeoutError:
            for each, value in waiting.items():
                sock.send(wire.encoded(Message(wire.CALL, each, place, length=16), struct.pack("<qq", value, each)))
                again += 1
            continue
        assert found is not None
        reply, data = found
        if reply.kind == wire.REPLY | wire.CALL and reply.id in waiting:
            value = waiting.pop(reply.id)
            assert struct.unpack("<IIq", data) == (0, 8, value + reply.id)
            answered += 1
    sock.close()
    after = figures_of(client)
    return {"requests": requests, "calls": after["calls"] - before["calls"], "again": again, "twice": twice}


if __name__ == "__main__":
    main()
