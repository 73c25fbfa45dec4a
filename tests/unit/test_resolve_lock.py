from __future__ import annotations

import json

import msgspec
import pytest

from swiftlet.model.closure import Entry, closure_of
from swiftlet.model.error import InputError
from swiftlet.model.template import Template
from swiftlet.resolve.apt import Package
from swiftlet.resolve.canonical import template_digest
from swiftlet.resolve.lock import FORMAT, Lock, lock_bytes, locks_of, parse_locks
from swiftlet.resolve.wheel import Wheel

TEMPLATE = Template("t", "1", packages=("a",), env={"A": "b"}, users={"u": 3})
ENTRIES = (
    Entry("/etc/x", "file", 0o444, "a" * 64, 3, source="deb:a=1", why="part of a"),
    Entry("/usr/bin/y", "symlink", 0o777, target="../../etc/x", by="/etc/x"),
    Entry("/var/z", "directory", 0o1777, uid=3, gid=3),
)


def lock(**changes) -> Lock:
    entries = list(changes.pop("entries", ENTRIES))
    template = changes.get("template", TEMPLATE)
    closure = closure_of("t@1", entries, env=template.env, users=template.users)
    values = {
        "format": FORMAT,
        "reference": "t@1",
        "template": template,
        "template_digest": template_digest(template),
        "closure": closure.digest,
        "entries": tuple(entries),
        "packages": (Package("a", "1:2-3~x", "a", "libs", 10, "b" * 64, ("c",)),),
        "wheels": (Wheel("w", "1.0", "c" * 64, "/usr/lib/w"),),
    }
    return Lock(**{**values, **changes})


def plain(found: Lock):
    return json.loads(lock_bytes([found]))


def test_a_lock_comes_back_as_it_was():
    assert parse_locks(lock_bytes([lock()])) == {"t@1": lock()}
    assert locks_of(msgspec.to_builtins(lock())) == {"t@1": lock()}


def test_a_change_of_one_file_is_a_change_of_one_line():
    changed = [msgspec.structs.replace(ENTRIES[0], size=4), *ENTRIES[1:]]
    before, after = (set(lock_bytes([each]).splitlines()) for each in (lock(), lock(entries=changed)))
    assert len(after - before) == 1  # a size is not part of the closure's digest


def test_it_holds_no_address():
    assert b"://" not in lock_bytes([lock()])


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("entries", 0, "path"), "/etc/../x", r"\$\.locks\[0\]\.entries\[0\]\.path: not a canonical path"),
        (("entries", 0, "path"), "/bin/x", r"entries\[0\]\.path: not a canonical path"),
        (("entries", 0, "path"), "etc/x", r"entries\[0\]\.path"),
        (("entries", 0, "path"), "/", r"entries\[0\]\.path"),
        (("entries", 0, "path"), "/etc/x\0", r"entries\[0\]\.path"),
        (("entries", 0, "path"), "/etc/\ud800", r"entries\[0\]\.path|not JSON"),
        (("entries", 1, "path"), "/etc/x", r"entries\[1\]\.path: /etc/x comes twice"),
        (("entries", 0, "mode"), 0o4755, r"entries\[0\]\.mode"),
        (("entries", 0, "mode"), 0o644, r"entries\[0\]\.mode"),
        (("entries", 2, "mode"), 0o6777, r"entries\[2\]\.mode"),
        (("entries", 0, "digest"), "../../x", r"entries\[0\]\.digest"),
        (("entries", 0, "uid"), 1000, r"entries\[0\]\.digest: .*belongs to root"),
        (("entries", 0, "kind"), "device", r"entries\[0\]\.kind"),
        (("entries", 0, "size"), 10 << 40, r"entries\[0\]: a size"),
        (("entries", 0, "size"), -1, r"entries\[0\]: a size"),
        (("entries", 1, "target"), "", r"entries\[1\]\.target"),
        (("entries", 2, "uid"), 1 << 20, r"entries\[2\]"),
        (("entries", 0, "why"), 1, r"entries\[0\]\.why"),
        (("packages", 0, "name"), "--option", r"packages\[0\]\.name: not a package"),
        (("packages", 0, "version"), "1/../2", r"packages\[0\]\.version"),
        (("packages", 0, "sha256"), "../x", r"packages\[0\]\.sha256"),
        (("wheels", 0, "place"), "/../x", r"wheels\[0\]\.place"),
        (("wheels", 0, "name"), "a b", r"wheels\[0\]\.name"),
        (("template", "packages"), ["-o"], r"\.template: \$\.packages\[0\]: not a Debian package"),
        (("template", "links"), {"/../x": "y"}, r"\.template: \$\.links"),
        (("template", "links"), {"/bin/x": "y"}, r"\.template: .*canonical"),
        (("template", "users"), {"u": -3}, r"\.template: \$\.users\.u"),
        (("template", "directories"), {"/x": {"mode": "9"}}, r"\.template: \$\.directories"),
        (("template", "env"), {"A": "evil"}, r"template_digest: is not the digest"),
        (("template_digest",), "0" * 64, r"template_digest: is not the digest"),
        (("closure",), "0" * 64, r"\.closure: is not the digest of the entries"),
        (("requires",), ["x"] * 65, r"\.requires: more than"),
        (("format",), 2, r"\.format: 2 is not 1"),
        (("entries",), {}, r"\.entries"),
        (("reference",), 1, r"\.reference"),
    ],
)
def test_a_lock_that_was_tampered_with_is_refused_with_the_place(path, value, words):
    document = plain(lock())
    place = document["locks"][0]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(InputError, match=words) as caught:
        parse_locks(json.dumps(document).encode(), "x.lock")
    assert str(caught.value).startswith("x.lock: ")


def test_another_content_of_a_file_does_not_go_unnoticed():
    document = plain(lock())
    document["locks"][0]["entries"][0]["digest"] = "d" * 64
    with pytest.raises(InputError, match="closure: is not the digest"):
        parse_locks(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"[]",
        b"1",
        b"{}",
        b'{"locks": []}',
        b'{"format": 1, "locks": 3}',
        b"\xff",
        b"[" * 100_000,
        b'{"format": 1, "locks": [[]]}',
    ],
)
def test_what_is_no_lock_is_refused(data):
    with pytest.raises(InputError, match=r"^lock: "):
        parse_locks(data)


def test_cut_anywhere_it_is_refused():
    data = lock_bytes([lock()])
    for length in range(0, len(data) - 2, 7):
        with pytest.raises(InputError):
            parse_locks(data[:length])
