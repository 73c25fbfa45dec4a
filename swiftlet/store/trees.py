"""Link trees: a closure as a folder of hard links, made once, renamed into place, never changed.

What may be in a tree is `plan`'s decision; whether a tree still is what it was is `verify`'s.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from swiftlet.model.closure import Entry
from swiftlet.model.error import NotFoundError
from swiftlet.store.files import CHUNK, storing, write_all
from swiftlet.store.guard import Guard, guarded
from swiftlet.store.layout import DIGEST, Layout, checked_digest, object_name
from swiftlet.store.objects import EMPTY, MTIME, Objects
from swiftlet.store.plan import Folder, is_executable, plan_tree

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Trees:
    """The trees of one store.

    max_links: links that one object may have before a tree gets a copy of it; None leaves it to the file system
    (ext4 allows 65,000). The session that keeps what is built or found is the objects' own.
    """

    def __init__(self, layout: Layout, objects: Objects, max_links: int | None = None) -> None:
        self.layout = layout
        self.objects = objects
        self.max_links = max_links

    def path(self, digest: str) -> str:
        """Absolute path of a tree, whether or not it is there. Raises InputError unless `digest` is one."""
        return self.layout.tree(digest)

    def exists(self, digest: str) -> bool:
        """Whether the tree is there; it stays until the session ends."""
        path = self.path(digest)
        self.objects.keep((digest,))
        return os.path.isdir(path)

    def names(self) -> list[str]:
        """Digests of all trees, sorted."""
        with storing(self.layout.trees):
            return sorted(name for name in os.listdir(self.layout.trees) if DIGEST.fullmatch(name))

    def build(self, digest: str, entries: Iterable[Entry]) -> str:
        """Make the tree of a saved closure unless it is there, and return its absolute path.

        Two processes may build the same one at once.

        Every object is read and checked before it is linked, unless this `Objects` has put or checked it already.
        Raises InputError (see `plan.plan_tree`), NotFoundError where an object is missing, CorruptError where one
        is damaged, FullError; then nothing of the tree stays.
        """
        path = self.path(digest)
        known = list(entries)
        plan = plan_tree(known)
        self.objects.keep((digest, *(entry.digest for entry in known if entry.digest)))
        if not os.path.isdir(path):
            with guarded(self.layout, self.objects.guard) as guard, storing(path):
                self._build(checked_digest(digest), plan, guard)
        return path

    def _build(self, digest: str, plan: Folder, guard: Guard) -> None:
        interim = guard.interim()
        objects = os.open(self.layout.objects, _OPEN_FOLDER)
        try:
            os.mkdir(interim, 0o700)
            self._fill(interim, None, plan, objects)
            _move_into_place(interim, self.path(digest))
        finally:
            os.close(objects)

    def _fill(self, name: str, parent: int | None, plan: Folder, objects: int) -> None:
        """Fill the new folder `name`, then give it its owner, mode and date."""
        folder = os.open(name, _OPEN_FOLDER, dir_fd=parent)
        try:
            for leaf, entry in plan.leaves.items():
                self._place(leaf, folder, entry, objects)
            for child, content in plan.folders.items():
                os.mkdir(child, 0o700, dir_fd=folder)
                self._fill(child, folder, content, objects)
            _finish(folder, plan)
        finally:
            os.close(folder)

    def _place(self, name: str, folder: int, entry: Entry, objects: int) -> None:
        if entry.kind == "symlink":
            os.symlink(entry.target, name, dir_fd=folder)
        elif entry.digest == EMPTY:
            # Never a link: one program that gets write access to one empty file would fill all of them.
            os.close(_create(name, folder, is_executable(entry)))
        else:
            self._place_object(name, folder, entry, objects)

    def _place_object(self, name: str, folder: int, entry: Entry, objects: int) -> None:
        executable = is_executable(entry)
        try:
            self.objects.check(entry.digest, executable)
        except NotFoundError as error:
            hint = "resolve its template again"
            raise NotFoundError(f"the content of {entry.path} ({entry.digest}) is not in the store", hint) from error
        if not self._link(name, folder, object_name(entry.digest, executable), objects):
            self._copy(name, folder, entry.digest, executable)

    def _link(self, name: str, folder: int, source: str, objects: int) -> bool:
        """Hard-link an object; False where it cannot have another link here."""
        if self.max_links is not None and os.stat(source, dir_fd=objects).st_nlink >= self.max_links:
            return False
        try:
            os.link(source, name, src_dir_fd=objects, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EXDEV):
                raise
            return False
        return True

    def _copy(self, name: str, folder: int, digest: str, executable: bool) -> None:
        """A file of its own with the object's content.

        For an object that has all the links it can have (EMLINK), and for an administrator who mounted another
        disk at objects/ or trees/ (EXDEV). Such a file costs its bytes and is not shared; it is right otherwise.
        """
        source = self.objects.open(digest, executable)
        target = _create(name, folder, executable)
        try:
            while data := os.read(source, CHUNK):
                write_all(target, data)
            os.utime(target, (MTIME, MTIME))
        finally:
            os.close(source)
            os.close(target)


def _create(name: str, folder: int, executable: bool) -> int:
    """Descriptor of a new file with an object's mode and date."""
    fd = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
    os.fchmod(fd, 0o555 if executable else 0o444)
    os.utime(fd, (MTIME, MTIME))
    return fd


def _finish(folder: int, plan: Folder) -> None:
    mode, uid, gid = plan.attributes
    if uid or gid:
        os.fchown(folder, uid, gid)  # before the mode: a change of owner takes the set-group-id bit away
    os.fchmod(folder, mode)
    os.utime(folder, (MTIME, MTIME))


def _move_into_place(interim: str, path: str) -> None:
    try:
        os.rename(interim, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another process built the same tree first; ours goes with the session's folder.
