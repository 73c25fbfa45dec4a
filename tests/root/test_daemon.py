"""The daemon as a whole, with real containers: it, the launcher and the workers may be killed at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from swiftlet.api.client import Client
from swiftlet.linux import cgroup
from swiftlet.model.error import ConflictError, InputError, NotFoundError, SwiftletError
from swiftlet.model.instance import instance_of

pytestmark = pytest.mark.root

BUSYBOX = "host:/bin/busybox"
PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def wait_until(condition, seconds=10.0, what="did not happen in time"):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


class Daemon:
    """An instance of its own, with a daemon that can be killed and started."""

    def __init__(self, root: str):
        self.root = root
        self.instance = instance_of({"SWIFTLET_ROOT": root})
        self.process: subprocess.Popen | None = None
        os.makedirs(self.instance.run, exist_ok=True)

    def start(self, wait=True) -> subprocess.Popen:
        log = open(f"{self.instance.run}/node.log", "ab")
        environment = {**os.environ, "SWIFTLET_ROOT": self.root, "SWIFTLET_RUN": self.instance.run}
        argv = [sys.executable, "-I", "-m", "swiftlet.api.daemon"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/")
        log.close()
        if wait:
            self.process = process
            wait_until(self.answers, what=f"no daemon: {self.log}")
        return process

    def answers(self) -> bool:
        try:
            self.call("List", all=True)
            return True
        except SwiftletError:
            return False

    @property
    def log(self) -> str:
        with open(f"{self.instance.run}/node.log") as file:
            return file.read()[-2000:]

    def kill(self, number=signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)

    def launcher(self) -> int:
        """The launcher's process."""
        suffix = f"{self.instance.launcher_socket}\0{self.instance.run}\0".encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if file.read().endswith(suffix) and children_of(int(pid)):  # its log worker has no children
                        return int(pid)
            except OSError:
                continue
        raise AssertionError("no launcher")

    def client(self) -> Client:
        return Client(self.instance, daemon=None)

    def call(self, method, **parameters):
        with self.client() as client:
            answer, fds = client.call(method, parameters)
            for fd in fds:
                os.close(fd)
            return answer

    def run(self, *command, **workload):
        """Detached; the started guest."""
        document = {"templates": [BUSYBOX], "command": ["/bin/busybox", *command], **workload}
        with self.client() as client:
            for answer, fds, _ in client.stream("Run", {"workload": document, "detach": True}):
                for fd in fds:
                    os.close(fd)
                if "started" in answer:
                    return answer["started"]
        raise AssertionError("not started")

    def attached(self, *command, **workload):
        """Attached: (exit, what it wrote)."""
        document = {"templates": [BUSYBOX], "command": ["/bin/busybox", *command], **workload}
        written = b""
        with self.client() as client:
            for answer, fds, _ in client.stream("Run", {"workload": document}):
                if "started" in answer:
                    for fd in fds[1:]:
                        while chunk := os.read(fd, 65536):
                            written += chunk
                for fd in fds:
                    os.close(fd)
                if "exited" in answer:
                    return answer["exited"], written.decode()
        raise AssertionError("no exit")

    def guest(self, name):
        return self.call("Inspect", guest=name)["guest"]

    def groups(self) -> set[str]:
        return set(cgroup.groups_below(cgroup.detect(), self.instance.cgroup))

    def close(self):
        if self.process is None or self.process.poll() is not None:
            self.start()
        with ThreadPoolExecutor(8) as pool:
            guests = [guest["name"] for guest in self.call("List", all=True)["guests"]]
            list(pool.map(lambda name: self.call("Remove", guest=name, force=True), guests))
        self.kill(signal.SIGTERM)
        wait_until(lambda: not self.groups())
        assert self.instance.bridge not in {name for _, name in socket.if_nameindex()}, self.log
        assert (
            self.instance.table not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
        )
        cgroup.remove_parent(cgroup.detect(), self.instance.cgroup)


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(str(tmp_path))
    daemon.start()
    yield daemon
    daemon.close()


def test_a_guest_runs_and_tells_how_it_ended(daemon):
    exit_, text = daemon.attached("sh", "-c", "echo out; echo err >&2; exit 3", name="three")
    assert exit_["code"] == 3 and "out\n" in text and "err\n" in text
    guest = daemon.guest("three")
    assert [change["to"] for change in guest["journal"]] == ["Generating", "Generated", "Running", "Stopped"]
    assert guest["exit"] == exit_ and guest["pid"] is None and guest["address"] is None
    assert guest["usage"]["cpu_ns"] > 0


