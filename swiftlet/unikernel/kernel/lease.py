"""This machine's address, where it has it by DHCP: asked for, renewed in time, and given up when its time is over.

RFC 2131, 4.4, figure 5. The first processor alone runs this: before it serves, between frames, and while it runs a task
in the timer's interrupt, where nothing is received.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import clock, console, dhcp, net
from swiftlet.unikernel.kernel.dhcp import ACKNOWLEDGED, DISCOVER, OFFER, REFUSED, REQUEST, told
from swiftlet.unikernel.metal.words import Struct, counter, pause, place, text, u64

SELECTING, BOUND, REQUESTING, RENEWING, REBINDING = 1, 2, 3, 4, 5
"""0: the address was said, and stays. Above BOUND a server is to acknowledge something."""

EVERYBODY = 0xFFFFFFFF

FIRST_WAIT, LONGEST_WAIT = 250, 64_000
"""Milliseconds that an answer may take at first, and after having been doubled often (RFC 2131, 4.1)."""

PATIENCE = 8000
"""Milliseconds for which the start waits for an address."""

LEAST_PAUSE = 60_000
"""Milliseconds between requests for more time (RFC 2131, 4.4.5)."""

FOR_EVER = 1 << 31
"""Seconds from which on no end is counted; RFC 2131, 3.3 has its own number for that, which is larger."""

MILLISECONDS = 984
"""Of a second of a lease: the counter's rate is measured to a hundredth, and an address is not to be kept too long."""


class Lease(Struct):
    """id: of the last request. wait: for an answer. sent: when it was sent; a lease counts from then.

    next: when something is to be done, 0 for never. rebind, end: when everybody is to be asked, and when it is over.
    """

    state: u64
    id: u64
    wait: u64
    sent: u64
    next: u64
    rebind: u64
    end: u64
    server: u64
    hardware: u64


lease = place(Lease)


def begin() -> None:
    """Ask for an address, and wait for it a while; it may come later."""
    lease.wait = FIRST_WAIT
    started = counter()
    discover()
    while lease.state != BOUND and not clock.older(started, PATIENCE):
        if net.receive():
            hear()
        tend(False)
        pause()
    if lease.state != BOUND:
        console.say(text("no address was said, and nobody answers DHCP; it is asked again\n"))


def tend(busy: bool) -> None:
    """Do what is due. busy: a task is being run, so frames wait that nobody has looked at."""
    now = counter()
    if lease.next == 0 or now < lease.next:
        return
    if lease.state == SELECTING or lease.state == REQUESTING:
        discover()
    elif now < lease.rebind:
        renew(RENEWING, lease.hardware, lease.server, lease.rebind)
    elif now < lease.end:
        renew(REBINDING, net.EVERYBODY, EVERYBODY, lease.end)
    elif busy:  # more time may have been granted in one of the frames
        clock.wake_at(0)
    else:
        console.say(text("the time of the address is over\n"))
        lose()


def hear() -> None:
    """A datagram has come that may be for a client of DHCP."""
    kind = dhcp.heard(lease.id)
    if kind == OFFER and lease.state == SELECTING and told.address:
        request()
    elif kind == ACKNOWLEDGED and lease.state > BOUND:
        bind()
    elif kind == REFUSED and lease.state > BOUND:
        lose()


def discover() -> None:
    """Ask who has an address."""
    lease.state = SELECTING
    lease.id = counter() & 0xFFFFFFFF
    dhcp.say(DISCOVER, lease.id, net.EVERYBODY, EVERYBODY)
    wake_at(clock.after(lease.wait))
    if lease.wait < LONGEST_WAIT:
        lease.wait += lease.wait


def request() -> None:
    """Ask for the address that is offered."""
    lease.state = REQUESTING
    lease.sent = counter()
    lease.server = told.server
    dhcp.say(REQUEST, lease.id, net.EVERYBODY, EVERYBODY)
    wake_at(clock.after(lease.wait))


def renew(state: u64, hardware: u64, target: u64, limit: u64) -> None:
    """Ask for more time, and again after half of what is left until the limit. RFC 2131, 4.4.5."""
    lease.state = state
    lease.id = counter() & 0xFFFFFFFF
    lease.sent = counter()
    dhcp.say(REQUEST, lease.id, hardware, target)
    wait = (limit - lease.sent) // 2
    least = clock.counts(LEAST_PAUSE)
    again = lease.sent + (wait if wait > least else least)
    wake_at(again if again < limit else limit)


def bind() -> None:
    """The address is this machine's, for a time."""
    if lease.state == REQUESTING:
        net.network.address = told.address
        net.tell()
    elif told.address != net.network.address:
        return
    net.network.mask = told.mask
    net.network.gateway = told.gateway
    lease.state = BOUND
    lease.wait = FIRST_WAIT
    if told.server:
        lease.server = told.server
    lease.hardware = told.hardware
    plan()


def plan() -> None:
    """Note when more time is to be asked for: when the server says, else after a half and seven eighths of it."""
    seconds = told.seconds
    if seconds == 0 or seconds >= FOR_EVER:
        wake_at(0)
        return
    renewal = told.renewal * MILLISECONDS
    rebinding = told.rebinding * MILLISECONDS
    if renewal == 0 or told.renewal >= told.rebinding or told.rebinding >= seconds:
        renewal = seconds * MILLISECONDS // 2
        rebinding = seconds * MILLISECONDS * 7 // 8
    lease.rebind = lease.sent + clock.counts(rebinding)
    lease.end = lease.sent + clock.counts(seconds * MILLISECONDS)
    wake_at(lease.sent + clock.counts(renewal))


def lose() -> None:
    """The address is no longer this machine's: begin anew, a little later, for a server may refuse time and again."""
    net.network.address = 0
    lease.state = SELECTING
    wake_at(clock.after(lease.wait))


def wake_at(then: u64) -> None:
    """Note when something is to be done, 0 for never."""
    lease.next = then
    clock.wake_at(then)
