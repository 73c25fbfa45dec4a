"""`swiftlet logs`: order, tails, times, following, and logs that are damaged."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from swiftlet.cli.logfile import RECORD, Log, tail
from swiftlet.cli.logs import since_ns, timestamp
from tests.unit import fakenode

ROOT = str(Path(__file__).parents[2])
NOON = 1_714_564_800_000_000_000  # 2024-05-01T12:00:00Z


class Written:
    """A log on disk, as the log worker writes it."""

    def __init__(self, folder):
        self.paths = [str(folder / name) for name in ("stdout", "stderr", "index")]
        for path in self.paths:
            open(path, "wb").close()
        self.now = NOON

    def write(self, stream, data, recorded=True):
        with open(self.paths[stream - 1], "ab") as file:
            file.write(data)
        if recorded:
            with open(self.paths[2], "ab") as file:
                file.write(RECORD.pack(self.now, len(data), stream))
        self.now += 1_000_000_000

    def open(self):
        return tuple(os.open(path, os.O_RDONLY) for path in self.paths)


@pytest.fixture
def written(tmp_path):
    return Written(tmp_path)


@pytest.fixture
def node(tmp_path, written):
    state = {"state": "Stopped"}

    def logs(call):
        fds = written.open()
        call.answer(state, fds)
        for fd in fds:
            os.close(fd)

    node = fakenode.FakeNode(f"{tmp_path}/run/node.sock", {"Logs": logs})
    node.state = state
    yield node
    node.close()


@pytest.fixture
def logs(tmp_path, node):
    def run(*words, stderr=subprocess.PIPE):
        command = [sys.executable, "-c", "from swiftlet.cli.main import run_and_exit; run_and_exit()", "logs", *words]
        environment = {**os.environ, "SWIFTLET_RUN": f"{tmp_path}/run", "PYTHONPATH": ROOT}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr)

    return run


def test_each_stream_goes_to_its_own(written, logs):
    written.write(1, b"out 1\n")
    written.write(2, b"err 1\n")
    written.write(1, b"out 2\n")
    assert logs("web").communicate() == (b"out 1\nout 2\n", b"err 1\n")


def test_the_streams_are_interleaved_in_the_order_in_which_they_were_written(written, logs):
    for number in range(10_000):
        written.now = NOON
        with_stream = 1 + number % 3 % 2
        written.write(with_stream, f"line {number} on {with_stream}\n".encode())
    out, _ = logs("web", stderr=subprocess.STDOUT).communicate()
    assert out == b"".join(f"line {n} on {1 + n % 3 % 2}\n".encode() for n in range(10_000))


def test_timestamps_stand_before_each_line_once_and_only_at_its_beginning(written, logs):
    written.write(1, b"begin")
    written.write(2, b"other\n")
    written.write(1, b" end\nnext\n")
    written.write(1, b"last", recorded=False)
    out, err = logs("-t", "web").communicate()
    assert out.splitlines() == [
        b"2024-05-01T12:00:00.000000000Z begin end",
        b"2024-05-01T12:00:02.000000000Z next",
        b"- last",
    ]
    assert err == b"2024-05-01T12:00:01.000000000Z other\n"


def test_since_leaves_out_what_is_older(written, logs):
    written.write(1, b"old\n")
    written.write(1, b"new\n")
    assert logs("--since", "2024-05-01T12:00:01+00:00", "web").communicate()[0] == b"new\n"
    assert logs("--since", str(NOON // 10**9 + 1), "web").communicate()[0] == b"new\n"
    assert logs("--since", "10m", "web").communicate()[0] == b""


def test_durations_count_back_from_now():
    assert abs(since_ns("1h30m") / 1e9 - (time.time() - 5400)) < 5
    assert timestamp(NOON + 5) == b"2024-05-01T12:00:00.000000005Z "


@pytest.mark.parametrize(("lines", "out"), [("0", b""), ("1", b"5\n"), ("3", b"3\n5\n"), ("9", b"1\n3\n5\n")])
def test_tail_counts_the_lines_of_both_streams_together(written, logs, lines, out):
    for number in range(1, 6):
        written.write(2 - number % 2, f"{number}\n".encode())
    assert logs("--tail", lines, "web").communicate()[0] == out


def test_a_line_without_an_end_is_a_line(written, logs):
    written.write(1, b"one\ntwo\nthr")
    written.write(1, b"ee")
    assert logs("-n", "1", "web").communicate()[0] == b"three"
    assert logs("-n", "2", "web").communicate()[0] == b"two\nthree"


@given(
    some.lists(some.tuples(some.sampled_from([1, 2]), some.sampled_from([b"a\n", b"b", b"\n", b"c\nd\n", b"e\nf"]))),
    some.integers(0, 12),
)
def test_a_tail_is_the_last_lines_by_where_they_begin(tmp_path_factory, chunks, wanted):
    written = Written(tmp_path_factory.mktemp("log"))
    begins, middle, everything = [], {1: False, 2: False}, {1: b"", 2: b""}
    for stream, data in chunks:
        written.write(stream, data)
        for line in data.splitlines(keepends=True):
            if not middle[stream]:
                begins.append((stream, len(everything[stream])))
            everything[stream] += line
            middle[stream] = not line.endswith(b"\n")
    last = begins[max(len(begins) - wanted, 0) :]
    expected = {s: everything[s][min([o for t, o in last if t == s], default=len(everything[s])) :] for s in (1, 2)}
    log = Log(*written.open())
    found = {1: b"", 2: b""}
    for chunk in tail(log, wanted, alive=False):
        found[chunk.stream] += b"".join(log.data(chunk))
    log.close()
    assert found == expected


@given(some.binary(max_size=200), some.binary(max_size=50), some.integers(0, 5))
def test_a_damaged_index_never_stops_the_reader_and_nothing_is_shown_twice(tmp_path_factory, index, data, wanted):
    written = Written(tmp_path_factory.mktemp("log"))
    Path(written.paths[0]).write_bytes(data)
    Path(written.paths[2]).write_bytes(index)
    log = Log(*written.open())
    shown = b"".join(b"".join(log.data(chunk)) for chunks in (log.chunks(), log.rest()) for chunk in chunks)
    assert shown == data
    log.close()
    log = Log(*written.open())
    assert sum(chunk.length for chunk in tail(log, wanted, alive=False)) <= len(data)
    log.close()


def test_following_shows_what_is_added_and_ends_with_the_guest_and_its_last_output(written, logs, node):
    ended = threading.Event()

    def wait(call):
        ended.wait()
        call.answer({"exited": {"code": 0}})

    node.answers["Wait"] = wait
    node.state["state"] = "Running"
    written.write(1, b"before\n")
    process = logs("-f", "web")
    assert process.stdout.readline() == b"before\n"
    written.write(1, b"during\n")
    assert process.stdout.readline() == b"during\n"
    ended.set()
    time.sleep(0.1)
    written.write(1, b"late\n")
    written.write(1, b"unrecorded", recorded=False)
    assert process.communicate(timeout=10)[0] == b"late\nunrecorded"
    assert process.returncode == 0


def test_following_a_tail_does_not_lose_what_has_no_record_yet(written, logs, node):
    ended = threading.Event()
    node.answers["Wait"] = lambda call: ended.wait() and call.answer({"exited": {"code": 0}})
    node.state["state"] = "Running"
    written.write(1, b"one\ntwo\n")
    written.write(1, b"three\n", recorded=False)
    process = logs("-f", "--tail", "1", "web")
    assert process.stdout.readline() == b"two\n"
    with open(written.paths[2], "ab") as index:
        index.write(RECORD.pack(NOON, 6, 1))
    assert process.stdout.readline() == b"three\n"
    ended.set()
    assert process.communicate(timeout=10)[0] == b""


def test_following_survives_the_daemons_restart(written, logs, node):
    ended = threading.Event()
    node.answers["Wait"] = lambda call: ended.wait() and call.answer({"exited": {"code": 0}})
    node.state["state"] = "Running"
    written.write(1, b"before\n")
    process = logs("-f", "web")
    assert process.stdout.readline() == b"before\n"
    node.die()
    node.listen()
    written.write(1, b"after\n")
    assert process.stdout.readline() == b"after\n"
    ended.set()
    assert process.wait(10) == 0


def test_following_a_guest_that_has_ended_ends_at_once(written, logs):
    written.write(1, b"all\n")
    assert logs("-f", "web").communicate(timeout=10)[0] == b"all\n"


def test_ctrl_c_ends_following_with_130_and_no_traceback(written, logs, node):
    import signal

    node.answers["Wait"] = lambda call: time.sleep(5)
    node.state["state"] = "Running"
    written.write(1, b"before\n")
    process = logs("-f", "web")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == b""
    assert process.returncode == 130


def test_a_reader_that_leaves_is_quiet(written, logs):
    for _ in range(1000):
        written.write(1, b"line" * 100 + b"\n")
    process = logs("web")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(10) == 141
    assert process.stderr.read() == b""
