"""A derivation from trace to result, on a tree of a few lines that real tools configure and compile in a second.

What the checks do is played here: which functions run, and which options it takes for them to pass.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from swiftlet.image.kernel import configuration, initcalls, kept, trim
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.derived import read
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.kernel.source import Source, source_at
from swiftlet.image.kernel.trim import Checked
from swiftlet.model.error import InputError, KernelError

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
EXTRAVERSION = -tiny
FILES = $(shell cd $(O) && sh $(CURDIR)/scripts/files.sh .config)

tinyconfig:
	@echo 'CONFIG_TINY=y' > $(O)/.config
olddefconfig:
	@sh scripts/settle.sh $(O)/.config
vmlinux:
	@mkdir -p $(O)/init $(O)/net
	@for file in $(FILES); do \\
		$(CC) -O1 -ffreestanding -fno-pic -mcmodel=kernel $(KCFLAGS) -include $(O)/.config.h \\
			-c $(CURDIR)/$$file.c -o $(O)/$$file.o || exit 1; done
	@cd $(O) && rm -f vmlinux.a && ar rcT vmlinux.a $(FILES:=.o)
	@cd $(O) && ld -e start -Ttext=0xffffffff81000000 \\
		--unresolved-symbols=ignore-all -o vmlinux $(FILES:=.o)
	@nm $(O)/vmlinux | grep -v ' U ' > $(O)/System.map
bzImage: vmlinux
	@mkdir -p $(O)/arch/x86/boot
	@cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage
"""

KCONFIG = """\
config TINY
	bool

config NET
	bool "Networking"

config EXTRA
	bool "Extra"
	default y

config QUIET
	bool "Quiet"

config LOUD
	bool "Loud"

config BEGUN
	bool "Begun"
	depends on NET

config GUARD
	bool "Guard"
"""

NET = """\
int x;
void begin_net(void)
{
#ifdef CONFIG_BEGUN
	x = 1;
#endif
}
void run_net(void)
{
	x = 2;
}
"""

SETTLE = """\
grep -q EXTRA $1 || echo CONFIG_EXTRA=y >> $1
grep -q '^CONFIG_NET=y' $1 || sed -i '/^CONFIG_BEGUN=y/d' $1
sed -n 's/^\\(CONFIG_[A-Z]*\\)=y$/#define \\1 1/p' $1 > $1.h
"""

LINKED = """\
echo init/main
grep -q EXTRA=y $1 && echo init/extra
grep -q NET=y $1 && echo net/net
true
"""

FILES = {
    "Makefile": MAKEFILE,
    "Kconfig": KCONFIG,
    "Kbuild": "obj-y += init/\nobj-$(CONFIG_NET) += net/\n",
    "init/Makefile": "obj-y := main.o\nobj-$(CONFIG_EXTRA) += extra.o\n",
    "init/main.c": "void _sinittext(void) {}\nvoid _einittext(void) {}\nvoid start(void) {}\n",
    "init/extra.c": "void extra(void) {}\n",
    "net/Makefile": "obj-y := net.o\n",
    "net/net.c": NET,
    "scripts/files.sh": LINKED,
    "scripts/settle.sh": SETTLE,
    "scripts/kconfig/merge_config.sh": '#!/bin/sh\ncat "$4" "$5" > "$3/merged" && mv "$3/merged" "$3/.config"\n',
}

CONSOLE = "[    0.1] initcall begin_net+0x0/0x7 returned 0 after 1500 usecs\n"

START = "".join(f"CONFIG_{name}=y\n" for name in ("NET", "EXTRA", "QUIET", "LOUD", "BEGUN", "GUARD"))


def asked(text: str) -> list[Wanted]:
    return configuration.read_fragment(text, "mine.config")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for name, text in FILES.items():
        path = tmp_path / "linux" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return source_at(str(tmp_path / "linux"), str(tmp_path / "cache"))


class Checks:
    """Pass with NET and QUIET, which has no code; on a trace the network runs. dies_at: calls that never end."""

    def __init__(self, *dies_at: int, needs: tuple[str, ...] = ("NET", "QUIET")) -> None:
        self.calls = 0
        self.dies_at = dies_at
        self.needs = {f"CONFIG_{name}" for name in needs}

    def __call__(self, kernel: Kernel, *, trace: str = "", words: str = "") -> Checked:
        if words == initcalls.WORDS:
            return Checked(True, "", 12.5, CONSOLE)
        self.calls += 1
        if trace:
            _write_trace(kernel, f"{trace}/0.log")
        if self.calls in self.dies_at:
            raise KeyboardInterrupt
        missing = self.needs - kept.values_of(kernel).keys()
        return Checked(not missing, ", ".join(missing), 12.5)


def _write_trace(kernel: Kernel, log: str) -> None:
    shown = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", f"{kernel.folder}/{kept.LINES}"],
        check=True, capture_output=True, text=True,
    ).stdout.split("\n\n")  # fmt: skip
    ran = [block for block in shown if "<start>:" in block or "_net>:" in block]
    lines = [
        f"0x{line.strip()}"
        for block in ran
        for line in block.splitlines()
        if line.startswith("ffffffff8") and "\t" in line
    ]
    Path(log).write_text("IN:\n" + "\n".join(lines) + "\n")


