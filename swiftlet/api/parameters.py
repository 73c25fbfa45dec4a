"""What each method of `io.swiftlet.Node` takes, as docs/wire.md has it. Decoded by `server`, used by `methods`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class Run(msgspec.Struct, forbid_unknown_fields=True):
    """workload: decoded by `node.check`, whose errors carry the path into it.

    snapshot: the machine to clone; what the workload then may say is how the clone differs.
    """

    workload: dict[str, Any]
    detach: bool | None = None
    snapshot: str | None = None


GuestPort = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Snapshot(msgspec.Struct, forbid_unknown_fields=True):
    """name: of the snapshot that is to be taken of a guest. ports: of the guest, on which it has to listen before;
    None: those that it publishes.
    """

    guest: str
    name: str
    ports: Annotated[tuple[GuestPort, ...], msgspec.Meta(max_length=64)] | None = None


class OneSnapshot(msgspec.Struct, forbid_unknown_fields=True):
    """GUEST:NAME."""

    snapshot: str


class OneGuest(msgspec.Struct, forbid_unknown_fields=True):
    """A guest by name, id or the beginning of its id."""

    guest: str


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """attach: stay, as `Run` does without `detach`."""

    guest: str
    attach: bool | None = None


class Exec(msgspec.Struct, forbid_unknown_fields=True):
    """A command in a guest; what is left out is as the guest's own command has it."""

    guest: str
    command: tuple[str, ...]
    env: dict[str, str] | None = None
    workdir: str | None = None
    user: str | None = None
    tty: bool | None = None
    interactive: bool | None = None
    detach: bool | None = None


class Stop(msgspec.Struct, forbid_unknown_fields=True):
    """timeout: seconds, null for the guest's own."""

    guest: str
    timeout: float | None = None


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    """signal: by name."""

    guest: str
    signal: str = "SIGKILL"


class Remove(msgspec.Struct, forbid_unknown_fields=True):
    """force: kill it first if it runs."""

    guest: str
    force: bool | None = None


class Insert(msgspec.Struct, forbid_unknown_fields=True):
    """A template for a running guest."""

    guest: str
    template: str


class List(msgspec.Struct, forbid_unknown_fields=True):
    """all: stopped ones too."""

    all: bool | None = None


class Stats(msgspec.Struct, forbid_unknown_fields=True):
    """guests: [] is all that run."""

    guests: tuple[str, ...] = ()


class Template(msgspec.Struct, forbid_unknown_fields=True):
    """A template by reference."""

    template: str


class Resolve(msgspec.Struct, forbid_unknown_fields=True):
    """lock: what a lock file holds."""

    templates: tuple[str, ...]
    lock: dict[str, Any] | None = None
    upgrade: bool | None = None


class Explain(msgspec.Struct, forbid_unknown_fields=True):
    """path: in the guest, or a bare file name."""

    template: str
    path: str


class TemplateVerify(msgspec.Struct, forbid_unknown_fields=True):
    """templates: [] is all that are resolved. repair: as of `StoreVerify`."""

    templates: tuple[str, ...] = ()
    repair: bool | None = None


class ParseWorkload(msgspec.Struct, forbid_unknown_fields=True):
    """text: YAML. base: where relative paths start. path: the file's name, for errors."""

    text: str
    base: str
    path: str


class StoreVerify(msgspec.Struct, forbid_unknown_fields=True):
    """repair: take what is damaged out of use, so that it is fetched anew."""

    repair: bool | None = None


class StoreGc(msgspec.Struct, forbid_unknown_fields=True):
    """cache: drop the cache too. dry_run: only count."""

    cache: bool | None = None
    dry_run: bool | None = None


class Fragment(msgspec.Struct, forbid_unknown_fields=True):
    """Lines of a kernel's configuration. text: null for one of that name that swiftlet ships."""

    name: str
    text: str | None = None


class KernelBuild(msgspec.Struct, forbid_unknown_fields=True):
    """source: an absolute path, null for Debian's. fragments: laid over the profile, the last one wins."""

    profile: str
    source: str | None = None
    fragments: tuple[Fragment, ...] = ()


class KernelImport(msgspec.Struct, forbid_unknown_fields=True):
    """path: absolute, of a bzImage. modules: the folder of its modules, null for where distributions put them.

    name: null for its release.
    """

    path: str
    modules: str | None = None
    name: str | None = None


class KernelTrim(msgspec.Struct, forbid_unknown_fields=True):
    """workloads: as of `Run`. profile, source, fragments: of the start, as of `KernelBuild`. compare: a profile.

    wished: a whole configuration of which the start has, besides, what can be had; `defconfig` without a text is that
    of the source.
    """

    workloads: tuple[dict[str, Any], ...] = ()
    gate: bool = False
    profile: str = "full"
    source: str | None = None
    fragments: tuple[Fragment, ...] = ()
    wished: Fragment | None = None
    name: str = "derived"
    budget: int = 12
    compare: str = "server"


class OneKernel(msgspec.Struct, forbid_unknown_fields=True):
    """A kernel by the name of its profile, its digest or the beginning of that."""

    kernel: str


class KernelDiff(msgspec.Struct, forbid_unknown_fields=True):
    """Two kernels, each as in `OneKernel`."""

    before: str
    after: str


class KernelExplain(msgspec.Struct, forbid_unknown_fields=True):
    """option: with or without CONFIG_. kernel: null for the newest."""

    option: str
    kernel: str | None = None


class BootProfile(msgspec.Struct, forbid_unknown_fields=True):
    """guest: a virtual machine whose copies are started; or workload: as of `Run`."""

    guest: str | None = None
    workload: dict[str, Any] | None = None


class UnikernelBuild(msgspec.Struct, forbid_unknown_fields=True):
    """path: absolute, of a Python file with tasks. target: unikernel or linux. level: of x86-64."""

    path: str
    target: str = "unikernel"
    level: str = "v2"


class ImageBuild(msgspec.Struct, forbid_unknown_fields=True):
    """workload: as of `Run`. output: absolute, without an ending. size: bytes, 0 for no more than is needed."""

    workload: dict[str, Any]
    output: str
    formats: tuple[str, ...] = ("raw",)
    firmware: tuple[str, ...] = ("bios", "efi")
    size: int = 0
    at_end: str = "off"
    compress: bool = False
