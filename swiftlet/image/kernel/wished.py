"""Starts of other makers: a configuration of a distribution or of the kernel's tree, under what our guests need.

Such a configuration is written for hosts too, and for a tree and a compiler of its own. So what it asks for is wished
for: the kernel's tools say what of it can be had here, and that is what a kernel is then asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from swiftlet.image.kernel import build, configuration
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.make import Make, Progress, no_progress
from swiftlet.image.kernel.source import Source
from swiftlet.model.error import InputError

DEFCONFIG = "defconfig"
"""The name of the tree's own."""

_OF_ITS_BUILD = (
    "CONFIG_MODULE",  # everything is built in
    "CONFIG_DEBUG_INFO",  # as a derivation asks for it
    "CONFIG_SYSTEM_TRUSTED_KEY",  # names files of its maker's
    "CONFIG_SYSTEM_REVOCATION_KEYS",
    "CONFIG_CC_",
    "CONFIG_GCC_",
    "CONFIG_LOCALVERSION",
    "CONFIG_BUILD_SALT",
    "CONFIG_MAXSMP",  # would forbid any smaller number of processors
)
"""Beginnings of options that say how, where and for which size a kernel is built, and not what it can do."""


def text_of_tree(source: Source) -> str:
    """The configuration that the tree's makers suggest. Raises InputError where there is none."""
    path = f"{source.path}/arch/x86/configs/x86_64_defconfig"
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{source.path} has no arch/x86/configs/x86_64_defconfig", "start from a profile") from None


def builtin(text: str, name: str) -> list[Wanted]:
    """What a configuration asks for, with its modules built in. Raises InputError."""
    wanted = configuration.merged([(name, text)]).values()
    return [
        each._replace(value="y" if each.value == "m" else each.value)
        for each in wanted
        if not each.symbol.startswith(_OF_ITS_BUILD)
    ]


def over(
    source: Source, wished: Iterable[Wanted], needed: Iterable[Wanted], work: str, progress: Progress = no_progress
) -> list[Wanted]:
    """All that is needed, and what can be had with it of what is wished for. work: a folder for the tree's tools.

    Raises KernelError.
    """
    needed = list(needed)
    symbols = {each.symbol for each in needed}
    wished = [each for each in wished if each.symbol not in symbols]
    settled = build.settled(Make(source, work), [*wished, *needed], progress)
    unmet = {each.wanted.symbol for each in configuration.unmet(wished, configuration.read(settled))}
    return [*(each for each in wished if each.symbol not in unmet), *needed]
