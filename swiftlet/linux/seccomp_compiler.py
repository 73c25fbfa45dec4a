"""System call filters: a profile as a value, compiled to a small classic BPF program.

What is allowed is said in `guest.seccomp_profile`; `linux.seccomp` loads the program. The compiler is ours and not
libseccomp's because every start of a guest pays for the program's length: the kernel copies, checks and translates
it, and runs it once for each number to learn which are always allowed (those then skip the program). Neighbouring
numbers with one verdict become one range, and the ranges one balanced tree of comparisons. On one machine, loading
the default profile took 40 us more than loading an empty one; libseccomp's program of the same rules 160 us, and
300 us with the 32-bit calls that docker adds. The tests compare both programs for every number.

Only the calling convention of 64-bit programs exists for a guest: a 32-bit call ends the process with SIGSYS, an x32
number is unknown. See seccomp(2) and the kernel's Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

_AUDIT_ARCH_X86_64 = 0xC000003E
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_MAX_INSTRUCTIONS = 4096

_LOAD, _RETURN, _JUMP = 0x20, 0x06, 0x05  # BPF_LD|W|ABS, BPF_RET|K, BPF_JMP|JA
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | JEQ, JGE, JSET
_REACH = 255
"""Instructions that a conditional jump can skip."""


def refuse(code: int) -> int:
    """The action of failing with errno `code`."""
    return _ERRNO | code


class Condition(NamedTuple):
    """A test of argument 0..5: `==`, `!=`, or `&` (no bit of `value` is set).

    Only the low 32 bits are looked at, since the kernel looks at no more of an int: a comparison of all 64 could be
    passed by setting a high bit that the kernel then ignores.
    """

    argument: int
    test: str
    value: int


class Rule(NamedTuple):
    """`action` for a system call whose arguments meet all conditions."""

    action: int
    conditions: tuple[Condition, ...] = ()


class Profile(NamedTuple):
    """rules: number -> its rules, the first that holds decides, else `refused`. Numbers without a rule: `unknown`."""

    rules: dict[int, tuple[Rule, ...]]
    refused: int = refuse(errno.EPERM)
    unknown: int = refuse(errno.ENOSYS)


def compile_profile(profile: Profile) -> bytes:
    """The profile as an array of struct sock_filter. Raises ValueError when it grows too long for the kernel."""
    program = _Program()
    starts = _ranges(profile)
    program.enter(_tree(program, profile, starts))
    code = program.code()
    if len(code) // 8 > _MAX_INSTRUCTIONS:
        raise ValueError(f"a seccomp program of {len(code) // 8} instructions")
    return code


_Verdict = tuple[Rule, ...]


def _ranges(profile: Profile) -> list[tuple[int, _Verdict]]:
    """(first number, verdict), ascending; each range ends where the next begins, the last one never."""
    unknown: _Verdict = (Rule(profile.unknown),)
    ranges: list[tuple[int, _Verdict]] = []
    for number in range(max(profile.rules, default=0) + 2):
        verdict = profile.rules.get(number, unknown) or (Rule(profile.refused),)
        if not ranges or ranges[-1][1] != verdict:
            ranges.append((number, verdict))
    return ranges


def _tree(program: _Program, profile: Profile, ranges: list[tuple[int, _Verdict]]) -> int:
    """Emit the search for the number among the ranges; the place of its first instruction."""
    if len(ranges) == 1:
        return _leaf(program, profile, ranges[0][1])
    middle = len(ranges) // 2
    above = _tree(program, profile, ranges[middle:])
    below = _tree(program, profile, ranges[:middle])
    return program.branch(_IF_AT_LEAST, ranges[middle][0], above, below)


def _leaf(program: _Program, profile: Profile, rules: _Verdict) -> int:
    place = -1
    if rules[-1].conditions:
        place = program.give(profile.refused)
    for rule in reversed(rules):
        otherwise = place
        place = program.give(rule.action)
        for condition in reversed(rule.conditions):
            place = _condition(program, condition, place, otherwise)
    return place


def _condition(program: _Program, condition: Condition, holds: int, fails: int) -> int:
    if condition.test == "==":
        program.branch(_IF_EQUAL, condition.value, holds, fails)
    elif condition.test == "!=":
        program.branch(_IF_EQUAL, condition.value, fails, holds)
    elif condition.test == "&":
        program.branch(_IF_ANY_BIT, condition.value, fails, holds)
    else:
        raise ValueError(f"unknown test {condition.test!r}")
    return program.load(_ARGUMENTS + 8 * condition.argument)


class _Program:
    """A program written from its end to its beginning, so that every jump's target is known when it is written.

    Places count instructions from the end.
    """

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def _emit(self, code: int, value: int, when_true: int = 0, when_false: int = 0) -> int:
        self._reversed.append((code, when_true, when_false, value))
        return len(self._reversed) - 1

    def _distance(self, place: int) -> int:
        return len(self._reversed) - place - 1

    def _near(self, place: int) -> int:
        """`place`, or a jump to it when a branch written soon could not reach it."""
        if self._distance(place) < _REACH - 2:
            return place
        return self._emit(_JUMP, self._distance(place))

    def give(self, action: int) -> int:
        """The place of an instruction that ends with `action`; one serves all that can reach it."""
        place = self._returns.get(action)
        if place is None or self._distance(place) > _REACH // 2:
            place = self._returns[action] = self._emit(_RETURN, action)
        return place

    def load(self, offset: int) -> int:
        """Load a word of seccomp_data, then go on with the instruction written last."""
        return self._emit(_LOAD, offset)

    def branch(self, code: int, value: int, when_true: int, when_false: int) -> int:
        """Compare what was loaded last and go to one of two places."""
        when_true, when_false = self._near(when_true), self._near(when_false)
        return self._emit(code, value, self._distance(when_true), self._distance(when_false))

    def enter(self, root: int) -> None:
        """What runs first: programs of another calling convention are killed, then the number is looked up."""
        if self._distance(root):
            self._emit(_JUMP, self._distance(root))
        start = self.load(_NUMBER)
        kill = self._emit(_RETURN, KILL_PROCESS)
        self.branch(_IF_EQUAL, _AUDIT_ARCH_X86_64, start, kill)
        self.load(_ARCHITECTURE)

    def code(self) -> bytes:
        """The instructions, first to last."""
        return b"".join(struct.pack("<HBBI", *instruction) for instruction in reversed(self._reversed))
