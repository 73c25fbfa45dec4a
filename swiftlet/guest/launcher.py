"""The launcher: a small single-threaded fork server, the parent of every container's first process.

It takes bundles over a Unix socket (docs/design.md, "Launcher"), clones each guest straight into its control
group, and tells how it ended. It decides nothing, keeps no desired state, and outlives the daemon: an exit is
written to the guest's folder before anybody is told, so that it survives them both. Imports the standard
library and `swiftlet.linux` only; it runs from a sealed copy of the interpreter and is not dumpable, so a
guest that finds it in /proc can neither read nor change it (CVE-2019-5736).
"""

from __future__ import annotations

import gc
import os
import select
import sys
import time

from swiftlet.guest import insertion, machinestage, relay, stage
from swiftlet.guest.begin import begin, is_ours, listen
from swiftlet.guest.channels import Channels, exit_code
from swiftlet.guest.logworker import FEW_NETWORKS, LogWorker
from swiftlet.guest.process import Output, Process, end_unknown_children, exit_of, keep_exit, output_of, remove_groups
from swiftlet.guest.spawn import RequestError, Spawner, described
from swiftlet.linux import cgroup, mount, namespace
from swiftlet.linux.channel import Channel
from swiftlet.linux.lean import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NAMESPACES = namespace.NEWNS | namespace.NEWUTS | namespace.NEWIPC | namespace.NEWPID

MOST_UNTOLD = 1000
"""Ends of commands that are kept until the next daemon asks; a command that was attached sees its own in any case."""


