"""How the gate judges: a wrong number, a silent check, a clock that is off or a changed page are each named."""

from __future__ import annotations

import json
import math
import re
import string
import time
from pathlib import Path

import pytest

from swiftlet.gate.options import NEEDS
from swiftlet.gate.verdict import CLOCK_SECONDS, Circumstances, chosen, difference_of, judge, said_by
from tests.checking import output

ROOT = Path(__file__).resolve().parents[2]
CALM = Circumstances(1000.0, 1010.0)
FLOW = {"check": "algorithms.max_flow", "ok": True, "ms": 2.5, "values": {"flow": [3.0, 4.0], "side": [1, 0]}}


def said(*lines):
    return said_by([json.dumps(line) for line in lines])


def verdict_on(name, guest, host=(), circumstances=CALM):
    (verdict,) = judge([name], said(*guest), said(*host), circumstances)
    return verdict


def changed(**members):
    return {**FLOW, "values": {**FLOW["values"], **members}}


def test_equal_results_pass_and_say_how_many_numbers_were_compared():
    verdict = verdict_on("algorithms.max_flow", [FLOW], [FLOW])
    assert verdict.ok and verdict.options == () and verdict.milliseconds == 2.5
    assert verdict.values == {"numbers": 4, "largest_difference": 0.0}


def test_rounding_within_the_papers_tolerance_passes_and_is_told():
    verdict = verdict_on("algorithms.max_flow", [changed(flow=[3.0, 4.0 + 9e-9])], [FLOW])
    assert verdict.ok and 8e-9 < verdict.values["largest_difference"] < 1e-8


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"flow": [3.0, 4.0 + 1.1e-8]}, "flow[1] is 4.000000011 and on this host 4.0"),
        ({"flow": [3.0, math.nan]}, "flow[1] is nan"),
        ({"flow": [3.0, -4.0]}, "flow[1] is -4.0"),
        ({"flow": [3.0]}, "flow has another length"),
        ({"flow": []}, "flow has another length"),
        ({"flow": [3.0, "4"]}, "flow holds something that is no number"),
        ({"flow": None}, "flow has another length"),
        ({"more": [1]}, "gives flow, side, more where this host gives flow, side"),
    ],
)
def test_one_corrupted_result_is_caught_and_named(wrong, told):
    verdict = verdict_on("algorithms.max_flow", [changed(**wrong)], [FLOW])
    assert not verdict.ok and verdict.problem.startswith(told)


def test_results_that_the_host_itself_lacks_prove_nothing():
    broken = {"check": "algorithms.max_flow", "ok": False, "problem": "no"}
    assert verdict_on("algorithms.max_flow", [FLOW], []).problem == "fails on this host: it said nothing"
    assert verdict_on("algorithms.max_flow", [FLOW], [broken]).problem == "fails on this host: no"


def test_a_failed_check_has_its_own_words_and_its_kernel_options():
    line = {"check": "files.inotify", "ok": False, "problem": "inotify_init1(): Function not implemented"}
    verdict = verdict_on("files.inotify", [line])
    assert (verdict.ok, verdict.problem) == (False, line["problem"])
    assert verdict.options == ("CONFIG_INOTIFY_USER",)
    because = verdict_on("files.inotify", [{**line, "because": "system.tmp"}])
    assert because.options == NEEDS["system.tmp"], "what it stands on failed, not what it is about"


def test_the_first_word_of_a_check_counts():
    """A check's child says what broke, then its parent says that the child failed."""
    first, second = ({"check": "files.flock", "ok": ok, "problem": "" if ok else "x"} for ok in (False, True))
    assert not verdict_on("files.flock", [first, second]).ok


def test_a_check_that_says_nothing_has_failed_with_the_guests_reason():
    verdict = verdict_on("memory.large", [], circumstances=CALM._replace(guest="the guest ran out of memory"))
    assert not verdict.ok and verdict.problem == "said nothing: the guest ran out of memory"
    assert verdict.options == NEEDS["memory.large"]


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "3", "{", "[    0.5] virtio_blk: 1 disk", '{"check": 3}', '{"ok": true}']
)
def test_lines_of_others_on_the_same_console_are_no_answers(text):
    assert said_by([text]) == {}


