"""The one tree of errors. Libraries raise them; only `cli` prints them and exits.

::

    SwiftletError                 125
    +-- InputError                125  what the user wrote is wrong (YAML, flag, wire message)
    |   +-- CycleError                 templates that require one another
    +-- NotFoundError             125  no such template, version, package, guest, file
    +-- ConflictError             125  a name or a port in use, a state that forbids the call
    +-- ResolveError              125  a file's needs cannot be met
    |   +-- MissingLibraryError        who needs it, which package offers it
    |   +-- BadElfError                truncated, 32-bit, not ELF
    +-- FetchError                125  the network or the package source failed
    +-- StoreError                125  the store could not keep or give a file
    |   +-- CorruptError               stored bytes are not what their name says
    |   +-- FullError                  no space left
    +-- KernelError               125  a kernel could not be configured or built
    +-- HostError                 125  this host lacks something (root, overlay, ...)
    +-- LaunchError               126  the guest could not be started
    |   +-- CommandNotFoundError  127  the command is not in the closure
    +-- WireError                 125  the other end of a socket broke the protocol or went away

Exit codes 125, 126 and 127 are those of docker and podman.
"""

from __future__ import annotations


class SwiftletError(Exception):
    """Something failed: `str(error)` says what and on which object, `hint` says what to do ("" when nothing helps)."""

    exit_code = 125

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def kind(self) -> str:
        """The name by which this error travels over the wire: of the class of this tree that it is."""
        return next(cls.__name__ for cls in type(self).__mro__ if cls.__module__ == __name__)


class InputError(SwiftletError):
    """What the user wrote cannot be understood; the message carries the path into the document (`$.libs[2]`)."""


class CycleError(InputError):
    """Templates require one another; the message lists the cycle in order."""


class NotFoundError(SwiftletError):
    """No template, version, package, guest or file of that name; the hint lists near matches."""


class ConflictError(SwiftletError):
    """A name or port is in use, or the guest's state forbids the call."""


class ResolveError(SwiftletError):
    """The needs of a file cannot be met."""


class MissingLibraryError(ResolveError):
    """A soname that no package of the template offers."""


class BadElfError(ResolveError):
    """A file that should be a 64-bit x86 ELF object and is not, or is cut short."""


class FetchError(SwiftletError):
    """A package source could not be reached or answered nonsense."""


class StoreError(SwiftletError):
    """The store could not keep or give a file."""


class CorruptError(StoreError):
    """Stored bytes are not what their name says."""


class FullError(StoreError):
    """No space left; nothing half-written stays behind."""


class KernelError(SwiftletError):
    """A kernel could not be configured or built; the message has the option or the compiler's own words."""


class HostError(SwiftletError):
    """This host lacks something that was asked for."""


class LaunchError(SwiftletError):
    """The guest could not be started."""

    exit_code = 126


class CommandNotFoundError(LaunchError):
    """The command is not in the guest's root."""

    exit_code = 127


class WireError(SwiftletError):
    """The other end of a socket broke the protocol or went away."""


def error_classes() -> dict[str, type[SwiftletError]]:
    """Every class of the tree by its wire name; what others derive from them stays with them."""
    found: dict[str, type[SwiftletError]] = {}
    pending: list[type[SwiftletError]] = [SwiftletError]
    while pending:
        cls = pending.pop()
        found[cls.__name__] = cls
        pending.extend(sub for sub in cls.__subclasses__() if sub.__module__ == __name__)
    return found


def from_wire(kind: str, message: str, hint: str = "") -> SwiftletError:
    """Rebuild an error that was sent by name; an unknown name becomes a plain SwiftletError."""
    return error_classes().get(kind, SwiftletError)(message, hint)
