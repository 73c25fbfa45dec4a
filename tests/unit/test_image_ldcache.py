"""The loader's cache: what ldconfig itself reads in it is what we wrote, in the loader's own order."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlet.image import ldcache

LDCONFIG = shutil.which("ldconfig", path="/usr/sbin:/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(LDCONFIG is None, reason="no ldconfig")


def read_back(path: str) -> list[tuple[str, str]]:
    done = subprocess.run([LDCONFIG, "-p", "-C", path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert int(lines[0].split()[0]) == len([line for line in lines if "=>" in line])
    return [tuple(re.fullmatch(r"\t(\S+) \(libc6,x86-64\) => (\S+)", line).groups()) for line in lines if "=>" in line]


def test_ldconfig_prints_exactly_the_libraries_that_were_written(tmp_path):
    libraries = [
        ("libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("libz.so.1", "/usr/lib/libz.so.1"),
        ("ld-linux-x86-64.so.2", "/usr/lib64/ld-linux-x86-64.so.2"),
        ("libA-1.2.so", "/opt/x/libA-1.2.so"),
    ]
    (tmp_path / "cache").write_bytes(ldcache.render(libraries))
    assert sorted(read_back(str(tmp_path / "cache"))) == sorted(libraries)


def test_the_order_is_the_one_that_ldconfig_itself_writes(tmp_path):
    """Rewrite this host's own cache: the loader bisects, so that one pair out of order is a library not found."""
    own = read_back("/etc/ld.so.cache")
    first = dict(reversed(own))
    shuffled = list(first.items())
    random.Random(1).shuffle(shuffled)
    (tmp_path / "cache").write_bytes(ldcache.render(shuffled))
    expected = [soname for number, (soname, _) in enumerate(own) if soname not in dict(own[:number])]
    assert [soname for soname, _ in read_back(str(tmp_path / "cache"))] == expected
    assert dict(read_back(str(tmp_path / "cache"))) == first


def compare_as_glibc_does(left: str, right: str) -> int:
    """_dl_cache_libcmp, from its description: digits by value and above everything else, the rest by byte."""
    i = j = 0
    while i < len(left):
        a, b = left[i], right[j] if j < len(right) else "\0"
        if a.isdigit() and b.isdigit():
            first, second = re.match(r"\d+", left[i:]).group(), re.match(r"\d+", right[j:]).group()
            if int(first) != int(second):
                return int(first) - int(second)
            i, j = i + len(first), j + len(second)
        elif a.isdigit() or b.isdigit():
            return 1 if a.isdigit() else -1
        elif a != b:
            return ord(a) - ord(b)
        else:
            i, j = i + 1, j + 1
    return -1 if j < len(right) else 0


@given(st.lists(st.text("lib0129.-_+Aas", min_size=1, max_size=12), min_size=1, max_size=30, unique=True))
def test_every_library_is_found_by_bisection(names):
    data = ldcache.render([(name, f"/{name}") for name in names])
    ordered = [data[key : data.index(b"\0", key)].decode() for key in record_keys(data)]
    assert sorted(ordered) == sorted(names)
    for upper, lower in itertools.pairwise(ordered):
        assert compare_as_glibc_does(upper, lower) >= 0


def record_keys(data: bytes) -> list[int]:
    count = int.from_bytes(data[20:24], "little")
    return [int.from_bytes(data[48 + 24 * n + 4 : 48 + 24 * n + 8], "little") for n in range(count)]


def test_the_first_of_two_with_one_soname_is_the_one_that_is_found(tmp_path):
    (tmp_path / "cache").write_bytes(ldcache.render([("libx.so.1", "/a/libx.so.1"), ("libx.so.1", "/b/libx.so.1")]))
    assert read_back(str(tmp_path / "cache")) == [("libx.so.1", "/a/libx.so.1")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("libc.so.6", True), ("libreadline.so", True), ("ld-linux-x86-64.so.2", True), ("libfoo-1.2.so", True),
     ("libpython3.11.so.1.0", True), ("foo.so", False), ("libc.a", False), ("libstdc++.so.6.0.30-gdb.py", False),
     ("libx.so.6-gdb.py", False), ("lib.so", False), ("libx.sofa", False), ("libü.so.1", False)],
)  # fmt: skip
def test_names_that_ldconfig_would_look_at(name, expected):
    assert ldcache.is_library_name(name) is expected


def test_libraries_are_found_by_file_name_by_link_and_by_soname():
    files = {
        "/usr/lib/libz.so.1": "/usr/lib/libz.so.1.2.13",
        "/usr/lib/libz.so.1.2.13": "/usr/lib/libz.so.1.2.13",
        "/usr/lib/libodd.so": "/usr/lib/libodd.so",
        "/elsewhere/libhidden.so.1": "/elsewhere/libhidden.so.1",
    }
    found = ldcache.find_libraries(files, ["/usr/lib"], {"/usr/lib/libodd.so": "libodd.so.5"})
    assert found == [("libodd.so.5", "/usr/lib/libodd.so"), ("libz.so.1", "/usr/lib/libz.so.1"),
                     ("libz.so.1.2.13", "/usr/lib/libz.so.1.2.13")]  # fmt: skip
    by_soname = ldcache.find_libraries(files, ["/usr/lib"], {"/usr/lib/libz.so.1.2.13": "libz.so.1"})
    assert ("libz.so.1", "/usr/lib/libz.so.1") in by_soname and (
        "libz.so.1.2.13",
        "/usr/lib/libz.so.1.2.13",
    ) not in by_soname


def test_a_configuration_names_absolute_directories_only():
    text = "# comment\n/usr/local/lib\n  /opt/x/ # why\ninclude /etc/ld.so.conf.d/*.conf\nrelative\n/a\0b\n/../../b\n"
    assert ldcache.directories_of(text) == ["/usr/local/lib", "/opt/x", "/b"]
