"""What a container's first process does between clone and exec. Runs in the launcher's child, as its only thread.

The steps are a list and each does one thing; the first that fails names itself, and the launcher tells.
The root is entered before anything is mounted in it, so that a symbolic link left there by an earlier run
of the guest resolves inside the guest and nowhere else (CVE-2021-30465, CVE-2025-31133).
Imports the standard library and `swiftlet.linux` only.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import stat
import struct

from swiftlet.linux import capability, mount, namespace, seccomp, syscall
from swiftlet.linux.channel import Channel
from swiftlet.linux.lean import signal, socket
from swiftlet.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIGNALS = tuple(int(number) for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP))

SLOT = struct.Struct("<ii")
"""What a child says in the page that it shares with the launcher: 1 when nothing is left to do but to execute the
command, and the process that does so in its place, if it is another."""

_DEVPTS_MAGIC = 0x1CD1
_TIOCGPTPEER, _TIOCSCTTY, _TIOCSPTLCK = 0x5441, 0x540E, 0x40045431


class StageError(Exception):
    """A step failed; `kind` is a class name of `swiftlet.model.error`."""

    def __init__(self, message: str, kind: str = "LaunchError", hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.hint = hint


class Guest:
    """What the child knows: the bundle (or the exec request), and the descriptors that came with it.

    given: of a virtual machine, what it inherits by name. kept: the first and the last number of what is inherited.
    port, has_input: of a further command in one, where it is spoken to, and whether anybody writes its input.
    """

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.bundle = bundle
        self.view: tuple[syscall.Call, ...] = ()
        self.covers: tuple[syscall.Call, ...] = ()
        self.cgroup_tasks: tuple[int, ...] = ()
        self.stdio: list[int] = [-1, -1, -1]
        self.volumes: tuple[int, ...] = ()
        self.netns = -1
        self.owned_netns = -1
        self.given_output = False
        self.userns = -1
        self.target = -1
        self.filter: seccomp.Filter | None = None
        self.mount_point = ""
        self.status: Channel | None = None
        self.progress: mmap.mmap | None = None
        self.slot = 0
        self.given: dict[str, int] = {}
        self.kept = (3, 2)
        self.port: socket.socket | None = None
        self.has_input = False

    def mark_ready(self) -> None:
        """Tell the launcher, in a page that it shares, that nothing is left to do but to execute the command.

        Else it could not tell a command that was killed at once from a set-up that was killed. A child whose launcher
        has gone ends here: nobody would ever know of its guest.
        """
        assert self.status is not None
        if not self.status.sock.recv(1):  # its word that the logs are there; nothing, when it failed or has gone
            os._exit(125)
        try:
            self.status.sock.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if self.progress is not None:
                SLOT.pack_into(self.progress, self.slot * SLOT.size, 1, 0)
            return
        os._exit(125)


def join_cgroups(guest: Guest) -> None:
    """Enter the v1 hierarchies (v2 was entered by clone3): a thread that moves itself takes no global lock."""
    for fd in guest.cgroup_tasks:
        os.write(fd, b"0")
    syscall.unshare(namespace.NEWCGROUP)


def join_network(guest: Guest) -> None:
    """Enter the prepared network namespace; one that clone made still has its loopback down."""
    if guest.netns >= 0:
        syscall.setns(guest.netns, namespace.NEWNET)
    elif guest.bundle["netns"] == "new":
        namespace.raise_loopback()


def enter_root(guest: Guest) -> None:
    """Mount the overlay and make it the root; the host's tree is gone from here on."""
    bundle = guest.bundle
    state = bundle["state_dir"]
    lowers = list(bundle["rootfs"]["lowers"])
    if guest.userns >= 0:
        os.chown(f"{state}/upper", bundle["userns"], bundle["userns"])
        lowers = _mapped_lowers(lowers, guest.userns, guest.mount_point)
    _mount_overlay(guest, lowers)
    os.chdir(guest.mount_point)
    syscall.pivot_root(".", ".")
    syscall.umount(".", mount.MNT_DETACH)
    os.chdir("/")
    for name in ("/proc", "/sys", "/dev"):
        if not stat.S_ISDIR(os.lstat(name).st_mode):
            raise StageError(f"{name} in the guest's root is not a folder", hint="remove this guest and run it anew")


