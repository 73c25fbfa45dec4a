from __future__ import annotations

import base64
import hashlib
import struct
import subprocess

from swiftlet.resolve.packs import LDCONFIG, PACKS, implied, java_store, with_needed


def pem(content: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(content) + b"-----END CERTIFICATE-----\n"


def test_a_java_store_holds_every_certificate_under_its_name_and_its_seal_is_right():
    store = java_store([("/c/B.crt", pem(b"one")), ("/c/a.crt", pem(b"two")), ("/c/none.crt", b"nothing")])
    body, seal = store[:-20], store[-20:]
    assert hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest() == seal
    assert struct.unpack_from(">III", body) == (0xFEEDFEED, 2, 2)
    place, found = 12, {}
    for _ in range(2):
        tag, length = struct.unpack_from(">IH", body, place)
        assert tag == 2
        alias = body[place + 6 : place + 6 + length]
        place += 6 + length + 8 + 2 + 5
        (size,) = struct.unpack_from(">I", body, place)
        found[alias] = body[place + 4 : place + 4 + size]
        place += 4 + size
    assert found == {b"b": b"one", b"a": b"two"} and place == len(body)


def test_a_java_store_is_the_same_for_the_same_certificates():
    assert java_store([("/a.crt", pem(b"x"))]) == java_store([("/a.crt", pem(b"x"))])


def test_what_stands_for_ldconfig_speaks_so_that_ctypes_understands(tmp_path):
    import ctypes.util
    import os

    script = tmp_path / "ldconfig"
    script.write_bytes(LDCONFIG)
    script.chmod(0o755)
    text = subprocess.run([script, "-p"], capture_output=True, check=True).stdout
    assert b"\tlibc.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libc.so.6\n" in text
    assert subprocess.run([script], capture_output=True, check=True).stdout == b""
    assert os.path.exists("/lib/x86_64-linux-gnu/libc.so.6") and ctypes.util.find_library("c") == "libc.so.6"


def test_packs_bring_those_that_they_need_each_once():
    assert with_needed(["ldconfig", "nss", "shell"]) == ["ldconfig", "nss", "shell"]
    assert with_needed(["ldconfig"]) == ["ldconfig", "shell"]
    for name, pack in PACKS.items():
        assert set(pack.needs) <= set(PACKS), name


def test_a_package_that_depends_on_data_gets_its_pack():
    assert implied(["tzdata", "libc6", "ca-certificates"], set()) == ["certificates", "timezones"]
    assert implied([], {"/usr/lib/x86_64-linux-gnu/libtinfo.so.6"}) == ["terminfo"]
