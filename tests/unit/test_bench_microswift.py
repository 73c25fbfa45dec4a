"""The virtual machines' bench: its plans, its console, its arithmetic of memory, its figure."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bench import boot, bootup, machines, memory, microswift, services
from bench.report import Report, machine
from bench.stock import Stock
from swiftlet.guest import qemu
from swiftlet.model.bundle import Bundle, CgroupPlan, Hypervisor, Machine, Rootfs
from swiftlet.model.workload import Workload

ROOT = Rootfs(lowers=("/tree",), trees=("tree",))
HOST = machines.Host("tcg", 2_000_000)
INSTALLED = Stock("/cache/stock/key", {}, 1000)


def bundle() -> Bundle:
    """Of a guest that runs /answer."""
    process = Hypervisor(rootfs=ROOT, argv=("/qemu",), uid=1, gid=1, volumes=())
    names = qemu.channels(terminal=False, input_=False, network=True, shares=0)
    made = Machine(process, "tcg", "", "microvm", "digest", 1 << 28, 1, ("/images/0", "/images/1"), names)
    workload = Workload(templates=("t",), command=("/answer", "8080"))
    return Bundle(
        "id", workload, ROOT, "/state", ("/answer", "8080"), {}, "/", "host", 0, 0, (), CgroupPlan({}), "new",
        rlimits={"NOFILE": (1024, 1024)}, machine=made,
    )  # fmt: skip


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


@pytest.mark.parametrize("traced", [False, True])
def test_all_configurations_have_the_same_memory_processor_and_accelerator(traced: bool) -> None:
    starts = [
        machines.stock(INSTALLED, HOST, traced=traced),
        machines.stock_kernel(INSTALLED, bundle(), HOST, traced=traced),
        machines.ours(bundle(), "/vmlinux", HOST, "q35", traced=traced),
        machines.ours(bundle(), "/vmlinux", HOST, "microvm", traced=traced),
    ]
    for name in ("-m", "-smp", "-cpu", "-accel"):
        assert len({option(start.argv, name) for start in starts}) == 1
    assert [option(start.argv, "-machine").partition(",")[0] for start in starts] == ["q35", "q35", "q35", "microvm"]
    assert all(("quiet" in option(start.argv, "-append").split()) is not traced for start in starts)
    assert all(("earlyprintk" in option(start.argv, "-append")) is traced for start in starts)


def test_the_stock_kernel_has_our_images_and_nothing_of_the_stock_root() -> None:
    start = machines.stock_kernel(INSTALLED, bundle(), HOST, traced=False)
    assert option(start.argv, "-kernel") == INSTALLED.kernel
    assert option(start.argv, "-initrd") == INSTALLED.loader
    assert INSTALLED.disk not in " ".join(start.argv)
    assert any("/images/1" in word for word in start.argv)


def test_a_guest_is_told_whom_to_tell_that_it_is_ready() -> None:
    told = machines.ours(bundle(), "/vmlinux", HOST, "microvm", traced=False).orders
    assert "a1/answer\0a18080\0a1198.18.77.1\0a19977\0" in told
    assert "198.18.77.2" in told


def test_a_console_tells_each_moment_once_and_kernels_only_where_traced() -> None:
    console = boot.Console(traced=True)
    console.take(b"[    0.1] Run /in", 10.0)
    console.take(b"it as init process\nsystemd[1]: systemd 252 run", 20.0)
    console.take(b"stock login: \nstock login: ", 30.0)
    console.take(b"stock login: ", 40.0)
    assert console.seen == {"kernel": 10.0, "process": 20.0, "systemd": 20.0, "login": 30.0}
    quiet = boot.Console(traced=False)
    quiet.take(b"a driver's warning", 10.0)
    assert quiet.seen == {}


def test_a_console_shows_its_last_lines() -> None:
    console = boot.Console(traced=False)
    console.take(b"".join(b"line %d\r\n\r\n" % number for number in range(100)), 1.0)
    assert console.tail.splitlines() == [f"line {number}" for number in range(88, 100)]


def start_of(script: str) -> boot.Start:
    return boot.Start("shell", ("/bin/sh", "-c", script), ("console",))


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "HOST", "127.0.0.1")
    monkeypatch.setattr(boot, "READY_PORT", 0)


@pytest.mark.usefixtures("anywhere")
def test_a_machine_that_never_gets_there_is_given_up_with_its_console() -> None:
    start = start_of("echo no more of it; exec sleep 60")
    with boot.Machine(start, -1) as machine, pytest.raises(OSError, match=r"no login after 1 s(.|\n)*no more of it"):
        machine.wait({"login"}, 1)
    with pytest.raises(ChildProcessError):
        os.waitpid(machine.pid, os.WNOHANG)


@pytest.mark.usefixtures("anywhere")
def test_a_machine_whose_kernel_gave_up_is_not_waited_for() -> None:
    start = start_of("echo Kernel panic - not syncing; exec sleep 60")
    with boot.Machine(start, -1) as machine, pytest.raises(OSError, match=r"gave up(.|\n)*Kernel panic"):
        machine.wait({"login"}, 60)


@pytest.mark.usefixtures("anywhere")
def test_a_machine_that_ends_is_not_waited_for() -> None:
    start = start_of("echo no such device; exit 1")
    with boot.Machine(start, -1) as machine, pytest.raises(OSError, match=r"QEMU ended(.|\n)*no such device"):
        machine.wait({"login"}, 60)


@pytest.mark.usefixtures("anywhere")
def test_a_machine_is_waited_for_until_all_moments_were() -> None:
    script = "echo 'Run /init as init process'; sleep 0.2; echo 'x login: '; exec sleep 60"
    with boot.Machine(start_of(script), -1) as machine:
        seen = machine.wait({"process", "login"}, 30)
    assert seen["login"] - seen["process"] >= 150


@contextlib.contextmanager
def serving(status: int, length: int) -> Iterator[int]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(b"ready\n")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "length", "whole"), [(200, 6, True), (500, 6, False), (200, 7, False)])
def test_only_a_whole_page_is_an_answer(status: int, length: int, whole: bool) -> None:
    with serving(status, length) as port:
        assert boot.answers("127.0.0.1", port) is whole


def test_nobody_is_no_answer() -> None:
    assert not boot.answers("127.0.0.1", 1)


ROLLUP = """00400000-7ffd Rss: 300 kB
Rss:                 300 kB
Pss:                 100 kB
Pss_Dirty:            50 kB
Pss_Anon:             40 kB
Pss_File:             20 kB
Pss_Shmem:            40 kB
"""


def test_memory_is_counted_by_proportional_shares() -> None:
    assert memory.share_of(ROLLUP) == 100 << 10
    with pytest.raises(ValueError, match="no proportional"):
        memory.share_of("Rss: 300 kB")


def test_the_share_of_a_running_process_can_be_read() -> None:
    assert memory.of_processes([os.getpid(), os.getpid()]) > 1 << 20


AB = """Server Software:        nginx
Concurrency Level:      4
Time taken for tests:   0.123 seconds
Complete requests:      100
Failed requests:        0
Requests per second:    812.50 [#/sec] (mean)
Server Hostname:        198.18.77.2
"""


def test_a_rate_is_what_ab_says_and_none_where_an_answer_failed() -> None:
    assert services.rate_of(AB) == 812.5
    with pytest.raises(OSError, match="answers that are none"):
        services.rate_of(AB.replace("requests:        0", "requests:        3"))
    with pytest.raises(OSError, match="answers that are none"):
        services.rate_of(AB + "Non-2xx responses:      100\n")


def checks(latency: float, flow: float) -> list[str]:
    """Lines of the program of checks."""
    values = {"latency_us": latency, "throughput_mib_s": 100}
    said = [{"check": f"ipc.{way}", "values": values} for way in ("pipe", "unix_socket", "shared_memory")]
    said.append({"check": "algorithms.max_flow", "values": {"flow": [flow]}})
    return [json.dumps({"ok": True, "ms": 5, **each}) for each in said]


def test_algorithms_are_compared_with_the_hosts_and_messages_measured() -> None:
    report = Report("microswift", {})
    rounds = [{"stock": checks(30, 1.0), "ours": checks(ours, 1.5), "host": checks(1, 1.0)} for ours in (10, 20, 60)]
    services.record_checks(report, rounds)
    assert report.metrics["ours_pipe_latency_us"].samples == [10, 20, 60]
    assert report.metrics["ours_pipe_latency_us"].value == 20
    assert report.extra["algorithms"]["stock"] == {"algorithms.max_flow": services.SAME}
    assert report.extra["algorithms"]["ours"]["algorithms.max_flow"] != services.SAME


def samples() -> bootup.Samples:
    found: bootup.Samples = {}
    for number, name in enumerate(bootup.READY_METRICS, 1):
        found[name] = {"ready": [1000.0 / number, 1200.0 / number], "login": [1500.0], "hello": [1600.0]}
        found[f"{name}_traced"] = {"kernel": [10.0], "process": [500.0 / number], "ready": [1100.0 / number]}
    found["stock_traced"]["systemd"] = [700.0]
    return found | {
        "command": {"ready": [300.0]},
        "clone": {"ready": [60.0], "launched": [50.0]},
        "clone_alone": {"ready": [80.0], "launched": [75.0]},
        "hello": {"ready": [800.0]},
    }


def whole_report() -> Report:
    report = Report("microswift", machine())
    bootup.record(report, samples())
    lines = {name: checks(10.0 * number, 1.0) for number, name in enumerate(("stock", "ours", "host"), 1)}
    services.record_checks(report, [lines])
    return report


def test_ratios_are_of_medians_of_what_was_not_traced() -> None:
    report = whole_report()
    assert report.metrics["stock_ready_ms"].value == 1100
    assert report.metrics["ratio_ready"].value == pytest.approx(300 / 1100, abs=1e-4)
    assert report.metrics["ratio_clone"].value == pytest.approx(50 / 275, abs=1e-4)
    assert report.metrics["ratio_clone_alone"].value == pytest.approx(75 / 275, abs=1e-4)
    assert report.metrics["ratio_clone_typed"].value == pytest.approx(0.2)
    assert report.metrics["ratio_first_process_same_machine"].value == pytest.approx(1 / 3, abs=1e-4)
    assert report.extra["stock_was_traced"] is False


def test_a_quick_runs_only_stock_guest_is_the_traced_one_and_the_report_says_so() -> None:
    report = Report("microswift", {})
    found = samples()
    found["stock_traced"] |= {name: found["stock"][name] for name in ("login", "hello")}
    del found["stock"]
    bootup.record(report, found)
    assert report.metrics["stock_ready_ms"].value == 1100
    assert report.extra["stock_was_traced"] is True


def test_what_was_not_measured_is_null_in_the_document() -> None:
    report = Report("microswift", {})
    report.unmeasured["toolchain_bytes"] = "bytes"
    assert '"toolchain_bytes": {"value": null, "unit": "bytes", "samples": []}' in report.text()


def test_the_table_names_an_algorithm_that_came_out_otherwise() -> None:
    report = whole_report()
    assert "algorithms, ours: all as on the host" in microswift.table(report)
    report.extra["algorithms"]["ours"]["algorithms.max_flow"] = "flow: 2, on this host 1"
    assert "algorithms.max_flow" in microswift.table(report)


def test_an_arms_period_says_in_which_rounds_it_is_started() -> None:
    starts = [start_of("true")._replace(name=name, traced=traced) for name in ("a", "b") for traced in (False, True)]
    due = bootup._due(starts, 1, {"a": 2, "a_traced": 0})
    assert [(start.name, start.traced) for start in due] == [("b", False), ("b", True)]
    due = bootup._due(starts, 2, {"a": 2, "a_traced": 0})
    assert [(start.name, start.traced) for start in due] == [("a", False), ("b", False), ("b", True)]


def test_the_figure_is_drawn_also_where_something_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from bench.microswift_figure import draw

    report = whole_report()
    draw(report, f"{tmp_path}/whole")
    report.metrics = {name: each for name, each in report.metrics.items() if not name.startswith(("ours", "clone"))}
    draw(report, f"{tmp_path}/part")
    for name in ("whole.png", "whole.svg", "part.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.parametrize(("name", "attempts"), [("stock", 3), ("stockkernel", 3), ("ours", 1)])
def test_a_start_of_debians_kernel_that_came_to_nothing_is_made_again_and_counted(
    monkeypatch: pytest.MonkeyPatch, name: str, attempts: int
) -> None:
    begun = []

    def fail(start: boot.Start, samples: bootup.Samples) -> None:
        begun.append(start)
        raise OSError("its kernel gave up")

    monkeypatch.setattr(bootup, "_boot", fail)
    found: bootup.Samples = {}
    with pytest.raises(OSError, match="gave up"):
        bootup.boot(start_of("true")._replace(name=name), found)
    assert len(begun) == attempts and len(found.get(bootup.FAILED, {}).get(name, [])) == attempts - 1