def _mount_overlay(guest: Guest, lowers: list[str]) -> None:
    state = guest.bundle["state_dir"]
    volatile = guest.bundle["volatile"]
    try:
        mount.overlay(lowers, f"{state}/upper", f"{state}/work", guest.mount_point, volatile=volatile)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise StageError("this kernel has no overlay file system", "HostError", "swiftlet doctor") from None
        if error.errno == errno.EINVAL:
            hint = "choose a SWIFTLET_ROOT on ext4, xfs, btrfs or tmpfs; dmesg may say more"
            raise StageError(f"overlay refuses {state} as its upper layer", "HostError", hint) from None
        raise


def _mapped_lowers(lowers: list[str], userns: int, mount_point: str) -> list[str]:
    """Id-mapped copies of the lowers, at places that only this namespace has."""
    syscall.mount("none", mount_point, "tmpfs", 0, "size=64k")
    mapped = []
    for index, lower in enumerate(lowers):
        place = f"{mount_point}/{index}"
        os.mkdir(place)
        tree = syscall.open_tree(syscall.AT_FDCWD, lower, 1)
        syscall.mount_setattr(tree, "", set_=mount.ATTR_IDMAP, userns=userns)
        syscall.move_mount(tree, syscall.AT_FDCWD, place)
        os.close(tree)
        mapped.append(place)
    return mapped


def show_kernel(guest: Guest) -> None:
    """Mount /proc, /sys and /dev (`guest.view`)."""
    syscall.perform(guest.view)


def attach_volumes(guest: Guest) -> None:
    """Attach the detached mounts and tmpfs that the bundle names, making what they are attached to."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for (target, is_folder), source in zip(guest.bundle["volumes"], guest.volumes, strict=True):
        try:
            place = mount.make_beneath(root, target, directory=is_folder)
            syscall.move_mount(source, place, "")
        except OSError as error:
            raise _not_attached("volume", root, target, is_folder, error) from None
        os.close(place)
        os.close(source)
    for specification in guest.bundle["tmpfs"]:
        target, _, options = specification.partition(":")
        try:
            os.close(mount.make_beneath(root, target, directory=True))
            syscall.mount("tmpfs", target, "tmpfs", *_tmpfs_options(options))
        except OSError as error:
            raise _not_attached("tmpfs", root, target, True, error) from None
    os.close(root)


def _not_attached(what: str, root: int, target: str, is_folder: bool, error: OSError) -> StageError:
    """Why something has no place in the guest: mostly, it is a folder and there is a file, or the other way round."""
    try:
        other = stat.S_ISDIR(os.fstat(mount.open_beneath(root, target)).st_mode) != is_folder
    except OSError:
        other = False
    kinds = ("a folder", "a file") if is_folder else ("a file", "a folder")
    why = f"it is {kinds[0]}, and the guest has {kinds[1]} there" if other else str(error.strerror)
    return StageError(f"{what} at {target} cannot be attached: {why}")


def _tmpfs_options(text: str) -> tuple[int, str]:
    """Flags and data of a mount, from what docker's users write; what a tmpfs is anyway is left out."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    words = set(text.split(",")) - {"", "rw", "nosuid", "nodev", "noexec"}
    if "exec" in words:
        flags &= ~MS_NOEXEC
    if "ro" in words:
        flags |= MS_RDONLY
    return flags, ",".join(sorted(words - {"exec", "ro"}))


def hide_paths(guest: Guest) -> None:
    """Mask what tells about the host, and make read-only what changes it (`guest.covers`)."""
    syscall.perform(guest.covers)


