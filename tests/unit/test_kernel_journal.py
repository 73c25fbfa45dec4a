"""What a derivation has found out survives it, and is given to no other one."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftlet.image.kernel.derive import Evidence
from swiftlet.image.kernel.journal import FILE, Journal, Run, digest_of
from swiftlet.image.kernel.trace import Phase, Place
from swiftlet.model.error import InputError

RUN = Run(0, "everything", "c0", "k0", True, "", 10, 1.5, 2.0, ("CONFIG_B",))
SEEN = Evidence("CONFIG_A", Place("init/main.c", 7), Phase.USE)


def test_everything_is_there_again(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "key")
    journal.note_trace([SEEN], {"lines": 3}, {"init/main.o": 0.5}, RUN)
    journal.note_run(RUN._replace(number=1, configuration="c1", passed=False))
    again = Journal(str(tmp_path), "key")
    assert (again.runs, again.evidence, again.counts) == (journal.runs, {"CONFIG_A": SEEN}, {"lines": 3})
    assert again.initcalls == {"init/main.o": 0.5}
    assert again.run_of("c1") == journal.runs[1] and again.run_of("c2") is None


def test_a_write_that_was_broken_off_leaves_the_one_before(tmp_path: Path) -> None:
    Journal(str(tmp_path), "key").note_run(RUN)
    (tmp_path / f"{FILE}.new").write_text('{"key": "k')
    assert Journal(str(tmp_path), "key").runs == [RUN]


def test_the_state_of_another_derivation_is_refused(tmp_path: Path) -> None:
    Journal(str(tmp_path), "key").note_run(RUN)
    with pytest.raises(InputError, match="another derivation"):
        Journal(str(tmp_path), "other")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"key": "key", "runs": [{"number": 1}], "evidence": null}'])
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match="damaged"):
        Journal(str(tmp_path), "key")


def test_equal_configurations_have_one_digest_whatever_their_order() -> None:
    assert digest_of({"A": "y", "B": "1"}) == digest_of({"B": "1", "A": "y"}) != digest_of({"A": "y"})
