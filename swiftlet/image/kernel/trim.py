"""Derived kernels: what a workload's checks make run on a full kernel, tried, and made smaller by trying.

1. The full kernel, with lines, runs the checks under emulation while QEMU notes the code that it translates.
2. That code asks for options (`derive`); the kernel's tools settle them; the kernel is built and has to pass.
3. If it does not, groups of what the full kernel had more are given back until it does.
4. What is not proven is taken away, all, half, menu by menu: of what was given back, of what nothing ran of, and of
   what ran only before there was a process.
5. That code ran does not say that it is needed: so what ran is tried away too, last what guests are known to need.

Every answer is in the journal before the next question, and a kernel that was built is in the cache: a derivation that
was killed at any moment goes on where it was. `budget` bounds the kernels that are built, the full one included.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from swiftlet.image.kernel import build, candidates, configuration, derive, footprint, initcalls, kconfig, search, trace
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.derive import Evidence, Requests
from swiftlet.image.kernel.derived import Dropped, Found, Result, failed_without, first_without, save, why, write
from swiftlet.image.kernel.journal import Journal, Run, digest_of
from swiftlet.image.kernel.kbuild import Tree
from swiftlet.image.kernel.kept import Kernel, kernel_of, names_of, remove, values_of
from swiftlet.image.kernel.make import Make, Progress, no_progress
from swiftlet.image.kernel.source import Source
from swiftlet.image.kernel.trace import Phase
from swiftlet.model.error import KernelError

BUDGET = 12
"""Kernels: the full one, the derived one, and ten questions."""


START, NAME, RESULT = ".trim-start", ".trim", "derived"
"""The names of the kernels that are built: the full one, those that are tried (which no list shows), what comes out."""


class Checked(NamedTuple):
    """What the checks said of a kernel. why: "" when they passed. boot_ms: until the workload's process was there."""

    passed: bool
    why: str
    boot_ms: float
    console: str = ""


class Check(Protocol):
    """Runs the workload's checks on a kernel."""

    def __call__(self, kernel: Kernel, *, trace: str = "", words: str = "") -> Checked:
        """trace: a folder for QEMU's logs of the code that it translates. words: what the kernel is told besides."""


class _SpentError(Exception):
    """The budget is used up."""


def key_of(source: Source, start: Iterable[Wanted], kept: Iterable[Wanted], about: str) -> str:
    """Of what a derivation is: one that is equal goes on where the other was."""
    parts = (source.digest, configuration.render(start), configuration.render(kept), about)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def trim(
    source: Source,
    start: Iterable[Wanted],
    kept: Iterable[Wanted],
    check: Check,
    cache: str,
    state: str,
    *,
    last: Iterable[str] = (),
    name: str = RESULT,
    budget: int = BUDGET,
    about: str = "",
    checks: Sequence[str] = (),
    progress: Progress = no_progress,
    jobs: int = 0,
) -> Result:
    """Derive a kernel from the one that `start` makes.

    kept: requests that stand whatever runs. last: options that are tried away after all others, because guests are
    known to need them. name: of the result. about: what the checks are, so that no state of others is taken up.
    checks: their names, for people. Writes STATE/derived.config (a fragment) besides the journal, and the evidence.
    Raises KernelError when the checks fail on the full kernel, InputError (a state of something else), HostError.
    """
    start, kept = list(start), list(kept)
    journal = Journal(state, key_of(source, start, kept, about))
    work = _Derivation(source, start, kept, set(last), name, check, cache, journal, budget, progress, jobs)
    result = work.result()
    write(f"{state}/derived.config", configuration.render(result.requests))
    save(result, name, checks)
    return result._replace(kernel=work.named(result))


