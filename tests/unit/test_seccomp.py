"""The compiled filter decides as its profile says, for every number; and as libseccomp's program of the same rules."""

import ctypes
import errno
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlet.guest import seccomp_profile
from swiftlet.guest.seccomp_profile import ALLOWED, BY_CAPABILITY, NAMESPACES, profile_for, program_file, program_for
from swiftlet.linux import capability
from swiftlet.linux.seccomp import Filter
from swiftlet.linux.seccomp_compiler import ALLOW, KILL_PROCESS, Condition, Profile, Rule, compile_profile, refuse
from swiftlet.linux.syscall_table import NUMBERS

X86_64, I386 = 0xC000003E, 0x40000003
EPERM, ENOSYS = refuse(errno.EPERM), refuse(errno.ENOSYS)
ARGUMENTS = [0, 1, 2, 8, 17, 40, 0x20000, 0x20008, 0x40000, 0x10000000, 0x50F00, 0xFFFFFFFF, NAMESPACES, 1 << 31]


def run(program, number, first=0, architecture=X86_64):
    """What a filter answers: a machine for the six instructions that ours and libseccomp's are made of."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, first, *[0] * 5)
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = place = 0
    while True:
        code, when_true, when_false, value = instructions[place]
        place += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x05:
            place += value
        elif code == 0x54:
            accumulator &= value
        else:
            tests = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}
            holds = {**tests, 0x45: bool(accumulator & value)}[code]
            place += when_true if holds else when_false


def expected(profile, number, first):
    """The profile's meaning, said as plainly as possible."""
    if number not in profile.rules:
        return profile.unknown
    for rule in profile.rules[number]:
        tests = {
            "==": lambda condition: first & 0xFFFFFFFF == condition.value,
            "!=": lambda condition: first & 0xFFFFFFFF != condition.value,
            "&": lambda condition: not first & condition.value,
        }
        if all(tests[condition.test](condition) for condition in rule.conditions):
            return rule.action
    return profile.refused


def verdict(name, first=0, capabilities=capability.DEFAULT):
    return run(program_for(frozenset(capabilities)), NUMBERS[name], first)


@pytest.mark.parametrize(
    "capabilities", [capability.DEFAULT, frozenset(), capability.ALL], ids=["default", "none", "all"]
)
def test_the_program_means_what_the_profile_says(capabilities):
    profile, program = profile_for(capabilities), program_for(capabilities)
    for number in [*range(600), 1 << 30, (1 << 30) + 1, 0xFFFFFFFF]:
        for first in ARGUMENTS:
            assert run(program, number, first) == expected(profile, number, first), (number, first)


actions = st.sampled_from([ALLOW, *(refuse(code) for code in range(1, 40))])
conditions = st.builds(Condition, st.just(0), st.sampled_from(["==", "!=", "&"]), st.sampled_from(ARGUMENTS))
rules = st.builds(Rule, actions, st.lists(conditions, max_size=3).map(tuple))
profiles = st.builds(
    Profile,
    st.dictionaries(st.integers(0, 700), st.lists(rules, max_size=3).map(tuple), max_size=300),
    actions,
    actions,
)


@settings(max_examples=60, deadline=None)
@given(profiles)
def test_any_profile_is_compiled_to_what_it_means(profile):
    program = compile_profile(profile)
    for number in [*profile.rules, *(number + 1 for number in profile.rules), 0, 699, 5000]:
        for first in ARGUMENTS[:8]:
            assert run(program, number, first) == expected(profile, number, first)


def test_jumps_longer_than_a_branch_can_reach_are_right():
    profile = Profile({number: (Rule(refuse(number % 97)),) for number in range(1500)})
    program = compile_profile(profile)
    assert len(program) // 8 > 2000
    for number in range(1502):
        assert run(program, number) == expected(profile, number, 0)


def test_a_program_too_long_for_the_kernel_is_refused():
    with pytest.raises(ValueError, match="instructions"):
        compile_profile(Profile({number: (Rule(refuse(number % 97)),) for number in range(4000)}))


def test_an_unknown_test_is_refused():
    with pytest.raises(ValueError, match="unknown test '<'"):
        compile_profile(Profile({1: (Rule(ALLOW, (Condition(0, "<", 1),)),)}))


def test_another_calling_convention_is_killed():
    assert run(program_for(capability.DEFAULT), NUMBERS["read"], architecture=I386) == KILL_PROCESS
    assert run(program_for(capability.DEFAULT), 1 << 30 | NUMBERS["read"]) == ENOSYS


def test_a_high_bit_that_the_kernel_ignores_does_not_open_the_way():
    assert verdict("socket", 1 << 32 | 40) == EPERM
    assert verdict("clone", 1 << 40 | 0x10000000) == EPERM


@pytest.mark.parametrize("purpose", ALLOWED)
def test_every_group_is_of_known_calls_and_allowed_without_capabilities(purpose):
    for name in ALLOWED[purpose].split():
        assert verdict(name, capabilities=()) == ALLOW, name


