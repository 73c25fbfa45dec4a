"""Known ways out of a container, each tried: the host must be as before and the guest refused or kept inside."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from swiftlet.linux import mount
from tests.launching import TestLauncher
from tests.root.test_launcher import read_all, run_exec

pytestmark = pytest.mark.root


def volume(path: str, *, read_only: bool = False) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    tree = mount.clone_tree(fd)
    os.close(fd)
    flags = mount.ATTR_NOSUID | mount.ATTR_NODEV | (mount.ATTR_RDONLY if read_only else 0)
    mount.set_mount_attributes(tree, set_=flags)
    return tree


def test_the_interpreter_that_enters_guests_cannot_be_written(launcher: TestLauncher, busybox_root: str) -> None:
    """CVE-2019-5736: a guest that gets hold of /proc/PID/exe finds a sealed copy, not the host's file."""
    exe = f"/proc/{launcher.process.pid}/exe"
    assert os.readlink(exe).startswith("/memfd:")
    with pytest.raises(OSError):
        os.open(exe, os.O_WRONLY)
    with open(exe, "rb") as file:
        assert fcntl.fcntl(file.fileno(), fcntl.F_GET_SEALS) & 0xF == 0xF
    script = "for i in $(seq 300); do for p in /proc/[0-9]*; do dd if=/dev/zero of=$p/exe count=1 2>>/tmp/e; done; done"
    launcher.start(launcher.bundle("a", [busybox_root], ["sh", "-c", script]))
    upper = f"{launcher.root}/guests/a/upper"
    with open(f"{upper}/evil", "w") as file:
        file.write("#!/proc/self/exe\n")
    os.chmod(f"{upper}/evil", 0o755)
    for number in range(20):
        _, fds = run_exec(launcher, "a", str(number), ["/evil"])
        for fd in fds:
            os.close(fd)
    assert launcher.process.poll() is None
    launcher.request("kill", {"id": "a"})
    launcher.exited("a")


def test_a_working_folder_by_a_magic_link_is_refused(launcher: TestLauncher, busybox_root: str) -> None:
    """CVE-2024-21626."""
    for number in range(3, 12):
        bundle = launcher.bundle(f"a{number}", [busybox_root], ["pwd"], cwd=f"/proc/self/fd/{number}")
        assert "error" in launcher.start(bundle)[0]


def test_a_guest_started_again_cannot_lead_mounts_astray(launcher: TestLauncher, busybox_root: str) -> None:
    """CVE-2025-31133 and its kin: /dev, /proc and /sys replaced by links before the next start."""
    for name in ("dev", "proc", "sys"):
        bundle = launcher.bundle(f"a-{name}", [busybox_root], ["true"])
        upper = f"{bundle['state_dir']}/upper"
        os.mknod(f"{upper}/{name}", 0o600 | 0o020000, 0)  # a whiteout of the lower folder
        os.unlink(f"{upper}/{name}")
        os.symlink("/etc", f"{upper}/{name}")
        message = launcher.start(bundle)[0]["error"]["message"]
        assert "not a folder" in message


