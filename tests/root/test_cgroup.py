"""Control groups of this host, whatever its layout: limits hold, killing kills all, nothing is left."""

import errno
import os
import time

import pytest

from swiftlet.guest.meter import measure
from swiftlet.linux import cgroup
from swiftlet.linux.cgroup_device import attach_device_filter, load_device_filter

pytestmark = pytest.mark.root

FOLDER = f"swiftlet-test-{os.getpid()}"


@pytest.fixture(scope="module", params=["as it is", "without version 2"])
def layout(request):
    """This host's layout; and, where it has both versions, what it would be without version 2."""
    found = cgroup.detect()
    if request.param == "without version 2":
        if found.kind != "hybrid":
            pytest.skip("host lacks: cgroup v1 beside v2")
        found = cgroup.Layout({key: path for key, path in found.hierarchies.items() if key})
    try:
        cgroup.prepare_parent(found, FOLDER)
    except PermissionError:
        pytest.skip("this user may not make control groups")
    yield found
    cgroup.remove_parent(found, FOLDER)


@pytest.fixture
def groups(layout):
    made = []

    def make(guest="g", **limits):
        planned = cgroup.plan(layout, FOLDER, guest, **limits)
        cgroup.create(planned.paths)
        made.append(planned.paths)
        cgroup.apply(planned.writes)
        return planned.paths

    yield make
    for paths in made:
        cgroup.kill_all(paths)
        cgroup.remove(paths)


def start(paths, work):
    """A child within the groups that runs `work` and exits with its result."""
    entrances = cgroup.open_entrances(paths)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            cgroup.enter(entrances)
            if "" in paths:
                cgroup.join({"": paths[""]})
            code = work() or 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    for entrance in entrances:
        os.close(entrance)
    return child


