"""Programs without libraries that they name and never call, with the real compiler and the real loader."""

from __future__ import annotations

import os
import random
import signal
import subprocess

import pytest

from swiftlet.model.error import BadElfError, ResolveError
from swiftlet.resolve.elf import read_facts
from swiftlet.resolve.unlinked import unlinked
from tests.unit.elf_sample import build_elf
from tests.unit.test_resolve_resolver import instance, paths, template  # noqa: F401

PROGRAM = """
#include <stdio.h>
int plain_one(int), plain_two(int), versioned(int), kept(int);
int main(int count, char **words) {
    printf("%d\\n", kept(count));
    fflush(stdout);
    if (count == 2) return plain_one(1);
    if (count == 3) return versioned(1);
    return count == 4 ? plain_two(1) : 0;
}
"""
LIBRARIES = {
    "plain": "int plain_one(int a) { return a + 1; } int plain_two(int a) { return a + 2; }",
    "versioned": "int versioned(int a) { return a + 3; }",
    "kept": "int kept(int a) { return a + 40; }",
}
WITHOUT = {"libplain.so.1": ["plain_*"], "libversioned.so.1": []}


def compile_in(folder, style="gnu", flags=("-Wl,-z,now",), main=PROGRAM):
    """The program, and its libraries in folders of their own."""
    for name, text in LIBRARIES.items():
        (folder / name).mkdir()
        script = folder / f"{name}.map"
        script.write_text(f"{name.upper()}_1.0 {{ global: *; }};" if name != "plain" else "{ global: *; };")
        library = folder / name / f"lib{name}.so.1"
        options = [f"-Wl,-soname,lib{name}.so.1", f"-Wl,--version-script={script}"]
        words = ["gcc", "-shared", "-fPIC", "-x", "c", "-", *options, "-o", str(library)]
        subprocess.run(words, input=text.encode(), check=True)
    program = folder / "program"
    found = [str(folder / name / f"lib{name}.so.1") for name in LIBRARIES]
    hashes = [f"-Wl,--hash-style={style}"]
    words = ["gcc", "-x", "c", "-", "-x", "none", *found, *hashes, *flags, "-o", str(program)]
    subprocess.run(words, input=main.encode(), check=True)
    return program


def changed(path, without=None):
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return unlinked(file.fileno(), 0, size, str(path), WITHOUT if without is None else without)


