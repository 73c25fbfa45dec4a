"""What a boot profile makes of two recordings: marks, times without pauses, initcalls, ranks, stacks, its figure."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import msgspec
import pytest

from swiftlet.cli import boot, bootfigure, drawing
from swiftlet.guest import qemu
from swiftlet.image.kernel.initcalls import Initcall
from swiftlet.image.kernel.printk import Record
from swiftlet.model.error import HostError, InputError
from swiftlet.model.workload import Port, Workload
from swiftlet.node import bootreport
from swiftlet.node.bootprofile import throw_away
from swiftlet.node.bootreport import Named, Origin
from swiftlet.node.bootwatch import Look, Recording

MS = 1_000_000
T0 = 1_795_259_327_000_000_000


def plain() -> Recording:
    seen = Recording()
    names = ("generating", "generated", "launched", "qemu", "monitor", "running", "ready")
    seen.moments = {name: T0 + 10 * number * MS for number, name in enumerate(names)}
    return seen


def watched() -> Recording:
    """One that stood still from 100 to 110 ms and from 200 to 205."""
    seen = Recording()
    seen.moments = {"generating": T0, "qemu": T0 + 30 * MS, "kernel": T0 + 50 * MS, "running": T0 + 305 * MS}
    seen.pause(T0 + 100 * MS, T0 + 110 * MS)
    seen.pause(T0 + 200 * MS, T0 + 205 * MS)
    seen.note_clock(T0 + 150 * MS, 80 * MS)
    seen.note_clock(T0 + 250 * MS, 185 * MS)
    seen.note_clock(T0 + 260 * MS, 0)
    seen.log = [Record(210 * MS, "Run /init as init process")]
    seen.looks = [
        Look(T0 + 60 * MS, 5 * MS, "kernel", (1,)),
        Look(T0 + 90 * MS, 30 * MS, "kernel", (2,)),
        Look(T0 + 150 * MS, 8 * MS, "kernel", (3,)),
        Look(T0 + 250 * MS, 6 * MS, "kernel", (4,)),
        Look(T0 + 310 * MS, 9 * MS, "program", (5,)),
    ]
    return seen


STACKS = {
    1: Named(("kernel", "start_kernel", "setup_arch", "memblock_alloc_try_nid"), "function"),
    2: Named(("kernel", "start_kernel", "setup_arch"), "function"),
    3: Named(("kernel", "kernel_init_freeable", "do_one_initcall", "cpu_stop_init"), "function"),
    4: Named(("kernel", "start_kernel", "rest_init", "cpu_startup_entry", "do_idle", "amd_e400_idle"), "function"),
    5: Named(("programs", "/usr/bin/python3.11", "(unnamed in python3.11)"), "file"),
}

CALLS = [
    Initcall("cpu_stop_init", 90 * MS, 4.0, 0),
    Initcall("virtio_blk_init", 150 * MS, 27.66, 0),
    Initcall("loop_init", 160 * MS, 1.5, 0),
    Initcall("nothing_init", 170 * MS, 0.0, -19),
    Initcall("elsewhere_init", 180 * MS, 2.25, 0),
]
ORIGINS = {
    "virtio_blk_init": Origin("drivers/block/virtio_blk.o", (("CONFIG_BLK_DEV",), ("CONFIG_VIRTIO_BLK",))),
    "loop_init": Origin("drivers/block/loop.o", (("CONFIG_VIRTIO_BLK",),)),
    "cpu_stop_init": Origin("kernel/stop_machine.o", ()),
}


@pytest.fixture
def found() -> dict[str, Any]:
    made = bootreport.report(plain(), watched(), CALLS, ORIGINS, lambda look: STACKS[look.stack[0]], 4.0)
    return {
        "templates": ["python@3.11"],
        "kernel": {"digest": "3a50" * 16, "name": "server", "version": "6.1.192"},
        "machine": {"type": "microvm", "accelerator": "tcg", "processors": 1},
        "stacks_read": True,
        **made,
    }


def test_pauses_are_taken_out_of_what_comes_after_them() -> None:
    seen = watched()
    at = [(seen.unpaused(T0 + ms * MS) - T0) / MS for ms in (90, 100, 104, 110, 150, 203, 300)]
    assert at == [90, 100, 100, 100, 140, 190, 285]
    assert seen.paused_ns == 15 * MS


def test_the_guests_clock_is_placed_by_the_look_that_came_nearest_to_it() -> None:
    assert watched().clock_offset_ns == T0 + 50 * MS


def test_marks_have_both_times_and_how_they_are_known(found: dict[str, Any]) -> None:
    marks = {mark["mark"]: mark for mark in found["marks"]}
    assert marks["QEMU begins"]["ms"] == marks["QEMU begins"]["watched_ms"] == 30
    assert (marks["kernel"]["ms"], marks["kernel"]["watched_ms"]) == (None, 50)
    assert (marks["workload"]["ms"], marks["workload"]["watched_ms"]) == (50, 290)
    assert marks["init"]["watched_ms"] == 260
    assert (marks["service"]["ms"], marks["service"]["watched_ms"]) == (60, None)
    assert [mark["mark"] for mark in found["marks"]][:2] == ["asked", "prepared"]
    assert all(mark["how"] for mark in found["marks"])


def test_phases_lie_between_the_marks_in_their_order(found: dict[str, Any]) -> None:
    assert [phase["phase"] for phase in found["phases"]] == [
        "asked - QEMU begins", "QEMU begins - kernel", "kernel - init", "init - workload",
    ]  # fmt: skip


def test_initcalls_are_ranked_and_a_coarse_clocks_are_replaced_by_what_was_looked_at(found: dict[str, Any]) -> None:
    rows = [(row["name"], row["ms"], row["coarse"]) for row in found["initcalls"]]
    assert rows == [
        ("virtio_blk_init", 27.66, False),
        ("cpu_stop_init", 8.0, True),
        ("elsewhere_init", 2.25, False),
        ("loop_init", 1.5, False),
        ("nothing_init", 0.0, False),
    ]
    assert found["initcalls"][0]["start_ms"] == pytest.approx(200 - 27.66)


def test_what_to_remove_is_by_option_first_and_says_what_has_none(found: dict[str, Any]) -> None:
    rows = [(row["ms"], row["option"], row["calls"], row["known"]) for row in found["removable"]]
    assert rows == [
        (35.0, None, ["setup_arch"], "looks; not an initcall"),
        (29.16, "CONFIG_VIRTIO_BLK", ["virtio_blk_init", "loop_init"], "timed; the option's own objects"),
        (8.0, None, ["cpu_stop_init"], "looks; always built"),
        (2.25, None, ["elsewhere_init"], "timed; its object is not known"),
    ]


def test_stacks_are_told_apart_by_whether_the_workload_had_begun(found: dict[str, Any]) -> None:
    assert [(row["part"], row["ms"], row["frames"][-1]) for row in found["stacks"]] == [
        ("boot", 30.0, "setup_arch"),
        ("workload", 9.0, "(unnamed in python3.11)"),
        ("boot", 8.0, "cpu_stop_init"),
        ("boot", 6.0, "amd_e400_idle"),
        ("boot", 5.0, "memblock_alloc_try_nid"),
    ]
    assert [row[2] for row in found["activity"]] == ["kernel", "kernel", "kernel", "idle", "program"]


def test_what_is_not_resolved_is_counted(found: dict[str, Any]) -> None:
    assert found["looks"] == {"count": 5, "functions": 4, "files": 1, "unknown": 0, "paused_ms": 15.0}


def test_what_looking_costs_is_told_up_to_the_last_mark_that_both_have(found: dict[str, Any]) -> None:
    assert found["cost"] == {"until": "workload", "ms": 20.0, "watched_ms": 275.0, "unpaused_ms": 260.0}


def test_a_report_of_a_machine_that_ended_at_once_is_still_one() -> None:
    made = bootreport.report(Recording(), Recording(), [], {}, lambda look: STACKS[1], 4.0)
    assert made["marks"] == made["stacks"] == made["initcalls"] == []
    assert made["cost"]["until"] is None


def test_the_terminal_shows_every_part(found: dict[str, Any]) -> None:
    text = boot.text_of(found)
    for part in ("QEMU begins", "~8.00", "CONFIG_VIRTIO_BLK", "setup_arch", "80.0% with every function named"):
        assert part in text
    assert "stacks are of one function each" not in text and "no options are known" not in text
    unknown = [{**row, "object": None} for row in found["initcalls"]]
    assert "no options are known" in boot.text_of({**found, "initcalls": unknown})
    assert "no initcalls" in boot.text_of({**found, "initcalls": []})
    assert "stacks are of one function each" in boot.text_of({**found, "stacks_read": False})


def test_the_figure_is_well_formed_and_nothing_lies_outside(found: dict[str, Any], tmp_path) -> None:
    found["stacks"].append({"part": "boot", "frames": ["kernel", "<script>&\x1b"], "ms": 20.0})
    made = bootfigure.figure(found)
    assert all(box.x >= 0 and box.x + box.width <= made.width + 0.5 for box in made.boxes)
    assert all(box.y >= 0 and box.y + box.height <= made.height for box in made.boxes)
    assert all(0 <= words.x <= made.width and 0 <= words.y <= made.height for words in made.words)
    bootfigure.write(found, str(tmp_path / "boot.svg"))
    titles = [each.text or "" for each in ElementTree.parse(tmp_path / "boot.svg").iter() if "title" in each.tag]
    assert any(title.startswith("<script>&?: 20.0 ms") for title in titles)
    assert any(title.startswith("virtio_blk_init 27.66 ms, CONFIG_VIRTIO_BLK") for title in titles)


def test_a_png_is_drawn_too(found: dict[str, Any], tmp_path) -> None:
    bootfigure.write(found, str(tmp_path / "boot.png"))
    assert (tmp_path / "boot.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_written_is_refused_before_anything_is_started(tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match="neither"):
        drawing.check_path("boot.pdf")
    with pytest.raises(InputError, match="no folder"):
        drawing.check_path(str(tmp_path / "none/boot.svg"))
    drawing.check_path(str(tmp_path / "boot.svg"))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(HostError, match="matplotlib"):
        drawing.check_path(str(tmp_path / "boot.png"))


def test_a_copy_has_ports_and_a_name_of_its_own_and_goes_when_it_ends() -> None:
    given = Workload(("python@3.11",), name="web", kind="vm", tty=True, interactive=True, ports=(Port(80, 8080),))
    copy = throw_away(given)
    assert (copy.remove, copy.tty, copy.interactive, copy.ports) == (True, False, False, (Port(80, 0),))
    assert copy.name.startswith("boot-profile-") and copy.name != throw_away(given).name
    with pytest.raises(InputError, match="only a virtual machine"):
        throw_away(msgspec.structs.replace(given, kind="container"))


def test_only_a_machine_that_is_watched_has_a_debugging_end_and_notes_its_initcalls() -> None:
    def words(debugger: bool) -> tuple[str, ...]:
        names = qemu.channels(terminal=False, input_=False, network=True, shares=0, debugger=debugger)
        asked = qemu.Settings(
            "web", "tcg", "microvm", "/kernel", 256 << 20, 1, ("/0.erofs",), names, 0,
            debug=qemu.LOOKED_AT if debugger else "",
        )  # fmt: skip
        return qemu.argv(asked)

    usual, looked_at = words(False), words(True)
    assert "-gdb" not in usual and not any("initcall_debug" in word for word in usual)
    assert looked_at[looked_at.index("-gdb") + 1] == "chardev:debugger"
    assert "-S" in looked_at and "-S" not in usual  # a machine that begins by itself may be past its kernel's entry
    assert any("quiet initcall_debug" in word for word in looked_at)


def test_json_can_be_made_of_a_report(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found)) == found