class Launcher:
    """All guests of one instance, the daemon's connection, and the log worker."""

    def __init__(self, listener: socket.socket, mount_point: str) -> None:
        self.listener = listener
        self.epoll = select.epoll()
        self.callbacks: dict[int, Callable[[], None]] = {}
        self.client: Channel | None = None
        self.guests: dict[str, Process] = {}
        self.outputs: dict[str, Output] = {}
        self.untold: dict[str, dict[str, Any]] = {}
        self.children: set[int] = set()
        self.crossing: set[Process] = set()
        self.orphaned = False
        self.spawner = Spawner(mount_point)
        self.leaving = False
        self.watch(listener.fileno(), self._accept)
        self.logs = LogWorker(self.watch, self.spawner.null)

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
        connection = socket.socket(fileno=self.listener._accept()[0])  # type: ignore[attr-defined]
        if not is_ours(connection):
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

    def tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> bool:
        """Send to the daemon if it is there, and say whether it was; what matters is on disk as well."""
        if self.client is None:
            return False
        try:
            self.client.send(message, fds)
        except OSError:
            self._drop_client()
            return False
        return True

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
            reply["error"] = {"kind": "LaunchError", "message": described(error), "hint": ""}
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
        machine = bundle.get("machine")
        if machine:
            bundle = {**bundle, **machine["process"]}
        guest = self.spawner.guest(bundle, parameters["roles"], fds)
        process = Process(key, "", call, bundle["state_dir"], bundle["cgroup"]["paths"], bundle["tty"])
        output = None
        try:
            if machine:
                machinestage.connect(process, guest, parameters, fds)
            if bundle["userns"]:
                guest.userns = namespace.user_namespace(bundle["userns"])
            guest.view = self.spawner.view(bundle)
            output = output_of(process, guest)
            if output is not None and parameters["attach"]:
                output.attach()
            cgroup.create(process.groups)
            process.owns_groups = True
            cgroup.apply(tuple((path, value) for path, value in bundle["cgroup"]["writes"]))
            steps = machinestage.MACHINE if machine else stage.START
            self.spawner.clone(process, guest, _NAMESPACES | self._network_flag(guest), steps)
        except BaseException:
            if output is not None:
                output.close()
            if process.channels is not None:
                process.channels.close()
            remove_groups(process)
            raise
        finally:
            self._close_given(guest, output)
        if process.channels is not None:
            process.channels.close_given()
            self.logs.watch_console(key, process.channels.console)
            self.watch(process.channels.fileno(), lambda: self._reported(process))
        self.guests[key] = process
        if output is not None:
            self.outputs[key] = output
            if not process.tty:
                self._keep_logs(process, output)
        self._await(process)

    def _reported(self, process: Process) -> None:
        """A machine's guest has told something: from when its workload runs, the guest does."""
        channels = process.channels
        assert channels is not None
        before = channels.started
        if not channels.take_reports():
            self.watch(channels.fileno(), None)
        if process.status is None and process.error is None:
            if channels.started and not before:
                self._tell_running(process)
            self._tell_resting(process, channels)

    def do_go(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> None:
        """Let a machine go on that was started ahead and waits; answered when its workload runs."""
        process = self._guest_of(parameters)
        if process.channels is None or not process.channels.waits or process.call is not None:
            raise RequestError(f"guest {process.key} does not wait", "ConflictError")
        try:
            process.channels.begin(parameters["orders"], parameters["script"])
        except ValueError as error:
            raise RequestError(str(error), "InputError", "pass large inputs in a volume") from None
        process.call, process.started_ns = call, time.time_ns()

    def do_exec(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> None:
        """Run one more process in a running guest."""
        key = parameters["id"]
        target = self.guests.get(key)
        if target is None or not target.running:
            raise RequestError(f"guest {key} is not running", "ConflictError")
        bundle = {**parameters, "state_dir": target.state_dir}
        process = Process(key, parameters["exec"], call, "", target.groups, parameters["tty"])
        if target.channels is not None:
            bundle |= {**bundle["machine"]["process"], "tty": parameters["tty"]}
        guest = self.spawner.guest(bundle, parameters["roles"], fds)
        guest.target = target.pidfd
        output = process.output = output_of(process, guest)
        if bundle["userns"]:
            guest.userns = os.open(f"/proc/{target.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if target.channels is not None:
                place = parameters["roles"].index("port")
                guest.port = socket.socket(fileno=os.dup(fds[place]))
                target.channels.order("o", str(int(parameters["port"])))
                guest.has_input = "stdin" in parameters["roles"] or process.tty
                self.spawner.clone(process, guest, 0, relay.RELAY)
            else:
                self.spawner.clone(process, guest, 0, stage.EXEC)
                self.crossing.add(process)
            self._await(process)
        except BaseException:
            if output is not None:
                output.close()
            raise
        finally:
            self._close_given(guest, output)
            if guest.port is not None:
                guest.port.close()
        target.execs[process.exec] = process

    def do_insert(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> None:
        """Attach a component's tree in a running guest and link its files (`guest.insertion`)."""
        key = parameters["id"]
        target = self._guest_of(parameters)
        guest = stage.Guest(parameters)
        guest.volumes = fds
        guest.target = target.pidfd
        process = Process(key, parameters["exec"], call, "", target.groups, False)
        self.spawner.clone(process, guest, 0, insertion.INSERT)
        self._await(process)
        target.execs[process.exec] = process

    def do_attach(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """New ends of a guest's outputs; an earlier attached command loses its own."""
        output = self.outputs.get(parameters["id"])
        if output is None or not output.can_be_attached:
            raise RequestError(f"guest {parameters['id']} has no output to attach to", "ConflictError")
        output.attach()
        self.logs.attach(parameters["id"], output)
        return {}, output.take_ends()

    def do_list(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """All guests that run, the commands in them, and how those ended of whose end nobody could be told."""
        listed = {
            key: {
                "pid": each.pid,
                "started_ns": each.started_ns,
                "waits": each.channels is not None and each.channels.waits,
            }
            for key, each in self.guests.items()
        }
        execs = [number for each in self.guests.values() for number in each.execs]
        untold, self.untold = self.untold, {}
        return {"guests": listed, "execs": execs, "exits": untold, "pid": os.getpid()}, ()

    def do_pidfd(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """The pidfd of a guest."""
        return {}, (os.dup(self._guest_of(parameters).pidfd),)

    def do_signal(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """Send a signal to a guest's first process."""
        process = self._guest_of(parameters)
        if process.channels is not None:
            process.channels.order("k", str(int(parameters["signal"])))
        else:
            signal.pidfd_send_signal(process.pidfd, int(parameters["signal"]))
        return {}, ()

    def do_keep(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """Let a machine that is about to be saved hold its workload, and these files open that clones are told anew.

        Without files, let both go, and tell it the time: its clock stood still.
        """
        process = self._guest_of(parameters)
        if process.channels is not None:
            process.channels.held = False
            process.channels.order("i", *parameters["files"])
            if not parameters["files"]:
                now = time.time_ns()
                process.channels.order("t", str(now // 10**9), str(now % 10**9))
            process.channels.order("F", "1" if parameters["files"] else "0")
        return {}, ()

    def do_held(self, parameters: dict[str, Any], fds: tuple[int, ...], call: Any) -> tuple[dict[str, Any], Any]:
        """Whether a machine's first process has told that it holds its workload, since it was asked last."""
        process = self._guest_of(parameters)
        return {"held": process.channels is not None and process.channels.held}, ()

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

    def _network_flag(self, guest: stage.Guest) -> int:
        """Give the guest an empty network namespace if it wants one: a ready one, else one that clone makes."""
        if guest.bundle["netns"] != "new":
            return 0
        guest.netns = guest.owned_netns = self.logs.take_network()
        return namespace.NEWNET if guest.netns < 0 else 0

    def _keep_logs(self, process: Process, output: Output) -> None:
        """Give a guest's outputs to the log worker. Files are made while the child sets itself up beside it."""
        try:
            logs = output.open_logs(process.state_dir)
        except OSError as error:
            process.error = {"kind": "LaunchError", "message": str(error), "hint": ""}
        else:
            self.logs.add(process.key, process.state_dir, output, logs)

    def _await(self, process: Process) -> None:
        """Let a new process execute its command once it is set up, or give up where something of ours failed."""
        status = process.status
        assert status is not None
        self.children.add(process.pid)
        self.watch(status.fileno(), lambda: self._status(process))
        try:
            if process.error is None:
                status.sock.send(b"\0", socket.MSG_NOSIGNAL)
            else:
                status.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the child has ended, or it ends now: `_status` sees that

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
                process.error = message.get("error") or process.error
                for fd in fds:
                    self._take_console(process, fd)
        except OSError:
            alive = False
        if alive:
            return
        self.watch(status.fileno(), None)
        status.close()
        process.status = None
        ready, successor = self.spawner.take_slot(process)
        if process in self.crossing:
            self._cross(process, successor)
            ready = ready and successor > 0
        self.watch(process.pidfd, lambda: self._ended(process))
        if ready and process.error is None and (process.channels is None or process.channels.started):
            self._tell_running(process)
        elif ready and process.error is None and process.channels is not None:
            self._tell_resting(process, process.channels)
        self.logs.order_networks(low=FEW_NETWORKS)

    def _cross(self, process: Process, successor: int) -> None:
        """Of an exec: the process that set it up has ended, another one executes the command.

        successor: 0 when it was killed before it could tell whom it had made, if anybody.
        """
        self.crossing.discard(process)
        if successor:
            self._collect(process)
            os.close(process.pidfd)
            process.pid, process.pidfd = successor, os.pidfd_open(successor)
            self.children.add(successor)
        self.orphaned |= not successor
        if self.orphaned and not self.crossing:  # of those that are about to tell, nobody is known yet
            end_unknown_children({self.logs.pid, *self.children})
            self.orphaned = False

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

    def _tell_resting(self, process: Process, channels: Channels) -> None:
        """It was started ahead, and has come to where it waits."""
        if channels.waits and channels.resting and process.call is not None:
            self.tell({"call": process.call, "parameters": {"pid": process.pid}}, (process.pidfd,))
            process.call = None

    def _told(self, key: str, output: Output) -> None:
        """Nobody waits for what is left of these outputs but the log worker, if that."""
        output.told = True
        if self.logs.is_drained(key):
            output.close()

    def _take_console(self, process: Process, fd: int) -> None:
        """The master of the terminal that the child made."""
        output = process.output or self.outputs.get(process.key)
        if output is None or not process.tty or output.sources:
            os.close(fd)  # nothing that was asked for: of an exec, its guest may have a hand in it
            return
        output.sources.append(fd)
        if not process.exec:
            self.logs.add(process.key, process.state_dir, output, self.logs.logs_of(process.state_dir, output))

    # Ending

    def _ended(self, process: Process) -> None:
        """A process has ended: collect it, then let the log worker catch up before anybody is told."""
        self.watch(process.pidfd, None)
        process.wait_status = self._collect(process)
        if process.exec:
            self._finish_exec(process)
        elif process.running and self.logs.is_behind(process.key):
            self.logs.flush(process.key, lambda: self._finish(process))
        else:
            self._finish(process)

    def _collect(self, process: Process) -> int:
        """Wait for a child that has ended, or is just ending; its status."""
        self.children.discard(process.pid)
        return os.waitpid(process.pid, 0)[1]

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
        leaving = exit_of(process, {})
        told = self.tell({"event": "exited", "id": process.key, "exec": process.exec, "exit": leaving})
        if not told and len(self.untold) < MOST_UNTOLD:
            self.untold[process.exec] = leaving

    def _finish(self, process: Process) -> None:
        leaving = exit_of(process, cgroup.usage(process.groups, final=True))
        if process.channels is not None:
            leaving = self._end_machine(process, process.channels, leaving)
        if process.running:
            keep_exit(process, leaving)
        remove_groups(process)  # before it is told: whose end is known, nobody looks after when we are killed
        if process.running or process.call is None:  # or it has waited, and nobody waits for an answer
            self.tell({"event": "exited", "id": process.key, "exec": "", "exit": leaving})
        else:
            self._tell_failed(process, oom=leaving["oom"])
        os.close(process.pidfd)
        del self.guests[process.key]
        output = self.outputs.pop(process.key, None)
        if output is not None:
            if output.followed:
                self.logs.end(process.key)
            self._told(process.key, output)
        self.logs.order_networks()

    def _end_machine(self, process: Process, channels: Channels, leaving: dict[str, Any]) -> dict[str, Any]:
        """Hear the last of a machine's guest, and how it ended by its own word."""
        if channels.fileno() in self.callbacks:
            self.watch(channels.fileno(), None)
        channels.take_reports()
        if channels.started and not process.running and process.error is None:
            self._tell_running(process)  # it was quick: both words came at once
        if not process.running and process.error is None and not leaving["oom"]:
            process.error = {"kind": "LaunchError", "message": channels.why_not_started(), "hint": ""}
        leaving = exit_code(leaving, channels)
        self.logs.forget_console(process.key)
        channels.close()
        return leaving

    def _tell_failed(self, process: Process, *, oom: bool = False) -> None:
        error = process.error or {
            "kind": "LaunchError",
            "message": f"guest {process.key} was killed while it was being set up",
            "hint": "its limit of memory is too low for that: raise --memory" if oom else "",
        }
        self.tell({"call": process.call, "error": error})


def main() -> None:
    """Serve one instance: arguments are the socket to listen on and the folder of the instance's run files.

    Returns at once where the instance has a launcher.
    """
    path, run = sys.argv[-2:]
    if not begin(run):
        return
    mount_point = f"{run}/root"
    os.makedirs(mount_point, exist_ok=True)
    launcher = Launcher(listen(path), mount_point)
    mount.private_namespace([os.environ.get("SWIFTLET_ROOT", run), run, "/proc", "/sys/fs/cgroup", sys.prefix])
    gc.collect()
    gc.freeze()
    gc.disable()
    launcher.serve()
