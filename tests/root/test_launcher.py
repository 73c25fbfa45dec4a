"""The launcher starts guests, passes what they write, and tells how they end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from swiftlet.guest.logindex import RECORD
from swiftlet.linux import mount
from tests.launching import TestLauncher

pytestmark = pytest.mark.root


def read_all(fd: int) -> bytes:
    found = b""
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:
            return found
        if not data:
            return found
        found += data


def run_exec(launcher: TestLauncher, id_: str, number: str, argv: list[str], **more: Any) -> tuple[Any, Any]:
    request = {
        "id": id_, "exec": number, "argv": argv, "env": {"PATH": "/bin"}, "cwd": "/", "uid": 0, "gid": 0, "groups": [],
        "tty": False, "capabilities": [0, 1], "seccomp": "", "rlimits": {}, "userns": 0, "roles": [], **more,
    }  # fmt: skip
    return launcher.request("exec", request)


def log_worker(launcher: TestLauncher) -> int:
    found = subprocess.run(["pgrep", "-P", str(launcher.process.pid), "swiftlet-logs"], capture_output=True, text=True)
    return int(found.stdout)


def test_output_and_exit_code_arrive(launcher: TestLauncher, busybox_root: str) -> None:
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert launcher.run(bundle) == (3, "out\n", "err\n")
    with open(f"{bundle['state_dir']}/exit.json") as file:
        leaving = json.load(file)
    assert leaving["code"] == 3
    assert leaving["usage"]["cpu_ns"] > 0


def test_a_guest_finds_every_signal_at_its_default(busybox_root: str, tmp_path: Path) -> None:
    """The launcher ignores some, and whoever typed the first command may have ignored or blocked others."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN), signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        launcher = TestLauncher(str(tmp_path), f"swiftlet-test-{os.getpid()}")
    finally:
        signal.signal(signal.SIGQUIT, before[0])
        signal.pthread_sigmask(signal.SIG_SETMASK, before[1])
    show = ["grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"]
    try:
        code, text, _ = launcher.run(launcher.bundle("a", [busybox_root], show))
        assert code == 0 and [int(line.split()[1], 16) for line in text.splitlines()] == [0, 0, 0], text
        launcher.start(launcher.bundle("b", [busybox_root], ["sleep", "60"]))
        _, ends = run_exec(launcher, "b", "1", show)
        text = read_all(ends[1]).decode()
        assert [int(line.split()[1], 16) for line in text.splitlines()] == [0, 0, 0], text
    finally:
        launcher.close()


