"""Which kernels are listed, and which is taken where nobody names one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swiftlet.image.kernel import kept
from swiftlet.model.error import NotFoundError


def a_kernel(cache: Path, digit: str, name: str, when: int) -> str:
    digest = digit * 64
    folder = cache / "kernels" / digest
    folder.mkdir(parents=True)
    asked = [{"name": name, "when_ns": when, "digest": "", "requests": []}]
    said = {"version": "6.1", "bytes": 1, "seconds": 1, "source": {}, "asked": asked}
    (folder / "kernel.json").write_text(json.dumps(said))
    return digest


def test_what_was_tried_is_in_no_list_and_what_was_derived_is_given_to_who_names_it(tmp_path: Path) -> None:
    cache = str(tmp_path)
    plain = a_kernel(tmp_path, "a", "", 1)
    made = a_kernel(tmp_path, "b", "web", 3)
    (tmp_path / "kernels" / made / kept.DERIVED_FILE).write_text("{}")
    tried = a_kernel(tmp_path, "c", ".trim", 4)
    assert [kernel.digest for kernel in kept.listed(cache)] == [made, plain]
    assert kept.kernel_named(cache, "").digest == plain and kept.kernel_named(cache, "web").digest == made
    assert kept.kernel_named(cache, tried[:8]).told()["names"] == []
    profile = a_kernel(tmp_path, "d", "net+mine", 2)
    (tmp_path / "kernels" / profile / kept.DERIVED_FILE).write_text("{}")
    assert kept.kernel_named(cache, "").digest == profile  # it has been derived, too, and comes to the same


def test_a_derived_kernel_alone_is_nobodys_default(tmp_path: Path) -> None:
    made = a_kernel(tmp_path, "b", "web", 3)
    (tmp_path / "kernels" / made / kept.DERIVED_FILE).write_text("{}")
    with pytest.raises(NotFoundError, match="no kernel is built"):
        kept.kernel_named(str(tmp_path), "")


def test_a_kernel_that_many_ask_for_at_once_remembers_all_of_them(tmp_path: Path) -> None:
    kernel = kept.kernel_of(str(tmp_path), a_kernel(tmp_path, "a", "first", 1))
    assert kernel is not None
    names = [f"asked{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        for _ in range(20):
            list(pool.map(lambda name: kept.remember(kernel, "", name, ()), names))
    record = json.loads((tmp_path / "kernels" / kernel.digest / "kernel.json").read_text())
    assert {each["name"] for each in record["asked"]} == {"first", *names}
