"""What is tried away first and last, and how a question is told."""

from __future__ import annotations

from swiftlet.image.kernel import candidates
from swiftlet.image.kernel.derive import Evidence
from swiftlet.image.kernel.kconfig import Option
from swiftlet.image.kernel.trace import Phase, Place

FILES = {"A": "net/Kconfig", "B": "net/netfilter/Kconfig", "C": "net/netfilter/ipvs/Kconfig", "D": "mm/Kconfig"}
OPTIONS = {
    f"CONFIG_{name}": [Option(f"CONFIG_{name}", "", (), FILES.get(name, "init/Kconfig"), 1)] for name in "ABCDEFGHI"
}


def symbols(names: str) -> list[str]:
    return [f"CONFIG_{name}" for name in names]


def evidence(**phases: Phase) -> dict[str, Evidence]:
    return {f"CONFIG_{name}": Evidence(f"CONFIG_{name}", Place("a.c", 1), phase) for name, phase in phases.items()}


def test_what_is_least_proven_goes_first_and_what_guests_need_last() -> None:
    ran = evidence(C=Phase.INIT, D=Phase.BOOT, E=Phase.USE, F=Phase.USE, G=Phase.USE)
    found = candidates.candidates(
        symbols("ABCDEFG"), symbols("A"), ran, symbols("EFG"), symbols("G"), symbols("FB"), lambda symbol: 0, OPTIONS
    )
    assert [[each for group in groups for each in group] for groups in found.first] == [
        symbols("A"), symbols("B"), symbols("C"), symbols("D"), symbols("E")
    ]  # fmt: skip
    assert found.last == [("CONFIG_F",)]  # B is known to be needed too, and did not even run


def test_the_largest_menu_is_asked_about_first() -> None:
    size = {"CONFIG_A": 5, "CONFIG_B": 4, "CONFIG_C": 3, "CONFIG_D": 6}
    found = candidates.candidates(symbols("ABCD"), (), {}, (), (), (), lambda symbol: size[symbol], OPTIONS)
    assert found.first[1] == [("CONFIG_B", "CONFIG_C"), ("CONFIG_D",), ("CONFIG_A",)]


def test_a_question_names_what_is_taken_away_now() -> None:
    asked = candidates.question((), symbols("ABCDE"), {"CONFIG_A"}, OPTIONS)
    assert asked == "what has run without 4 options, of net/netfilter, init, mm"
    assert candidates.question(symbols("I"), [], (), OPTIONS) == "what has run and 1 options more"
    many = candidates.question((), symbols("ABDE"), (), OPTIONS)
    assert many.endswith("of init, mm, net and 1 menus more")