def test_no_call_is_in_two_groups():
    names = [name for group in ALLOWED.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert not set(names) & {name for group in BY_CAPABILITY.values() for name in group.split()}


REFUSED = """mount umount2 pivot_root unshare setns bpf perf_event_open keyctl add_key request_key userfaultfd
    io_uring_setup io_uring_enter io_uring_register kexec_load kexec_file_load init_module finit_module delete_module
    open_by_handle_at swapon swapoff reboot settimeofday clock_settime acct quotactl syslog iopl ioperm sethostname
    fsopen fsmount move_mount open_tree mount_setattr open_tree_attr kcmp pidfd_getfd fanotify_init vhangup"""


@pytest.mark.parametrize("name", REFUSED.split())
def test_dangerous_calls_are_refused(name):
    assert verdict(name) == EPERM


@pytest.mark.parametrize("name", BY_CAPABILITY)
def test_a_capability_opens_its_calls_and_no_others(name):
    number = capability.number_of(name)
    before, after = profile_for(frozenset()), profile_for(frozenset((number,)))
    changed = {call for call in NUMBERS if before.rules[NUMBERS[call]] != after.rules[NUMBERS[call]]}
    assert changed == set(BY_CAPABILITY[name].split())
    for call in changed:
        assert verdict(call, NAMESPACES, capabilities=(number,)) == ALLOW


def test_calls_with_conditions():
    assert verdict("clone", 0x3D0F00) == ALLOW  # what pthread_create asks for
    assert verdict("clone", 17) == ALLOW
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict("clone", bit | 17) == EPERM
    assert verdict("clone3") == ENOSYS
    assert [verdict("socket", family) for family in (1, 2, 10, 16, 40)] == [ALLOW, ALLOW, ALLOW, ALLOW, EPERM]
    assert verdict("personality", 0xFFFFFFFF) == ALLOW
    assert verdict("personality", 0x40000) == EPERM  # ADDR_NO_RANDOMIZE
    assert verdict("chroot") == ALLOW
    assert verdict("chroot", capabilities=()) == EPERM


def test_numbers_that_nobody_knows_are_not_there():
    for number in (400, max(NUMBERS.values()) + 1, 1000, 0xFFFFFFFF):
        assert run(program_for(capability.DEFAULT), number) == ENOSYS


def test_the_program_is_short():
    assert len(program_for(capability.DEFAULT)) // 8 < 100


def test_names_have_the_numbers_that_libseccomp_gives_them(library):
    known = {name: library.seccomp_syscall_resolve_name_arch(X86_64, name.encode()) for name in NUMBERS}
    assert sum(number >= 0 for number in known.values()) > 350
    assert {name: NUMBERS[name] for name, number in known.items() if number >= 0} == {
        name: number for name, number in known.items() if number >= 0
    }


def test_libseccomp_compiles_the_same_rules_to_the_same_decisions(library):
    profile = profile_for(capability.DEFAULT)
    known = {name for name in NUMBERS if library.seccomp_syscall_resolve_name_arch(X86_64, name.encode()) >= 0}
    reference = libseccomp_program(library, {NUMBERS[name]: profile.rules[NUMBERS[name]] for name in known})
    ours = compile_profile(profile)
    for name in known:
        for first in ARGUMENTS:
            assert run(ours, NUMBERS[name], first) == run(reference, NUMBERS[name], first), (name, first)


@pytest.fixture(scope="module")
def library():
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    found.seccomp_init.restype = ctypes.c_void_p
    return found


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("test", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def libseccomp_program(library, rules_by_number):
    context = ctypes.c_void_p(library.seccomp_init(EPERM))
    try:
        for number, number_rules in rules_by_number.items():
            for rule in number_rules:
                comparisons = [_comparison(condition) for condition in rule.conditions]
                array = (_Comparison * max(1, len(comparisons)))(*comparisons)
                assert library.seccomp_rule_add_array(context, rule.action, number, len(comparisons), array) == 0
        file = os.memfd_create("program")
        assert library.seccomp_export_bpf(context, file) == 0
        program = os.pread(file, 1 << 20, 0)
        os.close(file)
    finally:
        library.seccomp_release(context)
    return program


def _comparison(condition):
    if condition.test == "&":
        return _Comparison(condition.argument, 7, condition.value, 0)
    return _Comparison(condition.argument, {"!=": 1, "==": 4}[condition.test], condition.value, 0)


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_program_file_is_whole_reused_and_repaired(tmp_path):
    path = program_file(capability.DEFAULT, str(tmp_path))
    program = program_for(capability.DEFAULT)
    assert content(path) == program
    before = os.stat(path).st_mtime_ns
    assert program_file(capability.DEFAULT, str(tmp_path)) == path
    assert os.stat(path).st_mtime_ns == before
    with open(path, "wb") as file:
        file.write(program[:40])
    assert program_file(capability.DEFAULT, str(tmp_path)) == path
    assert content(path) == program
    assert os.listdir(tmp_path / "seccomp") == [os.path.basename(path)]
    assert program_file(capability.ALL, str(tmp_path)) != path


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "seccomp").write_text("in the way")
    with pytest.raises(OSError, match="seccomp"):
        program_file(capability.DEFAULT, str(tmp_path))


@pytest.mark.parametrize("program", [b"", b"1234567"])
def test_bytes_that_are_no_program_are_refused(program):
    with pytest.raises(OSError, match="no whole instructions"):
        Filter(program)


def test_every_capability_of_the_profile_exists():
    assert set(seccomp_profile.BY_CAPABILITY) <= set(capability.NAMES)
