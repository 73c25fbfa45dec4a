"""Tasks on several processors: `python -m bench.includeos [--json] [--quick] [--out FOLDER] [--root FOLDER]`.

The paper's experiment: a large number is sent over UDP, N independent tasks count the primes below it, and their sum
comes back. Every arm has the very same object file in it: a unikernel with N processors; N unikernels with one each; a
Linux machine with our kernel, with N threads and with N processes; the same with Debian's kernel, where that was
imported; N processes of this host. Arms are asked in turn; of each request the time is taken, and the host's CPU time
of the machines that were asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench import includeos_figure, suite
from bench.installation import Installation, installation
from bench.launcher import TREE
from bench.report import Report, machine, median
from bench.tap import GUEST, tap
from swiftlet.guest import qemu
from swiftlet.node.machines import HYPERVISOR
from swiftlet.unikernel import wire
from swiftlet.unikernel.client import Client
from swiftlet.unikernel.figures import figures_of
from swiftlet.unikernel.value import packed
from swiftlet.unikernel.wire import Message

ROOT = "/var/tmp/swiftlet-bench"
PROGRAM = f"{TREE}/examples/unikernel/primes.py"
PORT = 7000
ROUNDS, QUICK_ROUNDS = 30, 3
LIMIT, QUICK_LIMIT = 1_000_000, 60_000
"""Below which primes are counted: so far that a request takes many of the clock ticks in which CPU time is counted."""

COUNTED_LIMIT = 20_000
"""The same, where instructions are counted."""

IDLE_SECONDS, QUICK_IDLE_SECONDS = 30.0, 5.0
_TICK = os.sysconf("SC_CLK_TCK")
_BOOT_SECONDS = 20.0


class Arm(NamedTuple):
    """Something that is asked. addresses: of all that get a part of the tasks. processes: whose CPU time is counted."""

    name: str
    addresses: tuple[tuple[str, int], ...]
    processes: tuple[int, ...]


class Sample(NamedTuple):
    """A request. ticks: of CPU time in user mode, in the kernel and in the guest, which user mode contains."""

    seconds: float
    user: float
    system: float
    guest: float


def ticks_of(process: int) -> tuple[int, int, int]:
    """CPU time of a process and the children that it has waited for: user, system, guest (proc(5))."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(each) for each in fields[11:15])
    return user + children_user, system + children_system, int(fields[40])


def ask(arm: Arm, tasks: int, payload: bytes) -> Sample:
    """One request of N tasks, spread over all addresses of an arm. Raises OSError for a wrong answer."""
    clients = [Client(*each) for each in arm.addresses]
    before = [ticks_of(each) for each in arm.processes]
    begin = time.perf_counter()
    for number, client in enumerate(clients):
        share = tasks // len(clients) + (number < tasks % len(clients))
        if share:
            client.send(wire.encoded(Message(wire.CALL, 1 << 40 | number, tasks=share, length=len(payload)), payload))
    total = 0
    for number, client in enumerate(clients):
        share = tasks // len(clients) + (number < tasks % len(clients))
        if not share:
            continue
        found = client.receive(1 << 40 | number, 60)
        if found is None:
            raise OSError(f"{arm.name}: no answer")
        outcomes = wire.outcomes_of(found[1], share)
        total += sum(int.from_bytes(each.data, "little") for each in outcomes)
    seconds = time.perf_counter() - begin
    after = [ticks_of(each) for each in arm.processes]
    for client in clients:
        client.close()
    spent = [sum(new[kind] - old[kind] for new, old in zip(after, before, strict=True)) for kind in range(3)]
    return Sample(seconds, *spent)


def guest(place: Installation, *words: str) -> tuple[str, tuple[str, int], int]:
    """Start a guest; its id, its address and its process."""
    made = place.start(*words)
    told = place.inspect(made.id)[0]
    address = (str(told["address"]), PORT)
    _await(address)
    return made.id, address, int(told["pid"])