def result(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_child_is_in_every_group_once_it_has_entered(groups):
    paths = groups(memory=64 << 20, cpus=1, pids=10)
    child = start(paths, lambda: time.sleep(60))
    wait_for(lambda: all(cgroup.processes({key: path}) == [child] for key, path in paths.items()))
    assert cgroup.is_populated(paths)
    cgroup.kill_all(paths)
    assert result(child) == -9
    wait_for(lambda: not cgroup.is_populated(paths))


def test_the_pids_limit_stops_a_fork_bomb(groups):
    def bomb():
        for _ in range(20):
            if os.fork() == 0:
                time.sleep(60)
        return 0

    paths = groups(pids=5)
    child = start(paths, bomb)
    assert result(child) == errno.EAGAIN
    wait_for(lambda: cgroup.usage(paths).get("pids") == 4)


def test_the_memory_limit_kills_and_is_counted(groups):
    paths = groups(memory=32 << 20)
    child = start(paths, lambda: len(bytearray(256 << 20)) & 0)
    assert result(child) == -9
    counted = cgroup.usage(paths)
    assert counted["oom_kills"] >= 1
    assert counted.get("memory_peak_bytes", 32 << 20) <= 32 << 20


def test_the_cpu_quota_slows(groups):
    def burn():
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        return 0

    paths = groups(cpus=0.2)
    assert result(start(paths, burn)) == 0
    assert 20_000_000 < cgroup.usage(paths)["cpu_ns"] < 300_000_000


def test_usage_counts_cpu_time_and_memory(groups):
    def work():
        kept = bytearray(20 << 20)
        sum(range(3_000_000))
        return len(kept) & 0

    paths = groups()
    begin = time.monotonic_ns()
    assert result(start(paths, work)) == 0
    counted = cgroup.usage(paths)
    assert 5_000_000 < counted["cpu_ns"] <= time.monotonic_ns() - begin
    assert counted["cpu_user_ns"] + counted["cpu_system_ns"] == pytest.approx(counted["cpu_ns"], rel=0.2)
    assert counted.get("memory_peak_bytes", 20 << 20) >= 20 << 20


def test_killing_reaches_processes_in_groups_below(groups):
    paths = groups()
    tracking = next(iter(paths))
    below = f"{paths[tracking]}/below"
    os.mkdir(below)
    child = start({tracking: below}, lambda: time.sleep(60))
    wait_for(lambda: cgroup.processes(paths) == [child])
    cgroup.kill_all(paths)
    assert result(child) == -9
    cgroup.remove(paths)
    assert not os.path.exists(below)


def test_without_cgroup_kill_every_process_dies_all_the_same(groups):
    paths = {key: path for key, path in groups(pids=50).items() if key}
    if not paths:
        pytest.skip("host lacks: cgroup v1")

    def several():
        for _ in range(5):
            if os.fork() == 0:
                time.sleep(60)
        time.sleep(60)

    child = start(paths, several)
    wait_for(lambda: len(cgroup.processes(paths)) == 6)
    deadline = time.monotonic() + 2
    while cgroup.processes(paths) and time.monotonic() < deadline:
        cgroup.kill_all(paths)
    assert result(child) == -9
    assert not cgroup.is_populated(paths)


def test_removing_waits_for_the_dying_and_refuses_the_living(groups):
    paths = groups()
    child = start(paths, lambda: time.sleep(60))
    wait_for(lambda: cgroup.is_populated(paths))
    with pytest.raises(OSError, match="still has processes"):
        cgroup.remove(paths, timeout=0.05)
    cgroup.kill_all(paths)
    result(child)
    cgroup.remove(paths)
    cgroup.remove(paths)
    assert not any(os.path.exists(path) for path in paths.values())
    assert not cgroup.is_populated(paths)


def test_making_groups_that_exist_fails_and_leaves_nothing_new(layout, groups):
    paths = groups("twice")
    other = f"{layout.hierarchies[next(iter(paths))]}/{FOLDER}/new"
    with pytest.raises(FileExistsError):
        cgroup.create({"first": other, **paths})
    assert not os.path.exists(other)


def test_what_a_crash_left_is_found(layout, groups):
    paths = groups("lost")
    assert cgroup.groups_below(layout, FOLDER)["lost"] == paths


def test_an_unwritable_value_names_file_and_value(groups):
    paths = groups(pids=5)
    file = f"{list(paths.values())[-1]}/cgroup.procs"
    with pytest.raises(OSError, match=r"writing 'x'.*cgroup\.procs"):
        cgroup.apply(((file, "x"),))


def test_a_missing_file_is_an_error_unless_it_only_bounds_swap(groups):
    folder = next(iter(groups().values()))
    cgroup.apply(((f"{folder}/memory.memsw.limit_in_bytes.gone/memory.swap.max", "0"),))
    with pytest.raises(FileNotFoundError):
        cgroup.apply(((f"{folder}/no.such.file", "1"),))


def _node(kind, major, minor, flags):
    """Make a device node and open it; the error's number, 0 when it opened."""
    path = f"/dev/swiftlet-test-{os.getpid()}"
    try:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except OSError as error:
        return error.errno
    finally:
        if os.path.exists(path):
            os.unlink(path)
    return 0


def test_the_device_filter_refuses_all_but_the_listed_devices(layout, groups):
    if "" not in layout.hierarchies:
        pytest.skip("host lacks: cgroup v2")
    paths = groups()
    folder = os.open(paths[""], os.O_RDONLY | os.O_DIRECTORY)
    program = load_device_filter()
    attach_device_filter(folder, program)
    os.close(program)
    os.close(folder)

    def attempts():
        assert _node(0o020000, 1, 3, os.O_RDWR) == 0
        assert _node(0o020000, 1, 9, os.O_RDONLY) == 0
        assert _node(0o020000, 1, 11, os.O_WRONLY) == errno.EPERM  # /dev/kmsg
        assert _node(0o020000, 10, 237, os.O_RDONLY) == errno.EPERM  # /dev/loop-control
        assert _node(0o060000, 254, 0, os.O_RDONLY) == errno.EPERM
        return 42

    assert result(start(paths, attempts)) == 42
    assert _node(0o020000, 1, 11, os.O_WRONLY) == 0


def test_the_version_1_device_list_refuses_the_same(layout, groups):
    if layout.kind != "v1":
        pytest.skip("host lacks: cgroup v1 alone (with v2 the filter is used)")
    paths = groups()
    child = start(paths, lambda: _node(0o020000, 1, 3, os.O_RDWR) * 100 + _node(0o020000, 1, 11, 1))
    assert result(child) == errno.EPERM


def test_a_guest_is_measured_with_all_its_processes(groups):
    def work():
        kept = bytearray(b"x" * (24 << 20))
        if os.fork() == 0:
            own = bytearray(b"y" * (8 << 20))
            time.sleep(60 + 0 * len(own))
        time.sleep(60)
        return len(kept) & 0

    paths = groups(pids=20)
    child = start(paths, work)
    wait_for(lambda: len(cgroup.processes(paths)) == 2 and measure(paths)["private_bytes"] > 8 << 20)
    measured = measure(paths)
    assert measured["pids"] == 2
    assert measured["shared_bytes"] > 24 << 20
    assert measured["private_bytes"] + measured["shared_bytes"] < 512 << 20
    assert measured["memory_bytes"] >= 32 << 20
    cgroup.kill_all(paths)
    assert result(child) == -9


def test_a_parent_with_processes_cannot_give_controllers_and_the_error_says_what_to_do(layout, groups):
    if layout.kind != "unified":
        pytest.skip("host lacks: cgroup v2 with controllers")
    paths = groups()
    child = start(paths, lambda: time.sleep(60))
    wait_for(lambda: cgroup.is_populated(paths))
    nested = cgroup.Layout({"": paths[""]}, ("memory", "pids"))
    with pytest.raises(OSError, match=r"holds processes itself.*move them") as caught:
        cgroup.prepare_parent(nested, "below")
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, paths[""])
    cgroup.kill_all(paths)
    assert result(child) == -9
