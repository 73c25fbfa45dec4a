"""When a machine that waits is made and ended, and whose it is. Everything around is counted, nothing is started."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from swiftlet.model.bundle import Rootfs
from swiftlet.model.error import ConflictError, LaunchError
from swiftlet.model.workload import Port, Workload
from swiftlet.node import spares as module
from swiftlet.node.record import Guest, Spare
from swiftlet.node.spares import Spares

PLAIN = Workload(command=("x",), kind="vm")


class Around:
    """Everything that a Spares works with. alive: machines that have been started and not been ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.alive: set[str] = set()
        self.deleted: list[str] = []
        self.slow: asyncio.Event | None = None
        self.fails = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.spares = Spares(self, self, self, self, self, self, self.spawn, self.deleted.append)  # type: ignore[arg-type]
        self.snapshots = self
        self.bundle = self
        self.rootfs = Rootfs((), ())
        self.created_ns = 1
        self.held = False
        self.connected = True
        self.dies = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def make_folder(self, id_: str) -> str:
        return str(self._folder / id_)

    folder = put_away = make_folder

    def find(self, name: str) -> Around:
        return self

    async def found_for(self, *asked: Any) -> None:
        return None

    def prepare(self, *asked: Any) -> Around:
        return self

    async def make_spare(self, guest: Guest, prepared: Any, *, held: bool) -> Spare:
        if self.slow is not None:
            await self.slow.wait()
        if self.fails:
            raise LaunchError("no")
        if self.dies:
            self.spares.on_exit(guest.id)  # the word of its end comes with the answer
        else:
            self.alive.add(guest.id)
        return Spare(guest, self, -1)  # type: ignore[arg-type]

    async def request(self, method: str, parameters: dict[str, Any]) -> None:
        assert method == "kill"
        if parameters["id"] not in self.alive:
            raise ConflictError("not running")
        self.alive.remove(parameters["id"])
        self.spares.on_exit(parameters["id"])


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Around:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0)
    monkeypatch.setattr(module, "end_groups", lambda groups: {})
    monkeypatch.setattr(Guest, "take", lambda guest, bundle: None)
    monkeypatch.delenv("SWIFTLET_SPARES", raising=False)
    return Around(tmp_path)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def until(check: Any) -> None:
    while not check():
        await asyncio.sleep(0.005)


def test_one_is_made_a_while_after_it_was_wanted_and_is_taken_once(around: Around) -> None:
    async def scenario() -> None:
        for _ in range(5):
            around.spares.want("s", PLAIN)
        assert around.spares.take("s", PLAIN) is None
        await until(lambda: around.alive)
        await asyncio.sleep(0.05)
        assert len(around.alive) == 1 and around.spares.ids == around.alive
        named = Workload(command=("x",), kind="vm", name="n", hostname="h", ports=(Port(guest=80),))
        spare = around.spares.take("s", named)
        assert spare is not None and {spare.guest.id} == around.alive and around.spares.ids == set()
        assert around.spares.take("s", PLAIN) is None

    play(scenario())


def test_what_is_put_back_is_the_next_ones_unless_another_waits(around: Around) -> None:
    async def scenario() -> None:
        around.spares.want("s", PLAIN)
        await until(lambda: around.alive)
        spare = around.spares.take("s", PLAIN)
        assert spare is not None
        around.spares.put_back(spare)
        assert around.spares.take("s", PLAIN) is spare
        around.spares.want("s", PLAIN)
        await until(lambda: len(around.alive) == 2)
        around.spares.put_back(spare)
        await until(lambda: len(around.alive) == 1)
        assert spare.guest.id not in around.alive and around.deleted == [spare.guest.folder]

    play(scenario())


def test_one_of_another_workload_is_no_use_and_gives_way(around: Around) -> None:
    async def scenario() -> None:
        around.spares.want("s", PLAIN)
        await until(lambda: around.alive)
        (first,) = around.alive
        passing = Workload(command=("x",), kind="vm", remove=True)
        assert around.spares.take("s", passing) is None
        around.spares.want("s", passing)
        await until(lambda: around.alive and first not in around.alive)
        assert around.spares.take("s", PLAIN) is None and around.spares.take("s", passing) is not None

    play(scenario())


def test_none_stays_of_a_snapshot_that_is_removed_while_it_is_made(around: Around) -> None:
    async def scenario() -> None:
        around.slow = asyncio.Event()
        around.spares.want("s", PLAIN)
        await until(lambda: around.spares.ids)
        asking = asyncio.create_task(around.spares.forget("s"))
        await asyncio.sleep(0.02)
        assert not asking.done(), "whoever removes a snapshot hears of it when nothing of it is left"
        around.slow.set()
        await asking
        assert around.alive == set() == around.spares.ids and len(around.deleted) == 1

    play(scenario())


def test_one_that_nobody_wants_any_more_is_ended(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.1)

    async def scenario() -> None:
        around.spares.want("s", PLAIN)
        await until(lambda: around.alive)
        await until(lambda: not around.alive and not around.tasks)
        assert around.spares.ids == set() and len(around.deleted) == 1

    play(scenario())