def test_a_guest_knows_its_name_its_address_and_the_servers_for_names(daemon):
    script = "cat /etc/hostname /etc/hosts /etc/resolv.conf; busybox ip -4 addr show eth0"
    _, text = daemon.attached(
        "sh", "-c", script.replace("cat", "/bin/busybox cat").replace("busybox ip", "/bin/busybox ip"), hostname="web"
    )
    assert text.startswith("web\n")
    address = text.partition("inet ")[2].partition("/")[0]
    assert f"{address}\tweb\n" in text


@pytest.mark.parametrize("method", ["Run", "Exec"])
@pytest.mark.parametrize("kind", ["file", "fifo", "device", "folder"])
def test_of_this_hosts_files_none_becomes_a_guests_standard_input(daemon, tmp_path, method, kind):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("root\n")
    path = {"device": "/dev/null", "folder": "/"}.get(kind, tmp_path / kind)
    workload = {"templates": [BUSYBOX], "command": ["/bin/busybox", "cat"], "interactive": True}
    daemon.run("sleep", "60", name="one")
    asked = {"Run": {"workload": workload}, "Exec": {"guest": "one", "command": ["/bin/busybox"], "interactive": True}}
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with daemon.client() as client, pytest.raises(InputError, match="neither a pipe without a name nor a socket"):
        for _ in client.stream(method, asked[method], (fd,)):
            pass
    os.close(fd)


def test_a_command_in_a_running_guest(daemon):
    daemon.run("sleep", "60", name="one", env={"A": "b"})
    with daemon.client() as client:
        parameters = {
            "guest": "one",
            "command": ["/bin/busybox", "sh", "-c", "echo $A; echo $C; exit 6"],
            "env": {"C": "d"},
        }
        answers = []
        for answer, fds, _ in client.stream("Exec", parameters):
            answers.append(answer)
            if "started" in answer:
                text = b""
                while chunk := os.read(fds[1], 100):
                    text += chunk
                assert text == b"b\nd\n"
            for fd in fds:
                os.close(fd)
    assert answers[-1]["exited"]["code"] == 6
    with pytest.raises(InputError, match="user 'nosuch'"), daemon.client() as client:
        list(client.stream("Exec", {"guest": "one", "command": ["/bin/busybox", "id"], "user": "nosuch"}))
    with pytest.raises(SwiftletError, match="is not in the guest"), daemon.client() as client:
        list(client.stream("Exec", {"guest": "one", "command": ["/no/such"]}))


def test_a_detached_command_that_writes_much_is_not_held_up(daemon):
    daemon.run("sleep", "60", name="one")
    script = "/bin/busybox dd if=/dev/zero bs=1k count=500; /bin/busybox touch /done"
    with daemon.client() as client:
        parameters = {"guest": "one", "command": ["/bin/busybox", "sh", "-c", script], "detach": True}
        for _, fds, _ in client.stream("Exec", parameters):
            for fd in fds:
                os.close(fd)
    wait_until(lambda: os.path.exists(f"{daemon.root}/guests/{daemon.guest('one')['id']}/upper/done"))


def test_a_second_daemon_leaves_and_the_first_goes_on(daemon):
    second = daemon.start(wait=False)
    assert second.wait(10) == 0
    assert daemon.answers()


