"""Which folders an installation has, and which it cannot have."""

from __future__ import annotations

import pytest

from swiftlet.model.error import InputError
from swiftlet.model.instance import DEFAULT_ROOT, DEFAULT_RUN, instance_of


def test_what_is_not_set_or_empty_is_the_default() -> None:
    for environment in ({}, {"SWIFTLET_ROOT": "", "SWIFTLET_RUN": ""}):
        instance = instance_of(environment)
        assert (instance.root, instance.run, instance.tag) == (DEFAULT_ROOT, DEFAULT_RUN, "")


def test_another_root_has_a_tag_and_its_run_folder_in_it() -> None:
    instance = instance_of({"SWIFTLET_ROOT": "/srv/my swiftlet=\u00e4"})
    assert instance.run == "/srv/my swiftlet=\u00e4/run" and len(instance.tag) == 6


@pytest.mark.parametrize("bad", [",", ":", "\\", "\n", "\x7f", "\udcff"])
@pytest.mark.parametrize("variable", ["SWIFTLET_ROOT", "SWIFTLET_RUN"])
def test_a_folder_in_which_no_guest_could_be_started_is_refused_by_name(variable: str, bad: str) -> None:
    """An overlay would take a part of it for an option or for another layer."""
    with pytest.raises(InputError, match=variable) as caught:
        instance_of({variable: f"/tmp/a{bad}b"})
    assert repr(bad) in str(caught.value) and str(caught.value).isprintable()
