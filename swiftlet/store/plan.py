"""What a tree will hold, worked out from a closure's entries before anything is made. Pure.

This is where an enemy's closure is stopped: nothing that could lead out of the tree, replace one thing by
another, or carry a privilege gets into a plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from swiftlet.model.closure import Entry
from swiftlet.model.error import InputError
from swiftlet.store.layout import DIGEST

MAX_DEPTH = 128
"""Folders above one file; the deepest that Debian packages have is about 20."""

_MAX_NAME = 255
_MAX_PATH = 4095
_FILE_MODE = 0o555
_FOLDER_MODE = 0o3777
_MAX_ID = 0xFFFFFFFE


@dataclass(slots=True)
class Folder:
    """A folder of a tree. entry: how it was declared, None where it is only there for what lies in it."""

    entry: Entry | None = None
    folders: dict[str, Folder] = field(default_factory=dict)
    leaves: dict[str, Entry] = field(default_factory=dict)

    @property
    def attributes(self) -> tuple[int, int, int]:
        """Mode, uid and gid."""
        return (self.entry.mode, self.entry.uid, self.entry.gid) if self.entry else (0o755, 0, 0)


def is_executable(entry: Entry) -> bool:
    """Whether a file's entry stands for the executable object."""
    return bool(entry.mode & 0o111)


def plan_tree(entries: Iterable[Entry]) -> Folder:
    """The root folder of a tree with everything below it, in whatever order the entries come.

    Raises InputError for a path that is relative, climbs, is too long or too deep, comes twice, or lies below a
    file or a symbolic link; for a mode or an owner that the kind may not have; for a bad digest or target.
    """
    root = Folder()
    for entry in entries:
        _check_attributes(entry)
        names = path_names(entry.path)
        if entry.kind == "directory":
            _declare(root, names, entry)
        else:
            _add_leaf(root, names, entry)
    return root


def path_names(path: str) -> list[str]:
    """The components of an absolute path; none for "/". Raises InputError for one that no tree may have."""
    names = path.split("/")[1:] if path != "/" else []
    if not path.startswith("/") or any(name in ("", ".", "..") for name in names):
        raise InputError(f"not a plain absolute path: {path!r}")
    if "\0" in path or not _is_utf8(path):
        raise InputError(f"path holds a NUL or is not UTF-8: {path!r}")
    if len(names) > MAX_DEPTH or len(path) > _MAX_PATH or any(len(name.encode()) > _MAX_NAME for name in names):
        raise InputError(f"path is too long or too deep: {path[:80]!r}...")
    return names


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_attributes(entry: Entry) -> None:
    if entry.kind == "file":
        _check_file(entry)
    elif entry.kind == "symlink":
        _check_symlink(entry)
    elif entry.mode & ~_FOLDER_MODE:
        raise InputError(f"{entry.path}: a folder may not have mode {entry.mode:04o}")
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise InputError(f"{entry.path}: no such owner: {entry.uid}:{entry.gid}")


def _check_file(entry: Entry) -> None:
    if entry.mode & ~_FILE_MODE:
        raise InputError(f"{entry.path}: a file may not have mode {entry.mode:04o}", "no write, set-id or sticky bits")
    if entry.uid or entry.gid:
        raise InputError(f"{entry.path}: a file belongs to root, not to {entry.uid}:{entry.gid}")
    if not DIGEST.fullmatch(entry.digest):
        raise InputError(f"{entry.path}: not a SHA-256 digest: {entry.digest!r}")


def _check_symlink(entry: Entry) -> None:
    target = entry.target
    if not target or "\0" in target or not _is_utf8(target) or len(target.encode()) > _MAX_PATH:
        raise InputError(f"{entry.path}: no symbolic link can have this target: {target[:80]!r}")


def _descend(root: Folder, names: list[str], path: str) -> Folder:
    """The folder of these names, made with its parents where it is new."""
    folder = root
    for name in names:
        if name in folder.leaves:
            raise InputError(f"{path} lies below {folder.leaves[name].path}, which is a {folder.leaves[name].kind}")
        found = folder.folders.get(name)
        if found is None:
            found = folder.folders[name] = Folder()
        folder = found
    return folder


def _declare(root: Folder, names: list[str], entry: Entry) -> None:
    folder = _descend(root, names, entry.path)
    if folder.entry is not None:
        raise InputError(f"{entry.path} comes twice")
    folder.entry = entry


def _add_leaf(root: Folder, names: list[str], entry: Entry) -> None:
    if not names:
        raise InputError(f"/ is a folder, not a {entry.kind}")
    folder = _descend(root, names[:-1], entry.path)
    if names[-1] in folder.leaves or names[-1] in folder.folders:
        raise InputError(f"{entry.path} comes twice")
    folder.leaves[names[-1]] = entry
