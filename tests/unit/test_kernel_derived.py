"""What is known of a derived kernel's options: kept beside it, and told as one sentence."""

from __future__ import annotations

from pathlib import Path

from swiftlet.image.kernel import derived, kept
from swiftlet.image.kernel.derive import Evidence
from swiftlet.image.kernel.derived import Dropped, Found, Result
from swiftlet.image.kernel.journal import Run
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.kernel.trace import Phase, Place


def run(number: int, passed: bool, *off: str) -> Run:
    return Run(number, "what", f"c{number}", "", passed, "" if passed else "silent", 1, 1.0, 1.0, off)


RUNS = [run(0, True), run(1, False, "A", "B", "C"), run(2, False, "A", "B"), run(3, True, "C")]
SEEN = {"A": Evidence("A", Place("net/core.c", 7), Phase.USE)}


def test_an_option_is_kept_because_of_the_line_that_ran_or_of_the_run_that_failed() -> None:
    ran = Found("A", "y", *derived.why("A", {}, SEEN, set()), 10, None, None)
    assert derived.told(ran, RUNS) == "kept because net/core.c:7 ran"
    assert derived.told(ran._replace(failed=2), RUNS).endswith("ran, and run 2 failed without it and 1 others")
    assert derived.why("A", {}, SEEN, {"A"}) == ("kept whatever runs", "net/core.c:7")
    needed = Found("B", "y", *derived.why("B", {"B": "needed by A"}, SEEN, set()), None, None, None)
    assert derived.told(needed, RUNS) == "needed by A"
    assert derived.told(Dropped("C", 3, 10, None), RUNS) == "dropped because run 3 passed without it"


def test_of_the_runs_without_an_option_the_one_that_says_most_counts() -> None:
    assert derived.first_without("C", RUNS) == 3
    assert derived.failed_without("A", RUNS) == 2 and derived.failed_without("D", RUNS) is None


def test_the_evidence_stays_with_the_kernel(tmp_path: Path) -> None:
    kernel = Kernel(str(tmp_path), "ab", "6.1", 5, 1.0)
    found = [Found("A", "y", "ran", "net/core.c:7", 10, 1.5, 2)]
    result = Result(kernel, kernel, [], found, [Dropped("C", 3, 20, None)], RUNS, {"lines": 1}, True)
    derived.save(result, "web", ["hello-web"])
    saved = derived.read(kernel)
    assert saved is not None and (saved["name"], saved["checks"], saved["complete"]) == ("web", ["hello-web"], True)
    known = derived.evidence_of("A", saved)
    assert known is not None and (known["place"], known["run"], known["milliseconds"]) == ("net/core.c:7", 2, 1.5)
    gone = derived.evidence_of("C", saved)
    assert gone is not None and (gone["run"], gone["bytes"]) == (3, 20)
    assert derived.evidence_of("D", saved) is None
    assert (tmp_path / kept.BOOT_FILE).read_text() == '{"options": {"A": 1.5}}'


def test_a_kernel_that_was_not_derived_has_none(tmp_path: Path) -> None:
    kernel = Kernel(str(tmp_path), "ab", "6.1", 5, 1.0)
    assert derived.read(kernel) is None
    for damaged in ("{", "[]", '{"runs": []}'):
        (tmp_path / kept.DERIVED_FILE).write_text(damaged)
        assert derived.read(kernel) is None
