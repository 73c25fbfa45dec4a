"""Waiting until a guest's service answers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import types
from typing import Any

import pytest

from swiftlet.model.error import ConflictError
from swiftlet.node import ready


def guest(*, address: str | None = "127.0.0.1", running: bool = True) -> Any:
    attached = types.SimpleNamespace(address=address) if address else None
    return types.SimpleNamespace(name="web", attached=attached, is_running=running, state="Stopped")


def test_it_ends_as_soon_as_somebody_listens_on_every_port() -> None:
    async def serve() -> None:
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as one:
            port = one.sockets[0].getsockname()[1]
            waiting = asyncio.ensure_future(ready.wait(guest(), [port, port + 1], 5))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port + 1):
                await waiting

    asyncio.run(serve())


@pytest.mark.parametrize(
    ("who", "told"),
    [
        (guest(), "does not listen on port 9 after 0 s"),
        (guest(running=False), "guest web is Stopped"),
        (guest(address=None), "no address"),
    ],
)
def test_it_gives_up_with_the_reason(who: Any, told: str) -> None:
    with pytest.raises(ConflictError, match=told):
        asyncio.run(ready.wait(who, [9], 0.1))


def test_nothing_is_waited_for_where_there_is_no_port() -> None:
    asyncio.run(ready.wait(guest(address=None), []))


def rested(words: list[str], seconds: float, lived: float = ready.SETTLED_SECONDS) -> float:
    """How long a process's rest is waited for. lived: seconds since the machine was started."""
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        begin = time.monotonic()
        who: Any = types.SimpleNamespace(pid=process.pid, started_ns=time.time_ns() - round(lived * 1e9))
        try:
            asyncio.run(ready.rest(who, seconds))
        finally:
            process.kill()
        return time.monotonic() - begin


def test_what_it_still_does_is_waited_for_and_then_no_longer() -> None:
    work = "import time; print(flush=True); end = time.monotonic() + 0.6\n"
    work += "while time.monotonic() < end: pass\ntime.sleep(60)"
    assert 0.5 < rested([sys.executable, "-c", work], 30) < 10


def test_one_that_never_rests_is_not_waited_for_longer_than_that() -> None:
    assert 0.3 < rested([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], 0.3) < 3


def test_one_that_has_ended_rests() -> None:
    assert rested(["true"], 30) < 10


def test_what_a_kernel_does_a_while_after_its_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "SETTLED_SECONDS", 0.7)
    assert 0.4 < rested(["true"], 30, 0.2) < 5
    assert rested(["true"], 30, 10) < 0.4


def test_a_clock_that_was_set_back_makes_nobody_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "SETTLED_SECONDS", 0.3)
    assert rested(["true"], 30, -3600) < 10
