"""A small web application of the usual kind: TLS, a database, JSON, a time zone, text in several scripts.

    swiftlet run -t python@3.11 -p 8000:8000 -v .:/app:ro -w /app -- python3 app.py

GET / answers a page, GET /facts.json the same as JSON; every request is counted in an SQLite database. Before it
serves, the application proves that its `ssl` works by a real handshake with itself, checked against the
certificate that lies beside it (for tests only: its key is public).
"""

from __future__ import annotations

import html
import json
import os
import signal
import socket
import sqlite3
import ssl
import sys
import tempfile
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zoneinfo import ZoneInfo

CERTIFICATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "localhost-test-only.pem")
DATABASE = os.path.join(os.environ.get("DATA", tempfile.gettempdir()), "visits.sqlite3")
GREETING = "Grüß Gott, привет, 你好, 👋"


def shake_hands() -> str:
    """A TLS handshake over loopback with both ends here; returns protocol and cipher. Raises ssl.SSLError."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(CERTIFICATE)
    client = ssl.create_default_context(cafile=CERTIFICATE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer, args=(listener, server))
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as raw,
            client.wrap_socket(raw, server_hostname="localhost") as secured,
        ):
            secured.recv(1)
            cipher = secured.cipher()
        thread.join()
    return f"{cipher[1]} {cipher[0]}" if cipher else "none"


def _answer(listener: socket.socket, context: ssl.SSLContext) -> None:
    raw, _ = listener.accept()
    with context.wrap_socket(raw, server_side=True) as secured:
        secured.send(b"x")


def count_visit() -> int:
    """Add this visit to the database; how many there are now."""
    with sqlite3.connect(DATABASE, timeout=10) as database:
        database.execute("CREATE TABLE IF NOT EXISTS visit (at TEXT)")
        database.execute("INSERT INTO visit VALUES (?)", (datetime.now(ZoneInfo("UTC")).isoformat(),))
        return int(database.execute("SELECT count(*) FROM visit").fetchone()[0])


def facts() -> dict[str, Any]:
    """What the page says."""
    return {
        "greeting": GREETING,
        "visits": count_visit(),
        "kathmandu": datetime.now(ZoneInfo("Asia/Kathmandu")).strftime("%H:%M (UTC%z)"),
        "tls": HANDSHAKE,
        "trusted_authorities": ssl.create_default_context().cert_store_stats()["x509_ca"],
        "sqlite": sqlite3.sqlite_version,
        "python": sys.version.split()[0],
        "host": socket.gethostname(),
    }


class Page(BaseHTTPRequestHandler):
    """Answers GET / and GET /facts.json."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, or say 404."""
        if self.path == "/facts.json":
            self._send(200, "application/json", json.dumps(facts(), ensure_ascii=False))
        elif self.path == "/":
            rows = "".join(f"<tr><th>{key}<td>{html.escape(str(value))}\n" for key, value in facts().items())
            self._send(200, "text/html", f"<!doctype html><title>hello</title><table>\n{rows}</table>\n")
        else:
            self._send(404, "text/plain", f"no such page: {self.path}\n")

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HANDSHAKE = shake_hands()


def main() -> None:
    """Serve until SIGTERM; process 1 of a container gets no default action for it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8000"))), Page)
    print(f"serving http on port {server.server_address[1]}, TLS works here: {HANDSHAKE}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
