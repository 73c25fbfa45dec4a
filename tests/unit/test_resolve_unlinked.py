"""Programs without libraries that they name and never call, with the real compiler and the real loader."""

from __future__ import annotations

import os
import random
import signal
import subprocess

import pytest

from swiftlet.model.error import BadElfError
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


def compile_in(folder, style="gnu", flags=("-Wl,-z,now",)):
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
    subprocess.run(words, input=PROGRAM.encode(), check=True)
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
