"""How an arena lies in memory (`arena`): for it, and for who gives tasks theirs."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Struct, array, u64

UNIT = 64
"""Bytes of which every size is a multiple, and of a block's own header: what follows it lies on a cache's line."""

SMALL = 64
"""Up to so many units each count has a class of its own; above, four classes for each power of two."""

CLASSES = 256
CLASS = 7
"""The word of a block's header that has its class; `nrt.MemInfo` lies before it."""


class Arena(Struct):
    """next, end: of what was never given out. free: for each class the first free block, 0 for none.

    used: bytes of it that were given out at most.
    """

    next: u64
    end: u64
    used: u64
    free = array(u64, CLASSES)
