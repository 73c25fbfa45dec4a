"""What the store's tests share: a store in a temporary folder, closures of small files, and damage."""

from __future__ import annotations

import os
import random

from swiftlet.model.closure import Closure, Entry, closure_of
from swiftlet.store.layout import Layout
from swiftlet.store.objects import Objects
from swiftlet.store.session import Session


def new_store(root: object) -> Layout:
    layout = Layout(str(root))
    layout.prepare()
    return layout


def file_entry(objects: Objects, path: str, content: bytes, *, executable: bool = False) -> Entry:
    stored = objects.put_bytes(content, executable=executable)
    return Entry(path, "file", 0o555 if executable else 0o444, stored.digest, stored.size)


def folder(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(path, "directory", mode, uid=uid, gid=gid)


def symlink(path: str, target: str) -> Entry:
    return Entry(path, "symlink", 0o777, target=target)


def pull(session: Session, name: str, files: dict[str, bytes], *, lock: bool = True) -> Closure:
    """What a resolution does to the store: files, closure, tree, and last the lock."""
    entries = [file_entry(session.objects, path, content) for path, content in files.items()]
    closure = closure_of(name, entries)
    session.records.save_closure(closure)
    session.trees.build(closure.digest, closure.entries)
    if lock:
        session.records.save_lock(name, {"closures": [closure.digest]})
    return closure


def everything(folder: str) -> list[str]:
    """Every path below a folder, relative to it."""
    found = []
    for where, folders, files in os.walk(folder):
        found += [os.path.relpath(f"{where}/{name}", folder) for name in folders + files]
    return sorted(found)


def flip_byte(path: str, chooser: random.Random) -> int:
    """Change one bit of a file behind the store's back; returns the offset."""
    mode = os.stat(path).st_mode & 0o7777
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        offset = chooser.randrange(os.path.getsize(path))
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ (1 << chooser.randrange(8))]))
    os.chmod(path, mode)
    return offset
