"""`swiftlet kernel trim`: what it asks the daemon for and what it prints; what is refused before anything is begun."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from swiftlet.cli import main as cli
from swiftlet.cli.options import InputError
from swiftlet.guest import qemu
from swiftlet.image.kernel import kept
from swiftlet.model.error import HostError
from swiftlet.node import derived
from tests.unit import fakenode

DIGEST = "ab" * 32


def kernel(name, size, options):
    sizes = {"vmlinux": size << 20, "bzimage": size << 18, "text": size << 19, "data": 0, "bss": 0}
    return {"digest": DIGEST, "name": name, "bytes": size << 20, "options": options, "sizes": sizes}


RUN = {"number": 1, "what": "what has run", "passed": True, "why": "", "bytes": 15 << 20, "boot_ms": 900.0,
       "seconds": 200.0, "off": 400}  # fmt: skip
DERIVED = {
    "kernel": kernel("web", 12, 500),
    "full": kernel("", 29, 1190),
    "complete": True,
    "runs": [RUN, {**RUN, "number": 2, "passed": False, "why": "web: silent\nconsole", "boot_ms": -1.0}],
    "compared": {
        "profile": "server", "kernel": kernel("server", 20, 782), "boot_ms": 800.0, "profile_boot_ms": 1000.0,
        "only_derived": [{"symbol": "CONFIG_BIG", "bytes": 2 << 20}, {"symbol": "CONFIG_IF", "bytes": None}],
    },
}  # fmt: skip


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTLET_RUN", f"{tmp_path}/run")
    monkeypatch.chdir(tmp_path)
    node = fakenode.FakeNode(f"{tmp_path}/run/node.sock")
    node.answers["KernelTrim"] = {"derived": DERIVED}
    node.answers["ParseWorkload"] = lambda call: call.answer({"workload": {"templates": [call.parameters["text"]]}})
    yield node
    node.close()


@pytest.fixture
def says(capsys):
    def run(*words):
        code = cli.main(["kernel", "trim", *words])
        return code, *capsys.readouterr()

    return run


def test_every_workload_file_is_read_here_and_asked_for_with_the_start(node, says, tmp_path):
    for name in ("a", "b"):
        Path(f"{name}.yaml").write_text(f"{name}@1")
    code, _, _ = says(
        "--workload", "a.yaml", "--workload", "b.yaml", "--gate", "--budget", "7", "--from", "docker",
        "--config", "pmem", "--source", "linux", "--name", "web", "--compare", "net",
    )  # fmt: skip
    assert code == 0 and node.parameters_of("KernelTrim") == {
        "workloads": [{"templates": ["a@1"]}, {"templates": ["b@1"]}],
        "gate": True,
        "fragments": [{"name": "pmem"}],
        "budget": 7,
        "profile": "docker",
        "name": "web",
        "compare": "net",
        "source": f"{tmp_path}/linux",
    }


def test_the_runs_and_the_comparison_are_shown(node, says):
    lines = says("--gate")[1].splitlines()
    assert lines[1].split()[:4] == ["1", "passed", "400", "15MiB"]
    assert lines[2].split()[1] == "FAILED" and lines[2].endswith("what has run: web: silent")
    rows = {line.split()[0]: line.split() for line in lines[4:8]}
    assert rows["web"][1:3] == ["500", "12MiB"] and rows["server"][1:3] == ["782", "20MiB"]
    assert rows["web"][-2:] == ["800", "ms"] and rows["server"][-2:] == ["1000", "ms"]
    assert "smaller than server, in vmlinux and bzImage" in lines
    assert json.loads(says("--gate", "--json")[1]) == DERIVED and says("--gate", "-q")[1] == f"{DIGEST}\n"


def test_a_kernel_that_is_larger_says_by_what(node, says):
    compared = {**DERIVED["compared"], "kernel": kernel("server", 10, 400)}
    node.answers["KernelTrim"] = {"derived": {**DERIVED, "compared": compared, "complete": False}}
    out = says("--gate", "--budget", "3")[1]
    assert f"larger than server by {2 << 20} more bytes of vmlinux and {2 << 18} more bytes of bzImage" in out
    assert "server has not: CONFIG_BIG 2MiB\n" in out
    assert "3 kernels were not enough to try everything" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "kernel trim: no checks"),
        (("--gate", "--budget", "many"), "--budget: 'many' is no number of kernels"),
        (("--workload", "none.yaml"), "workload file none.yaml: No such file"),
        (("--gate", "--config", "./no.config"), "--config ./no.config: No such file"),
        (("--gate", "--json", "-q"), "--json and -q"),
    ],
)
def test_bad_input_is_told_before_the_daemon_is_asked(node, says, words, told):
    code, _, errors = says(*words)
    assert code == 125 and told in errors and not any(call.method.endswith("KernelTrim") for call in node.calls)


@pytest.mark.parametrize("name", ["server", "net+mine", "", "../x", "Web", ".trim", "a b", "beef"])
def test_a_kernel_takes_no_profiles_name_no_digests_and_none_that_hides_it(name):
    with pytest.raises(InputError, match="is no name for a kernel"):
        kept.checked_name(name)
    assert kept.checked_name("hello-web") == "hello-web" and kept.checked_name("bee") == "bee"


def test_what_is_missing_to_try_kernels_is_told_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(qemu, "PROGRAM", "/none/qemu")
    asked = {"name": "web", "workloads": [], "gate": True, "budget": 2, "compare": "server"}
    with pytest.raises(HostError, match="no /none/qemu here"):
        derived.kernel_trim(SimpleNamespace(parameters=asked))  # anything of it that is made needs more than this


def test_what_a_volume_needs_is_kept_though_no_trial_runs_it():
    from swiftlet.model.workload import Volume, Workload

    def kept_for(*volumes):
        return {each.symbol for each in derived._kept([Workload(("a@1",), volumes=volumes)])}

    assert kept_for(Volume("/a", "/b")) - kept_for() == {"CONFIG_FUSE_FS", "CONFIG_VIRTIO_FS"}


def test_explain_tells_what_is_known_of_an_option_of_a_derived_kernel(node, capsys):
    answer = {
        "value": "n", "chain": [], "objects": None, "bytes": None, "milliseconds": None, "definitions": [],
        "evidence": {"told": "dropped because run 3 passed without it", "place": "", "run": 3, "bytes": 4096,
                     "milliseconds": 1.25},
    }  # fmt: skip
    node.answers["KernelExplain"] = answer
    assert cli.main(["kernel", "explain", "NUMA", "web"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "derived: dropped because run 3 passed without it",
        "it had, in the full kernel: 4KiB, 1.25 ms of its start",
    ]
    kept = {**answer["evidence"], "told": "kept because mm/numa.c:7 ran", "bytes": None, "milliseconds": None}
    node.answers["KernelExplain"] = {**answer, "value": "y", "evidence": kept}
    assert cli.main(["kernel", "explain", "NUMA", "web"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "derived: kept because mm/numa.c:7 ran"
