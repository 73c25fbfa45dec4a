"""The flags of `run` as a workload's plain members (model/workload.py), alone or over a workload file.

Only what was typed is set; defaults and checks are the daemon's. Nothing here reads YAML.
"""

from __future__ import annotations

import os

from swiftlet.cli.options import Option, Parsed
from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

OPTIONS = (
    Option("-t --template", "a template: NAME[@VERSION], deb:NAME, host:/path, a .yaml file", "TEMPLATE", many=True),
    Option("-f --file", "a workload file (YAML); flags beside it win", "FILE"),
    Option("-v --volume", "show a folder or file of this host in the guest", "SOURCE:TARGET[:ro]", many=True),
    Option("-w --workdir", "working directory in the guest", "PATH"),
    Option("-e --env", "a variable; NAME alone takes its value here", "NAME[=VALUE]", many=True),
    Option("--env-file", "a file with a NAME=VALUE on each line", "FILE", many=True),
    Option("-i --interactive", "pass standard input on"),
    Option("--tty", "give the guest a terminal (-it is -i --tty)"),
    Option("--name", "a name for the guest", "NAME"),
    Option("--rm", "remove the guest when it has ended"),
    Option("-p --publish", "publish a port", "[[IP:]HOST:]GUEST[/udp]", many=True),
    Option(
        "-m --memory",
        "limit of memory, such as 128M; 1M is the least, for a virtual machine 32M",
        "SIZE",
    ),
    Option("--disk", "of a virtual machine: a disk for what it writes, which else is in its memory", "SIZE"),
    Option("--cpus", "limit of CPU time in cores, such as 1.5", "CORES"),
    Option("--cpu-weight", "share of a contended CPU, 1 to 10000 (100 is usual)", "WEIGHT"),
    Option("--pids-limit --pids", "limit of processes and threads", "COUNT"),
    Option("--network", "bridge (default), none or host", "NETWORK"),
    Option("--read-only", "make the guest's root read-only"),
    Option("-u --user", "user (and group) of the command", "USER[:GROUP]"),
    Option("--userns", "give the guest a user namespace of its own"),
    Option("-h --hostname", "the guest's host name", "NAME"),
    Option("--cap-add", "keep a capability", "CAPABILITY", many=True),
    Option("--cap-drop", "drop a capability, or ALL", "CAPABILITY", many=True),
    Option("--seccomp", "default or unconfined", "PROFILE"),
    Option("--ulimit", "a resource limit, such as nofile=1024", "NAME=SOFT[:HARD]", many=True),
    Option("--tmpfs", "an empty folder in memory, such as /run:size=64m,mode=755", "PATH[:OPTIONS]", many=True),
    Option("--stop-signal", "signal that asks the guest to end", "SIGNAL"),
    Option("--stop-timeout", "seconds after which `stop` kills it", "SECONDS"),
    Option("--as", "kind of guest: container (the default), vm or unikernel", "KIND"),
    Option("--master", "of a unikernel: its first processor runs tasks too (compute), or serves only (serve)", "WORK"),
    Option("--placement", "of a unikernel: fill different cores first (spread), or core after core (packed)", "WAY"),
    Option("--kernel", "of a virtual machine: a kernel that was built (swiftlet kernel ls)", "KERNEL"),
    Option("--cpu-level", "of a unikernel: x86-64-v2 (the default), v3 (AVX2) or v4 (AVX-512)", "LEVEL"),
)

_TEXTS = {
    "name": "name",
    "workdir": "workdir",
    "user": "user",
    "hostname": "hostname",
    "network": "network",
    "seccomp": "seccomp",
    "as": "kind",
    "kernel": "kernel",
    "master": "master",
    "placement": "placement",
    "cpu-level": "cpu_level",
}
_SWITCHES = {"interactive": "interactive", "tty": "tty", "rm": "remove", "read-only": "read_only", "userns": "userns"}
_LISTS = {"cap-add": "cap_add", "cap-drop": "cap_drop", "tmpfs": "tmpfs"}


