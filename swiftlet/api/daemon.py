"""`python -m swiftlet.api.daemon`: the node daemon. Takes the instance, listens, serves, leaves.

One daemon for an instance: the one that holds `node.lock`. A second one leaves with 0, since whoever started it will
reach the first. SIGTERM and SIGINT end it and leave running guests to the launcher.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import signal
import sys

import swiftlet
from swiftlet.api import interface
from swiftlet.api.methods import Methods
from swiftlet.api.server import Server, listen
from swiftlet.api.service import Service
from swiftlet.model.error import SwiftletError
from swiftlet.model.instance import Instance, instance_of
from swiftlet.node.node import Node

log = logging.getLogger("swiftlet.daemon")


def main() -> int:
    """Run until told to leave. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    try:
        instance = instance_of()
        lock = take_lock(instance)
        if lock is None:
            return 0
        _prepare_process()
        asyncio.run(serve(instance))
    except SwiftletError as error:
        log.error("%s%s", error, f" ({error.hint})" if error.hint else "")
        return error.exit_code
    except OSError as error:
        log.error("%s", error)
        return 1
    return 0


def take_lock(instance: Instance) -> int | None:
    """The descriptor that makes this the instance's daemon, None when there is one. Raises OSError."""
    os.makedirs(instance.run, 0o711, exist_ok=True)
    lock = os.open(f"{instance.run}/node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _prepare_process() -> None:
    """As many descriptors as may be had (each guest, port and connection is one); plain modes for what is made."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o022)
    sys.setswitchinterval(0.0005)  # the network thread must not hold up the event loop for the usual 5 ms


async def serve(instance: Instance) -> None:
    """Open the node, listen, and serve until a signal says to leave."""
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)
    node = Node(instance)
    await node.open()
    server = Server(service_of(node), listen(instance.socket))
    _write_pid(instance)
    log.info("process %d serves %s", os.getpid(), instance.root)
    try:
        await leave.wait()
    finally:
        await server.close()
        await node.close()
        _remove(instance.socket, f"{instance.run}/node.pid")
    log.info("left")


def service_of(node: Node) -> Service:
    """What this daemon offers over varlink."""
    service = Service(
        vendor="swiftlet",
        product="swiftlet",
        version=swiftlet.__version__,
        url="",
        error_interface=interface.NAME,
    )
    service.add(Methods(node).interface())
    return service


def _write_pid(instance: Instance) -> None:
    with open(f"{instance.run}/node.pid", "w") as file:
        file.write(f"{os.getpid()}\n")


def _remove(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


if __name__ == "__main__":
    sys.exit(main())
