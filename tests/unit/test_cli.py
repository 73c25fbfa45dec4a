"""The command line: what is understood, what is refused, and what help says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from swiftlet.api.interface import DESCRIPTION, ERRORS
from swiftlet.cli import elsewhere
from swiftlet.cli import main as cli
from swiftlet.cli.options import Command, Option, parse, rewrite_terminal
from swiftlet.cli.workload import combine, declared
from swiftlet.model.error import InputError, NotFoundError, error_classes
from tests.unit import fakenode

ROOT = str(Path(__file__).parents[2])
EVERY = [command for word in cli.MODULES for command in cli.commands_of(word)]
EXAMPLES = [example for command in EVERY for example in command.examples]


def understand(line):
    words = shlex.split(line)
    assert words[0] == "swiftlet"
    command, rest = cli.find(words[1:])
    return command, parse(command, rest)


def run_flags(line):
    _, parsed = understand(f"swiftlet run {line}")
    return declared(parsed, {"HOME": "/root", "HERE": "yes"}, "/folder")


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.name)
def test_every_command_has_an_example_of_itself_a_summary_and_a_description_of_each_option(command):
    assert command.summary.endswith(".")
    assert command.examples
    assert all(example.startswith(f"swiftlet {command.name}") for example in command.examples)
    assert all(option.help for option in command.options)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_understood_by_the_real_parser(example):
    command, parsed = understand(example)
    assert example.startswith(f"swiftlet {command.name}")
    if command.name == "run" and not parsed.on("from"):
        assert declared(parsed, {}, "/folder")


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.name)
def test_help_of_every_command_shows_usage_options_and_examples_within_120_columns(command, capsys):
    assert cli.main([*command.name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: swiftlet {command.name}")
    assert "Examples:\n  swiftlet" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert cli.main([*command.name.split(), "-h"]) == 0


def test_the_help_of_all_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command.name}" in text for command in EVERY)
    assert cli.main([]) == 0
    assert text.startswith("Usage: swiftlet COMMAND") and "To begin with" in text
    capsys.readouterr()
    assert cli.main(["template"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: swiftlet template COMMAND") and "explain" in text and "To begin with" not in text
    assert cli.main(["help", "run"]) == 0


def test_no_two_options_of_a_command_share_a_name():
    for command in EVERY:
        names = [name for option in command.options for name in option.names]
        assert len(names) == len(set(names)), command.name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "there is no command 'fly'"),
        (["rn", "-t", "x"], "there is no command 'rn'"),
        (["template", "fly"], "there is no command 'template fly'"),
        (["ps", "--fly"], "ps: unknown option --fly"),
        (["ps", "extra"], "one argument too many"),
        (["rm"], "rm: too few arguments"),
        (["run", "--memory"], "run: --memory needs a value"),
        (["run", "--rm=yes"], "run: --rm takes no value"),
        (["run", "--", "true"], "run: no template"),
        (["run", "-t", "-i", "bash"], "run: -t needs the name of a template, not '-i'"),
        (["run", "-t", "x", "--memory", "lots", "true"], "not a size"),
        (["run", "-t", "x", "--cpus", "many", "true"], "--cpus"),
        (["run", "-t", "x", "--pids", "1.5", "true"], "--pids"),
        (["run", "-t", "x", "--env-file", "/nowhere/env", "true"], "--env-file /nowhere/env: No such file"),
        (["run", "-f", "/nowhere/workload.yaml"], "/nowhere/workload.yaml: No such file"),
        (["kill", "-s", "SIGFLY", "x"], "there is no signal"),
        (["stop", "--timeout", "soon", "x"], "--timeout"),
        (["logs", "--tail", "-3", "x"], "--tail"),
        (["logs", "--since", "yesterday", "x"], "--since"),
        (["template", "resolve", "--lock", "/nowhere/lock", "x"], "/nowhere/lock: No such file"),
        (["start", "-a", "one", "two"], "only one guest"),
    ],
)
def test_bad_input_is_one_line_with_a_hint_and_125(words, message, capsys):
    assert cli.main(words) == 125
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("swiftlet: ") and message in lines[0]
    assert len(lines) <= 2
    assert len(lines) == 1 or lines[1].startswith("  hint: ")


def test_a_misspelled_command_hints_at_the_right_one(capsys):
    cli.main(["insepct", "x"])
    assert "did you mean inspect" in capsys.readouterr().err


@pytest.mark.parametrize("word", elsewhere.COMMANDS)
def test_a_command_of_dockers_is_one_line_and_names_what_is_there_instead(word, capsys):
    assert word not in cli.MODULES
    assert cli.main([word, "x"]) == 125
    told, hint = capsys.readouterr().err.splitlines()
    assert told == f"swiftlet: there is no command {word!r}" and hint == f"  hint: {elsewhere.COMMANDS[word]}"
    assert len(hint) <= 120
    for example in re.findall("`swiftlet ([^`]+)`", hint):
        assert cli.find(example.split())


@pytest.mark.parametrize(
    ("name", "interactive", "told"),
    [("ubuntu", True, True), ("ubuntu", False, False), ("ubuntu:22.04", False, True), ("a/b", False, True)],
)
def test_a_template_that_may_be_dockers_image_gets_a_word_on_the_terminal(name, interactive, told):
    shown = "not a template: " + repr(name) if set(name) & set(":/") else f"no template {name}"
    error = elsewhere.with_terminal(NotFoundError(shown, "old"), ["x", name], interactive=interactive)
    assert type(error) is NotFoundError and str(error) == shown
    assert error.hint == (f"old; {elsewhere.TERMINAL}" if told else "old")
    other = NotFoundError("no guest x")
    assert elsewhere.with_terminal(other, ["x", name], interactive=interactive) is other


@pytest.mark.parametrize(
    ("token", "meaning"),
    [
        ("-it", ["-i", "--tty"]),
        ("-ti", ["--tty", "-i"]),
        ("-itd", ["-i", "--tty", "-d"]),
        ("-dit", ["-d", "-i", "--tty"]),
        ("-t", ["-t"]),
        ("-i", ["-i"]),
        ("-td", ["-td"]),
        ("-iit", ["-iit"]),
        ("-tini", ["-tini"]),
        ("--it", ["--it"]),
    ],
)
def test_it_asks_for_a_terminal_and_nothing_else_does(token, meaning):
    assert rewrite_terminal(token) == meaning


def test_t_is_a_template_in_run_and_a_terminal_in_exec():
    assert run_flags("-it --rm -t nodejs@20 -t coreutils -- node -it") == {
        "tty": True,
        "interactive": True,
        "remove": True,
        "templates": ["nodejs@20", "coreutils"],
        "command": ["node", "-it"],
    }
    assert run_flags("-t it -t -it") == {"templates": ["it", "-it"]}
    _, parsed = understand("swiftlet exec -it cache -- redis-cli -t")
    assert parsed.on("tty") and parsed.on("interactive")
    assert parsed.arguments == ["cache", "redis-cli", "-t"]


def test_the_first_word_that_is_no_option_begins_the_guests_command():
    assert run_flags("-t x python3 -t y --rm")["command"] == ["python3", "-t", "y", "--rm"]
    assert run_flags("-t x -- --rm")["command"] == ["--rm"]
    assert run_flags("-t x sh -- a")["command"] == ["sh", "--", "a"]
    _, parsed = understand("swiftlet exec web ls -- -l")
    assert parsed.arguments == ["web", "ls", "--", "-l"]


def test_other_commands_take_options_after_arguments():
    _, parsed = understand("swiftlet logs web -f --tail=5")
    assert parsed.arguments == ["web"] and parsed.on("follow") and parsed.one("tail") == "5"


def test_values_may_stand_in_the_same_word():
    assert run_flags("-tpython@3.11 -p8080:80 --memory=1G -dw/app")["workdir"] == "/app"


def test_run_declares_everything_that_the_issue_shows():
    found = run_flags(
        "-t nginx@1.22 -d -p 8080:80 --memory 128M --cpus 1.5 --cpu-weight 50 --pids 100 -v ./site:/srv:ro -w /srv "
        "-e A=b=c -e HERE -e NOT_SET --name web --network none --read-only -u 33:33 --userns -h box --cap-add NET_RAW "
        "--cap-drop ALL --seccomp unconfined --ulimit nofile=10:20 --tmpfs /run --stop-signal QUIT --stop-timeout 2 "
        "--as container"
    )
    assert found == {
        "templates": ["nginx@1.22"],
        "ports": [{"guest": 80, "host": 8080, "host_ip": "", "protocol": "tcp"}],
        "resources": {"memory": 128 << 20, "cpus": 1.5, "cpu_weight": 50, "pids": 100},
        "volumes": [{"source": "/folder/site", "target": "/srv", "read_only": True}],
        "workdir": "/srv",
        "env": {"A": "b=c", "HERE": "yes"},
        "name": "web",
        "network": "none",
        "read_only": True,
        "user": "33:33",
        "userns": True,
        "hostname": "box",
        "cap_add": ["NET_RAW"],
        "cap_drop": ["ALL"],
        "seccomp": "unconfined",
        "ulimits": {"nofile": (10, 20)},
        "tmpfs": ["/run"],
        "stop_signal": "SIGQUIT",
        "stop_timeout": 2.0,
        "kind": "container",
    }


def test_what_run_declares_is_a_workload():
    import msgspec

    from swiftlet.linux.message import decode, encode
    from swiftlet.model.workload import Workload

    for example in EXAMPLES:
        command, parsed = understand(example)
        if command.name == "run" and not parsed.on("file") and not parsed.on("from"):
            sent = decode(encode(declared(parsed, {}, "/folder")))
            workload = msgspec.convert(sent, Workload)
            assert workload.templates if workload.kind != "unikernel" else workload.command == ("primes.py",)


def test_a_template_file_is_named_by_its_absolute_path():
    assert run_flags("-t ./my.yaml -t deb:x -t host:/bin/ls -t /abs/a.yml")["templates"] == [
        "/folder/my.yaml",
        "deb:x",
        "host:/bin/ls",
        "/abs/a.yml",
    ]


def test_an_environment_file_comes_before_e_and_may_hold_comments(tmp_path):
    path = tmp_path / "env"
    path.write_text("# a comment\n\nA=file\nB=b c\nHERE\nNOT_SET\n")
    assert run_flags(f"-t x --env-file {path} -e A=typed")["env"] == {"A": "typed", "B": "b c", "HERE": "yes"}


def test_flags_win_over_a_workload_file_member_by_member():
    file = {"templates": ["a"], "command": ["x"], "env": {"A": "1", "B": "2"}, "resources": {"memory": 1, "pids": 2}}
    typed = {"command": ["y"], "env": {"B": "3"}, "resources": {"pids": 9}}
    assert combine(file, typed) == {
        "templates": ["a"],
        "command": ["y"],
        "env": {"A": "1", "B": "3"},
        "resources": {"memory": 1, "pids": 9},
    }


def test_an_error_with_control_characters_cannot_move_the_cursor(capsys):
    cli.main(["\x1b[2Jfly\nnow"])
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert len(err.splitlines()) <= 2


def test_a_bug_is_one_line_too(capsys, monkeypatch):
    monkeypatch.setattr(cli, "find", lambda words: words[9])
    assert cli.main(["ps"]) == 125
    err = capsys.readouterr().err
    assert err.startswith("swiftlet: internal error: IndexError") and len(err.splitlines()) == 2


def test_debug_shows_where_an_error_arose(capsys):
    assert cli.main(["run", "-t", "x", "--memory", "lots", "program", "--debug"]) == 125
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main(["run", "--debug", "-t", "x", "--memory", "lots", "program"]) == 125
    assert "Traceback" in capsys.readouterr().err


def test_a_switch_and_a_value_may_share_a_word_but_an_unknown_letter_is_refused():
    command = Command("c", "s.", lambda parsed: 0, options=(Option("-a", "a"), Option("-b", "b", "B")), examples=())
    assert parse(command, ["-abx"]).values == {"a": [""], "b": ["x"]}
    with pytest.raises(InputError, match="unknown option -z"):
        parse(command, ["-az"])


def test_the_interface_description_is_varlink_and_names_every_error():
    import varlink

    members = varlink.Interface(DESCRIPTION).members
    assert set(error_classes()) == set(ERRORS)
    assert set(ERRORS) <= set(members)


def test_the_interface_description_has_the_methods_that_the_wire_page_lists():
    import re
    from pathlib import Path

    import varlink

    page = (Path(__file__).parents[2] / "docs/wire.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z]\w+)`", page, re.MULTILINE))
    described = {line.split("(")[0][7:] for line in DESCRIPTION.splitlines() if line.startswith("method ")}
    assert documented == described
    assert described <= set(varlink.Interface(DESCRIPTION).members)


def test_unit_names_of_ages_and_sizes_are_dockers():
    from swiftlet.cli.table import age_text, duration_text, size_text, status_text

    shown = [duration_text(s) for s in (0.3, 1, 59, 60, 119, 180, 3600, 7300, 86400, 172800, 1209600, 7e6, 1e8)]
    assert shown == [
        "Less than a second", "1 second", "59 seconds", "About a minute", "About a minute", "3 minutes",
        "About an hour", "2 hours", "24 hours", "2 days", "2 weeks", "2 months", "3 years",
    ]  # fmt: skip
    assert [size_text(n) for n in (0, 1023, 1536, 5 << 30, None)] == ["0B", "1023B", "1.5KiB", "5GiB", "-"]
    assert age_text(10**9, now=181) == "3 minutes ago"
    guest = {"state": "Stopped", "exit": {"code": 137, "oom": True, "ended_ns": 10**9}}
    assert status_text(guest, now=7201) == "Exited (137, out of memory) 2 hours ago"
    assert status_text({"state": "Running", "started_ns": 10**9}, now=181) == "Up 3 minutes"
    assert status_text({"state": "Generating"}) == "Generating"


ALLOWED = {
    *("_json", "_socket", "_struct", "_signal", "select", "struct", "time", "errno"),
    *("os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc", "os.path", "__future__"),
    *("swiftlet", "swiftlet.cli", "swiftlet.cli.main", "swiftlet.cli.options", "swiftlet.cli.ps", "swiftlet.cli.table"),
    *("swiftlet.api", "swiftlet.api.client", "swiftlet.linux"),
    *("swiftlet.linux.channel", "swiftlet.linux.lean", "swiftlet.linux.message"),
    *("swiftlet.model", "swiftlet.model.error", "swiftlet.model.instance"),
}
RUN = {"swiftlet.cli." + name for name in ("run", "workload", "foreground", "signals", "progress")}


def loaded_by(tmp_path, words, answers):
    """What a command line loads beyond a bare interpreter, with the flags of the installed script."""
    script = (
        f"import sys; bare = set(sys.modules); sys.path[:0] = [{ROOT!r}]\n"
        f"from swiftlet.cli.main import main; code = main({words!r})\n"
        "sys.stderr.write(' '.join(set(sys.modules) - bare)); sys.exit(code)"
    )
    node = fakenode.FakeNode(f"{tmp_path}/run/node.sock", answers)
    try:
        environment = {**os.environ, "SWIFTLET_RUN": f"{tmp_path}/run"}
        done = subprocess.run([sys.executable, "-IS", "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return set(done.stderr.split())
    finally:
        node.close()


def test_a_plain_ps_loads_only_what_it_needs(tmp_path):
    assert loaded_by(tmp_path, ["ps"], {"List": {"guests": []}}) <= ALLOWED


def test_a_plain_run_loads_only_what_it_needs(tmp_path):
    assert loaded_by(tmp_path, ["run", "--rm", "-t", "x", "--", "true"], {}) <= ALLOWED | RUN


@pytest.mark.parametrize("words", [["stop", "x"], ["rm", "x"], ["exec", "x", "true"]])
def test_the_other_hot_commands_load_no_slow_module(tmp_path, words):
    stopped = {"Stop": {"exited": {"code": 0}}, "Remove": {}}
    slow = {"argparse", "json", "re", "enum", "typing", "socket", "ctypes", "msgspec", "yaml", "rich", "subprocess"}
    assert not loaded_by(tmp_path, words, stopped) & slow


def test_the_launcher_loads_neither_enums_nor_types_nor_regular_expressions():
    script = f"import sys; sys.path[:0] = [{ROOT!r}]; import swiftlet.guest.launcher; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    heavy = {"enum", "typing", "re", "functools", "collections", "signal", "socket", "json"}
    assert not heavy & set(done.stdout.split()), "each clone copies what these take, a tenth of its time"
