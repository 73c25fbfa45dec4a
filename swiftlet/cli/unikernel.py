"""`swiftlet unikernel`: programs of tasks as images that boot; calling their tasks, looking at them."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed
from swiftlet.cli.progress import last_of
from swiftlet.cli.table import print_json, print_table, size_text
from swiftlet.model.error import InputError, SwiftletError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def build(parsed: Parsed) -> int:
    """Build a program's image, and copy it where it is wanted."""
    wanted = {
        "path": os.path.abspath(parsed.arguments[0]),
        "target": parsed.one("target", "unikernel"),
        "level": parsed.one("cpu-level", "v2"),
    }
    begin = time.monotonic()
    with Client() as client:
        answer = last_of(client, "UnikernelBuild", wanted, quiet=parsed.on("quiet") or parsed.on("json"))
    unikernel = answer["unikernel"]
    output = unikernel["path"]
    if parsed.on("output"):
        output = os.path.abspath(parsed.one("output"))
        _copy(unikernel["path"], output, executable=wanted["target"] == "linux")
    if parsed.on("json"):
        print_json({**unikernel, "path": output, "reused": answer["reused"]})
    elif parsed.on("quiet"):
        sys.stdout.write(f"{output}\n")
    else:
        how = "was there already" if answer["reused"] else f"built in {time.monotonic() - begin:.1f} s"
        sys.stdout.write(f"{output}  {size_text(unikernel['bytes'])}, {how}\n")
        for task in unikernel["tasks"]:
            sys.stdout.write(f"  {signature_text(task)}\n")
    return 0


def _copy(source: str, target: str, *, executable: bool) -> None:
    interim = f"{target}.{os.urandom(6).hex()}.new"
    try:
        if os.path.lexists(target) and not os.path.isfile(target):  # a device or a pipe: it stays what it is
            with open(source, "rb") as image, open(target, "wb") as place:
                shutil.copyfileobj(image, place)
            return
        target = os.path.realpath(target)
        with open(source, "rb") as image, open(interim, "xb") as place:
            shutil.copyfileobj(image, place)
        if executable:
            os.chmod(interim, 0o755)
        os.rename(interim, target)
    except OSError as error:
        raise InputError(f"-o {target}: {error.strerror}") from None
    finally:
        if os.path.exists(interim):
            os.unlink(interim)


def signature_text(task: dict[str, Any]) -> str:
    """A task as its program declares it."""
    from swiftlet.unikernel.signature import Signature

    arguments = tuple((name, code) for name, code in task["arguments"])
    return str(Signature(task["name"], arguments, task["result"]))


def call(parsed: Parsed) -> int:
    """Call a task and print what it returns."""
    from swiftlet.unikernel.client import Client as Caller
    from swiftlet.unikernel.client import address_of
    from swiftlet.unikernel.value import parsed as values_of

    where, name, *words = parsed.arguments
    count = _count(parsed)
    deadline = _seconds(parsed)
    with Caller(*address_of(where)) as caller:
        _, signature = caller.find(name)
        values = values_of(signature, words)
        begin = time.monotonic()
        try:
            results = caller.run(name, values, count, deadline)
        except SwiftletError:
            raise
        except Exception as error:
            place = f"{notes[0]}: " if (notes := getattr(error, "__notes__", [])) else ""
            raise SwiftletError(f"{place}{type(error).__name__}: {error}") from None
        seconds = time.monotonic() - begin
    if parsed.on("json"):
        print_json({"results": [_plain(each) for each in results], "seconds": seconds})
    else:
        sys.stdout.write("".join(f"{each}\n" for each in results))
    return 0


