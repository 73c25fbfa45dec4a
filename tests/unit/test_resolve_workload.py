from __future__ import annotations

import pytest

from swiftlet.model.error import InputError, NotFoundError
from swiftlet.model.workload import Port, Resources, Volume
from swiftlet.resolve.workload import load_workload

ALL = """\
templates: [nginx@1.22, ./own.yaml]
command: sh -c 'echo hi'
name: web
env: [A=1, B=x=y]
workdir: /app
user: www-data
volumes: ["./site:/usr/share/nginx/html:ro", "/srv:/srv"]
tmpfs: [/scratch]
ports: ["8080:80", "127.0.0.1:53:53/udp"]
memory: 128M
cpus: 1.5
resources: {pids: 100}
ulimits: {nofile: "1024:4096"}
network: none
read_only: true
stop_signal: quit
stop_timeout: 2.5
"""


def test_the_spellings_of_the_flags_are_understood(tmp_path):
    (tmp_path / "w.yaml").write_text(ALL)
    workload = load_workload(str(tmp_path / "w.yaml"))
    assert workload.templates == ("nginx@1.22", str(tmp_path / "own.yaml"))
    assert workload.command == ("sh", "-c", "echo hi")
    assert workload.env == {"A": "1", "B": "x=y"}
    assert workload.volumes == (
        Volume(str(tmp_path / "site"), "/usr/share/nginx/html", True),
        Volume("/srv", "/srv", False),
    )
    assert workload.ports == (Port(80, 8080), Port(53, 53, "127.0.0.1", "udp"))
    assert workload.resources == Resources(memory=128 << 20, cpus=1.5, pids=100)
    assert workload.ulimits == {"nofile": (1024, 4096)}
    assert workload.stop_signal == "SIGQUIT"
    assert workload.read_only and workload.network == "none"


def test_a_unikernel_has_a_program_beside_its_file_and_no_template(tmp_path):
    (tmp_path / "w.yaml").write_text("kind: unikernel\nprogram: primes.py\nmaster: serve\nplacement: packed\ncpus: 2\n")
    workload = load_workload(str(tmp_path / "w.yaml"))
    assert (workload.kind, workload.program) == ("unikernel", str(tmp_path / "primes.py"))
    assert (workload.master, workload.placement, workload.templates) == ("serve", "packed", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("command: [x]\n", "needs either template or templates"),
        ("template: a\ntemplates: [a]\n", "needs either"),
        ("templates: []\n", r"\$\.templates: is empty"),
        ("template: A B\n", r"\$\.template: not a template"),
        ("template: a\nports: ['80:99999']\n", r"\$\.ports\[0\]: port '80:99999'"),
        ("template: a\nvolumes: [x]\n", r"\$\.volumes\[0\]: volume 'x' has no target"),
        ("template: a\nvolumes: ['x:y']\n", r"\$\.volumes\[0\].*absolute"),
        ("template: a\nvolumes: ['x:/a/../../b']\n", r"\$\.volumes\[0\]"),
        ("template: a\nmemory: lots\n", r"\$\.memory: not a size"),
        ("template: a\nmemory: 1M\nresources: {memory: 2M}\n", "twice"),
        ("template: a\nread_only: maybe\n", r"\$\.read_only: expected true or false"),
        ("template: a\nkind: cloud\n", r"\$\.kind: expected one of"),
        ("template: a\nenv: [A]\n", "A has no value"),
        ('template: a\ncommand: "echo \'x"\n', "not a command"),
        ("template: a\nulimits: {nofile: lots}\n", r"\$\.ulimits\.nofile"),
        ("template: a\nname: ../x\n", r"\$\.name: not a name"),
        ("template: a\nstop_timeout: -1\n", r"\$\.stop_timeout"),
        ("template: a\nport: ['80']\n", "unknown key 'port'"),
    ],
)
def test_what_is_wrong_is_said_with_the_path_into_the_document(text, words, tmp_path):
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        load_workload(str(tmp_path / "w.yaml"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        load_workload(str(tmp_path / "none.yaml"))
