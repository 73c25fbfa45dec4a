"""Runs in a container of python@3.11: tries what programs use and minimal runtimes lack, and prints what it found.

One JSON object on standard output, fact -> value, or -> {"failed": traceback}; before it, on a line of its own,
a text that is not ASCII. It runs with the standard library alone.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import locale
import multiprocessing
import os
import pwd
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

CERTIFICATE = "/probe/localhost-test-only.pem"
TEXT = "Grüße, привет, 你好, 👋"


def tls_with_the_trusted_certificate() -> str:
    return str(handshake(ssl.create_default_context(cafile=CERTIFICATE), "localhost"))


def tls_with_others_only() -> str:
    """The same server, of a client that trusts the usual authorities and not this one."""
    try:
        return str(handshake(ssl.create_default_context(), "localhost"))
    except ssl.SSLCertVerificationError as error:
        return error.verify_message


def tls_with_another_name() -> str:
    try:
        return str(handshake(ssl.create_default_context(cafile=CERTIFICATE), "example.org"))
    except ssl.SSLCertVerificationError as error:
        return error.verify_message


def handshake(client: ssl.SSLContext, name: str) -> str | None:
    """A whole handshake over loopback, and a byte each way; the protocol."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(CERTIFICATE)
    with socket.create_server(("localhost", 0)) as listener:
        thread = threading.Thread(target=echo, args=(listener, server))
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), 10) as raw,
                client.wrap_socket(raw, server_hostname=name) as secured,
            ):
                secured.sendall(b"x")
                assert secured.recv(1) == b"x"
                return secured.version()
        finally:
            thread.join()


def echo(listener: socket.socket, context: ssl.SSLContext) -> None:
    raw, _ = listener.accept()
    try:
        with context.wrap_socket(raw, server_side=True) as secured:
            secured.sendall(secured.recv(1))
    except OSError:
        raw.close()  # the client did not like our certificate


def authorities() -> int:
    return ssl.create_default_context().cert_store_stats()["x509_ca"]


def database() -> list[Any]:
    with sqlite3.connect(":memory:") as made:
        made.execute("CREATE VIRTUAL TABLE page USING fts5(body)")
        made.execute("INSERT INTO page VALUES (?)", (TEXT,))
        return list(made.execute("SELECT body FROM page WHERE page MATCH 'привет'").fetchone())


def library_c() -> int:
    return int(ctypes.CDLL(ctypes.util.find_library("c")).getpid()) - os.getpid()


def library_z() -> int:
    return int(ctypes.CDLL(ctypes.util.find_library("z")).crc32(0, b"123456789", 9)) & 0xFFFFFFFF


def library_that_is_not_there() -> Any:
    return ctypes.util.find_library("nosuchlibrary")


def shell() -> list[Any]:
    piped = subprocess.run("echo $((6 * 7)) | { read x; echo got $x; }; exit 4", shell=True, capture_output=True)
    return [piped.returncode, piped.stdout.decode(), os.waitstatus_to_exitcode(os.system("exit 5"))]


def summer_and_winter() -> list[str]:
    zone = ZoneInfo("Europe/Berlin")
    return [datetime(2024, month, 1, 12, tzinfo=zone).strftime("%Z %z") for month in (1, 7)]


def time_zones() -> int:
    return len(available_timezones())


def language() -> list[str]:
    return [locale.setlocale(locale.LC_ALL, "C.UTF-8"), locale.nl_langinfo(locale.CODESET), sys.stdout.encoding]


def own_account() -> list[str]:
    found = pwd.getpwuid(os.getuid())
    return [found.pw_name, found.pw_dir, os.path.expanduser("~")]


def localhost() -> list[str]:
    return sorted({str(found[4][0]) for found in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)})


def own_name() -> bool:
    return socket.gethostbyname(socket.gethostname()).startswith(("127.", "10."))


def services() -> list[Any]:
    return [socket.getservbyname("https"), socket.getservbyport(6379), socket.getprotobyname("tcp")]


def temporary_files() -> list[Any]:
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"x" * 10)
        file.flush()
        return [os.path.dirname(folder), os.path.getsize(file.name), oct(os.stat(tempfile.gettempdir()).st_mode)]


def square(number: int) -> int:
    return number * number


def processes() -> int:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(square, range(10)))


def shared_memory() -> int:
    counter = multiprocessing.Value("i", 0)

    def add() -> None:
        for _ in range(100):
            with counter.get_lock():
                counter.value += 1

    children = [multiprocessing.get_context("fork").Process(target=add) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return int(counter.value)


def threads() -> int:
    with ThreadPoolExecutor(50) as pool:
        return sum(pool.map(square, range(100)))


LEFT_OUT = ("ensurepip", "gdbm", "idlelib", "lib2to3", "test", "tkinter", "turtle", "turtledemo", "venv")
FOREIGN = ("msi", "msilib", "msvcrt", "nt", "overlapped", "scproxy", "winapi", "winreg", "winsound")
NOISY = ("antigravity", "this")


def modules_that_fail() -> list[str]:
    """Of the whole standard library, but for what Debian has in packages of its own and what other systems have."""
    failed = []
    for name in sorted(sys.stdlib_module_names):
        if name.lstrip("_") not in (*LEFT_OUT, *FOREIGN, *NOISY):
            try:
                __import__(name)
            except ImportError as error:
                failed.append(f"{name}: {error}")
    return failed


FACTS = (
    tls_with_the_trusted_certificate, tls_with_others_only, tls_with_another_name, authorities, database, library_c,
    library_z, library_that_is_not_there, shell, summer_and_winter, time_zones, language, own_account, localhost,
    own_name, services, temporary_files, processes, shared_memory, threads, modules_that_fail,
)  # fmt: skip


def find(fact: Any) -> Any:
    try:
        return fact()
    except Exception:
        return {"failed": traceback.format_exc()}


if __name__ == "__main__":
    print(TEXT)
    print(json.dumps({fact.__name__: find(fact) for fact in FACTS}))
