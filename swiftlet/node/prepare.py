"""A workload and its root become a bundle and the files that its start needs.

What only this host can tell (control groups, the compiled seccomp program, opened volumes, ranges of user ids) is
found here and handed to the driver, which plans; nothing is started. Everything lands in the guest's folder, which
the guest itself may have filled by an earlier run, so what is written below its root follows no symlink of its.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from swiftlet.guest import seccomp_profile
from swiftlet.guest.container import capabilities_of
from swiftlet.guest.driver import Driver, MachinePlace, Place
from swiftlet.linux import cgroup, namespace, syscall
from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.error import HostError, InputError, NotFoundError
from swiftlet.model.instance import Instance
from swiftlet.model.workload import Workload
from swiftlet.node.names import storage_error
from swiftlet.node.volumes import INSERTED, Opened, close_volumes, open_files, open_inserted, open_volumes
from swiftlet.store.guard import pin
from swiftlet.store.layout import Layout

if TYPE_CHECKING:
    from swiftlet.node.machines import Found

log = logging.getLogger("swiftlet.prepare")

_FIRST_RANGE, _LAST_RANGE = 0x7000, 0x7FFC
"""Ranges of 65,536 user ids that systemd's UIDS-GIDS leaves unused: 1,879,048,192 to 2,147,352,575."""

_ACCOUNT_FILE_BYTES = 1 << 20

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Bundle)


class Prepared(msgspec.Struct):
    """A bundle, and the volumes that are to be attached: their descriptors are closed by `close`."""

    bundle: Bundle
    opened: list[Opened]

    def close(self) -> None:
        """Close the volumes' descriptors."""
        close_volumes(self.opened)
        self.opened = []

    @contextlib.contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Close them when the body fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise


