"""Who is who: guests' ids, their folders, and the names that point to them.

`guests/ID/` is a guest; `names/NAME -> ID` is the claim of a name, made by creating the symlink and by nothing
else, so that two claims cannot both succeed. A folder that is to be deleted is first renamed into `tmp/`: a
guest is there as a whole or not at all. What lies in a guest's folder is left to `journal` and `guests`.
"""

from __future__ import annotations

import errno
import os
import random
import re
import secrets
import shutil
import subprocess

from swiftlet.model.error import ConflictError, FullError, InputError, StoreError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_ID = re.compile(r"[0-9a-f]{12}")

_ADJECTIVES = (
    "able agile airy amber ample apt ashen azure bold brave breezy bright brisk calm candid clear clever cosy crisp "
    "curious dapper daring deft eager early easy fair fleet fond frank free fresh gentle glad golden grand green happy "
    "hardy hasty honest humble jolly keen kind lively loyal lucid lucky mellow merry mild modest neat nimble noble "
    "patient placid plain polite proud quick quiet rapid ready robust rosy sage serene sharp silent simple sleek "
    "smooth snug sober solid sound spry steady still stout strong sunny swift tame tender tidy trim true upbeat vivid "
    "warm wary wise witty young zesty"
)
_NOUNS = (
    "auk avocet bittern bluetit bunting bustard buzzard canary chough condor coot crake crane crow curlew dipper dove "
    "duck dunlin eagle egret eider falcon finch flicker gannet godwit goose grebe grouse gull harrier hawk heron hobby "
    "hoopoe ibis jackdaw jay kestrel kite kiwi knot lapwing lark linnet loon magpie martin merlin mynah nuthatch "
    "oriole osprey ouzel owl parrot partridge pelican petrel pigeon pipit plover puffin quail raven redstart robin "
    "rook ruff sandpiper serin shrike siskin skua snipe sparrow starling stilt stint stork swallow swan swift teal "
    "tern thrush tit toucan turnstone twite vireo wagtail warbler whimbrel whinchat wigeon woodcock wren wryneck"
)


def new_id() -> str:
    """Twelve random hexadecimal digits, a letter among them.

    It is the guest's host name, and of a number the C library thinks that it is an address, which it is not.
    """
    while (id_ := secrets.token_hex(6)).isdigit():
        pass
    return id_


def is_id(text: str) -> bool:
    """Whether `text` has an id's form."""
    return _ID.fullmatch(text) is not None


class Names:
    """The claims in one root's `names/`, and the folders in its `guests/`."""

    def __init__(self, root: str) -> None:
        self._root = root
        for name, mode in (("guests", 0o711), ("names", 0o700), ("tmp", 0o700), ("leases", 0o700)):
            os.makedirs(f"{root}/{name}", mode, exist_ok=True)

    def folder(self, guest: str) -> str:
        """Where a guest's things lie."""
        return f"{self._root}/guests/{guest}"

    def make_folder(self, guest: str) -> str:
        """Make the guest's folder. Raises FullError, StoreError."""
        folder = self.folder(guest)
        try:
            os.mkdir(folder, 0o711)
        except OSError as error:
            raise storage_error(error, folder) from None
        return folder

    def claim(self, wanted: str, guest: str) -> str:
        """Claim `wanted`, or a made-up name when it is "". Raises InputError, ConflictError (naming the holder)."""
        if not wanted:
            return self._invent(guest)
        if not _NAME.fullmatch(wanted):
            raise InputError(f"not a name for a guest: {wanted[:80]!r}", "letters, digits, _ . -; at most 63")
        if is_id(wanted):
            raise InputError(f"name {wanted} looks like a guest's id", "choose another")
        if not self._link(wanted, guest):
            holder = self.holder(wanted)
            raise ConflictError(
                f"name {wanted} is in use by guest {holder}", f"swiftlet rm {wanted}, or another --name"
            )
        return wanted

    def _invent(self, guest: str) -> str:
        for attempt in range(50):
            name = f"{random.choice(_ADJECTIVES.split())}-{random.choice(_NOUNS.split())}"
            if attempt > 10:
                name += f"-{random.randrange(10000)}"
            if self._link(name, guest):
                return name
        raise ConflictError("no free name was found", "give one with --name")

    def _link(self, name: str, guest: str) -> bool:
        path = f"{self._root}/names/{name}"
        try:
            os.symlink(guest, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise storage_error(error, path) from None
        return True

    def holder(self, name: str) -> str:
        """The id that `name` belongs to, "" when it is free."""
        try:
            return os.readlink(f"{self._root}/names/{name}")
        except OSError:
            return ""

    def release(self, name: str, guest: str) -> None:
        """Give a name back, if it is this guest's."""
        if name and self.holder(name) == guest:
            os.unlink(f"{self._root}/names/{name}")

    def all_names(self) -> dict[str, str]:
        """Every claimed name by the id that claimed it."""
        return {self.holder(name): name for name in os.listdir(f"{self._root}/names")}

    def all_guests(self) -> list[str]:
        """The ids that have a folder."""
        return sorted(name for name in os.listdir(f"{self._root}/guests") if is_id(name))

    def put_away(self, guest: str) -> str:
        """Make a guest's folder vanish at once; returns where its remains wait for `delete`, "" when it had none."""
        grave = f"{self._root}/tmp/guest-{guest}-{secrets.token_hex(4)}"
        try:
            os.rename(self.folder(guest), grave)
        except FileNotFoundError:
            return ""
        return grave

    def graves(self) -> list[str]:
        """What an earlier daemon did not come to delete."""
        return [f"{self._root}/tmp/{name}" for name in os.listdir(f"{self._root}/tmp") if name.startswith("guest-")]


def delete(path: str) -> None:
    """Delete a tree that a guest may have filled as it liked: very deep, very long names, odd modes. Never raises.

    shutil.rmtree is safe against symlinks but recurses and holds a descriptor for each level; rm(1) does neither.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        subprocess.run(["rm", "-rf", "--one-file-system", "--", path], check=False, capture_output=True)


def storage_error(error: OSError, path: str) -> StoreError:
    """An OSError of the disk as an error of the model."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError(f"no space left for {path}", "swiftlet store gc, or free some space")
    return StoreError(f"{path}: {error.strerror}")
