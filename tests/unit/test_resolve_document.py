from __future__ import annotations

import os
import time
import tracemalloc

import pytest

from swiftlet.model.error import InputError, NotFoundError
from swiftlet.resolve.document import parse_document, read_document
from swiftlet.resolve.written import MAX_BYTES


def root_of(text: str):
    return parse_document(text.encode(), "t.yaml").root


def test_scalars_stay_what_was_written():
    text = "version: 3.10\nyes: no\nnothing: ~\noctal: 0755\ndate: 2024-01-01\nquoted: 'x'\nempty:\n"
    assert root_of(text) == {
        "version": "3.10",
        "yes": "no",
        "nothing": "~",
        "octal": "0755",
        "date": "2024-01-01",
        "quoted": "x",
        "empty": "",
    }


def test_the_line_of_every_value_is_known():
    document = parse_document(b"name: x\nlibs:\n  - a\n  - b\n", "t.yaml")
    assert document.lines.at("$.libs[1]") == 4
    assert str(document.error("$.libs[1]", "bad")) == "t.yaml:4: $.libs[1]: bad"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: *x\n", "anchor"),
        ("b: *x\n", "alias"),
        ("a: !!python/object/apply:os.system ['true']\n", "tag"),
        ("a: !!binary aGk=\n", "tag"),
        ("a: 1\na: 2\n", "comes twice"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("? [1, 2]\n: x\n", "a key that is not text"),
        ("a: [1, 2\n", "t.yaml:2"),
        ("a: b: c\n", "t.yaml:1"),
        ("a:\n\t- b\n", "t.yaml:2"),
        ('a: "\\0"\n', "NUL"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("[" * 200 + "]" * 200, "nested deeper"),
        ("a: [" + "1," * 60000 + "]", "more than"),
        ("%YAML 9.9\n---\na: 1\n", "t.yaml"),
    ],
)
def test_what_no_template_needs_is_refused_with_file_and_line(text, words):
    with pytest.raises(InputError, match=words) as caught:
        root_of(text)
    assert str(caught.value).startswith("t.yaml")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InputError, match="not UTF-8 at byte 3"):
        parse_document(b"a: \xff", "t.yaml")
    with pytest.raises(InputError):
        parse_document(b"\x00\x01", "t.yaml")


def test_a_billion_laughs_take_no_time():
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))
    start = time.monotonic()
    with pytest.raises(InputError):
        root_of(f"l0: &l0 [x]\n{levels}\n")
    assert time.monotonic() - start < 1


def test_keys_that_look_like_paths_have_their_lines():
    document = parse_document(b"a.b: x\na:\n  c: y\n  'b[0]':\n    - z\n", "t.yaml")
    paths = ("$", "$.a.b", "$.a", "$.a.c", "$.a.b[0]", "$.a.b[0][0]", "$.a.d", "")
    assert [document.lines.at(path) for path in paths] == [1, 1, 3, 3, 5, 5, 0, 0]


def test_many_values_below_long_keys_take_no_more_memory_than_they_are_long():
    data = (f"{{? {'k' * 4096} : " * 10 + f"[{'x,' * 40_000}]" + "}" * 10).encode()
    tracemalloc.start()
    try:
        parse_document(data, "t.yaml")
        assert tracemalloc.get_traced_memory()[1] < 100 * len(data) + (16 << 20)
    finally:
        tracemalloc.stop()


def test_depth_that_would_break_a_recursive_reader_is_refused():
    with pytest.raises(InputError):
        root_of("[" * 100_000)
    with pytest.raises(InputError):
        root_of("".join(" " * n + "a:\n" for n in range(1000)))


def test_files_that_are_none_or_too_long(tmp_path):
    with pytest.raises(NotFoundError, match="no file"):
        read_document(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="not a file"):
        read_document(str(tmp_path))
    (tmp_path / "long.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="longer than"):
        read_document(str(tmp_path / "long.yaml"))
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="not a file"):
        read_document(str(tmp_path / "pipe.yaml"))
    with pytest.raises(InputError, match="not a file"):
        read_document("/dev/zero")
