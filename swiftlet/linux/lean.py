"""`signal` and `socket` as the C modules that lie beneath them.

The standard library's own wrap every constant in an enum: that costs the command milliseconds, and the launcher
memory that each clone copies. Nothing of the wrappers' other comfort is used here.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
    import socket as socket
else:
    import _signal as signal
    import _socket as socket

__all__ = ["signal", "socket"]