class _Derivation:
    """The steps, with what all of them take."""

    def __init__(
        self, source: Source, start: list[Wanted], kept: list[Wanted], last: set[str], name: str, check: Check,
        cache: str, journal: Journal, budget: int, progress: Progress, jobs: int,
    ) -> None:  # fmt: skip
        self.source = source
        self.start = start
        self.kept = kept
        self.last = last
        self.name = name
        self.check = check
        self.cache = cache
        self.journal = journal
        self.budget = budget
        self.progress = progress
        self.jobs = jobs
        self.make = Make(source, f"{journal.folder}/configure", cache)
        self.options: dict[str, list[kconfig.Option]] = {}
        self.full: dict[str, str] = {}

    def result(self) -> Result:
        full = build.build(self.source, self.start, self.cache, self.progress, self.jobs, START, lines=True)
        values = self.full = values_of(full)
        evidence = self.traced(full, values)
        self.options = kconfig.read_tree(self.source.path)
        requests = derive.requests_for(evidence, values, self.options)
        self.ask_for_kept(requests)
        added: list[str] = []
        removed: list[str] = []
        complete = True
        try:
            self.narrow(requests, evidence, full, added, removed)
        except _SpentError:
            complete = False
        return self.told(full, requests, evidence, added, removed, complete)

    def traced(self, full: Kernel, values: Mapping[str, str]) -> dict[str, Evidence]:
        """The evidence of the journal, or that of a run now. Raises KernelError when the checks fail."""
        if self.journal.evidence is not None:
            return self.journal.evidence
        logs = f"{self.journal.folder}/traces"
        shutil.rmtree(logs, ignore_errors=True)
        os.makedirs(logs)
        begin = time.monotonic()
        self.progress("check", "the full kernel, while its code is logged", 0, 0)
        said = self.check(full, trace=logs)
        if not said.passed:
            raise KernelError(f"the checks fail on the full kernel: {said.why}", "mend them or start from more options")
        self.progress("read", "what has run", 0, 0)
        addresses = trace.executed_in(logs)
        ran = trace.lines_of(full.folder, addresses, self.source.path)
        evidence = derive.evidence_of(ran.values(), values, Tree(self.source.path, values), self.read)
        files = {place.file for place in ran}
        timed = initcalls.by_object(self.check(full, words=initcalls.WORDS).console, full.folder, self.source.path)
        counts = {"instructions": len(addresses), "lines": len(ran), "files": len(files), "options": len(evidence)}
        run = self.run("everything", values, full, said, begin)
        self.journal.note_trace(evidence.values(), counts, timed, run)
        self.answered(run)
        shutil.rmtree(logs)
        return evidence

    def read(self, path: str) -> str:
        """The text of a file of the tree; what was generated is not there and asks for nothing."""
        try:
            with open(f"{self.source.path}/{path}", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def beyond(self, requests: Requests, values: Mapping[str, str]) -> list[tuple[str, ...]]:
        """What can be asked for and the full kernel had more, by menus."""
        more = [symbol for symbol, value in values.items() if value == "y" and symbol not in requests.wanted]
        return [group for _, group in candidates.by_menu(filter(requests.can_be_asked, more), self.options)]

    def narrow(
        self, requests: Requests, evidence: Mapping[str, Evidence], full: Kernel, added: list[str], removed: list[str]
    ) -> None:
        """Put into `added` and `removed` what is to be asked for besides what ran, and what is not.

        The boldest question comes first: if its kernel passes, and it may well, nothing larger has to be built.
        """
        groups = self.removable(requests, added, evidence, full)
        if self.passes(requests, added, bold := _flat(groups.first)):
            removed += bold
        elif self.passes(requests, added, begun := _flat(groups.first[2:4])):
            removed += begun
        else:
            search.add(self.beyond(requests, self.full), lambda more: self.passes(requests, more, ()), added)
            groups = self.removable(requests, added, evidence, full)
        for each in groups.first:
            left = [tuple(symbol for symbol in group if symbol not in removed) for group in each]
            search.remove(left, lambda less: self.passes(requests, added, less), removed)
        search.remove_each(groups.last, lambda less: self.passes(requests, added, less), removed)

    def removable(
        self, requests: Requests, added: Sequence[str], evidence: Mapping[str, Evidence], full: Kernel
    ) -> candidates.Candidates:
        """What might go. What is to stay stays with all that it depends on, and so does what goes last."""
        values = self.settled(requests, added, ()).values
        on = [symbol for symbol, value in values.items() if value == "y"]
        on = [symbol for symbol in on if derive.can_be_off(self.options.get(symbol, []), values)]
        objects = footprint.read(full.folder) or {}
        used = self.with_needs(symbol for symbol, each in evidence.items() if each.phase == Phase.USE)
        return candidates.candidates(
            on, added, evidence, used, self.with_needs(()), self.with_needs(sorted(self.last)),
            lambda symbol: _bytes(symbol, objects, values) or 0, self.options,
        )  # fmt: skip

    def ask_for_kept(self, requests: Requests) -> None:
        """Ask for what is kept, and so for what that depends on."""
        for each in self.kept:
            if each.value != "n":
                requests.ask(each.symbol, "kept whatever runs", each.fragment, each.line)

    def with_needs(self, symbols: Iterable[str]) -> set[str]:
        """Options, and those that are kept, with all that they depend on."""
        requests = Requests(self.options, self.full)
        self.ask_for_kept(requests)
        for symbol in symbols:
            requests.ask(symbol, "", "", 0)
        return {*requests.wanted, *(each.symbol for each in self.kept)}

    def settled(self, requests: Requests, added: Iterable[str], removed: Iterable[str]) -> derive.Settled:
        """What the kernel's tools make of the derived requests with more and without some."""
        removed = set(removed)
        kept = [*self.kept, *(Wanted(symbol, "n", "removed", 0) for symbol in sorted(removed))]
        requests = requests.copy()
        for symbol in filter(lambda each: each not in removed, added):
            requests.ask(symbol, "the checks fail without it", "added", 0)
        evidence = (self.journal.evidence or {}).keys() - removed
        return derive.settle(requests, sorted(evidence), kept, self.configure)

    def configure(self, asked: list[Wanted]) -> dict[str, str]:
        """What the tools make of requests; kept, for it takes seconds and is asked again when a derivation goes on."""
        digest = hashlib.sha256(configuration.render(asked).encode()).hexdigest()
        path = f"{self.journal.folder}/configured/{digest}"
        try:
            with open(path) as file:
                return configuration.read(file.read())
        except FileNotFoundError:
            self.progress("settle", "what the kernel's own tools make of what is asked for", 0, 0)
            text = build.settled(self.make, asked)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, text)
            return configuration.read(text)

    def passes(self, requests: Requests, added: Sequence[str], removed: Sequence[str]) -> bool:
        """Whether the checks pass on the kernel of these requests."""
        settled = self.settled(requests, added, removed)
        known = self.journal.run_of(digest_of(settled.values))
        if known is not None:
            return known.passed
        number = len(self.journal.runs)
        if number >= self.budget:
            raise _SpentError
        off = next((run.off for run in reversed(self.journal.runs) if run.passed), ())
        what = candidates.question(added, removed, off, self.options)
        self.progress("ask", f"run {number} of at most {self.budget - 1}: {what}", number, 0)
        run = self.tried(settled, what)
        self.journal.note_run(run)
        self.answered(run)
        return run.passed

    def answered(self, run: Run) -> None:
        """Tell what became of a run."""
        how = f"passed with {run.bytes / 1e6:.1f} MB" if run.passed else f"failed: {run.why.splitlines()[0]}"
        self.progress("answer", f"run {run.number} {how}, after {run.seconds:.0f} s", run.number, 0)

    def tried(self, settled: derive.Settled, what: str) -> Run:
        """Build a kernel and let the checks judge it. One that fails is not kept: nobody is to start a guest on it."""
        begin = time.monotonic()
        try:
            kernel = build.build(self.source, settled.requests, self.cache, self.progress, self.jobs, NAME)
        except KernelError as error:
            return self.run(what, settled.values, None, Checked(False, str(error), -1), begin)
        self.progress("check", what, 0, 0)
        said = self.check(kernel)
        if not said.passed:
            self.forget(kernel)
        return self.run(what, settled.values, kernel, said, begin)

    def run(self, what: str, values: Mapping[str, str], kernel: Kernel | None, said: Checked, begin: float) -> Run:
        """What goes into the journal."""
        return Run(
            number=len(self.journal.runs),
            what=what,
            configuration=digest_of(values),
            kernel=kernel.digest if kernel else "",
            passed=said.passed,
            why=said.why,
            bytes=kernel.bytes if kernel else 0,
            boot_ms=said.boot_ms,
            seconds=round(time.monotonic() - begin, 1),
            off=tuple(sorted(self.full.keys() - values.keys())),
        )

    def forget(self, kernel: Kernel) -> None:
        """Remove a kernel that was built for a question only."""
        if set(names_of(kernel)) <= {NAME}:
            remove(self.cache, kernel)

    def told(
        self, full: Kernel, requests: Requests, evidence: Mapping[str, Evidence], added: Sequence[str],
        removed: Sequence[str], complete: bool,
    ) -> Result:  # fmt: skip
        """The result: the smallest kernel that passed, and what is known of its options."""
        settled = self.settled(requests, added, removed)
        run = self.journal.run_of(digest_of(settled.values))
        if run is None or not run.passed:
            raise KernelError("no derived kernel has passed the checks", "give it a larger --budget")
        kernel = build.build(self.source, settled.requests, self.cache, self.progress, self.jobs, NAME)
        for each in self.journal.runs:
            other = kernel_of(self.cache, each.kernel)
            if other is not None and other.digest != kernel.digest:
                self.forget(other)
        runs = self.journal.runs
        objects = footprint.read(full.folder) or {}
        gone = sorted(self.full.keys() - settled.values.keys())
        dropped = [Dropped(each, first_without(each, runs), *self.costs(each, objects, self.full)) for each in gone]
        found = self.found(settled, evidence, footprint.read(kernel.folder) or {})
        return Result(kernel, full, settled.requests, found, dropped, runs, self.journal.counts, complete)

    def named(self, result: Result) -> Kernel:
        """The result under its name: only when the evidence is there, without which it would count as a general one."""
        return build.build(self.source, result.requests, self.cache, self.progress, self.jobs, self.name)

    def found(
        self, settled: derive.Settled, evidence: Mapping[str, Evidence], objects: Mapping[str, footprint.Object]
    ) -> list[Found]:
        """What is known of each option of the result."""
        kept = {each.symbol for each in self.kept}
        return [
            Found(
                symbol, value, *why(symbol, settled.reasons, evidence, kept),
                *self.costs(symbol, objects, settled.values), failed_without(symbol, self.journal.runs),
            )
            for symbol, value in sorted(settled.values.items())
        ]  # fmt: skip

    def costs(
        self, symbol: str, objects: Mapping[str, footprint.Object], values: Mapping[str, str]
    ) -> tuple[int | None, float | None]:
        """Bytes and milliseconds of an option that is on."""
        needs = {path: each.needs for path, each in objects.items()}
        return _bytes(symbol, objects, values), initcalls.cost_of(symbol, self.journal.initcalls, needs, values)


def _flat(classes: Iterable[candidates.Groups]) -> list[str]:
    return [symbol for groups in classes for group in groups for symbol in group]


def _bytes(symbol: str, objects: Mapping[str, footprint.Object], values: Mapping[str, str]) -> int | None:
    cost = footprint.cost_of(symbol, objects, values)
    return cost.bytes if cost else None