def test_what_the_host_measures_too_is_shown_beside_and_not_judged():
    ours = {"check": "ipc.pipe", "ok": True, "ms": 1, "values": {"latency_us": 9.0}}
    host = {**ours, "values": {"latency_us": 1.0}}
    assert verdict_on("ipc.pipe", [ours], [host]).values == {"latency_us": 9.0, "latency_us_host": 1.0}


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (1000.0, ""),
        (1010.0 + CLOCK_SECONDS, ""),
        (1000.0 - CLOCK_SECONDS - 1, "the guest's clock is 61 s behind this host's"),
        (1010.0 + 3600, "the guest's clock is 3600 s ahead of this host's"),
        (None, "tells no time"),
    ],
)
def test_a_guests_clock_is_compared_with_the_hosts(told, problem):
    line = {"check": "timers.realtime", "ok": True, "ms": 1, "values": {"realtime_s": told}}
    verdict = verdict_on("timers.realtime", [line])
    assert verdict.problem == problem and verdict.ok == (not problem)


def test_a_page_that_came_changed_fails_the_check_that_the_guest_thinks_passed():
    line = {"check": "web.page", "ok": True, "ms": 1, "values": {"requests": 2}}
    assert verdict_on("web.page", [line]).ok
    verdict = verdict_on("web.page", [line], circumstances=CALM._replace(web="the page came with 1 of 2 bytes"))
    assert not verdict.ok and verdict.problem == "the page came with 1 of 2 bytes" and "CONFIG_INET" in verdict.options


def test_checks_are_chosen_by_name_and_by_area():
    names = ["files.create", "files.rename", "signals.mask", "signals.child"]
    assert chosen(names, []) == names
    assert chosen(names, ["signals.mask", "files"]) == names[:3]
    with pytest.raises(KeyError, match="file"):
        chosen(names, ["files", "file"])


def test_differences_of_long_lists_are_found_anywhere():
    numbers = [float(number) for number in range(1000)]
    for at in (0, 500, 999):
        assert difference_of("x", [*numbers[:at], numbers[at] + 1, *numbers[at + 1 :]], numbers)[0].startswith(
            f"x[{at}]"
        )


def test_every_check_of_the_program_has_its_line_in_the_table_of_options_and_none_is_left_over():
    assert output("list").split() == list(dict.fromkeys(output("list").split()))
    assert set(output("list").split()) == set(NEEDS)


def test_the_options_are_spelled_as_the_kernel_spells_them_and_have_a_source():
    for check, options in NEEDS.items():
        assert len(set(options)) == len(options), check
        assert all(re.fullmatch("CONFIG_[A-Z0-9_]+", option) for option in options), check
    text = (ROOT / "swiftlet/gate/options.py").read_text()
    areas = {check.partition(".")[0] for check in NEEDS}
    assert areas <= set(re.findall(r'"([a-z]+)\.[a-z_]+": .*#', text)), "an area without any source comment"


def test_the_real_results_of_this_host_pass_and_each_of_them_corrupted_fails():
    lines = output("run", "--only", "algorithms").splitlines()
    host, now = said_by(lines), time.time()
    names = list(host)
    assert len(names) == 3
    assert all(verdict.ok for verdict in judge(names, host, host, Circumstances(now, now)))
    for text in lines:
        wrong = json.loads(text)
        for numbers in wrong["values"].values():
            numbers[len(numbers) // 2] += 1e-7
            guest = said_by([json.dumps(wrong), *(other for other in lines if other != text)])
            failed = [verdict.check for verdict in judge(names, guest, host, Circumstances(now, now)) if not verdict.ok]
            assert failed == [wrong["check"]]
            numbers[len(numbers) // 2] -= 1e-7


def test_names_of_checks_are_words_that_a_command_line_can_hold():
    letters = set(string.ascii_lowercase + "_.")
    assert all(set(name) <= letters and name.count(".") == 1 for name in NEEDS)
