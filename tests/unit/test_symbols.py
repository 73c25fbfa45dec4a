"""A kernel's symbols: which function an address lies in, and which initcall a stack was in."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftlet.node.symbols import Symbols

SYSTEM_MAP = """\
0000000000000000 D per_cpu_start
ffffffff81000000 T idle
ffffffff81000100 T spin
ffffffff82000000 T do_one_initcall
ffffffff82000100 t inet_init
ffffffff82000200 t fib8_init
ffffffff82000300 T behind
ffffffff82210230 d __initcall__kmod_af_inet__790_2091_inet_init5
ffffffff82210234 d __initcall__kmod_fib_rules__12_7_fib8_init4s
ffffffff82210238 d __initcall__kmod_core__305_2229_init_eventsearly
"""


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    (tmp_path / "System.map").write_text(SYSTEM_MAP)
    return Symbols(str(tmp_path / "System.map"))


def test_an_address_lies_in_the_function_that_begins_before_it(symbols: Symbols) -> None:
    assert [symbols.at(0xFFFFFFFF81000000 + offset) for offset in (0, 0xFF, 0x100)] == ["idle", "idle", "spin"]
    assert symbols.at(0x7FFF00000000) == "" and symbols.at(0xFFFFFFFFFFFFFFFF) == "", "what is outside is in none"


def test_the_initcall_is_the_one_that_is_nearest_to_its_caller(symbols: Symbols) -> None:
    stack = ["spin", "fib8_init", "", "inet_init", "do_one_initcall", "fib8_init"]
    assert symbols.initcall(stack) == "inet_init"
    assert symbols.initcall(["spin", "fib8_init", "do_one_initcall"]) == "fib8_init"


def test_without_its_caller_on_the_stack_no_initcall_is_made_up(symbols: Symbols) -> None:
    assert symbols.initcall(["spin", "inet_init", "idle"]) == ""
    assert symbols.initcall(["spin", "do_one_initcall", "inet_init"]) == ""


def test_a_kernel_without_a_map_has_no_symbols(tmp_path: Path) -> None:
    nothing = Symbols(str(tmp_path / "none"))
    assert nothing.at(0xFFFFFFFF81000000) == nothing.initcall(["do_one_initcall"]) == ""
