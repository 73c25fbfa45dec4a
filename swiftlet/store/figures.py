"""Figures about a store, for people."""

from __future__ import annotations

import os
from typing import NamedTuple

from swiftlet.store.collect import folder_bytes, object_files
from swiftlet.store.files import storing
from swiftlet.store.layout import DIGEST, Layout


class StoreStat(NamedTuple):
    """Counts and bytes. shared_bytes: what the trees would take in addition if each had its own copy of its files."""

    objects: int
    object_bytes: int
    trees: int
    closures: int
    guests: int
    cache_bytes: int
    shared_bytes: int


def store_stat(layout: Layout) -> StoreStat:
    """Count everything; takes about 3 microseconds for an object. Raises StoreError."""
    with storing(layout.root):
        sizes = _object_sizes(layout)
        return StoreStat(
            objects=len(sizes),
            object_bytes=sum(size for size, _ in sizes),
            trees=sum(bool(DIGEST.fullmatch(name)) for name in os.listdir(layout.trees)),
            closures=len(os.listdir(layout.closures)),
            guests=len(os.listdir(layout.guests)),
            cache_bytes=folder_bytes(layout.cache),
            shared_bytes=sum(size * (links - 2) for size, links in sizes if links > 2),
        )


def _object_sizes(layout: Layout) -> list[tuple[int, int]]:
    """Bytes and links of every object."""
    found = []
    for entry in object_files(layout):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        found.append((status.st_size, status.st_nlink))
    return found
