"""Layouts are told apart and guests' groups planned, from recorded mountinfo and without touching the kernel."""

import struct

import pytest

from swiftlet.linux.cgroup import Layout, detect, plan, shares_of, usage
from swiftlet.linux.cgroup_device import DEVICE_RULES, control_lines, device_program

UNIFIED = """\
24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
35 25 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
36 25 0:31 / /sys/fs/pstore rw,nosuid,nodev,noexec,relatime shared:10 - pstore pstore rw
"""
UNIFIED_CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma misc\n"

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""

V1 = """\
28 22 0:24 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:5 - tmpfs tmpfs ro,seclabel,mode=755
29 28 0:25 / /sys/fs/cgroup/systemd rw,nosuid shared:6 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
32 28 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,seclabel,cpu,cpuacct
33 28 0:30 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,seclabel,memory
34 28 0:31 / /sys/fs/cgroup/devices rw,nosuid shared:12 - cgroup cgroup rw,seclabel,devices
35 28 0:32 / /sys/fs/cgroup/pids rw,nosuid shared:13 - cgroup cgroup rw,seclabel,pids
36 28 0:33 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid shared:14 - cgroup cgroup rw,seclabel,net_cls,net_prio
"""


@pytest.fixture
def unified():
    return detect(UNIFIED, controllers_text=UNIFIED_CONTROLLERS)


@pytest.fixture
def hybrid():
    return detect(HYBRID, controllers_text="\n")


@pytest.fixture
def v1():
    return detect(V1)


