"""/etc/passwd and /etc/group of a guest: the few accounts that everything expects, and those of its templates. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from swiftlet.model.error import InputError

_NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,30}\$?")
_MAX_UID = 65535
"""A guest with a user namespace has this many."""

_NOLOGIN = "/usr/sbin/nologin"
_NOWHERE = "/nonexistent"

_ACCOUNTS = {
    "root": (0, "/root"),
    "daemon": (1, "/usr/sbin"),
    "www-data": (33, "/var/www"),
    "nobody": (65534, _NOWHERE),
}
_GROUPS = {"root": 0, "daemon": 1, "tty": 5, "www-data": 33, "nogroup": 65534}
"""tty: the group that a devpts mount gives its terminals to."""


def passwd(users: Mapping[str, int], homes: Mapping[int, str], shell: str) -> str:
    """/etc/passwd. homes: uid -> home directory. shell: root's. Raises InputError for a name or a uid that is none."""
    accounts = {**_ACCOUNTS, **{name: (uid, homes.get(uid, _NOWHERE)) for name, uid in _checked(users)}}
    lines = [_line(name, uid, home, shell if uid == 0 else _NOLOGIN) for name, (uid, home) in accounts.items()]
    return "".join(lines)


def group(users: Mapping[str, int]) -> str:
    """/etc/group: each user has a group of its own. Raises InputError."""
    groups = {**_GROUPS, **dict(_checked(users))}
    return "".join(f"{name}:x:{gid}:\n" for name, gid in groups.items())


def _line(name: str, uid: int, home: str, shell: str) -> str:
    # Debian's own primary group of nobody is nogroup, with the same number.
    return f"{name}:x:{uid}:{uid}:{name}:{home}:{shell}\n"


def _checked(users: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """The users that may be added, against a name that would smuggle in a line of its own."""
    for name, uid in sorted(users.items()):
        if not _NAME.fullmatch(name) or not 0 <= uid <= _MAX_UID:
            raise InputError(f"no such user can be: {name!r} with uid {uid}")
        if name not in _ACCOUNTS:
            yield name, uid
