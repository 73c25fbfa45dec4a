"""A random workload of several users, and a killer of the processes that serve them. What must hold is in `check`."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from swiftlet.model.guest import TRANSITIONS
from tests import census
from tests.census import children, comm
from tests.product import Product, eventually

SEED = int(os.environ.get("SWIFTLET_SEED", "7"))

KINDS = ("daemon", "log worker", "child", "worker", "command", "daemon in gc")

COMMANDS = ("sh", "cat", "echo", "seq", "sleep", "true", "usleep")
LINKS = "\n".join(f"  /usr/bin/{name}: busybox" for name in COMMANDS)
BOX = f"name: box\nversion: 1\nfiles:\n  busybox: /usr/bin/busybox\nlinks:\n{LINKS}\n"

EXPECTED_ERRORS = (
    "the node daemon went away before it answered",
    "was killed by signal 9",
    "was killed while it was being set up",
)
"""What a command may say when the process that worked for it was killed: one clear line, and nothing else."""


class Writer:
    """A guest that writes numbered lines and ends with a code of its own, as often as it is started."""

    def __init__(self, name: str, lines: int, code: int) -> None:
        self.name = name
        self.lines = lines
        self.code = code
        self.told = False
        """Whether the command that started it said so: else it may not be there."""

    @property
    def script(self) -> str:
        return (
            f"i=0; while [ $i -lt {self.lines} ]; do i=$((i+1)); echo line $i; "
            f"[ $((i % 100)) = 0 ] && usleep 20000; done; exit {self.code}"
        )

    @property
    def text(self) -> str:
        return "".join(f"line {number}\n" for number in range(1, self.lines + 1))


class Workload:
    """Several users at once, each doing one random thing after the other, until `close`."""

    def __init__(self, product: Product, folder: Path, users: int) -> None:
        self.product = product
        self.folder = folder
        self.box = str(folder / "box.yaml")
        (folder / "box.yaml").write_text(BOX)
        self.complaints: list[str] = []
        self.done: Counter[str] = Counter()
        self.writers: dict[str, Writer] = {}
        self.struck: set[str] = set()
        """What the killer of children killed when it was set up and just about to become the command."""
        self._leave = threading.Event()
        self._numbers = iter(range(1 << 30))
        self._lock = threading.Lock()
        self._turns = [threading.Lock() for _ in range(users)]
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(users)]
        self.anchor = self._start_anchor()

    def _start_anchor(self) -> dict[str, object]:
        """A guest that writes on and on, with a published port, and a user namespace."""
        script = "i=0; while :; do seq $((i*200+1)) $((i*200+200)); i=$((i+1)); usleep 30000; done"
        arguments = ("-t", self.box, "-p", "80", "--userns", "--name", "anchor", "--", "sh", "-c", script)
        self.product.ok("run", "-d", *arguments)
        return self.guest("anchor")

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._leave.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While nobody is in the middle of anything."""
        with contextlib.ExitStack() as stack:
            for turn in self._turns:
                stack.enter_context(turn)
            yield

    def _live(self, number: int) -> None:
        choose = random.Random(SEED * 1000 + number)
        while not self._leave.is_set():
            action = choose.choice(self.actions)
            try:
                with self._turns[number]:
                    action(self, choose)
            except Exception as error:
                self.complaints.append(f"{action.__name__}: {error!r}")
            self.done[action.__name__] += 1
            time.sleep(choose.random() * 0.05)

    # What users do

    def run(self, choose: random.Random) -> None:
        """A short guest in the foreground: its whole output and its code, or one clear line."""
        code = choose.randrange(1, 90)
        found = self.product.run("run", "--rm", "-t", self.box, "--", "sh", "-c", f"seq 1 3000; exit {code}")
        if found.returncode == code:
            assert found.stdout == "".join(f"{number}\n" for number in range(1, 3001)), "output is not whole"
        elif not self._was_struck(found):
            self.expect(found)

    def write(self, choose: random.Random) -> None:
        """A writer in the background, half of them with a port."""
        writer = Writer(f"writer-{next(self._numbers)}", choose.choice((10, 300, 3000)), choose.randrange(90))
        with self._lock:
            self.writers[writer.name] = writer
        port = choose.choice(((), ("-p", "81")))
        found = self.product.run(
            "run", "-d", "--name", writer.name, *port, "-t", self.box, "--", "sh", "-c", writer.script
        )
        self.expect(found)
        writer.told = found.returncode == 0

    def again(self, choose: random.Random) -> None:
        """Start a writer that has ended once more."""
        writer = self._some_writer(choose)
        if writer is not None:
            found = self.product.run("start", writer.name)
            self.expect(found, "no guest", "not Stopped")

    def stop(self, choose: random.Random) -> None:
        """Start and stop."""
        name = f"stopped-{next(self._numbers)}"
        found = self.product.run("run", "-d", "--name", name, "-t", self.box, "--", "sleep", "1000")
        self.expect(found)
        found = self.product.run("stop", "--timeout", "0", name)
        self.expect(found, "no guest")
        self.expect(self.product.run("rm", "-f", name), "no guest")
        if self.product.run("inspect", name).returncode == 0:
            self.expect(self.product.run("rm", "-f", name), "no guest")

    def remove(self, choose: random.Random) -> None:
        """Check a writer and remove it."""
        writer = self._some_writer(choose)
        if writer is None:
            return
        with self._lock:
            self.writers.pop(writer.name, None)
        self.expect(self.product.run("rm", "-f", writer.name), "no guest")

    def execute(self, choose: random.Random) -> None:
        code = choose.randrange(90)
        found = self.product.run("exec", "anchor", "--", "sh", "-c", f"echo inside; exit {code}")
        if found.returncode == code:
            assert found.stdout == "inside\n"
        elif not self._was_struck(found):
            self.expect(found)

    def pull(self, choose: random.Random) -> None:
        """Resolve a template whose files have changed, so that what it was before is rubbish."""
        found = self.product.run("template", "resolve", "-q", self.changed_template(choose))
        self.expect(found, "changed while it was being taken")  # by another user

    def changed_template(self, choose: random.Random) -> str:
        name = f"data{choose.randrange(3)}"
        number = next(self._numbers)
        for part in range(20):
            (self.folder / f".{name}-{part}.{number}").write_bytes(choose.randbytes(20_000))
            os.rename(self.folder / f".{name}-{part}.{number}", self.folder / f"{name}-{part}")
        files = "\n".join(f"  part{part}: {self.folder}/{name}-{part}" for part in range(20))
        (self.folder / f".{name}.{number}").write_text(f"name: {name}\nversion: 1\nfiles:\n{files}\n")
        os.rename(self.folder / f".{name}.{number}", self.folder / f"{name}.yaml")
        return str(self.folder / f"{name}.yaml")

    def collect(self, choose: random.Random) -> None:
        self.expect(self.product.run("store", "gc"))

    def logs(self, choose: random.Random) -> None:
        """Whatever a log holds so far begins as it should."""
        writer = self._some_writer(choose)
        if writer is None:
            return
        found = self.product.run("logs", writer.name)
        if found.returncode == 0:
            whole = writer.text * (found.stdout.count("line 1\n") or 1)
            assert whole.startswith(found.stdout), f"log of {writer.name}: {tear(found.stdout, whole)}"
        else:
            self.expect(found, "no guest")

    actions = (run, run, write, write, again, stop, remove, execute, pull, collect, logs)

    def _was_struck(self, found: subprocess.CompletedProcess[str]) -> bool:
        if (found.returncode, found.stdout, found.stderr) != (137, "", ""):
            return False
        self.struck.add(f"{found.args} {next(self._numbers)}")
        return True

    def _some_writer(self, choose: random.Random) -> Writer | None:
        with self._lock:
            return choose.choice(list(self.writers.values())) if self.writers else None

    def expect(self, found: subprocess.CompletedProcess[str], *also: str) -> None:
        """It succeeded, or told in one line (and a hint) that somebody was killed."""
        if found.returncode == 0:
            return
        lines = [line for line in found.stderr.splitlines() if not line.startswith("  hint: ")]
        clear = len(lines) == 1 and any(text in lines[0] for text in (*EXPECTED_ERRORS, *also))
        assert clear, f"swiftlet {' '.join(map(str, found.args[1:]))}: {found.returncode} {found.stderr!r}"

    # What must hold

    def guest(self, name: str) -> dict[str, object]:
        found = json.loads(self.product.ok("inspect", name))
        return dict(found[0] if isinstance(found, list) else found)

    def check(self) -> None:
        """Everything, while nobody does anything; brings a daemon up if there is none."""
        eventually(lambda: self.product.run("ps").returncode == 0)
        for writer in list(self.writers.values()):
            self._check_writer(writer)
        self._check_anchor()
        for guest in self.product.json("ps", "-a"):
            check_journal(self.guest(guest["id"]))
        self.product.ok("store", "gc")
        assert self.product.json("store", "verify")["damaged"] == []
        try:
            eventually(lambda: not self.complaints_about_kernel(), 20)
        except AssertionError:
            raise AssertionError("\n".join(self.complaints_about_kernel())) from None
        assert not self.complaints, "\n".join(self.complaints)

    def complaints_about_kernel(self) -> list[str]:
        """What is there without an owner, once everything has settled."""
        now = census.take(self.product)
        guests = self.product.json("ps", "-a")
        running = [guest for guest in guests if guest["state"] == "Running"]
        expected = {
            "guests": frozenset(guest["id"] for guest in guests),
            "names": len(guests),
            "groups": frozenset(guest["id"] for guest in running),
            "interfaces": len(running) + POOL,
            "leases": len(running) + POOL,
            "elements": 2 * sum(len(guest["ports"]) for guest in running),
            "ranges": 1,  # the anchor's
            "mounts": (),
            "tmp": frozenset(),
            "processes": {"daemon": 1, "launcher": 1, "log worker": 1},
        }
        found = [f"{name}: {getattr(now, name)} instead of {value}" for name, value in expected.items()
                 if getattr(now, name) != value]  # fmt: skip
        return found + [
            f"state {guest['state']} of {guest['name']}" for guest in guests if guest["state"] not in SETTLED
        ]

    def _check_writer(self, writer: Writer) -> None:
        waited = self.product.run("wait", writer.name)
        if waited.returncode and "no guest" in waited.stderr:
            assert not writer.told, f"{writer.name} was started and is gone"
            with self._lock:
                del self.writers[writer.name]
            return
        assert waited.returncode == 0, waited.stderr
        guest = self.guest(writer.name)
        journal = [(change["to"], change["reason"]) for change in guest["journal"]]
        runs = sum(state == "Running" for state, _ in journal)
        cut_off = journal[-1][1].startswith(("its start was cut off", "not started"))
        if (waited.stdout, journal[-1][1]) == ("137\n", "killed by SIGKILL"):
            self.struck.add(f"{writer.name} {runs}")
        else:
            assert waited.stdout == f"{126 if cut_off else writer.code}\n", (writer.name, waited.stdout, journal)
        if waited.stdout == f"{writer.code}\n":
            with open(f"{self.product.instance.root}/guests/{guest['id']}/exit.json") as file:
                assert json.load(file)["code"] == writer.code
        runs -= sum(f"{writer.name} {run}" in self.struck for run in range(runs + 1))
        log = self.product.ok("logs", writer.name)
        assert log == writer.text * runs, f"log of {writer.name}: {tear(log, writer.text * runs)}"

    def _check_anchor(self) -> None:
        """It runs as it did, and its log is a beginning of what it writes."""
        now = self.guest("anchor")
        for name in ("id", "pid", "address", "ports"):
            assert now[name] == self.anchor[name], name
        assert now["state"] == "Running"
        numbers = self.product.ok("logs", "anchor").split()
        wrong = next((place for place, text in enumerate(numbers) if text != str(place + 1)), None)
        assert wrong is None or wrong == len(numbers) - 1, f"the log goes on with {numbers[wrong - 2 : wrong + 3]}"


