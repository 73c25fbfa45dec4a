"""`python -m swiftlet.node.pull FD`: the worker for one piece of work on templates, on the store or on kernels.

Its imports are heavy and its work takes long, so it is a process of its own and not the daemon: it may be killed at
any moment, and what it has fetched and stored by then is found by the next one. It reads one request from the
socket FD, `{"operation", "parameters"}`, answers `{"progress": P}` as it goes on, and last `{"result": ...}` or
`{"error": {"kind", "message", "hint"}}`. It imports for an operation what that needs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from swiftlet.linux import syscall
from swiftlet.linux.channel import Channel
from swiftlet.model.error import InputError, SwiftletError
from swiftlet.model.instance import Instance, instance_of
from swiftlet.node.names import storage_error
from swiftlet.store.layout import Layout

if TYPE_CHECKING:
    from swiftlet.model.bundle import Rootfs
    from swiftlet.model.closure import Closure, Entry
    from swiftlet.resolve.catalogue import Catalogue, Located
    from swiftlet.resolve.resolver import Resolver
    from swiftlet.store.objects import Stored
    from swiftlet.store.session import Session
    from swiftlet.store.verify import Damage, Verified

PROGRESS_SECONDS = 0.05
"""Progress is told this often at most, but for the beginning and the end of a stage."""


class Work:
    """One request being worked on."""

    def __init__(self, channel: Channel, instance: Instance, parameters: dict[str, Any]) -> None:
        self.channel = channel
        self.instance = instance
        self.layout = Layout(instance)
        self.parameters = parameters
        self._told = 0.0
        self._stage = ""

    def progress(self, stage: str, text: str, done: int, total: int) -> None:
        """Tell the daemon, unless it has just been told."""
        now = time.monotonic()
        if stage == self._stage and now - self._told < PROGRESS_SECONDS and not (total and done >= total):
            return
        self._stage, self._told = stage, now
        self.channel.send({"progress": {"stage": stage, "text": text, "done": done, "total": total}})

    def count(self, done: int, total: int) -> None:
        """Progress of a verification, in bytes."""
        self.progress("verify", "checking files", done, total)

    def resolver(self, session: Session) -> tuple[Resolver, _Counting]:
        """A resolver over the store, and what counts the bytes that were new to it."""
        from swiftlet.resolve.resolver import Resolver

        objects = _Counting(session.objects)
        sandbox = _Sandbox(session)
        return Resolver(objects, session.records, self.layout.cache, self.progress, sandbox), objects


class _Counting:
    """The store's objects, remembering which files were not there before."""

    def __init__(self, objects: Any) -> None:
        self._objects = objects
        self.written: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def put(self, *arguments: Any, **named: Any) -> Stored:
        """As the store's."""
        return self._noted(self._objects.put(*arguments, **named))

    def put_bytes(self, *arguments: Any, **named: Any) -> Stored:
        """As the store's."""
        return self._noted(self._objects.put_bytes(*arguments, **named))

    def _noted(self, stored: Stored) -> Stored:
        if not stored.reused:
            self.written[stored.digest] = stored.size
        return stored

    def reused(self, closure: Closure) -> int:
        """Bytes of a closure's files that had not to be written."""
        contents = {entry.digest: entry.size for entry in closure.entries if entry.digest}
        return sum(size for digest, size in contents.items() if digest not in self.written)


