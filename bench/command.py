"""swiftlet as its user has it: `swiftlet run` typed again and again, the daemon warm, an instance of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator, Sequence

from bench.launcher import TREE
from bench.peers import SLOW, Engine, Place, must
from bench.spawner import Finished, Spawner
from swiftlet.linux import cgroup
from swiftlet.model.instance import Instance, instance_of


class CommandArm(Engine):
    """`swiftlet run --rm` with its default bridge. Programs come from the peers' root by `host:` templates."""

    def __init__(self, spawner: Spawner, place: Place, program: str) -> None:
        note = "the command, its daemon, resolution from the cache, a bridge with an address"
        super().__init__("cli", spawner, [program], [], note, SLOW)
        self._program = program
        self._place = place

    def run(self, argv: Sequence[str], *, output: bool = False) -> Finished:
        """See `Arm.run`."""
        return self._spawner.run([self._program, "run", "--rm", *self._in_guest(argv)], output=output)

    def stay(self, argv: Sequence[str]) -> tuple[str, float]:
        """See `Keeper.stay`."""
        finished = must(self._spawner.run([self._program, "run", "-d", *self._in_guest(argv)], output=True))
        return finished.output.split()[-1], finished.milliseconds

    def _in_guest(self, argv: Sequence[str]) -> list[str]:
        """A host file keeps its path in the guest."""
        path = f"{self._place.root}{argv[0]}"
        return ["-t", f"host:{path}", "--", path, *argv[1:]]


@contextlib.contextmanager
def command(place: Place, program: str = f"{TREE}/.venv/bin/swiftlet") -> Iterator[CommandArm]:
    """The command with a daemon of its own, which is started by the first call and ended here."""
    instance = instance_of({"SWIFTLET_ROOT": f"{place.folder}/node"})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SWIFTLET_")}
    with Spawner(environment={**environment, "SWIFTLET_ROOT": instance.root}) as spawner:
        try:
            arm = CommandArm(spawner, place, program)
            must(arm.run(["/true"], output=True))
            yield arm
        finally:
            end(instance)


def end(instance: Instance) -> None:
    """End the daemon by the pid that it left; it ends its launcher, for no guest is left. Then remove their groups."""
    with contextlib.suppress(OSError, ValueError):
        with open(f"{instance.run}/node.pid") as file:
            handle = os.pidfd_open(int(file.read()))
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll(10_000)
        os.close(handle)
    with contextlib.suppress(OSError):
        cgroup.remove_parent(cgroup.detect(), instance.cgroup)
