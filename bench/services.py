"""Work in guests that have booted: the checks' algorithms and messages (the paper's section 5.2), and a web server.

The programs are the same files on the stock system, in swiftlet's guest and on this host; the web server is Debian's
nginx of the same version in both, with the same page.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time

from bench import machines
from bench.boot import Machine, answers
from bench.bootup import FACTS, STOCK_SECONDS, Lab, Samples, keep, moments
from bench.machines import MEMORY_MIB
from bench.report import Report, median
from bench.stock import CONTROL_PORT, HELLO_PORT
from bench.tap import GUEST, tap
from swiftlet.gate import verdict

AREAS = "ipc,algorithms"
SAME = "as on the host"
PAGE = "/index.html"
WEB_PORT = 80

_ANSWER_SECONDS = 180.0
_CONCURRENT = 4
_IPC = ("pipe", "unix_socket", "shared_memory")
_VALUES = {"latency_us": "us", "throughput_mib_s": "MiB/s"}


def ask(word: str) -> str:
    """What the stock guest's control service answers to a word, to its end. Raises OSError."""
    with socket.create_connection((GUEST, CONTROL_PORT), timeout=_ANSWER_SECONDS) as peer:
        peer.sendall(f"{word}\n".encode())
        text = b""
        while data := peer.recv(1 << 16):
            text += data
    return text.decode(errors="replace")


def check_lines(lab: Lab) -> dict[str, list[str]]:
    """What the program of checks says in swiftlet's guest and on this host."""
    words = ["run", "--only", AREAS]
    machine = ["--rm", "--as", "vm", "-m", f"{MEMORY_MIB}M", "-t", f"host:{lab.checks}"]
    told = lab.place.call("run", *machine, "--", lab.checks, *words)
    here = subprocess.run([lab.checks, *words], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True)
    return {"ours": told.splitlines(), "host": here.stdout.splitlines()}


def record_checks(report: Report, told: list[dict[str, list[str]]]) -> None:
    """Latency and throughput of each way of telling, and which algorithms came to this host's results.

    told: for each round, what the program said by system. Raises OSError when messages could not be sent.
    """
    said = [{name: verdict.said_by(lines) for name, lines in each.items()} for each in told]
    for name in told[0]:
        for way in _IPC:
            for value, unit in _VALUES.items():
                samples = [_value(name, each[name].get(f"ipc.{way}"), value) for each in said]
                report.add(f"{name}_{way}_{value}", median(samples), unit, samples)
    now = time.time()
    report.extra["algorithms"] = {}
    for name, found in said[-1].items():
        algorithms = [check for check in said[-1]["host"] if check.startswith("algorithms.")]
        judged = verdict.judge(algorithms, found, said[-1]["host"], verdict.Circumstances(now, now))
        report.extra["algorithms"][name] = {each.check: each.problem or SAME for each in judged}
        samples = [sum(each[name][check].milliseconds for check in algorithms) for each in said]
        report.add(f"{name}_algorithms_ms", median(samples), "ms", samples)


def _value(system: str, line: verdict.Said | None, value: str) -> float:
    if line is None or not line.ok:
        raise OSError(f"{system}: messages between processes: {line.problem if line else 'nothing was said'}")
    return float(line.values[value])


def requests_per_second(address: str, requests: int) -> float:
    """How many requests a second a server answers to ab, four at a time. Raises OSError when one fails."""
    command = ["ab", "-q", "-n", str(requests), "-c", str(_CONCURRENT), "-s", "60", f"http://{address}{PAGE}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS)
    if done.returncode:
        raise OSError(f"ab: {done.stderr.strip()[-300:]}")
    return rate_of(done.stdout)


def rate_of(text: str) -> float:
    """The rate that ab tells. Raises OSError when an answer was not what it should be."""
    lines = re.findall(r"^([A-Z][\w -]+):\s+(\d+(?:\.\d+)?)(?=\s)", text, re.MULTILINE)
    found = {name: float(value) for name, value in lines}
    if found.get("Failed requests") or found.get("Non-2xx responses"):
        raise OSError(f"ab: answers that are none: {text.strip()[-400:]}")
    return found["Requests per second"]


def work(lab: Lab, report: Report, samples: Samples, requests: int, rounds: int, *, traced: bool) -> None:
    """Boot a stock guest and one of ours, and let both work. The stock's boot is a sample like the others."""
    start = machines.stock(lab.installed, lab.host, traced=traced)
    with tap() as wire, Machine(start, wire) as machine:
        seen = machine.wait(moments(start), STOCK_SECONDS)
        seen["hello"] = machine.wait_for_port("hello", HELLO_PORT, FACTS, STOCK_SECONDS)
        keep(samples, start, seen)
        ask("settled")
        told = [{"stock": ask("checks").splitlines(), **check_lines(lab)} for _ in range(rounds)]
        record_checks(report, told)
        if shutil.which("ab") is None:
            report.extra["missing"].append("ab")
            return
        _serve_pages(lab, report, requests, rounds)


def _serve_pages(lab: Lab, report: Report, requests: int, rounds: int) -> None:
    """The same page from both, by turns."""
    ask("nginx")
    guest = lab.place.start("--as", "vm", "-m", f"{MEMORY_MIB}M", "-t", "nginx")
    addresses = {"stock": GUEST, "ours": str(lab.place.inspect(guest.id)[0]["address"])}
    rates: dict[str, list[float]] = {name: [] for name in addresses}
    for address in addresses.values():
        _wait_for(address)
    for _ in range(rounds):
        for name, address in addresses.items():
            rates[name].append(requests_per_second(address, requests))
    lab.place.remove(guest.id)
    for name, values in rates.items():
        report.add(f"{name}_nginx_requests_s", median(values), "1/s", values)
    report.add("ratio_nginx", median(rates["ours"]) / median(rates["stock"]), "of its rate")


def _wait_for(address: str) -> None:
    end = time.monotonic() + _ANSWER_SECONDS
    while not answers(address, WEB_PORT, PAGE):
        if time.monotonic() > end:
            raise OSError(f"nginx at {address} does not answer")
        time.sleep(0.02)
