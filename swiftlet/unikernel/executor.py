"""`concurrent.futures` over a unikernel: started for the length of a `with`, called like any other pool.

The machine is started by the `swiftlet` command, as a user would: this module is a program's, not the daemon's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import typing
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

from swiftlet.model.error import LaunchError
from swiftlet.unikernel.client import Client

Result = TypeVar("Result")

_COMMAND = (sys.executable, "-c", "from swiftlet.cli.main import run_and_exit; run_and_exit()")
_HERE = "127.0.0.1"
_PORT = "7000"

_EACH = 2
"""Calls under way for each processor: one that runs, and one that is ready when it ends."""


class Executor(futures.Executor):
    """A unikernel of a program.

    ::

        with Executor("primes.py", cpus=4) as executor:
            counts = list(executor.map(count_primes, range(1000, 9000, 1000)))

    What a task raises is raised by its future's `result`.
    """

    def __init__(
        self, program: str, *, cpus: int = 1, memory: str = "", deadline: float = 0.0, cpu_level: str = ""
    ) -> None:
        """Build the program, start it and wait until it answers.

        memory, cpu_level: as `-m` and `--cpu-level` of the command. deadline: seconds that a task may take, 0 for any.
        Raises LaunchError.
        """
        if cpus < 1:
            raise ValueError(f"an executor of {cpus} processors")
        self._deadline = deadline
        limits = ["--memory", memory] if memory else []
        limits += ["--cpu-level", cpu_level] if cpu_level else []
        flags = ["--as", "unikernel", "--cpus", str(cpus), "-p", f"{_HERE}::{_PORT}/udp", *limits]
        self._guest = _command("run", "-d", "--rm", "-q", *flags, os.path.abspath(program)).strip()
        self._clients: list[Client] = []
        self._own = threading.local()
        self._lock = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(_EACH * cpus, "unikernel")
        try:
            self._port = _port_of(self._guest)
        except BaseException:
            self.shutdown()
            raise

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **named: Any) -> futures.Future[Result]:
        """Call a task: the function itself, which is known by its name. It takes no named arguments.

        Raises TypeError for those, RuntimeError after `shutdown`.
        """
        if not callable(function):
            raise TypeError(f"{function!r} is no task: submit the function itself")
        if named:
            raise TypeError(f"{function.__name__}: a task has no named arguments")
        try:
            hint = typing.get_type_hints(function).get("return")
        except (NameError, TypeError):  # it is known by its name
            hint = None
        return self._pool.submit(self._call, function.__name__, hint, *arguments)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Remove the machine, after what is under way where `wait` is set."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        with self._lock:
            guest, self._guest = self._guest, ""
            clients, self._clients = self._clients, []
        for each in clients:
            each.close()
        if guest:
            _command("rm", "-f", guest)

    def _call(self, name: str, hint: Any, *arguments: Any) -> Any:
        client = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = Client(_HERE, self._port)
            with self._lock:
                self._clients.append(client)
        return declared(hint, client.call(name, *arguments, deadline=self._deadline))


def declared(hint: Any, value: Any) -> Any:
    """A result as its task's annotation has it: in its named tuples, where over the wire there are tuples only."""
    if not isinstance(value, tuple):
        return value
    is_named = isinstance(hint, type) and hasattr(hint, "_fields")
    hints = typing.get_type_hints(hint).values() if is_named else typing.get_args(hint)
    if len(hints) != len(value):
        return value
    inside = [declared(one, each) for one, each in zip(hints, value, strict=True)]
    return hint(*inside) if is_named else tuple(inside)


def _command(*words: str) -> str:
    done = subprocess.run([*_COMMAND, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LaunchError(done.stderr.strip().removeprefix("swiftlet: ") or f"swiftlet {words[0]} failed")
    return done.stdout


def _port_of(guest: str) -> int:
    ((found,),) = [each["ports"] for each in json.loads(_command("inspect", "--json", guest))]
    return int(found.partition("->")[0].rpartition(":")[2])
