"""Who a guest runs as: `name|uid[:group|gid]` looked up in the root's own passwd and group. Pure."""

from __future__ import annotations

from typing import NamedTuple

from swiftlet.model.error import InputError

MAX_ID = 65535
"""The highest id that a guest's user namespace maps, and so the highest for any guest."""

_ID_DIGITS = 10


class Account(NamedTuple):
    """Numbers and the home folder of a user."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account_of(user: str, passwd: str, group: str) -> Account:
    """The account that `user` names ("" is root). Raises InputError for a name that the files do not have."""
    name, separator, group_name = user.partition(":")
    found = _find_user(name or "0", passwd)
    if separator:
        return found._replace(gid=_group_id(group_name, group), groups=())
    return found._replace(groups=_supplementary(name or "root", group))


def _rows(text: str, width: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) >= width and _is_number(row[2])]


def _find_user(name: str, passwd: str) -> Account:
    for row in _rows(passwd, 6):
        if name in (row[0], row[2]) and _is_number(row[3]):
            return Account(_bounded(row[2], row[0]), _bounded(row[3], row[0]), (), row[5] or "/")
    if not _is_number(name):
        known = ", ".join(row[0] for row in _rows(passwd, 6))
        raise InputError(f"user {name!r} is not in the guest's /etc/passwd", f"it has {known}; a number works too")
    return Account(_bounded(name), 0, (), "/")


def _group_id(name: str, group: str) -> int:
    for row in _rows(group, 4):
        if name in (row[0], row[2]):
            return _bounded(row[2], row[0])
    if not _is_number(name):
        raise InputError(f"group {name!r} is not in the guest's /etc/group", "a number works too")
    return _bounded(name)


def _supplementary(user: str, group: str) -> tuple[int, ...]:
    return tuple(_bounded(row[2], row[0]) for row in _rows(group, 4) if user in row[3].split(","))


def _is_number(text: str) -> bool:
    """Whether it is one of the digits 0 to 9 alone; isdigit also takes some that int does not."""
    return text.isascii() and text.isdigit()


def _bounded(number: str, name: str = "") -> int:
    """The id, refused above what a guest has: the guest writes these rows, and to the kernel 4294967295 is -1, which
    leaves a process who it is. name: of the row where it was found. The length comes first: int takes 4300 digits.
    """
    if len(number) > _ID_DIGITS or int(number) > MAX_ID:
        where = f" of {name[:40]!r} in the guest's own accounts" if name else ""
        raise InputError(f"id {number[:20]}{where} is above {MAX_ID}, the highest that a guest has")
    return int(number)
