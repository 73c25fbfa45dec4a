"""One file for all: what two unrelated templates use is one inode and one copy in memory, and no guest changes it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.linux.syscall import filesystem_type
from swiftlet.store.layout import Layout
from tests.product import Product

pytestmark = [pytest.mark.root, pytest.mark.net]

LIBC = "/lib/x86_64-linux-gnu/libc.so.6"

RESIDENT = """
import ctypes, mmap, os, sys
file = open(sys.argv[1], 'rb')
size = os.fstat(file.fileno()).st_size
view = mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
pages = (ctypes.c_ubyte * ((size + 4095) // 4096))()
address = ctypes.addressof(ctypes.c_char.from_buffer(view))
if ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages):
    sys.exit(os.strerror(ctypes.get_errno()))
print(sum(page & 1 for page in pages), len(pages))
"""

ATTACKS = textwrap.dedent(
    """
    import ctypes, json, mmap, os, subprocess, sys
    path, said = sys.argv[1], {}
    libc = ctypes.CDLL(None, use_errno=True)

    def attack(name):
        def run(function):
            try:
                said[name] = repr(function())
            except Exception as error:
                said[name] = repr(error)
        return run

    def called(result):
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    @attack("descriptors that leaked")
    def _(): return [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')
                     if int(n) > 2 and os.path.exists(f'/proc/self/fd/{n}')]

    reader = os.open(path, os.O_RDONLY)  # the store's own inode, from before any copy is made

    @attack("write to a descriptor opened for reading")
    def _(): return os.write(reader, b'x')

    @attack("open the descriptor again for writing")
    def _(): return os.write(os.open(f'/proc/self/fd/{reader}', os.O_WRONLY), b'evil')

    @attack("change the mode by descriptor")
    def _(): return os.fchmod(reader, 0o777)

    @attack("change the owner by descriptor")
    def _(): return os.fchown(reader, 1, 1)

    @attack("shared writable mapping")
    def _(): return mmap.mmap(reader, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    @attack("mprotect of a shared mapping")
    def _():
        address = libc.mmap
        address.restype = ctypes.c_void_p
        place = address(None, ctypes.c_size_t(4096), 1, 1, reader, ctypes.c_long(0))
        called(libc.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(4096), 3))
        ctypes.memmove(place, b'evil', 4)

    @attack("write through /proc/self/mem to a shared mapping")
    def _():
        address = libc.mmap
        address.restype = ctypes.c_void_p
        place = address(None, ctypes.c_size_t(4096), 1, 1, reader, ctypes.c_long(0))
        memory = os.open('/proc/self/mem', os.O_RDWR)
        return os.pwrite(memory, b'evil', place)

    @attack("punch a hole")
    def _(): return called(libc.fallocate(reader, 3, ctypes.c_long(0), ctypes.c_long(4096)))

    @attack("truncate by descriptor")
    def _(): return os.ftruncate(reader, 0)

    @attack("open by handle, as it was opened (shocker)")
    def _():
        handle = (ctypes.c_uint * 40)(128)
        number = ctypes.c_int()
        called(libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(number), 0))
        return called(libc.open_by_handle_at(reader, handle, os.O_RDWR))

    @attack("hard link and write there")
    def _():
        os.link(path, '/tmp/linked')
        with open('/tmp/linked', 'r+b') as file:
            file.write(b'evil')

    @attack("rename and write there")
    def _():
        os.rename('/tmp/linked', '/tmp/renamed')
        with open('/tmp/renamed', 'r+b') as file:
            file.write(b'evil')

    @attack("write by path")
    def _():
        with open(path, 'r+b') as file:
            file.write(b'evil')

    @attack("chmod by path")
    def _(): return os.chmod(path, 0o777)

    @attack("extended attribute")
    def _(): return os.setxattr(reader, 'user.evil', b'x')

    for flags, what in ((32, 'remount'), (32 | 4096, 'bind remount')):
        @attack(what)
        def _(): return called(libc.mount(b'none', b'/', None, ctypes.c_ulong(flags), None))

    @attack("mount another overlay")
    def _(): return called(libc.mount(b'overlay', b'/mnt', b'overlay', 0, b'lowerdir=/:/usr'))

    for kind, major, minor in ((0o060000, 254, 0), (0o060000, 8, 0), (0o020000, 1, 1), (0o020000, 1, 2)):
        @attack(f"device {kind:o} {major}:{minor}")
        def _():
            os.mknod(f'/tmp/device-{major}-{minor}-{kind}', kind | 0o666, os.makedev(major, minor))
            return os.open(f'/tmp/device-{major}-{minor}-{kind}', os.O_RDWR)

    @attack("trace and the roots of others")
    def _():
        others = [name for name in os.listdir('/proc') if name.isdigit() and int(name) not in (os.getpid(), 1)]
        return others, called(libc.ptrace(16, int(sys.argv[2]), 0, 0))

    @attack("root of a process of the host")
    def _(): return os.listdir(f'/proc/{sys.argv[2]}/root')

    print(json.dumps(said))
    """
)


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def object_of(product: Product, path: str, template: str) -> str:
    entry = product.json("template", "explain", template, path)["entry"]
    return Layout(product.instance.root).object(entry["digest"], bool(entry["mode"] & 0o111))


def test_a_library_of_two_unrelated_templates_has_one_inode(product: Product) -> None:
    ours = product.ok("run", "--rm", "-t", "coreutils", "--", "stat", "-L", "-c", "%i", LIBC)
    script = f"import os; print(os.stat('{LIBC}').st_ino)"
    theirs = product.ok("run", "--rm", "-t", "python@3.11", "--", "python3", "-c", script)
    stored = os.stat(object_of(product, LIBC, "coreutils"))
    assert int(ours) == int(theirs) == stored.st_ino
    assert stored.st_nlink >= 3


def is_in_memory(path: str) -> bool:
    """Whether a folder is of tmpfs, whose pages are the files themselves: none can be dropped."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return filesystem_type(fd) == 0x01021994
    finally:
        os.close(fd)


