"""Capability names, and docker's arithmetic of --cap-add and --cap-drop."""

import pytest

from swiftlet.linux.capability import ALL, DEFAULT, NAMES, kept, number_of


def test_names_have_the_kernels_numbers():
    assert (number_of("CHOWN"), number_of("CAP_SYS_ADMIN"), number_of("cap_net_admin")) == (0, 21, 12)
    assert (number_of("SETFCAP"), number_of("BPF"), number_of("CHECKPOINT_RESTORE")) == (31, 39, 40)
    assert len(NAMES) == len(set(NAMES)) == 41


def test_defaults_are_dockers_fourteen():
    assert {NAMES[number] for number in DEFAULT} == {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }


def test_adding_and_dropping():
    assert kept() == DEFAULT
    assert kept(("SYS_TIME",)) == DEFAULT | {25}
    assert kept((), ("MKNOD", "CAP_CHOWN")) == DEFAULT - {27, 0}
    assert kept(("ALL",)) == ALL
    assert kept((), ("all",)) == frozenset()
    assert kept(("NET_BIND_SERVICE",), ("ALL",)) == {10}
    assert kept(("ALL",), ("SYS_ADMIN",)) == ALL - {21}


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no such capability: CAP_ROOT"):
        kept(("CAP_ROOT",))
