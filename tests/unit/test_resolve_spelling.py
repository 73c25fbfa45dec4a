from __future__ import annotations

import pytest

from swiftlet.model import spelling
from swiftlet.model.error import InputError
from swiftlet.model.spelling import Reference


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("128M", 128 << 20),
        ("1.5GiB", 3 << 29),
        ("512k", 512 << 10),
        ("2 TB", 2 << 40),
        ("7b", 7),
    ],
)
def test_sizes(text, size):
    assert spelling.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1..5", "1e9", "9" * 19, "999999999P", "١"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="size"):
        spelling.parse_size(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("80", (80, 0, "", "tcp")),
        ("8080:80", (80, 8080, "", "tcp")),
        ("8080:80/UDP", (80, 8080, "", "udp")),
        ("127.0.0.1:8080:80", (80, 8080, "127.0.0.1", "tcp")),
        ("127.0.0.1::80", (80, 0, "127.0.0.1", "tcp")),
        ("[::1]:8080:80", (80, 8080, "::1", "tcp")),
    ],
)
def test_ports(text, parts):
    found = spelling.parse_port(text)
    assert (found["guest"], found["host"], found["host_ip"], found["protocol"]) == parts


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "a:80", "80:", "1.2.3:80:80", "80/sctp", "-1:80", "80:80:80:80", "²"]
)
def test_what_is_no_port(text):
    with pytest.raises(InputError, match="port"):
        spelling.parse_port(text)


def test_volumes_start_where_they_are_written():
    assert spelling.parse_volume("./a:/b:ro", "/base") == {"source": "/base/a", "target": "/b", "read_only": True}
    assert spelling.parse_volume("/a:/b", "/base")["source"] == "/a"
    for text in ("a", ":/b", "a:", "a:b", "a:/b:rx", "a:/../b", "a:/b\0"):
        with pytest.raises(InputError):
            spelling.parse_volume(text, "/base")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("python@3.11", Reference("template", "python", "3.11")),
        ("nginx", Reference("template", "nginx")),
        ("deb:redis-server", Reference("deb", "redis-server")),
        ("deb:libc6=2.36-9+deb12u10", Reference("deb", "libc6", "2.36-9+deb12u10")),
        ("host:/usr/bin/make", Reference("host", "/usr/bin/make")),
        ("./a b.yaml", Reference("file", "./a b.yaml")),
    ],
)
def test_references_and_back(text, reference):
    assert spelling.parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    ["", "A", "a@", "a b", "../a", "deb:", "deb:-o", "deb:a=", "deb:a=b c", "host:make", "host:/../x", "a@b@c", "@1"],
)
def test_what_is_no_reference(text):
    with pytest.raises(InputError):
        spelling.parse_reference(text)


def test_libraries_are_spelled_as_in_the_paper():
    assert spelling.parse_library("libpthread@0") == "libpthread.so.0"
    assert spelling.parse_library("libfoo@") == "libfoo.so"
    for text in ("libc", "@6", "lib/c@6", "libc@6/..", ""):
        with pytest.raises(InputError):
            spelling.parse_library(text)


def test_limits_variables_and_cpus():
    assert spelling.parse_ulimit("nofile=1024:unlimited") == ("nofile", (1024, -1))
    assert spelling.parse_ulimit("core=0") == ("core", (0, 0))
    assert spelling.parse_environment("A=b=c") == ("A", "b=c")
    assert spelling.parse_environment("A") == ("A", None)
    assert spelling.parse_cpus("0.5") == 0.5
    for parse, text in (
        (spelling.parse_ulimit, "nofile"),
        (spelling.parse_ulimit, "nofile=x"),
        (spelling.parse_environment, "=x"),
        (spelling.parse_environment, "A=\0"),
        (spelling.parse_cpus, "nan"),
        (spelling.parse_cpus, "-1"),
        (spelling.parse_cpus, "x"),
    ):
        with pytest.raises(InputError):
            parse(text)
