"""The program of checks: compiled once, strictly; and `guest check` with it as a guest that is no container."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import threading

import pytest

from swiftlet.cli import gate
from swiftlet.cli import main as cli
from swiftlet.gate import program as gate_program
from swiftlet.model.error import HostError
from swiftlet.resolve.elf import read_facts
from tests.checking import output, program
from tests.unit import fakenode

MOST_LINES = 350


def test_a_second_call_finds_the_program_of_the_first():
    path = program()
    cache = os.path.dirname(os.path.dirname(os.path.dirname(path)))
    inode = os.stat(path).st_ino
    assert gate_program.program(cache) == path and os.stat(path).st_ino == inode


def test_the_program_is_static_and_takes_no_library():
    with open(program(), "rb") as file:
        facts = read_facts(file.fileno(), program())
    assert facts.program and facts.interpreter == "" and facts.needed == ()


def test_another_source_flag_or_compiler_makes_another_program(tmp_path):
    (tmp_path / "a.c").write_text("int a;")
    (tmp_path / "b.c").write_text("int b;")
    first = gate_program.digest_of(["a.c", "b.c"], "gcc 12", str(tmp_path))
    assert gate_program.digest_of(["a.c", "b.c"], "gcc 12", str(tmp_path)) == first
    assert gate_program.digest_of(["a.c", "b.c"], "gcc 13", str(tmp_path)) != first
    assert gate_program.digest_of(["a.c"], "gcc 12", str(tmp_path)) != first
    (tmp_path / "b.c").write_text("int c;")
    assert gate_program.digest_of(["a.c", "b.c"], "gcc 12", str(tmp_path)) != first


def test_a_host_without_a_compiler_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="this host has no gcc") as raised:
        gate_program.program(str(tmp_path / "cache"))
    assert "apt-get install gcc" in raised.value.hint


def test_a_source_that_does_not_compile_leaves_nothing_and_names_the_error(tmp_path, monkeypatch):
    program()  # skips without a compiler
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "main.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(gate_program, "SOURCES", str(sources))
    with pytest.raises(HostError, match=r"main\.c:1.*error.*nothing"):
        gate_program.program(str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "cache/checks") == ["lock"]


def test_every_source_is_short_and_says_what_it_is_for():
    for name in os.listdir(gate_program.SOURCES):
        with open(f"{gate_program.SOURCES}/{name}") as file:
            lines = file.read().splitlines()
        assert len(lines) < MOST_LINES and lines[0].startswith("/* "), name
        assert all(len(line) <= 120 for line in lines), name


@pytest.mark.parametrize("words", [[], ["fly"], ["run", "--only"], ["run", "--fly", "x"], ["inputs", "nothing"]])
def test_the_program_refuses_what_it_does_not_understand(words):
    assert subprocess.run([program(), *words], capture_output=True).returncode == 2


def test_a_check_that_crashes_or_lacks_a_call_is_told_in_one_line_and_leaves_nothing(tmp_path):
    words = ["run", "--scratch", str(tmp_path), "--only", "files.create,files.inotify", "--without", "294,74"]
    lines = [json.loads(line) for line in output(*words, check=False).splitlines()]
    problems = {line["check"]: line["problem"] for line in lines}
    assert problems == {
        "files.create": "fsync(file): Function not implemented",
        "files.inotify": "inotify_init1(IN_CLOEXEC): Function not implemented",
    }
    assert os.listdir(tmp_path) == []


def test_a_scratch_folder_that_is_not_there_is_named_and_blamed():
    (line,) = output("run", "--scratch", "/nowhere", "--only", "files.create", check=False).splitlines()
    found = json.loads(line)
    assert found["problem"] == "a folder cannot be made in /nowhere: No such file or directory"
    assert found["because"] == "system.tmp"


# The command, whose guest is a process of ours


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTLET_RUN", f"{tmp_path}/run")
    monkeypatch.chdir(tmp_path)
    node = fakenode.FakeNode(f"{tmp_path}/run/node.sock", {"CheckProgram": {"path": program()}, "Kill": {}})
    yield node
    node.close()


@pytest.fixture
def says(capsys):
    def run(*words):
        code = cli.main(["guest", "check", "-q", *words])
        return code, *capsys.readouterr()

    return run


def test_the_guest_is_the_program_alone_with_the_options_of_run(node, says):
    code, out, err = says("--only", "algorithms,files.rename", "--memory", "64M", "--as", "container", "--userns")
    assert (code, err) == (0, "")
    workload = node.parameters_of("Run")["workload"]
    assert workload["templates"] == [f"host:{program()}"] and workload["remove"] and workload["userns"]
    assert workload["resources"] == {"memory": 64 << 20} and workload["kind"] == "container"
    assert workload["command"][:3] == [program(), "run", "--only"] and "--serve" not in workload["command"]
    assert "ports" not in workload, "nothing is published where no page was asked for"
    assert "all 4 checks passed as a container" in out and "largest_difference 0" in out


def test_as_json_every_check_has_all_its_members(node, says):
    code, out, _ = says("--json", "--only", "files.create,ipc.pipe")
    found = json.loads(out)
    assert code == 0 and found["ok"] and found["kind"] == "container"
    assert [each["check"] for each in found["checks"]] == ["ipc.pipe", "files.create"]
    pipe = found["checks"][0]
    assert set(pipe) == {"check", "ok", "problem", "options", "milliseconds", "values"}
    assert {"latency_us", "latency_us_host", "throughput_mib_s", "throughput_mib_s_host"} == set(pipe["values"])


def test_what_fails_is_named_with_what_broke_and_its_options_and_the_code_is_1(node, says):
    code, out, _ = says("--only", "files", "--without", "inotify_init1,flock")
    assert code == 1
    assert "files.inotify: inotify_init1(IN_CLOEXEC): Function not implemented\n" in out
    assert "  usually needs: CONFIG_INOTIFY_USER\n" in out
    assert "files.flock: flock: Function not implemented\n  usually needs: CONFIG_FILE_LOCKING\n" in out
    assert "2 of 21 checks failed" in out and "files.create " in out


def test_what_several_checks_stand_on_is_told_once(node, says):
    _, out, _ = says("--only", "files.create,files.rename", "--without", "mkdir")
    assert "files.create, files.rename: a folder cannot be made in /tmp: Function not implemented\n" in out


def test_a_guest_that_ends_too_early_fails_every_check_that_it_did_not_reach(node, says):
    def dies(call):
        command = ["/bin/sh", "-c", "echo Booting; echo lost the root >&2; exit 3"]
        call.parameters["workload"]["command"] = command
        node.run(call)

    node.answers["Run"] = dies
    code, out, _ = says("--only", "files.create,signals.mask")
    told = "said nothing: the guest ended with code 3, its last words: lost the root\n"
    assert code == 1 and f"files.create: {told}" in out and f"signals.mask: {told}" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "filez"], "there is no check or area 'filez'"),
        (["--without", "fly"], "there is no system call 'fly'"),
        (["--memory", "much"], "not a size"),
    ],
)
def test_what_is_misspelled_is_told_before_a_guest_is_started(node, says, words, told):
    code, _, err = says(*words)
    assert code == 125 and told in err
    assert "Run" not in [call.method for call in node.calls]


def test_without_a_bridge_no_page_is_asked_for_and_that_is_said(node, says):
    code, out, _ = says("--only", "web", "--network", "none")
    assert code == 1 and "web.page: no port can be published with network none\n" in out
    assert "ports" not in node.parameters_of("Run")["workload"]


# The page


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_the_program_serves_its_page_and_then_leaves():
    port = free_port()
    with subprocess.Popen(
        [program(), "run", "--only", "web", "--serve", str(port)], stdout=subprocess.PIPE, text=True
    ) as guest:
        assert guest.stdout and json.loads(guest.stdout.readline()) == {"ready": "web.page", "port": port}
        wanted = gate_program.host_page(program())
        assert len(wanted) == 262144 and wanted.startswith(b"<!doctype html>")
        assert gate.compare_page("127.0.0.1", port, wanted) == ""
        assert json.loads(guest.stdout.readline())["ok"] and guest.wait(10) == 0


@contextlib.contextmanager
def server(page, *, whole=True):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(page) + (not whole)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving.server_port
        serving.shutdown()


def test_a_page_with_one_byte_changed_is_told_with_its_place():
    with server(b"abcdXf") as port:
        told = gate.compare_page("127.0.0.1", port, b"abcdef")
    assert told == "the page came with 6 of 6 bytes, the first 4 as they should be"


def test_a_page_that_is_cut_short_is_told():
    with server(b"abc", whole=False) as port:
        told = gate.compare_page("127.0.0.1", port, b"abcd")
    assert "no HTTP: IncompleteRead" in told


def test_a_page_that_nobody_serves_is_an_error():
    with pytest.raises(OSError):
        gate.compare_page("127.0.0.1", free_port(), b"")