def test_ten_daemons_at_once_make_one(tmp_path):
    daemon = Daemon(str(tmp_path))
    started = [daemon.start(wait=False) for _ in range(10)]
    wait_until(daemon.answers)
    wait_until(lambda: sum(process.poll() is None for process in started) == 1)
    assert {process.poll() for process in started} == {0, None}
    daemon.process = next(process for process in started if process.poll() is None)
    daemon.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_guests_go_on_when_the_daemon_ends_and_the_next_has_them(daemon, number):
    lasting = daemon.run("httpd", "-f", "-p", "80", "-h", "/etc", name="web", ports=[{"guest": 80}])
    daemon.run("sh", "-c", "echo before; /bin/busybox sleep 1; echo after; exit 9", name="ending")
    port = int(daemon.guest("web")["ports"][0].split(":")[1].split("-")[0])
    address = daemon.guest("web")["address"]
    daemon.kill(number)
    assert page(port), "the published port must go on without a daemon"
    time.sleep(1.3)
    daemon.start()
    web, ending = daemon.guest("web"), daemon.guest("ending")
    assert web["state"] == "Running" and web["pid"] == lasting["pid"] and web["address"] == address
    assert page(port)
    assert ending["state"] == "Stopped" and ending["exit"]["code"] == 9
    with daemon.client() as client:
        _, fds = client.call("Logs", {"guest": "ending"})
        assert os.read(fds[0], 100) == b"before\nafter\n"
        for fd in fds:
            os.close(fd)
    other = daemon.run("sleep", "60")
    assert daemon.guest(other["name"])["address"] != address
    with pytest.raises(ConflictError, match="in use by guest web"):
        daemon.run("true", ports=[{"guest": 80, "host": port}])
    assert daemon.call("Stop", guest="web", timeout=0)["exited"]["code"] == 137


def test_a_daemon_that_ends_without_guests_leaves_logs_and_locks_in_its_run_folder(daemon):
    daemon.run("true", remove=True)
    wait_until(lambda: not daemon.call("List", all=True)["guests"])
    daemon.kill(signal.SIGTERM)
    names = ("node.lock", "node.log", "launcher.lock", "launcher.log", "root")
    assert set(os.listdir(daemon.instance.run)) <= set(names)


def page(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
        text = b""
        while chunk := sock.recv(65536):
            text += chunk
    assert text.startswith(b"HTTP/1.1 200"), text
    return text


def test_when_the_launcher_is_killed_its_guests_end_and_the_next_start_works(daemon):
    started = daemon.run("sh", "-c", "/bin/busybox sleep 1000 & /bin/busybox sleep 1000", name="lost")
    passing = daemon.run("sleep", "1000", remove=True)
    launcher = daemon.launcher()
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: daemon.guest("lost")["state"] == "Stopped")
    lost = daemon.guest("lost")
    assert lost["exit"]["reason"] == "lost with its launcher" and lost["exit"]["code"] == 137
    wait_until(lambda: not os.path.exists(f"/proc/{started['pid']}"))
    wait_until(lambda: not daemon.groups())
    with pytest.raises(NotFoundError):
        daemon.guest(passing["id"])
    exit_, text = daemon.attached("echo", "again")
    assert (exit_["code"], text) == (0, "again\n")


def test_a_daemon_that_finds_neither_launcher_nor_guests_alive_cleans_up(daemon):
    started = daemon.run("sleep", "1000", name="lost")
    launcher = daemon.launcher()
    daemon.kill()
    os.kill(launcher, signal.SIGKILL)
    daemon.start()
    assert daemon.guest("lost")["exit"]["reason"] == "lost with its launcher"
    wait_until(lambda: not os.path.exists(f"/proc/{started['pid']}"))
    assert not daemon.groups()


def test_a_guest_with_a_user_namespace_owns_its_files_and_gives_its_range_back(daemon):
    exit_, text = daemon.attached(
        "sh",
        "-c",
        "/bin/busybox stat -c %u /etc/hosts / && /bin/busybox cat /etc/hostname",
        userns=True,
        hostname="mapped",
        name="one",
    )
    assert (exit_["code"], text) == (0, "0\n0\nmapped\n")
    leases = [name for name in os.listdir(f"{daemon.root}/leases") if name.startswith("uid-")]
    assert len(leases) == 1
    daemon.call("Remove", guest="one")
    assert [name for name in os.listdir(f"{daemon.root}/leases") if name.startswith("uid-")] == []


ATTACK = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(3)
sock.connect(sys.argv[1])
try:
    sock.sendall(sys.argv[2].encode() + bytes(1))
    print("answer:", sock.recv(1000))
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("which", ["node", "launcher"])
def test_root_in_a_guest_that_sees_all_of_the_host_read_only_cannot_use_our_sockets(daemon, which):
    """The sockets lie in a volume, and connecting to one works on a read-only mount: the peer is looked at."""
    lasting = daemon.run("sleep", "1000", name="lasting")
    calls = {
        "node": {"method": "io.swiftlet.Node.List", "parameters": {}},
        "launcher": {"call": 1, "method": "list", "parameters": {}},
    }
    path = f"{daemon.instance.run}/{which}.sock"
    command = ["chroot", "/host", "/usr/bin/python3", "-c", ATTACK, path, json.dumps(calls[which])]
    _, text = daemon.attached(*command, volumes=[{"source": "/", "target": "/host", "read_only": True}])
    assert "guests" not in text and ("PermissionDenied" in text or "answer: b''" in text or "refused" in text), text
    assert daemon.guest("lasting")["pid"] == lasting["pid"]
    assert "has gone" not in daemon.log


