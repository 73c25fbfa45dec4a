"""What is known of a task that failed, as an exception: the one that it raised, or what ended it."""

from __future__ import annotations

import ast
import builtins
import struct
from typing import Any

from swiftlet.model.error import SwiftletError
from swiftlet.unikernel.signature import Signature
from swiftlet.unikernel.wire import ABORT_VECTOR, ABORTED, TIMER_VECTOR, Outcome

_DIVIDE, _PAGE_FAULT, _DOUBLE_FAULT = 0, 14, 8

_SEPARATOR = "\0"


class TaskError(SwiftletError):
    """A task was ended, or it raised an exception that Python does not have built in."""


class DeadlineError(TaskError):
    """A task's time was over."""


def encoded(kind: str, message: str, function: str, file: str, line: int) -> bytes:
    """An exception as an image has it: the builder writes it, and `failure_of` reads it. message: its `str`."""
    return _SEPARATOR.join((kind, message, function, file, str(line))).encode(errors="backslashreplace")


def _decoded(data: bytes) -> tuple[str, str, str, str, str]:
    """Kind, message, function, file and line; a message may have the separator in it."""
    kind, _, rest = data.decode(errors="replace").partition(_SEPARATOR)
    *message, function, file, line = rest.split(_SEPARATOR) if rest.count(_SEPARATOR) >= 3 else (rest, "", "", "")
    return kind, _SEPARATOR.join(message), function, file, line


def failure_of(outcome: Outcome, signature: Signature) -> BaseException:
    """The exception for an outcome."""
    if outcome.status >= ABORTED:
        return _ended(outcome.status - ABORTED, outcome.data, signature)
    kind, message, function, file, line = _decoded(outcome.data)
    found = getattr(builtins, kind, None)
    place = f"{file}:{line}, in {function}" if file else f"in {signature.name}"
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            raised = found(*_arguments(found, message))
        except TypeError:  # of a kind that takes more than words
            return TaskError(f"{kind}: {message} ({place})")
        raised.add_note(place)
        return raised
    return TaskError(f"{kind}: {message} ({place})")


def _arguments(kind: type[Exception], message: str) -> list[Any]:
    """With what an exception says this. A KeyError shows its key as Python writes it."""
    if not message:
        return []
    if issubclass(kind, KeyError):
        try:
            return [ast.literal_eval(message)]
        except (ValueError, SyntaxError):
            pass
    return [message]


def _ended(vector: int, data: bytes, signature: Signature) -> BaseException:
    if vector in (ABORT_VECTOR, TIMER_VECTOR):
        return DeadlineError(f"{signature.name} was not done when its time was over")
    place = struct.unpack("<Q", data)[0] if len(data) == 8 else 0
    if vector in (_PAGE_FAULT, _DOUBLE_FAULT):
        return RecursionError(f"{signature.name} called itself too deeply, or touched {place:#x}, which is not its own")
    if vector == _DIVIDE:
        return ZeroDivisionError(f"division by zero in {signature.name}")
    return TaskError(f"{signature.name} was ended by the processor: exception {vector} at {place:#x}")
