"""Files that people write (templates, workloads): read whole, within a limit, and never a device or a pipe."""

from __future__ import annotations

import os
import stat

from swiftlet.model.error import InputError, NotFoundError

MAX_BYTES = 1 << 20
"""A template is written by hand; the longest shipped one has 8 KiB."""


def read_written(path: str) -> bytes:
    """A regular file's bytes. Raises NotFoundError where there is none, InputError where it is too long or no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"no file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise InputError(f"not a path: {path!r}") from None
    try:
        return _read(descriptor, path)
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: str) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a file")
    data = b""
    while len(data) <= MAX_BYTES:
        block = os.read(descriptor, MAX_BYTES + 1 - len(data))
        if not block:
            return data
        data += block
    raise InputError(f"{path} is longer than {MAX_BYTES} bytes")