def _await(address: tuple[str, int]) -> None:
    end = time.monotonic() + _BOOT_SECONDS
    with Client(*address, silence=1.0) as client:
        while True:
            try:
                client.read(wire.HEALTH)
                return
            except Exception:
                if time.monotonic() > end:
                    raise OSError(f"{address[0]} does not answer") from None


@contextlib.contextmanager
def arms(place: Installation, linux: str, most: Sequence[int], stock: str) -> Iterator[dict[int, list[Arm]]]:
    """Every arm for every N, running."""
    found: dict[int, list[Arm]] = {}
    singles = [guest(place, "--as", "unikernel", PROGRAM) for _ in range(max(most))]
    bare = subprocess.Popen(
        [linux, "--processes", "--address", "127.0.0.1", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert bare.stdout is not None
        here = ("127.0.0.1", int(bare.stdout.readline().partition(":")[2].partition(",")[0]))
        for count in most:
            one = guest(place, "--as", "unikernel", "--cpus", str(count), PROGRAM)
            made = [Arm("unikernel", (one[1],), (one[2],))]
            made.append(
                Arm(
                    "single-core unikernels",
                    tuple(each[1] for each in singles[:count]),
                    tuple(each[2] for each in singles[:count]),
                )
            )
            for name, mode, kernel in (
                ("linux threads", "--threads", ()),
                ("linux processes", "--processes", ()),
                ("stock linux processes", "--processes", ("--kernel", stock) if stock else None),
            ):
                if kernel is not None:
                    words = ("--as", "vm", "--cpus", str(count), *kernel, "-t", f"host:{linux}", "--", linux, mode)
                    other = guest(place, *words)
                    made.append(Arm(name, (other[1],), (other[2],)))
            made.append(Arm("processes", (here,), (bare.pid,)))
            found[count] = made
        yield found
    finally:
        bare.terminate()
        bare.wait()


class Boots(NamedTuple):
    """Milliseconds from QEMU's start: to the first byte on the console, to the first answer over UDP, to a result.

    The last is of a task that the command line asks for, on the console.
    """

    console: list[float]
    answer: list[float]
    result: list[float]


def boots(program: str, image: str, rounds: int) -> Boots:
    """Start machines one after the other. program: QEMU."""
    found = Boots([], [], [])
    for _ in range(rounds):
        with tap() as handle, Client(GUEST, PORT, silence=1.0) as client:
            process, seen, answered = _boot(_by_hand(program, image, handle), handle, client)
            process.kill()
            process.wait()
            found.console.append(seen)
            found.answer.append(answered)
            found.result.append(_result(_by_hand(program, image, handle, " run=0:2000"), handle))
    return found


def _result(words: Sequence[str], handle: int) -> float:
    """Milliseconds until a machine has said what its task came to."""
    begin = time.perf_counter()
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(handle,))
    assert process.stdout is not None
    told = b""
    while b"result 303 failed 0" not in told:
        told += (read := os.read(process.stdout.fileno(), 4096))
        if not read:
            raise OSError(f"the unikernel ended without a result: {told.decode(errors='replace')[-200:]}")
    taken = (time.perf_counter() - begin) * 1000
    process.kill()
    process.wait()
    return taken


def _by_hand(program: str, image: str, handle: int, words: str = "") -> list[str]:
    """The driver's command line with this process's own ends: what it says comes by a pipe, and nobody orders.

    words: more for the image.
    """
    settings = qemu.Settings(
        "bench", "tcg", "microvm", image, 32 << 20, 1, (), ("output", "orders", "monitor", "tap"), 0
    )
    return [program, *_own_ends(qemu.unikernel_argv(settings)[1:], handle, words)]


def _own_ends(words: Sequence[str], handle: int, more: str) -> list[str]:
    kept: list[str] = []
    skip = False
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if skip:
            skip = False
        elif word in ("-add-fd", "-chardev", "-serial", "-mon", "-sandbox") or value.startswith("isa-serial,"):
            skip = True
        elif word == "-append":
            kept += ["-append", f"address={GUEST}{more}"]
            skip = True
        elif value.startswith("tap,"):
            kept += ["-netdev", f"tap,id=net,fd={handle}"]
            skip = True
        else:
            kept.append(word)
    return [*kept, "-serial", "stdio"]


def _boot(words: Sequence[str], handle: int, client: Client) -> tuple[subprocess.Popen[bytes], float, float]:
    begin = time.perf_counter()
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(handle,))
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 1)
    seen = (time.perf_counter() - begin) * 1000
    number = 1 << 50
    while time.perf_counter() - begin < _BOOT_SECONDS:
        number += 1
        client.send(wire.encoded(Message(wire.HEALTH, number)))
        if client.receive(number, 0.0005) is not None:
            return process, seen, (time.perf_counter() - begin) * 1000
    process.kill()
    raise OSError("the unikernel does not answer")


