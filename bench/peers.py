"""The peers: one context manager for each, which runs a command in a container of its kind and times it.

Everything a peer makes lies below the bench's own folder or in namespaces that end with the bench; an engine
(dockerd) is started here on a socket of its own and ended by its pid. swiftlet's own arms are in `ours`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from bench import oci
from bench.spawner import Finished, Spawner, private_mounts
from swiftlet.linux import namespace, syscall

SLOW = 5
"""An engine's command takes 30 times as long as a runtime; it is measured in every fifth round."""

UNIFIED = "/sys/fs/cgroup/unified"
"""Where a hybrid host mounts version 2. crun refuses such a host, so it is shown one without this mount."""


class Place(NamedTuple):
    """The bench's folder; root: the peers' root file system (/true, /pause, /busybox); archive: a tar of it."""

    folder: str
    root: str
    archive: str


class Arm(Protocol):
    """What is compared. period: it is measured in every n-th round, so that slow arms do not take all the time."""

    name: str
    note: str
    control_groups: str
    period: int

    def run(self, argv: Sequence[str], *, output: bool = False) -> Finished:
        """Start a container with this command and wait for its end."""
        ...


class Keeper(Protocol):
    """An arm whose containers can be left running, for the storm."""

    name: str

    def stay(self, argv: Sequence[str]) -> tuple[str, float]:
        """Start a container that stays: its id, and milliseconds until the engine says that it runs."""
        ...

    def end(self, guest: str) -> None:
        """Kill and remove it, and wait until that is done."""
        ...


class Command:
    """An arm that is a command line: `prefix`, then the command to run inside."""

    def __init__(
        self,
        name: str,
        spawner: Spawner,
        prefix: Sequence[str],
        note: str,
        control_groups: str = "none",
        period: int = 1,
    ) -> None:
        self.name = name
        self.note = note
        self.control_groups = control_groups
        self.period = period
        self._spawner = spawner
        self._prefix = list(prefix)

    def run(self, argv: Sequence[str], *, output: bool = False) -> Finished:
        """Run it once."""
        return self._spawner.run([*self._prefix, *argv], output=output)


class Engine(Command):
    """A command line with an engine behind it that also keeps containers: `run -d` and `rm -f` of one client."""

    def __init__(self, name: str, spawner: Spawner, client: list[str], run: list[str], note: str, period: int) -> None:
        super().__init__(name, spawner, [*client, "run", "--rm", *run], note, "memory, pids, devices, CPU time", period)
        self._client = client
        self._detached = [*client, "run", "-d", *run]

    def stay(self, argv: Sequence[str]) -> tuple[str, float]:
        """See `Keeper.stay`."""
        finished = must(self._spawner.run([*self._detached, *argv], output=True))
        return finished.output.split()[-1], finished.milliseconds

    def end(self, guest: str) -> None:
        """See `Keeper.end`."""
        must(self._spawner.run([*self._client, "rm", "-f", guest], output=True))


class Bundled:
    """crun or runc: the command is in the bundle's config.json, so there is one bundle for each command."""

    def __init__(
        self, name: str, spawner: Spawner, prefix: list[str], make: Callable[[list[str]], str], note: str
    ) -> None:
        self.name = name
        self.note = note
        self.control_groups = "pids, devices, and one folder in each hierarchy"
        self.period = 1
        self._spawner = spawner
        self._prefix = prefix
        self._make = make
        self._bundles: dict[tuple[str, ...], str] = {}

    def run(self, argv: Sequence[str], *, output: bool = False) -> Finished:
        """Run it once; the first call with a command writes its bundle, outside the time taken."""
        key = tuple(argv)
        if key not in self._bundles:
            self._bundles[key] = self._make(list(argv))
        return self._spawner.run([*self._prefix, "--bundle", self._bundles[key], f"bench-{self.name}"], output=output)


@contextlib.contextmanager
def unshare(place: Place) -> Iterator[Arm]:
    """util-linux's unshare(1): namespaces and a chroot, and nothing that protects the host."""
    prefix = ["unshare", "--fork", "--kill-child", "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup"]
    prefix += ["--mount-proc", "--root"]
    with Spawner() as spawner:
        yield Command("unshare", spawner, [*prefix, place.root], "namespaces and a chroot only")


@contextlib.contextmanager
def bubblewrap(place: Place) -> Iterator[Arm]:
    """Run `bwrap` as root with all namespaces but the user's, and no capabilities."""
    prefix = ["bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup"]
    prefix += ["--die-with-parent", "--cap-drop", "ALL"]
    prefix += ["--ro-bind", place.root, "/", "--proc", "/proc", "--dev", "/dev"]
    with Spawner() as spawner:
        yield Command("bwrap", spawner, prefix, "no control groups, no system call filter, read-only root")


