"""Levels of x86-64: a machine that has what an image needs runs it, one that has not says what is missing and ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from swiftlet.unikernel import wire
from swiftlet.unikernel.failure import DeadlineError
from swiftlet.unikernel.level import FEATURES
from tests.product import Product
from tests.vm.test_unikernel import Service, port_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

TREE = Path(__file__).parents[2]
PRIMES = TREE / "examples/unikernel/primes.py"

BUILD = """
import sys
from swiftlet.unikernel.build import build
sys.stdout.buffer.write(build(sys.argv[1], level=sys.argv[2]).image)
"""

VECTORS = """
from swiftlet.unikernel import float64, service, task

@task
def weighed(values: float64[:], turns: int) -> float64[:]:
    result = values * 0.0
    for turn in range(turns):
        for i in range(len(values)):
            result[i] = result[i] * 0.5 + values[i] * (turn + 1)
    return result

@task
def untouched(n: int) -> float:
    total = 0.0
    for i in range(n):
        total = total + 1.0 / (1.0 + i * i)
    return total

app = service(weighed, untouched)
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory):
    """Makes an image for a level: in a process of its own, for each compiles for one."""

    def made(level: str) -> Path:
        path = tmp_path_factory.mktemp("image") / f"primes-{level}.elf"
        done = subprocess.run(
            [sys.executable, "-c", BUILD, PRIMES, level], stdout=subprocess.PIPE, cwd=TREE, check=True
        )
        path.write_bytes(done.stdout)
        return path

    return made


def ended(image: Path, processor: str, *more: str) -> tuple[str, int]:
    """What a machine said until it ended, and with which number."""
    command = ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-cpu", processor, "-smp", "2", "-m", "32"]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(image)]
    command += ["-device", "isa-debug-exit,iobase=0x501,iosize=1"]
    done = subprocess.run([*command, *more], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.stdout, done.returncode


def line(missing: list[str], hint: str) -> str:
    return f"swiftlet: this image needs {', '.join(missing)}, which this processor lacks{hint}\n"


def names(*levels: int) -> list[str]:
    return [each.name for each in FEATURES if each.level in levels]


BASELINE = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"


@pytest.mark.parametrize(
    ("level", "processor", "missing", "hint"),
    [
        ("v4", "max", names(4), "; build it with --cpu-level v3"),
        ("v4", BASELINE, names(3, 4), "; build it with --cpu-level v2"),
        ("v3", BASELINE, names(3), "; build it with --cpu-level v2"),
        ("v3", "max,-movbe,-avx2", ["avx2", "movbe"], "; build it with --cpu-level v2"),
        ("v3", "max,-xsave", ["avx", "avx2", "f16c", "fma", "xsave"], "; build it with --cpu-level v2"),
        ("v3", "qemu64", ["popcnt", "ssse3", "sse4.1", "sse4.2", *names(3)], ""),
        ("v2", "qemu64", ["popcnt", "ssse3", "sse4.1", "sse4.2"], ""),
    ],
)
def test_a_processor_that_lacks_something_is_told_what(image, level, processor, missing, hint) -> None:
    """Nothing else runs before; 139 is what QEMU makes of EX_UNAVAILABLE."""
    assert ended(image(level), processor) == (line(missing, hint), 139)


def test_a_machine_of_this_host_is_refused_in_the_same_words(product: Product) -> None:
    done = product.run("run", "-d", "--name", "four", "--as", "unikernel", str(PRIMES), "--cpu-level", "v4")
    if done.returncode == 0:
        pytest.skip("this host's machines have AVX-512")
    assert done.returncode == 126
    assert line(names(4), "; build it with --cpu-level v3").removeprefix("swiftlet: ") in done.stderr
    product.run("rm", "-f", "four")


@pytest.fixture(scope="module")
def vectors(product: Product):
    made = Service(product, "vectors", "--cpus", "2", "--cpu-level", "v3", program=VECTORS)
    yield made
    product.ok("rm", "-f", "vectors")


def expected(values, turns):
    import numpy as np

    result = np.zeros(len(values))
    for turn in range(turns):
        result = result * 0.5 + values * (turn + 1)
    return result


def test_registers_of_avx_survive_interrupts(vectors: Service) -> None:
    """Others ask for figures and have their calls ended while tasks hold their numbers in ymm."""
    import numpy as np

    stop = threading.Event()
    asked = []

    def disturb() -> None:
        with vectors.client() as other:
            while not stop.is_set():
                asked.append(other.read(wire.STATISTICS))
                with pytest.raises(DeadlineError):
                    other.call("untouched", 1 << 40, deadline=0.01)

    values = np.random.default_rng(2).normal(size=1000)
    thread = threading.Thread(target=disturb)
    with vectors.client() as client:
        right = expected(values, 300)
        thread.start()
        try:
            for _ in range(20):
                for found in client.run("weighed", [values, 300], 4):
                    assert (found == right).all(), "to the last bit: nothing is fused"
        finally:
            stop.set()
            thread.join()
    assert len(asked) > 10


def test_the_level_is_shown_and_names_an_image_of_its_own(product: Product, vectors: Service) -> None:
    (guest,) = product.json("inspect", "vectors")
    assert guest["workload"]["cpu_level"] == "v3" and port_of(guest) == vectors.port
    built = {level: product.json("unikernel", "build", str(PRIMES), "--cpu-level", level) for level in ("v2", "v3")}
    assert {each["level"] for each in built.values()} == {"v2", "v3"}
    assert built["v2"]["digest"] != built["v3"]["digest"]
    assert product.json("unikernel", "build", str(PRIMES))["digest"] == built["v2"]["digest"]
    refused = product.run("unikernel", "build", str(PRIMES), "--cpu-level", "v5")
    assert refused.returncode == 125 and "there are v2, v3, v4" in refused.stderr


def test_a_pool_starts_a_machine_of_a_level(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    from swiftlet.unikernel import Executor

    def count_primes(limit: int) -> int:
        return limit

    for name, value in product.environment.items():
        monkeypatch.setenv(name, value)
    with Executor(str(PRIMES), cpu_level="v3") as executor:
        assert executor.submit(count_primes, 20000).result() == 2262
        assert "v3" in {each["workload"]["cpu_level"] for each in product.json("inspect", *guests(product))}


def guests(product: Product) -> list[str]:
    return [each["name"] for each in product.json("ps")]