def test_no_descriptor_of_the_daemons_is_in_a_guest(daemon):
    _, text = daemon.attached(
        "ls",
        "-l",
        "/proc/self/fd",
        ports=[{"guest": 80}],
        volumes=[{"source": "/usr", "target": "/u", "read_only": True}],
    )
    numbers = [
        line.partition(" -> ")[0].split()[-1]
        for line in text.splitlines()
        if line.startswith("l") and ":" not in line[:4]
    ]
    assert numbers[:3] == ["0", "1", "2"] and len(numbers) <= 4, f"besides those only the one ls reads with: {text}"


def test_a_guest_started_again_has_its_files_and_a_symlink_of_its_making_leads_nowhere(daemon, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "hosts").write_text("untouched")
    script = (
        f"test -e /mark && exit 5; echo x >/mark; /bin/busybox rm -rf /etc; /bin/busybox ln -s {victim} /etc; exit 4"
    )
    daemon.run("sh", "-c", script, name="again")
    assert daemon.call("Wait", guest="again")["exited"]["code"] == 4
    with daemon.client() as client:
        for _, fds, _ in client.stream("Start", {"guest": "again"}):
            for fd in fds:
                os.close(fd)
    assert daemon.call("Wait", guest="again")["exited"]["code"] == 5
    assert (victim / "hosts").read_text() == "untouched"


def test_what_cannot_start_leaves_nothing(daemon):
    before = settled(daemon)
    for workload in (
        {"templates": ["nosuchtemplate"]},
        {"volumes": [{"source": "/no/such", "target": "/x"}]},
        {"command": ["/no/such/command"]},
        {"user": "nobody-of-that-name"},
        {"ports": [{"guest": 80, "host_ip": "198.51.100.1"}]},
        {"volumes": [{"source": daemon.root, "target": "/x", "read_only": True}]},
        {"cap_add": ["NOPE"]},
    ):
        with pytest.raises(SwiftletError), daemon.client() as client:
            document = {"templates": [BUSYBOX], "command": ["/bin/busybox", "true"], **workload}
            list(client.stream("Run", {"workload": document}))
    wait_until(lambda: counts(daemon) == before, what=lambda: f"{counts(daemon)} is not {before}")


def settled(daemon) -> dict[str, int]:
    """The counts of a daemon that has run a guest and has filled its pool again."""
    daemon.attached("true", remove=True)
    wait_until(lambda: (counts(daemon)["interfaces"], counts(daemon)["leases"], counts(daemon)["tmp"]) == (4, 4, 0))
    found = counts(daemon)
    while time.sleep(0.3) or counts(daemon) != found:
        found = counts(daemon)
    return found


def counts(daemon) -> dict[str, int]:
    """What must be as many after as before."""
    assert daemon.process is not None
    found = {name: len(os.listdir(f"{daemon.root}/{name}")) for name in ("guests", "names", "leases")}
    found["tmp"] = sum(name.startswith("guest-") for name in os.listdir(f"{daemon.root}/tmp"))
    found["cgroups"] = len(daemon.groups())
    found["interfaces"] = sum(name.startswith(f"swl{daemon.instance.tag}v") for _, name in socket.if_nameindex())
    found["daemon descriptors"] = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    with open("/proc/self/mountinfo") as file:
        found["mounts"] = len(file.readlines())
    return found


@pytest.mark.slow
def test_two_hundred_guests_at_once_and_nothing_is_left_of_them(daemon):
    before = settled(daemon)
    launcher = daemon.launcher()
    descriptors = len(os.listdir(f"/proc/{launcher}/fd"))
    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(lambda _: daemon.run("sleep", "1000"), range(200)))
        running = daemon.call("List")["guests"]
        assert len(running) == 200 and len({guest["address"] for guest in running}) == 200
        list(pool.map(lambda guest: daemon.call("Stop", guest=guest["id"], timeout=0), started))
        list(pool.map(lambda guest: daemon.call("Remove", guest=guest["id"]), started))
    wait_until(lambda: counts(daemon) == before, 30, what=lambda: f"{counts(daemon)} is not {before}")
    assert len(os.listdir(f"/proc/{launcher}/fd")) == descriptors


