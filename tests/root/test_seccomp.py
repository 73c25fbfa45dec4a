"""A process under the default filter: what it may not do fails as it should, ordinary programs notice nothing."""

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys

import pytest

from swiftlet.guest.seccomp_profile import program_for
from swiftlet.linux import capability, seccomp
from swiftlet.linux.seccomp_compiler import ALLOW
from swiftlet.linux.syscall_table import NUMBERS

pytestmark = pytest.mark.root

_libc = ctypes.CDLL(None, use_errno=True)


def attempt(name, *arguments):
    """The errno of a system call made directly, 0 when it succeeds."""
    number = NUMBERS[name] if isinstance(name, str) else name
    result = _libc.syscall(number, *[ctypes.c_long(argument) for argument in arguments])
    return ctypes.get_errno() if result < 0 else 0


def filtered(work, capabilities=capability.DEFAULT):
    """The exit code of a child that runs `work` under the filter (minus the signal that ended it)."""
    program = seccomp.Filter(program_for(frozenset(capabilities)))
    child = os.fork()
    if child == 0:
        code = 99
        try:
            capability.no_new_privileges()
            program.load()
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("mount", (0, 0, 0, 0, 0), errno.EPERM),
        ("unshare", (0x10000000,), errno.EPERM),
        ("keyctl", (0, -3, 0), errno.EPERM),
        ("bpf", (0, 0, 0), errno.EPERM),
        ("io_uring_setup", (1, 0), errno.EPERM),
        ("perf_event_open", (0, 0, 0, 0, 0), errno.EPERM),
        ("userfaultfd", (0,), errno.EPERM),
        ("socket", (40, 1, 0), errno.EPERM),
        ("socket", (1 << 32 | 40, 1, 0), errno.EPERM),
        ("clone", (0x10000000 | 17, 0, 0, 0, 0), errno.EPERM),
        ("personality", (0x40000,), errno.EPERM),
        ("clone3", (0, 0), errno.ENOSYS),
        (9999, (), errno.ENOSYS),
        ("personality", (0xFFFFFFFF,), 0),
        ("getpid", (), 0),
    ],
)
def test_a_call_gets_its_verdict_from_the_kernel(name, arguments, code):
    assert filtered(lambda: attempt(name, *arguments)) == code


def test_the_table_ends_where_this_kernel_does_or_before():
    last = max(NUMBERS.values())
    if attempt(last, -1, -1, 0, 0, 0) == errno.ENOSYS:
        pytest.skip("host lacks: a known kernel (it is older than the table)")
    assert attempt("mseal", 1, 0, 1) == errno.EINVAL
    assert attempt("statmount", 0, 0, 0, 0) != errno.ENOSYS


def test_a_capability_opens_its_calls():
    namespaces = [*capability.DEFAULT, capability.number_of("SYS_ADMIN")]
    assert filtered(lambda: attempt("unshare", 0x20000), namespaces) == 0
    assert filtered(lambda: attempt("sethostname", 0, -1), namespaces) == errno.EINVAL


def test_a_32_bit_call_ends_the_process():
    code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20 (getpid of i386); int 0x80; ret

    def work():
        import mmap

        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return 0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else 1

    assert filtered(work) == -signal.SIGSYS


def test_the_filter_stays_over_execve_and_cannot_be_widened():
    def work():
        with open("/proc/self/status") as file:
            assert "Seccomp:\t2" in file.read()
        seccomp.load(struct.pack("<HBBI", 6, 0, 0, ALLOW))
        return attempt("mount", 0, 0, 0, 0, 0)

    assert filtered(work) == errno.EPERM
    command = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x20000) == -1)"
    assert filtered(lambda: os.execv(sys.executable, [sys.executable, "-c", command])) == 1


def test_loading_needs_no_new_privileges_or_a_capability():
    program = program_for(capability.DEFAULT)
    child = os.fork()
    if child == 0:
        try:
            capability.set_capabilities(frozenset())
            seccomp.load(program)
            os._exit(0)
        except PermissionError as error:
            os._exit(error.errno)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES


def test_a_program_that_the_kernel_does_not_take_is_an_error():
    endless = struct.pack("<HBBI", 0x20, 0, 0, 0)
    child = os.fork()
    if child == 0:
        try:
            capability.no_new_privileges()
            seccomp.load(endless)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EINVAL


ORDINARY = """
import asyncio, ctypes.util, json, locale, mmap, multiprocessing, os, socket, sqlite3, ssl, subprocess
import tempfile, threading, time, zoneinfo, concurrent.futures

assert subprocess.run("echo shell | cat", shell=True, capture_output=True).stdout == b"shell\\n"
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(lambda n: n * n, range(100))) == 328350
queue = multiprocessing.get_context("fork").Queue()
worker = multiprocessing.get_context("fork").Process(target=queue.put, args=("forked",))
worker.start()
assert queue.get(timeout=20) == "forked"
worker.join()
database = sqlite3.connect(tempfile.mkdtemp() + "/x.db")
database.execute("pragma journal_mode=wal")
database.execute("create table t (a)")
database.commit()

async def serve():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    assert await reader.readline() == b"hello\\n"
    process = await asyncio.create_subprocess_exec("/bin/true")
    assert await process.wait() == 0

asyncio.run(serve())
ssl.create_default_context()
pidfd = os.pidfd_open(os.getpid())
os.memfd_create("x")
os.sched_setaffinity(0, os.sched_getaffinity(0))
mmap.mmap(-1, 1 << 20).madvise(mmap.MADV_DONTNEED)
print("all well")
"""


def test_ordinary_python_notices_nothing():
    read, write = os.pipe()

    def work():
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.execv(sys.executable, [sys.executable, "-c", ORDINARY])

    code = filtered(work)
    os.close(write)
    with os.fdopen(read) as output:
        assert (code, output.read().splitlines()[-1]) == (0, "all well")


@pytest.mark.skipif(not os.path.exists("/usr/bin/strace"), reason="strace is not installed")
def test_a_debugger_works_within():
    def work():
        os.execv("/usr/bin/strace", ["strace", "-o", "/dev/null", "/bin/true"])

    assert filtered(work) == 0


def test_programs_of_this_host_notice_nothing():
    for command in (
        ["/bin/ls", "-lR", "/etc/apt"],
        ["/usr/bin/find", "/usr/share/doc", "-maxdepth", "1"],
        ["/bin/date"],
    ):
        plain = subprocess.run(command, capture_output=True, check=True)
        assert filtered(lambda command=command: _quiet(command)) == plain.returncode


def _quiet(command):
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.execv(command[0], command)
