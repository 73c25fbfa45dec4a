"""One run of the checks in a guest, as `guest check` makes it: start, listen, fetch the page, see it end.

The guest is a workload like any other, made of the program alone; what its answers mean is left to `gate.verdict`.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, NamedTuple

from swiftlet.api.client import Client
from swiftlet.gate.program import PORT
from swiftlet.gate.verdict import Circumstances, line_of
from swiftlet.model.error import SwiftletError, WireError

if TYPE_CHECKING:
    from typing import Any

    from swiftlet.cli.progress import Progress

SILENCE_SECONDS = 180.0
"""A guest that says nothing for so long is given up; a check that hangs is killed in the guest long before."""

FETCH_SECONDS = 20.0

_CHUNK = 65536
_TAIL = 4096


class Heard(NamedTuple):
    """A guest's lines, and what the judge is told beside them."""

    lines: list[str]
    circumstances: Circumstances


class Listener:
    """A guest that runs the checks.

    page: what it is to serve. checks: how many it is to run, for the progress.
    """

    def __init__(self, client: Client, page: bytes, progress: Progress, checks: int) -> None:
        self._client = client
        self._page = page
        self._progress = progress
        self._checks = checks
        self._guest = ""
        self._lines: list[str] = []
        self._errors = b""
        self._problem = ""
        self._web = ""

    def run(self, workload: dict[str, Any]) -> Heard:
        """Start the guest and stay until it has ended; whatever happens, it does not outlive this call.

        Raises what the daemon names when the guest cannot be started.
        """
        outputs = self._start(workload)
        began, exited = time.time(), None
        try:
            self._listen(outputs)
            exited = self._exit()
        finally:
            for fd in outputs:
                os.close(fd)
            if exited is None:
                self._kill()
        return Heard(self._lines, Circumstances(began, time.time(), self._web, self._problem or self._why(exited)))

    def _start(self, workload: dict[str, Any]) -> list[int]:
        self._client.begin("Run", {"workload": workload, "detach": False})
        while True:
            answer, received, continues = self._client.receive()
            if "started" in answer:
                break
            self._progress.show(answer.get("progress"))
            if not continues:
                raise WireError("the node daemon did not say what it started")
        self._guest = str(answer["started"]["id"])
        if len(received) < 3:
            raise WireError(f"the node daemon sent {len(received)} descriptors with a guest, not three")
        os.close(received[0])
        return list(received[1:])

    def _listen(self, outputs: list[int]) -> None:
        """Take standard output line by line, and keep the end of standard error."""
        open_ends, partial = {outputs[0]: b"", outputs[1]: b""}, b""
        poll = select.poll()
        for fd in open_ends:
            poll.register(fd, select.POLLIN)
        while open_ends:
            ready = poll.poll(SILENCE_SECONDS * 1000)
            if not ready:
                self._problem = f"the guest was silent for {SILENCE_SECONDS:.0f} s"
                return
            for fd, _ in ready:
                data = os.read(fd, _CHUNK)
                if not data:
                    poll.unregister(fd)
                    del open_ends[fd]
                elif fd == outputs[0]:
                    *whole, partial = (partial + data).split(b"\n")
                    for line in whole:
                        self._take(line.decode(errors="replace").strip())
                else:
                    self._errors = (self._errors + data)[-_TAIL:]

    def _take(self, text: str) -> None:
        line = line_of(text)
        if line is None:
            return
        self._lines.append(text)
        if "ready" in line:
            self._fetch()
        elif "check" in line:
            step = {"stage": "check", "text": line["check"], "done": len(self._lines), "total": self._checks}
            self._progress.show(step)

    def _fetch(self) -> None:
        """Get the page as anybody would, and let the guest go."""
        try:
            self._web = compare_page(*self._address(), self._page)
        except (OSError, SwiftletError) as error:
            self._web = f"the page cannot be fetched: {error}"
        if self._web:
            self._kill()

    def _address(self) -> tuple[str, int]:
        with Client(self._client.instance, daemon=None) as other:
            ports = other.call("Inspect", {"guest": self._guest})[0]["guest"].get("ports") or []
        for text in ports:
            outside, _, inside = str(text).partition("->")
            host, _, port = outside.rpartition(":")
            if inside == f"{PORT}/tcp":
                return host, int(port)
        raise SwiftletError(f"port {PORT} of the guest is not published")

    def _exit(self) -> dict[str, Any] | None:
        if self._problem:
            return None
        while True:
            answer, _, continues = self._client.receive()
            if "exited" in answer or not continues:
                found = answer.get("exited")
                return found if isinstance(found, dict) else None

    def _kill(self) -> None:
        try:
            with Client(self._client.instance, daemon=None) as other:
                other.call("Kill", {"guest": self._guest, "signal": "SIGKILL"})
        except SwiftletError:
            pass  # it has ended meanwhile

    def _why(self, exited: dict[str, Any] | None) -> str:
        """Why a guest may not have said everything."""
        lines = self._errors.decode(errors="replace").strip().splitlines()
        last = f", its last words: {lines[-1][:200]}" if lines else ""
        if exited is not None and exited.get("oom"):
            return f"the guest ran out of memory{last}"
        return f"the guest ended with code {exited.get('code') if exited else '?'}{last}"


def compare_page(host: str, port: int, wanted: bytes) -> str:
    """Fetch / and then /quit; what is wrong with the page, or "". Raises OSError."""
    from http.client import HTTPConnection, HTTPException

    found = b""
    for path in ("/", "/quit"):
        connection = HTTPConnection(host, port, timeout=FETCH_SECONDS)
        try:
            connection.request("GET", path)
            found = found or connection.getresponse().read()
        except HTTPException as error:
            return f"the guest's answer to GET {path} is no HTTP: {type(error).__name__} {error}"
        finally:
            connection.close()
    if found == wanted:
        return ""
    same = next((at for at, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other), len(found))
    return f"the page came with {len(found)} of {len(wanted)} bytes, the first {same} as they should be"