def counted(program: str, image: str, limit: int, rounds: int) -> list[float]:
    """Instructions that one task takes, in machines in which a tick of the clock is an instruction (-icount)."""
    found = []
    for _ in range(rounds):
        with tap() as handle, Client(GUEST, PORT, silence=5.0) as client:
            words = [*_by_hand(program, image, handle), "-icount", "shift=0,sleep=off"]
            process, _, _ = _boot(words, handle, client)
            try:
                client.call("count_primes", limit)
                (core,) = figures_of(client)["processors"]
            finally:
                process.kill()
                process.wait()
        found.append(float(core["cycles"]))
    return found


def idle(place: Installation, seconds: float) -> tuple[int, int]:
    """CPU ticks of a unikernel's machine in so many seconds without a request, and how often a processor woke."""
    id_, address, process = guest(place, "--as", "unikernel", "--cpus", "2", PROGRAM)
    with Client(*address) as client:
        client.call("count_primes", 100)
        time.sleep(1)
        before, ticks = figures_of(client), sum(ticks_of(process)[:2])
        time.sleep(seconds)
        spent = sum(ticks_of(process)[:2]) - ticks
        after = figures_of(client)
    place.remove(id_)
    woken = sum(each["wakeups"] for each in after["processors"]) - sum(each["wakeups"] for each in before["processors"])
    return spent, max(0, woken - (after["received"] - before["received"]))


def wakes(place: Installation, rounds: int) -> list[float]:
    """Microseconds of a call of one empty task, which wakes a parked processor: the whole way of a request."""
    id_, address, _ = guest(place, "--as", "unikernel", "--cpus", "2", PROGRAM)
    found = []
    with Client(*address) as client:
        client.call("count_primes", 1)
        for _ in range(rounds):
            begin = time.perf_counter()
            client.call("count_primes", 1)
            found.append((time.perf_counter() - begin) * 1e6)
    place.remove(id_)
    return found


def measure(root: str, rounds: int, *, quick: bool) -> Report:
    """Everything. Raises OSError."""
    report = Report("includeos", machine())
    counts = sorted({1, os.cpu_count() or 1, 2 * (os.cpu_count() or 1)})
    limit = QUICK_LIMIT if quick else LIMIT
    with installation(root) as place, tempfile.TemporaryDirectory(prefix="swiftlet-bench-") as folder:
        place.kernel()
        image, linux = f"{folder}/primes.elf", f"{folder}/primes"
        _sizes(report, place, image, linux, 3 if quick else 10)
        names = [each["name"] for each in json.loads(place.call("kernel", "ls", "--json"))]
        stock = "stock" if "stock" in names else ""
        samples: dict[str, dict[int, list[Sample]]] = {}
        with arms(place, linux, counts, stock) as running:
            signature = Client(*running[1][0].addresses[0]).signatures()[0]
            payload = packed(signature, [limit])
            for _ in range(rounds):
                for count, each in running.items():
                    for arm in random.sample(each, len(each)):
                        samples.setdefault(arm.name, {}).setdefault(count, []).append(ask(arm, count, payload))
        _add(report, samples, counts)
        place.remove_all()
        spent, woken = idle(place, QUICK_IDLE_SECONDS if quick else IDLE_SECONDS)
        report.add("idle_ticks", spent, "ticks")
        report.add("idle_wakeups", woken, "count")
        found = wakes(place, 200 if quick else 2000)
        report.add("wake_us", median(found), "us", found[:100])
    report.extra = {
        "limit": limit,
        "counts": counts,
        "arms": {name: {str(n): [list(one) for one in each] for n, each in by.items()} for name, by in samples.items()},
    }
    return report


