"""Kernels for guests that are machines: which options, from which tree, built, kept, and explained.

Pure: `configuration`, `profile`, `expression`, `explain`. Read a tree: `source`, `kconfig`, `kbuild`. Run its tools:
`make`, `build`, `footprint`. `kept` is what there is afterwards.
"""
