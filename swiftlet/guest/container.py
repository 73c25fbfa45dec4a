"""The container driver: a Workload in a link-tree Rootfs as a Bundle of namespaces, control groups and limits. Pure."""

from __future__ import annotations

import resource

from swiftlet.guest.account import account_of
from swiftlet.guest.driver import Place
from swiftlet.linux import capability, cgroup
from swiftlet.model.bundle import Bundle, CgroupPlan, Rootfs
from swiftlet.model.error import HostError, InputError
from swiftlet.model.workload import Workload

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LIMITS = tuple(sorted(name.removeprefix("RLIMIT_") for name in dir(resource) if name.startswith("RLIMIT_")))


class ContainerDriver:
    """Guests that share the host's kernel."""

    kind = "container"
    features = frozenset(("insert", "exec"))

    def plan(self, workload: Workload, rootfs: Rootfs, place: Place) -> Bundle:
        """See `Driver.plan`."""
        if workload.resources.disk:
            raise InputError(
                "$.resources.disk: a container has no disk of its own", "leave --disk out, or start it with --as vm"
            )
        account = account_of(workload.user, place.passwd, place.group)
        hostname = workload.hostname or place.id
        return Bundle(
            id=place.id,
            workload=workload,
            rootfs=rootfs,
            state_dir=place.state_dir,
            argv=_argv(workload, rootfs),
            env=_environment(workload, rootfs, account.home, hostname),
            cwd=workload.workdir or "/",
            hostname=hostname,
            uid=account.uid,
            gid=account.gid,
            groups=account.groups,
            cgroup=_cgroup(workload, place),
            netns=place.netns,
            volumes=place.volumes,
            tmpfs=workload.tmpfs,
            capabilities=capabilities_of(workload),
            rlimits=_limits(workload),
            seccomp=place.seccomp if workload.seccomp == "default" else "",
            read_only=workload.read_only,
            volatile=workload.remove,
            tty=workload.tty,
            userns=place.userns,
        )


def _argv(workload: Workload, rootfs: Rootfs) -> tuple[str, ...]:
    argv = workload.command or rootfs.entrypoint
    if not argv or not argv[0]:
        names = ", ".join(workload.templates)
        raise InputError(f"no command was given and {names} has no entry point", "add one behind `--`")
    return argv


def _environment(workload: Workload, rootfs: Rootfs, home: str, hostname: str) -> dict[str, str]:
    terminal = {"TERM": "xterm"} if workload.tty else {}
    return {"PATH": PATH, "HOME": home, "HOSTNAME": hostname, **terminal, **rootfs.env, **workload.env}


def _limits(workload: Workload) -> dict[str, tuple[int, int]]:
    """Resource limits by their names in setrlimit(2), of which the launcher's Python knows these."""
    found = {}
    for name, (soft, hard) in workload.ulimits.items():
        if name.upper() not in LIMITS:
            raise InputError(f"$.ulimits: there is no limit {name!r}", f"there are {', '.join(LIMITS).lower()}")
        if hard != -1 and not 0 <= soft <= hard:
            raise InputError(f"$.ulimits.{name}: the soft limit {soft} is above the hard limit {hard}")
        found[name.upper()] = (soft, hard)
    return found


def _cgroup(workload: Workload, place: Place) -> CgroupPlan:
    limits = workload.resources
    try:
        plan = cgroup.plan(
            place.cgroups,
            place.cgroup_folder,
            place.id,
            memory=limits.memory,
            cpus=limits.cpus,
            cpu_weight=limits.cpu_weight,
            pids=limits.pids,
        )
    except OSError as error:
        raise HostError(
            f"{error.strerror}: {error.filename}", "see `swiftlet doctor`; run without this limit"
        ) from None
    return CgroupPlan(plan.paths, plan.writes)


def capabilities_of(workload: Workload) -> tuple[int, ...]:
    """Docker's fourteen, plus and minus what the workload says."""
    try:
        return tuple(sorted(capability.kept(workload.cap_add, workload.cap_drop)))
    except ValueError as error:
        raise InputError(str(error), "names are those of capabilities(7), with or without CAP_") from None
