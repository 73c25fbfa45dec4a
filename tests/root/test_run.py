"""`swiftlet run` and its neighbours behave as docker's and podman's users expect, with real guests."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.product import COMMAND, Product, eventually
from tests.serving import Serving, needs_controller, serving

pytestmark = [pytest.mark.root, pytest.mark.net]

BUSYBOX = ("-t", "busybox")


def run(product: Product, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """`swiftlet run --rm -t busybox ARGUMENTS`."""
    return product.run("run", "--rm", "-q", *BUSYBOX, *arguments, stdin=stdin)


def shell(product: Product, script: str, *options: str) -> str:
    """What a script wrote that succeeded."""
    done = run(product, *options, "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


# How it ends


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)],
)
def test_the_exit_code_is_the_guests(script: str, code: int, product: Product) -> None:
    # A shell in a shell, for of a signal without a handler the kernel spares process 1.
    assert run(product, "--", "sh", "-c", f"sh -c '{script}'; exit $?").returncode == code


def test_failures_of_swiftlet_itself_are_125_and_of_the_command_126_and_127(product: Product) -> None:
    assert run(product, "--network", "nosuch", "--", "true").returncode == 125
    assert run(product, "--", "/etc").returncode == 126
    done = run(product, "--", "no-such-command")
    assert done.returncode == 127 and "'no-such-command' is not in the guest" in done.stderr
    assert run(product, "--", "sh", "-c", "no-such-command").returncode == 127


@needs_controller("memory")
def test_running_out_of_memory_is_137_and_said(product: Product) -> None:
    fill = "x = []\nwhile True: x.append(b'x' * 1000000)"
    memory = ("run", "-q", "-t", "python@3.11", "--name", "hungry", "-m", "32M")
    done = product.run(*memory, "--", "python3", "-c", fill)
    assert done.returncode == 137
    assert "hungry ran out of memory and was killed" in done.stderr
    facts = product.json("inspect", "hungry")[0]
    assert facts["exit"]["oom"] and "memory" in facts["exit"]["reason"]
    product.ok("rm", "hungry")


@needs_controller("memory")
def test_a_child_that_runs_out_of_memory_leaves_its_guest_running(product: Product) -> None:
    fill = "import subprocess as s; print(s.run(['python3', '-c', 'x = b\"x\" * (1 << 30)']).returncode)"
    done = product.run("run", "--rm", "-q", "-t", "python@3.11", "-m", "64M", "--", "python3", "-c", fill)
    assert (done.returncode, done.stdout) == (0, "-9\n")


# What goes in and comes out


def test_ten_megabytes_through_a_pipe_arrive_whole(product: Product) -> None:
    data = os.urandom(10_000_000)
    command = [COMMAND, "run", "-i", "--rm", "-q", *BUSYBOX, "--", "cat"]
    done = subprocess.run(command, input=data, capture_output=True, env=product.environment, timeout=60)
    assert done.returncode == 0 and done.stdout == data


def test_a_file_as_standard_input_is_read_to_its_end(product: Product, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 300_000)
    command = [COMMAND, "run", "-i", "--rm", "-q", *BUSYBOX, "--", "wc", "-c"]
    with open(tmp_path / "in", "rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, env=product.environment, timeout=60)
    assert done.stdout.strip() == b"300000"


def test_without_i_standard_input_is_empty(product: Product) -> None:
    assert run(product, "--", "cat", stdin="not for the guest").stdout == ""


def test_a_guest_that_is_started_again_may_have_standard_input_again(product: Product) -> None:
    done = product.run("run", "-i", "-q", "--name", "reader", *BUSYBOX, "--", "sh", "-c", "cat; exit 3", stdin="first")
    assert (done.returncode, done.stdout) == (3, "first")
    done = product.run("start", "-a", "-i", "reader", stdin="second")
    assert (done.returncode, done.stdout) == (3, "second"), done.stderr
    done = product.run("start", "-a", "reader", stdin="not for the guest")
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    product.ok("start", "reader")
    assert product.ok("wait", "reader") == "3\n"
    product.ok("rm", "reader")
    done = product.run("run", "-d", "-i", *BUSYBOX, "--", "cat")
    assert done.returncode == 125 and "nobody would write to its standard input" in done.stderr


@pytest.mark.parametrize("options", [(), ("--userns",), ("-u", "1000"), ("--userns", "-u", "1000")])
def test_whoever_the_guest_is_may_open_its_standard_streams(options: tuple[str, ...], product: Product) -> None:
    script = "cat /dev/stdin >/dev/stdout; echo error >/dev/stderr; cat /proc/self/fd/0"
    done = run(product, "-i", *options, "--", "sh", "-c", script, stdin="through")
    assert (done.returncode, done.stdout, done.stderr) == (0, "through", "error\n")
    with serving(product, *options, *BUSYBOX, "--", "sleep", "60") as guest:
        done = product.run("exec", "-i", guest.id, "--", "sh", "-c", script, stdin="through")
        assert (done.returncode, done.stdout, done.stderr) == (0, "through", "error\n")


def test_output_and_errors_are_apart_and_a_closed_pipe_is_141(product: Product) -> None:
    done = run(product, "--", "sh", "-c", "echo out; echo err >&2; printf end")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\nend", "err\n")
    pipe = f"{COMMAND} run --rm -q -t busybox -- yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], env=product.environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "y\n141\n"
    for guest in product.json("ps"):
        product.run("rm", "-f", guest["id"])  # as with docker, it goes on


HANDLERS = """
import signal, sys, time
for number in (1, 2, 15):
    signal.signal(number, lambda number, _: sys.exit(number + 40))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_command_reaches_the_guest(number: int, product: Product) -> None:
    process = product.spawn("run", "--rm", "-q", "-t", "python@3.11", "--", "python3", "-c", HANDLERS)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(20) == number + 40


