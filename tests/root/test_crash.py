"""kill -9 at random moments of a random workload: nothing is lost, nothing is half-made, nothing is left.

SWIFTLET_CRASHES says how many kills the workload gets (of all kinds together), SWIFTLET_SEED makes their order
another. What holds is checked after every few kills, with the workload paused: see `chaos.Workload.check`.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen

import pytest

from swiftlet.linux import cgroup
from tests import census
from tests.census import children, comm
from tests.chaos import (
    BOX,
    EXPECTED_ERRORS,
    KINDS,
    POOL,
    SEED,
    Killer,
    Workload,
    check_journal,
    children_workers,
    kill,
)
from tests.product import Product, eventually

pytestmark = [pytest.mark.root, pytest.mark.crash]

CRASHES = int(os.environ.get("SWIFTLET_CRASHES", "28"))
CHECK_EVERY = 7


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killing_anything_at_any_moment_loses_nothing_and_leaves_nothing(installation: Product, tmp_path: Path) -> None:
    workload = Workload(installation, tmp_path, users=3)
    killer = Killer(workload, SEED)
    before = settled_launcher(installation)
    order = [KINDS[number % len(KINDS)] for number in range(CRASHES)]
    killer.moments.shuffle(order)
    workload.begin()
    try:
        for number, kind in enumerate(order, 1):
            killer.kill(kind)
            if number % CHECK_EVERY == 0 or number == CRASHES:
                with workload.paused():
                    workload.check()
            assert not workload.complaints, "\n".join(workload.complaints)
    finally:
        workload.close()
        print(f"kills {dict(killer.kills)}; done meanwhile {dict(workload.done)}; {len(workload.struck)} struck")
    assert len(workload.struck) <= killer.kills["child"]
    for guest in installation.json("ps", "-a"):
        if guest["name"] != "anchor":
            installation.ok("rm", "-f", guest["id"])
    eventually(lambda: settled_launcher(installation) == before, 20)


def settled_launcher(product: Product) -> list[str]:
    """What the launcher's descriptors are, without the numbers that differ from one to the next."""
    launcher = census.part_pids(product)["launcher"]
    return sorted(link.partition(":")[0] for link in census.descriptors(launcher))


def test_the_output_and_the_code_of_a_guest_arrive_though_the_daemon_is_killed(
    installation: Product, tmp_path: Path
) -> None:
    """In the foreground, with --rm and without, while daemons die one after the other."""
    (tmp_path / "box.yaml").write_text(BOX)
    script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); seq 1 500; usleep 50000; done; exit 33"
    arguments = ("-t", str(tmp_path / "box.yaml"), "--", "sh", "-c", script)
    installation.ok("run", "--rm", "-q", "-t", str(tmp_path / "box.yaml"), "--", "true")
    running = [installation.spawn("run", "-q", *more, *arguments) for more in ((), ("--rm",), ("--name", "waited"))]
    with ThreadPoolExecutor(len(running)) as pool:
        followed = [pool.submit(each.communicate, timeout=60) for each in running]
        eventually(lambda: len(installation.json("ps")) == 3)
        waiting = installation.spawn("wait", "waited")
        for _ in range(3):
            time.sleep(0.2)
            kill(installation.pid("api.daemon"))
            eventually(lambda: installation.run("ps").returncode == 0)
        outputs = [each.result() for each in followed]
    wanted = "".join(f"{number}\n" for number in range(1, 501)) * 40
    assert [each.returncode for each in running] == [33, 33, 33], [text for _, text in outputs]
    assert outputs == [(wanted, "")] * 3
    assert waiting.communicate(timeout=30) == ("33\n", "")
    assert installation.ok("logs", "waited") == wanted
    guests = installation.json("ps", "-a")
    assert [guest["exit"]["code"] for guest in guests] == [33, 33], "the one with --rm has gone"