POOL = 4
SETTLED = ("Running", "Stopped")


def tear(found: str, wanted: str) -> str:
    """Where two texts differ."""
    place = next((at for at, (one, two) in enumerate(zip(found, wanted, strict=False)) if one != two), None)
    place = min(len(found), len(wanted)) if place is None else place
    return f"at {place} of {len(found)}, wanted {len(wanted)}: {found[place - 30 : place + 30]!r}"


def check_journal(guest: dict[str, object]) -> None:
    """Every change follows from the one before and is legal."""
    before = ""
    for change in guest["journal"]:  # type: ignore[attr-defined]
        assert change["from"] == before, guest["journal"]
        assert before == "" or change["to"] in TRANSITIONS[before], guest["journal"]
        before = change["to"]
    assert before == guest["state"]


class Killer:
    """Kills one process of a kind at a random moment of its work. Each method says whether it met one."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self.workload = workload
        self.product = workload.product
        self.moments = random.Random(seed)
        self.kills: Counter[str] = Counter()

    def kill(self, kind: str) -> None:
        methods: dict[str, Callable[[], bool]] = {
            "daemon": self.daemon,
            "log worker": self.log_worker,
            "child": self.child,
            "worker": self.worker,
            "command": self.command,
            "daemon in gc": self.daemon_in_gc,
        }
        eventually(methods[kind], 60)
        self.kills[kind] += 1

    def daemon(self) -> bool:
        time.sleep(self.moments.random() * 0.4)
        return kill(self.product.pid("api.daemon"))

    def log_worker(self) -> bool:
        time.sleep(self.moments.random() * 0.1)
        return kill(dict(census.own_processes(self.product)).get("log worker"))

    def child(self) -> bool:
        """A child that the launcher is setting up: it is stopped first, lest the guest's own program be hit."""
        launchers = [number for name, number in census.own_processes(self.product) if name == "launcher"]
        delay = self.moments.random() * 0.0015
        started = self.product.spawn("run", "--rm", "-t", self.workload.box, "--", "true")
        try:
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                for number in (child for launcher in launchers for child in children(launcher)):
                    if comm(number) == "swiftlet-launch":
                        spin(delay)
                        return kill_if(number, "swiftlet-launch")
            return False
        finally:
            _, told = started.communicate(timeout=60)
            found = subprocess.CompletedProcess(started.args, started.returncode, "", told)
            self.workload.expect(found)

    def worker(self) -> bool:
        """The process that resolves."""
        template = self.workload.changed_template(self.moments)
        started = self.product.spawn("template", "resolve", "-q", template)
        try:
            time.sleep(self.moments.random() * 0.25)
            met = children_workers(self.product)
            for number in met:
                kill(number)
            return bool(met)
        finally:
            started.communicate(timeout=60)

    def command(self) -> bool:
        """`swiftlet` itself, whatever it does."""
        box = self.workload.box
        writer = Writer(f"orphan-{self.moments.randrange(1 << 40)}", 500, 5)
        arguments = self.moments.choice((
            ("run", "--name", writer.name, "-t", box, "--", "sh", "-c", writer.script),
            ("run", "-d", "--name", writer.name, "-t", box, "--", "sh", "-c", writer.script),
            ("run", "--rm", "-t", box, "--", "sh", "-c", "seq 1 100000"),
            ("exec", "anchor", "--", "sh", "-c", "seq 1 100000"),
            ("template", "resolve", "-q", self.workload.changed_template(self.moments)),
            ("store", "gc"),
            ("store", "verify"),
            ("logs", "-f", "anchor"),
            ("wait", "anchor"),
        ))  # fmt: skip
        if writer.name in arguments:
            self.workload.writers[writer.name] = writer
        started = self.product.spawn(*arguments)
        time.sleep(self.moments.random() * 0.12)
        started.kill()
        started.communicate(timeout=60)
        return started.returncode == -signal.SIGKILL

    def daemon_in_gc(self) -> bool:
        """The daemon, and with it the worker that collects."""
        started = self.product.spawn("store", "gc")
        time.sleep(self.moments.random() * 0.3)
        met = started.poll() is None and bool(children_workers(self.product)) and kill(self.product.pid("api.daemon"))
        started.communicate(timeout=60)
        return met


def kill(number: int | None) -> bool:
    if not number:
        return False
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def kill_if(number: int, name: str) -> bool:
    """Kill a process if it still goes by that name once it stands still."""
    try:
        handle = os.pidfd_open(number)
    except ProcessLookupError:
        return False
    try:
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        deadline = time.monotonic() + 1
        while state(number) not in ("T", "Z", "") and time.monotonic() < deadline:
            pass
        met = comm(number) == name and state(number) == "T"
        signal.pidfd_send_signal(handle, signal.SIGKILL if met else signal.SIGCONT)
        return met
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def spin(seconds: float) -> None:
    """Shorter than a sleep can be."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def children_workers(product: Product) -> list[int]:
    return [number for number in children(product.pid("api.daemon") or 0) if is_worker(number)]


def is_worker(number: int) -> bool:
    try:
        with open(f"/proc/{number}/cmdline", "rb") as file:
            return b"swiftlet.node.pull" in file.read()
    except OSError:
        return False


def state(number: int) -> str:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(") ")[2][:1]
    except OSError:
        return ""
