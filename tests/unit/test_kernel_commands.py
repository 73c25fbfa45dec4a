"""`swiftlet kernel`: what the commands ask the daemon for and what they print; how requests and builds are shared."""

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from swiftlet.cli import main as cli
from swiftlet.cli import progress
from swiftlet.model.error import InputError, NotFoundError
from swiftlet.node.kernels import _symbol, requested
from swiftlet.node.workers import Kernels
from tests.unit import fakenode

DIGEST = "ab" * 32
KERNEL = {
    "digest": DIGEST, "name": "net", "names": ["micro", "net"], "version": "6.1.192", "bytes": 9 << 20, "steps": 900,
    "sizes": {"vmlinux": 9 << 20, "bzimage": 3 << 20, "text": 5 << 20, "data": 1 << 20, "bss": 1 << 20},
    "options": 746, "built_ns": 1, "seconds": 201.4, "compiler": "gcc",
    "source": {"path": "/src", "digest": "cd" * 32},
    "folder": "/k", "vmlinux": "/k/vmlinux", "bzimage": "/k/bzImage",
}  # fmt: skip


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTLET_RUN", f"{tmp_path}/run")
    monkeypatch.chdir(tmp_path)
    node = fakenode.FakeNode(f"{tmp_path}/run/node.sock")
    yield node
    node.close()


@pytest.fixture
def says(capsys):
    def run(*words):
        code = cli.main(list(words))
        return code, *capsys.readouterr()

    return run


def test_build_sends_texts_of_fragments_and_whole_paths_for_the_daemon_is_elsewhere(node, says, tmp_path):
    node.answers["KernelBuild"] = {"kernel": KERNEL, "reused": False}
    Path("mine.config").write_text("CONFIG_A=y\n")
    code, out, _ = says(
        "kernel", "build", "-p", "net", "--source", "linux", "--config", "pmem", "--config", "mine.config"
    )
    assert code == 0 and out.startswith("net  abababababab  Linux 6.1.192, 746 options, vmlinux 9MiB, built in 201 s")
    assert node.parameters_of("KernelBuild") == {
        "profile": "net",
        "source": f"{tmp_path}/linux",
        "fragments": [{"name": "pmem"}, {"name": "mine.config", "text": "CONFIG_A=y\n"}],
    }
    assert json.loads(says("kernel", "build", "--json")[1]) == {**KERNEL, "reused": False}
    assert node.calls[-1].parameters == {"profile": "server", "fragments": []}
    assert says("kernel", "build", "-q")[1] == f"{DIGEST}\n"
    node.answers["KernelBuild"] = {"kernel": KERNEL, "reused": True}
    assert "was there already" in says("kernel", "build")[1]


def test_a_fragment_that_cannot_be_read_is_named_before_anything_is_asked(node, says):
    Path("bytes.config").write_bytes(b"\xff\xfe")
    assert "--config ./no.config: No such file" in says("kernel", "build", "--config", "./no.config")[2]
    assert "--config bytes.config: not a text" in says("kernel", "build", "--config", "bytes.config")[2]
    assert node.calls == []


def test_ls_and_show_name_what_a_kernel_is(node, says):
    node.answers["Kernels"] = {"kernels": [KERNEL]}
    row = says("kernel", "ls")[1].splitlines()[1]
    assert row.startswith("abababababab   micro, net   6.1.192   746       9MiB      3MiB")
    assert says("kernel", "ls", "-q")[1] == f"{DIGEST}\n" and json.loads(says("kernel", "ls", "--json")[1]) == [KERNEL]
    requests = [{"symbol": "CONFIG_A", "value": "y", "fragment": name, "line": 1} for name in ("base", "net", "net")]
    node.answers["Kernel"] = {"kernel": KERNEL, "requests": requests}
    out = says("kernel", "show", "net")[1]
    assert "options  746 on, 3 asked for (1 by base, 2 by net)" in out and "text 5MiB" in out and DIGEST in out


