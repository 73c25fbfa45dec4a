"""`swiftlet kernel` as a user has it, over a tree that is built in a second: the real command, daemon and worker."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product, eventually
from tests.tiny_kernel import make_tree, packed

pytestmark = pytest.mark.root


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Product]:
    """A product of the test's own; nothing may be left of it at the end."""
    made = Product(str(tmp_path / "root"))
    os.mkdir(made.instance.root, 0o711)
    yield made
    made.close()
    assert made.leftovers() == []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "builds"


@pytest.fixture
def tree(tmp_path: Path, log: Path) -> Path:
    """A tiny tree with every option that the profile micro asks for, whose builds add a line to `log`."""
    return make_tree(tmp_path / "linux", log)


def kernels(installation: Product) -> Path:
    return Path(installation.instance.root, "cache/kernels")


def half_made(installation: Product) -> list[str]:
    return [name for name in os.listdir(kernels(installation)) if name.startswith(".") or name.endswith(".new")]


def builders(tree: Path) -> list[str]:
    """Processes that work for builds of a tree."""
    shown = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    return [
        line for line in shown.splitlines() if line.startswith(("make", "sh -c", "/bin/sh -c")) and str(tree) in line
    ]


def test_a_kernel_is_built_listed_shown_compared_explained_and_removed(installation: Product, tree: Path) -> None:
    (tree.parent / "inet.config").write_text("CONFIG_INET=y\n")
    source = ("--source", str(tree))
    micro = installation.json("kernel", "build", "-p", "micro", *source)
    net = installation.json("kernel", "build", "-p", "net", *source, "--config", str(tree.parent / "inet.config"))
    assert (micro["reused"], micro["name"], net["name"]) == (False, "micro", "net+inet")
    assert [each["digest"] for each in installation.json("kernel", "ls")] == [net["digest"], micro["digest"]]
    assert installation.json("kernel", "build", "-p", "micro", *source)["reused"] is True
    assert installation.json("kernel", "show", "net+inet")["requests"][-1] == {
        "symbol": "CONFIG_INET", "value": "y", "fragment": "inet.config", "line": 1
    }  # fmt: skip
    changes = installation.json("kernel", "diff", "micro", net["digest"][:8])
    assert {"CONFIG_NET", "CONFIG_CRC"} <= {each["symbol"] for each in changes["only_after"]}
    assert changes["after"]["sizes"]["vmlinux"] == os.stat(net["vmlinux"]).st_size
    crc = installation.json("kernel", "explain", "crc", "net+inet")
    assert [step["symbol"] for step in crc["chain"]] == ["CONFIG_CRC", "CONFIG_INET"]
    assert crc["chain"][1]["source"] == "inet.config:1" and crc["bytes"] is None
    assert installation.json("kernel", "explain", "NET", "net+inet")["objects"] == 1
    assert installation.ok("kernel", "rm", "micro", "net+inet").split() == [micro["digest"], net["digest"]]
    assert installation.json("kernel", "ls") == [] and os.listdir(kernels(installation)) == []


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["build", "-p", "macro"], "no kernel profile macro", "micro, net, server"),
        (["build", "--source", "/etc"], "/etc is no kernel tree", ""),
        (["build", "--source", "/no/where.tar"], "/no/where.tar is no kernel source", "give a kernel tree"),
        (["build", "--config", "nothing"], "no kernel fragment nothing", "./mine.config"),
        (["show", "server"], "no kernel is built", ""),
        (["show", "abcd"], "no kernel is built", ""),
        (["explain", "SMP"], "no kernel is built", "kernel build"),
        (["rm", "docker"], "no kernel of profile docker is built", "kernel build --profile docker"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(installation: Product, words: list[str], message: str, hint: str) -> None:
    done = installation.run("kernel", *words)
    lines = done.stderr.splitlines()
    assert done.returncode == 125 and done.stdout == "" and len(lines) <= 2
    assert message in lines[0] or (words[0] in ("show", "explain") and "no kernel" in lines[0])
    assert hint in done.stderr


def test_ctrl_c_ends_a_build_and_leaves_nothing(installation: Product, tree: Path, log: Path) -> None:
    (tree / "slow").write_text("60")
    running = installation.spawn("kernel", "build", "-p", "micro", "--source", str(tree))
    eventually(lambda: log.exists() and builders(tree))
    running.send_signal(signal.SIGINT)
    assert running.wait(10) == 130
    eventually(lambda: not builders(tree) and not half_made(installation))
    (tree / "slow").unlink()
    assert installation.json("kernel", "build", "-p", "micro", "--source", str(tree))["reused"] is False


def test_two_who_want_the_same_kernel_get_one_build(installation: Product, tree: Path, log: Path) -> None:
    (tree / "slow").write_text("2")
    archive = str(packed(tree))
    words = ("kernel", "build", "-q", "-p", "micro", "--source", archive)
    first, second = installation.spawn(*words), installation.spawn(*words)
    assert first.communicate()[0] == second.communicate()[0] != ""
    assert log.read_text().count("\n") == 1


def test_who_leaves_a_shared_build_does_not_end_it(installation: Product, tree: Path, log: Path) -> None:
    (tree / "slow").write_text("4")
    archive = str(packed(tree))
    words = ("kernel", "build", "-q", "-p", "micro", "--source", archive)
    first = installation.spawn(*words)
    eventually(log.exists)
    second = installation.spawn(*words)
    time.sleep(1.5)  # it has no way to say that it waits with the first
    first.send_signal(signal.SIGINT)
    assert first.wait(10) == 130 and len(second.communicate()[0]) == 65 and log.read_text().count("\n") == 1


@pytest.mark.crash
def test_a_killed_daemon_takes_the_build_along_and_the_next_one_builds(
    installation: Product, tree: Path, log: Path
) -> None:
    (tree / "slow").write_text("60")
    running = installation.spawn("kernel", "build", "-p", "micro", "--source", str(tree))
    eventually(lambda: log.exists() and builders(tree))
    daemon = installation.pid("api.daemon")
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    assert running.wait(30) == 125
    eventually(lambda: not builders(tree))
    (tree / "slow").unlink()
    assert installation.json("kernel", "build", "-p", "micro", "--source", str(tree))["reused"] is False
    assert half_made(installation) == []


def test_the_cache_is_not_emptied_under_a_build(installation: Product, tree: Path, log: Path) -> None:
    (tree / "slow").write_text("3")
    running = installation.spawn("kernel", "build", "-q", "-p", "micro", "--source", str(tree))
    eventually(log.exists)
    refused = installation.run("store", "gc", "--cache")
    assert refused.returncode == 125 and "the cache is in use" in refused.stderr
    assert len(running.communicate()[0]) == 65
    assert installation.run("store", "gc", "--cache").returncode == 0
    assert installation.json("kernel", "ls") == []
