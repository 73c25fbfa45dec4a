"""A workload becomes a bundle: who it runs as, what it may do, what it finds around it."""

from __future__ import annotations

import msgspec
import pytest

from swiftlet.guest.account import account_of
from swiftlet.guest.container import PATH, ContainerDriver
from swiftlet.guest.driver import FEATURES, Place
from swiftlet.linux.cgroup import Layout
from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.error import HostError, InputError
from swiftlet.model.workload import Resources, Workload

PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/srv:/bin/false\nbroken\nodd:x:a:b:c:d:e\n"
GROUP = "root:x:0:\nwww:x:34:\nextra:x:50:www,other\n"
UNIFIED = Layout({"": "/sys/fs/cgroup"}, ("cpu", "memory", "pids"))
PLACE = Place(
    "0123456789ab", "/s/guests/0123456789ab", "fd", (), 0, UNIFIED, "swiftlet", PASSWD, GROUP, "/s/cache/seccomp/x"
)
ROOT = Rootfs(("/s/trees/a",), ("a",), {"LANG": "C.UTF-8", "PATH": "/opt/bin"}, ("nginx", "-g", "daemon off;"))


def plan(place: Place = PLACE, root: Rootfs = ROOT, **more: object) -> Bundle:
    return ContainerDriver().plan(Workload(templates=("nginx",), **more), root, place)  # type: ignore[arg-type]


def test_user_names_are_looked_up_in_the_guests_own_files() -> None:
    assert account_of("", PASSWD, GROUP) == (0, 0, (), "/root")
    assert account_of("www", PASSWD, GROUP) == (33, 34, (50,), "/srv")
    assert account_of("33", PASSWD, GROUP)[:2] == (33, 34)
    assert account_of("www:root", PASSWD, GROUP) == (33, 0, (), "/srv")
    assert account_of("1000:1001", PASSWD, GROUP) == (1000, 1001, (), "/")


@pytest.mark.parametrize("number", ["4294967295", "4294967296", "65536", "9" * 5000])
@pytest.mark.parametrize("user", ["b", "1000", "c", "root:g", "d"])
def test_ids_that_a_guest_wrote_are_bounded_like_typed_ones(user: str, number: str) -> None:
    """To the kernel 4294967295 is -1, which leaves a process who it is: the host's root."""
    passwd = f"root:x:0:0::/:\nb:x:{number}:0::/:\nc:x:1000:{number}::/:\nd:x:1:1::/:\n"
    with pytest.raises(InputError, match="is above 65535"):
        account_of(user, passwd, f"g:x:{number}:d\n")


def test_rows_whose_ids_are_no_decimal_numbers_are_passed_over() -> None:
    """Some digits are digits to isdigit and not to int."""
    passwd = "a:x:\u00b2:0::/:\nb:x:1:\u00b2::/:\nc:x:-1:0::/:\n"
    for user in ("a", "b", "c", "\u00b2", "root:g", "root:\u00b2"):
        with pytest.raises(InputError):
            account_of(user, f"{passwd}root:x:0:0::/:\n", "g:x:\u00b2:root\n")
    assert account_of("root", f"{passwd}root:x:0:0::/:\n", "g:x:\u00b2:root\n").groups == ()


@pytest.mark.parametrize("user", ["nobody", "root:nogroup", "65536", "4294967296", "0:99999", "-1"])
def test_a_user_that_is_not_there_is_refused(user: str) -> None:
    with pytest.raises(InputError):
        account_of(user, PASSWD, GROUP)


def test_a_command_replaces_the_entry_point_and_one_is_needed() -> None:
    assert plan().argv == ROOT.entrypoint
    assert plan(command=("sh",)).argv == ("sh",)
    with pytest.raises(InputError, match="no entry point"):
        plan(root=Rootfs((), ()))


def test_the_workloads_environment_wins_over_the_templates_over_ours() -> None:
    env = plan(env={"LANG": "de"}, tty=True).env
    assert env == {
        "PATH": "/opt/bin", "HOME": "/root", "HOSTNAME": PLACE.id, "TERM": "xterm", "LANG": "de",
    }  # fmt: skip
    assert plan(root=Rootfs((), (), {}, ("x",))).env["PATH"] == PATH


def test_limits_have_the_kernels_names_and_impossible_ones_are_refused() -> None:
    assert plan(ulimits={"nofile": (1, 2), "core": (0, -1)}).rlimits == {"NOFILE": (1, 2), "CORE": (0, -1)}
    with pytest.raises(InputError, match="no limit 'nosuch'"):
        plan(ulimits={"nosuch": (1, 2)})
    for soft in (3, -1):
        with pytest.raises(InputError, match="above the hard limit"):
            plan(ulimits={"nofile": (soft, 2)})


def test_dockers_fourteen_capabilities_are_the_default() -> None:
    assert plan().capabilities == (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
    assert plan(cap_drop=("ALL",), cap_add=("NET_BIND_SERVICE",)).capabilities == (10,)
    with pytest.raises(InputError, match="FLY"):
        plan(cap_add=("FLY",))


def test_limits_become_control_group_writes() -> None:
    writes = dict(plan(resources=Resources(memory=1 << 20, cpus=1.5, pids=7)).cgroup.writes)
    folder = f"/sys/fs/cgroup/swiftlet/{PLACE.id}"
    assert writes[f"{folder}/memory.max"] == "1048576"
    assert writes[f"{folder}/cpu.max"] == "150000 100000"
    assert writes[f"{folder}/pids.max"] == "7"


def test_a_limit_that_this_host_cannot_keep_is_refused() -> None:
    place = PLACE._replace(cgroups=Layout({"": "/sys/fs/cgroup"}, ("pids",)))
    with pytest.raises(HostError, match="memory"):
        plan(place, resources=Resources(memory=1 << 20))


def test_a_bundle_is_plain_json_and_comes_back_equal() -> None:
    bundle = plan(command=("x",), ulimits={"NOFILE": (1, 2)})
    assert msgspec.json.decode(msgspec.json.encode(bundle), type=Bundle) == bundle


def test_only_a_guest_that_is_removed_has_a_volatile_root() -> None:
    assert plan(remove=True).volatile
    assert not plan().volatile


def test_declared_features_are_known_ones() -> None:
    assert ContainerDriver.features <= FEATURES