def test_diff_shows_what_only_one_has_what_changed_and_the_sizes(node, says):
    larger = {**KERNEL, "sizes": {name: size * 2 for name, size in KERNEL["sizes"].items()}}
    node.answers["KernelDiff"] = {
        "before": KERNEL,
        "after": larger,
        "only_before": [{"symbol": "CONFIG_A", "before": "y", "after": "n"}],
        "only_after": [{"symbol": "CONFIG_B", "before": "n", "after": "7"}],
        "changed": [{"symbol": "CONFIG_C", "before": "1", "after": "2"}],
    }
    lines = says("kernel", "diff", "net", "server")[1].splitlines()
    assert lines[:4] == [
        "- CONFIG_A=y", "+ CONFIG_B=7", "~ CONFIG_C=1 -> 2", "1 only in net, 1 only in server, 1 changed"
    ]  # fmt: skip
    assert lines[4].split() == ["vmlinux", "9MiB", "->", "18MiB", "+100.0%"] and len(lines) == 9


def test_explain_goes_from_the_option_to_who_asked_and_says_what_it_costs(node, says):
    chain = [
        {"symbol": "CONFIG_CRC16", "value": "y", "why": "selected by CONFIG_EXT4_FS", "source": "fs/ext4/Kconfig:29"},
        {"symbol": "CONFIG_EXT4_FS", "value": "y", "why": "asked for", "source": "server.config:2"},
    ]
    definition = {
        "title": "CRC16", "file": "lib/Kconfig", "line": 9, "conditions": ["A", "B"], "failing": ["B"],
        "selects": ["CONFIG_C"], "help": "One.\nTwo.",
    }  # fmt: skip
    answer = {
        "value": "y",
        "chain": chain,
        "objects": 1,
        "bytes": 2048,
        "milliseconds": 1.5,
        "definitions": [definition],
    }
    node.answers["KernelExplain"] = answer
    assert says("kernel", "explain", "crc16", "net")[1].splitlines() == [
        "CONFIG_CRC16=y: selected by CONFIG_EXT4_FS  [fs/ext4/Kconfig:29]",
        "  CONFIG_EXT4_FS=y: asked for  [server.config:2]",
        "costs: 2KiB in 1 object file that would not be there without it",
        "start: 1.5 ms",
        "",
        "CRC16  [lib/Kconfig:9]",
        "  needs: A && B",
        "  which fails in: B",
        "  selects: CONFIG_C",
        "  One.",
        "  Two.",
    ]
    assert node.calls[-1].parameters == {"option": "crc16", "kernel": "net"}
    node.answers["KernelExplain"] = {**answer, "bytes": None, "milliseconds": None}
    out = says("kernel", "explain", "crc16")[1]
    assert "its bytes cannot be told" in out and "start: not measured" in out
    assert node.calls[-1].parameters == {"option": "crc16", "kernel": None}


def test_rm_removes_each_that_it_can(node, says):
    def remove(call):
        if call.parameters["kernel"] == "b":
            call.error("NotFoundError", "no kernel b")
        else:
            call.answer({"kernel": KERNEL, "bytes": 1})

    node.answers["KernelRemove"] = remove
    assert says("kernel", "rm", "a", "b", "c") == (125, f"{DIGEST}\n{DIGEST}\n", "swiftlet: no kernel b\n")


def test_fragments_are_laid_over_the_profile_and_name_the_kernel():
    own = {"name": "mine.config", "text": "# CONFIG_SMP is not set\nCONFIG_MINE=y\n"}
    name, requests = requested("micro", [{"name": "pmem"}, own])
    values = {wanted.symbol: (wanted.value, wanted.fragment) for wanted in requests}
    assert name == "micro+pmem+mine" and values["CONFIG_MINE"] == ("y", "mine.config")
    assert values["CONFIG_SMP"] == ("n", "mine.config") and values["CONFIG_VIRTIO_PMEM"] == ("y", "pmem")
    with pytest.raises(NotFoundError, match="no kernel fragment nothere"):
        requested("micro", [{"name": "nothere"}])
    with pytest.raises(NotFoundError, match="no kernel profile nothere"):
        requested("nothere", [])
    with pytest.raises(InputError, match=r"mine\.config, line 1: 'what\?' is no option"):
        requested("micro", [{"name": "mine.config", "text": "what?\n"}])


