"""A program's top level is code that somebody wrote: what it tries while it is built, and what becomes of it."""

from __future__ import annotations

import os
import py_compile
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swiftlet.linux import confinement
from swiftlet.model.error import InputError
from swiftlet.node import confined
from tests.product import Product

pytestmark = [pytest.mark.root]

ATTACKS = {
    "reads what it was not given": ("open('/etc/shadow')", "FileNotFoundError"),
    "looks at other processes": ("os.listdir('/proc')", "FileNotFoundError"),
    "looks at homes": ("os.listdir('/root')", "FileNotFoundError"),
    "writes to its own folder": ("open(__file__, 'a')", "Permission denied"),
    "writes to the system": ("open('/usr/new', 'w')", "Read-only file system"),
    "makes it writable": ("check(libc.mount(0, b'/usr', 0, 32, 0))", "Operation not permitted"),
    "becomes root": ("os.setuid(0)", "Operation not permitted"),
    "makes a user namespace": ("check(libc.unshare(0x10000000))", "Operation not permitted"),
    "speaks to this host": ("socket.create_connection(('127.0.0.1', int(open(here + '/port').read())), 1)", "unreach"),
    "signals somebody": ("os.kill(int(open(here + '/pid').read()), 9)", "No such process"),
    "opens by handle": ("check(libc.open_by_handle_at(-100, bytes(16), 0))", "Operation not permitted"),
    "traces": ("check(libc.ptrace(16, int(open(here + '/pid').read()), 0, 0))", "No such process"),
    "has many processes": ("[os.fork() or time.sleep(20) for _ in range(200)]", "Resource temporarily unavailable"),
    "fills the memory": ("[bytearray(1 << 26) for _ in range(1000)]", "MemoryError"),
    "fills a disk": ("open('/tmp/large', 'wb').write(bytes(100 << 20))", "File too large|No space left"),
    "outlives its parent": ("check(libc.prctl(1, 0))", "Operation not permitted"),
    "hides memory in files": ("os.memfd_create('hidden')", "Operation not permitted"),
    "opens many files": ("[os.open('/usr', 0) for _ in range(100)]", "Too many open files"),
    "writes to the daemon's log": ("os.ftruncate(2, 0)", "Invalid argument"),
    "reads the memory": ("open('/dev/mem')", "FileNotFoundError"),
}

SETTING = """
import ctypes, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
here = os.path.dirname(__file__)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""

SPEAK = """
import os, stat
for each in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(each).st_mode):
            os.write(each, {})
    except OSError:
        pass
os._exit(0)
"""

DRIP = """
import os, stat, time
while True:
    for each in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(each).st_mode):
                os.write(each, b" ")
        except OSError:
            pass
    time.sleep(0.5)
"""

TASK = "from swiftlet.unikernel import service, task\n@task\ndef one() -> int:\n    return ONE\napp = service(one)\n"


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(3 << 30)


def built(path: Path, *, seconds: float = 60) -> dict[str, Any]:
    function, asked = "swiftlet.unikernel.made:make", {"path": str(path), "target": "unikernel", "level": "v2"}
    result, image = confined.run(function, asked, [str(path.parent)], lambda *told: None, seconds=seconds)
    return {**result, "bytes": len(image)}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


@pytest.mark.parametrize(("attempt", "becomes"), ATTACKS.values(), ids=ATTACKS)
def test_what_a_program_tries_while_it_is_built_fails(program: Path, attempt: str, becomes: str) -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as other,
        subprocess.Popen([sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE, text=True) as listener,
    ):
        assert listener.stdout is not None
        program.with_name("port").write_text(listener.stdout.readline())
        program.with_name("pid").write_text(str(other.pid))
        program.write_text(f"{SETTING}{attempt}\n")
        try:
            with pytest.raises(InputError, match=f"program.py:[78]: .*({becomes})"):
                built(program)
            assert other.poll() is None and listener.poll() is None
        finally:
            other.kill()
            listener.kill()
    assert nobody_is_left()


_LISTEN = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
server.accept()
raise SystemExit("somebody came")
"""


