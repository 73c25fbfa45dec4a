"""Disk images that start by themselves under a host's firmware: the table, the boot loader, file systems, formats.

`table`, `grub`, `plan` and `ovf` are pure: sizes in, bytes and command lines out. `build` makes a raw image with them,
`formats` makes others of it. Nothing is mounted, and nothing here knows of guests: their orders come as text.
"""
