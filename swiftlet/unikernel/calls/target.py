"""What a target supplies by these names: the unikernel in `kernel.service`, the program of Linux in `linux.service`."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import external, u64


@external
def moment() -> u64:
    """Now."""
    raise NotImplementedError


@external
def millisecond() -> u64:
    """How many moments that is."""
    raise NotImplementedError


@external
def most_of_a_call() -> u64:
    """Bytes that arguments, outcomes and results of one call may have together."""
    raise NotImplementedError


@external
def most_of_a_result() -> u64:
    """Bytes that a result may have that may be of any size."""
    raise NotImplementedError


@external
def too_large() -> u64:
    """The text for a call that has more."""
    raise NotImplementedError


@external
def take_room(job: u64, size: u64) -> u64:
    """Let a job have so much memory, from `job.memory` on; 0 where there is none."""
    raise NotImplementedError


@external
def begin_tasks(job: u64) -> None:
    """A job is ready: let its tasks be run."""


@external
def end_tasks(job: u64) -> None:
    """Its time is over."""


@external
def figures_place() -> u64:
    """Where the service's figures lie, as they are now."""
    raise NotImplementedError


@external
def figures_size() -> u64:
    """How many bytes."""
    raise NotImplementedError


@external
def reply_room() -> u64:
    """Where the next reply is written; 0 where there is no room for one."""
    raise NotImplementedError


@external
def send_reply(reply: u64, length: u64, peer: u64, path: u64) -> None:
    """Send what was written there. peer, path: of who asked (`job.Job`)."""


@external
def may_shut_down() -> u64:
    """Whether who asks may end it all."""
    raise NotImplementedError


@external
def shut_down() -> None:
    """End it all."""


@external
def memcpy(target: u64, source: u64, count: u64) -> u64:
    raise NotImplementedError


@external
def memset(target: u64, byte: u64, count: u64) -> u64:
    raise NotImplementedError