def _hybrid() -> list[str]:
    return [UNIFIED] if os.path.ismount(UNIFIED) else []


def _no_hybrid() -> None:
    private_mounts(hide=_hybrid())


@contextlib.contextmanager
def oci_runtime(name: str, place: Place, *, seccomp: list[str] | None) -> Iterator[Arm]:
    """Run crun or runc with the bundle of `oci.specification`; without a filter the arm is called `NAME_plain`."""
    arm = name if seccomp is not None else f"{name}_plain"

    def make(argv: list[str]) -> str:
        folder = f"{place.folder}/{arm}-{len(os.listdir(place.folder))}"
        oci.write_bundle(folder, oci.specification(place.root, argv, seccomp=seccomp))
        return folder

    state = f"{place.folder}/{arm}-state"
    prefix = [name, "--root", state, *(["--cgroup-manager", "cgroupfs"] if name == "crun" else []), "run"]
    note = "an equal OCI bundle, read-only root" + ("" if seccomp is not None else ", without its system call filter")
    with Spawner(_no_hybrid) as spawner:
        yield Bundled(arm, spawner, prefix, make, note)


@contextlib.contextmanager
def _without_groups(name: str) -> Iterator[None]:
    """Remove the control groups that an engine leaves when it ends, where it was the one who made them."""
    places = [f"{path}/{name}" for path in ("/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*"))]
    new = [path for path in places if not os.path.exists(path)]
    yield
    for path in new:
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


@contextlib.contextmanager
def docker(place: Place) -> Iterator[Engine]:
    """`docker run --rm --network host` against an engine of the bench's own."""
    folder = f"{place.folder}/docker"
    os.makedirs(folder)
    address = f"unix://{folder}/docker.sock"
    engine = ["/usr/sbin/dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    engine += ["--pidfile", f"{folder}/pid", "--host", address, "--bridge=none", "--iptables=false", "--ip-masq=false"]
    client = ["/usr/bin/docker", "--host", address]
    with _without_groups("docker"), Spawner(_own_run) as spawner:
        pid = spawner.start(engine, f"{folder}/log")
        try:
            wait_until(lambda: spawner.run([*client, "version"]).code == 0, f"dockerd did not start: {folder}/log")
            must(spawner.run([*client, "import", place.archive, "bench:latest"], output=True))
            run = ["--network", "host", "bench:latest"]
            yield Engine("docker", spawner, client, run, "engine and client, the host's network", SLOW)
        finally:
            spawner.finish(pid)


def _own_network() -> None:
    """A host without version 2 beside version 1, and a network namespace for podman's bridge and firewall rules."""
    private_mounts(hide=_hybrid(), cover=["/run", "/var/lib/cni"])
    syscall.unshare(namespace.NEWNET)


def _own_run() -> None:
    """A host whose /run takes what an engine writes there."""
    private_mounts(hide=_hybrid(), cover=["/run"])


@contextlib.contextmanager
def podman(place: Place, *, network: str) -> Iterator[Engine]:
    """`podman run --rm`: network "" is what users type (a bridge), "host" is its quickest."""
    folder = f"{place.folder}/podman{network}"
    client = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--cgroup-manager", "cgroupfs"]
    run = [*_rlimits(), *(["--network", network] if network else []), "bench:latest"]
    note = f"as typed, --network {network}" if network else "as typed, with its bridge"
    with _without_groups("libpod_parent"), Spawner(_own_run if network else _own_network) as spawner:
        must(spawner.run([*client, "import", place.archive, "bench:latest"], output=True))
        yield Engine(f"podman_{network}" if network else "podman", spawner, client, run, note, SLOW)


def _rlimits() -> list[str]:
    """Podman raises limits beyond what a root without CAP_SYS_RESOURCE may; a lower one is set in the same time."""
    return ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]


def wait_until(condition: Callable[[], bool], problem: str, seconds: float = 20.0) -> None:
    """Wait for something that an engine does. Raises OSError with `problem` when it takes longer than `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise OSError(problem)
        time.sleep(0.02)


def must(finished: Finished) -> Finished:
    """The same, if it succeeded. Raises OSError with what the command said (run it with output=True)."""
    if finished.code != 0:
        raise OSError(finished.output.strip() or f"exit code {finished.code}")
    return finished


def available(program: str) -> bool:
    """Whether a peer's program is installed."""
    return shutil.which(program) is not None
