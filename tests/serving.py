"""Guests of a test: started detached, asked through their published ports, and removed when the test is over."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from swiftlet.linux import cgroup
from tests.product import Product, eventually


class Serving:
    """A guest that runs in the background."""

    def __init__(self, product: Product, id_: str) -> None:
        self.product = product
        self.id = id_

    @property
    def facts(self) -> dict[str, Any]:
        """What `swiftlet inspect` says of it."""
        found: dict[str, Any] = self.product.json("inspect", self.id)[0]
        return found

    def port(self, guest: int) -> int:
        """The host's port that stands for one of the guest's."""
        for published in self.facts["ports"]:
            host, _, inner = published.partition("->")
            if inner == f"{guest}/tcp":
                return int(host.rpartition(":")[2])
        raise AssertionError(f"port {guest} is not published: {self.facts['ports']}")

    def connect(self, guest: int) -> socket.socket:
        """A connection to one of its ports, as soon as it listens there."""
        port = self.port(guest)

        def attempt() -> socket.socket:
            self.must_run()
            return socket.create_connection(("127.0.0.1", port), timeout=10)

        made: socket.socket = eventually(attempt, 60)
        return made

    def must_run(self) -> None:
        """Raise RuntimeError once it has ended: nobody need wait for it any more."""
        facts = self.facts
        if facts["state"] != "Running":
            raise RuntimeError(f"it has ended: {facts['exit']}")

    def page(self, guest: int, path: str = "/") -> tuple[int, bytes]:
        """Status and body of a page that it serves."""
        port = self.port(guest)

        def attempt() -> tuple[int, bytes]:
            self.must_run()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except http.client.HTTPException as error:  # it was not up to it yet
                raise OSError(str(error)) from error
            finally:
                connection.close()

        found: tuple[int, bytes] = eventually(attempt, 60)
        return found

    def run(self, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """A command in it, ended."""
        return self.product.run("exec", self.id, "--", *command, **more)


@contextlib.contextmanager
def serving(product: Product, *arguments: str) -> Iterator[Serving]:
    """`swiftlet run -d ARGUMENTS`; a failure of the test carries what the guest wrote."""
    guest = Serving(product, product.ok("run", "-d", "-q", *arguments).strip())
    try:
        yield guest
    except BaseException as error:
        logs = product.run("logs", guest.id)
        error.add_note(f"the guest wrote:\n{(logs.stdout + logs.stderr)[-4000:]}")
        raise
    finally:
        product.run("rm", "-f", guest.id)


def needs_controller(name: str) -> pytest.MarkDecorator:
    """For a test of a limit: this host's control groups must be able to set it."""
    return pytest.mark.skipif(cgroup.detect().hierarchy_of(name) is None, reason=f"host lacks: {name} controller")


def pip_install(folder: str, requirement: str) -> None:
    """A pure package in a folder of its own, as a developer puts it beside an application."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]
    subprocess.run([*command, folder, requirement], check=True, capture_output=True, text=True, timeout=120)
