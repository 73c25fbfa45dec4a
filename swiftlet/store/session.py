"""One piece of work on the store: a pull, the generation of a guest. What it finds or makes stays until it ends."""

from __future__ import annotations

from swiftlet.store.guard import Guard
from swiftlet.store.layout import Layout
from swiftlet.store.objects import Objects
from swiftlet.store.records import Records
from swiftlet.store.trees import Trees


class Session:
    """A context manager whose parts all claim what they touch (see `guard`).

    ::

        with Session(layout) as session:
            stored = session.objects.put(fd)
            session.records.save_closure(closure)
            session.trees.build(closure.digest, closure.entries)
            session.records.save_lock("python@3.11", {"closures": [closure.digest]})

    directory: absolute path for things half-made, on the store's file system; gone when the session ends, also by
    SIGKILL (then with the next sweep).
    """

    def __init__(self, layout: Layout) -> None:
        """Raises FullError, NotFoundError where the store was not prepared."""
        self.layout = layout
        self.guard = Guard(layout)
        self.directory = self.guard.directory
        self.objects = Objects(layout, self.guard)
        self.trees = Trees(layout, self.objects)
        self.records = Records(layout, self.guard)

    def close(self) -> None:
        """End the session."""
        self.guard.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
