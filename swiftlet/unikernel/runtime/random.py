"""Random numbers as numpy's: the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), one for each processor.

Numba's code draws from the state itself, and calls these when it is used up or seeded. Who runs tasks provides
`random_state`: the address of the processor's own, zeros at first.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Struct, array, at, counter, export, external, f64, u32, u64

WORDS, MIDDLE = 624, 397
UPPER, LOWER, MATRIX = 0x80000000, 0x7FFFFFFF, 0x9908B0DF
SEED_FACTOR = 1812433253
"""Knuth's multiplier, with which the 2002 version of the generator spreads a seed."""


class State(Struct):
    """Numba's rnd_state_t. index: of the next word. gauss: the second number of a pair of normal ones."""

    index: u32
    words = array(u32, WORDS)
    has_gauss: u32
    gauss: f64
    is_seeded: u32


@external
def random_state() -> u64:
    raise NotImplementedError


@export
def numba_get_np_random_state() -> u64:
    """The state of this processor, seeded by its counter where nobody has seeded it."""
    place = random_state()
    if at(State, place).is_seeded == 0:
        numba_rnd_init(place, counter() * 0x9E3779B97F4A7C15 >> 32)
    return place


@export
def numba_get_py_random_state() -> u64:
    return numba_get_np_random_state()


@export
def numba_rnd_init(place: u64, seed: u64) -> None:
    """Seed a state with 32 bits."""
    state = at(State, place)
    word = seed & 0xFFFFFFFF
    state.words[0] = word
    for i in range(1, WORDS):
        word = SEED_FACTOR * (word ^ word >> 30) + i & 0xFFFFFFFF
        state.words[i] = word
    state.index = WORDS
    state.has_gauss = 0
    state.gauss = 0.0
    state.is_seeded = 1


@export
def numba_rnd_shuffle(place: u64) -> None:
    """Make the next 624 words."""
    state = at(State, place)
    for i in range(WORDS):
        following = state.words[i + 1 if i + 1 < WORDS else 0]
        mixed = (state.words[i] & UPPER) | (following & LOWER)
        other = i + MIDDLE
        if other >= WORDS:
            other -= WORDS
        word = state.words[other] ^ mixed >> 1
        if mixed & 1:
            word = word ^ MATRIX
        state.words[i] = word
    state.index = 0