def open_console(guest: Guest) -> None:
    """Make a pseudo-terminal of the guest's own, send its master to the launcher, keep its slave as standard I/O."""
    if not guest.bundle["tty"]:
        return
    master = syscall.openat2(syscall.AT_FDCWD, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, syscall.RESOLVE_NO_SYMLINKS)
    if syscall.filesystem_type(master) != _DEVPTS_MAGIC:
        raise StageError("/dev/pts in the guest is not a devpts: no terminal can be had")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    send_status(guest, {"console": True}, (master,))
    os.close(master)
    os.fchmod(slave, 0o620)
    os.fchown(slave, guest.bundle["userns"] + guest.bundle["uid"], -1)
    if guest.target < 0:
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy = mount.clone_tree(slave, recursive=False)
        syscall.move_mount(copy, syscall.AT_FDCWD, "/dev/console")
        os.close(copy)
    guest.stdio = [slave, slave, slave]


def take_stdio(guest: Guest) -> None:
    """Put standard input, output and error in their places."""
    owner = guest.bundle["userns"] + guest.bundle["uid"]
    for number, fd in enumerate(guest.stdio):
        if owner and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, owner, -1)  # or the guest's user could not open /dev/stdout, where nginx and others log
        os.dup2(fd, number, inheritable=True)


def lead_session(guest: Guest) -> None:
    """Begin a session and take the terminal, if there is one; it goes with the session's first process."""
    os.setsid()
    if guest.bundle["tty"]:
        fcntl.ioctl(0, _TIOCSCTTY, 0)


def seal_root(guest: Guest) -> None:
    """Make the root read-only where that was asked for; volumes and kernel file systems keep their own flags."""
    if guest.bundle["read_only"]:
        syscall.mount_setattr(syscall.AT_FDCWD, "/", set_=mount.ATTR_RDONLY)


def name_host(guest: Guest) -> None:
    """Set the guest's host name."""
    syscall.sethostname(guest.bundle["hostname"])


def join_guest(guest: Guest) -> None:
    """For exec: enter the namespaces of a running guest (its pid namespace is for `enter_processes`)."""
    everything = namespace.NEWNS | namespace.NEWIPC | namespace.NEWUTS | namespace.NEWNET | namespace.NEWCGROUP
    for fd in guest.cgroup_tasks:
        os.write(fd, b"0")
    syscall.setns(guest.target, everything | namespace.NEWPID)
    os.chdir("/")


def enter_processes(guest: Guest) -> None:
    """For exec: go on as a new process that the guest can see, the launcher's child as this one is, which ends.

    It comes as the last thing before the command, when nothing but the guest's own is left to take: a process of the
    guest that may trace or stop others (CAP_SYS_PTRACE, or root) waits for it, as in CVE-2016-9962.
    """
    assert guest.status is not None
    status = guest.status.fileno()
    syscall.close_range(3, status - 1) if status > 3 else None
    syscall.close_range(status + 1)
    progress = guest.progress
    assert progress is not None
    progress.madvise(mmap.MADV_DONTFORK)  # so that this one alone can say who the other is
    try:
        pid, _ = syscall.clone3(0, sibling=True)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise StageError("the guest's first process has ended", "ConflictError") from None
        raise
    if pid:
        SLOT.pack_into(progress, guest.slot * SLOT.size, 1, pid)
        os._exit(0)


