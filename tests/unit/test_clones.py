"""What a clone may have of its own, and what it is told that it may not."""

from __future__ import annotations

from typing import Any

import pytest

from swiftlet.model.error import InputError
from swiftlet.model.workload import Port, Resources, Workload
from swiftlet.node.check import clone_of

SAVED = Workload(
    command=("x",), kind="vm", templates=("busybox",), name="src", hostname="h", ports=(Port(guest=80, host=8080),),
    resources=Resources(memory=64 << 20, cpus=1, pids=100),
)  # fmt: skip


def test_it_has_nothing_of_its_sources_name_ports_and_host_name_but_all_else() -> None:
    clone = clone_of(SAVED, {"name": "n", "remove": True})
    assert (clone.name, clone.ports, clone.hostname, clone.remove) == ("n", (), "", True)
    assert (clone.command, clone.resources) == (SAVED.command, SAVED.resources)


def test_what_of_its_resources_is_the_hosts_may_be_another() -> None:
    clone = clone_of(SAVED, {"resources": {"cpu_weight": 50}})
    assert clone.resources.cpu_weight == 50 and clone.resources.memory == 64 << 20 and clone.resources.pids == 100


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"env": {"A": "b"}}, r"\$\.env: a clone has this of its snapshot"),
        ({"resources": {"memory": 128 << 20}}, "memory and the processors"),
        ({"resources": {"pids": 7}}, r"\$\.resources\.pids"),
        ({"resources": {"disk": 1 << 30}}, "no disk"),
        ({"resources": "much"}, r"\$\.resources"),
    ],
)
def test_what_is_its_machines_is_refused(document: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        clone_of(SAVED, document)
