"""Unikernels on machines that QEMU starts by itself: what they find there, what they say, and how they end."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swiftlet.unikernel import wire
from swiftlet.unikernel.build import build
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.failure import DeadlineError
from swiftlet.unikernel.figures import figures_of
from swiftlet.unikernel.wire import Message
from tests.product import eventually
from tests.unikernel_program import LARGE_FRAMES, PROGRAM
from tests.vm.test_unikernel import PRIMES

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]


def started(image: Path, *flags: str, processors: int, until: bytes = b"ready\n", seconds: float = 60) -> str:
    """What a machine that QEMU starts by itself says until it is ready, or ends."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", str(processors), "-nodefaults"]
    command += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(image), *flags]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said, end = b"", time.monotonic() + seconds
    try:
        while until not in said and time.monotonic() < end and process.poll() is None:
            if select.select([process.stdout], [], [], 1)[0]:
                said += os.read(process.stdout.fileno(), 4096)
    finally:
        process.kill()
        process.wait()
    return said.decode()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "primes.elf"
    path.write_bytes(build(str(PRIMES)).image)
    return path


@contextmanager
def reached(image: Path, *words: str, processors: str, memory: str = "32") -> Iterator[Client]:
    """A machine that QEMU starts by itself, with these words for it, over QEMU's own network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "microvm,acpi=off", "-smp", processors]
    command += [
        "-m",
        memory,
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-kernel",
        str(image),
    ]
    command += ["-append", " ".join(words), "-global", "virtio-mmio.force-legacy=false"]
    command += ["-netdev", f"user,id=n,hostfwd=udp:127.0.0.1:{port}-:7000", "-device", "virtio-net-device,netdev=n"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None and b"ready\n" in iter(process.stdout.readline, b"")
        with Client("127.0.0.1", port) as client:
            yield client
    finally:
        process.kill()
        process.communicate()


SIBLINGS = "4,sockets=1,cores=2,threads=2"


def tasks_of(client: Client, calls: int, tasks: int) -> list[int]:
    """How many tasks each processor ran, by its APIC's number, when each call has waited for those of the last one."""
    for _ in range(calls):
        assert client.run("count_primes", [100], tasks) == [25] * tasks
        eventually(lambda: all(each["state"] != "running" for each in figures_of(client)["processors"]))
        time.sleep(0.01)  # and are asleep again
    cores = sorted(figures_of(client)["processors"], key=lambda each: each["apic"])
    return [each["tasks"] for each in cores]