@pytest.mark.slow
def test_when_the_launcher_is_killed_its_guests_are_cleanly_gone_and_all_goes_on(
    installation: Product, tmp_path: Path
) -> None:
    """At random moments of guests' starts and ends."""
    (tmp_path / "box.yaml").write_text(BOX)
    box = str(tmp_path / "box.yaml")
    moments = random.Random(SEED)
    run = ("run", "-d", "-q", "-t", box)
    for number in range(max(3, CRASHES // 7)):
        script = "i=0; while :; do i=$((i+1)); echo line $i; usleep 1000; done"
        installation.ok(*run, "-p", "80", "--userns", "--name", f"lasting-{number}", "--", "sh", "-c", script)
        installation.ok(*run, "--rm", "--name", f"passing-{number}", "--", "sleep", "1000")
        installation.ok(*run, "--name", f"ending-{number}", "--", "sh", "-c", "echo whole; usleep 50000; exit 21")
        foreground = installation.spawn("run", "-q", "--name", f"front-{number}", "-t", box, "--", "sleep", "1000")
        starting = [
            installation.spawn(*run, "--name", f"new-{number}-{each}", "--", "sleep", "1000") for each in range(3)
        ]
        launcher = census.part_pids(installation)["launcher"]
        time.sleep(0.03 + moments.random() * 0.1)
        kill(launcher)
        told = [each.communicate(timeout=60)[1] for each in starting]
        end_if_later(installation, foreground, f"front-{number}")
        front = foreground.communicate(timeout=60)
        assert foreground.returncode == 137 or "the launcher died" in front[1], (foreground.returncode, front)
        for each, text in zip(starting, told, strict=True):
            assert each.returncode == 0 or "the launcher died" in text, text
        assert installation.ok("run", "--rm", "-q", "-t", box, "--", "echo", "on") == "on\n"
        check_after_launcher(installation, number)
        for guest in installation.json("ps", "-a"):
            installation.ok("rm", "-f", guest["id"])


def end_if_later(product: Product, foreground: Popen[str], name: str) -> None:
    """A guest in the foreground whose command was so slow that the next launcher started it goes on: end it."""

    def running() -> bool:
        return any(guest["name"] == name and guest["state"] == "Running" for guest in product.json("ps"))

    eventually(lambda: foreground.poll() is not None or running(), 60)
    if foreground.poll() is None:
        product.ok("kill", name)


def check_after_launcher(product: Product, number: int) -> None:
    guests = {guest["name"]: guest for guest in product.json("ps", "-a")}
    for guest in guests.values():
        check_journal(product.json("inspect", guest["id"])[0])
        assert guest["state"] == "Stopped" or guest["name"].startswith("new-"), guest
    assert f"passing-{number}" not in guests
    lasting, ending = guests[f"lasting-{number}"], guests[f"ending-{number}"]
    assert (lasting["exit"]["code"], lasting["exit"]["reason"]) == (137, "lost with its launcher")
    assert (ending["exit"]["code"], ending["exit"]["reason"]) in ((21, ""), (137, "lost with its launcher"))
    lines = product.ok("logs", f"lasting-{number}").splitlines()
    assert lines and lines == [f"line {at}" for at in range(1, len(lines) + 1)]
    assert product.ok("logs", f"ending-{number}") == "whole\n"
    running = frozenset(guest["id"] for guest in guests.values() if guest["state"] == "Running")
    eventually(lambda: census.groups(product) == running)
    eventually(lambda: census.interfaces(product) == POOL + len(running))
    eventually(lambda: len(census.processes_in_guests(product)) == len(running))
    eventually(lambda: census.take(product).processes == {"daemon": 1, "launcher": 1, "log worker": 1})
    eventually(lambda: census.elements(product) == [])


def test_what_a_killed_worker_had_started_ends_with_it(installation: Product, tmp_path: Path) -> None:
    """A command that generates files in its sandbox; also when it is the daemon that is killed."""
    text = BOX + "generate:\n  - run: [/usr/bin/sleep, '1000']\n    outputs: [/x]\n"
    (tmp_path / "slow.yaml").write_text(text.replace("name: box", "name: slow"))
    for victim in ("worker", "daemon"):
        asked = installation.spawn("template", "resolve", "-q", str(tmp_path / "slow.yaml"))
        eventually(lambda: census.processes_in_guests(installation))
        for number in children_workers(installation) if victim == "worker" else [installation.pid("api.daemon")]:
            kill(number)
        text = asked.communicate(timeout=60)[1]
        assert asked.returncode == 125 and any(error in text for error in EXPECTED_ERRORS), text
        eventually(lambda: not census.processes_in_guests(installation), 5)
        installation.ok("ps")
        eventually(lambda: set(os.listdir(f"{installation.instance.root}/tmp")) <= census.LOCKS, 5)


def test_a_guest_that_was_being_set_up_when_the_launcher_was_killed_is_gone(
    installation: Product, tmp_path: Path
) -> None:
    """Its half-made process stands still, so that only its control group tells that it is there."""
    (tmp_path / "box.yaml").write_text(BOX)
    run = ("run", "--rm", "-q", "-t", str(tmp_path / "box.yaml"))
    mounts = ", ".join(f"/tmp/{number}" for number in range(1500))
    (tmp_path / "slow.yaml").write_text(
        f"templates: [{tmp_path}/box.yaml]\ncommand: [sleep, '1000']\ntmpfs: [{mounts}]\n"
    )
    installation.ok(*run, "--", "true")
    launcher = census.part_pids(installation)["launcher"]
    started = installation.spawn("run", "--rm", "-q", "-f", str(tmp_path / "slow.yaml"))
    while not (made := [child for child in children(launcher) if comm(child) == "swiftlet-launch"]):
        time.sleep(0.001)
    os.kill(made[0], signal.SIGSTOP)
    kill(launcher)
    assert "the launcher died" in started.communicate(timeout=30)[1]
    assert started.returncode == 126
    eventually(lambda: census.groups(installation) == frozenset())
    assert installation.ok(*run, "--", "echo", "on") == "on\n"
    eventually(lambda: census.take(installation).processes == {"daemon": 1, "launcher": 1, "log worker": 1})
    assert installation.json("ps", "-a") == []


def test_of_a_guest_that_ended_right_before_its_launcher_was_killed_nothing_is_left(
    installation: Product, tmp_path: Path
) -> None:
    """A process of ours in its groups holds up their removal, so that the launcher is killed in the middle of that."""
    (tmp_path / "box.yaml").write_text(BOX)
    run = (
        "run",
        "-d",
        "-q",
        "-t",
        str(tmp_path / "box.yaml"),
        "--name",
        "a",
        "--",
        "sh",
        "-c",
        "usleep 300000; exit 7",
    )
    guest = installation.ok(*run).strip()
    with Popen(["sleep", "100"]) as stranger:
        cgroup.join(cgroup.groups_below(cgroup.detect(), installation.instance.cgroup)[guest], stranger.pid)
        eventually(lambda: os.path.exists(f"{installation.instance.root}/guests/{guest}/exit.json"), 1.5)
        kill(census.part_pids(installation)["launcher"])
        assert stranger.wait(10) == -signal.SIGKILL
    eventually(lambda: census.groups(installation) == frozenset())
    assert eventually(lambda: installation.json("inspect", "a")[0]["exit"])["code"] == 7
    assert installation.run("start", "-a", "a").returncode == 7


def test_users_are_known_by_name_after_a_collection_took_the_root_away(installation: Product, tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text(BOX + "users: {worker: 900}\n")
    run = ("run", "--rm", "-q", "-t", str(tmp_path / "box.yaml"), "--user", "worker", "--", "true")
    installation.ok(*run)
    for more in ((), ("--cache",)):
        installation.ok("store", "gc", *more)
        installation.ok(*run)


@pytest.mark.slow
def test_components_are_inserted_whole_while_collections_run(installation: Product, tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text(BOX)
    installation.ok("run", "-d", "-q", "--name", "box", "-t", str(tmp_path / "box.yaml"), "--", "sleep", "1000")
    leave = threading.Event()

    def collect() -> None:
        while not leave.is_set():
            installation.ok("store", "gc")

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(8):
            data = tmp_path / f"data-{number}"
            data.write_text(f"content {number}\n")
            template = tmp_path / f"data-{number}.yaml"
            template.write_text(f"name: data{number}\nversion: 1\nfiles: {{data: {data}}}\n")
            installation.ok("insert", "box", str(template))
            for lock in Path(installation.instance.root, "locks").glob("data*"):
                lock.unlink()  # nothing but the guest keeps it now
    finally:
        leave.set()
        collector.join()
    for number in range(8):
        assert installation.ok("exec", "box", "--", "cat", f"{tmp_path}/data-{number}") == f"content {number}\n"
    assert installation.json("store", "verify")["damaged"] == []