def test_a_launcher_that_cannot_even_write_its_log_keeps_its_guests(busybox_root: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/launcher.log").symlink_to("/dev/full")
    launcher = TestLauncher(str(tmp_path), f"swiftlet-test-{os.getpid()}")
    try:
        bundle = launcher.bundle("a", [busybox_root], ["sleep", "0.2"])
        launcher.start(bundle)
        shutil.rmtree(bundle["state_dir"])  # so that there is something to complain of
        assert launcher.exited("a")["code"] == 0
        assert launcher.request("list", {})[0]["parameters"]["guests"] == {}
    finally:
        launcher.close()


def test_a_command_that_is_not_there_is_127_and_leaves_nothing(launcher: TestLauncher, busybox_root: str) -> None:
    message, _ = launcher.start(launcher.bundle("a", [busybox_root], ["nosuch"]))
    assert message["error"]["kind"] == "CommandNotFoundError"
    assert launcher.request("list", {})[0]["parameters"]["guests"] == {}


def test_a_script_whose_interpreter_is_missing_says_which(launcher: TestLauncher, busybox_root: str) -> None:
    bundle = launcher.bundle("a", [busybox_root], ["/etc/script"])
    os.makedirs(f"{bundle['state_dir']}/upper/etc")
    with open(f"{bundle['state_dir']}/upper/etc/script", "w") as file:
        file.write("#!/usr/bin/perl -w\n")
    os.chmod(f"{bundle['state_dir']}/upper/etc/script", 0o755)
    assert "/usr/bin/perl" in launcher.start(bundle)[0]["error"]["message"]


def test_a_guest_sees_only_itself(launcher: TestLauncher, busybox_root: str) -> None:
    script = "echo $$; ps > /tmp/ps; wc -l < /tmp/ps; hostname; ls /sys/class/net; grep -vc ':/$' /proc/self/cgroup"
    _, out, err = launcher.run(launcher.bundle("alone", [busybox_root], ["sh", "-c", script]))
    assert err == ""
    assert out.split() == ["1", "3", "alone", "lo", "0"]


def test_docker_capabilities_no_new_privs_and_no_descriptor_of_ours(launcher: TestLauncher, busybox_root: str) -> None:
    script = "grep -E 'Cap|NoNew' /proc/self/status; ls /proc/$$/fd; cat /proc/$$/stat"
    _, out, _ = launcher.run(launcher.bundle("a", [busybox_root], ["sh", "-c", script]))
    lines = out.split("\n")
    assert [line.split()[1] for line in lines[:6]] == ["0" * 16, *["00000000a80425fb"] * 3, "0" * 16, "1"]
    assert lines[6:9] == ["0", "1", "2"]
    assert lines[9].startswith("1 ("), "no fourth descriptor"


def test_a_terminal_is_the_guests_own(launcher: TestLauncher, busybox_root: str) -> None:
    script = "tty; test -c /dev/console && read x; echo got $x; stat -c %t,%T /dev/console"
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", script], tty=True)
    _, (pidfd, console, output) = launcher.start(bundle, attach=True)
    fcntl.ioctl(console, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    assert os.read(output, 100) == b"/dev/pts/0\r\n"
    os.write(console, b"hello\n")
    assert read_all(output).decode().split() == ["hello", "got", "hello", "88,0"]
    assert launcher.exited("a")["code"] == 0
    for fd in (pidfd, console, output):
        os.close(fd)


def test_exec_joins_the_guest(launcher: TestLauncher, busybox_root: str) -> None:
    launcher.start(launcher.bundle("a", [busybox_root], ["sleep", "100"]))
    _, fds = run_exec(
        launcher,
        "a",
        "1",
        ["sh", "-c", "ps > /tmp/ps; wc -l < /tmp/ps; hostname; grep CapEff /proc/self/status; exit 5"],
    )
    assert read_all(fds[1]).decode().split() == ["4", "a", "CapEff:", "0000000000000003"]
    assert launcher.exited("a", "1")["code"] == 5
    assert run_exec(launcher, "a", "2", ["nope"])[0]["error"]["kind"] == "CommandNotFoundError"
    _, fds = run_exec(launcher, "a", "3", ["sh", "-c", "tty"], tty=True)
    assert read_all(fds[1]) == b"/dev/pts/0\r\n"


def test_an_exec_ends_with_its_guest(launcher: TestLauncher, busybox_root: str) -> None:
    launcher.start(launcher.bundle("a", [busybox_root], ["sleep", "100"]))
    run_exec(launcher, "a", "1", ["sleep", "100"])
    launcher.request("kill", {"id": "a"})
    assert launcher.exited("a", "1")["signal"] == signal.SIGKILL
    leaving = launcher.exited("a")
    assert (leaving["code"], leaving["reason"]) == (137, "killed by SIGKILL")


def test_nothing_is_lost_when_the_log_worker_is_killed(launcher: TestLauncher, busybox_root: str) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; sleep 0.2; echo last"
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", script])
    launcher.start(bundle)
    for _ in range(10):
        os.kill(log_worker(launcher), signal.SIGKILL)
        time.sleep(0.02)
    assert launcher.exited("a")["code"] == 0
    with open(f"{bundle['state_dir']}/stdout") as file:
        text = file.read()
    assert text.split("\n") == [*(f"line {number}" for number in range(2000)), "last", ""]
    with open(f"{bundle['state_dir']}/index", "rb") as index:
        assert sum(n for _, n, stream in RECORD.iter_unpack(index.read()) if stream < 3) == len(text)


def test_an_attached_command_gets_all_that_the_log_gets(launcher: TestLauncher, busybox_root: str) -> None:
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", "seq 1 200000"])
    _, fds = launcher.start(bundle, attach=True)
    copied = read_all(fds[1])
    assert launcher.exited("a")["code"] == 0
    with open(f"{bundle['state_dir']}/stdout", "rb") as file:
        assert file.read() == copied
    assert copied.endswith(b"\n200000\n")


def test_an_attached_command_that_does_not_read_harms_no_other_guest(launcher: TestLauncher, busybox_root: str) -> None:
    stuck = launcher.bundle("stuck", [busybox_root], ["sh", "-c", "yes | head -c 10000000"])
    _, fds = launcher.start(stuck, attach=True)
    time.sleep(0.1)
    assert launcher.run(launcher.bundle("other", [busybox_root], ["echo", "fine"]))[1] == "fine\n"
    for fd in fds:
        os.close(fd)
    assert launcher.exited("stuck")["code"] == 0


def test_out_of_memory_is_told(launcher: TestLauncher, busybox_root: str) -> None:
    bundle = launcher.bundle(
        "a", [busybox_root], ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"], limits={"memory": 16 << 20}
    )
    launcher.start(bundle)
    leaving = launcher.exited("a")
    assert (leaving["code"], leaving["oom"], leaving["reason"]) == (137, True, "out of memory")


def test_a_limit_of_memory_that_is_too_low_to_set_a_guest_up_is_named(
    launcher: TestLauncher, busybox_root: str
) -> None:
    bundle = launcher.bundle("a", [busybox_root], ["true"], limits={"memory": 128 << 10})
    error = launcher.start(bundle)[0]["error"]
    assert "killed while it was being set up" in error["message"] and "raise --memory" in error["hint"]


def test_a_fork_bomb_stops_at_the_pids_limit(launcher: TestLauncher, busybox_root: str) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait"
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", script], limits={"pids": 5})
    _, _, err = launcher.run(bundle)
    assert "fork" in err


def test_read_only_root_and_limits_and_folder(launcher: TestLauncher, busybox_root: str) -> None:
    bundle = launcher.bundle(
        "a", [busybox_root], ["sh", "-c", "touch /x; touch /tmp/y && echo tmp; ulimit -n; pwd; id -u"],
        read_only=True, tmpfs=["/tmp"], rlimits={"NOFILE": [64, 64]}, cwd="/root", uid=1000, gid=1000,
    )  # fmt: skip
    _, out, err = launcher.run(bundle)
    assert out.split() == ["tmp", "64", "/root", "1000"]
    assert "Read-only file system" in err


def test_user_namespace_maps_root_to_nobody_of_the_host(launcher: TestLauncher, busybox_root: str) -> None:
    script = (
        "cat /proc/self/uid_map; touch /made; ls -ln /bin/busybox | head -c 40; echo; grep CapEff /proc/self/status"
    )
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", script], userns=300000)
    code, out, err = launcher.run(bundle)
    assert (code, err) == (0, "")
    assert out.split()[:3] == ["0", "300000", "65536"]
    assert os.stat(f"{bundle['state_dir']}/upper/made").st_uid == 300000
    assert os.stat(f"{busybox_root}/usr/bin/busybox").st_uid == 0


@pytest.mark.parametrize("userns", [0, 300000])
def test_a_terminal_is_its_users_and_of_group_tty(launcher: TestLauncher, busybox_root: str, userns: int) -> None:
    script = "stat -c %u:%g:%a /dev/console /dev/pts/0 /dev/pts/ptmx"
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", script], tty=True, userns=userns)
    launcher.start(bundle)
    assert launcher.exited("a")["code"] == 0
    with open(f"{bundle['state_dir']}/stdout") as file:
        assert file.read().split() == ["0:5:620", "0:5:620", "0:0:666"]


def test_a_killed_launcher_takes_no_log_with_it(launcher: TestLauncher, busybox_root: str) -> None:
    """Its guests are found and killed by their control group; the log stays."""
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", "echo before; sleep 100"])
    launcher.start(bundle)
    deadline = time.monotonic() + 5
    while not os.path.getsize(f"{bundle['state_dir']}/stdout") and time.monotonic() < deadline:
        time.sleep(0.01)
    with open(f"{bundle['state_dir']}/stdout") as file:
        assert file.read() == "before\n"


def test_hostile_requests_are_refused(launcher: TestLauncher, busybox_root: str) -> None:
    assert launcher.request("nosuch", {})[0]["error"]["kind"] == "WireError"
    assert "lacks" in launcher.request("start", {})[0]["error"]["message"]
    assert launcher.request("kill", {"id": "../../x"})[0]["error"]["kind"] == "ConflictError"
    assert launcher.run(launcher.bundle("a", [busybox_root], ["true"]))[0] == 0


def test_a_component_is_inserted_whole_or_not_at_all(
    launcher: TestLauncher, busybox_root: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = tmp_path_factory.mktemp("component")
    (tree / "tool").write_text("#!/bin/sh\necho the tool\n")
    (tree / "tool").chmod(0o755)
    launcher.start(launcher.bundle("a", [busybox_root], ["sleep", "100"]))

    def insert(number: str, links: list[list[str]]) -> Any:
        fd = os.open(tree, os.O_PATH)
        mounted = mount.clone_tree(fd)
        mount.set_mount_attributes(mounted, set_=mount.ATTR_RDONLY | mount.ATTR_NOSUID | mount.ATTR_NODEV)
        request = {"id": "a", "exec": number, "place": f"/run/inserted/{number}", "links": links}
        reply = launcher.request("insert", request, (mounted,))[0]
        os.close(mounted)
        os.close(fd)
        if "error" not in reply:
            assert launcher.exited("a", number)["code"] == 0
        return reply

    bad = insert("1", [["/usr/bin/new", "/run/inserted/1/tool"], ["/usr/bin/ls", "/run/inserted/1/tool"]])
    assert bad["error"]["kind"] == "ConflictError"
    assert not os.path.lexists(f"{launcher.root}/guests/a/upper/usr/bin/new")
    assert "error" not in insert("2", [["/usr/bin/new", "/run/inserted/2/tool"]])
    _, fds = run_exec(
        launcher, "a", "3", ["sh", "-c", "new; touch /run/inserted/2/x || grep -c ' /run/inserted' /proc/mounts"]
    )
    assert read_all(fds[1]).decode().split() == ["the", "tool", "1"]


def test_a_guest_has_the_usual_soft_limit_of_descriptors(launcher: TestLauncher, busybox_root: str) -> None:
    """The launcher's own is higher; programs that use select(2) break with more than 1024."""
    assert launcher.run(launcher.bundle("a", [busybox_root], ["sh", "-c", "ulimit -n"]))[1] == "1024\n"
