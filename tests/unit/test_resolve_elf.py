from __future__ import annotations

import glob
import os
import struct
import time

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

from swiftlet.model.error import BadElfError
from swiftlet.resolve.elf import MAGIC, Facts, read_facts
from tests.unit.elf_sample import build_elf


def facts_of(data: bytes) -> Facts:
    descriptor = os.memfd_create("elf")
    try:
        os.write(descriptor, data)
        return read_facts(descriptor, "sample")
    finally:
        os.close(descriptor)


def test_all_that_the_loader_reads_is_found():
    facts = facts_of(
        build_elf(
            needed=["libc.so.6", "libz.so.1"],
            soname="libx.so.2",
            runpath="$ORIGIN/../lib:/opt/lib",
            interpreter="/lib64/ld-linux-x86-64.so.2",
            versions={"libc.so.6": ["GLIBC_2.34", "GLIBC_2.99"], "libz.so.1": ["ZLIB_1.2"]},
            weak=["GLIBC_2.99"],
            defines=["X_1", "X_2"],
            dlopen=[{"soname": ["libzstd.so.1", "libzstd.so"], "priority": "required", "feature": "zstd"}],
        )
    )
    assert facts.needed == ("libc.so.6", "libz.so.1")
    assert facts.soname == "libx.so.2"
    assert facts.runpath == ("$ORIGIN/../lib", "/opt/lib")
    assert facts.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert facts.versions == {"libc.so.6": ("GLIBC_2.34",), "libz.so.1": ("ZLIB_1.2",)}
    assert facts.defines == ("X_1", "X_2")
    assert [(note.sonames, note.priority) for note in facts.dlopen] == [(("libzstd.so.1", "libzstd.so"), "required")]


def test_a_library_with_an_interpreter_is_no_program_and_a_pie_is_one():
    loader = "/lib64/ld-linux-x86-64.so.2"
    assert not facts_of(build_elf(soname="libc.so.6", interpreter=loader)).program
    assert facts_of(build_elf(interpreter=loader)).program
    assert facts_of(build_elf(kind=2)).program


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF", "cut short"),
        (build_elf()[:4] + b"\x01" + build_elf()[5:], "32-bit"),
        (build_elf()[:5] + b"\x02" + build_elf()[6:], "big-endian"),
        (build_elf(machine=183), "machine 183"),
        (build_elf(kind=1), "neither a program nor a shared library"),
        (build_elf(kind=4), "neither a program nor a shared library"),
    ],
)
def test_what_cannot_be_loaded_is_named(data, words):
    with pytest.raises(BadElfError, match=words) as caught:
        facts_of(data)
    assert "sample" in str(caught.value)


def test_a_file_cut_short_anywhere_is_refused_or_read_but_nothing_else_happens():
    whole = build_elf(needed=["libc.so.6"], versions={"libc.so.6": ["GLIBC_2.34"]}, defines=["A"], interpreter="/l")
    for length in range(len(whole)):
        with pytest.raises(BadElfError):
            facts_of(whole[:length])


def test_tables_that_overlap_do_not_keep_us_busy():
    """Ten thousand records of which each claims the same twenty thousand names: read whole, it would take hours."""
    data = bytearray(build_elf(versions={"libc.so.6": ["A"]}))
    place = data.index(struct.pack("<HHII", 1, 1, data.index(b"libc.so.6\0") - data.index(b"\0libc"), 16))
    data[place : place + 16] = struct.pack("<HHIII", 1, 20000, 1, 16, 1)
    data[place + 28 : place + 32] = struct.pack("<I", 1)
    data += b"\1\0" * 200000
    count = data.index(struct.pack("<qQ", 0x6FFFFFFF, 1))
    data[count : count + 16] = struct.pack("<qQ", 0x6FFFFFFF, 20000)
    data[64 + 32 : 64 + 48] = struct.pack("<QQ", len(data), len(data))
    start = time.monotonic()
    try:
        facts_of(bytes(data))
    except BadElfError:
        pass
    assert time.monotonic() - start < 2


def test_absurd_counts_are_refused_before_anything_is_read():
    data = bytearray(build_elf())
    data[56:58] = struct.pack("<H", 65535)
    with pytest.raises(BadElfError, match="65535 program headers"):
        facts_of(bytes(data))


def test_notes_that_say_nothing_sensible_are_passed_over():
    for content in ("x", {"soname": []}, [1, {"soname": "x"}, {"soname": [1]}], [{"soname": []}]):
        assert facts_of(build_elf(dlopen=content)).dlopen == ()


def test_it_says_what_pyelftools_says_of_every_object_of_this_machine():
    checked = 0
    for path in sorted(glob.glob("/usr/bin/*") + glob.glob("/usr/lib/x86_64-linux-gnu/*.so*"))[::7]:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                if file.read(4) == MAGIC:
                    assert _ours(path) == _theirs(path), path
                    checked += 1
    assert checked > 20


def _ours(path: str):
    with open(path, "rb") as file:
        try:
            facts = read_facts(file.fileno(), path)
        except BadElfError:
            return None
    return facts.needed, facts.soname, facts.interpreter, facts.versions, set(facts.defines)


def _theirs(path: str):
    with open(path, "rb") as file:
        elf = ELFFile(file)
        if elf.elfclass != 64 or elf["e_machine"] != "EM_X86_64" or elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
            return None
        needed, soname, interpreter, versions, defines = [], "", "", {}, set()
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_INTERP":
                interpreter = segment.get_interp_name()
            if isinstance(segment, DynamicSegment):
                for tag in segment.iter_tags():
                    if tag.entry.d_tag == "DT_NEEDED":
                        needed.append(tag.needed)
                    elif tag.entry.d_tag == "DT_SONAME":
                        soname = tag.soname
        for section in elf.iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for need, names in section.iter_versions():
                    strong = tuple(name.name for name in names if not name["vna_flags"] & 2)
                    versions[need.name] = versions.get(need.name, ()) + strong
            elif isinstance(section, GNUVerDefSection):
                for definition, names in section.iter_versions():
                    if not definition["vd_flags"] & 1:
                        defines.add(next(iter(names)).name)
        return tuple(needed), soname, interpreter, versions, defines