def test_each_layout_is_recognised(unified, hybrid, v1):
    assert (unified.kind, hybrid.kind, v1.kind) == ("unified", "hybrid", "v1")
    assert unified.hierarchies == {"": "/sys/fs/cgroup"}
    assert hybrid.hierarchies[""] == "/sys/fs/cgroup/unified"
    assert v1.hierarchies["cpu,cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"


def test_each_controller_is_found_where_it_is(unified, hybrid, v1):
    assert unified.hierarchy_of("memory") == ""
    assert unified.hierarchy_of("devices") is None
    assert hybrid.hierarchy_of("memory") == "memory"
    assert hybrid.hierarchy_of("io") is None
    assert v1.hierarchy_of("cpuacct") == "cpu,cpuacct"
    assert v1.hierarchy_of("perf_event") is None


def test_named_hierarchies_have_no_controllers_and_are_left_out(hybrid, v1):
    assert not any("systemd" in path for path in (hybrid.hierarchies | v1.hierarchies).values())


def test_a_hierarchy_of_another_tree_is_not_ours():
    elsewhere = UNIFIED.replace("/sys/fs/cgroup ", "/srv/chroot/sys/fs/cgroup ")
    both = elsewhere + UNIFIED
    assert detect(both, controllers_text="").hierarchies == {"": "/sys/fs/cgroup"}
    with pytest.raises(OSError, match="no control group hierarchy"):
        detect(elsewhere)


def test_a_mount_point_with_a_blank_is_read():
    text = UNIFIED.replace("/sys/fs/cgroup ", "/mnt/a\\040b/cgroup ")
    assert detect(text, "/mnt/a b", "").hierarchies == {"": "/mnt/a b/cgroup"}


def test_unified_needs_one_folder(unified):
    groups = plan(unified, "swiftlet", "g1", memory=64 << 20, cpus=1.5, cpu_weight=200, pids=100)
    folder = "/sys/fs/cgroup/swiftlet/g1"
    assert groups.paths == {"": folder}
    assert dict(groups.writes) == {
        f"{folder}/memory.max": str(64 << 20),
        f"{folder}/memory.swap.max": "0",
        f"{folder}/memory.oom.group": "1",
        f"{folder}/cpu.max": "150000 100000",
        f"{folder}/cpu.weight": "200",
        f"{folder}/pids.max": "100",
    }


def test_hybrid_uses_version_2_for_tracking_and_only_the_needed_version_1_groups(hybrid):
    groups = plan(hybrid, "swiftlet", "g1", pids=100)
    assert groups.paths == {
        "": "/sys/fs/cgroup/unified/swiftlet/g1",
        "pids": "/sys/fs/cgroup/pids/swiftlet/g1",
        "memory": "/sys/fs/cgroup/memory/swiftlet/g1",
    }
    assert groups.writes == (("/sys/fs/cgroup/pids/swiftlet/g1/pids.max", "100"),)


def test_hybrid_limits_are_written_in_an_order_that_the_kernel_takes(hybrid):
    groups = plan(hybrid, "f", "g", memory=1 << 20, cpus=0.5, cpu_weight=100)
    names = [path.rpartition("/")[2] for path, _ in groups.writes]
    assert names.index("memory.limit_in_bytes") < names.index("memory.memsw.limit_in_bytes")
    assert names.index("cpu.cfs_period_us") < names.index("cpu.cfs_quota_us")
    assert dict(groups.writes)["/sys/fs/cgroup/cpu/f/g/cpu.cfs_quota_us"] == "50000"
    assert dict(groups.writes)["/sys/fs/cgroup/cpu/f/g/cpu.shares"] == "1024"
    assert "memory.oom.group" not in names


def test_version_1_alone_meters_and_lists_devices(v1):
    groups = plan(v1, "f", "g", cpus=2)
    assert set(groups.paths) == {"cpu,cpuacct", "memory", "pids", "devices"}
    assert groups.paths["cpu,cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct/f/g"
    devices = [(path, value) for path, value in groups.writes if "/devices/" in path]
    assert devices[0] == ("/sys/fs/cgroup/devices/f/g/devices.deny", "a")
    assert ("/sys/fs/cgroup/devices/f/g/devices.allow", "c 136:* rwm") in devices
    assert "devices" not in plan(v1, "f", "g", devices=False).paths


def test_a_limit_without_its_controller_is_an_error():
    with pytest.raises(OSError, match="pids"):
        plan(Layout({"": "/sys/fs/cgroup"}, ("cpu",)), "f", "g", pids=10)


def test_no_limit_is_no_write(unified, hybrid):
    assert plan(unified, "f", "g").writes == ()
    assert plan(hybrid, "f", "g").writes == ()


def test_a_tiny_quota_is_the_smallest_that_the_kernel_takes(unified):
    assert plan(unified, "f", "g", cpus=0.0001).writes == (("/sys/fs/cgroup/f/g/cpu.max", "1000 100000"),)


@pytest.mark.parametrize(("weight", "shares"), [(100, 1024), (1, 10), (10000, 102400), (50, 512), (33, 338)])
def test_shares_of_a_weight(weight, shares):
    assert shares_of(weight) == shares


def test_usage_of_groups_that_are_gone_is_empty(tmp_path):
    assert usage({"": str(tmp_path / "gone"), "memory": str(tmp_path / "gone")}) == {}


def test_usage_reads_what_version_2_counts(tmp_path):
    (tmp_path / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnice_usec 0\n")
    (tmp_path / "memory.current").write_text("4096\n")
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 1\n")
    counted = usage({"": str(tmp_path)})
    expected = {"cpu_ns": 1500000, "cpu_user_ns": 1000000, "cpu_system_ns": 500000, "memory_bytes": 4096}
    assert counted == {**expected, "oom_kills": 2}


def test_device_lines_begin_by_denying_all():
    lines = control_lines()
    assert lines[0] == ("devices.deny", "a")
    assert len(lines) == len(DEVICE_RULES) + 1


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "permitted"),
    [
        ("c", 1, 3, "rw", True),
        ("c", 136, 77, "rwm", True),
        ("c", 10, 229, "m", True),
        ("b", 8, 0, "m", True),
        ("c", 10, 229, "r", False),  # /dev/fuse
        ("c", 1, 1, "r", False),  # /dev/mem
        ("b", 8, 0, "r", False),
        ("b", 8, 0, "rm", False),
        ("b", 1, 3, "r", False),  # the numbers of /dev/null, but a block device
    ],
)
def test_the_device_program_decides_as_the_list_does(kind, major, minor, access, permitted):
    assert bool(_execute(device_program(), kind, major, minor, access)) is permitted


def _execute(program, kind, major, minor, access):
    """A machine for the eleven instructions that the program is made of."""
    context = [
        sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access) << 16 | {"b": 1, "c": 2}[kind],
        major,
        minor,
    ]
    instructions = list(struct.iter_unpack("<BBhi", program))
    registers, place = [0] * 11, 0
    while True:
        code, operands, offset, immediate = instructions[place]
        to, source = operands & 15, operands >> 4
        place += 1
        if code == 0x95:
            return registers[0]
        if code == 0x61:
            registers[to] = context[offset // 4]
        elif code == 0xBF:
            registers[to] = registers[source]
        elif code == 0xB7:
            registers[to] = immediate
        elif code == 0x57:
            registers[to] &= immediate
        elif code == 0x77:
            registers[to] >>= immediate
        elif code == 0x55:
            place += offset if registers[to] != immediate else 0
        else:
            raise AssertionError(f"unknown instruction {code:#x}")