def test_guests_started_at_the_same_moment_have_names_and_addresses_of_their_own(daemon):
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda _: daemon.attached("true", remove=True)[0]["code"], range(40)))
    assert results == [0] * 40


@pytest.mark.crash
@pytest.mark.slow
def test_killing_the_daemon_at_random_moments_loses_no_guest_and_leaves_no_rubbish(daemon):
    """Guests are started and ended all the time; the daemon is killed again and again in the midst of it."""
    moments = random.Random(int(os.environ.get("SWIFTLET_SEED", "7")))
    rounds = int(os.environ.get("SWIFTLET_CRASHES", "12"))
    lasting = daemon.run("sleep", "100000", name="lasting")
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            try:
                daemon.attached("true", remove=moments.random() < 0.5)
            except (SwiftletError, AssertionError, OSError):
                time.sleep(0.02)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds):
            time.sleep(moments.random() * 0.4)
            daemon.kill()
            daemon.start()
            guest = daemon.guest("lasting")
            assert (guest["state"], guest["pid"]) == ("Running", lasting["pid"])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    daemon.kill()
    daemon.start()
    guests = daemon.call("List", all=True)["guests"]
    assert {guest["state"] for guest in guests if guest["name"] != "lasting"} <= {"Stopped"}
    assert all(guest["exit"] for guest in guests if guest["state"] == "Stopped")
    assert sorted(os.listdir(f"{daemon.root}/guests")) == sorted(guest["id"] for guest in guests)
    assert sorted(os.listdir(f"{daemon.root}/names")) == sorted(guest["name"] for guest in guests)
    assert daemon.groups() == {lasting["id"]}
    with daemon.client() as client:
        *_, (verified, _, _) = client.stream("StoreVerify", {})
    assert verified["damaged"] == []


def test_killing_a_worker_is_one_clear_line_and_loses_nothing(daemon):
    assert daemon.process is not None
    errors: list[str] = []

    def resolve() -> None:
        try:
            with daemon.client() as client:
                list(client.stream("Resolve", {"templates": ["host:/bin/busybox"], "upgrade": False}))
        except SwiftletError as error:
            errors.append(str(error))

    thread = threading.Thread(target=resolve)
    thread.start()
    wait_until(lambda: workers_of(daemon))
    for pid in workers_of(daemon):
        os.kill(pid, signal.SIGKILL)
    thread.join(10)
    assert errors == ["resolve was killed by signal 9"]
    assert daemon.attached("echo", "fine")[1] == "fine\n"