def nobody_is_left() -> bool:
    """Whether no process of a build is there, after a moment: the kernel ends a pid namespace's with its first."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if not any(b"swiftlet.node.confined" in command for command in commands()):
            return True
        time.sleep(0.02)
    return False


def commands() -> Iterator[bytes]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("while True: pass", "takes too long"),
        ("import os; os.fork(); os.setsid()\nwhile True: pass", "takes too long"),
        ("import os; os._exit(0)", "ended Python"),
        ("raise SystemExit", "ended Python"),
        (DRIP, "takes too long"),
        (SPEAK.format("b'{}' + bytes(1)"), "ended Python"),
        (SPEAK.format("b'[' * 100000 + bytes(1)"), "the program's top level: "),
        (SPEAK.format("b'x' * (9 << 20)"), "the program's top level: "),
    ],
)
def test_what_does_not_end_or_ends_python_is_told_and_nothing_is_left(program: Path, text: str, complaint: str) -> None:
    program.write_text(text)
    begin = time.monotonic()
    with pytest.raises(InputError, match=complaint):
        built(program, seconds=4)
    assert time.monotonic() - begin < 10
    assert nobody_is_left()


@pytest.mark.parametrize("result", ['{"tasks": 1}', '{"tasks": [], "modules": ["../../../etc/shadow"]}'])
def test_a_result_that_a_program_forges_is_refused(product: Product, program: Path, result: str) -> None:
    said = f'{{"result": {result}}}'
    program.write_text(SPEAK.format(f"b'{said}' + bytes(1)"))
    refused = product.run("unikernel", "build", str(program))
    assert refused.returncode == 125 and "the program's top level spoke for the compiler" in refused.stderr


def test_a_program_that_others_may_not_read_is_built(program: Path) -> None:
    """As whoever asks could read it, though nobody runs it."""
    program.write_text(TASK.replace("ONE", "1"))
    os.chown(program.parent, 12345, 12345)
    program.parent.chmod(0o700)
    program.chmod(0o600)
    assert built(program)["bytes"] > 10_000


def test_a_program_is_built_anew_when_a_module_beside_it_changes(product: Product, program: Path) -> None:
    program.write_text("from constants import ONE\n" + TASK)
    constants = program.with_name("constants.py")
    constants.write_text("ONE = 1\n")
    first = product.json("unikernel", "build", str(program))
    assert product.json("unikernel", "build", str(program))["reused"]
    constants.write_text("ONE = 2\n")
    second = product.json("unikernel", "build", str(program))
    assert (first["reused"], second["reused"]) == (False, False)
    assert first["digest"] != second["digest"]
    constants.write_text("ONE = 1\n")
    again = product.json("unikernel", "build", str(program))
    assert (again["reused"], again["digest"]) == (True, first["digest"])
    constants.unlink()
    refused = product.run("unikernel", "build", str(program))
    assert "No module named 'constants'" in refused.stderr


def test_only_the_outermost_paths_are_mounted() -> None:
    paths = ["/usr/lib", "/usr", "/usr-local", "/srv/x/", "/srv/x/y", "/usr/"]
    assert list(confinement.outermost(paths)) == ["/srv/x", "/usr", "/usr-local"]


def test_a_program_that_changes_while_it_is_built_is_not_kept(product: Product, program: Path) -> None:
    program.write_text("import time\ntime.sleep(2)\n" + TASK.replace("ONE", "1"))
    with product.spawn("unikernel", "build", str(program)) as build:
        time.sleep(1)
        program.write_text("import time\ntime.sleep(2)\n" + TASK.replace("ONE", "2"))
        assert build.stderr is not None
        assert "has changed while it was built" in build.stderr.read()
    assert build.returncode == 125


def test_the_same_program_in_two_folders_is_two_programs(product: Product, tmp_path: Path) -> None:
    found = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "number.txt").write_text(str(len(name) + len(found)))
        text = "import os\nONE = int(open(os.path.dirname(__file__) + '/number.txt').read())\n"
        (tmp_path / name / "program.py").write_text(text + TASK)
        found.add(product.json("unikernel", "build", str(tmp_path / name / "program.py"))["digest"])
    assert len(found) == 2


def test_cached_bytecode_beside_a_program_is_not_believed(program: Path) -> None:
    program.write_text("from helper import ONE\nassert ONE == 1\n" + TASK)
    helper = program.with_name("helper.py")
    helper.write_text("ONE = 2\n")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(helper), doraise=True, invalidation_mode=mode)
    helper.write_text("ONE = 1\n")
    assert built(program)["bytes"] > 10_000


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/full", path), _sparse])
def test_a_path_that_is_no_program_is_refused_at_once(product: Product, program: Path, make: Any) -> None:
    make(program)
    begin = time.monotonic()
    refused = product.run("unikernel", "build", str(program))
    assert refused.returncode == 125 and ("is no file of" in refused.stderr or "cannot read" in refused.stderr)
    assert time.monotonic() - begin < 5


def test_a_program_by_a_link_is_built(product: Product, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "there/real.py").write_text(TASK.replace("ONE", "1"))
    (tmp_path / "here/program.py").symlink_to(tmp_path / "there/real.py")
    assert product.json("unikernel", "build", str(tmp_path / "here/program.py"))["tasks"]


def test_a_device_as_output_stays_a_device(product: Product, program: Path, tmp_path: Path) -> None:
    program.write_text(TASK.replace("ONE", "1"))
    null = tmp_path / "null"
    os.mknod(null, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    product.ok("unikernel", "build", str(program), "-o", str(null))
    assert stat.S_ISCHR(null.stat().st_mode)