def _sizes(report: Report, place: Installation, image: str, linux: str, rounds: int) -> None:
    """Build, and boot what was built."""
    begin = time.perf_counter()
    place.call("unikernel", "build", PROGRAM, "-o", image)
    place.call("unikernel", "build", PROGRAM, "--target", "linux", "-o", linux)
    seconds = []
    for _ in range(2 if rounds < 5 else 5):
        begin = time.perf_counter()
        command = [f"{TREE}/.venv/bin/python", "-c", f"from swiftlet.unikernel.build import build; build({PROGRAM!r})"]
        subprocess.run(command, check=True, cwd=TREE)
        seconds.append(time.perf_counter() - begin)
    report.add("build_s", median(seconds), "s", seconds)
    report.add("image_bytes", os.path.getsize(image), "bytes")
    place.remove(place.start("--as", "unikernel", PROGRAM).id)
    program = place.file_of(HYPERVISOR, qemu.PROGRAM)
    found = boots(program, image, rounds)
    report.add("boot_to_console_ms", median(found.console), "ms", found.console)
    report.add("boot_to_console_result_ms", median(found.result), "ms", found.result)
    report.add("boot_to_result_ms", median(found.answer), "ms", found.answer)
    instructions = counted(program, image, COUNTED_LIMIT, 3)
    report.add("icount_instructions", median(instructions), "count", instructions)
    report.add("icount_spread", max(instructions) - min(instructions), "count")


def _add(report: Report, samples: dict[str, dict[int, list[Sample]]], counts: Sequence[int]) -> None:
    for name, by in samples.items():
        word = name.replace(" ", "_").replace("-", "_")
        for count, each in by.items():
            report.add(f"{word}_{count}_s", median([one.seconds for one in each]), "s", [one.seconds for one in each])
            ticks = [one.user + one.system for one in each]
            report.add(f"{word}_{count}_ticks", sum(ticks) / len(ticks), "ticks", ticks)
    cores, most = counts[-2], counts[-1]

    def seconds(name: str, count: int) -> float:
        return median([one.seconds for one in samples[name][count]])

    def spent(name: str, count: int) -> float:
        return sum(one.user + one.system for one in samples[name][count])

    report.add("ratio_vs_linux_vm_processes", seconds("unikernel", cores) / seconds("linux processes", cores), "ratio")
    report.add("ratio_vs_linux_vm_pthreads", seconds("unikernel", cores) / seconds("linux threads", cores), "ratio")
    report.add(
        "ratio_vs_single_core_n", seconds("unikernel", cores) / seconds("single-core unikernels", cores), "ratio"
    )
    report.add("ticks_ratio_vs_linux_vm", spent("unikernel", most) / max(1, spent("linux processes", most)), "ratio")


def table(report: Report) -> str:
    """For people."""
    lines = [f"{'metric':<44}{'value':>14}  unit"]
    lines += [f"{name:<44}{each.value:>14.4g}  {each.unit}" for name, each in report.metrics.items()]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = suite.arguments("includeos", __doc__, "includeos.json and its figure")
    parser.add_argument("--quick", action="store_true", help="few rounds of smaller work, under a minute")
    parser.add_argument("--root", default=ROOT, metavar="FOLDER", help=f"the installation that is used ({ROOT})")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="requests of each arm for each N")
    options = parser.parse_args(words)
    if not suite.is_root("includeos", "guests are started"):
        return suite.REFUSED
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return suite.run(
        "includeos",
        options,
        lambda: measure(options.root, rounds, quick=options.quick),
        table,
        includeos_figure.draw,
    )


if __name__ == "__main__":
    sys.exit(main())
