"""Software as its authors release it, built, run, debugged and read about in a guest of the template `toolchain`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.product import Product
from tests.vm.test_run_vm import fetch

pytestmark = [pytest.mark.root, pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(600, func_only=True)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/toolchain"

DEBUGGED = """
#include <stdlib.h>
static int deepest(int depth) { return depth ? deepest(depth - 1) : *(volatile int *)0; }
int main(int argc, char **argv) { return deepest(atoi(argv[1])); }
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mini_httpd's and Lua's sources, fetched by the host."""
    folder = tmp_path_factory.mktemp("sources")
    done = subprocess.run([EXAMPLE / "fetch.sh", folder, "mini-httpd", "lua5.4"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def toolchain(product: Product, kind: str, sources: Path, port: int) -> Iterator[str]:
    """A guest with the tools that stays; in it the sources, which it cannot change."""
    words = ("--as", kind, "-m", "1G", "--cpus", "2", "-p", f"127.0.0.1:{port}:80", "-v", f"{sources}:/src:ro")
    product.ok("run", "-d", "--name", f"tools-{kind}", *words, "-t", "toolchain", "--", "sleep", "infinity")
    try:
        yield f"tools-{kind}"
    finally:
        product.ok("rm", "-f", f"tools-{kind}")


def build_and_serve(product: Product, guest: str, sources: Path, port: int) -> None:
    """Compile the web server (its own flags are for a C of another time) and let it serve a file that the host has."""
    script = "cp -r /src/mini_httpd-* /tmp/web && make -C /tmp/web mini_httpd CFLAGS=-O"
    product.ok("exec", guest, "bash", "-c", script)
    product.ok("exec", guest, "bash", "-c", "/tmp/web/mini_httpd -p 80 -d /tmp/web >/tmp/log 2>&1")
    [page] = sources.glob("mini_httpd-*/index.html")
    assert fetch(f"http://127.0.0.1:{port}/index.html") == page.read_bytes()


def debug(product: Product, guest: str) -> None:
    """Find the place where a program faults, and how it got there."""
    product.ok("exec", "-i", guest, "tee", "/tmp/fault.c", stdin=DEBUGGED)
    product.ok("exec", guest, "gcc", "-g", "-o", "/tmp/fault", "/tmp/fault.c")
    said = product.ok(
        "exec", guest, "gdb", "-q", "-batch", "-ex", "run 3", "-ex", "backtrace", "-ex", "print depth", "/tmp/fault"
    )
    assert "SIGSEGV" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith("#")] == ["#0", "#1", "#2", "#3", "#4"]
    assert "$1 = 0" in said


def read_about(product: Product, guest: str) -> None:
    """A page of each: of the shell's tools, of Linux, of the C library, of the compiler's tools."""
    for page, words in (("ls", "list directory contents"), ("2 openat", "O_CLOEXEC"), ("qsort", "stdlib.h")):
        assert words in product.ok("exec", guest, "man", "-P", "cat", *page.split())
    assert "nano" in product.ok("exec", guest, "editor", "--version")


@pytest.mark.parametrize(("kind", "port"), [("container", 18091), ("vm", 18092)])
def test_a_web_server_is_built_and_serves_and_a_fault_is_found(
    product: Product, sources: Path, kind: str, port: int
) -> None:
    with toolchain(product, kind, sources, port) as guest:
        build_and_serve(product, guest, sources, port)
        debug(product, guest)
        read_about(product, guest)


def test_lua_is_built_and_computes(product: Product, sources: Path) -> None:
    """Thirty thousand lines of C; without optimisation, which emulation would take minutes for."""
    script = "cp -r /src/lua-* /tmp/lua && make -s -j 2 -C /tmp/lua/src linux MYCFLAGS=-O0"
    program = "local s = 0 for n = 1, 1000 do s = s + n * n end print(_VERSION, s)"
    with toolchain(product, "vm", sources, 18093) as guest:
        product.ok("exec", guest, "bash", "-c", script, timeout=500)
        assert product.ok("exec", "-i", guest, "/tmp/lua/src/lua", "-", stdin=program) == "Lua 5.4\t333833500\n"
