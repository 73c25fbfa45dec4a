"""Real software of six kinds, each started from its template and asked in its own protocol.

Those that take `kind` (flags of `run`) are tests of virtual machines too: tests/vm/test_services_vm.py.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from swiftlet.guest.machine import OVERHEAD
from tests.product import Product
from tests.serving import Serving, needs_controller, pip_install, serving

pytestmark = [pytest.mark.root, pytest.mark.net]

LOOPBACK = "127.0.0.1:"
EXAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "examples")

SIGNING_SERVER = """
import http.server
import itsdangerous

class Signer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = itsdangerous.Signer("secret").sign(self.path.encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("", 8000), Signer).serve_forever()
"""

NODE_SERVER = """
const http = require('http');
http.createServer((request, response) => {
  let text = '';
  request.on('data', (part) => { text += part; });
  request.on('end', () => response.end(JSON.stringify({ url: request.url, name: process.env.NAME, grüße: 'ж' })));
}).listen(3000);
"""


def test_hello_web_answers_from_its_workload_file(product: Product, kind: tuple[str, ...]) -> None:
    arguments = ("-f", f"{EXAMPLES}/hello-web/workload.yaml", "-p", f"{LOOPBACK}:8000")
    with serving(product, *kind, *arguments) as guest:
        found = [json.loads(guest.page(8000, "/facts.json")[1]) for _ in range(2)]
        assert [each["visits"] for each in found] == [1, 2]
        assert found[0]["greeting"] == "Grüß Gott, привет, 你好, 👋" and found[0]["tls"].startswith("TLSv1.3 ")
        assert found[0]["kathmandu"].endswith(" (UTC+0545)") and found[0]["trusted_authorities"] > 100
        assert found[0]["host"] == guest.id
        assert guest.page(8000, "/none")[0] == 404
        assert guest.product.ok("logs", guest.id).startswith("serving http on port 8000, TLS works here: TLSv1.3")


def test_python_serves_with_a_package_that_pip_put_beside_the_application(
    product: Product, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    pip_install(str(tmp_path), "itsdangerous")
    (tmp_path / "app.py").write_text(SIGNING_SERVER)
    arguments = ("-t", "python@3.11", "-v", f"{tmp_path}:/app:ro", "-w", "/app", "-p", f"{LOOPBACK}:8000")
    with serving(product, *kind, *arguments, "--", "python3", "app.py") as guest:
        status, body = guest.page(8000, "/hello")
    assert status == 200 and body.startswith(b"/hello.") and len(body) > len(b"/hello.") + 20


def test_python_takes_its_library_as_it_was_compiled(product: Product, kind: tuple[str, ...]) -> None:
    """A compiled module counts only while its source has the date that it had: or each start compiles it anew."""
    done = product.run("run", "--rm", "-q", *kind, "-t", "python@3.11", "--", "python3", "-v", "-c", "import ssl")
    assert done.returncode == 0, done.stderr
    assert "ssl.cpython-311.pyc matches /usr/lib/python3.11/ssl.py" in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("# code object from /usr/lib")] == []


def test_node_serves_from_its_own_http_module(product: Product, tmp_path: Path) -> None:
    arguments = ("-t", "nodejs@20", "-e", "NAME=näme", "-p", f"{LOOPBACK}:3000", "--", "node", "-e", NODE_SERVER)
    with serving(product, *arguments) as guest:
        assert guest.page(3000, "/a?b=c") == (200, '{"url":"/a?b=c","name":"näme","grüße":"ж"}'.encode())


def test_redis_answers_resp_and_keeps_its_data_on_a_volume(
    product: Product, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    arguments = ("-f", f"{EXAMPLES}/redis/workload.yaml", "-v", f"{tmp_path}:/data", "-p", f"{LOOPBACK}:6379")
    with serving(product, *kind, *arguments) as guest:
        answers_resp(guest)
        assert length_after_a_save(guest) == "100000\n"


def test_redis_finds_in_its_root_again_what_it_wrote_there(product: Product) -> None:
    command = ("redis-server", "--protected-mode", "no")
    with serving(product, "-t", "deb:redis-server", "-p", f"{LOOPBACK}:6379", "--", *command) as guest:
        answers_resp(guest)
        assert length_after_a_save(guest) == "100000\n"


def answers_resp(guest: Serving) -> None:
    """It takes a value of 100,000 bytes and gives it back, in its protocol and to its own client."""
    with guest.connect(6379) as connection:
        assert asked(connection, b"PING\r\n") == b"+PONG\r\n"
        value = os.urandom(100_000)
        assert asked(connection, resp(b"SET", b"key", value)) == b"+OK\r\n"
        expected = b"$%d\r\n%s\r\n" % (len(value), value)
        assert asked(connection, resp(b"GET", b"key"), len(expected)) == expected
    assert guest.run("redis-cli", "STRLEN", "key").stdout == "100000\n"


def length_after_a_save(guest: Serving) -> str:
    """What is left after its snapshot was written by a child process, and the guest stopped and started."""
    assert guest.run("redis-cli", "SAVE").stdout == "OK\n"
    guest.product.ok("stop", guest.id)
    assert guest.facts["exit"]["code"] == 0, "redis ends of its own accord when it is asked to"
    guest.product.ok("start", guest.id)
    guest.connect(6379).close()
    return guest.run("redis-cli", "STRLEN", "key").stdout


def resp(*words: bytes) -> bytes:
    """A command in redis's protocol."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def asked(connection: socket.socket, question: bytes, expected: int = 0) -> bytes:
    """The answer: `expected` bytes of it, or its first line."""
    connection.sendall(question)
    answer = b""
    while len(answer) < expected or not answer.endswith(b"\r\n"):
        part = connection.recv(65536)
        assert part, f"it hung up after {answer[:100]!r}"
        answer += part
    return answer


