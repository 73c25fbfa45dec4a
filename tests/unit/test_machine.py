"""A workload becomes a machine: QEMU's command line, and what its first process is told. All of it values."""

from __future__ import annotations

import msgspec
import pytest

from swiftlet.guest import orders, qemu
from swiftlet.guest.driver import FEATURES, MachinePlace, Place
from swiftlet.guest.machine import DEFAULT_MEMORY, OVERHEAD, MachineDriver
from swiftlet.linux.cgroup import Layout
from swiftlet.model.bundle import FIRST_DESCRIPTOR, Bundle, Machine, Rootfs
from swiftlet.model.error import InputError
from swiftlet.model.workload import Resources, Workload
from swiftlet.node import machines

QEMU = Rootfs(("/s/trees/q",), ("q",))
ROOT = Rootfs(("/s/trees/a", "/s/trees/b"), ("a", "b"), {"LANG": "C.UTF-8"}, ("nginx",))
IMAGES = ("/s/cache/images/machine.erofs", "/s/cache/images/a.erofs", "/s/cache/images/b.erofs")
FOUND = MachinePlace(QEMU, "k" * 64, IMAGES, "tcg", "no /dev/kvm", 1_879_048_192)


def plan(volumes: tuple[tuple[str, bool], ...] = (), place: MachinePlace = FOUND, **more: object) -> Bundle:
    where = Place(
        id="a123456789ab", state_dir="/s/guests/a", netns="fd", volumes=volumes, userns=0,
        cgroups=Layout({"": "/sys/fs/cgroup"}, ("cpu", "memory", "pids")), cgroup_folder="swiftlet",
        passwd="root:x:0:0:root:/root:/bin/sh\n", group="root:x:0:\n", seccomp="/s/cache/seccomp/x", machine=place,
    )  # fmt: skip
    return MachineDriver().plan(Workload(templates=("nginx",), kind="vm", **more), ROOT, where)  # type: ignore[arg-type]


def test_an_emulated_kernel_does_not_try_whether_its_timer_is_in_time_nor_patches_its_locks() -> None:
    for counter in (0, 2_100_000):
        emulated, real = (FOUND._replace(accelerator=each, counter_khz=counter) for each in ("tcg", "kvm"))
        assert " no_timer_check" in option(plan(place=emulated), "-append")[0]
        assert " noreplace-smp" in option(plan(place=emulated), "-append")[0]
        assert "noreplace-smp" not in option(plan(place=real), "-append")[0]


def test_a_kernel_whose_drivers_are_modules_gets_its_initramfs_and_a_machine_with_pci() -> None:
    place = FOUND._replace(initramfs=True)
    planned = machine(plan(place=place))
    assert planned.type == "q35" and machine(plan()).type == "microvm"
    assert option(plan(place=place), "-initrd") == ["/machine/initramfs"] and option(plan(), "-initrd") == []
    seen = [path for path, _ in planned.process.volumes]
    assert seen == ["/machine/kernel", "/machine/initramfs", *(f"/machine/{number}.erofs" for number in range(3))]


def machine(bundle: Bundle) -> Machine:
    assert bundle.machine is not None
    return bundle.machine


def option(bundle: Bundle, name: str) -> list[str]:
    words = machine(bundle).process.argv
    return [words[place + 1] for place, word in enumerate(words) if word == name]


def test_the_bundle_tells_of_the_guest_and_its_machine_of_the_process() -> None:
    bundle = plan()
    process = machine(bundle).process
    assert bundle.argv == ("nginx",)
    assert bundle.rootfs == ROOT
    assert process.argv[0] == qemu.PROGRAM
    assert process.rootfs == QEMU
    assert (process.uid, process.capabilities, process.netns) == (1_879_048_192, (), "new")
    assert bundle.userns == 0
    assert MachineDriver().features <= FEATURES


def test_a_bundle_survives_its_way_through_json() -> None:
    bundle = plan(volumes=(("/data", True),), tty=True)
    assert msgspec.json.decode(msgspec.json.encode(bundle), type=Bundle) == bundle


