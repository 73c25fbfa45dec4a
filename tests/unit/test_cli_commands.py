"""What the commands print, for people and for machines, and how they end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swiftlet import __version__
from swiftlet.cli import main as cli
from tests.unit import fakenode

ROOT = str(Path(__file__).parents[2])
ID = "0123456789abcdef" * 4
MINUTE = 60_000_000_000


def guest(**members):
    now = time.time_ns()
    common = {"id": ID, "name": "cache", "kind": "container", "state": "Running", "templates": ["deb:redis-server"]}
    times = {"created_ns": now - 5 * MINUTE, "started_ns": now - 3 * MINUTE, "ended_ns": None, "pid": 7, "exit": None}
    rest = {"command": ["redis-server", "--save", ""], "address": "10.0.0.2", "ports": ["0.0.0.0:8080->80/tcp"]}
    return {**common, **times, **rest, **members}


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTLET_RUN", f"{tmp_path}/run")
    monkeypatch.chdir(tmp_path)
    node = fakenode.FakeNode(f"{tmp_path}/run/node.sock")
    yield node
    node.close()


@pytest.fixture
def says(capsys):
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def run(*words):
        code = cli.main(list(words))
        return code, *capsys.readouterr()

    return run


def test_ps_shows_running_guests_as_docker_does(node, says):
    node.answers["List"] = {"guests": [guest()]}
    code, out, err = says("ps")
    titles, row = out.splitlines()
    assert (code, err) == (0, "")
    assert titles.split("   ")[0] == "GUEST ID" and titles.index("STATUS") == row.index("Up 3 minutes")
    assert row.startswith("0123456789ab   deb:redis-server") and row.endswith("0.0.0.0:8080->80/tcp   cache")
    assert "5 minutes ago" in row
    assert node.calls[0].parameters == {"all": False}


def test_ps_all_shows_how_guests_ended(node, says):
    ended = {"code": 0, "signal": 0, "oom": False, "reason": "", "ended_ns": time.time_ns() - 130 * MINUTE}
    node.answers["List"] = {"guests": [guest(state="Stopped", exit=ended, ports=[])]}
    assert "Exited (0) 2 hours ago" in says("ps", "-a")[1]
    assert node.calls[0].parameters == {"all": True}


def test_ps_prints_ids_or_json_on_request_and_a_title_for_nothing(node, says):
    node.answers["List"] = {"guests": [guest()]}
    assert says("ps", "-q")[1] == "0123456789ab\n"
    assert json.loads(says("ps", "--json")[1])[0]["id"] == ID
    node.answers["List"] = {"guests": []}
    assert says("ps")[1].startswith("GUEST ID")
    assert says("ps", "--json")[1] == "[]\n"


def test_ps_begins_with_the_newest(node, says):
    ages = {"c" * 64: 2, "a" * 64: 9, "b" * 64: 5}
    now = time.time_ns()
    node.answers["List"] = {"guests": [guest(id=id_, created_ns=now - age * MINUTE) for id_, age in ages.items()]}
    assert says("ps", "-aq")[1].split() == ["c" * 12, "b" * 12, "a" * 12]
    assert [found["id"][0] for found in json.loads(says("ps", "--json")[1])] == ["c", "b", "a"]


@pytest.mark.parametrize("command", ["ps", "template ls"])
def test_two_forms_of_a_listing_at_once_are_refused(says, command):
    code, out, err = says(*command.split(), "--json", "-q")
    assert (code, out) == (125, "") and err.startswith(f"swiftlet: {command}: --json and -q")


def test_a_name_from_an_enemy_cannot_move_the_cursor(node, says):
    node.answers["List"] = {"guests": [guest(name="\x1b[2Jevil", command=["a\nb"])]}
    out = says("ps")[1]
    assert "\x1b" not in out and len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "method", "parameters"),
    [
        (["kill", "-s", "hup", "a"], "Kill", {"guest": "a", "signal": "SIGHUP"}),
        (["kill", "a"], "Kill", {"guest": "a", "signal": "SIGKILL"}),
        (["kill", "--signal=15", "a"], "Kill", {"guest": "a", "signal": "SIGTERM"}),
        (["stop", "a"], "Stop", {"guest": "a", "timeout": None}),
        (["stop", "-t", "0.5", "a"], "Stop", {"guest": "a", "timeout": 0.5}),
        (["rm", "-f", "a"], "Remove", {"guest": "a", "force": True}),
        (["rm", "a"], "Remove", {"guest": "a", "force": False}),
    ],
)
def test_calls_about_guests_print_their_names(node, says, words, method, parameters):
    node.answers[method] = {}
    assert says(*words) == (0, "a\n", "")
    assert node.calls[0].method == method and node.calls[0].parameters == parameters


def test_each_guest_is_tried_whatever_became_of_the_one_before(node, says):
    def remove(call):
        if call.parameters["guest"] == "b":
            call.error("ConflictError", "b is running", "rm -f")
        else:
            call.answer({})

    node.answers["Remove"] = remove
    assert says("rm", "a", "b", "c") == (125, "a\nc\n", "swiftlet: b is running\n  hint: rm -f\n")


def test_wait_prints_the_exit_code(node, says):
    node.answers["Wait"] = {"exited": {"code": 3}}
    assert says("wait", "a", "b") == (0, "3\n3\n", "")


def test_start_prints_the_name(node, says):
    node.answers["Start"] = lambda call: call.answer({"started": {"id": ID, "name": "a", "pid": 1}})
    assert says("start", "a") == (0, "a\n", "")


def test_insert_prints_the_name(node, says):
    node.answers["Insert"] = {}
    assert says("insert", "web", "./extra.yaml") == (0, "web\n", "")
    assert node.calls[0].parameters == {"guest": "web", "template": f"{os.getcwd()}/extra.yaml"}


def test_inspect_prints_a_list_of_everything(node, says):
    node.answers["Inspect"] = lambda call: call.answer({"guest": {"name": call.parameters["guest"], "journal": []}})
    assert [each["name"] for each in json.loads(says("inspect", "a", "b")[1])] == ["a", "b"]


def test_stats_counts_cpu_between_two_samples(node, says, monkeypatch):
    monkeypatch.setattr("swiftlet.cli.stats.SAMPLE_SECONDS", 0.05)
    clock = time.monotonic_ns()

    def stats(call):
        used = (time.monotonic_ns() - clock) // 2
        memory = {"memory_bytes": 32 << 20, "memory_limit": 128 << 20, "private_bytes": 3 << 20, "shared_bytes": 1024}
        call.answer({"stats": [{"id": ID, "name": "cache", "cpu_ns": used, "pids": 4, **memory}]})

    node.answers["Stats"] = stats
    row = says("stats")[1].splitlines()[1]
    assert 45 < float(row.split()[2].rstrip("%")) < 55
    assert row.split()[3:] == ["32MiB", "/", "128MiB", "25.00%", "3MiB", "1KiB", "4"]
    assert json.loads(says("stats", "--json")[1])[0]["pids"] == 4


def test_a_workload_file_is_read_by_the_daemon_and_flags_win(node, says, tmp_path):
    (tmp_path / "workload.yaml").write_text("templates: [x]\n")
    node.answers["ParseWorkload"] = {"workload": {"templates": ["x"], "command": ["false"], "env": {"A": "1"}}}
    code, out, _ = says("run", "-f", "workload.yaml", "-d", "-e", "B=2", "--", "true")
    assert code == 0 and len(out.strip()) == 12
    asked = node.parameters_of("ParseWorkload")
    assert asked == {"text": "templates: [x]\n", "base": str(tmp_path), "path": "workload.yaml"}
    assert node.parameters_of("Run")["workload"] == {
        "templates": ["x"],
        "command": ["true"],
        "env": {"A": "1", "B": "2"},
    }


CLOSURE = {"template": "nginx@1.22", "digest": "cd" * 32, "files": 61, "bytes": 9 << 20, "reused_bytes": 5 << 20}


def test_template_ls_shows_what_is_resolved(node, says):
    line = {"reference": "python@3.11", "description": "Python", "source": "shipped", "resolved": True}
    other = {**line, "reference": "bash@5.2", "resolved": False, "files": 0, "bytes": 0}
    node.answers["Templates"] = {"templates": [{**line, "files": 700, "bytes": 30 << 20}, other]}
    out = says("template", "ls")[1].splitlines()
    assert out[1].split() == ["python@3.11", "700", "30MiB", "shipped", "Python"]
    assert out[2].split()[:3] == ["bash@5.2", "-", "-"]
    assert says("template", "ls", "-q")[1] == "python@3.11\nbash@5.2\n"
    assert len(json.loads(says("template", "ls", "--json")[1])) == 2


def test_template_show_says_what_it_declares_and_resolved_to(node, says):
    template = {"name": "nginx", "version": "1.22", "libs": ["libc@6"], "env": {"A": "b"}, "packs": []}
    node.answers["Template"] = {"template": template, "closure": None, "origin": "shipped"}
    out = says("template", "show", "nginx")[1]
    assert out == "nginx@1.22   (shipped)\n  libs: libc@6\n  env: A=b\nnot resolved yet\n"
    node.answers["Template"] = {"template": template, "closure": {**CLOSURE, "requires": []}, "origin": "shipped"}
    assert "61 files, 9MiB, closure cdcdcdcdcdcd" in says("template", "show", "nginx")[1]


def test_template_resolve_writes_a_lock_file_and_takes_it_again(node, says):
    lock = {"version": 1, "files": ["é"]}
    node.answers["Resolve"] = {"closures": [{**CLOSURE, "lock": lock}]}
    code, out, _ = says("template", "resolve", "-o", "nginx.lock", "nginx@1.22")
    assert code == 0 and out.splitlines()[1].split() == ["nginx@1.22", "61", "9MiB", "5MiB", "cdcdcdcdcdcd"]
    assert json.loads(Path("nginx.lock").read_text()) == lock
    assert says("template", "resolve", "--lock", "nginx.lock", "-q", "nginx@1.22")[1] == "cd" * 32 + "\n"
    assert node.calls[-1].parameters == {"templates": ["nginx@1.22"], "lock": lock, "upgrade": False}
    assert set(os.listdir()) == {"run", "nginx.lock"}


def test_a_lock_file_that_cannot_be_written_leaves_nothing_behind(node, says):
    node.answers["Resolve"] = {"closures": [{**CLOSURE, "lock": {}}]}
    os.mkdir("taken")
    code, _, err = says("template", "resolve", "-o", "taken", "nginx@1.22")
    assert code == 125 and "lock file taken" in err
    assert set(os.listdir()) == {"run", "taken"}


def test_a_lock_file_that_is_not_json_is_refused(node, says):
    Path("bad.lock").write_text("{")
    code, _, err = says("template", "resolve", "--lock", "bad.lock", "x")
    assert code == 125 and "bad.lock is not JSON" in err


def test_template_explain_goes_from_the_file_to_the_template(node, says):
    file = {"path": "/usr/lib/libpcre2.so", "why": "needed by /usr/sbin/nginx", "source": "deb:libpcre2=1"}
    chain = [file, {"path": "/usr/sbin/nginx", "why": "files.nginx of nginx@1.22"}]
    node.answers["Explain"] = {"entry": file, "chain": chain}
    assert says("template", "explain", "nginx", "/lib/libpcre2.so")[1].splitlines() == [
        "/usr/lib/libpcre2.so: needed by /usr/sbin/nginx  [deb:libpcre2=1]",
        "  /usr/sbin/nginx: files.nginx of nginx@1.22",
    ]
    node.answers["Explain"] = {"entry": file, "chain": chain, "others": ["/opt/libpcre2.so"]}
    shown = says("template", "explain", "nginx", "libpcre2.so")[1].splitlines()
    assert len(shown) == 3 and shown[2] == "also of this name: /opt/libpcre2.so"


@pytest.mark.parametrize(("words", "method"), [("store verify", "StoreVerify"), ("template verify", "TemplateVerify")])
def test_verify_names_each_damaged_file_and_fails(node, says, words, method):
    node.answers[method] = {"checked": 9, "damaged": []}
    assert says(*words.split()) == (0, "9 files checked, none damaged\n", "")
    node.answers[method] = {"checked": 9, "damaged": [{"path": "/usr/a", "digest": "0" * 64, "problem": "flipped"}]}
    code, out, err = says(*words.split())
    assert code == 125 and out == "/usr/a: flipped\n" and "1 of 9 files are damaged" in err
    assert "verify --repair" in err and node.calls[-1].parameters["repair"] is False
    code, out, err = says(*words.split(), "--json")
    assert code == 125 and json.loads(out)["damaged"] and err == ""
    node.answers[method]["repaired"] = {"objects": 1, "trees": 2, "closures": 1, "locks": 1}
    code, out, err = says(*words.split(), "--repair")
    assert code == 125 and "were taken out of use" in err and node.calls[-1].parameters["repair"] is True


def test_store_stat_and_gc(node, says):
    counts = {"objects": 10, "object_bytes": 1 << 20, "trees": 2, "closures": 2, "guests": 1}
    node.answers["StoreStat"] = {**counts, "cache_bytes": 0, "shared_bytes": 4096}
    assert "objects   10 (1MiB)" in says("store", "stat")[1]
    assert json.loads(says("store", "stat", "--json")[1])["objects"] == 10
    node.answers["StoreGc"] = {"objects": 3, "trees": 1, "closures": 0, "bytes": 2048}
    assert says("store", "gc", "--dry-run")[1] == "would remove 3 objects, 1 trees, 0 closures: 2KiB\n"
    assert node.calls[-1].parameters == {"cache": False, "dry_run": True}


def test_doctor_shows_consequences_and_fails_only_when_something_essential_is_missing(node, says):
    fine = {"name": "overlay", "status": "ok", "detail": "new mount API", "consequence": ""}
    kvm = {"name": "kvm", "status": "limited", "detail": "no guest runs", "consequence": "VMs are emulated"}
    node.answers["Doctor"] = {"findings": [fine, kvm]}
    code, out, _ = says("doctor")
    assert code == 0 and "-> VMs are emulated" in out and "1 ok, 1 limited, 0 missing" in out
    gone = {"name": "cgroups", "status": "missing", "detail": "not mounted", "consequence": "nothing runs"}
    node.answers["Doctor"] = {"findings": [fine, gone]}
    code, out, _ = says("doctor")
    assert code == 1 and "MISSING" in out
    assert says("doctor", "--json")[0] == 1


def test_version_names_both_versions_and_starts_nothing(node, says):
    node.answers["org.varlink.service.GetInfo"] = {"vendor": "swiftlet", "version": "9.9"}
    assert says("version")[1].split() == ["swiftlet", __version__, "daemon", "9.9"]
    node.die()
    code, out, _ = says("--version")
    assert code == 0 and out == f"swiftlet {__version__}\n"
    assert not os.path.exists(os.environ["SWIFTLET_RUN"] + "/node.log")
    node.listen()


# Progress.


def slow_resolve(call):
    for done in range(6):
        step = {"stage": "fetch" if done < 3 else "link", "text": f"file {done}", "done": done << 20, "total": 5 << 20}
        call.answer({"progress": step}, continues=True)
        time.sleep(0.15)
    call.answer({"closures": [{**CLOSURE, "lock": {}}]})


def resolve_as_a_process(tmp_path, *words, **streams):
    site = next(path for path in sys.path if path.endswith("site-packages"))
    script = (
        f"import sys; sys.path[:0] = [{ROOT!r}]; sys.path.append({site!r})\n"
        "from swiftlet.cli.main import run_and_exit; run_and_exit()"
    )
    command = [sys.executable, "-IS", "-c", script, "template", "resolve", *words, "nginx@1.22"]
    environment = {**os.environ, "SWIFTLET_RUN": f"{tmp_path}/run", "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, **streams)


def test_without_a_terminal_long_work_says_one_line_for_each_stage(node, tmp_path):
    node.answers["Resolve"] = slow_resolve
    out, err = resolve_as_a_process(tmp_path, stderr=subprocess.PIPE).communicate(timeout=20)
    assert err.decode().splitlines() == ["fetch: file 2", "link: file 3"]
    assert b"nginx@1.22" in out
    out, err = resolve_as_a_process(tmp_path, "--quiet", stderr=subprocess.PIPE).communicate(timeout=20)
    assert err == b""


def test_work_that_is_done_at_once_says_nothing(node, tmp_path):
    def fast(call):
        call.answer({"progress": {"stage": "link", "text": "x", "done": 1, "total": 2}}, continues=True)
        call.answer({"closures": [{**CLOSURE, "lock": {}}]})

    node.answers["Resolve"] = fast
    assert resolve_as_a_process(tmp_path, stderr=subprocess.PIPE).communicate(timeout=20)[1] == b""


def test_on_a_terminal_long_work_shows_a_bar_that_leaves_no_trace(node, tmp_path):
    node.answers["Resolve"] = slow_resolve
    master, slave = os.openpty()
    process = resolve_as_a_process(tmp_path, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:
            break
    os.close(master)
    assert process.wait(20) == 0
    assert b"fetch" in shown and b"2MiB/5MiB" in shown and "━".encode() in shown
    assert shown.rstrip().endswith(b"\x1b[2K")


def test_a_number_of_guests_that_are_no_clones_is_refused(node, says):
    code, _, err = says("run", "--count", "2", "--as", "vm", "-t", "busybox")
    assert code == 125 and "--count is of clones" in err and node.calls == []