def test_a_frame_larger_than_the_guard_page_ends_its_task_alone(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(LARGE_FRAMES + "\napp = service(frames)\n")
    (tmp_path / "tasks.elf").write_bytes(build(str(tmp_path / "tasks.py")).image)
    ends = set()
    with reached(tmp_path / "tasks.elf", processors="2") as client:
        for depth in range(4, 40):
            try:
                assert client.call("frames", depth, -1, 1) == depth
                ends.add("fits")
            except RecursionError:
                ends.add("too deep")
            assert client.run("frames", [1, -1, 1], 4) == [1] * 4
    assert ends == {"fits", "too deep"}


def test_tasks_that_nobody_comes_to_end_with_their_time_too(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(PROGRAM)
    (tmp_path / "tasks.elf").write_bytes(build(str(tmp_path / "tasks.py")).image)
    with reached(tmp_path / "tasks.elf", "master=serve", processors="2") as client:
        place, _ = client.find("forever")
        client.send(wire.encoded(Message(wire.CALL, 7, place, length=8), struct.pack("<q", 5)))
        begin = time.monotonic()
        with pytest.raises(DeadlineError):
            client.run("add", [1, 2], 3, deadline=0.3)
        assert time.monotonic() - begin < 2
        client.send(wire.encoded(Message(wire.CANCEL, 7)))
        assert client.run("add", [1, 2], 3, deadline=5) == [3] * 3


def test_a_first_processor_that_only_serves_runs_no_task(image: Path) -> None:
    with reached(image, "master=serve", processors="3") as client:
        tasks = tasks_of(client, 5, 4)
        assert tasks[0] == 0 and sum(tasks) == 20


def test_siblings_of_a_core_get_tasks_last_or_where_it_is_asked_for_first(image: Path) -> None:
    with reached(image, "master=serve", processors=SIBLINGS) as client:
        _, sibling, *others = tasks_of(client, 12, 1)
        assert sum(others) > sibling
    with reached(image, "master=serve placement=packed", processors=SIBLINGS) as client:
        _, sibling, *others = tasks_of(client, 12, 1)
        assert sibling > sum(others)


def test_processors_that_watch_a_line_of_memory_are_woken_by_a_write(image: Path) -> None:
    """QEMU's emulation knows MWAIT and has no line, so that it is taken only where it is told to; then it returns."""
    with reached(image, "master=serve idle=mwait", processors="2") as client:
        assert client.run("count_primes", [1000], 50) == [168] * 50
        (_, core) = figures_of(client)["processors"]
        assert (core["tasks"], core["interrupts"]) == (50, 0)


@pytest.mark.parametrize(
    ("machine", "processors", "found"),
    [
        ("microvm", 3, "processors 3 by 1"),
        ("microvm,acpi=off", 1, "processors 1 by 2"),
        ("microvm,acpi=off", 3, "processors 3 by 3"),
        ("q35", 4, "processors 4 by 1"),
        ("pc,acpi=off", 2, "processors 2 by 3"),
    ],
)
def test_processors_are_found_by_whatever_a_machine_tells(
    image: Path, machine: str, processors: int, found: str
) -> None:
    """1: ACPI's MADT, 2: the MP table, 3: QEMU's fw_cfg besides."""
    said = started(image, "-M", machine, "-m", "64", processors=processors)
    assert found in said and "ready" in said


def test_sixty_four_processors_boot(image: Path) -> None:
    said = started(image, "-M", "microvm", "-m", "128", processors=64)
    assert "processors 64 by 1" in said and "ready" in said


def test_as_many_processors_as_emulation_has_boot_and_answer(image: Path) -> None:
    """QEMU asks for KVM's interrupt controller for more, and has 288 at most."""
    with reached(image, processors="255", memory="64") as client:
        assert client.run("count_primes", [1000], 255) == [168] * 255
        assert len({each["apic"] for each in figures_of(client)["processors"]}) == 255


def test_too_little_memory_is_said_not_silence(image: Path) -> None:
    said = started(image, "-M", "microvm", "-m", "3", processors=16, until=b"-m\n")
    assert "out of memory: this machine has" in said and "give it more: -m" in said


def test_a_machine_ends_when_it_is_told_to_on_every_type(image: Path) -> None:
    for machine in ("microvm", "microvm,acpi=off", "q35"):
        said = started(image, "-M", machine, "-m", "3", processors=16, until=b"never said", seconds=20)
        assert "out of memory" in said


@pytest.mark.fuzz
@pytest.mark.timeout(3000, func_only=True)
def test_changed_frames_do_no_harm_and_every_request_is_answered_once(tmp_path: Path) -> None:
    """SWIFTLET_FUZZ_SECONDS of changed frames, then SWIFTLET_REQUESTS requests, in a network namespace of its own."""
    (tmp_path / "tasks.py").write_text(PROGRAM)
    image = tmp_path / "tasks.elf"
    image.write_bytes(build(str(tmp_path / "tasks.py")).image)
    words = [os.environ.get("SWIFTLET_FUZZ_SECONDS", "5"), os.environ.get("SWIFTLET_SEED", "1")]
    requests = int(os.environ.get("SWIFTLET_REQUESTS", "20000"))
    script = Path(__file__).parent / "unikernel_fuzz.py"
    command = ["unshare", "-n", sys.executable, script, image, *words, str(requests)]
    environment = {**os.environ, "PYTHONPATH": str(PRIMES.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["frames"] > 1000 and told["malformed"] + told["net_malformed"] > 100
    assert told["calls"] == requests, "none was computed twice"


DHCP = """
set -e
ip link set lo up
ip tuntap add tap0 mode tap
ip addr add 10.9.0.1/24 dev tap0
ip link set tap0 up
dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=tap0 --bind-interfaces --no-ping \\
    --dhcp-range=10.9.0.50,10.9.0.50,1h --dhcp-leasefile=/dev/null --pid-file= 2>"$1/log" &
server=$!
trap 'kill $server' EXIT
timeout 20 qemu-system-x86_64 -M microvm,acpi=off -accel tcg -cpu max -m 32 -nodefaults -display none -no-reboot \\
    -serial "file:$1/console" -global virtio-mmio.force-legacy=false \\
    -netdev tap,id=n,ifname=tap0,script=no,downscript=no \\
    -device virtio-net-device,netdev=n,mac=52:54:00:aa:bb:cc -kernel "$2" &
machine=$!
trap 'kill $server $machine' EXIT
for _ in $(seq 100); do grep -q ready "$1/console" 2>/dev/null && break; sleep 0.1; done
"$3" -c 'import sys
from swiftlet.unikernel import wire
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.failure import DeadlineError
with Client("10.9.0.50", 7000) as client: print(client.call("count_primes", 1000))'
"""


def test_a_unikernel_without_an_address_asks_for_one(image: Path, tmp_path: Path) -> None:
    """dnsmasq answers, in a network namespace of its own."""
    environment = {**os.environ, "PYTHONPATH": str(PRIMES.parents[2])}
    words = ["unshare", "-n", "sh", "-c", DHCP, "sh", str(tmp_path), str(image), sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
    said = (tmp_path / "log").read_text()
    assert done.stdout == "168\n", done.stderr + said
    assert "DHCPACK(tap0) 10.9.0.50 52:54:00:aa:bb:cc" in said
    assert "network 10.9.0.50" in (tmp_path / "console").read_text()