class _Sandbox:
    """Runs the commands of templates that generate files: over their own files and nothing else."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, entries: Sequence[Entry], run: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """See `resolve.protocol.Sandbox`."""
        from swiftlet.guest.sandbox import SandboxError, run_sandboxed
        from swiftlet.image.tree import materialise
        from swiftlet.model.closure import closure_of
        from swiftlet.model.error import ResolveError
        from swiftlet.resolve.durable import full_disk

        rootfs = materialise(self._session, [closure_of("sandbox", list(entries))])
        try:
            return run_sandboxed(rootfs.lowers, run, ("",), self._session.directory)
        except SandboxError as error:
            if full := full_disk(str(error), self._session.directory):
                raise full from None
            raise ResolveError(f"files cannot be generated: {error}") from None


# Operations


def _stack(work: Work) -> dict[str, Any]:
    """A root for a stack of references, and what it depends on."""
    import msgspec

    from swiftlet.image.tree import materialise
    from swiftlet.store.session import Session

    references = work.parameters["references"]
    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        closures = resolver.stack(references)
        work.progress("link", ", ".join(references), 0, 0)
        rootfs: Rootfs = materialise(session, closures)
        stamps = _stamps(work.layout, resolver, references)
        return {"rootfs": msgspec.to_builtins(rootfs), "stamps": stamps}


def _stamps(layout: Layout, resolver: Resolver, references: Sequence[str]) -> list[list[Any]]:
    """Every file whose change makes this stack another one: [path, inode, size, mtime in nanoseconds]."""
    paths: dict[str, None] = {}
    catalogue = resolver.catalogue
    for folder in (catalogue.recipes, catalogue.user_folder):
        paths[folder] = None
        names = os.listdir(folder) if os.path.isdir(folder) else []
        paths |= dict.fromkeys(f"{folder}/{name}" for name in sorted(names) if name.endswith(".yaml"))
    found: list[list[Any]] = []
    for located in catalogue.stack(references):
        paths |= dict.fromkeys(_files_of(located, resolver))
        record = resolver.records.lock(located.reference) or {}
        found += [[each["path"], each["inode"], each["size"], each["mtime_ns"]] for each in record.get("stamps", ())]
    return [[path, *stamp_of(path)] for path in paths] + found


def _files_of(located: Located, resolver: Resolver) -> list[str]:
    records: Any = resolver.records
    own = [located.origin] if located.origin.startswith("/") else []
    return [records.lock_path(located.reference), *own]


def stamp_of(path: str) -> tuple[int, int, int]:
    """(inode, size, mtime in nanoseconds) of a path, zeros when it is not there."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _resolve(work: Work) -> dict[str, Any]:
    from swiftlet.store.session import Session

    references = work.parameters["templates"]
    with Session(work.layout) as session:
        resolver, objects = work.resolver(session)
        lock, upgrade = work.parameters.get("lock"), bool(work.parameters.get("upgrade"))
        closures = {closure.template: closure for closure in resolver.stack(references, upgrade=upgrade, lock=lock)}
        return {"closures": [_resolved(resolver, objects, closures, reference) for reference in references]}


def _resolved(resolver: Resolver, objects: _Counting, closures: dict[str, Closure], reference: str) -> dict[str, Any]:
    closure = closures[resolver.catalogue.find(reference).reference]
    return {
        "template": closure.template,
        "digest": closure.digest,
        "files": _files(closure),
        "bytes": closure.size,
        "reused_bytes": objects.reused(closure),
        "lock": json.loads(resolver.lock([reference])),
    }


def _files(closure: Closure) -> int:
    return sum(entry.kind == "file" for entry in closure.entries)


def _catalogue(work: Work) -> Catalogue:
    from swiftlet.resolve.catalogue import Catalogue

    return Catalogue(work.instance.root)


def _templates(work: Work) -> dict[str, Any]:
    from swiftlet.store.session import Session

    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        return {"templates": [_template_line(resolver, located) for located in resolver.catalogue.known()]}


def _template_line(resolver: Resolver, located: Located) -> dict[str, Any]:
    closure = resolver.resolved(located)
    return {
        "reference": located.reference,
        "description": located.template.description,
        "source": located.origin,
        "resolved": closure is not None,
        "files": _files(closure) if closure else 0,
        "bytes": closure.size if closure else 0,
    }