def workers_of(daemon) -> list[int]:
    found = []
    for pid in children_of(daemon.process.pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"swiftlet.node.pull" in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found


def test_a_caller_that_leaves_ends_his_resolution(daemon):
    client = daemon.client()
    client.begin("Resolve", {"templates": ["host:/bin/busybox", "host:/bin/sh"]})
    wait_until(lambda: workers_of(daemon))
    client.close()
    wait_until(lambda: not workers_of(daemon))


def test_callers_that_want_the_same_share_one_resolution(daemon):
    with ThreadPoolExecutor(6) as pool:
        seen: set[int] = set()
        results = [pool.submit(daemon.attached, "true") for _ in range(6)]
        while not all(result.done() for result in results):
            seen |= set(workers_of(daemon))
            time.sleep(0.003)
        assert [result.result()[0]["code"] for result in results] == [0] * 6
    assert len(seen) == 1, "resolved more than once"


def test_an_idle_daemon_is_small_and_loads_no_package_reader(daemon):
    daemon.attached("true", remove=True)
    with open(f"/proc/{daemon.process.pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    print(f"daemon: {fields['VmRSS'].strip()}, {fields['Threads'].strip()} threads")
    assert int(fields["VmRSS"].split()[0]) < 70_000
    check = (
        "import sys, swiftlet.api.daemon;"
        "heavy = ('rich', 'elftools', 'yaml', 'pyroute2', 'swiftlet.resolve.resolver');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=PACKAGE_PARENT)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_all_that_the_interface_describes_is_there_and_nothing_else(daemon):
    import re

    from swiftlet.api import interface
    from swiftlet.api.methods import Methods

    class Nobody:
        guests = None
        workers = None

    described = set(re.findall(r"^method (\w+)\(", interface.DESCRIPTION, re.MULTILINE))
    assert described == set(Methods(Nobody()).interface().methods)  # type: ignore[arg-type]
    import varlink

    with varlink.Client(f"unix:{daemon.instance.socket}") as client, client.open("io.swiftlet.Node") as node:
        assert node.List(all=True)["guests"] == []


def test_a_component_is_inserted_into_a_running_guest_and_there_after_it_is_started_again(daemon):
    """The component is a program of this host that the guest lacks, with the libraries that it needs."""
    daemon.run("sleep", "1000", name="growing")
    with pytest.raises(SwiftletError, match="is not in the guest"):
        in_guest(daemon, "growing", "/usr/bin/sha1sum", "/etc/hostname")
    for _ in range(2):  # the second time there is nothing left to do
        with daemon.client() as client:
            *_, (answer, _, _) = client.stream("Insert", {"guest": "growing", "template": "host:/usr/bin/sha1sum"})
        assert "error" not in answer
    code, text = in_guest(daemon, "growing", "/usr/bin/sha1sum", "/etc/hostname")
    assert code == 0 and "/etc/hostname" in text
    states = [change["to"] for change in daemon.guest("growing")["journal"]]
    assert states[:5] == ["Generating", "Generated", "Running", "Inserting", "Running"]
    code, _ = in_guest(daemon, "growing", "/bin/busybox", "touch", "/usr/bin/sha1sum")
    assert code != 0, "what was inserted must be read-only"
    daemon.call("Stop", guest="growing", timeout=0)
    with daemon.client() as client:
        for _, fds, _ in client.stream("Start", {"guest": "growing"}):
            for fd in fds:
                os.close(fd)
    assert in_guest(daemon, "growing", "/usr/bin/sha1sum", "/etc/hostname")[0] == 0
    daemon.call("StoreGc")
    assert in_guest(daemon, "growing", "/usr/bin/sha1sum", "/etc/hostname")[0] == 0
    with pytest.raises(NotFoundError), daemon.client() as client:
        list(client.stream("Insert", {"guest": "growing", "template": "nosuchtemplate"}))
    assert daemon.guest("growing")["state"] == "Running"


def in_guest(daemon, guest, *command):
    """(code, output) of a command in a running guest."""
    text, last = b"", {}
    with daemon.client() as client:
        for last, fds, _ in client.stream("Exec", {"guest": guest, "command": list(command)}):  # noqa: B007
            for fd in fds[1:]:
                while chunk := os.read(fd, 65536):
                    text += chunk
            for fd in fds:
                os.close(fd)
    return last["exited"]["code"], text.decode()


def test_logs_stats_and_attach_of_a_running_guest(daemon):
    daemon.run("sh", "-c", "while :; do echo tick; /bin/busybox sleep 0.05; done", name="ticking")
    (stat,) = daemon.call("Stats", guests=[])["stats"]
    assert stat["name"] == "ticking" and stat["pids"] >= 1 and stat["private_bytes"] > 0
    with daemon.client() as client:
        client.begin("Attach", {"guest": "ticking"})
        answer, fds, more = client.receive()
        assert answer["started"]["name"] == "ticking" and more
        assert b"tick" in os.read(fds[1], 100)
        for fd in fds:
            os.close(fd)
        daemon.call("Stop", guest="ticking", timeout=0)
        assert client.receive()[0]["exited"]["code"] == 137
    with pytest.raises(ConflictError), daemon.client() as client:
        list(client.stream("Attach", {"guest": "ticking"}))
    with pytest.raises(ConflictError):
        daemon.call("Stats", guests=["ticking"])


def test_the_doctor_says_what_is_there(daemon):
    findings = {finding["name"]: finding for finding in daemon.call("Doctor")["findings"]}
    for name in ("root", "kernel", "overlay", "control groups", "seccomp", "bridge network", "packet filter", "store"):
        assert findings[name]["status"] == "ok", findings[name]
    assert findings["KVM"]["status"] in ("ok", "limited") and findings["KVM"]["detail"]
    assert all(finding["consequence"] for finding in findings.values() if finding["status"] != "ok")
