"""A kernel's symbols (System.map), and which initcall a stack was in: for machines that do not come to their workload.

A kernel starts by calling some hundred functions, its initcalls, one after the other (init/main.c, do_one_initcall).
One that hangs or faults in one of them has the address of a place in it on its stack.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable

_CALLER = "do_one_initcall"

_ENTRY = re.compile(r"__initcall__.+?__\d+_\d+_(\w+?)(?:early|rootfs|con|[0-7]s?)")
"""The name of an initcall's entry: module, counter, line, function and level (include/linux/init.h, 6.1)."""


class Symbols:
    """The functions of a kernel, from its System.map; without one it knows none."""

    def __init__(self, path: str) -> None:
        self._addresses: list[int] = []
        self._names: list[str] = []
        self._initcalls: set[str] = set()
        try:
            with open(path) as file:
                for line in file:
                    self._take(*line.split())
        except (OSError, ValueError, TypeError):
            return

    def _take(self, address: str, kind: str, name: str) -> None:
        if kind in "tTwW":
            self._addresses.append(int(address, 16))
            self._names.append(name)
        elif name.startswith("__initcall__") and (entry := _ENTRY.fullmatch(name)):
            self._initcalls.add(entry[1])

    def at(self, address: int) -> str:
        """The function that an address lies in; "" for none."""
        place = bisect.bisect_right(self._addresses, address) - 1
        return self._names[place] if 0 <= place < len(self._names) - 1 else ""

    def initcall(self, functions: Iterable[str]) -> str:
        """The initcall that runs, by the functions on a stack, innermost first; "" where none is seen to.

        Old values lie between the return addresses: of several, that is meant which is nearest to its caller.
        """
        found = ""
        for name in functions:
            if name == _CALLER:
                return found
            found = name if name in self._initcalls else found
        return ""