def _plain(value: Any) -> Any:
    """A result in JSON: bytes as the text that Python writes for them, as what is no number in JSON is too."""
    if isinstance(value, bytes):
        return repr(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _count(parsed: Parsed) -> int:
    text = parsed.one("tasks", "1")
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 1 << 32:
        raise InputError(f"--tasks: {text!r} is no number of tasks")
    return int(text)


def _seconds(parsed: Parsed) -> float:
    text = parsed.one("deadline", "0")
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise InputError(f"--deadline: {text!r} is no number of seconds")
    return number


def stats(parsed: Parsed) -> int:
    """What a unikernel has done, for each of its processors."""
    from swiftlet.unikernel.client import Client as Caller
    from swiftlet.unikernel.client import address_of
    from swiftlet.unikernel.figures import figures_of

    with Caller(*address_of(parsed.arguments[0])) as caller:
        found = figures_of(caller)
    if parsed.on("json"):
        print_json(found)
        return 0
    rows = [
        tuple(str(core[name]) for name in ("apic", "tasks", "cycles", "errors", "wakeups", "interrupts", "state"))
        for core in found["processors"]
    ]
    print_table(("CPU", "TASKS", "CYCLES", "ERRORS", "WAKE-UPS", "INTERRUPTS", "STATE"), rows)
    counted = ("calls", "repeated", "refused", "busy", "malformed", "received", "sent", "dropped")
    sys.stdout.write("  ".join(f"{name} {found[name]}" for name in counted) + "\n")
    sys.stdout.write(f"memory {size_text(found['memory'])}, {size_text(found['memory_left'])} of it given to nobody\n")
    return 0


def trace(parsed: Parsed) -> int:
    """What has happened last in a unikernel."""
    from swiftlet.unikernel.client import Client as Caller
    from swiftlet.unikernel.client import address_of
    from swiftlet.unikernel.trace import events_of

    with Caller(*address_of(parsed.arguments[0])) as caller:
        events = events_of(caller)
    if parsed.on("json"):
        print_json([each._asdict() for each in events])
        return 0
    rows: list[tuple[str, ...]] = [
        (f"{each.microseconds / 1000:.3f}", str(each.processor), each.what, f"{each.call:x}", str(each.ticket))
        for each in events
    ]
    print_table(("MS", "CPU", "WHAT", "CALL", "TASK"), rows)
    return 0


COMMANDS = (
    Command(
        "unikernel build",
        "Build a program of tasks as an image that boots by itself.",
        build,
        usage="PROGRAM [-o PATH] [--target linux] [--cpu-level v3]",
        arguments=(1, 1),
        options=(
            Option("--target", "unikernel, or linux: a static program of Linux with the same tasks", "TARGET"),
            Option("--cpu-level", "compile for x86-64-v2 (the default), v3 (AVX2) or v4 (AVX-512)", "LEVEL"),
            Option("-o --output", "copy the image there", "PATH"),
            Option("-q --quiet", "print the image's path only"),
            JSON,
        ),
        about=(
            "PROGRAM is a Python file with functions that are marked with @task, and one service of them. It is\n"
            "compiled and linked by numba and llvmlite; no compiler and no linker of this host is needed.\n"
            "Of the target linux the image is a program: ./primes [--threads|--processes] [--port NUMBER]\n"
            "[--address ADDRESS]. It is called as a unikernel is, and runs each task as a thread or as a process."
        ),
        examples=(
            "swiftlet unikernel build primes.py -o primes.elf",
            "swiftlet unikernel build primes.py --target linux -o primes",
        ),
    ),
    Command(
        "unikernel call",
        "Call a task of a unikernel.",
        call,
        usage="HOST:PORT TASK [ARGUMENT...] [--tasks N]",
        arguments=(2, -1),
        options=(
            Option("--tasks", "run so many tasks of the same arguments, each on a processor that is free", "NUMBER"),
            Option("--deadline", "end tasks that are not done by then", "SECONDS"),
            JSON,
        ),
        examples=("swiftlet unikernel call localhost:7000 count_primes 2000000 --tasks 8",),
    ),
    Command(
        "unikernel stats",
        "Show what a unikernel's processors have done.",
        stats,
        usage="HOST:PORT",
        arguments=(1, 1),
        options=(JSON,),
        examples=("swiftlet unikernel stats localhost:7000",),
    ),
    Command(
        "unikernel trace",
        "Show what has happened last in a unikernel, and when.",
        trace,
        usage="HOST:PORT",
        arguments=(1, 1),
        options=(JSON,),
        about=(
            "The last 512 events, in milliseconds before now: a call's first part has arrived, all of it is ready,\n"
            "a task has begun or ended, the call is answered, a repeated one was known, a processor has woken.\n"
            "Behind a call that arrived or is ready stands how many tasks it has."
        ),
        examples=("swiftlet unikernel trace localhost:7000",),
    ),
)
