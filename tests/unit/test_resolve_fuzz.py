"""Fuzzing of the parsers of what may come from an enemy: only errors of ours may come out, and soon.

Every input that was ever found to break one lies in tests/corpus and is tried first. SWIFTLET_FUZZ_SECONDS sets
the time for each parser; a new find is written to the corpus before the test fails.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import random
import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from swiftlet.model.error import BadElfError, InputError
from swiftlet.resolve.catalogue import RECIPES
from swiftlet.resolve.elf import read_facts
from swiftlet.resolve.lock import lock_bytes, parse_locks
from swiftlet.resolve.template import parse_template
from tests.unit.elf_sample import build_elf
from tests.unit.test_resolve_lock import lock

SECONDS = float(os.environ.get("SWIFTLET_FUZZ_SECONDS", "5"))
CORPUS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "corpus")
SLOW = 2.0


def read_elf(data: bytes) -> None:
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, data)
        read_facts(descriptor, "fuzz")
    except BadElfError:
        pass
    finally:
        os.close(descriptor)


def read_yaml(data: bytes) -> None:
    try:
        parse_template(data, "fuzz")
    except InputError:
        pass


def read_lock(data: bytes) -> None:
    try:
        parse_locks(data, "fuzz")
    except InputError:
        pass


def recipes() -> list[bytes]:
    found = []
    for path in sorted(glob.glob(f"{RECIPES}/*.yaml")):
        with open(path, "rb") as file:
            found.append(file.read()[:2000])
    return found


def samples_of_elf() -> list[bytes]:
    note = [{"soname": ["libz.so"], "priority": "required"}]
    whole = build_elf(
        needed=["a", "b"],
        runpath="$ORIGIN",
        soname="s",
        interpreter="/l",
        versions={"a": ["V1", "V2"]},
        defines=["D", "E"],
        dlopen=note,
    )
    with open("/bin/true", "rb") as file:
        return [whole, build_elf(), file.read()]


PARSERS = {
    "elf": (read_elf, samples_of_elf),
    "yaml": (read_yaml, recipes),
    "lock": (read_lock, lambda: [lock_bytes([lock()])]),
}

TOKENS = [
    b"\0",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f",
    b"&a ",
    b"*a",
    b"!!x ",
    b"- ",
    b": ",
    b"{",
    b"[",
    b"../",
    b"\n",
    b"\t",
    b'"',
    b"%",
    b"---\n",
]


def mutate(data: bytes, chooser: random.Random) -> bytes:
    """A few of: flip, cut, repeat, insert a token, exchange a number, take out a part."""
    result = bytearray(data)
    for _ in range(chooser.choice((1, 1, 2, 4, 16))):
        place = chooser.randrange(len(result) + 1)
        kind = chooser.randrange(6)
        if kind == 0 and result:
            result[place % len(result)] ^= 1 << chooser.randrange(8)
        elif kind == 1:
            del result[place:]
        elif kind == 2:
            part = result[place : place + chooser.randrange(1, 64)]
            result[place:place] = part * chooser.choice((1, 2, 50))
        elif kind == 3:
            result[place:place] = chooser.choice(TOKENS)
        elif kind == 4:
            size = chooser.choice((1, 2, 4, 8))
            result[place : place + size] = chooser.choice(
                (0, 1, chooser.getrandbits(8 * size), (1 << 8 * size) - 1)
            ).to_bytes(size, "little")
        else:
            del result[place : place + chooser.randrange(1, 64)]
    return bytes(result[: 1 << 20])


def attempt(name: str, data: bytes) -> None:
    parser = PARSERS[name][0]
    start = time.monotonic()
    try:
        parser(data)
        assert time.monotonic() - start < SLOW, "too slow"
    except BaseException:
        path = f"{CORPUS}/{name}/{hashlib.sha256(data).hexdigest()[:16]}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        raise


@pytest.mark.parametrize("name", PARSERS)
def test_what_once_broke_a_parser_does_not_any_more(name):
    for path in sorted(glob.glob(f"{CORPUS}/{name}/*")):
        with open(path, "rb") as file:
            attempt(name, file.read())


@pytest.mark.fuzz
@pytest.mark.timeout(int(SECONDS) + 60)
@pytest.mark.parametrize("name", PARSERS)
def test_nothing_but_our_errors_comes_out_of_changed_input(name):
    seeds = PARSERS[name][1]()
    chooser = random.Random(os.urandom(8))
    pool = list(seeds)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        data = mutate(chooser.choice(pool), chooser)
        attempt(name, data)
        if len(pool) < 200 and chooser.random() < 0.02:
            pool.append(data)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=4)
    | st.dictionaries(st.text(max_size=8), SCALARS | st.lists(SCALARS), max_size=4)
)
KEYS = st.sampled_from(
    ["name", "version", "files", "libs", "requires", "packages", "links", "generate", "users", "format", "locks"]
)


@settings(
    max_examples=100, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def try_shape(document: dict[str, object]) -> None:
    data = json.dumps(document).encode()
    attempt("yaml", data)
    attempt("lock", data)


@pytest.mark.fuzz
@pytest.mark.timeout(int(SECONDS) + 60)
def test_documents_of_any_shape_are_read_or_refused():
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try_shape()
