"""Templates of every spelling, resolved from Debian's packages or this host, and run: what they hold is what runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.product import Product

pytestmark = [pytest.mark.root, pytest.mark.net]

FIGURE_SIX = """
name: python
version: 3.5.2
files:
  python: /bin/python3
  python3.11: /usr/lib/python3.11
libs:
  - libpthread@0
  - libc@6
  - libdl@2
  - libutil@1
  - libexpat@1
  - libz@1
  - libm@6
"""

GERMAN = """
name: german
version: 1
packages: [libc-bin, locales]
exclude: ["/**"]
include:
  - /usr/bin/localedef
  - /usr/share/i18n/locales/**
  - /usr/share/i18n/charmaps/UTF-8.gz
packs: [shell]
requires: [busybox]
directories:
  /usr/lib/locale: {}
generate:
  - run:
      - /bin/sh
      - -ec
      - |
        gunzip -c /usr/share/i18n/charmaps/UTF-8.gz >/tmp/UTF-8
        localedef -i de_DE -f /tmp/UTF-8 /usr/lib/locale/de_DE.utf8
    outputs: [/usr/lib/locale/de_DE.utf8/**]
"""


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A second installation, whose store is empty."""
    made = Product(str(tmp_path_factory.mktemp("another")))
    yield made
    made.close()
    assert made.leftovers() == []


def run(product: Product, template: str, *command: str, more: tuple[str, ...] = (), stdin: str | None = None) -> str:
    return product.ok("run", "--rm", "-q", *more, "-t", template, "--", *command, stdin=stdin)


def resolve(product: Product, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = product.json("template", "resolve", "-q", *arguments)[0]
    return found


@pytest.mark.parametrize(
    ("template", "command", "written"),
    [
        ("bash", ("sh", "-c", "x=(a b c); echo ${x[1]} $BASH_VERSION"), "b 5.2"),
        ("busybox", ("sh", "-c", "seq 3 | tac | tr '\\n' ' '"), "3 2 1 "),
        ("coreutils", ("numfmt", "--to=iec", "1048576"), "1.0M\n"),
        ("nodejs@18", ("node", "-p", "process.versions.node.split('.')[0] + typeof fetch"), "18function\n"),
        ("deb:jq", ("jq", "-n", '"ж" | ascii_downcase, (1 + 1)'), '"ж"\n2\n'),
        ("deb:redis-server=5:7.0*", ("redis-cli", "--version"), "redis-cli 7.0"),
    ],
)
def test_a_template_runs_with_what_it_needs(
    template: str, command: tuple[str, ...], written: str, product: Product
) -> None:
    assert run(product, template, *command).startswith(written)


def test_the_first_template_of_a_stack_gives_the_command_and_the_others_their_files(product: Product) -> None:
    more = ("-t", "coreutils", "-t", "ca-certificates")
    script = "process.stdout.write(require('child_process').execFileSync('head', ['-c', '27', process.argv[1]]))"
    written = product.ok("run", "--rm", "-q", "-t", "nodejs@20", *more, "--", "node", "-e", script, AUTHORITIES)
    assert written == "-----BEGIN CERTIFICATE-----"


AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def test_a_program_of_this_host_runs_with_the_libraries_that_it_loads(product: Product) -> None:
    program = "/usr/bin/sha256sum"
    with open(program, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert run(product, f"host:{program}", program, program) == f"{digest}  {program}\n"
    hello = hashlib.sha256(b"hello").hexdigest()
    done = product.ok("run", "-i", "--rm", "-q", "-t", f"host:{program}", stdin="hello")
    assert done == f"{hello}  -\n", "without a command the program itself runs"


def test_a_script_of_this_host_brings_its_interpreter(product: Product) -> None:
    assert "GLIBC" in run(product, "host:/usr/bin/ldd", "ldd", "--version").upper()


def test_a_template_of_the_papers_form_is_read_as_it_stands(product: Product, tmp_path: Path) -> None:
    path = tmp_path / "python.yaml"
    path.write_text(FIGURE_SIX)
    code = "import zlib, xml.parsers.expat, json, math; print(zlib.crc32(b'123456789'), json.dumps([math.pi]))"
    assert run(product, str(path), "/bin/python3", "-c", code) == "3421780262 [3.141592653589793]\n"
    found = product.json("template", "show", str(path))
    assert (found["template"]["name"], found["template"]["version"]) == ("python", "3.5.2")
    chain = product.json("template", "explain", str(path), "/lib/x86_64-linux-gnu/libutil.so.1")["chain"]
    assert "libs" in chain[0]["why"], "nothing needs it but the list"


def test_a_template_brings_what_it_requires_near_and_far(product: Product, tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text("name: tools\nversion: 1\nrequires: [coreutils]\nenv: {LEVEL: low, DEEP: 1}\n")
    (tmp_path / "app.yaml").write_text(
        "name: app\nversion: 3.10\nrequires: [./tools.yaml, 'python@3.11', coreutils]\n"
        'env: {LEVEL: high}\nentrypoint: [python3, -c, \'import os; os.execvp("env", ["env"])\']\n'
    )
    lines = product.ok("run", "--rm", "-q", "-e", "MINE=1", "-t", str(tmp_path / "app.yaml")).splitlines()
    assert {"LEVEL=high", "DEEP=1", "MINE=1", "LANG=C.UTF-8"} <= set(lines)
    assert product.json("template", "show", str(tmp_path / "app.yaml"))["template"]["version"] == "3.10"


def test_files_are_made_once_in_a_sandbox_and_kept(product: Product, tmp_path: Path) -> None:
    path = tmp_path / "german.yaml"
    path.write_text(GERMAN)
    code = "from locale import *; setlocale(LC_ALL, 'de_DE.UTF-8'); print(format_string('%.1f', 1234.5, grouping=True))"
    assert run(product, str(path), "python3", "-c", code, more=("-t", "python@3.11")) == "1.234,5\n"
    chain = product.json("template", "explain", str(path), "/usr/lib/locale/de_DE.utf8/LC_NUMERIC")["chain"]
    assert "localedef" in chain[0]["why"]


def test_a_workload_file_says_all_that_flags_say(product: Product, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/page").write_text("from the volume")
    (tmp_path / "workload.yaml").write_text(
        "templates: [python@3.11, coreutils]\n"
        'command: [python3, -c, \'import os; print(open("page").read(), os.environ["A"], os.getuid()); exit(7)\']\n'
        "name: from-a-file\nworkdir: /site\nuser: '1000'\nvolumes: ['site:/site:ro']\nenv: {A: file}\n"
        "network: none\nremove: true\nresources: {memory: 64M, pids: 32}\n"
    )
    done = product.run("run", "-q", "-f", str(tmp_path / "workload.yaml"))
    assert (done.returncode, done.stdout) == (7, "from the volume file 1000\n"), done.stderr
    done = product.run("run", "-q", "-f", str(tmp_path / "workload.yaml"), "-e", "A=flag", "-u", "0")
    assert (done.returncode, done.stdout) == (7, "from the volume flag 0\n"), done.stderr
    assert "from-a-file" not in product.ok("ps", "-a")


def test_a_lock_gives_the_same_closure_in_an_empty_store(product: Product, another: Product, tmp_path: Path) -> None:
    lock = str(tmp_path / "nginx.lock")
    first = resolve(product, "-o", lock, "nginx@1.22")
    again = resolve(another, "--lock", lock, "nginx@1.22")
    assert again["digest"] == first["digest"] and again["reused_bytes"] == 0
    assert again["lock"] == first["lock"] == json.loads(Path(lock).read_text())
    for entry in first["lock"]["locks"][0]["entries"]:
        assert entry["source"] and entry["why"] and entry["kind"]
        assert entry["kind"] != "file" or (len(entry["digest"]) == 64 and entry["size"] > 0)
    assert "://" not in Path(lock).read_text(), "a lock holds no addresses"
    assert "nginx version" in another.run("run", "--rm", "-q", "-t", "nginx@1.22", "--", "nginx", "-v").stderr


def test_an_unchanged_template_is_not_resolved_again(product: Product) -> None:
    first = resolve(product, "nginx@1.22")
    again = resolve(product, "nginx@1.22")
    assert again["digest"] == first["digest"] and again["reused_bytes"] == again["bytes"]


def test_explain_leads_from_a_file_to_what_asked_for_it(product: Product) -> None:
    found = product.json("template", "explain", "nginx@1.22", "/lib/x86_64-linux-gnu/libpcre2-8.so.0")
    paths = [entry["path"] for entry in found["chain"]]
    assert paths[0].endswith("/libpcre2-8.so.0") and "/usr/sbin/nginx" in paths
    assert any(entry["source"].startswith("deb:libpcre2-8-0=") for entry in found["chain"])
    text = product.ok("template", "explain", "nginx@1.22", "/lib/x86_64-linux-gnu/libpcre2-8.so.0")
    assert "/usr/sbin/nginx" in text


def test_verify_names_a_damaged_file_and_resolving_mends_it(another: Product) -> None:
    digest = resolve(another, "nginx@1.22")["digest"]
    assert another.ok("template", "verify", "nginx@1.22").endswith("none damaged\n")
    program = f"{another.instance.root}/trees/{digest}/usr/sbin/nginx"
    with open(program, "r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    found = another.run("template", "verify", "--repair", "nginx@1.22")
    assert found.returncode == 125 and "it is /usr/sbin/nginx of nginx@1.22" in found.stdout
    assert re.search(r"1 of [0-9]+ files are damaged, and were taken out of use", found.stderr)
    assert another.run("store", "verify").returncode == 0
    assert resolve(another, "nginx@1.22")["digest"] == digest
    assert another.ok("template", "verify", "nginx@1.22").endswith("none damaged\n")
    assert "nginx version" in another.run("run", "--rm", "-q", "-t", "nginx@1.22", "--", "nginx", "-v").stderr
    assert os.stat(program).st_mode & 0o222 == 0


def test_a_package_brings_no_documentation(product: Product) -> None:
    done = product.run("template", "explain", "nginx@1.22", "/usr/share/doc/nginx-common/copyright")
    assert done.returncode == 125 and "/usr/share/doc/nginx-common/copyright" in done.stderr
