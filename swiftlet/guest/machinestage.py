"""What the process that becomes QEMU does besides a container's steps (`stage`): servers for volumes, descriptors.

Imports the standard library and `swiftlet.linux` only.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from swiftlet.guest import stage
from swiftlet.guest.channels import Channels
from swiftlet.guest.spawn import RequestError
from swiftlet.linux import capability, syscall
from swiftlet.linux.channel import Channel
from swiftlet.linux.lean import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from swiftlet.guest.process import Process

_SERVER = "/usr/lib/qemu/virtiofsd"
_SERVER_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETGID",
    "SETUID",
    "MKNOD",
    "SETFCAP",
    "SETPCAP",
    "SYS_CHROOT",
)
"""To act as any of a guest's users; and, the last two, to shut itself in."""

_TIOCSCTTY, _TIOCGWINSZ = 0x540E, 0x5413

_HIGH = 500
"""Numbers from here on are out of the way of those that the machine inherits."""


def connect(process: Process, guest: stage.Guest, parameters: dict[str, Any], fds: tuple[int, ...]) -> None:
    """In the launcher: make the channels of a machine, and have its process inherit them. Raises RequestError."""
    names = guest.bundle["machine"]["descriptors"]
    try:
        said = parameters["orders"], parameters["script"]
        waits, halt = parameters.get("waits", False), parameters.get("halt", "")
        process.channels = Channels(process.state_dir, names, *said, waits=waits, halt=halt)
    except ValueError as error:
        raise RequestError(str(error), "InputError", "pass large inputs in a volume") from None
    sent = {role: fd for role, fd in zip(parameters["roles"], fds, strict=True) if role in names}
    guest.given = {**process.channels.given, **sent, "told": process.channels.fileno()}


def serve_volumes(guest: stage.Guest) -> None:
    """Start a server for each volume, in the machine's namespaces and control groups, and connect the machine to it.

    It begins to serve when QEMU speaks, and ends with it, which is the first process of their pid namespace.
    """
    shares = [name for name in guest.bundle["machine"]["descriptors"] if name.startswith("share")]
    for number, name in enumerate(shares):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(f"\0swiftlet-{name}")  # the network namespace is the machine's own, and so are such names
        listener.listen(1)
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        client.connect(f"\0swiftlet-{name}")
        if os.fork() == 0:
            _serve(guest, listener.fileno(), f"/volume/{number}")
        listener.close()
        guest.given[name] = client.detach()


def _serve(guest: stage.Guest, listener: int, folder: str) -> None:
    """Become the server of a folder."""
    try:
        _, _, console = guest.stdio
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for number, fd in enumerate((null, console, console)):
            os.dup2(fd, number, inheritable=True)
        numbers = tuple(capability.number_of(name) for name in _SERVER_CAPABILITIES)
        capability.drop_to(0, 0, (), numbers)
        os.set_inheritable(listener, True)
        argv = [_SERVER, f"--fd={listener}", "-o", f"source={folder}", "-o", "sandbox=chroot", "-o", "cache=auto"]
        os.execve(_SERVER, [*argv, "--rlimit-nofile=0"], {})
    except BaseException as error:
        os.write(2, f"volume server: {error}\n".encode())
    finally:
        os._exit(125)


def take_channels(guest: stage.Guest) -> None:
    """Give the workload's outputs to their channels; the machine's own output is its console."""
    input_, output, errors = guest.stdio
    if guest.bundle["tty"]:
        make_raw(output)
        output = os.open(f"/proc/self/fd/{output}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    guest.given |= {"output": output, "errors": errors, "input": input_}
    guest.stdio = [_own(input_), guest.given["console"], guest.given["console"]]


def _own(fd: int) -> int:
    """The same pipe or terminal, opened anew: QEMU makes its standard input non-blocking, for all who have it open."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        return os.open(
            f"/proc/self/fd/{fd}",
            os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC if stat.S_ISCHR(kind) else os.O_RDONLY | os.O_CLOEXEC,
        )
    return fd


def make_raw(terminal: int) -> None:
    """The guest has a terminal of its own, which does what terminals do; this one only carries bytes."""
    import termios

    iflag, _, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(terminal)
    iflag &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    lflag &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    no_output_flags = 0  # QEMU sets OPOST again, which does nothing without the others
    attributes = [iflag, no_output_flags, cflag | termios.CS8, lflag, ispeed, ospeed, cc]
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


def mind_size(guest: stage.Guest) -> None:
    """For a terminal: a process beside the machine that hears when its size changes, and tells the guest.

    Only whoever leads the session of a terminal hears that, and QEMU would do nothing with it.
    """
    if not guest.bundle["tty"] or os.fork():
        return
    try:
        terminal, orders = guest.given["input"], guest.given["told"]
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
        os.setsid()
        fcntl.ioctl(terminal, _TIOCSCTTY, 0)
        keep = sorted((terminal, orders))
        for first, last in ((0, keep[0] - 1), (keep[0] + 1, keep[1] - 1), (keep[1] + 1, 0xFFFFFFFF)):
            syscall.close_range(first, last) if first <= last else None
        while True:
            signal.sigwait([signal.SIGWINCH])
            os.write(orders, size_order(terminal))
    finally:
        os._exit(0)


def size_order(terminal: int) -> bytes:
    """The order that gives a guest's terminal the size of one of the host's (`guest.orders`)."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, _TIOCGWINSZ, bytes(8)))
    return f"z2{rows}\0{columns}\0".encode()


def lead_alone(guest: stage.Guest) -> None:
    """Begin a session without a terminal."""
    os.setsid()


def place_channels(guest: stage.Guest) -> None:
    """Put what the machine inherits at the numbers that its command line names."""
    names = guest.bundle["machine"]["descriptors"]
    first = guest.bundle["machine"]["first"]
    high = [fcntl.fcntl(guest.given[name], fcntl.F_DUPFD_CLOEXEC, _HIGH) for name in names]
    assert guest.status is not None
    guest.status = Channel(socket.socket(fileno=fcntl.fcntl(guest.status.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH)))
    for number, fd in enumerate(high, first):
        os.dup2(fd, number, inheritable=True)
    guest.kept = (first, first + len(names) - 1)


MACHINE = (
    stage.join_cgroups,
    stage.join_network,
    stage.enter_root,
    stage.show_kernel,
    stage.attach_volumes,
    stage.hide_paths,
    stage.open_console,
    take_channels,
    mind_size,
    serve_volumes,
    stage.seal_root,
    stage.name_host,
    stage.take_stdio,
    lead_alone,
    stage.set_limits,
    place_channels,
    stage.drop_privileges,
    stage.get_ready,
    stage.execute,
)
