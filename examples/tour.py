"""What `./dev run` does once everything is set up: one real application as a container, and what happened, in words.

Uses the `swiftlet` command as anybody would, by its `--json`. Leaves nothing running.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMMAND = f"{TREE}/.venv/bin/swiftlet"
TEMPLATE = "python@3.11"
APPLICATION = f"{TREE}/examples/hello-web"

PATIENCE = 15.0
"""Seconds that the application may take until it answers."""


class TourError(Exception):
    """A step did not do what it should; the text is for the user."""


def swiftlet(*words: str) -> str:
    """Run a command of swiftlet's; its progress and errors go to the terminal, its output is returned."""
    done = subprocess.run([COMMAND, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise TourError(f"`swiftlet {' '.join(words)}` ended with {done.returncode}")
    return done.stdout


def mebibytes(count: int) -> str:
    """Bytes in MiB with one decimal."""
    return f"{count / (1 << 20):.1f} MiB"


def say(title: str, text: str) -> None:
    """One step of the tour."""
    print(f"  {title:<10}{text}", flush=True)


def resolve() -> None:
    """Find and fetch the files of the template."""
    begin = time.monotonic()
    closures = json.loads(swiftlet("template", "resolve", "--json", TEMPLATE))
    files, size = sum(each["files"] for each in closures), sum(each["bytes"] for each in closures)
    reused = sum(each.get("reused_bytes") or 0 for each in closures)
    seconds = time.monotonic() - begin
    say("resolved", f"{TEMPLATE} in {seconds:.2f} s: {files:,} files, {mebibytes(size)}, of which")
    say("", f"{mebibytes(reused)} were in the store before and were neither fetched nor copied")


def start(which: str = "a") -> str:
    """Start the application with a published port; its id."""
    begin = time.monotonic()
    volume, publish = f"{APPLICATION}:/app:ro", "127.0.0.1:0:8000"
    guest = swiftlet(
        *("run", "-d", "-t", TEMPLATE, "-v", volume, "-w", "/app", "-p", publish),
        *("--memory", "256M", "--pids", "64", "--", "python3", "app.py"),
    ).strip()
    milliseconds = (time.monotonic() - begin) * 1e3
    say(
        "started",
        f"{which} container, {guest}, in {milliseconds:.0f} ms from typing the command to its process running",
    )
    return guest


def published_port(guest: str) -> int:
    """The port of this host that leads to the application."""
    shown = json.loads(swiftlet("inspect", guest))[0]
    for port in shown["ports"]:
        if found := re.search(r":(\d+)->8000/tcp", port):
            return int(found[1])
    raise TourError(f"container {guest} publishes no port: {shown['ports']}")


def wait_for_answer(guest: str) -> tuple[int, dict[str, Any]]:
    """The port and what the application answers there, as soon as it does. Raises TourError when it does not."""
    port = published_port(guest)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/facts.json", timeout=2) as answer:
                return port, json.load(answer)
        except OSError as error:
            if time.monotonic() > end:
                raise TourError(f"no answer from 127.0.0.1:{port}: {error}\n{swiftlet('logs', guest)}") from None
            time.sleep(0.01)


def fetch(guest: str) -> dict[str, Any]:
    """The application's answer, through the published port."""
    port, facts = wait_for_answer(guest)
    say("page", f"from 127.0.0.1:{port}")
    return facts


def show_page(facts: dict[str, Any]) -> None:
    """What the application says about itself."""
    for name, value in facts.items():
        say("", f"  {name.replace('_', ' '):<21}{value}")


def show_memory(first: str, second: str) -> None:
    """What each of two containers has to itself, and what both use one copy of."""
    stats = {each["id"]: each for each in json.loads(swiftlet("stats", "--json"))}
    for title, guest in (("memory", first), ("", second)):
        found = next(stat for key, stat in stats.items() if key.startswith(guest))
        private, shared = mebibytes(found["private_bytes"]), mebibytes(found["shared_bytes"])
        say(title, f"{guest}: {private} of its own, {shared} shared with other containers")


def remove(guests: Sequence[str]) -> None:
    """Stop the containers and remove them; the store keeps the files."""
    begin = time.monotonic()
    for guest in guests:
        swiftlet("stop", guest)
        swiftlet("rm", guest)
    say("removed", f"both in {(time.monotonic() - begin) * 1e3:.0f} ms; only the daemon is left, for the next command")


def next_steps() -> None:
    """Three commands to try."""
    command = os.path.relpath(COMMAND)
    print("\nTry next:")
    print(f"  {command} run --rm -it -t {TEMPLATE} -- python3")
    print(f"  {command} template explain {TEMPLATE} /usr/lib/x86_64-linux-gnu/libssl.so.3")
    print(f"  {command} run -d --name hello -t {TEMPLATE} -p 8000:8000 -v ./examples/hello-web:/app:ro -w /app \\")
    print("      -- python3 app.py        (then: swiftlet ps, logs hello, stats, rm -f hello)")


def tour() -> None:
    """All steps; what was started is removed, whatever happens."""
    print("\nexamples/hello-web, a web application with TLS, SQLite and time zones, in a container of the")
    print("files that it needs and no more:\n")
    resolve()
    guests = [start()]
    try:
        show_page(fetch(guests[0]))
        guests.append(start("another"))
        wait_for_answer(guests[1])
        show_memory(*guests)
    except BaseException:
        subprocess.run([COMMAND, "rm", "-f", *guests], stdout=subprocess.DEVNULL)
        raise
    remove(guests)
    next_steps()


def main(arguments: Sequence[str]) -> int:
    """Tour, with failures in one line."""
    if arguments:
        print("dev run takes no arguments; `.venv/bin/swiftlet --help` shows the commands", file=sys.stderr)
        return 2
    try:
        tour()
    except TourError as error:
        print(f"dev run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
