"""A unikernel on the machine types that have PCI: its card is found, set up, heard, and called over real sockets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from swiftlet.unikernel.build import build
from swiftlet.unikernel.figures import figures_of
from tests.vm.unikernel_machine import ADDRESS, machine, woken

pytestmark = [pytest.mark.root, pytest.mark.timeout(120, func_only=True)]

PRIMES = Path(__file__).parents[2] / "examples/unikernel/primes.py"
REQUESTS = 2000

HUGE = ("-object", "memory-backend-ram,id=huge,size=2G", "-device", "ivshmem-plain,memdev=huge")
"""So much of a device's memory that the firmware has to put what it can above 4 GiB."""

PORT = ("-device", "pcie-root-port,id=behind")
BRIDGE = ("-device", "pci-bridge,id=behind,chassis_nr=1")

BARE = ("-bios", "qboot.rom")
"""A firmware that gives nothing on PCI an address."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "primes.elf"
    path.write_bytes(build(str(PRIMES)).image)
    assert path.stat().st_size < 64 << 10
    return path


@pytest.mark.parametrize("address", ["", "10.0.2.77"])
@pytest.mark.parametrize("processors", [1, 4])
@pytest.mark.parametrize("kind", ["q35", "pc"])
def test_every_request_is_answered(image: Path, kind: str, processors: int, address: str) -> None:
    with machine(image, kind, processors=processors, address=address) as booted, booted.client() as client:
        assert f"network {address or ADDRESS}\nready" in booted.said
        assert [client.call("count_primes", n % 50) for n in range(REQUESTS)] == [
            primes(n % 50) for n in range(REQUESTS)
        ]
        assert client.run("count_primes", [1000], 40) == [168] * 40
        found = figures_of(client)
    assert found["calls"] == REQUESTS + 1 and len(found["processors"]) == processors
    assert sum(core["tasks"] for core in found["processors"]) == REQUESTS + 40


def primes(limit: int) -> int:
    """How many primes there are up to a limit."""
    return sum(all(n % d for d in range(2, n)) for n in range(2, limit + 1))


@pytest.mark.parametrize(
    ("kind", "card", "flags"),
    [
        ("q35", "virtio-net-pci,disable-legacy=on", ()),
        ("q35", "virtio-net-pci,vectors=0", ()),
        ("pc", "virtio-net-pci,vectors=0", ()),
        ("q35", "virtio-net-pci", HUGE),
        ("q35", "virtio-net-pci,bus=behind", PORT),
        ("pc", "virtio-net-pci,bus=behind,addr=3", BRIDGE),
        ("q35", "virtio-net-pci", BARE),
        ("pc", "virtio-net-pci,vectors=0", BARE),
    ],
    ids=["modern", "line", "line on pc", "above 4 GiB", "root port", "bridge", "no addresses", "no addresses, line"],
)
def test_the_card_may_be_anywhere_and_without_messages(
    image: Path, kind: str, card: str, flags: tuple[str, ...]
) -> None:
    with machine(image, kind, *flags, card=card, processors=2) as booted, booted.client() as client:
        assert f"network {ADDRESS}\nready" in booted.said
        assert [client.call("count_primes", 10) for _ in range(200)] == [4] * 200


@pytest.mark.parametrize("kind", ["q35", "pc"])
@pytest.mark.parametrize("card", ["virtio-net-pci", "virtio-net-pci,vectors=0"])
def test_nobody_wakes_up_when_there_is_nothing_to_do(image: Path, kind: str, card: str) -> None:
    """Not by the firmware's clock either. A line is seen twice on q35: as the old controller's and by itself."""
    with machine(image, kind, card=card, processors=2, address="10.0.2.77") as booted, booted.client() as client:
        client.call("count_primes", 10)
        time.sleep(1)
        before = figures_of(client)
        time.sleep(5)
        after = figures_of(client)
    first, second = woken(before["processors"], after["processors"])
    assert second == 0 and first <= 2 * (after["received"] - before["received"])


@pytest.mark.parametrize(
    ("kind", "card", "flags", "complaint"),
    [
        ("q35", "virtio-net-pci,disable-modern=on", (), "before virtio 1.0: leave out disable-modern=on"),
        ("q35", "e1000", (), "is no virtio card: give the machine a virtio-net-pci"),
        ("q35", "virtio-net-pci,bus=behind", (*PORT, *BARE), "nobody has set up the bridge that it is behind"),
        ("microvm", "virtio-net-device", (), "old virtio: -global virtio-mmio.force-legacy=false"),
    ],
)
def test_a_card_that_cannot_be_used_is_said_not_silence(
    image: Path, kind: str, card: str, flags: tuple[str, ...], complaint: str
) -> None:
    with machine(image, kind, *flags, card=card) as booted:
        (line,) = [each for each in booted.said.splitlines() if "the network card" in each]
        assert line.endswith(complaint) and booted.said.endswith("ready\n")