@needs_controller("memory")
@needs_controller("cpu")
@needs_controller("pids")
def test_nginx_serves_files_of_a_read_only_volume_within_its_limits(
    product: Product, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file.bin").write_bytes(content)
    tmp_path.chmod(0o755)  # its workers are www-data, and a volume keeps its modes
    volume = ("-v", f"{tmp_path}:/usr/share/nginx/html:ro", "-p", f"{LOOPBACK}:80")
    with serving(product, *kind, "-f", f"{EXAMPLES}/nginx/workload.yaml", *volume) as guest:
        assert guest.page(80, "/file.bin") == (200, content)
        assert guest.page(80, "/missing")[0] == 404
        (tmp_path / "later.txt").write_text("put there while it ran")
        assert guest.page(80, "/later.txt") == (200, b"put there while it ran")
        assert '"GET /missing HTTP/1.1" 404' in guest.product.ok("logs", guest.id)
        limit = (128 << 20) + (OVERHEAD if "vm" in kind else 0)  # of a machine, QEMU's own is in it
        assert product.json("stats", guest.id)[0]["memory_limit"] == limit


def test_mariadb_answers_its_protocol_and_keeps_its_data_on_a_volume(product: Product, tmp_path: Path) -> None:
    volume = ("-v", f"{tmp_path}:/var/lib/mysql", "-p", f"{LOOPBACK}:3306", "-e", "MARIADB_ROOT_PASSWORD=geheim")
    with serving(product, "-t", "mariadb@10.11", *volume) as guest:
        with guest.connect(3306) as connection:
            greeting = handshake(connection)
        assert greeting[0] == 10 and b"10.11." in greeting.partition(b"\0")[0]
        sql = "CREATE DATABASE shop; CREATE TABLE shop.item (name TEXT) CHARSET utf8mb4; INSERT INTO shop.item VALUES"
        assert query(guest, f"{sql} ('Grüße 👋')") == ""
        guest.product.ok("stop", guest.id)
        assert guest.facts["exit"]["code"] == 0
        guest.product.ok("start", guest.id)
        guest.connect(3306).close()
        assert query(guest, "SELECT name, char_length(name) FROM shop.item") == "Grüße 👋\t7\n"
    with serving(product, "-t", "mariadb@10.11", *volume) as another:
        another.connect(3306).close()
        assert query(another, "SELECT count(*) FROM shop.item") == "1\n", "a new guest finds the volume's data"


def handshake(connection: socket.socket) -> bytes:
    """The payload of the first packet, which the server sends."""
    connection.settimeout(30)
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:3], "little"):
        part = connection.recv(4096)
        assert part, data
        data += part
    return data[4:]


def query(guest: Serving, sql: str) -> str:
    """What mariadb's own client prints for a statement, as root, through its socket in the guest."""
    done = guest.run("mariadb", "--batch", "--skip-column-names", "--default-character-set=utf8mb4", "-e", sql)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tomcat_serves_its_first_page(product: Product) -> None:
    with serving(product, "-t", "tomcat@10", "-p", f"{LOOPBACK}:8080") as guest:
        status, body = guest.page(8080)
        assert status == 200 and b"Apache Tomcat" in body
        started = time.monotonic()
        guest.product.ok("stop", guest.id)
        assert time.monotonic() - started < 9, "it ends when it is asked to, not when it is killed"
        assert guest.facts["exit"]["code"] == 143
