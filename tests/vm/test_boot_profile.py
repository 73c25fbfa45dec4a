"""`swiftlet boot profile` with real machines: every mark, every initcall, every function of the kernel named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.product import Product, eventually

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600, func_only=True)]

WEB = ("-t", "busybox", "-p", "8080", "--", "httpd", "-f", "-p", "8080", "-h", "/")


def profiled(product: Product, *words: str) -> Any:
    return json.loads(product.ok("boot", "profile", "--json", *words))


def test_a_machine_that_runs_is_profiled_and_left_alone(product: Product, tmp_path) -> None:
    product.ok("run", "-d", "--as", "vm", "--name", "web", *WEB)
    before = product.json("ps")
    figure = tmp_path / "boot.svg"
    found = profiled(product, "web", "-o", str(figure))
    assert product.json("ps") == before
    product.ok("rm", "-f", "web")

    at = {mark["mark"]: mark["watched_ms"] for mark in found["marks"]}
    names = ["asked", "prepared", "launched", "QEMU begins", "kernel", "init", "workload", "service"]
    assert [at[name] for name in names] == sorted(at[name] for name in names)
    usual = {mark["mark"]: mark["ms"] for mark in found["marks"]}
    assert all(usual[name] is not None for name in names if name not in ("kernel", "init"))

    called = {row["name"]: row for row in found["initcalls"]}
    assert len(called) > 100 and not any(name.startswith("0x") for name in called)
    assert called["virtio_blk_init"]["ms"] > 0
    assert at["kernel"] < called["virtio_blk_init"]["start_ms"] < at["init"]

    kernel = [stack for stack in found["stacks"] if stack["frames"][0] == "kernel"]
    assert found["looks"]["count"] > 50
    assert not any(frame.startswith(("(", "0x")) for stack in kernel for frame in stack["frames"])
    whole = sum(stack["ms"] for stack in kernel if stack["part"] == "boot")
    rooted = sum(
        stack["ms"]
        for stack in kernel
        if stack["part"] == "boot" and {"start_kernel", "ret_from_fork"} & {*stack["frames"][1:4]}
    )
    assert rooted > 0.5 * whole
    assert any("virtio_blk_init" in stack["frames"] for stack in kernel)
    assert found["removable"][0]["ms"] >= found["removable"][-1]["ms"] > 0
    titles = [each.text or "" for each in ElementTree.parse(figure).iter() if each.tag.endswith("title")]
    assert any(title.startswith("start_kernel: ") for title in titles)


def test_a_workload_is_profiled_without_being_run_and_ends_by_itself(product: Product) -> None:
    found = profiled(product, "--as", "vm", "-t", "busybox", "--cpus", "2", "--", "sleep", "0.2")
    assert found["machine"]["processors"] == 2
    assert {"kernel", "init", "workload"} <= {mark["mark"] for mark in found["marks"]}
    assert "programs" in {stack["frames"][0] for stack in found["stacks"]}
    assert product.json("ps", "-a") == []


def test_a_machine_with_a_volume_is_profiled(product: Product, tmp_path) -> None:
    (tmp_path / "page").write_text("hello")
    words = ("-v", f"{tmp_path}:/page:ro", "-t", "busybox", "--", "cat", "/page/page")
    found = profiled(product, "--as", "vm", *words)
    assert "workload" in {mark["mark"] for mark in found["marks"]}
    assert found["looks"]["count"] > 50


def test_what_is_no_machine_or_not_there_is_refused(product: Product, tmp_path) -> None:
    for words, told in (
        (("none",), "no guest 'none'"),
        (("-t", "busybox", "--", "true"), "only a virtual machine"),
        ((), "name one guest"),
        (("none", "-o", "boot.pdf"), "neither .svg nor .png"),
    ):
        done = product.run("boot", "profile", *words)
        assert done.returncode == 125 and told in done.stderr, done.stderr
    assert product.json("ps", "-a") == []
    assert not os.path.exists("boot.pdf")


def test_a_copy_does_not_outlive_a_profile_that_is_broken_off(product: Product) -> None:
    asked = product.spawn("boot", "profile", "--as", "vm", "-t", "busybox", "--", "sleep", "60")
    with pytest.raises(subprocess.TimeoutExpired):
        asked.communicate(timeout=2)
    asked.kill()
    asked.communicate()
    assert eventually(lambda: product.json("ps", "-a") == [])


def test_a_profile_whose_watcher_is_killed_says_so_and_leaves_no_copy(product: Product) -> None:
    asked = product.spawn("boot", "profile", "--as", "vm", "-t", "busybox", "--", "sleep", "60")
    guests = Path(product.instance.root, "guests")
    eventually(lambda: [*guests.glob("*/debugger.sock")], 120)
    watchers = [number for number, line in product.processes().items() if "swiftlet.node.pull" in line]
    for number in watchers:
        os.kill(number, signal.SIGKILL)
    _, errors = asked.communicate(timeout=30)
    assert len(watchers) == 1 and asked.returncode == 125 and "boot watch was killed by signal 9" in errors
    assert product.json("ps", "-a") == []