def declared(parsed: Parsed, environment: Mapping[str, str], folder: str) -> dict[str, Any]:
    """The members that were typed; relative paths start at `folder`. Raises InputError."""
    found: dict[str, Any] = {}
    found.update((member, parsed.one(key)) for key, member in _TEXTS.items() if parsed.on(key))
    found.update((member, True) for key, member in _SWITCHES.items() if parsed.on(key))
    found.update((member, parsed.many(key)) for key, member in _LISTS.items() if parsed.on(key))
    if parsed.on("template"):
        found["templates"] = [template_path(template, folder) for template in parsed.many("template")]
    if parsed.arguments:
        found["command"] = parsed.arguments
    if parsed.on("stop-signal"):
        from swiftlet.cli.lifecycle import signal_name

        found["stop_signal"] = signal_name(parsed.one("stop-signal"))
    if parsed.on("stop-timeout"):
        found["stop_timeout"] = _number(parsed, "stop-timeout")
    resources = _resources(parsed)
    if resources:
        found["resources"] = resources
    variables = environment_of(parsed, environment)
    if variables:
        found["env"] = variables
    if parsed.on("volume") or parsed.on("publish") or parsed.on("ulimit"):
        _spell(parsed, folder, found)
    return found


def combine(file: dict[str, Any], typed: dict[str, Any]) -> dict[str, Any]:
    """A workload file with what was typed beside it: variables and limits one by one, all else as a whole."""
    combined = {**file, **typed}
    for member in ("env", "resources", "ulimits"):
        if member in file and member in typed:
            combined[member] = {**file[member], **typed[member]}
    return combined


def environment_of(parsed: Parsed, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of --env-file and -e, the latter winning; a NAME that is not set here is left out, as with docker."""
    texts = [line for path in parsed.many("env-file") for line in _environment_lines(path)]
    texts += parsed.many("env")
    if not texts:
        return {}
    from swiftlet.model.spelling import parse_environment

    found: dict[str, str] = {}
    for text in texts:
        name, value = parse_environment(text)
        if value is None:
            value = environment.get(name)
        if value is not None:
            found[name] = value
    return found


def _environment_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise InputError(f"--env-file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--env-file {path} is not UTF-8 text") from None
    return [line for line in lines if line and not line.startswith("#")]


def template_path(template: str, folder: str) -> str:
    """A template as the daemon can find it: the path of a file becomes absolute."""
    if template.endswith((".yaml", ".yml")) and not template.startswith(("deb:", "host:")):
        return os.path.normpath(os.path.join(folder, os.path.expanduser(template)))
    return template


def _resources(parsed: Parsed) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("memory", "disk"):
        if parsed.on(key):
            from swiftlet.model.spelling import parse_size

            found[key] = parse_size(parsed.one(key))
    if parsed.on("cpus"):
        found["cpus"] = _number(parsed, "cpus")
        if not found["cpus"] and parsed.on("as") and parsed.one("as") == "unikernel":  # elsewhere 0 is no limit
            raise InputError("--cpus 0: a unikernel has one processor at least", "leave it out, or --cpus 1")
    for key, member in (("cpu-weight", "cpu_weight"), ("pids", "pids")):
        if parsed.on(key):
            found[member] = int(_number(parsed, key, whole=True))
    return found


def _number(parsed: Parsed, key: str, *, whole: bool = False) -> float:
    text = parsed.one(key)
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise InputError(f"--{key}: {text!r} is not a {'whole number' if whole else 'number'}")
    return number


def _spell(parsed: Parsed, folder: str, found: dict[str, Any]) -> None:
    """The flags whose spelling is shared with workload files."""
    from swiftlet.model.spelling import parse_port, parse_ulimit, parse_volume

    if parsed.on("volume"):
        found["volumes"] = [parse_volume(text, folder) for text in parsed.many("volume")]
    if parsed.on("publish"):
        found["ports"] = [parse_port(text) for text in parsed.many("publish")]
    if parsed.on("ulimit"):
        found["ulimits"] = dict(parse_ulimit(text) for text in parsed.many("ulimit"))
