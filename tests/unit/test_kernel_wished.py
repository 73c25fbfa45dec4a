"""Starts of other makers: what of a configuration is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftlet.image.kernel import wished
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.source import Source
from swiftlet.model.error import InputError


def test_modules_are_built_in_and_what_is_of_the_makers_build_is_left() -> None:
    text = '# Linux\nCONFIG_A=m\nCONFIG_MODULES=y\nCONFIG_SYSTEM_TRUSTED_KEYS="debian/key.pem"\n# CONFIG_B is not set\n'
    found = wished.builtin(text + "CONFIG_MAXSMP=y\nCONFIG_C=7\n", "cloud")
    assert found == [
        Wanted("CONFIG_A", "y", "cloud", 2),
        Wanted("CONFIG_B", "n", "cloud", 5),
        Wanted("CONFIG_C", "7", "cloud", 7),
    ]


def test_what_is_no_configuration_is_refused_with_its_line() -> None:
    with pytest.raises(InputError, match="mine, line 2"):
        wished.builtin("CONFIG_A=y\nhello\n", "mine")


def test_a_tree_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x86_64_defconfig"):
        wished.text_of_tree(Source("6.1", "d", str(tmp_path)))
