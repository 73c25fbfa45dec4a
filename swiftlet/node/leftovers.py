"""What killed workers, and killed daemons, left half-made in the store and the cache: removed."""

from __future__ import annotations

import os

from swiftlet.store.guard import sweep
from swiftlet.store.interim import sweep_interim
from swiftlet.store.layout import Layout

AFTER_BUILD_SECONDS = 20.0
"""Compilers that were killed may take so long to be gone on a busy host."""

_AT_START_SECONDS = 2.0

_FOLDERS = ("images", "checks", "unikernels")
"""Folders of the cache in which things are made by `interim.making`."""


def clear(layout: Layout, patience: float = _AT_START_SECONDS) -> None:
    """Remove it. patience: seconds to wait for the compilers of a build that was killed."""
    sweep(layout)
    for folder in _FOLDERS:
        sweep_interim(f"{layout.cache}/{folder}")
    if any(os.path.isdir(f"{layout.cache}/{folder}") for folder in ("kernels", "sources")):
        from swiftlet.image.kernel import kept  # which hosts without machines never need

        kept.sweep(layout.cache, patience)