def derived(source: Source, tmp_path: Path, check: trim.Check, budget: int = 20, about: str = "") -> trim.Result:
    return trim.trim(
        source, asked(START), asked("CONFIG_GUARD=y\n"), check, str(tmp_path / "cache"), str(tmp_path / "state"),
        budget=budget, about=about,
    )  # fmt: skip


def on(result: trim.Result) -> set[str]:
    return {each.symbol.removeprefix("CONFIG_") for each in result.options}


def test_a_kernel_has_what_ran_what_the_checks_need_and_what_is_kept(source: Source, tmp_path: Path) -> None:
    result = derived(source, tmp_path, Checks())
    assert on(result) == {"TINY", "NET", "QUIET", "GUARD"} and result.complete
    assert kept.values_of(result.kernel).keys() == {f"CONFIG_{name}" for name in on(result)}
    by_symbol = {each.symbol: each for each in result.options}
    assert (
        by_symbol["CONFIG_NET"].place.startswith("net/net.c:")
        and by_symbol["CONFIG_NET"].why == "ran before the first process"
    )
    assert (by_symbol["CONFIG_NET"].bytes or 0) > 0 and by_symbol["CONFIG_NET"].milliseconds == 1.5
    assert by_symbol["CONFIG_QUIET"].why == "the checks fail without it"
    assert by_symbol["CONFIG_GUARD"].why == "kept whatever runs"


def test_what_is_gone_names_a_run_that_passed_without_it(source: Source, tmp_path: Path) -> None:
    result = derived(source, tmp_path, Checks())
    gone = {each.symbol: each for each in result.dropped}
    assert gone.keys() == {"CONFIG_EXTRA", "CONFIG_LOUD", "CONFIG_BEGUN"}
    for each in gone.values():
        assert result.runs[each.run].passed and each.symbol in result.runs[each.run].off
    assert (gone["CONFIG_EXTRA"].bytes or 0) > 0
    again = configuration.read_fragment((tmp_path / "state/derived.config").read_text(), "derived.config")
    assert {each.symbol for each in again if each.value == "y"} >= {"CONFIG_NET", "CONFIG_QUIET"}


def test_only_the_full_kernel_and_the_result_are_left(source: Source, tmp_path: Path) -> None:
    result = derived(source, tmp_path, Checks())
    left = {kernel.digest for kernel in kept.kernels_of(str(tmp_path / "cache"))}
    assert left == {result.full.digest, result.kernel.digest}
    assert [kernel.digest for kernel in kept.listed(str(tmp_path / "cache"))] == [result.kernel.digest]
    assert kept.kernel_named(str(tmp_path / "cache"), "derived").digest == result.kernel.digest


def test_a_kernel_gets_its_name_when_its_evidence_is_there(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trim, "save", die)
        derived(source, tmp_path, Checks())
    assert kept.kernels_of(str(tmp_path / "cache")) and kept.listed(str(tmp_path / "cache")) == []
    result = derived(source, tmp_path, Checks())
    assert kept.listed(str(tmp_path / "cache")) == [result.kernel] and kept.general(str(tmp_path / "cache")) == []
    saved = read(result.kernel)
    assert saved is not None and saved["name"] == "derived" and result.kernel.name == "derived"


def test_a_derivation_that_is_killed_goes_on_where_it_was(source: Source, tmp_path: Path) -> None:
    whole = derived(source, tmp_path / "whole", Checks())
    deaths = 0
    asked_for = 0
    for _ in range(len(whole.runs)):
        checks = Checks(2)  # one more answer, then death
        try:
            result = derived(source, tmp_path, checks)
        except KeyboardInterrupt:
            deaths += 1
        asked_for += checks.calls
    assert deaths == len(whole.runs) - 1 and asked_for == len(whole.runs) + deaths
    assert on(result) == on(whole) and [run.what for run in result.runs] == [run.what for run in whole.runs]


def test_the_budget_bounds_the_kernels_and_what_passed_is_given(source: Source, tmp_path: Path) -> None:
    whole = len(derived(source, tmp_path / "whole", Checks()).runs)
    checks = Checks()
    result = derived(source, tmp_path, checks, budget=whole - 1)
    assert checks.calls == whole - 1 and not result.complete
    assert on(result) >= {"NET", "QUIET"}
    assert derived(source, tmp_path, Checks(), budget=whole).complete  # a larger one goes on


def test_a_budget_too_small_for_any_kernel_says_so(source: Source, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="no derived kernel has passed"):
        derived(source, tmp_path, Checks(), budget=1)


def test_checks_that_fail_on_the_full_kernel_are_told(source: Source, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="fail on the full kernel: CONFIG_WINGS"):
        derived(source, tmp_path, Checks(needs=("WINGS",)))


def test_the_state_of_other_checks_is_not_taken_up(source: Source, tmp_path: Path) -> None:
    derived(source, tmp_path, Checks())
    with pytest.raises(InputError, match="another derivation"):
        derived(source, tmp_path, Checks(), about="others")