class Preparer:
    """What one instance knows of its host."""

    def __init__(self, instance: Instance, layout: Layout, drivers: Sequence[Driver]) -> None:
        self._instance = instance
        self._layout = layout
        self._drivers = {driver.kind: driver for driver in drivers}
        self._cgroups: cgroup.Layout | None = None
        self._programs: dict[frozenset[int], str] = {}
        self._accounts: dict[str, tuple[str, str]] = {}
        self._forbidden = (instance.root, instance.run)

    def driver(self, kind: str) -> Driver:
        """The driver of a guest kind. Raises InputError."""
        driver = self._drivers.get(kind)
        if driver is None:
            raise InputError(f"$.kind: no guests of kind {kind!r} here", f"there are {', '.join(self._drivers)}")
        return driver

    @property
    def cgroups(self) -> cgroup.Layout:
        """The host's control groups, ready for guests. Raises HostError when they cannot be used."""
        if self._cgroups is None:
            try:
                layout = cgroup.detect()
                cgroup.prepare_parent(layout, self._instance.cgroup)
            except OSError as error:
                raise HostError(f"control groups cannot be used: {error}", "swiftlet doctor") from None
            self._cgroups = layout
        return self._cgroups

    def remove_groups(self) -> None:
        """Remove the folder of the guests' control groups, when there is no guest any more."""
        if self._cgroups is None:
            return
        try:
            cgroup.remove_parent(self._cgroups, self._instance.cgroup)
        except OSError as error:
            log.warning("%s", error)
        self._cgroups = None

    def prepare(
        self,
        guest: str,
        folder: str,
        workload: Workload,
        rootfs: Rootfs,
        before: Bundle | None = None,
        machine: Found | None = None,
    ) -> Prepared | None:
        """Open the volumes, plan, and write the bundle. before: what the guest was started with the last time.

        machine: what a virtual machine is made of.

        None when the root has been collected meanwhile: make it again. Raises InputError, NotFoundError (a volume's
        source), HostError, StoreError.
        """
        opened = open_volumes(workload.volumes, self._forbidden)
        try:
            opened += open_inserted(inserted_places(before), self._layout.trees)
            bundle = self._bundle(guest, folder, workload, rootfs, opened, before, machine)
            if machine is not None and bundle is not None and bundle.machine is not None:
                targets = tuple(target for target, _ in bundle.machine.process.volumes)[: len(machine.files)]
                opened = open_files(machine.files, targets) + opened
        except BaseException:
            close_volumes(opened)
            raise
        if bundle is None:
            close_volumes(opened)
            return None
        return Prepared(bundle, opened)

    def _bundle(
        self,
        guest: str,
        folder: str,
        workload: Workload,
        rootfs: Rootfs,
        opened: list[Opened],
        before: Bundle | None,
        machine: Found | None,
    ) -> Bundle | None:
        """Plan and write while no collection can take the root from under it; None when one already has."""
        userns = range_of(before) if before else 0
        leased = self._lease_range(guest) if (workload.userns or machine) and not userns else 0
        trees = (*rootfs.trees, *(machine.hypervisor.trees if machine else ()))
        try:
            with pin(self._layout, trees):
                bundle = self._plan(guest, folder, workload, rootfs, opened, userns or leased, machine)
                _write(bundle)
        except BaseException as error:
            if leased:
                self.release_range(leased)
            if isinstance(error, NotFoundError):
                return None
            raise
        return bundle

    def _plan(
        self,
        guest: str,
        folder: str,
        workload: Workload,
        rootfs: Rootfs,
        opened: list[Opened],
        userns: int,
        machine: Found | None,
    ) -> Bundle:
        passwd, group = self.account_files(rootfs)
        place = Place(
            id=guest,
            state_dir=folder,
            netns={"bridge": "fd", "none": "new", "host": "host"}[workload.network],
            volumes=tuple((volume.target, volume.is_folder) for volume in opened),
            userns=0 if machine else userns,
            cgroups=self.cgroups,
            cgroup_folder=self._instance.cgroup,
            passwd=passwd,
            group=group,
            seccomp=self._program(workload),
            machine=_machine_place(machine, userns) if machine else None,
        )
        return self.driver(workload.kind).plan(workload, rootfs, place)

    def write(self, bundle: Bundle) -> None:
        """Put another bundle.json into the guest's folder; from then on the store keeps the trees that it names.

        Raises NotFoundError when one has been collected, StoreError.
        """
        inserted = [place.rpartition("/")[2] for place in inserted_places(bundle)]
        with pin(self._layout, [*bundle.rootfs.trees, *inserted]):
            _write(bundle)

    def _program(self, workload: Workload) -> str:
        """Where the seccomp program for the workload's capabilities lies, compiled once for each set of them."""
        if workload.seccomp != "default":
            return ""
        kept = frozenset(capabilities_of(workload))
        if not os.path.exists(self._programs.get(kept, "")):  # `store gc --cache` takes them away
            try:
                self._programs[kept] = seccomp_profile.program_file(kept, self._layout.cache)
            except OSError as error:
                raise HostError(f"the seccomp profile cannot be compiled: {error}", "swiftlet doctor") from None
        return self._programs[kept]

    def account_files(self, rootfs: Rootfs) -> tuple[str, str]:
        """The texts of passwd and group in a root; they lie in its topmost tree, which never changes."""
        if not rootfs.lowers:
            return "", ""
        top = rootfs.lowers[0]
        known = self._accounts.get(top)
        if known is None:
            known = _read(f"{top}/etc/passwd"), _read(f"{top}/etc/group")
            if os.path.isdir(top):  # else it was taken out of use, and is made again when next needed
                self._accounts[top] = known
        return known

    def _lease_range(self, guest: str) -> int:
        """A range of user ids that no other guest has; a file in `leases/` until the guest is removed."""
        start = random.randrange(_FIRST_RANGE, _LAST_RANGE + 1)
        for number in (*range(start, _LAST_RANGE + 1), *range(_FIRST_RANGE, start)):
            try:
                handle = os.open(self._range_path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue
            os.write(handle, guest.encode())
            os.close(handle)
            return int(number * namespace.RANGE)
        raise HostError("all ranges of user ids are in use", "remove guests that are not needed")

    def release_range(self, first: int) -> None:
        """Give a range back."""
        try:
            os.unlink(self._range_path(first // namespace.RANGE))
        except FileNotFoundError:
            pass

    def keep_ranges(self, used: set[int]) -> None:
        """Remove the leases of ranges (by their first id) that no guest has."""
        for name in os.listdir(self._layout.leases):
            number = name.removeprefix("uid-")
            if name != number and number.isdigit() and int(number) * namespace.RANGE not in used:
                self.release_range(int(number) * namespace.RANGE)

    def _range_path(self, number: int) -> str:
        return f"{self._layout.leases}/uid-{number}"


def _machine_place(machine: Found, user: int) -> MachinePlace:
    return MachinePlace(
        machine.hypervisor,
        machine.kernel.digest,
        machine.images,
        machine.accelerator,
        machine.why,
        user,
        machine.snapshot,
        machine.counter_khz,
        bool(machine.kernel.initramfs),
        machine.mapped,
        bool(machine.opener),
        machine.watched,
    )


def range_of(bundle: Bundle) -> int:
    """The first of the user ids that a guest has leased, 0 for none: a machine's process is that user."""
    return bundle.machine.process.uid if bundle.machine else bundle.userns


def inserted_places(bundle: Bundle | None) -> list[str]:
    """Where components were inserted while the guest ran."""
    return [target for target, _ in bundle.volumes if target.startswith(f"{INSERTED}/")] if bundle else []


def _write(bundle: Bundle) -> None:
    path = f"{bundle.state_dir}/bundle.json"
    try:
        with open(f"{path}.new", "wb") as file:
            file.write(_encoder.encode(bundle))
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise storage_error(error, path) from None


def read_bundle(folder: str) -> Bundle | None:
    """The bundle in a guest's folder; None when there is none, or one that cannot be read."""
    try:
        with open(f"{folder}/bundle.json", "rb") as file:
            return _decoder.decode(file.read())
    except (OSError, msgspec.MsgspecError):
        return None


def furnish(folder: str, files: dict[str, str], owner: int) -> None:
    """Make the guest's upper and work folders and write `files` (guest path -> text) into the upper one.

    A file whose place the guest has made unusable (a removed /etc, a symlink) is left out: it is the guest's own
    loss, and nothing outside of the folder can be meant. Raises StoreError, FullError.
    """
    try:
        for name in ("upper", "work"):
            if not os.path.isdir(f"{folder}/{name}"):
                os.mkdir(f"{folder}/{name}", 0o755)
        upper = os.open(f"{folder}/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for path, text in files.items():
                _write_below(upper, path, text, owner)
        finally:
            os.close(upper)
    except OSError as error:
        raise storage_error(error, folder) from None


_STRICT = syscall.RESOLVE_BENEATH | syscall.RESOLVE_NO_SYMLINKS
_UNUSABLE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_ELOOP = 40


def _write_below(upper: int, path: str, text: str, owner: int) -> None:
    parent, _, name = path.strip("/").rpartition("/")
    try:
        folder = _open_or_make(upper, parent, owner)
        try:
            _replace(folder, name, text, owner)
        finally:
            os.close(folder)
    except _UNUSABLE:
        return
    except OSError as error:
        if error.errno != _ELOOP:
            raise


def _open_or_make(upper: int, folder: str, owner: int) -> int:
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return syscall.openat2(upper, folder, flags, _STRICT)
    except FileNotFoundError:
        os.mkdir(folder, 0o755, dir_fd=upper)
        made = syscall.openat2(upper, folder, flags, _STRICT)
        if owner:
            os.chown(folder, owner, owner, dir_fd=upper, follow_symlinks=False)
        return made


def _replace(folder: int, name: str, text: str, owner: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(name, flags, 0o644, dir_fd=folder)
    try:
        os.write(handle, text.encode())
        if owner:
            os.fchown(handle, owner, owner)
    finally:
        os.close(handle)


def guest_file(folder: str, path: str) -> str | None:
    """The beginning of a regular file in a guest's upper folder; None when there is none.

    A guest can make device nodes there, which do nothing inside but would be opened here: so it is looked at first.
    """
    try:
        upper = os.open(f"{folder}/upper", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = syscall.openat2(upper, path.strip("/"), os.O_PATH | os.O_NOFOLLOW, _STRICT)
        finally:
            os.close(upper)
        try:
            return _read(f"/proc/self/fd/{found}") if stat.S_ISREG(os.fstat(found).st_mode) else None
        finally:
            os.close(found)
    except OSError:
        return None


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(_ACCOUNT_FILE_BYTES)
    except OSError:
        return ""