@pytest.fixture
def on_disk(product: Product) -> Iterator[Product]:
    """swiftlet with its store on a disk: an installation of its own where /tmp is in memory."""
    if not is_in_memory(product.instance.root):
        yield product
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if is_in_memory(folder):
            pytest.skip("host lacks: a file system that is not in memory")
        made = Product(folder)
        yield made
        made.close()
        assert made.leftovers() == []


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A file of 8 MiB and two templates that have nothing else in common."""
    folder = tmp_path_factory.mktemp("twins")
    data = folder / "data"
    data.write_bytes(os.urandom(8 << 20))
    names = []
    for name, runtime in (("one", "coreutils"), ("two", "python@3.11")):
        text = f"name: {name}\nversion: 1\nfiles:\n  data: {data}\nrequires:\n  - {runtime}\n"
        (folder / f"{name}.yaml").write_text(text)
        names.append(str(folder / f"{name}.yaml"))
    return str(data), names[0], names[1]


def test_a_page_that_one_guest_read_is_in_memory_for_the_other(on_disk: Product, twins: tuple[str, str, str]) -> None:
    data, one, two = twins
    on_disk.ok("run", "--rm", "-t", one, "--", "true")

    def resident() -> list[int]:
        said = on_disk.ok("run", "--rm", "-t", two, "--", "python3", "-c", RESIDENT, data)
        return [int(word) for word in said.split()]

    resident()  # resolves and links: from here on nothing but a guest opens the file
    stored = object_of(on_disk, data, one)
    fd = os.open(stored, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    cold, pages = resident()
    assert (cold, pages) == (0, 2048), "the control: nobody has read it yet"
    on_disk.ok("run", "--rm", "-t", one, "--", "md5sum", data)
    assert resident() == [2048, 2048]


@pytest.mark.parametrize("options", [[], ["--userns"]], ids=["root", "user namespace"])
def test_root_in_a_guest_cannot_change_the_store(product: Product, options: list[str]) -> None:
    stored = object_of(product, LIBC, "python@3.11")
    before = digest(stored), os.stat(stored)
    product.ok("run", "-d", "--name", "witness", "-t", "coreutils", "--", "sleep", "100")
    pid = product.json("inspect", "witness")[0]["pid"]
    try:
        arguments = ["run", "--rm", *options, "-t", "python@3.11", "--", "python3", "-c", ATTACKS, LIBC, str(pid)]
        said = json.loads(product.ok(*arguments))
        seen = product.ok("exec", "witness", "--", "sha256sum", LIBC).split()[0]
    finally:
        product.ok("rm", "-f", "witness")
    assert seen == before[0] == digest(stored), said
    after = os.stat(stored)
    for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_ino"):
        assert getattr(after, field) == getattr(before[1], field), said
    assert "user.evil" not in os.listxattr(stored)
    harmless = {"hard link and write there", "rename and write there", "write by path", "chmod by path"}
    harmless |= {"change the mode by descriptor", "change the owner by descriptor", "extended attribute"}
    harmless |= {"open the descriptor again for writing", "descriptors that leaked"}  # in a copy of the guest's own
    assert {name for name, result in said.items() if "Error" not in result} <= harmless, said
    assert said["descriptors that leaked"] == "[]"
    assert product.json("store", "verify")["damaged"] == []


def test_the_store_cannot_be_mounted_for_writing(product: Product) -> None:
    root = product.instance.root
    for source in (root, f"{root}/objects", os.path.dirname(root), "/"):
        done = product.run("run", "--rm", "-t", "coreutils", "-v", f"{source}:/v", "--", "true")
        assert done.returncode == 125, source
        assert done.stderr.startswith("swiftlet: "), done.stderr
    outside = f"{os.path.dirname(root)}/outside-{os.getpid()}"
    os.symlink(f"{root}/objects", outside)
    try:
        assert product.run("run", "--rm", "-t", "coreutils", "-v", f"{outside}:/v", "--", "true").returncode == 125
    finally:
        os.unlink(outside)


def test_a_bind_mount_of_the_store_elsewhere_is_refused_too(product: Product, tmp_path: Path) -> None:
    """The store reached by another path: it is the file system that counts, not the name."""
    subprocess.run(["mount", "--bind", f"{product.instance.root}/objects", tmp_path], check=True)
    try:
        assert product.run("run", "--rm", "-t", "coreutils", "-v", f"{tmp_path}:/v", "--", "true").returncode == 125
    finally:
        subprocess.run(["umount", tmp_path], check=True)
