"""Kernels for guests that are machines: which options, from which tree, built, kept, and explained.

`configuration`, `profile` and `kconfig` are pure or only read; `build` runs the kernel's own tools.
"""