def set_limits(guest: Guest) -> None:
    """Apply resource limits; -1 is no limit. Descriptors: softly the usual 1024, since select(2) takes no more."""
    if "NOFILE" not in guest.bundle["rlimits"]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024 if hard < 0 else min(1024, hard), hard))
    for name, (soft, hard) in guest.bundle["rlimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))


def enter_folder(guest: Guest) -> None:
    """Go to the working folder, making it if need be; refuse one that is not below the root (CVE-2024-21626)."""
    cwd = guest.bundle["cwd"]
    if cwd == "/":
        return  # where every step leaves the process
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder = mount.make_beneath(root, cwd, directory=True)
        os.fchdir(folder)
        os.close(folder)
    except NotADirectoryError:
        raise StageError(f"working folder {cwd} is not a folder in the guest") from None
    finally:
        os.close(root)
    if not os.getcwd().startswith("/"):
        raise StageError(f"working folder {cwd} lies outside the guest's root")


def drop_privileges(guest: Guest) -> None:
    """Become the guest's user with the bundle's capabilities and nothing more."""
    bundle = guest.bundle
    if guest.userns >= 0:
        syscall.setns(guest.userns, namespace.NEWUSER)
    capability.drop_to(bundle["uid"], bundle["gid"], tuple(bundle["groups"]), tuple(bundle["capabilities"]))
    syscall.prctl(syscall.PR_SET_NO_NEW_PRIVS, 1)


def get_ready(guest: Guest) -> None:
    """See `Guest.mark_ready`."""
    guest.mark_ready()


def execute(guest: Guest) -> None:
    """Load the seccomp program and become the command, looked up in the guest's PATH as a shell does."""
    argv = list(guest.bundle["argv"])
    environment = guest.bundle["env"]
    command = argv[0]
    folders = [""] if "/" in command else environment.get("PATH", "").split(":")
    for number in (0, 1, 2):
        os.set_inheritable(number, True)
    first, last = guest.kept
    syscall.close_range(3, first - 1, flags=4) if first > 3 else None
    syscall.close_range(last + 1, flags=4)
    if guest.filter is not None:
        guest.filter.load()
    denied: OSError | None = None
    for folder in folders:
        path = f"{folder or '.'}/{command}" if "/" not in command else command
        try:
            os.execve(path, argv, environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                denied = error
            elif os.path.lexists(path):
                raise _missing_interpreter(path) from None
    if denied is not None:
        raise StageError(f"cannot execute {command!r}: {denied.strerror}")
    raise StageError(f"command {command!r} is not in the guest", "CommandNotFoundError")


def _missing_interpreter(path: str) -> StageError:
    """`path` is there and could not be executed for want of something: tell what its first line asks for."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except OSError:
        return StageError(f"{path} is a link to nothing", "CommandNotFoundError")
    if first.startswith(b"#!"):
        interpreter = first[2:].split()[:1]
        name = interpreter[0].decode(errors="replace") if interpreter else "?"
        return StageError(f"{path} asks for the interpreter {name}, which is not in the guest", "CommandNotFoundError")
    return StageError(f"{path} needs a dynamic loader that is not in the guest", "CommandNotFoundError")


START = (
    join_cgroups,
    join_network,
    enter_root,
    show_kernel,
    attach_volumes,
    hide_paths,
    open_console,
    seal_root,
    name_host,
    take_stdio,
    lead_session,
    set_limits,
    enter_folder,
    drop_privileges,
    get_ready,
    execute,
)
SANDBOX = (
    enter_root,
    show_kernel,
    hide_paths,
    name_host,
    take_stdio,
    lead_session,
    drop_privileges,
    get_ready,
    execute,
)
EXEC = (
    join_guest,
    open_console,
    take_stdio,
    set_limits,
    enter_folder,
    drop_privileges,
    get_ready,
    enter_processes,
    lead_session,
    execute,
)


def _reset_signals() -> None:
    """Every signal unblocked and at its default.

    Execution keeps what is ignored, and that may be the launcher's, Python's, or of whoever typed the first command
    (`swiftlet run ... &` in a script ignores Ctrl-C): java, for one, would then never end by SIGTERM.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def run(guest: Guest, steps: tuple[Any, ...]) -> NoReturn:
    """Do the steps; the last one executes the command. On a failure tell the launcher, and leave whatever happens.

    A launcher that was killed cannot be told; its child must not go on in its place then.
    """
    try:
        _do(guest, steps)
    finally:
        os._exit(125)


def _do(guest: Guest, steps: tuple[Any, ...]) -> None:
    name = ""
    try:
        _reset_signals()
        for step in steps:
            name = step.__name__
            step(guest)
    except StageError as error:
        send_status(guest, {"error": {"kind": error.kind, "message": str(error), "hint": error.hint}})
    except BaseException as error:
        told = f"{name.replace('_', ' ')}: {error}"
        send_status(guest, {"error": {"kind": "LaunchError", "message": told, "hint": ""}})


def send_status(guest: Guest, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    assert guest.status is not None
    guest.status.send(message, fds)
