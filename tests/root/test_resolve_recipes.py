"""Every shipped recipe, from Debian's archive or PyPI to a program that answers."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from swiftlet.guest.sandbox import run_sandboxed
from swiftlet.image.tree import materialise
from swiftlet.model.error import FetchError, FullError, NotFoundError
from swiftlet.resolve.explain import explain
from swiftlet.resolve.resolver import Resolver
from swiftlet.store.layout import Layout
from swiftlet.store.session import Session
from swiftlet.store.verify import verify
from tests.root.resolve_stage import Stage

pytestmark = [pytest.mark.root, pytest.mark.net, pytest.mark.timeout(600)]

FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


class Instance:
    def __init__(self, root):
        self.layout = Layout(str(root))
        self.layout.prepare()
        self.stages = 0

    def resolver(self, session, progress=lambda *_: None):
        def sandbox(entries, run):
            from swiftlet.model.closure import closure_of

            lowers = materialise(session, [closure_of("sandbox", list(entries))]).lowers
            return run_sandboxed(lowers, run, ("",), session.directory)

        return Resolver(session.objects, session.records, self.layout.cache, progress, sandbox)

    def stack(self, *references, **options):
        with Session(self.layout) as session:
            return self.resolver(session).stack(references, **options)

    def run(self, references, command=(), env=None):
        with Session(self.layout) as session:
            closures = self.resolver(session).stack(references)
            rootfs = materialise(session, closures)
        self.stages += 1
        folder = f"{self.layout.root}/stage{self.stages}"
        return Stage(folder, rootfs.lowers, command or rootfs.entrypoint, {**rootfs.env, **(env or {})})


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    return Instance(tmp_path_factory.mktemp("recipes"))


PYTHON = """
import asyncio, bz2, ctypes.util, curses, datetime, json, locale, lzma, mimetypes, pwd, readline, socket, sqlite3, ssl
import subprocess, threading, uuid, zlib, zoneinfo
locale.setlocale(locale.LC_ALL, "")
curses.setupterm("xterm")
print(json.dumps({
    "encoding": locale.getpreferredencoding(False),
    "sqlite": sqlite3.connect(":memory:").execute("select 1+1").fetchone(),
    "libraries": [ctypes.util.find_library(name) for name in ("c", "sqlite3", "none")],
    "time": str(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
    "zones": len(zoneinfo.available_timezones()),
    "home": pwd.getpwuid(0).pw_dir,
    "shell": subprocess.check_output("echo $((6*7))", shell=True, text=True),
    "authorities": len(ssl.create_default_context().get_ca_certs()) > 100,
    "localhost": socket.getaddrinfo("localhost", "https")[0][4],
    "type": mimetypes.guess_type("x.webp")[0],
    "colors": curses.tigetnum("colors"),
    "word": "Übung",
}))
"""


def test_python(instance):
    found = json.loads(instance.run(["python@3.11"], ["python3", "-c", PYTHON]).finish())
    assert found == {
        "encoding": "UTF-8",
        "sqlite": [2],
        "libraries": ["libc.so.6", "libsqlite3.so.0", None],
        "time": "2024-07-01 00:00:00+02:00",
        "zones": found["zones"],
        "home": "/root",
        "shell": "42\n",
        "authorities": True,
        "localhost": ["127.0.0.1", 443],
        "type": "image/webp",
        "colors": 8,
        "word": "Übung",
    }
    assert found["zones"] > 400


def test_python_imports_every_module_of_its_library(instance):
    program = """
import importlib, pkgutil, sys
skip = ("test", "idlelib", "_distutils", "antigravity", "this", "turtle", "tkinter", "lib2to3", "distutils")
skip += ("ensurepip", "_tkinter")
skip += ("dbm.gnu", "_gdbm", "_msi", "msilib", "winreg", "_winapi", "encodings", "asyncio.windows", "ctypes.macholib")
skip += ("multiprocessing.popen_spawn_win32", "__main__", "nturl2path")
for module in pkgutil.walk_packages(sys.path[1:3], onerror=lambda name: None):
    if not module.name.startswith(skip) and "__main__" not in module.name:
        importlib.import_module(module.name)
print("all")
"""
    output = instance.run(["python"], ["python3", "-W", "ignore", "-c", program]).finish()
    assert output.rstrip().endswith("all")


def test_python_finds_its_modules_compiled(instance):
    program = "import json.decoder, sys; print(json.decoder.__cached__, sys.flags.optimize)"
    traced = instance.run(["python"], ["python3", "-v", "-c", program]).finish()
    assert "/usr/lib/python3.11/json/__pycache__/decoder.cpython-311.pyc matches" in traced
    assert "# wrote" not in traced


def test_python_makes_a_real_handshake(instance):
    program = """
import socket, ssl, subprocess, tempfile, threading
key = tempfile.mkdtemp()
subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key + "/k", "-out", key + "/c",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); server.load_cert_chain(key + "/c", key + "/k")
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    server.wrap_socket(listener.accept()[0], server_side=True).sendall(b"hello")
threading.Thread(target=serve, daemon=True).start()
client = ssl.create_default_context(cafile=key + "/c")
with client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost") as s:
    print(s.version(), s.recv(5))