def test_three_ctrl_c_leave_a_guest_that_does_not_answer_them(product: Product) -> None:
    """Process 1 has no default actions, so most programs do not, with docker either."""
    process = product.spawn("run", "-q", "--name", "deaf", *BUSYBOX, "--", "sleep", "60")
    eventually(lambda: product.json("inspect", "deaf")[0]["state"] == "Running")
    for _ in range(3):
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "deaf does not answer Ctrl-C and goes on running" in errors
    assert product.json("inspect", "deaf")[0]["state"] == "Running"
    product.ok("rm", "-f", "deaf")


# A terminal


class Terminal:
    """A pseudo-terminal of 100 columns and 30 lines with a swiftlet command on it."""

    def __init__(self, product: Product, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            [COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=product.environment,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def read_until(self, text: bytes, seconds: float = 20) -> bytes:
        """Everything up to and with `text`; what follows is kept for the next time."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} did not come, but {self.seen!r}"
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:
                raise AssertionError(f"ended without {text!r}: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def close(self) -> int:
        code = self.process.wait(20)
        os.close(self.master)
        return code


def test_it_gives_a_terminal_with_its_size_and_keys(product: Product) -> None:
    terminal = Terminal(product, "run", "-it", "--rm", "-q", *BUSYBOX, "--", "sh")
    terminal.read_until(b"# ")
    terminal.type(b"tty; stty size; echo $TERM\n")
    assert b"/dev/pts/0\r\n30 100\r\nxterm\r\n" in terminal.read_until(b"xterm\r\n")
    terminal.resize(40, 120)
    time.sleep(0.2)
    terminal.type(b"stty size\n")
    terminal.read_until(b"40 120\r\n")
    terminal.type(b"sleep 60\n")
    time.sleep(0.3)
    terminal.type(b"\x03")
    terminal.type(b"echo code=$?\n")
    terminal.read_until(b"code=130\r\n")
    terminal.type(b"exit 5\n")
    assert terminal.close() == 5


def test_the_detach_keys_leave_the_guest_running_and_attach_comes_back(product: Product) -> None:
    terminal = Terminal(product, "run", "-it", "--name", "shell", "-q", *BUSYBOX, "--", "sh")
    terminal.read_until(b"# ")
    terminal.type(b"X=kept\n\x10\x11")
    terminal.read_until(b"detached")
    assert terminal.close() == 0
    terminal = Terminal(product, "attach", "shell")
    terminal.type(b"echo $X\n")
    terminal.read_until(b"kept\r\n")
    terminal.type(b"exit 6\n")
    assert terminal.close() == 6
    terminal = Terminal(product, "start", "-ai", "shell")
    terminal.read_until(b"# ")
    terminal.type(b"exit 7\n")
    assert terminal.close() == 7
    product.ok("rm", "shell")


def test_exec_it_gives_a_terminal_too(product: Product) -> None:
    with serving(product, *BUSYBOX, "--", "sleep", "100") as guest:
        terminal = Terminal(product, "exec", "-it", guest.id, "--", "sh")
        terminal.read_until(b"# ")
        terminal.type(b"tty; stty size; exit 4\n")
        terminal.read_until(b"30 100\r\n")
        assert terminal.close() == 4


# What the guest is given


def test_variables_folder_and_user(product: Product, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\nFROM_FILE=1\n")
    product.environment["PASSED_ON"] = "here"
    try:
        options = (
            "-e",
            "A=b c",
            "-e",
            "PASSED_ON",
            "-e",
            "NOT_SET",
            "--env-file",
            str(tmp_path / "env"),
            "-w",
            "/new/folder",
        )
        text = shell(product, "env; pwd", *options)
    finally:
        del product.environment["PASSED_ON"]
    lines = text.splitlines()
    assert {"A=b c", "PASSED_ON=here", "FROM_FILE=1", "HOME=/root"} <= set(lines) and "NOT_SET" not in text
    assert lines[-1] == "/new/folder" and not [line for line in lines if line.startswith("SWIFTLET")]
    assert shell(product, "id -u; id -g; echo $HOME", "-u", "12345:678") == "12345\n678\n/\n"
    done = product.run("run", "--rm", "-q", "-t", "nginx@1.22", *BUSYBOX, "-u", "www-data", "--", "id")
    assert done.stdout.startswith("uid=33(www-data) gid=33(www-data)")
    assert "user 'nosuch'" in run(product, "-u", "nosuch", "--", "id").stderr


def test_the_hosts_name_is_the_guests_id_or_what_was_asked_for(product: Product) -> None:
    assert shell(product, "hostname; cat /etc/hostname", "-h", "web.example") == "web.example\nweb.example\n"
    name = shell(product, "hostname").strip()
    assert len(name) == 12 and int(name, 16)


def test_a_read_only_root_with_folders_in_memory(product: Product) -> None:
    script = "touch /file && echo wrote; touch /tmp/file; df -m /tmp | tail -n 1 | awk '{ print $2 }'"
    done = run(product, "--read-only", "--tmpfs", "/tmp:size=3m", "--", "sh", "-c", script)
    assert done.stdout == "3\n" and "Read-only file system" in done.stderr
    customary = "/run:rw,noexec,nosuid,size=64k,mode=700"
    script = "stat -c %a /run; cp /bin/busybox /opt/true && /opt/true; grep -E ' /(run|opt) ' /proc/mounts"
    text = shell(product, script, "--tmpfs", customary, "--tmpfs", "/opt:exec")
    assert text.startswith("700\n") and "size=64k,mode=700" in text
    mounted = {line.split()[1]: line.split()[3].split(",") for line in text.splitlines()[1:]}
    assert "noexec" in mounted["/run"] and "noexec" not in mounted["/opt"] and "nosuid" in mounted["/opt"]
    done = run(product, "--tmpfs", "/run:suid", "--", "true")
    assert done.returncode == 125 and "'suid' is no option of a tmpfs" in done.stderr


def test_a_volume_is_shared_for_writing_or_for_reading(product: Product, tmp_path: Path) -> None:
    script = "cat /data/in; echo out >/data/out; ls -n /data/out | awk '{ print $3 }'"
    (tmp_path / "in").write_text("in\n")
    assert shell(product, script, "-v", f"{tmp_path}:/data") == "in\n0\n"
    assert (tmp_path / "out").read_text() == "out\n"
    done = run(product, "-v", f"{tmp_path}:/data:ro", "--", "sh", "-c", "echo x >/data/other; cat /data/in")
    assert "Read-only file system" in done.stderr and done.stdout == "in\n"
    assert shell(product, "cat /etc/only", "-v", f"{tmp_path}/in:/etc/only:ro") == "in\n", "a single file"


FORKS = """
import os, time
try:
    for number in range(50):
        if not os.fork():
            time.sleep(5)
            os._exit(0)
except OSError as error:
    print(number, error.strerror)
"""

BURN = """
import time
end = time.monotonic() + 1
while time.monotonic() < end:
    pass
print(time.process_time())
"""


@needs_controller("pids")
@needs_controller("cpu")
def test_limits_hold(product: Product) -> None:
    python = ("run", "--rm", "-q", "-t", "python@3.11")
    assert product.ok(*python, "--pids", "20", "--", "python3", "-c", FORKS) == "19 Resource temporarily unavailable\n"
    assert float(product.ok(*python, "--cpus", "0.2", "--", "python3", "-c", BURN)) < 0.45
    assert shell(product, "ulimit -n; ulimit -Hn", "--ulimit", "nofile=77:99") == "77\n99\n"
    assert "no limit 'nosuch'" in run(product, "--ulimit", "nosuch=1", "--", "true").stderr


def is_mapped(guest: Serving) -> bool:
    """Whether its root is nobody on this host."""
    return os.stat(f"/proc/{guest.facts['pid']}").st_uid >= 65536


def test_python_with_user_ids_of_its_own_is_root_inside_and_nobody_outside(product: Product) -> None:
    code = "import os, time; print(os.getuid(), flush=True); open('/f', 'w'); time.sleep(60)"
    with serving(product, "--userns", "-t", "python@3.11", "--", "python3", "-c", code) as guest:
        eventually(lambda: product.ok("logs", guest.id) == "0\n")
        assert is_mapped(guest)
        assert guest.run("python3", "-c", "import os; print(os.stat('/f').st_uid, os.getuid())").stdout == "0 0\n"


@pytest.mark.parametrize("user", ["b", "1000", "c", "root:g", "d"])
def test_a_row_that_a_guest_wrote_makes_nobody_the_hosts_root(user: str, product: Product) -> None:
    number = 0xFFFFFFFF
    passwd = f"root:x:0:0::/:\\nb:x:{number}:{number}::/:\\nc:x:1000:{number}::/:\\nd:x:1:1::/:\\n"
    script = f"printf '{passwd}' >/etc/passwd; printf 'g:x:{number}:d\\n' >/etc/group; echo ready; exec sleep 60"
    with serving(product, "--userns", *BUSYBOX, "--", "sh", "-c", script) as guest:
        eventually(lambda: product.ok("logs", guest.id) == "ready\n")
        done = product.run("exec", "-u", user, guest.id, "--", "id")
        assert (done.returncode, done.stdout) == (125, "") and "is above 65535" in done.stderr, done


def test_redis_with_user_ids_of_its_own_keeps_what_it_is_given(product: Product) -> None:
    command = ("redis-server", "--dir", "/tmp")
    with serving(product, "--userns", "-t", "deb:redis-server", "--", *command) as guest:
        eventually(lambda: guest.run("redis-cli", "PING").stdout == "PONG\n")
        assert is_mapped(guest)
        assert guest.run("redis-cli", "SET", "a", "b").stdout == "OK\n"
        assert guest.run("redis-cli", "SAVE").stdout == "OK\n"


def test_nginx_with_user_ids_of_its_own_drops_its_own_root(product: Product) -> None:
    with serving(product, "--userns", "-t", "nginx@1.22", "-p", "127.0.0.1::80") as guest:
        assert guest.page(80)[0] == 200 and is_mapped(guest)
        assert '"GET / HTTP/1.1" 200' in product.ok("logs", guest.id)


# Networks


def test_guests_on_the_bridge_reach_one_another(product: Product) -> None:
    with serving(product, *BUSYBOX, "--", "httpd", "-f", "-p", "80", "-h", "/etc") as guest:
        address = guest.facts["address"]
        fetch = f"for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://{address}/hostname && exit; sleep 0.2; done"
        assert shell(product, fetch) == f"{guest.id[:12]}\n"
        assert shell(product, "hostname -i").startswith(address.rpartition(".")[0])


def known_host() -> str:
    """A name that this host finds: of where its packages come from."""
    sources = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True)
    for line in sources.stdout.splitlines():
        name = line.partition("://")[2].partition("/")[0].partition(":")[0]
        try:
            socket.gethostbyname(name)
        except OSError:
            continue
        return name
    return pytest.skip("host lacks: a network address for any of its package sources")


def test_guests_on_the_bridge_find_the_names_that_the_host_finds(product: Product) -> None:
    code = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    found = product.ok("run", "--rm", "-q", "-t", "python@3.11", "--", "python3", "-c", code, known_host())
    assert ipaddress.ip_address(found.strip())


def test_no_network_has_loopback_alone_and_the_hosts_is_the_hosts(product: Product) -> None:
    assert shell(product, "ls /sys/class/net", "--network", "none") == "lo\n"
    found = set(shell(product, "ls /sys/class/net", "--network", "host").split())
    assert product.instance.bridge in found
    # Bridges and veth pairs of installations come and go.
    assert {name for name in found ^ set(os.listdir("/sys/class/net")) if not name.startswith("swl")} == set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ask = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        python = ("-t", "python@3.11", "--", "python3", "-c", ask)
        assert product.run("run", "--rm", "-q", "--network", "host", *python).returncode == 0
        for network in ("none", "bridge"):
            done = product.run("run", "--rm", "-q", "--network", network, *python)
            assert done.returncode == 1 and "ConnectionRefusedError" in done.stderr


# A guest's life


def test_a_guest_by_its_name_from_start_to_removal(product: Product) -> None:
    script = (
        "echo $(($(cat /runs 2>/dev/null || echo 0) + 1)) >/runs; cat /runs; "
        "trap 'echo asked; exit 8' TERM; while :; do sleep 0.1; done"
    )
    product.ok("run", "-d", "-q", "--name", "life", *BUSYBOX, "--", "sh", "-c", script)
    follower = product.spawn("logs", "-f", "life")
    assert follower.stdout is not None and follower.stdout.readline() == "1\n"
    waiter = product.spawn("wait", "life")
    product.ok("stop", "life")
    assert follower.communicate(timeout=10)[0] == "asked\n", "logs -f ends with its guest"
    assert waiter.communicate(timeout=10)[0] == "8\n"
    assert product.json("inspect", "life")[0]["exit"]["code"] == 8
    product.ok("start", "life")
    eventually(lambda: product.ok("logs", "life") == "1\nasked\n2\n")
    assert product.run("rm", "life").returncode == 125, "it runs"
    product.ok("kill", "life")
    eventually(lambda: product.json("inspect", "life")[0]["state"] == "Stopped")
    states = [change["to"] for change in product.json("inspect", "life")[0]["journal"]]
    assert states == ["Generating", "Generated", "Running", "Stopped", "Generated", "Running", "Stopped"]
    ended = product.json("inspect", "life")[0]["exit"]
    assert (ended["code"], ended["signal"], ended["oom"]) == (137, 9, False)
    product.ok("rm", "life")
    assert product.run("inspect", "life").returncode == 125


def test_what_a_guest_wrote_is_there_when_it_starts_again(product: Product) -> None:
    with serving(product, *BUSYBOX, "--", "sh", "-c", "cat /kept; echo line >>/kept; exit 2") as guest:
        assert product.ok("wait", guest.id) == "2\n"
        done = product.run("start", "-a", guest.id)
        assert (done.returncode, done.stdout) == (2, "line\n")


def test_rm_removes_all_of_a_guest_when_it_ends(product: Product) -> None:
    before = sorted(os.listdir(f"{product.instance.root}/guests"))
    run(product, "--name", "passing", "--", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=20")
    eventually(lambda: sorted(os.listdir(f"{product.instance.root}/guests")) == before)
    assert "passing" not in product.ok("ps", "-a") and not os.path.lexists(f"{product.instance.root}/names/passing")


def test_kill_sends_the_signal_that_is_named(product: Product) -> None:
    script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done"
    with serving(product, *BUSYBOX, "--", "sh", "-c", script) as guest:
        eventually(lambda: product.ok("logs", guest.id) == "ready\n")
        product.ok("kill", "-s", "HUP", guest.id)
        eventually(lambda: product.ok("logs", guest.id) == "ready\nhup\n")
        product.ok("stop", "--timeout", "0", guest.id)
        assert product.ok("wait", guest.id) == "137\n"


def test_exec_is_in_the_guest_with_its_variables_and_gives_its_own_code(product: Product) -> None:
    with serving(product, *BUSYBOX, "-e", "A=guest", "-w", "/tmp", "--", "sleep", "100") as guest:
        done = product.run(
            "exec", "-i", "-e", "B=exec", guest.id, "--", "sh", "-c", "cat; echo $A $B; pwd; exit 9", stdin="in\n"
        )
        assert (done.returncode, done.stdout) == (9, "in\nguest exec\n/tmp\n"), done.stderr
        assert product.run("exec", "-u", "7", guest.id, "--", "id", "-u").stdout == "7\n"
        assert product.run("exec", guest.id, "--", "nosuch").returncode == 127
        assert json.loads(product.ok("inspect", guest.id))[0]["state"] == "Running"
