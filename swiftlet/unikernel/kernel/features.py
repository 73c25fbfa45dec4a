"""What a processor has to have, and whether this one has it: by cpuid, and the system's own leave in XCR0.

Linked into both targets. Of all code this runs first, so it uses nothing that it looks for.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    Struct,
    address,
    array,
    call,
    cpuid,
    extended_state,
    many,
    symbol,
    text,
    u8,
    u64,
)

EBX = 1
OSXSAVE = 27
BASELINE = 2

UNFIT = 69
"""What a machine ends with that cannot run its tasks: EX_UNAVAILABLE of sysexits."""


class Feature(Struct):
    """`level.Feature`, as `level.table` writes it."""

    leaf: u64
    register: u64
    bit: u64
    state: u64
    level: u64
    name = array(u8, 16)


def is_fit() -> bool:
    """Whether the processor has everything."""
    return level_here() >= many(u64, symbol("cpu_level"))[0]


def level_here() -> u64:
    """The highest level of which nothing is missing here, the image's at most; one below the baseline for none."""
    found = many(u64, symbol("cpu_level"))[0]
    needed = many(Feature, symbol("cpu_features") + 8)
    for i in range(many(u64, symbol("cpu_features"))[0]):
        if lacks(needed[i]) and needed[i].level <= found:
            found = needed[i].level - 1
    return found


def lacks(feature: Feature) -> bool:
    """Whether the processor lacks something, or whoever runs on it has not turned it on."""
    if cpuid(feature.leaf & 0x80000000, 0, 0) < feature.leaf:
        return True
    told = cpuid(feature.leaf, 0, 1) if feature.register == EBX else cpuid(feature.leaf, 0, 2)
    if told >> feature.bit & 1 == 0:
        return True
    return turned_on() & feature.state != feature.state


def turned_on() -> u64:
    """XCR0; 0 where there is none."""
    if cpuid(1, 0, 2) >> OSXSAVE & 1 == 0:
        return 0
    return extended_state()


def complain(say: u64) -> None:
    """Say what is missing. say: the function for a text."""
    call(say, text("this image needs "))
    needed = many(Feature, symbol("cpu_features") + 8)
    said = False
    for i in range(many(u64, symbol("cpu_features"))[0]):
        if lacks(needed[i]):
            if said:
                call(say, text(", "))
            call(say, address(needed[i].name))
            said = True
    call(say, text(", which this processor lacks"))
    level = level_here()
    if level >= BASELINE:
        call(say, text("; build it with --cpu-level v"))
        call(say, text("2") if level == BASELINE else text("3"))