def written(folder, data):
    path = folder / "changed"
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def run(program, libraries, *words):
    environment = {"LD_LIBRARY_PATH": ":".join(str(each) for each in libraries)}
    return subprocess.run([program, *words], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("flags", [("-Wl,-z,now",), ("-Wl,-z,lazy",), ("-no-pie", "-Wl,-z,now")])
def test_it_starts_without_them_and_ends_where_it_calls_them(tmp_path, style, flags):
    program = compile_in(tmp_path, style, flags)
    needed = [tmp_path / "kept"]
    assert "error while loading" in run(program, needed).stderr
    found = written(tmp_path, changed(program))
    done = run(found, needed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "41\n", "")
    for words in (["1"], ["1", "2"], ["1", "2", "3"]):
        done = run(found, needed, *words)
        assert (done.returncode, done.stdout) == (-signal.SIGSEGV, f"{41 + len(words)}\n")


def test_with_libraries_that_are_not_named_it_is_the_same_file(tmp_path):
    program = compile_in(tmp_path)
    assert changed(program, {"libother.so.1": ["plain_*"]}) == program.read_bytes()


def test_what_the_loader_reads_of_it(tmp_path):
    program = compile_in(tmp_path)
    found = written(tmp_path, changed(program))
    with open(found, "rb") as file:
        facts = read_facts(file.fileno(), "changed")
    assert facts.needed == ("libkept.so.1", "libc.so.6")
    assert set(facts.versions) == {"libkept.so.1", "libc.so.6"}
    told = subprocess.run(["readelf", "-W", "-d", "--dyn-syms", found], capture_output=True, text=True)
    assert "versioned.so" not in told.stdout
    symbols = {
        words[7]: words[4] for words in map(str.split, told.stdout.splitlines()) if words[6:7] == ["UND"] and words[7:]
    }
    assert symbols["plain_one"] == symbols["plain_two"] == symbols["versioned"] == "WEAK"
    assert symbols["kept@KEPT_1.0"] == "GLOBAL"


def test_a_function_that_the_patterns_forget_is_missed_at_the_start(tmp_path):
    program = compile_in(tmp_path)
    found = written(tmp_path, changed(program, WITHOUT | {"libplain.so.1": ["plain_one"]}))
    assert "undefined symbol: plain_two" in run(found, [tmp_path / "kept"]).stderr


def test_libraries_that_remain_serve_their_functions_even_if_a_pattern_names_them(tmp_path):
    program = compile_in(tmp_path)
    found = written(tmp_path, changed(program, {"libplain.so.1": ["*"]}))
    done = run(found, [tmp_path / "kept", tmp_path / "versioned"], "1", "2")
    assert (done.returncode, done.stdout) == (4, "43\n")


QUIET = PROGRAM.replace("    fflush(stdout);\n", "").replace(
    'printf("%d\\n", kept(count))', "puts(kept(count) > 0 ? words[0] : 0)"
)
"""The same without a symbol that others could use, so with an empty table of them."""


@pytest.mark.parametrize("flags", [("-no-pie", "-Wl,-z,now"), ("-Wl,-z,now",), ("-Wl,-z,lazy",)])
def test_a_program_that_offers_nothing_starts_without_them_as_well(tmp_path, flags):
    program = compile_in(tmp_path, "gnu", flags, QUIET)
    done = run(written(tmp_path, changed(program)), [tmp_path / "kept"])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_library_whose_only_versions_are_gone_is_loaded(tmp_path):
    compile_in(tmp_path)
    parts = [str(tmp_path / name / f"lib{name}.so.1") for name in ("versioned", "plain")]
    text = b"int versioned(int), plain_one(int); int mid(int c) { return c > 2 ? versioned(c) + plain_one(c) : c; }"
    words = ["gcc", "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-x", "none", *parts, "-Wl,--no-as-needed"]
    words += ["-Wl,-soname,libmid.so.1", "-Wl,--hash-style=both"]
    subprocess.run([*words, "-o", str(tmp_path / "libmid.so.1")], input=text, check=True)
    user = b"int mid(int); int main(int count, char **words) { return mid(count) - 1; }"
    words = ["gcc", "-x", "c", "-", "-x", "none", str(tmp_path / "libmid.so.1"), "-Wl,--unresolved-symbols=ignore-all"]
    subprocess.run([*words, "-o", str(tmp_path / "user")], input=user, check=True)
    for without, needed in ((WITHOUT, []), ({"libversioned.so.1": []}, [tmp_path / "plain"])):
        folder = tmp_path / f"without{len(without)}"
        folder.mkdir()
        (folder / "libmid.so.1").write_bytes(changed(tmp_path / "libmid.so.1", without))
        for now in ({}, {"LD_BIND_NOW": "1"}):
            path = ":".join(map(str, (folder, *needed)))
            done = subprocess.run([tmp_path / "user"], env={"LD_LIBRARY_PATH": path, **now}, capture_output=True)
            assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("flags", [("-Wl,-z,now",), ("-no-pie", "-Wl,-z,now")])
def test_data_of_a_library_cannot_be_left_out(tmp_path, flags):
    (tmp_path / "versioned.c").write_text("int counter = 5;")
    library = tmp_path / "libversioned.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", str(tmp_path / "versioned.c"), "-Wl,-soname,libversioned.so.1", "-o", library],
        check=True,
    )
    text = b"extern int counter; int main(void) { return counter; }"
    program = tmp_path / "program"
    subprocess.run(["gcc", "-x", "c", "-", "-x", "none", library, *flags, "-o", program], input=text, check=True)
    with pytest.raises(BadElfError, match="counter of a library left out is data, no function"):
        changed(program, {"libversioned.so.1": ["counter"]})


def test_damaged_files_are_refused_or_changed_and_nothing_else_happens(tmp_path):
    whole = bytearray(compile_in(tmp_path).read_bytes())
    draw = random.Random(5)
    refused = 0
    for turn in range(1500):
        data = bytearray(whole)
        if turn % 3 == 0:
            del data[draw.randrange(len(data)) :]
        for _ in range(draw.randrange(1, 6)):
            if data:
                data[draw.randrange(min(len(data), draw.choice((64, 1024, 1 << 20))))] = draw.randrange(256)
        try:
            assert len(changed(written(tmp_path, data))) == len(data)
        except BadElfError:
            refused += 1
    assert 100 < refused < 1500


def test_a_program_without_a_table_of_symbols_is_refused(tmp_path):
    path = written(tmp_path, build_elf(needed=["libplain.so.1"]))
    with pytest.raises(BadElfError, match=r"no (symbol|hash) table"):
        changed(path)


def test_a_library_that_nobody_needs_cannot_be_left_out(instance, tmp_path):  # noqa: F811
    path = template(tmp_path, "light", "files:\n  program: /bin/true\nwithout:\n  libplian.so.1: []\n")
    with pytest.raises(ResolveError, match=r"without.libplian.so.1 of light@1: none of its own files needs"):
        instance.stack(path)


def test_a_template_without_a_library_has_neither_it_nor_a_need_of_it(instance, tmp_path):  # noqa: F811
    program = compile_in(tmp_path, flags=("-Wl,-z,now", f"-Wl,-rpath,{tmp_path}/kept"))
    path = template(
        tmp_path,
        "light",
        f"files:\n  program: {program}\nwithout:\n  libplain.so.1: [plain_*]\n  libversioned.so.1:\n"
        f"entrypoint: [{program}]\n",
    )
    (resolved,) = instance.stack(path)
    assert not [name for name in paths(resolved) if "libplain" in name or "libversioned" in name]
    assert [name for name in paths(resolved) if "libkept" in name]
    entry = next(each for each in resolved.entries if each.path == str(program))
    assert entry.source == "generated"
    assert entry.why.endswith("without libplain.so.1, libversioned.so.1")
    assert entry.mode == 0o555
    with open(instance.layout.object(entry.digest, True), "rb") as file:
        assert file.read() == changed(program)
