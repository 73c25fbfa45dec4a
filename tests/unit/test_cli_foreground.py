"""A guest in the foreground: exit codes, streams, signals, a terminal, and a daemon that dies meanwhile.

The command is a process of its own, as a user starts it; the guest is a real child of a fake daemon.
"""

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.unit import fakenode

ROOT = str(Path(__file__).parents[2])
PATIENCE = 15.0


@pytest.fixture
def node(tmp_path):
    node = fakenode.FakeNode(f"{tmp_path}/run/node.sock")
    yield node
    node.close()


@pytest.fixture
def swiftlet(tmp_path, node):
    """Starts `swiftlet WORDS` with what `subprocess.Popen` takes."""
    script = tmp_path / "swiftlet"
    script.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path[:0] = [{ROOT!r}]\n"
        "from swiftlet.cli.main import run_and_exit\nrun_and_exit()\n"
    )
    script.chmod(0o755)
    started = []

    def start(*words, **options):
        environment = {**os.environ, "SWIFTLET_RUN": f"{tmp_path}/run", "SWIFTLET_ROOT": f"{tmp_path}/root"}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([script, *words], env=environment, **{**streams, **options}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def sh(text):
    return ["run", "-t", "x", "--", "sh", "-c", text]


def read_until(fd, wanted, patience=PATIENCE):
    """What comes from a descriptor until `wanted` is in it."""
    seen = b""
    deadline = time.monotonic() + patience
    while wanted not in seen:
        ready, _, _ = select.select([fd], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"{wanted!r} did not come, only {seen!r}"
        data = os.read(fd, 65536)
        assert data, f"{wanted!r} did not come, only {seen!r}"
        seen += data
    return seen


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_guests_exit_code_is_ours(swiftlet, code):
    assert swiftlet(*sh(f"exit {code}")).wait(PATIENCE) == code


def test_a_guest_that_was_killed_gives_128_and_the_signal(swiftlet):
    assert swiftlet(*sh("kill -KILL $$")).wait(PATIENCE) == 137


def test_nothing_but_the_guests_output_is_printed_each_stream_to_its_own(swiftlet):
    out, err = swiftlet(*sh("echo to out; echo to err >&2")).communicate(timeout=PATIENCE)
    assert (out, err) == (b"to out\n", b"to err\n")


def test_output_that_is_larger_than_every_buffer_arrives_whole(swiftlet):
    process = swiftlet(*sh("head -c 30000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero >&2"))
    out, err = process.communicate(timeout=60)
    assert out == b"x" * 30_000_000 and err == bytes(3_000_000)


def test_output_into_a_file_opened_for_appending_arrives(swiftlet, tmp_path):
    with open(tmp_path / "out", "ab") as file:
        assert swiftlet(*sh("echo one"), stdout=file).wait(PATIENCE) == 0
    assert (tmp_path / "out").read_bytes() == b"one\n"


def test_a_full_disk_is_an_error_and_not_a_lost_line(swiftlet):
    with open("/dev/full", "wb") as full:
        process = swiftlet(*sh("echo one"), stdout=full)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125 and b"No space left" in err


def test_standard_input_goes_to_the_guest_only_with_i(swiftlet, node):
    words = sh("cat; echo end")
    process = swiftlet(words[0], "-i", *words[1:], stdin=subprocess.PIPE)
    assert process.communicate(b"typed\n", timeout=PATIENCE)[0] == b"typed\nend\n"
    process = swiftlet(*words, stdin=subprocess.PIPE)
    assert process.communicate(b"typed\n", timeout=PATIENCE)[0] == b"end\n"
    assert [len(call.fds) for call in node.calls] == [1, 0]


def test_a_pipe_is_handed_over_and_everything_else_is_copied(swiftlet, node, tmp_path):
    words = ["run", "-i", "-t", "x", "--", "sh", "-c", "readlink /proc/self/fd/0; cat"]
    (tmp_path / "input").write_bytes(b"from a file\n" * 100_000)
    with open(tmp_path / "input", "rb") as file:
        link, _, rest = swiftlet(*words, stdin=file).communicate(timeout=PATIENCE)[0].partition(b"\n")
    assert link.startswith(b"pipe:") and rest == b"from a file\n" * 100_000
    assert swiftlet(*words, stdin=subprocess.DEVNULL).communicate(timeout=PATIENCE)[0].startswith(b"pipe:")


def test_a_named_pipe_is_copied_and_stays_the_hosts_own(swiftlet, node, tmp_path):
    """A guest that had it would be made its owner, and could go on with its other readers' bytes."""
    os.mkfifo(tmp_path / "fifo")
    held = os.open(tmp_path / "fifo", os.O_RDWR)
    with open(tmp_path / "fifo", "rb") as reader:
        process = swiftlet("run", "-i", "-t", "x", "--", "sh", "-c", "readlink /proc/self/fd/0; cat", stdin=reader)
    os.write(held, b"through")
    link = read_until(process.stdout.fileno(), b"through").partition(b"\n")[0]
    os.close(held)
    assert process.wait(PATIENCE) == 0
    assert link.startswith(b"pipe:")


def test_root_in_a_guest_cannot_write_to_a_file_that_is_its_standard_input(swiftlet, tmp_path):
    (tmp_path / "passwd").write_text("root\n")
    with open(tmp_path / "passwd", "rb") as file:
        swiftlet("run", "-i", "-t", "x", "--", "sh", "-c", "echo evil >> /proc/self/fd/0", stdin=file).wait(PATIENCE)
    assert (tmp_path / "passwd").read_text() == "root\n"


def test_a_folder_as_standard_input_is_refused():
    """A guest that has a folder's descriptor walks out of its root. Python itself starts with none, too."""
    script = "import os; os.dup2(os.open('/', 0), 0); from swiftlet.cli.feed import open_input; open_input()"
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True)
    assert b"InputError: standard input is a folder" in done.stderr


def test_a_guest_without_a_terminal_never_holds_ours(swiftlet, terminal):
    process = swiftlet(
        "run", "-i", "-t", "x", "--", "sh", "-c", "readlink /proc/self/fd/0; head -n 1", **terminal.streams()
    )
    terminal.wait_for(b"pipe:")
    terminal.type(b"typed\r")
    terminal.wait_for(b"typed\r\ntyped\r\n")
    assert process.wait(PATIENCE) == 0


def test_a_guest_that_does_not_read_its_input_ends_all_the_same(swiftlet, tmp_path):
    with open("/dev/zero", "rb") as endless:
        assert (
            swiftlet("run", "-i", "-t", "x", "--", "sh", "-c", "sleep 0.2; exit 4", stdin=endless).wait(PATIENCE) == 4
        )
        closes = swiftlet("run", "-i", "-t", "x", "--", "sh", "-c", "exec <&-; sleep 0.2; exit 4", stdin=endless)
        assert closes.wait(PATIENCE) == 4


def test_closed_standard_streams_do_not_give_the_guest_our_socket(swiftlet, tmp_path):
    for stream in (0, 1, 2):
        process = swiftlet(*sh("exit 4"), preexec_fn=lambda stream=stream: os.close(stream))
        assert process.wait(PATIENCE) == 4
        process = swiftlet("ps", "--fly", preexec_fn=lambda stream=stream: os.close(stream))
        assert process.wait(PATIENCE) == 125


def test_a_reader_that_leaves_ends_the_command_as_a_shell_expects_and_not_the_guest(swiftlet, node):
    process = swiftlet(*sh("while echo more; do sleep 0.05; done"))
    read_until(process.stdout.fileno(), b"more")
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == b""


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"])
def test_a_signal_goes_to_the_guest_whose_answer_counts(swiftlet, name):
    process = swiftlet(*sh(f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"))
    read_until(process.stdout.fileno(), b"ready")
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.communicate(timeout=PATIENCE)[0] == f"got {name}\n".encode()
    assert process.returncode == 7


def test_a_guest_that_ignores_ctrl_c_can_be_left_by_insisting(swiftlet, node):
    process = swiftlet(*sh("trap '' INT; echo ready; exec sleep 60"))
    read_until(process.stdout.fileno(), b"ready")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.wait(PATIENCE) == 130
    assert b"goes on running" in process.stderr.read()
    assert all(child.poll() is None for child in node.children.values())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_before_the_guest_runs_a_signal_ends_the_command(swiftlet, node, number, code):
    asked = []

    def never(call):
        asked.append(call)
        call.answer({"progress": {"stage": "fetch", "text": "x", "done": 0, "total": 0}}, continues=True)
        assert call.channel.receive() is None
        asked.append("gone")

    node.answers["Run"] = never
    process = swiftlet(*sh("true"))
    while not asked:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(PATIENCE) == code
    assert b"Traceback" not in process.stderr.read()
    time.sleep(0.1)
    assert asked[-1] == "gone"


@pytest.mark.parametrize(
    ("kind", "code"), [("LaunchError", 126), ("CommandNotFoundError", 127), ("NotFoundError", 125), ("HostError", 125)]
)
def test_an_error_of_the_daemon_is_one_line_its_hint_and_its_exit_code(swiftlet, node, kind, code):
    node.answers["Run"] = lambda call: call.error(kind, "it does not\nwork", "try another")
    process = swiftlet(*sh("true"))
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, b"")
    assert err == b"swiftlet: it does not work\n  hint: try another\n"


def test_out_of_memory_is_said(swiftlet, node):
    def oom(call):
        child, ends = fakenode.start_child({"command": ["true"]}, ())
        started = {"id": "ab" * 32, "name": "big", "pid": child.pid}
        call.answer({"started": started}, (os.pidfd_open(child.pid), *ends), continues=True)
        fakenode.exit_of(child)
        call.answer({"exited": {"code": 137, "signal": 9, "oom": True}})
        for end in ends:
            os.close(end)

    node.answers["Run"] = oom
    process = swiftlet(*sh("true"))
    assert b"big ran out of memory" in process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 137


def test_detached_prints_the_id_as_docker_does(swiftlet, node):
    process = swiftlet("run", "-d", "-t", "x", "--", "sleep", "60")
    assert process.communicate(timeout=PATIENCE)[0] == next(iter(node.children))[:12].encode() + b"\n"
    assert process.returncode == 0


def test_exec_returns_the_commands_exit_code(swiftlet, node):
    process = swiftlet("exec", "-i", "web", "--", "sh", "-c", "cat; exit 3", stdin=subprocess.PIPE)
    assert process.communicate(b"in", timeout=PATIENCE)[0] == b"in"
    assert process.returncode == 3
    assert node.parameters_of("Exec")["guest"] == "web"


def test_a_process_that_keeps_the_output_open_does_not_keep_the_command_for_ever(swiftlet):
    began = time.monotonic()
    process = swiftlet("exec", "web", "sh", "-c", "sleep 30 & echo started; exit 4")
    assert process.wait(PATIENCE) == 4
    assert time.monotonic() - began < 10


# The daemon dies.


def test_when_the_daemon_dies_output_goes_on_and_the_exit_code_still_arrives(swiftlet, node, tmp_path):
    process = swiftlet(*sh(f"echo before; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo after; exit 9"))
    read_until(process.stdout.fileno(), b"before")
    node.die()
    node.listen()
    while not any(call.method == "Wait" for call in node.calls):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (9, b"after\n", b"")
    assert node.parameters_of("Wait") == {"guest": next(iter(node.children))}


def test_a_daemon_that_dies_twice_is_followed_twice(swiftlet, node, tmp_path):
    process = swiftlet(*sh(f"echo before; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 9"))
    read_until(process.stdout.fileno(), b"before")
    for count in (1, 2):
        node.die()
        node.listen()
        while sum(call.method == "Wait" for call in node.calls) < count:
            time.sleep(0.01)
    (tmp_path / "go").touch()
    assert process.wait(PATIENCE) == 9


def kernel_keeps_exits():
    from swiftlet.linux.pidfd import exit_status

    child = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(child.pid)
    child.wait()
    known = exit_status(pidfd)
    os.close(pidfd)
    return known == 0


needs_kept_exits = pytest.mark.skipif(not kernel_keeps_exits(), reason="host lacks: PIDFD_INFO_EXIT (Linux 6.15)")


@needs_kept_exits
@pytest.mark.parametrize(("end", "code"), [("exit 9", 9), ("kill -9 $$", 137)])
def test_a_guest_that_the_next_daemon_has_already_removed_has_its_exit_code_from_the_kernel(
    swiftlet, node, tmp_path, end, code
):
    process = swiftlet(*sh(f"echo before; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; {end}"))
    read_until(process.stdout.fileno(), b"before")
    node.answers["Wait"] = lambda call: call.error("NotFoundError", "no such guest")
    node.die()
    node.listen()
    (tmp_path / "go").touch()
    assert process.wait(PATIENCE) == code
    assert process.stderr.read() == b""


@needs_kept_exits
def test_a_daemon_that_cannot_be_started_again_does_not_lose_the_exit_code(swiftlet, node, tmp_path):
    process = swiftlet(*sh(f"echo before; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 9"))
    read_until(process.stdout.fileno(), b"before")
    node.die()
    os.chmod(f"{tmp_path}/run", 0o700)
    os.rename(f"{tmp_path}/run", f"{tmp_path}/gone")
    Path(f"{tmp_path}/run").write_text("no folder, so nothing can be started here")
    (tmp_path / "go").touch()
    try:
        assert process.wait(PATIENCE) == 9
    finally:
        os.unlink(f"{tmp_path}/run")
        node.listen()


@needs_kept_exits
def test_an_exec_whose_daemon_dies_has_its_exit_code_from_the_kernel(swiftlet, node, tmp_path):
    process = swiftlet(
        "exec", "web", "sh", "-c", f"echo before; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo after; exit 6"
    )
    read_until(process.stdout.fileno(), b"before")
    node.die()
    node.listen()
    time.sleep(0.2)
    (tmp_path / "go").touch()
    assert process.communicate(timeout=PATIENCE)[0] == b"after\n"
    assert process.returncode == 6


# Terminals.


class Terminal:
    """A user's terminal: what the screen shows and what is typed."""

    def __init__(self):
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        self.before = termios.tcgetattr(self.slave)

    def streams(self):
        def take():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        return {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, "preexec_fn": take}

    def type(self, data):
        os.write(self.master, data)

    def wait_for(self, wanted):
        return read_until(self.master, wanted)

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def terminal():
    return Terminal()


def test_a_terminal_has_our_size_echoes_once_and_is_restored(swiftlet, terminal):
    process = swiftlet("run", "-it", "-t", "x", "--", "sh", **terminal.streams())
    terminal.type(b"stty size; echo $TERM; exit 5\r")
    assert b"33 99" in terminal.wait_for(b"xterm\r\n")
    assert process.wait(PATIENCE) == 5
    assert terminal.restored()


def test_ctrl_c_in_a_terminal_is_a_key_for_the_guest(swiftlet, terminal):
    process = swiftlet(
        "run", "-it", "-t", "x", "--", "sh", "-c", "trap 'echo caught; exit 8' INT; echo ready; sleep 30 & wait",
        **terminal.streams(),
    )  # fmt: skip
    terminal.wait_for(b"ready")
    assert not terminal.restored()
    terminal.type(b"\x03")
    terminal.wait_for(b"caught")
    assert process.wait(PATIENCE) == 8
    assert terminal.restored()


def test_a_new_window_size_reaches_the_guest(swiftlet, terminal):
    # A trap that takes long may miss the next signal: the first size comes while the second is being set.
    loop = "for i in $(seq 100); do sleep 0.1; if [ $resized ]; then resized=; stty size; fi; done"
    script = f"trap resized=1 WINCH; echo ready; {loop}"
    process = swiftlet("run", "-it", "-t", "x", "--", "bash", "-c", script, **terminal.streams())
    terminal.wait_for(b"ready")
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
    process.send_signal(signal.SIGWINCH)
    terminal.wait_for(b"44 111")


def test_the_detach_keys_leave_the_guest_running_and_the_terminal_restored(swiftlet, terminal, node):
    process = swiftlet("run", "-it", "-t", "x", "--", "sh", "-c", "echo ready; exec sleep 60", **terminal.streams())
    terminal.wait_for(b"ready")
    terminal.type(b"\x10")
    time.sleep(0.1)
    assert process.poll() is None
    terminal.type(b"\x11")
    terminal.wait_for(b"\r\ndetached\r\n")
    assert process.wait(PATIENCE) == 0
    assert terminal.restored()
    assert all(child.poll() is None for child in node.children.values())


def test_a_ctrl_p_that_is_not_followed_by_ctrl_q_reaches_the_guest(swiftlet, terminal):
    process = swiftlet(
        "run", "-it", "-t", "x", "--", "sh", "-c", "stty raw -echo; echo ready; head -c 3 | od -An -c; exit 2",
        **terminal.streams(),
    )  # fmt: skip
    terminal.wait_for(b"ready")
    terminal.type(b"\x10")
    time.sleep(0.05)
    terminal.type(b"ab")
    terminal.wait_for(b"020   a   b")
    assert process.wait(PATIENCE) == 2


def test_a_long_paste_arrives_whole_while_the_guest_echoes_it(swiftlet, terminal):
    """Input and output buffers of a terminal hold 4 KiB each: who writes without reading stands still."""
    size = 200_000
    process = swiftlet(
        "run", "-it", "-t", "x", "--", "sh", "-c",
        f"stty raw -echo; echo ready; head -c {size} | tee /dev/tty | cksum >&2; echo end", **terminal.streams(),
    )  # fmt: skip
    terminal.wait_for(b"ready")
    os.set_blocking(terminal.master, False)
    left, seen = b"abcdefghij" * (size // 10), b""
    deadline = time.monotonic() + 30
    while b"end" not in seen:
        assert time.monotonic() < deadline, (len(left), len(seen))
        readable, writable, _ = select.select([terminal.master], [terminal.master] if left else [], [], 1)
        if readable:
            seen += os.read(terminal.master, 65536)
        if writable:
            try:
                left = left[os.write(terminal.master, left[:1000]) :]
            except BlockingIOError:
                pass
    assert seen.count(b"abcdefghij") == size // 10
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_outside_restores_the_terminal(swiftlet, terminal, number):
    process = swiftlet("run", "-it", "-t", "x", "--", "sh", "-c", "echo ready; exec sleep 60", **terminal.streams())
    terminal.wait_for(b"ready")
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert terminal.restored()


def test_an_error_in_the_middle_restores_the_terminal(swiftlet, terminal, node):
    def fail(call):
        child, ends = fakenode.start_child({"command": ["sh", "-c", "echo ready; sleep 60"], "tty": True}, ())
        node.children["x"] = child
        fds = (os.pidfd_open(child.pid), *ends)
        call.answer({"started": {"id": "ab" * 32, "name": "n", "pid": child.pid}}, fds, continues=True)
        time.sleep(0.5)
        call.error("StoreError", "something broke")

    node.answers["Run"] = fail
    process = swiftlet("run", "-it", "-t", "x", "--", "sh", **terminal.streams())
    terminal.wait_for(b"ready")
    assert not terminal.restored()
    terminal.wait_for(b"something broke")
    assert process.wait(PATIENCE) == 125
    assert terminal.restored()


def test_a_terminal_that_goes_away_ends_the_command(swiftlet, terminal):
    process = swiftlet(
        "run", "-it", "-t", "x", "--", "sh", "-c", "trap '' HUP; echo ready; while sleep 0.05; do echo x; done",
        **terminal.streams(),
    )  # fmt: skip
    terminal.wait_for(b"ready")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert process.wait(PATIENCE) in (129, 141)


def test_tty_without_i_shows_a_terminals_output_and_takes_no_keys(swiftlet, terminal):
    process = swiftlet("run", "--tty", "-t", "x", "--", "sh", "-c", "tty; echo ready", **terminal.streams())
    assert b"/dev/pts" in terminal.wait_for(b"ready")
    assert process.wait(PATIENCE) == 0
    assert terminal.restored()


def test_it_without_a_terminal_is_refused_before_anything_is_asked_of_the_daemon(swiftlet, node):
    process = swiftlet("run", "-it", "-t", "x", "--", "sh")
    assert b"not a terminal" in process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 125
    assert node.calls == []


def test_a_terminals_output_may_go_into_a_pipe(swiftlet, node):
    process = swiftlet("run", "--tty", "-t", "x", "--", "sh", "-c", "echo one; exit 3")
    assert process.communicate(timeout=PATIENCE)[0] == b"one\r\n"
    assert process.returncode == 3