def _template(work: Work) -> dict[str, Any]:
    import msgspec

    from swiftlet.store.session import Session

    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        located = resolver.catalogue.find(work.parameters["template"])
        closure = resolver.resolved(located)
        summary = None
        if closure is not None:
            requires = list(closure.requires)
            summary = {"digest": closure.digest, "files": _files(closure), "bytes": closure.size, "requires": requires}
        return {"template": msgspec.to_builtins(located.template), "closure": summary, "origin": located.origin}


def _explain(work: Work) -> dict[str, Any]:
    import msgspec

    from swiftlet.resolve.explain import explain, paths_named
    from swiftlet.store.session import Session

    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        closures, path = resolver.stack([work.parameters["template"]]), work.parameters["path"]
        entries = msgspec.to_builtins(explain(closures, path))
        return {"entry": entries[0], "chain": entries, "others": paths_named(closures, path)[1:]}


def _component(work: Work) -> dict[str, Any]:
    """For an insertion: the trees of a stack, topmost first, and what is in each."""
    from swiftlet.store.session import Session

    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        closures = [closure for closure in resolver.stack([work.parameters["template"]]) if closure.entries]
        for closure in closures:
            session.trees.build(closure.digest, closure.entries)
        return {"closures": [_component_of(closure) for closure in closures]}


def _component_of(closure: Closure) -> dict[str, Any]:
    paths = [entry.path for entry in closure.entries if entry.kind != "directory"]
    return {"template": closure.template, "digest": closure.digest, "paths": paths}


def _having(work: Work) -> dict[str, Any]:
    from swiftlet.resolve.commands import programs_like, templates_with
    from swiftlet.store.session import Session

    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        command = work.parameters["command"]
        stack = resolver.catalogue.stack(work.parameters["stack"])
        programs = programs_like(command, filter(None, map(resolver.resolved, stack)))
        found = [] if programs else templates_with(command, resolver.catalogue.known(), resolver.resolved)
        return {"templates": found, "programs": programs}


def _template_verify(work: Work) -> dict[str, Any]:
    from swiftlet.store.session import Session
    from swiftlet.store.verify import verify_trees

    with Session(work.layout) as session:
        resolver, _ = work.resolver(session)
        wanted = work.parameters["templates"]
        located = resolver.catalogue.stack(wanted) if wanted else resolver.catalogue.known()
        closures = [closure for each in located if (closure := resolver.resolved(each)) is not None]
        if wanted and len(closures) < len(located):
            raise InputError(f"{', '.join(wanted)}: not resolved yet", "swiftlet template resolve")
        found = verify_trees(work.layout, [closure.digest for closure in closures], work.count)
    return _verified(work, found)


def _verified(work: Work, found: Verified) -> dict[str, Any]:
    """Say what is damaged, by the names that it has in templates; take it out of use if that was asked for."""
    from swiftlet.store.repair import repair

    damaged = _in_words(work.layout, found.damaged) if found.damaged else []
    repaired = repair(work.layout, found.damaged)._asdict() if work.parameters["repair"] else None
    return {"checked": found.checked, "damaged": damaged, "repaired": repaired}


def _in_words(layout: Layout, damaged: Sequence[Damage]) -> list[dict[str, Any]]:
    """Each problem, and of an object what it is in the first template that has it."""
    from swiftlet.store.records import Records

    records = Records(layout)
    names: dict[str, str] = {}
    for digest in records.closures():
        try:
            closure = records.closure(digest)
        except SwiftletError:  # damaged itself, or collected just now
            continue
        for entry in closure.entries:
            names.setdefault(entry.digest, f"; it is {entry.path} of {closure.template}")
    objects = f"{layout.objects}/"
    return [
        each._asdict()
        | {"problem": each.problem + (names.get(each.digest, "") if each.path.startswith(objects) else "")}
        for each in damaged
    ]


def _store_verify(work: Work) -> dict[str, Any]:
    from swiftlet.store.verify import verify

    return _verified(work, verify(work.layout, work.count))


def _store_stat(work: Work) -> dict[str, Any]:
    from swiftlet.store.figures import store_stat

    return store_stat(work.layout)._asdict()


