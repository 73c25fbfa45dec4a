"""The launcher: a small single-threaded fork server, the parent of every container's first process.

It takes bundles over a Unix socket (docs/design.md, "Launcher"), clones each guest straight into its control
group, and tells how it ended. It decides nothing, keeps no desired state, and outlives the daemon: an exit is
written to the guest's folder before anybody is told, so that it survives them both. Imports the standard
library and `swiftlet.linux` only; it runs from a sealed copy of the interpreter and is not dumpable, so a
guest that finds it in /proc can neither read nor change it (CVE-2019-5736).
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from swiftlet.guest import insertion, stage
from swiftlet.guest.begin import listen, seal_interpreter, take_lock
from swiftlet.guest.logworker import LogWorker
from swiftlet.guest.process import Output, Process, close_all, complain, exit_of, write_exit
from swiftlet.linux import cgroup, cgroup_device, mount, namespace, seccomp, syscall
from swiftlet.linux.channel import Channel

_SLOTS = mmap.PAGESIZE
"""Processes that may be between clone and exec at one time."""

_NAMESPACES = namespace.NEWNS | namespace.NEWUTS | namespace.NEWIPC | namespace.NEWPID


class RequestError(Exception):
    """A request cannot be met; `kind` is a class name of `swiftlet.model.error`."""

    def __init__(self, message: str, kind: str = "LaunchError", hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.hint = hint


class Launcher:
    """All guests of one instance, the daemon's connection, and the log worker."""

    def __init__(self, listener: socket.socket, mount_point: str) -> None:
        self.listener = listener
        self.mount_point = mount_point
        self.epoll = select.epoll()
        self.callbacks: dict[int, Callable[[], None]] = {}
        self.client: Channel | None = None
        self.guests: dict[str, Process] = {}
        self.outputs: dict[str, Output] = {}
        self.filters: dict[str, seccomp.Filter] = {}
        self.hidden = stage.masked_on_host()
        self.read_only = stage.read_only_on_host()
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.device_filter = -1
        self.progress = mmap.mmap(-1, _SLOTS)
        self.slots = list(range(_SLOTS))
        self.layout = cgroup.detect()
        self.leaving = False
        self.watch(listener.fileno(), self._accept)
        self.logs = LogWorker(self.watch, self.null)

    # The loop

    def watch(self, fd: int, callback: Callable[[], None] | None) -> None:
        """Call `callback` whenever `fd` can be read; None ends that."""
        if callback is None:
            self.epoll.unregister(fd)
            del self.callbacks[fd]
        else:
            self.epoll.register(fd, select.EPOLLIN)
            self.callbacks[fd] = callback

    def serve(self) -> None:
        """Work until told to stop and no guest is left."""
        while not (self.leaving and not self.guests):
            for fd, _ in self.epoll.poll():
                callback = self.callbacks.get(fd)
                if callback is not None:
                    callback()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        if not _is_ours(connection):
            connection.close()
            return
        if self.client is not None:
            self._drop_client()
        connection.setblocking(True)
        self.client = Channel(connection)
        self.watch(connection.fileno(), self._read_client)

    def _drop_client(self) -> None:
        if self.client is not None:
            self.watch(self.client.fileno(), None)
            self.client.close()
            self.client = None

    def _read_client(self) -> None:
        client = self.client
        assert client is not None
        try:
            alive = client.fill()
            while client is self.client and (taken := client.take()) is not None:
                self._request(*taken)
        except OSError:
            alive = False
        if not alive and client is self.client:
            self._drop_client()

    def tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send to the daemon if it is there; what matters is on disk as well."""
        if self.client is None:
            return
        try:
            self.client.send(message, fds)
        except OSError:
            self._drop_client()

    # Requests

    def _request(self, message: dict[str, Any], fds: tuple[int, ...]) -> None:
        parameters = message.get("parameters", {})
        reply: dict[str, Any] = {"call": message.get("call")}
        descriptors: tuple[int, ...] = ()
        try:
            method = getattr(self, f"do_{message.get('method')}", None)
            if method is None:
                raise RequestError(f"unknown request {message.get('method')!r}", "WireError")
            answer = method(parameters, fds, message.get("call"))
        except RequestError as error:
            reply["error"] = {"kind": error.kind, "message": str(error), "hint": error.hint}
        except (OSError, KeyError, TypeError, ValueError) as error:
            reply["error"] = {"kind": "LaunchError", "message": _described(error), "hint": ""}
        else:
            if answer is None:
                return  # the reply comes when the program runs
            reply["parameters"], descriptors = answer
        finally:
            for fd in fds:
                os.close(fd)
        self.tell(reply, descriptors)
        for fd in descriptors:
            os.close(fd)

    def do_start(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> None:
        """Start the guest of a bundle."""
        bundle = parameters["bundle"]
        key = bundle["id"]
        if key in self.guests:
            raise RequestError(f"guest {key} runs already", "ConflictError")
        guest = self._guest(bundle, parameters["roles"], fds)
        process = Process(key, "", call, bundle["state_dir"], bundle["cgroup"]["paths"], bundle["tty"])
        output = None
        logs: list[int] = []
        try:
            if bundle["userns"]:
                guest.userns = namespace.user_namespace(bundle["userns"])
            output = self._output(process, guest)
            if output is not None and parameters["attach"]:
                output.attach()
            if output is not None and not process.tty:
                logs = output.open_logs(process.state_dir)
            cgroup.create(process.groups)
            process.owns_groups = True
            cgroup.apply(tuple((path, value) for path, value in bundle["cgroup"]["writes"]))
            self._clone(process, guest, _NAMESPACES | self._network_flag(guest), stage.START)
        except BaseException:
            if output is not None:
                output.close()
            close_all(logs)
            self._remove_groups(process)
            raise
        finally:
            self._close_given(guest, output)
        self.guests[key] = process
        if output is not None:
            self.outputs[key] = output
            if not process.tty:
                self.logs.add(key, process.state_dir, output, logs)

    def do_exec(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> None:
        """Run one more process in a running guest."""
        key = parameters["id"]
        target = self.guests.get(key)
        if target is None or not target.running:
            raise RequestError(f"guest {key} is not running", "ConflictError")
        bundle = {**parameters, "state_dir": target.state_dir}
        guest = self._guest(bundle, parameters["roles"], fds)
        guest.target = target.pidfd
        process = Process(key, parameters["exec"], call, "", target.groups, parameters["tty"])
        output = process.output = self._output(process, guest)
        if parameters["userns"]:
            guest.userns = os.open(f"/proc/{target.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscall.setns(target.pidfd, namespace.NEWPID)
            try:
                self._clone(process, guest, 0, stage.EXEC)
            finally:
                syscall.setns(self.own_pid_namespace, namespace.NEWPID)
        except BaseException:
            if output is not None:
                output.close()
            raise
        finally:
            self._close_given(guest, output)
        target.execs[process.exec] = process

    def do_insert(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> None:
        """Attach a component's tree in a running guest and link its files (`guest.insertion`)."""
        key = parameters["id"]
        target = self._guest_of(parameters)
        guest = stage.Guest(parameters)
        guest.volumes = fds
        guest.target = target.pidfd
        process = Process(key, parameters["exec"], call, "", target.groups, False)
        self._clone(process, guest, 0, insertion.INSERT)
        target.execs[process.exec] = process

    def do_attach(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """New ends of a guest's outputs; an earlier attached command loses its own."""
        output = self.outputs.get(parameters["id"])
        if output is None or not output.sources:
            raise RequestError(f"guest {parameters['id']} has no output to attach to", "ConflictError")
        output.attach()
        self.logs.attach(parameters["id"], output)
        return {}, output.take_ends()

    def do_list(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """All guests that run."""
        listed = {key: {"pid": each.pid, "started_ns": each.started_ns} for key, each in self.guests.items()}
        return {"guests": listed, "pid": os.getpid()}, ()

    def do_pidfd(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """The pidfd of a guest."""
        return {}, (os.dup(self._guest_of(parameters).pidfd),)

    def do_signal(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """Send a signal to a guest's first process."""
        signal.pidfd_send_signal(self._guest_of(parameters).pidfd, int(parameters["signal"]))
        return {}, ()

    def do_kill(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """Kill every process of a guest."""
        process = self._guest_of(parameters)
        signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        cgroup.kill_all(process.groups)
        return {}, ()

    def do_stop(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """Leave when no guest is left."""
        self.leaving = True
        return {"guests": len(self.guests)}, ()

    def _guest_of(self, parameters: dict[str, Any]) -> Process:
        process = self.guests.get(parameters["id"])
        if process is None:
            raise RequestError(f"guest {parameters['id']} is not running", "ConflictError")
        return process

    # Starting

    def _guest(self, bundle: dict[str, Any], roles: list[str], fds: tuple[int, ...]) -> stage.Guest:
        guest = stage.Guest(bundle)
        guest.stdio = [self.null, self.null, self.null]
        guest.hidden = self.hidden
        guest.read_only = self.read_only
        guest.mount_point = self.mount_point
        guest.volumes = tuple(fd for role, fd in zip(roles, fds, strict=True) if role == "volume")
        for role, fd in zip(roles, fds, strict=True):
            if role == "netns":
                guest.netns = fd
            elif role in ("stdin", "stdout", "stderr"):
                guest.stdio[("stdin", "stdout", "stderr").index(role)] = fd
        guest.given_output = "stdout" in roles
        if bundle["seccomp"]:
            guest.filter = self._filter(bundle["seccomp"])
        return guest

    def _network_flag(self, guest: stage.Guest) -> int:
        """Give the guest an empty network namespace if it wants one: a ready one, else one that clone makes."""
        if guest.bundle["netns"] != "new":
            return 0
        guest.netns = guest.owned_netns = self.logs.take_network()
        return namespace.NEWNET if guest.netns < 0 else 0

    def _filter(self, path: str) -> seccomp.Filter:
        """A compiled system call filter, read once: its name is its digest."""
        if path not in self.filters:
            with open(path, "rb") as file:
                self.filters[path] = seccomp.Filter(file.read())
        return self.filters[path]

    def _output(self, process: Process, guest: stage.Guest) -> Output | None:
        """Pipes for what the process writes, unless it was given descriptors or makes a terminal."""
        if guest.given_output:
            return None
        output = Output(process.tty)
        if not process.tty:
            guest.stdio[1], guest.stdio[2] = output.make_pipes()
        return output

    def _clone(self, process: Process, guest: stage.Guest, flags: int, steps: tuple[Any, ...]) -> None:
        """Make the process; it goes on in `stage.run`. Its status channel ends when it executes the command."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        group = -1
        try:
            guest.cgroup_tasks = tuple(cgroup.open_entrances(process.groups))
            if "" in process.groups:
                group = os.open(process.groups[""], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if process.owns_groups:
                    self._filter_devices(group)
            self._give_slot(process, guest)
            process.pid, process.pidfd = syscall.clone3(flags, cgroup=group)
            if process.pid == 0:
                ours.close()  # its own copy: else it would not notice that it has no launcher any more
                guest.status = Channel(theirs)
                stage.run(guest, steps)
        except BaseException:
            ours.close()
            if guest.progress is not None:
                self._take_slot(process)
            raise
        finally:
            theirs.close()
            for fd in (*guest.cgroup_tasks, group):
                if fd >= 0:
                    os.close(fd)
        process.started_ns = time.time_ns()
        process.status = Channel(ours)
        self.watch(ours.fileno(), lambda: self._status(process))

    def _give_slot(self, process: Process, guest: stage.Guest) -> None:
        """A byte of the shared page in which the child says how far it came."""
        if not self.slots:
            raise RequestError(f"{_SLOTS} guests are being started at this moment", "ConflictError", "try again")
        process.slot = guest.slot = self.slots.pop()
        guest.progress = self.progress

    def _take_slot(self, process: Process) -> bool:
        """Whether the child came as far as executing its command; its byte is free again."""
        ready = self.progress[process.slot] != 0
        self.progress[process.slot] = 0
        self.slots.append(process.slot)
        return ready

    def _filter_devices(self, group: int) -> None:
        if self.device_filter < 0:
            self.device_filter = cgroup_device.load_device_filter()
        cgroup_device.attach_device_filter(group, self.device_filter)

    def _close_given(self, guest: stage.Guest, output: Output | None) -> None:
        """Close the child's ends in this process (descriptors of the request are closed by `_request`)."""
        for fd in (guest.userns, guest.owned_netns):
            if fd >= 0:
                os.close(fd)
        if output is not None:
            output.close_children()

    def _status(self, process: Process) -> None:
        """The child told something, or (at the end of the stream) executes its command."""
        status = process.status
        assert status is not None
        try:
            alive = status.fill()
            while (taken := status.take()) is not None:
                message, fds = taken
                process.error = message.get("error")
                for fd in fds:
                    self._take_console(process, fd)
        except OSError:
            alive = False
        if alive:
            return
        self.watch(status.fileno(), None)
        status.close()
        process.status = None
        self.watch(process.pidfd, lambda: self._ended(process))
        if self._take_slot(process) and process.error is None:
            self._tell_running(process)

    def _tell_running(self, process: Process) -> None:
        process.running = True
        output = process.output or self.outputs.get(process.key)
        ends: tuple[int, ...] = ()
        if output is not None:
            ends = output.give_sources() if process.exec else output.take_ends()
        self.tell({"call": process.call, "parameters": {"pid": process.pid}}, (process.pidfd, *ends))
        for fd in ends:
            os.close(fd)
        if output is not None and not process.exec:
            self._told(process.key, output)

    def _told(self, key: str, output: Output) -> None:
        """Nobody waits for what is left of these outputs but the log worker, if that."""
        output.told = True
        if self.logs.is_drained(key):
            output.close()

    def _take_console(self, process: Process, fd: int) -> None:
        """The master of the terminal that the child made."""
        output = process.output or self.outputs.get(process.key)
        if output is None:
            os.close(fd)
            return
        output.sources.append(fd)
        if not process.exec:
            self.logs.add(process.key, process.state_dir, output, self.logs.logs_of(process.state_dir, output))

    # Ending

    def _ended(self, process: Process) -> None:
        """A process has ended: collect it, then let the log worker catch up before anybody is told."""
        self.watch(process.pidfd, None)
        _, status = os.waitpid(process.pid, 0)
        process.wait_status = status
        if process.exec:
            self._finish_exec(process)
        elif process.running and self.logs.is_behind(process.key):
            self.logs.flush(process.key, lambda: self._finish(process))
        else:
            self._finish(process)

    def _finish_exec(self, process: Process) -> None:
        target = self.guests.get(process.key)
        if target is not None:
            target.execs.pop(process.exec, None)
        if process.output is not None:
            process.output.close()
        os.close(process.pidfd)
        if not process.running:
            self._tell_failed(process)
            return
        self.tell({"event": "exited", "id": process.key, "exec": process.exec, "exit": exit_of(process, {})})

    def _finish(self, process: Process) -> None:
        leaving = exit_of(process, cgroup.usage(process.groups))
        if process.running:
            self._keep_exit(process, leaving)
            self.tell({"event": "exited", "id": process.key, "exec": "", "exit": leaving})
        else:
            self._tell_failed(process, oom=leaving["oom"])
        self._remove_groups(process)  # before any other request, so the guest can be started again
        os.close(process.pidfd)
        del self.guests[process.key]
        output = self.outputs.pop(process.key, None)
        if output is not None:
            self._told(process.key, output)

    def _keep_exit(self, process: Process, leaving: dict[str, Any]) -> None:
        """Write exit.json. A full disk, or a folder that has gone, is no reason to end with every other guest."""
        try:
            write_exit(process.state_dir, leaving)
        except OSError as error:
            complain(f"{process.key}: exit.json: {error}")

    def _tell_failed(self, process: Process, *, oom: bool = False) -> None:
        error = process.error or {
            "kind": "LaunchError",
            "message": f"guest {process.key} was killed while it was being set up",
            "hint": "its limit of memory is too low for that: raise --memory" if oom else "",
        }
        self.tell({"call": process.call, "error": error})

    def _remove_groups(self, process: Process) -> None:
        if not process.owns_groups:
            return
        process.owns_groups = False
        try:
            cgroup.remove(process.groups)
        except OSError as error:
            complain(str(error))


def _is_ours(connection: socket.socket) -> bool:
    """Whether the peer is our own user and in our pid namespace: root in a guest may find the socket in a volume."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    peer, user = (int.from_bytes(credentials[start : start + 4], sys.byteorder) for start in (0, 4))
    try:
        return user == os.geteuid() and os.readlink(f"/proc/{peer}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False  # it has gone, or is of a namespace that cannot be seen from here


def _described(error: Exception) -> str:
    """An error in words, with the key that a request lacked."""
    return f"request lacks {error}" if isinstance(error, KeyError) else str(error)


def main() -> None:
    """Serve one instance: arguments are the socket to listen on and the folder of the instance's run files.

    Returns at once where the instance has a launcher.
    """
    seal_interpreter()
    path, run = sys.argv[-2:]
    syscall.prctl(syscall.PR_SET_NAME, b"swiftlet-launch")
    syscall.prctl(syscall.PR_SET_DUMPABLE, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    if not take_lock(f"{run}/launcher.lock"):
        return
    mount_point = f"{run}/root"
    os.makedirs(mount_point, exist_ok=True)
    launcher = Launcher(listen(path), mount_point)
    mount.private_namespace([os.environ.get("SWIFTLET_ROOT", run), run, "/proc", "/sys/fs/cgroup", sys.prefix])
    gc.collect()
    gc.freeze()
    gc.disable()
    launcher.serve()
