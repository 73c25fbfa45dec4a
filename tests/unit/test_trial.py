"""A machine for one trial: how QEMU is called, and what is made of what it reports."""

from __future__ import annotations

from swiftlet.guest import qemu, trial

SEEN = b"started\nexited 3\n"


def settings(**changed: str) -> qemu.Settings:
    return trial._settings(trial.Trial("/k/vmlinux", ("/i/0", "/i/1"), "", **changed))  # type: ignore[arg-type]


def test_its_network_is_qemus_own_and_only_what_is_checked_is_reached() -> None:
    words = trial.argv(settings(), {8080: 40001}, "")
    assert "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:40001-:8080" in words
    assert f"virtio-net-device,netdev=net,mac={qemu.CARD}" in words and "-d" not in words


def test_code_is_logged_where_it_is_asked_for_and_has_fixed_addresses() -> None:
    words = trial.argv(settings(trace="/t/log", words="initcall_debug"), {}, "/t/log")
    assert words[-4:] == ["-d", "in_asm", "-D", "/t/log"]
    assert " nokaslr initcall_debug " in words[words.index("-append") + 1]
    assert " quiet " in " ".join(trial.argv(settings(), {}, ""))


def test_reports_are_taken_however_they_are_cut() -> None:
    for size in range(1, len(SEEN)):
        seen = trial._Seen()
        for start in range(0, len(SEEN), size):
            seen.take(SEEN[start : start + size], 7.0)
        assert (seen.started_ms, seen.started, seen.code, seen.closed) == (7.0, True, 3, False)
        seen.take(b"", 9.0)
        assert seen.closed


def test_what_a_guest_invents_is_no_report() -> None:
    seen = trial._Seen()
    seen.take(b"exited \xff\nexited -1\nfailed \nnonsense\n" + b"x" * (2 << 20), 1.0)
    assert seen.code is None and not seen.started and len(seen._line) <= trial._MOST_KEPT