def _store_gc(work: Work) -> dict[str, Any]:
    from swiftlet.store.collect import collect

    parameters = work.parameters
    return collect(work.layout, dry_run=bool(parameters["dry_run"]), cache=bool(parameters["cache"]))._asdict()


def _parse_workload(work: Work) -> dict[str, Any]:
    import msgspec

    from swiftlet.resolve.document import parse_document
    from swiftlet.resolve.workload import workload_of

    parameters = work.parameters
    document = parse_document(parameters["text"].encode(), parameters["path"])
    return {"workload": msgspec.to_builtins(workload_of(document, parameters["base"]))}


def _doctor(work: Work) -> dict[str, Any]:
    from swiftlet.node.doctor import examine

    return {"findings": [finding._asdict() for finding in examine(work.instance)]}


def _check_program(work: Work) -> dict[str, Any]:
    from swiftlet.gate.program import program

    work.layout.prepare()
    work.progress("compile", "the checks", 0, 0)
    return {"path": program(work.layout.cache)}


def _image_build(work: Work) -> dict[str, Any]:
    from swiftlet.node.disks import image_build

    return image_build(work)


def _unikernel_build(work: Work) -> dict[str, Any]:
    from swiftlet.node.programs import build

    return build(work)


def _boot_watch(work: Work) -> dict[str, Any]:
    from swiftlet.node.bootprofile import boot_watch

    return boot_watch(work)


def _kernels(name: str) -> Callable[[Work], dict[str, Any]]:
    """An operation of `kernels`, which is imported when it is asked for."""

    def operation(work: Work) -> dict[str, Any]:
        from swiftlet.node import kernels

        done: dict[str, Any] = getattr(kernels, name)(work)
        return done

    return operation


def _kernel_trim(work: Work) -> dict[str, Any]:
    from swiftlet.node.derived import kernel_trim

    return kernel_trim(work)


KERNEL_OPERATIONS = (
    "kernel_build",
    "kernel_import",
    "kernels",
    "kernel",
    "kernel_diff",
    "kernel_explain",
    "kernel_remove",
)

OPERATIONS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "stack": _stack,
    "resolve": _resolve,
    "templates": _templates,
    "template": _template,
    "explain": _explain,
    "having": _having,
    "component": _component,
    "template_verify": _template_verify,
    "store_verify": _store_verify,
    "store_stat": _store_stat,
    "store_gc": _store_gc,
    "parse_workload": _parse_workload,
    "doctor": _doctor,
    "check_program": _check_program,
    **{name: _kernels(name) for name in KERNEL_OPERATIONS},
    "kernel_trim": _kernel_trim,
    "image_build": _image_build,
    "boot_watch": _boot_watch,
    "unikernel_build": _unikernel_build,
}


def serve(channel: Channel, instance: Instance) -> None:
    """Do the one thing that is asked, and answer."""
    received = channel.receive()
    if received is None:
        return
    request, _ = received
    work = Work(channel, instance, request["parameters"])
    try:
        answer: dict[str, Any] = {"result": OPERATIONS[request["operation"]](work)}
    except SwiftletError as error:
        answer = _told(error)
    except OSError as error:
        answer = _told(storage_error(error, str(error.filename or work.layout.root)))
    channel.send(answer)


def _told(error: SwiftletError) -> dict[str, Any]:
    return {"error": {"kind": error.kind, "message": str(error), "hint": error.hint}}


def main() -> None:
    """Serve the socket that is named by number; leave with the daemon, however that ends."""
    syscall.prctl(syscall.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscall.prctl(syscall.PR_SET_NAME, b"swiftlet-pull")
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    if os.getppid() != _maker_of(sock):
        return  # it was killed before it could be said that we go with it
    try:
        serve(Channel(sock), instance_of())
    except BrokenPipeError:
        return  # nobody wants the answer any more


def _maker_of(sock: socket.socket) -> int:
    """The process that made this pair of sockets."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)


if __name__ == "__main__":
    main()