def test_there_are_so_many_at_most(around: Around) -> None:
    async def scenario() -> None:
        for number in range(module.MOST + 2):
            around.spares.want(f"s{number}", PLAIN)
        await until(lambda: len(around.alive) == module.MOST)
        await asyncio.sleep(0.05)
        assert len(around.alive) == module.MOST
        await around.spares.close()
        assert around.alive == set()
        around.spares.want("s0", PLAIN)
        await asyncio.sleep(0.05)
        assert around.alive == set()

    play(scenario())


def test_one_that_cannot_be_made_leaves_nothing_and_is_tried_again_when_it_is_wanted(around: Around) -> None:
    async def scenario() -> None:
        around.fails = True
        around.spares.want("s", PLAIN)
        await until(lambda: around.deleted)
        assert around.spares.ids == set()
        around.fails = False
        around.spares.want("s", PLAIN)
        await until(lambda: around.alive)

    play(scenario())


def test_one_that_has_ended_is_nobodys(around: Around) -> None:
    async def scenario() -> None:
        for lost in (lambda id_: around.spares.on_exit(id_), lambda id_: around.spares.lose({id_})):
            around.spares.want("s", PLAIN)
            await until(lambda: around.alive)
            (id_,) = around.alive
            around.spares.lose({"another"})
            assert around.spares.ids == {id_}
            around.alive.clear()
            lost(id_)
            assert around.spares.take("s", PLAIN) is None
            await until(lambda: not around.tasks)
        assert len(around.deleted) == 2

    play(scenario())


def test_what_the_launcher_does_not_end_is_given_back_all_the_same(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(method: str, parameters: dict[str, Any]) -> None:
        raise ConflictError("not running")

    async def scenario() -> None:
        around.spares.want("s", PLAIN)
        await until(lambda: around.alive)
        monkeypatch.setattr(around, "request", refuse)
        await around.spares.forget("s")
        assert around.spares.ids == set() and len(around.deleted) == 1

    play(scenario())


def test_one_whose_end_is_told_with_its_start_is_nobodys(around: Around) -> None:
    async def scenario() -> None:
        around.dies = True
        around.spares.want("s", PLAIN)
        await until(lambda: around.deleted)
        await until(lambda: not around.tasks)
        assert around.spares.ids == set() and around.spares.take("s", PLAIN) is None

    play(scenario())


def test_one_of_a_snapshot_whose_name_another_has_is_not_given_out(around: Around) -> None:
    async def scenario() -> None:
        around.spares.want("s", PLAIN)
        await until(lambda: around.alive)
        around.created_ns = 2
        assert around.spares.take("s", PLAIN) is None
        around.created_ns = 1
        around.connected = False
        assert around.spares.take("s", PLAIN) is None
        around.connected = True
        assert around.spares.take("s", PLAIN) is not None

    play(scenario())


def test_none_is_tried_for_a_while_after_one_could_not_be_made(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 60)

    async def scenario() -> None:
        around.fails = True
        around.spares.want("s", PLAIN)
        await until(lambda: around.deleted)
        around.fails = False
        around.spares.want("s", PLAIN)
        await asyncio.sleep(0.05)
        assert around.alive == set()

    play(scenario())


def test_whoever_goes_while_one_is_ended_leaves_nothing_half_ended(around: Around) -> None:
    async def scenario() -> None:
        around.spares.want("s", PLAIN)
        await until(lambda: around.alive)
        (id_,) = around.alive
        begun = asyncio.Event()

        async def kill(method: str, parameters: dict[str, Any]) -> None:
            begun.set()
            await asyncio.sleep(0.05)
            around.alive.remove(id_)
            around.spares.on_exit(id_)

        around.request = kill  # type: ignore[method-assign]
        asking = asyncio.create_task(around.spares.forget("s"))
        await begun.wait()
        asking.cancel()
        await until(lambda: around.deleted)
        assert around.spares.ids == set()

    play(scenario())


def test_none_is_begun_or_left_when_the_daemon_leaves(around: Around) -> None:
    async def scenario() -> None:
        around.slow = asyncio.Event()
        around.spares.want("made", PLAIN)
        await until(lambda: around.spares.ids)
        around.spares.want("wanted", PLAIN)
        leaving = asyncio.create_task(around.spares.close())
        await asyncio.sleep(0.05)
        assert not leaving.done()
        around.slow.set()
        await leaving
        await until(lambda: not around.tasks)
        assert around.alive == set() == around.spares.ids and len(around.deleted) == 1

    play(scenario())


def test_one_that_fails_because_its_snapshot_was_removed_holds_up_no_other(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 60)

    async def scenario() -> None:
        around.slow, around.fails = asyncio.Event(), True
        around.spares.want("s", PLAIN)
        await until(lambda: around.spares.ids)
        asking = asyncio.create_task(around.spares.forget("s"))
        await asyncio.sleep(0.02)
        around.slow.set()
        await asking
        around.fails = False
        around.spares.want("t", PLAIN)
        await until(lambda: around.alive)

    play(scenario())
