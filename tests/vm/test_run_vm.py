"""The same workload as a virtual machine: output, exit codes, input, volumes, network, commands in it, its end."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
import urllib.request
from pathlib import Path

import pytest

from swiftlet.guest import console
from tests.product import Product, eventually
from tests.serving import Serving

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

VM = ("run", "--rm", "--as", "vm", "-t", "busybox")


def fetch(url: str) -> bytes:
    """The page at an address, as soon as somebody answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_a_command_has_a_kernel_of_its_own(product: Product) -> None:
    release = product.ok(*VM, "--", "busybox", "uname", "-r").strip()
    assert release.startswith("6.1.")
    assert release != os.uname().release


@pytest.mark.parametrize("code", [0, 1, 127, 128, 200, 255])
def test_the_exit_code_is_the_guests(product: Product, code: int) -> None:
    assert product.run(*VM, "--", "busybox", "sh", "-c", f"exit {code}").returncode == code


def test_a_signal_that_ends_it_is_told_as_a_shell_does(product: Product) -> None:
    assert product.run(*VM, "--", "busybox", "sh", "-c", "kill -11 $$").returncode == 139


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_command_reaches_the_workload(product: Product, number: int) -> None:
    script = f"trap 'exit {number + 40}' INT TERM HUP; echo ready; while :; do sleep 0.1; done"
    process = product.spawn(*VM, "--", "busybox", "sh", "-c", script)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(20) == number + 40


def test_output_and_errors_are_apart_and_whole(product: Product) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo bad >&2"
    done = product.run(*VM, "--", "busybox", "sh", "-c", script)
    assert done.stdout == "".join(f"line {number}\n" for number in range(20000))
    assert done.stderr == "bad\n"


def test_a_reader_that_dawdles_loses_nothing(product: Product) -> None:
    script = "busybox seq 1 100000"
    with product.spawn(*VM, "--", "busybox", "sh", "-c", script) as process:
        assert process.stdout is not None
        time.sleep(2)
        assert process.stdout.read() == "".join(f"{number}\n" for number in range(1, 100001))


def test_input_reaches_it_with_its_end(product: Product) -> None:
    assert product.ok(*VM, "-i", "--", "busybox", "cat", stdin="a\nb" * 5000) == "a\nb" * 5000


def test_without_input_it_reads_the_end_at_once(product: Product) -> None:
    assert product.ok(*VM, "--", "busybox", "cat") == ""


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [("nothing-here", 127, "not in the guest"), ("/etc/passwd", 126, "cannot be executed")],
)
def test_a_command_that_cannot_run_has_the_shells_code(product: Product, command: str, code: int, words: str) -> None:
    done = product.run(*VM, "--", command)
    assert done.returncode == code
    assert words in done.stderr


def test_a_volume_is_the_hosts_folder_and_read_only_where_asked(product: Product, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").write_text("from the host\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "one.conf").write_text("a file\n")
    volumes = ("-v", f"{tmp_path}/in:/in:ro", "-v", f"{tmp_path}/out:/out", "-v", f"{tmp_path}/one.conf:/etc/one.conf")
    script = "cat /in/x /etc/one.conf; echo made > /out/y; chown 33:34 /out/y; touch /in/z || echo read-only"
    done = product.run(*VM, *volumes, "--", "busybox", "sh", "-c", script)
    assert done.stdout == "from the host\na file\nread-only\n"
    assert (tmp_path / "out/y").read_text() == "made\n"
    assert (os.stat(tmp_path / "out/y").st_uid, os.stat(tmp_path / "out/y").st_gid) == (33, 34)


def test_its_user_has_what_a_containers_has(product: Product) -> None:
    script = "id -u; id -g; grep -E 'CapBnd|NoNewPrivs' /proc/self/status; pwd; hostname; echo $X"
    told = product.ok(
        *VM, "-u", "33:34", "-w", "/tmp/new", "-e", "X=y", "--hostname", "me", "--", "busybox", "sh", "-c", script
    )
    assert told.split() == ["33", "34", "CapBnd:", "00000000a80425fb", "NoNewPrivs:", "1", "/tmp/new", "me", "y"]


@pytest.mark.parametrize("volumes", [0, 6])
def test_it_has_the_processors_that_it_was_given_on_either_type_of_machine(
    product: Product, tmp_path: Path, volumes: int
) -> None:
    """With more than eight devices it is a q35, whose firmware tells a kernel of its processors in another way."""
    shared = [f"-v{tmp_path}:/volume/{number}" for number in range(volumes)]
    assert product.ok(*VM, "--cpus", "2", *shared, "--", "busybox", "nproc") == "2\n"


