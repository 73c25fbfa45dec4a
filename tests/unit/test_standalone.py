"""A workload on a disk image: what its first process is told, and what an image cannot have."""

from __future__ import annotations

import pytest

from swiftlet.guest import orders, standalone
from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.error import InputError
from swiftlet.model.workload import Port, Resources, Volume, Workload

ROOT = Rootfs(("/s/trees/a", "/s/trees/b"), ("a", "b"), {"LANG": "C.UTF-8"}, ("nginx",))
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n"


def plan(rootfs: Rootfs = ROOT, **more: object) -> Bundle:
    return standalone.plan(Workload(templates=("nginx",), **more), rootfs, PASSWD, "")  # type: ignore[arg-type]


def told(bundle: Bundle, data: bool = False) -> str:
    return orders.on_disk(bundle, {"/etc/hostname": "h\n"}, {}, data=data, at_end=7, at_button=15)


def test_nothing_in_the_orders_depends_on_a_hosts_names_or_time() -> None:
    text = told(plan())
    assert text == told(plan())
    assert "/dev/vd" not in text
    assert orders.order("h", "swiftlet") in text
    assert not any(f"\0{key}" in text for key in ("e1", "t2"))


def test_the_root_is_stacked_from_folders_of_the_one_image() -> None:
    assert "lowerdir=/lower/0:/lower/1,upperdir=/upper/upper,workdir=/upper/work" in told(plan())


def test_what_is_written_goes_to_memory_or_to_the_partition_for_it() -> None:
    assert told(plan()).startswith(orders.order("m", "tmpfs", "/upper", "tmpfs", "0", "mode=755"))
    assert told(plan(), data=True).startswith(orders.order("m", "/dev/data", "/upper", "ext4", "0", ""))


def test_how_it_ends_and_what_the_button_means_come_before_the_command() -> None:
    text = told(plan())
    assert text.index(orders.order("w", "7", "15")) < text.index(orders.order("a", "nginx"))
    assert text.endswith(orders.order("x"))


def test_names_are_asked_of_the_servers_that_the_kernel_was_told() -> None:
    assert orders.order("l", "/proc/net/pnp", "/etc/resolv.conf") in told(plan())


def test_the_command_is_the_workloads_with_its_user_and_variables() -> None:
    bundle = plan(command=("python3", "app.py"), user="web", env={"X": "1"}, hostname="h")
    assert (bundle.argv, bundle.uid, bundle.hostname) == (("python3", "app.py"), 33, "h")
    assert orders.order("v", "X=1") in told(bundle)


def test_limits_of_a_hosts_control_groups_are_no_hindrance() -> None:
    bundle = plan(resources=Resources(memory=100 << 20, cpus=1.5), ports=(Port(guest=80),))
    assert bundle.cgroup.paths == {}
    assert standalone.hardware_of(bundle.workload) == (100 << 20, 2)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"volumes": (Volume("/a", "/b"),)}, r"\$\.volumes: /a "),
        ({"network": "host"}, r"\$\.network"),
        ({"network": "none"}, r"\$\.network"),
        ({"tty": True}, r"\$\.tty"),
        ({"interactive": True}, r"\$\.tty"),
        ({"userns": True}, r"\$\.userns"),
    ],
)
def test_what_an_image_cannot_have_is_refused_with_a_way_out(more: dict[str, object], where: str) -> None:
    with pytest.raises(InputError, match=where) as caught:
        plan(**more)
    assert caught.value.hint


def test_a_workload_without_a_command_or_an_entry_point_is_refused() -> None:
    with pytest.raises(InputError, match="no entry point"):
        plan(Rootfs(("/s/trees/a",), ("a",)))
