"""From code that ran to requests, on a tree of a few lines; the tools' part is played by Kconfig's rules themselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from swiftlet.image.kernel import derive, kconfig
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.derive import Evidence
from swiftlet.image.kernel.expression import holds
from swiftlet.image.kernel.kbuild import Tree
from swiftlet.image.kernel.trace import Phase, Place, Ran

KCONFIG = """\
config NET
	bool "Networking"

config INET
	bool "Internet"
	depends on NET && (FAST || PLAIN)
	select CRC

config FAST
	bool "Fast"

config PLAIN
	bool "Plain"
	default y

config CRC
	bool

config TABLES
	bool "Tables" if EXPERT
	default y

config EXPERT
	bool "Expert"

config VT
	bool "Terminals"
	default y

config CONSOLE
	bool
	default y if VT && !SILENT

config SILENT
	bool "Silent"

config CPUS
	int "Processors"
	default 8

choice
	prompt "Compression"
config GZIP
	bool "Gzip"
config LZ4
	bool "Lz4"
endchoice
"""

FILES = {
    "Kconfig": KCONFIG,
    "Kbuild": "obj-y += init/\nobj-$(CONFIG_NET) += net/\n",
    "init/Makefile": "obj-y := main.o\n",
    "init/main.c": "int a;\n#ifdef CONFIG_TABLES\nint b;\n#endif\n",
    "net/Makefile": "obj-y := core.o\nobj-$(CONFIG_INET) += inet.o\ninet-y := tcp.o\ninet-$(CONFIG_FAST) += fast.o\n",
    "net/core.c": "int c;\n",
    "net/tcp.c": "int d;\n",
    "net/fast.c": "int e;\n",
}

FULL = {
    f"CONFIG_{name}": "y" for name in ("NET", "INET", "PLAIN", "CRC", "TABLES", "EXPERT", "VT", "CONSOLE", "LZ4")
} | {"CONFIG_CPUS": "64"}

Options = dict[str, list[kconfig.Option]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def options(tree: Path) -> Options:
    return kconfig.read_tree(str(tree))


def configure(options: Options, asked: Iterable[Wanted]) -> dict[str, str]:
    """What Kconfig's rules make of requests: visible ones are followed, the others are selected or by default."""
    wanted = {each.symbol: each.value for each in asked}
    values: dict[str, str] = {}
    for _ in range(10):
        selected = {
            clause.what for symbol in values for option in options[symbol] for clause in option.selects
            if values[symbol] == "y" and holds(clause.condition, values)
        }  # fmt: skip
        values = {symbol: value for symbol in options if (value := _value(options[symbol][0], wanted, values)) != "n"}
        values |= dict.fromkeys(selected, "y")
    return values


def _value(option: kconfig.Option, wanted: dict[str, str], values: dict[str, str]) -> str:
    if kconfig.failing(option, values):
        return "n"
    if option.title and holds(option.shown, values) and option.symbol in wanted:
        return wanted[option.symbol]
    return next((what for what, condition in option.defaults if holds(condition, values)), "n")


def seen(*names: str) -> dict[str, Evidence]:
    return {f"CONFIG_{name}": Evidence(f"CONFIG_{name}", Place(f"{name}.c", 1), Phase.USE) for name in names}


def settled(options: Options, evidence: dict[str, Evidence], kept: Iterable[Wanted] = ()) -> derive.Settled:
    requests = derive.requests_for(evidence, FULL, options)
    return derive.settle(requests, evidence, kept, lambda asked: configure(options, asked))


def test_lines_that_ran_ask_for_what_their_files_and_branches_need(tree: Path) -> None:
    ran = [
        Ran(Place("init/main.c", 1), Phase.USE),
        Ran(Place("init/main.c", 3), Phase.USE),
        Ran(Place("net/tcp.c", 1), Phase.INIT),
        Ran(Place("include/generated/x.h", 4), Phase.USE),
    ]
    texts = {"include/generated/x.h": "", **FILES}
    found = derive.evidence_of(ran, FULL, Tree(str(tree), FULL), texts.__getitem__)
    assert found == {
        "CONFIG_TABLES": Evidence("CONFIG_TABLES", Place("init/main.c", 3), Phase.USE),
        "CONFIG_INET": Evidence("CONFIG_INET", Place("net/tcp.c", 1), Phase.INIT),
        "CONFIG_NET": Evidence("CONFIG_NET", Place("net/tcp.c", 1), Phase.INIT),
    }


