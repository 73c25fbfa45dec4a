"""Guest states and the one table of legal transitions: the Reg paper's section 3.1 and its figure 2."""

from __future__ import annotations

from typing import Literal

from swiftlet.model.error import ConflictError

State = Literal["Generating", "Generated", "Running", "Inserting", "Stopped", "Removed"]

TRANSITIONS: dict[State, frozenset[State]] = {
    "Generating": frozenset(("Generated", "Removed")),
    "Generated": frozenset(("Running", "Stopped", "Removed")),
    "Running": frozenset(("Inserting", "Stopped")),
    "Inserting": frozenset(("Running", "Stopped")),
    "Stopped": frozenset(("Generated", "Removed")),
    "Removed": frozenset(),
}
"""Generated -> Stopped is a start that failed; Stopped -> Generated is a guest that is to be started again."""


def check_transition(guest: str, old: State, new: State) -> None:
    """Raise ConflictError unless `guest` may go from `old` to `new`."""
    if new not in TRANSITIONS[old]:
        raise ConflictError(f"guest {guest} is {old} and cannot become {new}")