def test_a_service_answers_and_is_operated_as_a_container(product: Product) -> None:
    serve = "echo hello > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"
    product.ok("run", "-d", "--name", "web", *VM[2:], "-p", "127.0.0.1::80", "--", "busybox", "sh", "-c", serve)
    web = Serving(product, "web")
    assert web.page(80) == (200, b"hello\n")
    assert product.run("exec", "web", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7").returncode == 7
    assert product.ok("exec", "-i", "web", "busybox", "rev", stdin="abc\n") == "cba\n"
    shown = product.json("inspect", "web")
    shown = shown[0] if isinstance(shown, list) else shown
    assert "tcg" in json.dumps(shown) or "kvm" in json.dumps(shown)
    assert product.json("ps")[0]["kind"] == "vm"
    assert product.run("stop", "web").returncode == 0
    assert product.json("ps", "-a")[0]["exit"]["code"] == 143
    product.ok("start", "web")
    assert web.page(80) == (200, b"hello\n")
    product.ok("rm", "-f", "web")


def test_commands_run_beside_one_another_up_to_a_number(product: Product) -> None:
    product.ok("run", "-d", "--name", "many", *VM[2:], "--", "busybox", "sleep", "1000")
    running = [product.spawn("exec", "-i", "many", "busybox", "cat") for _ in range(6)]
    for number, each in enumerate(running):
        assert each.stdin is not None
        assert each.stdout is not None
        each.stdin.write(f"{number}\n")
        each.stdin.flush()
        assert each.stdout.readline() == f"{number}\n"
    refused = product.run("exec", "many", "busybox", "true")
    assert refused.returncode != 0
    assert "6 commands run in guest many" in refused.stderr
    for each in running:
        each.communicate()
        assert each.returncode == 0
    assert product.run("exec", "many", "busybox", "true").returncode == 0
    product.ok("rm", "-f", "many")


def test_commands_run_beside_a_workload_that_has_devices_of_its_own(product: Product) -> None:
    script = "busybox mount -t tmpfs none /dev && busybox touch /dev/mine && exec busybox sleep 1000"
    product.ok("run", "-d", "--name", "own", *VM[2:], "--cap-add", "SYS_ADMIN", "--", "busybox", "sh", "-c", script)
    eventually(lambda: product.ok("exec", "own", "busybox", "ls", "/dev", timeout=20) == "mine\n")
    assert "got typed" in resized(product, "exec", "-it", "own", "busybox", "sh", "-c", WAIT + SIZES)
    product.ok("rm", "-f", "own")


def test_a_guest_goes_on_without_the_daemon(product: Product) -> None:
    product.ok("run", "-d", "--name", "on", *VM[2:], "--", "busybox", "sh", "-c", "sleep 3; echo end; exit 9")
    number = product.pid("api.daemon")
    assert number is not None
    os.kill(number, signal.SIGKILL)
    assert product.ok("wait", "on").strip() == "9"
    assert product.ok("logs", "on") == "end\n"
    product.ok("rm", "on")


def test_a_machine_that_is_killed_is_a_guest_that_ended(product: Product) -> None:
    product.ok("run", "-d", "--name", "gone", *VM[2:], "--", "busybox", "sleep", "1000")
    os.kill(product.json("ps")[0]["pid"], signal.SIGKILL)
    assert product.ok("wait", "gone").strip() == "137"
    product.ok("rm", "gone")


def test_a_machine_that_ends_by_itself_says_nothing_of_the_workload(product: Product) -> None:
    """As after a panic: the guest's own reset is the same to QEMU."""
    product.ok("run", "-d", "--name", "reset", *VM[2:], "--cap-add", "ALL", "--", "busybox", "sleep", "1000")
    product.run("exec", "reset", "busybox", "reboot", "-f", timeout=60)
    assert product.ok("wait", "reset").strip() == "255"
    assert "machine ended by itself" in json.dumps(product.json("inspect", "reset"))
    product.ok("rm", "reset")


def resized(product: Product, *arguments: str) -> str:
    """What a command in a terminal of 33 by 99 says when it is made 44 by 111 large and gets a line."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    process = product.spawn(*arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        said = _until(master, "", "33 99")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
        process.send_signal(signal.SIGWINCH)
        said = _until(master, said, "44 111")
        os.write(master, b"typed\n")
        said = _until(master, said, "got typed")
        assert process.wait(60) == 5
        return said
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _until(master: int, said: str, words: str) -> str:
    """What a terminal has said when these words have come. Fails when they do not."""
    end = time.monotonic() + 30
    while words not in said:
        ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
        assert ready, f"{words!r} did not come: {said!r}"
        try:
            said += os.read(master, 1000).decode(errors="replace")
        except OSError:
            raise AssertionError(f"{words!r} did not come: {said!r}") from None
    return said


WAIT = 'while [ "$(busybox stty size 2>&1)" != "33 99" ]; do sleep 0.05; done; '

SIZES = (
    'busybox stty size; while [ "$(busybox stty size)" != "44 111" ]; do sleep 0.05; done; '
    "busybox stty size; read x; echo got $x; exit 5"
)


def test_a_terminal_has_the_size_of_the_users_and_follows_it(product: Product) -> None:
    said = resized(product, *VM, "-it", "--", "busybox", "sh", "-c", WAIT + SIZES)
    assert "got typed" in said
    product.ok("run", "-d", "--name", "screen", *VM[2:], "--", "busybox", "sleep", "1000")
    said = resized(product, "exec", "-it", "screen", "busybox", "sh", "-c", WAIT + SIZES)
    assert "got typed" in said
    product.ok("rm", "-f", "screen")


def test_what_a_kernel_says_does_not_fill_the_hosts_disk(product: Product) -> None:
    lines = console.MOST * 2 // 64
    loop = f"i=0; while [ $i -lt {lines} ]; do echo {'x' * 63}; i=$((i+1)); done; echo the end"
    script = f"({loop}) >/dev/console"
    key = product.ok(
        "run", "-d", "--name", "loud", *VM[2:], "--", "busybox", "sh", "-c", f"{script}; sleep 1000"
    ).strip()
    said = Path(product.environment["SWIFTLET_ROOT"], "guests", key, "console")

    def told() -> bool:
        assert said.stat().st_size < 2 * console.MOST
        return said.read_bytes().rstrip().endswith(b"the end")

    eventually(told, seconds=120)
    product.ok("rm", "-f", "loud")


def test_its_network_is_a_containers(product: Product) -> None:
    inside = "ip -6 -o addr | sed 's/.*inet6//'; ip -4 -o addr show lo; sysctl -n net.ipv4.ip_unprivileged_port_start"
    words = ("--", "busybox", "sh", "-c", inside)
    assert product.ok(*VM, *words) == product.ok("run", "--rm", "-t", "busybox", *words)


def test_clones_answer_as_somebody_else(product: Product) -> None:
    published = ("-p", "127.0.0.1::80")
    product.ok(
        "run", "-d", "--name", "src", *published, *VM[2:], "--", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"
    )
    assert product.ok("snapshot", "src", "ready") == "src:ready\n"
    told = product.ok("run", "--from", "src:ready", "--count", "2", *published).split()
    assert len(told) == 2
    names, machines = set(), set()
    for guest in [each for each in product.json("ps") if each["ports"]]:
        port = guest["ports"][0].split("->")[0].rpartition(":")[2]
        machines.add(fetch(f"http://127.0.0.1:{port}/machine-id"))  # of the first, too: no clone has taken its address
        if guest["name"] == "src":
            continue
        names.add(fetch(f"http://127.0.0.1:{port}/hostname").decode().strip())
        seen = product.ok(
            "exec", guest["id"], "busybox", "sh", "-c", "hostname; head -c 8 /dev/urandom | hexdump; date +%s"
        )
        hostname, *rest = seen.split()
        assert hostname == guest["id"]
        assert abs(int(rest[-1]) - time.time()) < 5
        names.add(" ".join(rest[:-1]))
    assert len(names) == 4
    assert len(machines) == 3
    for guest in product.json("ps"):
        product.ok("rm", "-f", guest["id"])
    product.ok("snapshot", "rm", "src:ready")
    assert product.json("snapshot", "ls") == []


def test_a_clone_is_told_who_it_is_in_files_that_its_workload_has_made_others_of(product: Product) -> None:
    """And what the workload has made of them stays in the machine that goes on."""
    script = (
        "cp /etc/hosts /etc/new; echo 10.9.9.9 mine >> /etc/new; mv /etc/new /etc/hosts; seq 99 >> /etc/hostname; "
        "rm /etc/resolv.conf; mkfifo /etc/resolv.conf; echo done; sleep 1000"
    )
    product.ok("run", "-d", "--name", "src", *VM[2:], "--", "busybox", "sh", "-c", script)
    eventually(lambda: product.ok("logs", "src") == "done\n")
    for _ in range(2):  # the second has files to let go of
        product.ok("snapshot", "src", "here")
        guest = product.ok("run", "--from", "src:here").strip()
        assert product.ok("exec", guest, "busybox", "cat", "/etc/hostname") == f"{guest}\n"
        own = product.ok("exec", guest, "busybox", "cat", "/etc/hosts")
        assert guest in own and "mine" not in own and len(own.splitlines()) == 3
        assert "mine" in product.ok("exec", "src", "busybox", "cat", "/etc/hosts")
        assert product.ok("exec", "src", "busybox", "wc", "-l", "/etc/hostname").split()[0] == "100"
        product.ok("rm", "-f", guest)
        product.ok("snapshot", "rm", "src:here")
    product.ok(
        "exec", "src", "busybox", "sh", "-c", "cp /etc/hosts /etc/new; mv /etc/hosts /etc/old; mv /etc/new /etc/hosts"
    )
    eventually(lambda: product.ok("snapshot", "src", "here", "--now"))  # the command's port goes after its end
    guest = product.ok("run", "--from", "src:here").strip()
    assert guest in product.ok("exec", guest, "busybox", "cat", "/etc/hosts")
    assert "mine" in product.ok("exec", guest, "busybox", "cat", "/etc/old")
    product.ok("rm", "-f", guest, "src")
    product.ok("snapshot", "rm", "src:here")


def test_a_clone_whose_workload_holds_open_what_it_may_not_write_does_not_start(product: Product) -> None:
    """It may write for the moment in which the clone's names are written: a clone that stays so is none."""
    script = "; ".join(
        f"(while :; do (exec 3>>/held{number}; busybox sleep 1000) 2>/dev/null; done) &" for number in range(4)
    )
    script = script.replace("&;", "&") + " wait"
    product.ok("run", "-d", "--name", "src", "--read-only", *VM[2:], "--", "busybox", "sh", "-c", script)
    product.ok("snapshot", "src", "here")
    for _ in range(3):
        done = product.run("run", "--from", "src:here")
        if done.returncode:
            assert done.returncode == 126 and "m none /: Resource busy" in done.stderr, done.stderr
        else:
            guest = done.stdout.strip()
            assert product.run("exec", guest, "busybox", "touch", "/etc/hostname").returncode == 1
            product.ok("rm", "-f", guest)
    product.ok("rm", "-f", "src")
    product.ok("snapshot", "rm", "src:here")


def test_a_clone_of_a_machine_that_may_write_nothing_is_somebody_else_too(product: Product) -> None:
    product.ok("run", "-d", "--name", "src", "--read-only", *VM[2:], "--", "busybox", "sleep", "1000")
    product.ok("snapshot", "src", "here")
    guest = product.ok("run", "--from", "src:here").strip()
    assert product.ok("exec", guest, "busybox", "cat", "/etc/hostname") == f"{guest}\n"
    assert product.run("exec", guest, "busybox", "touch", "/etc/hostname").returncode == 1
    product.ok("rm", "-f", guest, "src")
    product.ok("snapshot", "rm", "src:here")


def test_as_many_processes_as_were_asked_for_whatever_the_kernel_has_itself(product: Product) -> None:
    product.ok("run", "-d", "--name", "few", "--pids", "3", *VM[2:], "--", "busybox", "sh", "-c", "sleep 99 & sleep 99")
    assert product.ok("exec", "few", "busybox", "echo", "third") == "third\n"
    product.ok("exec", "-d", "few", "busybox", "sleep", "99")
    refused = product.run("exec", "few", "busybox", "echo", "fourth", timeout=30)
    assert refused.returncode == 126 and "no process can be made: Resource temporarily unavailable" in refused.stderr
    assert len(product.json("ps")) == 1  # nobody else was hurt
    product.ok("rm", "-f", "few")


@pytest.mark.parametrize("words", [("-p", "127.0.0.1::80"), ("--port", "80")], ids=["published", "named"])
def test_a_snapshot_waits_until_the_service_answers(product: Product, words: tuple[str, ...]) -> None:
    asked = words if words[0] == "--port" else ()
    late = "sleep 3; exec busybox httpd -f -p 80 -h /etc"
    product.ok("run", "-d", "--name", "late", *(() if asked else words), *VM[2:], "--", "busybox", "sh", "-c", late)
    product.ok("snapshot", "late", "now", "--now")
    begin = time.monotonic()
    product.ok("snapshot", "late", "ready", *asked)
    assert time.monotonic() - begin > 1
    for snapshot, answers in (("late:ready", True), ("late:now", False)):
        guest = product.ok("run", "--from", snapshot).strip()
        assert (":80 " in product.ok("exec", guest, "busybox", "netstat", "-lnt")) == answers
        product.ok("rm", "-f", guest)
        product.ok("snapshot", "rm", snapshot)
    product.ok("rm", "-f", "late")


def test_a_snapshot_of_what_never_answers_is_given_up_with_the_reason(product: Product) -> None:
    product.ok("run", "-d", "--name", "short", *VM[2:], "--", "busybox", "sleep", "2")
    done = product.run("snapshot", "short", "ready", "--port", "80")
    assert done.returncode == 125 and "guest short is Stopped, not Running" in done.stderr
    product.ok("rm", "short")
    product.ok("run", "-d", "--name", "lone", "--network", "none", *VM[2:], "--", "busybox", "sleep", "100")
    done = product.run("snapshot", "lone", "ready", "--port", "80")
    assert done.returncode == 125 and "no address of its own to wait at" in done.stderr
    product.ok("rm", "-f", "lone")
    assert product.json("snapshot", "ls") == []


def test_whoever_leaves_while_it_is_waited_for_gets_no_snapshot(product: Product) -> None:
    late = "sleep 4; exec busybox httpd -f -p 80 -h /etc"
    product.ok("run", "-d", "--name", "late", *VM[2:], "--", "busybox", "sh", "-c", late)
    for name, told in (("../up", "not the name of a snapshot"), ("x", "port")):
        asked = product.spawn("snapshot", "late", name, "--port", "80")
        if name == "x":
            with pytest.raises(subprocess.TimeoutExpired):
                asked.communicate(timeout=1)
            asked.send_signal(signal.SIGINT)
            asked.communicate()
        else:
            assert told in asked.communicate()[1]
    product.ok("snapshot", "late", "there", "--port", "80")
    assert [each["name"] for each in product.json("snapshot", "ls")] == ["late:there"]
    product.ok("rm", "-f", "late")
    product.ok("snapshot", "rm", "late:there")


def test_a_collection_takes_nothing_that_the_next_machine_misses(product: Product) -> None:
    for _ in range(2):
        assert product.json("ps", "-a") == []
        product.ok("store", "gc")
        assert product.ok(*VM, "--", "busybox", "echo", "here") == "here\n"


def test_clones_that_would_share_a_port_are_refused_before_one_starts(product: Product) -> None:
    done = product.run("run", "--from", "no:such", "--count", "2", "-p", "8090:80")
    assert done.returncode == 125 and "2 clones cannot all have port 8090" in done.stderr


def test_more_layers_than_a_machine_has_room_for_are_refused(product: Product, tmp_path: Path) -> None:
    for number in range(30):
        shutil.copy("/bin/busybox", tmp_path / f"program{number}")
    for count, answer in ((20, "room\n"), (30, "")):
        words = [word for number in range(count) for word in ("-t", f"host:{tmp_path}/program{number}")]
        done = product.run(*VM, *words, "--", "busybox", "echo", "room")
        assert done.stdout == answer and ("layers, and a machine takes 22" in done.stderr) == (not answer), done.stderr


def test_what_cannot_be_saved_is_refused_with_the_reason(product: Product, tmp_path: Path) -> None:
    product.ok("run", "-d", "--name", "shared", *VM[2:], "-v", f"{tmp_path}:/x", "--", "busybox", "sleep", "1000")
    refused = product.run("snapshot", "shared", "a")
    assert refused.returncode != 0
    assert "volumes" in refused.stderr
    product.ok("rm", "-f", "shared")
    assert "no snapshot" in product.run("run", "--from", "no:such").stderr


def test_kernels_that_are_not_there_are_refused(product: Product) -> None:
    refused = product.run(*VM, "--kernel", "nosuch", "--", "busybox", "true")
    assert refused.returncode != 0
    assert "no kernel nosuch" in refused.stderr


def test_a_kernel_that_is_missing_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    bare = Product(str(tmp_path / "root"))
    refused = bare.run(*VM, "--", "busybox", "true")
    assert refused.returncode == 125
    assert "no kernel has been built here" in refused.stderr
    assert "fetch" not in refused.stderr
    bare.close()


def test_nothing_is_left_of_a_start_that_was_refused(product: Product) -> None:
    eventually(lambda: product.json("ps", "-a") == [])