def test_volume_targets_stay_inside(
    launcher: TestLauncher, busybox_root: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """CVE-2021-30465: links on the way to a volume's place resolve inside the guest."""
    source = tmp_path_factory.mktemp("source")
    (source / "file").write_text("from the volume")
    marker = f"/etc/swiftlet-test-{os.getpid()}"
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", "cat /link/*/file; ls /etc"])
    os.symlink("/../../../../../../etc", f"{bundle['state_dir']}/upper/link")
    bundle["volumes"] = [[f"/link/{os.path.basename(marker)}", True]]
    message, _ = launcher.start(bundle, ("volume",), (volume(str(source)),))
    assert "error" not in message, message
    assert launcher.exited("a")["code"] == 0
    with open(f"{bundle['state_dir']}/stdout") as file:
        assert file.read().startswith("from the volume")
    assert not os.path.exists(marker)


def test_a_volume_carries_no_device_and_no_set_uid(
    launcher: TestLauncher, busybox_root: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("source")
    os.mknod(source / "mem", 0o666 | 0o020000, os.makedev(1, 5))
    script = "dd if=/v/mem of=/dev/null count=1 || echo refused; mount | grep ' /v ' | grep -c nosuid"
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", script], volumes=[["/v", True]])
    launcher.start(bundle, ("volume",), (volume(str(source)),))
    launcher.exited("a")
    with open(f"{bundle['state_dir']}/stdout") as file:
        assert file.read().split() == ["refused", "1"]


def test_a_read_only_volume_stays_read_only(
    launcher: TestLauncher, busybox_root: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("source")
    script = "touch /v/x; mount -o remount,rw /v; mount -o remount,bind,rw /v; umount /v; touch /v/x; ls /v"
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", script], volumes=[["/v", True]])
    launcher.start(bundle, ("volume",), (volume(str(source), read_only=True),))
    launcher.exited("a")
    assert os.listdir(source) == []


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs x /mnt",
        "mount -o remount,rw /proc/sys",
        "umount /proc/keys",
        "umount /proc/sys",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/fs/cgroup/memory/cgroup.procs",
        "mknod /tmp/disk b 8 0 && dd if=/tmp/disk of=/dev/null count=1",
        "mknod /tmp/mem c 1 1 && dd if=/tmp/mem of=/dev/null count=1",
        "cat /proc/kcore",
        "ls /sys/firmware/acpi",
        "hostname other",
        "chmod 777 /proc/self/mem && dd if=/dev/zero of=/dev/kmsg count=1",
    ],
)
def test_root_in_a_guest_cannot(launcher: TestLauncher, busybox_root: str, attempt: str) -> None:
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", attempt])
    code, out, _ = launcher.run(bundle)
    assert code != 0, out


def test_guests_cannot_see_signal_or_trace_one_another(launcher: TestLauncher, busybox_root: str) -> None:
    launcher.start(launcher.bundle("victim", [busybox_root], ["sleep", "100"]))
    pid = launcher.request("list", {})[0]["parameters"]["guests"]["victim"]["pid"]
    script = f"kill -9 {pid}; ls /proc/{pid}/root; ls /proc | grep -c '^[0-9]'"
    _, out, err = launcher.run(launcher.bundle("attacker", [busybox_root], ["sh", "-c", script]))
    assert int(out.split()[-1]) <= 3
    assert "No such process" in err
    time.sleep(0.05)
    assert "victim" in launcher.request("list", {})[0]["parameters"]["guests"]
    launcher.request("kill", {"id": "victim"})
    assert launcher.exited("victim")["signal"] == 9


@pytest.mark.parametrize("ids", [{"gid": 0xFFFFFFFF}, {"gid": -1}, {"groups": [0xFFFFFFFF]}])
def test_no_id_leaves_a_process_who_it_is(launcher: TestLauncher, busybox_root: str, ids: dict[str, object]) -> None:
    """To the kernel 4294967295 is -1, "as it is": in a user namespace the host's root or one of its groups."""
    launcher.start(launcher.bundle("a", [busybox_root], ["sleep", "100"], userns=300000))
    message, _ = run_exec(launcher, "a", "1", ["id"], userns=300000, **ids)
    assert "no user or group has the id" in message.get("error", {}).get("message", ""), message


def test_a_terminal_opened_by_exec_is_checked(launcher: TestLauncher, busybox_root: str) -> None:
    """CVE-2025-52565: a guest that covers /dev/pts cannot hand a false terminal to exec."""
    launcher.start(launcher.bundle("a", [busybox_root], ["sleep", "100"], capabilities=list(range(41))))
    _, fds = run_exec(
        launcher, "a", "1", ["sh", "-c", "mount -t tmpfs x /dev/pts; ln -s /etc/passwd /dev/pts/ptmx"],
        capabilities=list(range(41)),
    )  # fmt: skip
    read_all(fds[2])
    launcher.exited("a", "1")
    message, _ = run_exec(launcher, "a", "2", ["sh"], tty=True)
    assert "error" in message
