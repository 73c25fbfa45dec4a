"""Whatever is wrong with what a user asks for: one clear line, the right exit code, and nothing half-made stays."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product, eventually
from tests.refusal import Refusal, refused
from tests.unit.elf_sample import build_elf

pytestmark = [pytest.mark.root, pytest.mark.net]

LOADER = "/lib64/ld-linux-x86-64.so.2"


def run(product: Product, template: str, *more: str) -> Refusal:
    return refused(product, "run", "-q", *more, "-t", template, "--", "true")


def state(product: Product) -> dict[str, list[str]]:
    """What a failure must leave as it was."""
    root = product.instance.root
    found = {name: sorted(os.listdir(f"{root}/{name}")) for name in ("guests", "names", "closures", "locks", "trees")}
    temporary = [name for name in os.listdir(f"{root}/tmp") if not name.startswith("guest-")]  # those are spare ones
    return {**found, "tmp": sorted(temporary), "groups": sorted(product._groups())}


@pytest.fixture(scope="module")
def known(product: Product) -> None:
    """The templates used here are resolved and have been run, so that nothing new is made of them later."""
    product.ok("run", "--rm", "-q", "-t", "busybox", "--", "true")
    product.ok("run", "--rm", "-q", "-t", "bash", "--", "bash", "-c", "true")
    product.ok("run", "--rm", "-q", "-t", "python@3.11", "--", "python3", "-c", "")
    assert product.run("run", "--rm", "-q", "-t", "ca-certificates", "--", "/nothing").returncode == 127


@pytest.fixture(autouse=True)
def nothing_stays(product: Product, known: None) -> Iterator[None]:
    """Of what is refused no file, folder, name or control group may stay."""
    before = state(product)
    yield
    eventually(lambda: state(product) == before)


def template(folder: Path, text: str) -> str:
    path = folder / "bad.yaml"
    path.write_text(text)
    return str(path)


# Templates that are not there


def test_an_unknown_template_is_told_with_near_ones(product: Product) -> None:
    assert run(product, "pyton") == (
        125,
        "no template pyton",
        "did you mean python? `-t deb:pyton` takes a Debian package",
    )
    assert run(product, "xyzzy").message == "no template xyzzy"


def test_a_version_that_is_not_to_be_had_is_told_with_those_that_are(product: Product) -> None:
    found = run(product, "python@2.7")
    assert found == (125, "template python has no version 2.7", "there is 3.11")
    found = run(product, "deb:redis-server=4:1.0")
    assert found.code == 125 and "redis-server has no version 4:1.0" in found.message
    assert re.match(r"there is 5:7\.0", found.hint)
    found = run(product, "deb:redis-servr")
    assert found.code == 125 and found.message == "no Debian package redis-servr" and "redis-server" in found.hint


@pytest.mark.parametrize("spelling", ["", "Upper", "a b", "x@", "deb:", "deb:UPPER", "host:relative", "../x", "a@b@c"])
def test_what_is_no_reference_is_refused(spelling: str, product: Product) -> None:
    assert run(product, spelling).code == 125


def test_files_that_are_not_there_are_named(product: Product, tmp_path: Path) -> None:
    assert "/no/such.yaml" in run(product, "/no/such.yaml").message
    found = refused(product, "run", "-f", "/no/such.yaml")
    assert found == (125, "workload file /no/such.yaml: No such file or directory", "")
    assert "/no/such/program" in run(product, "host:/no/such/program").message
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml" in run(product, str(tmp_path / "folder.yaml")).message


# Files that are broken


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nversion: 1\nlibs: [libc@6, libm@6, 'no library']\n", r"bad\.yaml:3: \$\.libs\[2\]: "),
        ("name: x\nversion: 1\nlib: [libc@6]\n", r"bad\.yaml:3: \$\.lib: unknown key 'lib'"),
        ("name: x\nversion: 1\nfiles: [a, b]\n", r"bad\.yaml:3: \$\.files: expected a map, found a list"),
        ("name: x\n", r"bad\.yaml.*version"),
        ("name: x\nversion: [1\n", r"bad\.yaml:3: "),
        ("name: x\nversion: 1\nenv: {A: {b: c}}\n", r"bad\.yaml:3: \$\.env\.A: expected text, found a map"),
        ("\tname: x\n", r"bad\.yaml:1: "),
        ("", r"bad\.yaml"),
        ("a: &x [1]\nb: *x\n", r"bad\.yaml:1: .*anchor"),
        ("name: x\nversion: 1\nlinks: {/../../etc/shadow: /x}\n", r"bad\.yaml:3: \$\.links"),
        ("name: x\nversion: 1\nfiles: {a: ../../etc/shadow}\n", r"bad\.yaml:3: \$\.files\.a"),
        ("name: x\nversion: 1\nfiles: {a: /usr/../../etc/shadow}\n", r"bad\.yaml:3: \$\.files\.a"),
        ("name: x\nversion: 1\npackages: ['coreutils; rm -rf /']\n", r"bad\.yaml:3: \$\.packages\[0\]"),
        ("name: x\nversion: 1\npackages: ['--option=x']\n", r"bad\.yaml:3: \$\.packages\[0\]"),
    ],
)
def test_a_broken_template_is_told_with_file_line_and_path(
    text: str, told: str, product: Product, tmp_path: Path
) -> None:
    found = run(product, template(tmp_path, text))
    assert found.code == 125 and re.search(told, found.message), found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("template: busybox\nports: ['80:x']\n", r"workload\.yaml:2: \$\.ports\[0\]: "),
        ("template: busybox\nmemory: much\n", r"workload\.yaml:2: \$\.memory: "),
        ("command: ls\n", r"workload\.yaml.*template"),
        ("template: busybox\ncomand: ls\n", r"workload\.yaml:2: \$\.comand: unknown key"),
    ],
)
def test_a_broken_workload_is_told_with_file_line_and_path(
    text: str, told: str, product: Product, tmp_path: Path
) -> None:
    (tmp_path / "workload.yaml").write_text(text)
    found = refused(product, "run", "-f", str(tmp_path / "workload.yaml"))
    assert found.code == 125 and re.search(told, found.message), found


def test_templates_that_require_one_another_are_named_in_order(product: Product, tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nversion: 1\nrequires: [./{other}.yaml]\n")
    found = run(product, str(tmp_path / "a.yaml"))
    assert found.code == 125 and re.search(r"a@1\S* -> b@1\S* -> c@1\S* -> a@1", found.message), found


def test_ten_thousand_nested_requires_are_refused(product: Product, tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number}.yaml").write_text(f"name: n{number}\nversion: 1\nrequires: [./{number + 1}.yaml]\n")
    found = run(product, str(tmp_path / "0.yaml"))
    assert found.code == 125 and "requires more than 64 templates" in found.message


def test_ten_gigabytes_are_refused_before_they_are_read(product: Product, tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(10 << 30)
    started = time.monotonic()
    found = run(product, template(tmp_path, f"name: x\nversion: 1\nfiles: {{big: {tmp_path}/big}}\n"))
    assert found.code == 125 and f"{tmp_path}/big" in found.message and "8 GiB" in found.message
    assert time.monotonic() - started < 5


# Programs that cannot run


def test_a_library_that_is_missing_is_named_with_who_needs_it_and_the_package(product: Product, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(build_elf(needed=["libc.so.6", "libspnav.so.0"], interpreter=LOADER))
    program.chmod(0o755)
    found = run(product, f"host:{program}")
    assert found.code == 125 and "libspnav.so.0" in found.message and str(program) in found.message
    assert "libspnav0" in found.hint, found
    program.write_bytes(build_elf(needed=["libc.so.6", "libnosuch.so.7"], interpreter=LOADER))
    found = run(product, f"host:{program}")
    assert found.code == 125 and "libnosuch.so.7" in found.message and str(program) in found.message
    found = run(product, template(tmp_path, "name: x\nversion: 1\nlibs: [libnosuch@7]\n"))
    assert found.code == 125 and "listed in libs as libnosuch@7" in found.message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x7fELF\x01\x01\x01" + b"\0" * 60, "32"),
        (build_elf(needed=["libc.so.6"], interpreter=LOADER)[:150], "cut short"),
        (build_elf(machine=183, interpreter=LOADER), "machine 183"),
        (b"these are not the bytes of a program", "neither an ELF file nor a script"),
        (b"", "neither an ELF file nor a script"),
    ],
    ids=["32-bit", "truncated", "other machine", "text", "empty"],
)
def test_a_program_that_is_none_is_refused_by_name(content: bytes, told: str, product: Product, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    started = time.monotonic()
    found = run(product, f"host:{program}")
    assert found.code == 125 and str(program) in found.message and told in found.message, found
    assert time.monotonic() - started < 5


def test_a_command_that_is_not_there_is_127_with_the_template_that_has_it(product: Product, tmp_path: Path) -> None:
    python = ("run", "--rm", "-q", "-t", "python@3.11")
    found = refused(product, *python, "--", "tac", "-s", "x")
    assert found[:2] == (127, "command 'tac' is not in the guest")
    assert found.hint == "add -t busybox or -t coreutils, which has it"
    assert refused(product, *python, "--", "/usr/bin/node").hint == "add -t nodejs, which has it"
    assert refused(product, *python, "--", "no-such-thing") == (127, "command 'no-such-thing' is not in the guest", "")
    assert refused(product, *python, "--", "/opt/python3.11").hint == "the guest has /usr/bin/python3.11"
    (tmp_path / "script").write_text("#!/bin/bash\necho never\n")
    (tmp_path / "script").chmod(0o755)
    script = ("-v", f"{tmp_path}:/app", "--", "/app/script")
    found = refused(product, *python, *script)
    assert found.code == 127 and found.message.endswith("interpreter /bin/bash, which is not in the guest")
    assert found.hint == "add -t bash, which has it"


def test_an_exec_of_what_is_not_there_says_what_to_insert(product: Product) -> None:
    product.ok(
        "run", "-d", "-q", "--name", "bare", "-t", "python@3.11", "--", "python3", "-c", "import time; time.sleep(99)"
    )
    try:
        found = refused(product, "exec", "bare", "--", "bash", "-c", "echo $0")
        assert found[:2] == (127, "command 'bash' is not in the guest")
        product.ok(*re.search("`swiftlet (.*)`", found.hint)[1].split(), "-q")
        assert product.ok("exec", "bare", "--", "bash", "-c", "echo $0") == "bash\n"
    finally:
        product.ok("rm", "-f", "bare")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("-v", "/etc/passwd:/usr"),
            "volume at /usr cannot be attached: it is a file, and the guest has a folder there",
        ),
        (
            ("-v", "/etc:/etc/passwd"),
            "volume at /etc/passwd cannot be attached: it is a folder, and the guest has a file",
        ),
        (
            ("--tmpfs", "/etc/passwd"),
            "tmpfs at /etc/passwd cannot be attached: it is a folder, and the guest has a file",
        ),
        (("-v", "/etc:/etc/passwd/x"), "volume at /etc/passwd/x cannot be attached: Not a directory"),
    ],
)
def test_what_has_no_place_in_the_guest_is_told_with_the_reason(
    options: tuple[str, ...], told: str, product: Product
) -> None:
    found = run(product, "busybox", *options)
    assert found.code == 126 and told in found.message, found


def test_what_cannot_be_executed_is_126(product: Product) -> None:
    found = run(product, "busybox", "--workdir", "/etc/passwd")
    assert found == (126, "working folder /etc/passwd is not a folder in the guest", "")
    found = refused(product, "run", "--rm", "-q", "-t", "busybox", "--", "/usr/bin")
    assert found.code == 126 and "'/usr/bin'" in found.message
    found = refused(product, "run", "--rm", "-q", "-t", "ca-certificates")
    assert found.code == 125 and "no entry point" in found.message


# What a guest is asked to have


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-v", "/no/such:/x"), "volume source /no/such is not there"),
        (tuple(f"--volume=/etc:/{number}" for number in range(129)), "129 volumes are more than 128"),
        (("-v", "/etc:relative"), "'relative' is not an absolute path"),
        (("-v", "/etc:/../x"), "'/../x'"),
        (("-p", "99999:80"), "99999"),
        (("-p", "198.51.100.1:8123:80"), "198.51.100.1"),
        (("-p", "8123:80", "-p", "127.0.0.1:8123:81"), "8123/tcp is published twice"),
        (("-e", "A=\udcff"), "workload.env.A: '\\udcff' is not UTF-8 text"),
        (("-v", "/etc:/proc/1"), "'/proc/1' is the kernel's"),
        (("-u", "nosuch"), "user 'nosuch'"),
        (("-m", "lots"), "not a size: 'lots'"),
        (("--cpus", "-1"), "cpus"),
        (("--cap-add", "NOPE"), "NOPE"),
        (("--network", "nosuch"), "nosuch"),
        (("-w", "relative"), "'relative'"),
        (("--ulimit", "nofile=9:3"), "nofile"),
        (("-e", "=x"), "=x"),
        (("--env-file", "/no/such"), "/no/such"),
        (("--name", "not a name"), "not a name"),
        (("--nosuchflag",), "nosuchflag"),
        (("--stop-signal", "SIGNOSUCH"), "SIGNOSUCH"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_given_is_refused_by_name(options: tuple[str, ...], told: str, product: Product) -> None:
    found = run(product, "busybox", *options)
    assert found.code == 125 and told in found.message, found


def test_a_name_and_a_port_in_use_are_told_with_who_has_them(product: Product) -> None:
    busybox = ("-q", "-t", "busybox")
    product.ok("run", "-d", "--name", "holder", "-p", "127.0.0.1::80", *busybox, "--", "sleep", "100")
    try:
        found = run(product, "busybox", "--name", "holder")
        assert found.code == 125 and "holder" in found.message and "in use" in found.message
        port = product.json("inspect", "holder")[0]["ports"][0].split("->")[0].rpartition(":")[2]
        found = run(product, "busybox", "-p", f"127.0.0.1:{port}:80")
        assert found.code == 125 and "holder" in found.message and port in found.message
    finally:
        product.ok("rm", "-f", "holder")


def test_a_guest_that_is_not_there_is_told_with_near_ones(product: Product) -> None:
    for words in (("stop",), ("kill",), ("rm",), ("start",), ("inspect",), ("logs",), ("wait",), ("attach",)):
        found = refused(product, *words, "nobody")
        assert found.code == 125 and found.message == "no guest 'nobody'"
    assert refused(product, "exec", "nobody", "--", "true").code == 125
    assert refused(product, "nosuchcommand").code == 125
    assert "ps" in refused(product, "pss").hint