def test_an_option_may_be_typed_as_it_comes():
    known = {"CONFIG_EXT4_FS", "CONFIG_Mixed"}
    assert {_symbol(text, known) for text in ("CONFIG_EXT4_FS", "ext4_fs", "config_ext4_fs")} == {"CONFIG_EXT4_FS"}
    assert _symbol("Mixed", known) == "CONFIG_Mixed" and _symbol("nothing", known) == "CONFIG_NOTHING"
    with pytest.raises(InputError, match="not an option"):
        _symbol("EXT4-FS; rm", known)


class Slow:
    """Workers whose one kind of work ends when it is told to."""

    def __init__(self):
        self.begun = self.ended = 0
        self.go = asyncio.Event()

    async def run(self, operation, parameters, progress):
        self.begun += 1
        try:
            progress({"stage": "compile", "text": "", "done": 1, "total": 2})
            await self.go.wait()
            return {"kernel": KERNEL, "reused": False}
        finally:
            self.ended += 1


ASKED = {"profile": "net", "source": None, "fragments": []}


def test_who_wants_the_same_kernel_shares_its_build_and_hears_of_its_progress():
    async def both():
        slow, heard = Slow(), []
        kernels = Kernels(slow)
        tasks = [asyncio.create_task(kernels.build(dict(ASKED), heard.append)) for _ in range(2)]
        await asyncio.sleep(0.01)
        slow.go.set()
        assert [(await task)["kernel"] for task in tasks] == [KERNEL, KERNEL]
        assert (slow.begun, len(heard)) == (1, 2)
        await kernels.build(dict(ASKED), heard.append)
        assert slow.begun == 2  # what has ended is not joined any more

    asyncio.run(both())


def test_a_build_ends_with_the_last_who_waits_for_it_and_not_before():
    async def leave():
        slow = Slow()
        kernels = Kernels(slow)
        first, second = (asyncio.create_task(kernels.build(dict(ASKED), lambda step: None)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        assert (slow.begun, slow.ended) == (1, 0)
        second.cancel()
        await asyncio.sleep(0.01)
        assert (slow.begun, slow.ended) == (1, 1)

    asyncio.run(leave())


def test_a_tree_that_may_have_changed_meanwhile_is_built_for_each(tmp_path):
    async def both():
        slow = Slow()
        slow.go.set()
        kernels = Kernels(slow)
        asked = {**ASKED, "source": str(tmp_path)}
        await asyncio.gather(*(kernels.build(dict(asked), lambda step: None) for _ in range(2)))
        assert slow.begun == 2

    asyncio.run(both())


def test_without_a_terminal_a_long_stage_is_told_now_and_then_with_an_estimate(monkeypatch, capsys):
    clock = itertools.count(0, 1.5)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress() as shown:
        for done in range(60):
            shown.show({"stage": "compile", "text": f"{done}.o", "done": done, "total": 120})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compile: 0.o" and 3 <= len(lines) <= 10
    assert all(line.startswith("compile: ") and line.endswith(" left") and "/120, " in line for line in lines[1:])


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "text"),
    [(1, 4, 60, ", 3 minutes left"), (1, 4, 1, ""), (0, 4, 60, ""), (4, 4, 60, ""), (5, 0, 60, "")],
)
def test_an_estimate_is_made_only_where_there_is_something_to_make_it_from(done, total, elapsed, text):
    assert progress.left_text({"done": done, "total": total}, elapsed) == text
