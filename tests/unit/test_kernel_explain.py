"""Why options are on or off, told from a tree of a few lines; what objects they are for, told from its Makefiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftlet.image.kernel import configuration, kbuild, kconfig
from swiftlet.image.kernel.explain import Configuration
from swiftlet.image.kernel.expression import failing_parts, holds, only_symbol, split_condition
from swiftlet.image.kernel.kconfig import Clause

KCONFIG = """\
config NET
    bool "Networking" if EXPERT || $(cc-option,-m if x)
    default y if X86 && 64BIT
    help
      What it is.

        Indented.
      End.

config INET
    tristate "Internet"
    depends on NET
    select CRC if !SMALL
    imply TLS
    select HASH

config CRC
    bool

config HASH
    tristate

config X86
    def_bool y
    select ARCH_HAS_IT

config 64BIT
    bool "64 bits" if X86

config ARCH_HAS_IT
    bool

config MUTE
    bool "Never shown" if EXPERT
    depends on NET || \\
        X86

config EXPERT
    bool "Expert"

choice
    prompt "Compression"
config GZIP
    bool "gzip"
config XZ
    bool "xz"
endchoice
config AFTER
    bool 'After'
"""


@pytest.fixture
def options(tmp_path: Path) -> dict[str, list[kconfig.Option]]:
    (tmp_path / "Kconfig").write_text(KCONFIG)
    return kconfig.read_tree(str(tmp_path))


Options = dict[str, list[kconfig.Option]]


def why(options: Options, config: str, asked: str, symbol: str) -> list[str]:
    requests = configuration.merged([("mine.config", asked)])
    basis = configuration.merged([("tiny.config", "CONFIG_XZ=y\n")])
    explained = Configuration(configuration.read(config), requests, options, basis)
    return [
        f"{each.symbol[7:]}={each.value}: {each.why} [{each.source}]" for each in explained.chain(f"CONFIG_{symbol}")
    ]


ON = "CONFIG_NET=y\nCONFIG_INET=y\nCONFIG_CRC=y\nCONFIG_HASH=y\nCONFIG_X86=y\nCONFIG_64BIT=y\nCONFIG_ARCH_HAS_IT=y\n"
ASKED = "CONFIG_64BIT=y\n\nCONFIG_INET=y\n# CONFIG_GZIP is not set\n"


@pytest.mark.parametrize(
    ("config", "symbol", "said"),
    [
        (ON, "INET", ["INET=y: asked for [mine.config:3]"]),
        (ON, "CRC", ["CRC=y: selected by CONFIG_INET [Kconfig:10]", "INET=y: asked for [mine.config:3]"]),
        (ON, "NET", ["NET=y: by default (y if X86 && 64BIT) [Kconfig:1]"]),
        (
            ON,
            "ARCH_HAS_IT",
            ["ARCH_HAS_IT=y: selected by CONFIG_X86 [Kconfig:23]", "X86=y: by default (y) [Kconfig:23]"],
        ),
        (ON, "GZIP", ["GZIP=n: asked to be off [mine.config:4]"]),
        (ON + "CONFIG_XZ=y\n", "XZ", ["XZ=y: asked for by the kernel's own tinyconfig [tiny.config:1]"]),
        (ON, "XZ", ["XZ=n: the choice 'Compression' has another answer [Kconfig:45]"]),
        (ON, "MUTE", ["MUTE=n: can be asked for only with EXPERT [Kconfig:33]"]),
        (ON, "AFTER", ["AFTER=n: nothing asks for it; all that it needs is there [Kconfig:48]"]),
        (ON, "NOTHING", ["NOTHING=n: this kernel has no such option []"]),
        ("CONFIG_X86=y\n", "HASH", ["HASH=n: nothing that is on selects it; these would: CONFIG_INET [Kconfig:20]"]),
        ("CONFIG_SMALL=y\n" + ON, "CRC", ["CRC=y: as the kernel's own tools left it []"]),
    ],
)
def test_each_option_has_its_reason(options: Options, config: str, symbol: str, said: list[str]) -> None:
    assert why(options, config, ASKED, symbol) == said


def test_what_keeps_an_option_off_is_followed_to_what_nobody_asked_for(options: Options) -> None:
    assert why(options, "CONFIG_EXPERT=y\n", "", "INET") == [
        "INET=n: needs NET [Kconfig:10]",
        "NET=n: nothing asks for it; all that it needs is there [Kconfig:1]",
    ]


def test_options_that_select_one_another_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text("config A\n\tbool\n\tselect B\nconfig B\n\tbool\n\tselect A\n")
    said = why(kconfig.read_tree(str(tmp_path)), "CONFIG_A=y\nCONFIG_B=y\n", "", "A")
    assert [line.partition("=")[0] for line in said] == ["A", "B"]


def test_all_that_an_option_says_of_itself_is_read(options: Options) -> None:
    net, inet = options["CONFIG_NET"][0], options["CONFIG_INET"][0]
    assert net.help == "What it is.\n\n  Indented.\nEnd."
    assert net.shown == "EXPERT || $(cc-option,-m if x)" and net.defaults == (Clause("y", "X86 && 64BIT"),)
    assert inet.selects == (Clause("CONFIG_CRC", "!SMALL"), Clause("CONFIG_HASH", ""))
    assert inet.implies == (Clause("CONFIG_TLS", ""),)
    assert [options[f"CONFIG_{name}"][0].choice for name in ("GZIP", "XZ", "AFTER")] == ["Compression"] * 2 + [""]
    assert options["CONFIG_MUTE"][0].conditions == ("NET ||  X86",)


def test_conditions_are_understood_as_far_as_they_can_be_told() -> None:
    values = {"CONFIG_A": "y", "CONFIG_B": "m", "CONFIG_N": "5"}
    assert holds("", values) and holds("A && B && N >= 5 && $(anything)", values)
    assert failing_parts("A && !B && (C || D)", values) == ["!B", "(C || D)"]
    assert [only_symbol(part) for part in ("C", "!C", "C || D", "N > 6")] == ["CONFIG_C", "", "", ""]
    assert split_condition('"a if b" if C') == ('"a if b"', "C")
    assert split_condition("$(success,x if y)") == ("$(success,x if y)", "")
    assert split_condition("notify") == ("notify", "") and split_condition(" if X") == ("", "X")


MAKEFILES = {
    "Kbuild": "obj-y += fs/\nobj-$(CONFIG_NET) += net/\nobj-y += arch/$(SRCARCH)/\n",
    "fs/Makefile": "obj-y := open.o \\\n\tread.o\nobj-$(CONFIG_EXT4) += ext4/\n# obj-$(CONFIG_NO) += open.o\n",
    "fs/ext4/Makefile": "obj-$(CONFIG_EXT4)\t+= ext4.o\next4-y := super.o\next4-$(CONFIG_ACL) += acl.o\n",
    "net/Makefile": "obj-$(CONFIG_A) += both.o\nobj-$(CONFIG_B) += both.o\nifeq ($(CONFIG_INET),y)\nobj-y += tcp.o\n"
    "else\nobj-y += stub.o\nendif\nobj-$(CONFIG_A) += deep/low.o\nifdef CONFIG_B\nobj-$(CONFIG_A) += last.o\nendif\n",
    "arch/x86/Makefile": "obj-$(subst m,y,$(CONFIG_HV)) += hv.o\nlib-y += copy.o\nself-y += self.o\n",
}


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("fs/read.o", ()),
        ("fs/ext4/super.o", (("EXT4",),)),
        ("fs/ext4/acl.o", (("EXT4",), ("ACL",))),
        ("net/both.o", (("NET",), ("A", "B"))),
        ("net/tcp.o", (("NET",), ("INET",))),
        ("net/stub.o", (("NET",),)),
        ("net/deep/low.o", (("NET",), ("A",))),
        ("net/last.o", (("NET",), ("B",), ("A",))),
        ("net/unknown.o", (("NET",),)),
        ("arch/x86/hv.o", (("HV",),)),
        ("arch/x86/copy.o", ()),
        ("arch/x86/self.o", ()),
        ("init/nobody.o", ()),
    ],
)
def test_makefiles_say_which_options_an_object_is_for(tmp_path: Path, path: str, needs: kbuild.Needs) -> None:
    for name, text in MAKEFILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    values = {f"CONFIG_{name}": "y" for name in ("NET", "EXT4", "ACL", "A", "B", "INET", "HV")}
    found = kbuild.Tree(str(tmp_path), values).needs([path])[path]
    assert found == tuple(tuple(f"CONFIG_{name}" for name in group) for group in needs)


def test_without_an_option_only_what_nothing_else_asks_for_is_lost() -> None:
    needs: dict[str, kbuild.Needs] = {
        "a.o": (("N",), ("A",)),
        "ab.o": (("N",), ("A", "B")),
        "n.o": (("N",),),
        "o.o": (),
    }
    assert kbuild.lost_without("A", needs, {"N": "y", "A": "y", "B": "y"}) == ["a.o"]
    assert kbuild.lost_without("A", needs, {"N": "y", "A": "y"}) == ["a.o", "ab.o"]
    assert kbuild.lost_without("N", needs, {"N": "y", "A": "y"}) == ["a.o", "ab.o", "n.o"]
