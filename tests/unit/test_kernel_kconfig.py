"""What a kernel tree says of an option, read from a tree of a few lines in which every form of the language occurs."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftlet.image.kernel import kconfig
from swiftlet.model.error import InputError

TOP = """\
# SPDX-License-Identifier: GPL-2.0
mainmenu "Kernel"
source "arch/$(SRCARCH)/Kconfig"
source "missing/Kconfig"

menu "Networking"
\tdepends on NET

config INET
\tbool "TCP/IP networking"
\tdepends on !SMALL && \\
\t\t(PROC || SYSFS)   # either will do
\thelp
\t  Say Y. Not an option:
\t  config FAKE
\t    depends on NOTHING

\t  Still help.

config HIDDEN
\tdef_bool y

endmenu

if EXPERT
choice
\tprompt "Compression"
\tdepends on HAVE_ANY
config GZIP
\tbool "Gzip"
\tdepends on $(cc-option,-mabc)
config LZ4
\tbool 'Lz4'
endchoice
endif

config LAST
\tint "Number"
\tdepends on BITS >= 64 && LEVEL != "low"
"""

ARCH = "config ARCH\n\tbool\n\nconfig INET\n\tbool\n\tdepends on ARCH\n"


@pytest.fixture
def options(tmp_path: Path) -> dict[str, list[kconfig.Option]]:
    (tmp_path / "arch/x86").mkdir(parents=True)
    (tmp_path / "Kconfig").write_text(TOP)
    (tmp_path / "arch/x86/Kconfig").write_text(ARCH)
    return kconfig.read_tree(str(tmp_path))


Options = dict[str, list[kconfig.Option]]


def test_every_definition_is_found_where_it_stands(options: Options) -> None:
    places = {symbol: [(each.file, each.line) for each in found] for symbol, found in options.items()}
    assert places["CONFIG_INET"] == [("arch/x86/Kconfig", 4), ("Kconfig", 9)]
    assert set(options) == {f"CONFIG_{name}" for name in ("ARCH", "INET", "HIDDEN", "GZIP", "LZ4", "LAST")}


def test_titles_are_those_of_menus_and_hidden_options_have_none(options: Options) -> None:
    assert options["CONFIG_INET"][1].title == "TCP/IP networking"
    assert options["CONFIG_LAST"][0].title == "Number"
    assert options["CONFIG_HIDDEN"][0].title == options["CONFIG_ARCH"][0].title == ""


def test_conditions_are_those_around_an_option_and_its_own(options: Options) -> None:
    assert options["CONFIG_HIDDEN"][0].conditions == ("NET",)
    assert options["CONFIG_LZ4"][0].conditions == ("EXPERT", "HAVE_ANY")
    assert options["CONFIG_LAST"][0].conditions == ('BITS >= 64 && LEVEL != "low"',)


@pytest.mark.parametrize(
    ("symbol", "values", "parts"),
    [
        ("INET", {}, ["NET", "(PROC || SYSFS)"]),
        ("INET", {"NET": "y", "SYSFS": "m"}, []),
        ("INET", {"NET": "y", "PROC": "y", "SMALL": "y"}, ["!SMALL"]),
        ("GZIP", {"EXPERT": "y", "HAVE_ANY": "y"}, []),
        ("LAST", {"BITS": "64", "LEVEL": '"high"'}, []),
        ("LAST", {"BITS": "32", "LEVEL": '"low"'}, ["BITS >= 64", 'LEVEL != "low"']),
    ],
)
def test_it_says_which_part_of_a_condition_fails(
    options: Options, symbol: str, values: dict[str, str], parts: list[str]
) -> None:
    option = options[f"CONFIG_{symbol}"][-1]
    assert kconfig.failing(option, {f"CONFIG_{name}": value for name, value in values.items()}) == parts


def test_a_folder_without_a_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no kernel tree"):
        kconfig.read_tree(str(tmp_path))