def test_the_guests_memory_is_the_workloads_and_the_process_may_have_more() -> None:
    bundle = plan(resources=Resources(memory=100 << 20, cpus=1.5, pids=7))
    assert machine(bundle).memory == 100 << 20
    assert option(bundle, "-m") == ["100M"]
    assert option(bundle, "-smp") == ["2,sockets=2"]
    writes = dict(bundle.cgroup.writes)
    assert writes["/sys/fs/cgroup/swiftlet/a123456789ab/memory.max"] == str((100 << 20) + OVERHEAD)
    assert bundle.workload.resources.memory == 100 << 20
    assert machine(plan()).memory == DEFAULT_MEMORY


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"resources": Resources(memory=1 << 20)}, "too little"),
        ({"network": "host"}, "host's network"),
        ({"userns": True}, "users"),
    ],
)
def test_what_a_machine_cannot_do_is_refused(more: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(**more)


def test_no_two_options_name_the_same_descriptor_and_each_is_inherited() -> None:
    bundle = plan(volumes=(("/data", True), ("/etc/x.conf", False)), interactive=True)
    names = machine(bundle).descriptors
    told = " ".join(machine(bundle).process.argv)
    numbers = [FIRST_DESCRIPTOR + place for place, name in enumerate(names) if name != "input"]
    for number in numbers:
        assert f"fd={number}," in f"{told}," or f"fd={number} " in f"{told} "
    assert len(set(names)) == len(names)


def test_volumes_are_served_and_a_file_lies_alone_in_the_folder_that_is() -> None:
    bundle = plan(volumes=(("/data", True), ("/etc/x.conf", False)))
    targets = [target for target, _ in machine(bundle).process.volumes]
    assert targets == ["/machine/kernel", *(f"/machine/{n}.erofs" for n in range(3)), "/volume/0", "/volume/1/x.conf"]
    assert machine(bundle).shares == ("/data", "/etc/x.conf")
    assert "share=on" in option(bundle, "-object")[0]


def test_a_machine_with_more_devices_than_microvm_has_room_for_has_a_bus() -> None:
    assert machine(plan(volumes=(("/a", True),))).type == "microvm"
    many = plan(volumes=tuple((f"/v{n}", True) for n in range(3)))
    assert machine(many).type == "q35"
    assert any("virtio-net-pci" in word for word in option(many, "-device"))


def test_what_hangs_a_guest_is_never_asked_for() -> None:
    told = " ".join(machine(plan()).process.argv).replace(" ip=off", "")
    for trap in ("pit=off", "pic=off", "accel=kvm:tcg", "ip=", "mitigations=off"):
        assert trap not in told


def taken(text: str) -> list[tuple[str, list[str]]]:
    """Orders as swiftlet-init takes them apart."""
    found = []
    while text:
        key, count, rest = text[0], int(text[1]), text[2:]
        *fields, text = rest.split("\0", count) if count else [rest]
        assert len(fields) == count
        found.append((key, fields))
    return found


def test_orders_can_be_taken_apart_again_whatever_they_hold() -> None:
    bundle = plan(volumes=(("/data", True), ("/etc/x.conf", False)), env={"A": "1\n2", "B": ""}, command=("x", "", "é"))
    card = orders.Card("02:42:0a:3f:00:02", "10.63.0.2", 16, "10.63.0.1")
    told = taken(orders.start(bundle, machine(bundle), card, {"/etc/hosts": "a\n"}, 5_000_000_007, "ab", {"NOFILE": 7}))
    assert [fields for key, fields in told if key == "a"] == [["x"], [""], ["é"]]
    assert ["A=1\n2"] in [fields for key, fields in told if key == "v"]
    assert ("t", ["5", "7", "start"]) in told
    assert ("n", ["eth0", "02:42:0a:3f:00:02", "10.63.0.2", "255.255.0.0", "10.63.0.1"]) in told
    assert ("m", ["share0", "/data", "virtiofs", "6", ""]) in told
    assert ("b", ["/run/swiftlet/shared/1/x.conf", "/etc/x.conf"]) in told
    assert told[-1] == ("x", [])
    overlay = next(fields for key, fields in told if key == "m" and fields[2] == "overlay")
    assert overlay[4].startswith("lowerdir=/lower/0:/lower/1,")


CARD = orders.Card("02:42:0a:3f:00:02", "10.63.0.2", 16, "10.63.0.1")


def keys(text: str) -> str:
    return "".join(key for key, _ in taken(text))


def test_a_clone_is_told_who_it_is_and_then_to_go_on_at_once_or_in_two_parts() -> None:
    bundle, files = plan(), {"/etc/hosts": "a\n", "/etc/hostname": "b\n"}
    assert keys(orders.resume(bundle, CARD, files, 0, "ab")) == "ffethnFs"
    ahead = taken(orders.ahead(bundle, CARD, files, 0, "ab"))
    assert "".join(key for key, _ in ahead) == "ffethnFRs"
    assert ahead[-3:] == [("F", ["1"]), ("R", ["10.63.0.1"]), ("s", ["ahead"])]
    assert "R" not in keys(orders.ahead(bundle, None, files, 0, "ab"))
    left = taken(orders.go_on(bundle, {}, 5_000_000_007, renamed=False))
    assert left == [("t", ["5", "7"]), ("F", ["0"]), ("s", ["started"])]
    assert keys(orders.go_on(bundle, {"/etc/hosts": "c\n"}, 0, renamed=True)) == "fhtFs"


def test_a_read_only_clone_is_opened_only_where_it_is_told_files() -> None:
    bundle = plan(read_only=True)
    assert keys(orders.go_on(bundle, {}, 0, renamed=False)) == "tFs"
    assert keys(orders.go_on(bundle, {"/etc/hosts": "c\n"}, 0, renamed=False)) == "mfmtFs"
    assert keys(orders.resume(bundle, None, {"/etc/hosts": "c\n"}, 0, "ab")) == "mfmethFs"


def test_what_waits_is_told_later_only_what_has_become_another() -> None:
    before = plan()
    known = {"/etc/hosts": "a\n", "/etc/resolv.conf": "x\n"}
    now = {**known, "/etc/resolv.conf": "y\n"}
    renamed = msgspec.structs.replace(before, hostname="other")
    assert keys(machines.told_after(before, known, before, known)["orders"]) == "tFs"
    told = taken(machines.told_after(renamed, now, before, known)["orders"])
    assert told[:2] == [("f", ["/etc/resolv.conf", "0644", "y\n"]), ("h", ["other"])]


def test_a_further_command_brings_nothing_but_itself() -> None:
    told = taken(orders.command(["id"], {"HOME": "/"}, plan(), {}, terminal=(24, 80)))
    assert {key for key, _ in told} == {"a", "v", "c", "u", "g", "q", "y", "x"}