"""
    assert instance.run(["python", "deb:openssl"], ["python3", "-c", program]).finish() == "TLSv1.3 b'hello'\n"


@pytest.mark.parametrize("version", ["20", "18"])
def test_nodejs(instance, version):
    program = """
const c = require('crypto').createHash('sha256').update('x').digest('hex').slice(0, 8)
fetch('http://127.0.0.1:1').catch(e => console.log(process.version.split('.')[0], c, e.message, 'ü'.length))
"""
    assert (
        instance.run([f"nodejs@{version}"], ["node", "-e", program]).finish() == f"v{version} 2d711642 fetch failed 1\n"
    )


def test_nginx_serves_its_page_and_writes_its_log_to_its_output(instance):
    with instance.run(["nginx@1.22"]) as stage:
        assert "Welcome to nginx!" in stage.until(sys.executable, "-c", FETCH, "http://127.0.0.1/index.html")
        assert '"GET /index.html HTTP/1.1" 200' in stage.stop()


def test_redis_without_a_recipe(instance):
    with instance.run(["deb:redis-server"]) as stage:
        assert stage.until("redis-cli", "ping", inside_root=True) == "PONG\n"
        assert stage.until("redis-cli", "set", "k", "v", inside_root=True) == "OK\n"


def test_mariadb_makes_its_data_and_answers(instance):
    with instance.run(["mariadb@10.11"], env={"MARIADB_ROOT_PASSWORD": "secret"}) as stage:
        query = ["mariadb", "-N", "-e", "select 1+1, current_user()"]
        assert stage.until(*query, inside_root=True) == "2\troot@localhost\n"
        remote = ["mariadb", "-N", "-h127.0.0.1", "-uroot", "-psecret", "-e", "select 7"]
        assert stage.until(*remote, inside_root=True) == "7\n"
        assert stage.outside(*[*remote[:4], "-pwrong", *remote[5:]], inside_root=True).returncode != 0


def test_tomcat_serves_its_page_and_java_trusts_the_authorities(instance):
    with instance.run(["tomcat@10"]) as stage:
        assert "It works" in stage.until(sys.executable, "-c", FETCH, "http://127.0.0.1:8080/")
    listing = instance.run(["tomcat"], ["keytool", "-list", "-cacerts", "-storepass", "changeit"]).finish()
    assert "trustedCertEntry" in listing


def test_shells_and_small_programs(instance):
    assert instance.run(["bash"], ["sh", "-c", "echo $BASH_VERSION"]).finish().startswith("5.2")
    assert instance.run(["busybox"], ["sh", "-c", "ls /bin/[ && echo x | sed s/x/y/"]).finish() == "/bin/[\ny\n"
    assert instance.run(["coreutils"], ["env", "A=1", "stat", "-c", "%a", "/usr/bin/ls"]).finish() == "555\n"
    command = "head -1 /etc/ssl/certs/ca-certificates.crt"
    found = instance.run(["ca-certificates", "bash", "coreutils"], ["bash", "-c", command]).finish()
    assert found == "-----BEGIN CERTIFICATE-----\n"


def test_a_module_of_debian_beside_the_recipe(instance):
    command = ["python3", "-c", "import requests; print(requests.certs.where())"]
    assert instance.run(["deb:python3-requests"], command).finish() == "/etc/ssl/certs/ca-certificates.crt\n"


def test_what_no_program_reads_is_in_no_closure(instance):
    for reference in ("python", "nginx", "tomcat", "mariadb", "deb:redis-server"):
        for entry in instance.stack(reference)[0].entries:
            assert not entry.path.startswith(
                ("/usr/share/man/", "/usr/share/doc/", "/usr/share/locale/", "/etc/init.d/")
            )
            assert entry.mode & 0o7222 == 0 or entry.kind != "file"
            assert entry.source and entry.why


def test_why_a_library_is_there(instance):
    chain = explain(instance.stack("nginx@1.22"), "/lib/x86_64-linux-gnu/libpcre2-8.so.0")
    assert "DT_NEEDED libpcre2-8.so.0" in chain[0].why
    assert chain[-1].path == "/usr/sbin/nginx" and chain[-1].why == "part of nginx"


def test_an_unchanged_template_takes_less_than_50_ms(instance):
    references = ["python@3.11", "nginx@1.22", "deb:redis-server"]
    instance.stack(*references)
    with Session(instance.layout) as session:
        for reference in references:
            start = time.perf_counter()
            instance.resolver(session).stack([reference])
            assert time.perf_counter() - start < 0.05, reference


@pytest.mark.parametrize("reference", ["python@3.11", "nodejs@20", "deb:redis-server"])
def test_a_lock_gives_the_same_closure_in_an_empty_store(instance, tmp_path, reference):
    (closure,) = instance.stack(reference)
    with Session(instance.layout) as session:
        lock = instance.resolver(session).lock([reference])
    assert b"://" not in lock
    other = Instance(tmp_path)
    (again,) = other.stack(reference, lock=json.loads(lock))
    assert again.digest == closure.digest
    with Session(other.layout) as session:
        assert other.resolver(session).lock([reference]) == lock
        session.trees.build(again.digest, again.entries)


def test_without_network_it_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", "https://localhost:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    for reference in ("nginx", "nodejs@20"):
        with pytest.raises((FetchError, NotFoundError)) as caught:
            Instance(tmp_path).stack(reference)
        assert "\n" not in str(caught.value)
    with Session(Layout(str(tmp_path))) as session:
        assert session.records.locks() == []


@pytest.mark.parametrize("size", ["10m", "50m", "110m", "150m", "300m"])
def test_a_full_disk_is_one_clear_line_and_nothing_is_recorded(tmp_path, size):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", tmp_path], check=True)
    try:
        instance = Instance(tmp_path)
        with pytest.raises(FullError, match="no space left"):
            instance.stack("tomcat")
        with Session(instance.layout) as session:
            assert session.records.locks() == [] and session.records.closures() == []
        assert not verify(instance.layout).damaged
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.crash
@pytest.mark.slow
def test_killed_at_any_moment_a_resolution_starts_again_and_the_store_is_whole(instance, tmp_path):
    expected = instance.stack("deb:redis-server")[0].digest
    program = """
import sys
from swiftlet.store.layout import Layout
from swiftlet.store.session import Session
from swiftlet.resolve.resolver import Resolver
layout = Layout(sys.argv[1])
with Session(layout) as session:
    print(Resolver(session.objects, session.records, layout.cache).stack(["deb:redis-server"])[0].digest)
"""
    layout = Layout(str(tmp_path))
    layout.prepare()
    chooser = random.Random(7)
    for _ in range(15):
        process = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.DEVNULL)
        time.sleep(chooser.uniform(0.1, 3.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not verify(layout).damaged
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
    assert not verify(layout).damaged
    for name in os.listdir(f"{layout.cache}/debs"):
        with open(f"{layout.cache}/debs/{name}", "rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == name.removesuffix(".deb")
