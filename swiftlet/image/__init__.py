"""Layer 3: Closure -> Rootfs. Makes stored files usable (link trees); never copies bytes that the store already has.

`tree` is the entry; `compose` works out what lies on top of a stack, `ldcache` and `accounts` write files of it.
"""