def test_evidence_of_use_is_better_than_that_of_a_start(tree: Path) -> None:
    ran = [Ran(Place("net/core.c", 1), Phase.USE), Ran(Place("net/core.c", 0), Phase.INIT)]
    found = derive.evidence_of(ran, FULL, Tree(str(tree), FULL), FILES.__getitem__)
    assert found["CONFIG_NET"] == Evidence("CONFIG_NET", Place("net/core.c", 1), Phase.USE)


def test_a_request_names_the_line_that_ran_and_brings_what_it_depends_on(options: Options) -> None:
    requests = derive.requests_for(seen("INET"), FULL, options)
    assert requests.wanted["CONFIG_INET"] == Wanted("CONFIG_INET", "y", "INET.c", 1)
    assert requests.reasons["CONFIG_NET"] == requests.reasons["CONFIG_PLAIN"] == "needed by CONFIG_INET"
    assert "CONFIG_FAST" not in requests.wanted  # it was off when INET ran


def test_values_and_answers_to_choices_are_taken_over(options: Options) -> None:
    values = {each.symbol: each.value for each in settled(options, {}).requests}
    assert values["CONFIG_CPUS"] == "64" and values["CONFIG_LZ4"] == "y"


def test_what_is_on_by_default_and_never_ran_is_asked_to_be_off(options: Options) -> None:
    found = settled(options, seen("TABLES"))
    assert "CONFIG_VT" not in found.values and "CONFIG_PLAIN" not in found.values
    assert Wanted("CONFIG_VT", "n", "on by default", 0) in found.requests
    assert found.values["CONFIG_TABLES"] == "y" and "CONFIG_EXPERT" not in found.values  # its default is enough


def test_a_hidden_option_comes_by_whoever_selects_it(options: Options) -> None:
    found = settled(options, seen("CRC"))
    assert found.values["CONFIG_CRC"] == "y" and found.lost == []
    assert found.reasons["CONFIG_INET"] == "selects CONFIG_CRC"


def test_a_hidden_option_comes_by_what_its_default_depends_on(options: Options) -> None:
    found = settled(options, seen("CONSOLE"))
    assert found.values["CONFIG_CONSOLE"] == "y" and found.reasons["CONFIG_VT"] == "needed by CONFIG_CONSOLE"


def test_what_is_kept_wins_and_what_is_lost_by_that_is_told(options: Options) -> None:
    found = settled(options, seen("CRC"), [Wanted("CONFIG_NET", "n", "kept.config", 3)])
    assert found.lost == ["CONFIG_CRC"]
    assert "CONFIG_INET" not in {each.symbol for each in found.requests}  # it was not followed


def test_the_same_requests_can_be_settled_again(options: Options) -> None:
    requests = derive.requests_for(seen("CRC"), FULL, options)
    before = dict(requests.wanted)
    derive.settle(requests, ["CONFIG_CRC"], [], lambda asked: configure(options, asked))
    assert requests.wanted == before


@pytest.mark.parametrize(
    ("condition", "options"),
    [
        ("NET && !SILENT", ["CONFIG_NET"]),
        ("FAST || PLAIN", ["CONFIG_PLAIN"]),
        ("NET=y && SILENT!=y && $(cc-option,-mabc)", ["CONFIG_NET"]),
        ("NET!=n", ["CONFIG_NET"]),
        ("SILENT=n", []),
        ("CPUS > 4", []),
        ('"$(ARCH)" = "x86"', []),
    ],
)
def test_a_condition_is_met_by_the_options_that_were_on(condition: str, options: list[str]) -> None:
    assert derive.conditions_met_by(condition, FULL) == options
