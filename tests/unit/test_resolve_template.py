from __future__ import annotations

import glob

import pytest

from swiftlet.model.error import InputError
from swiftlet.model.template import Directory
from swiftlet.resolve.canonical import template_bytes, template_digest, template_from_bytes
from swiftlet.resolve.catalogue import RECIPES
from swiftlet.resolve.packs import PACKS
from swiftlet.resolve.template import PACKS as PACK_NAMES
from swiftlet.resolve.template import load_template, parse_template

FIGURE_6 = b"""\
name: python
version: 3.5.2
files:
  python: /bin/python
  python3.5: /usr/lib/python3.5
libs:
  - libpthread@0
  - libc@6
  - libdl@2
  - libutil@1
  - libexpat@1
  - libz@1
  - libm@6
"""


def test_the_papers_figure_6_is_read_as_it_stands():
    template = parse_template(FIGURE_6, "ret.yaml")
    assert template.reference == "python@3.5.2"
    assert template.files == {"python": "/usr/bin/python", "python3.5": "/usr/lib/python3.5"}
    assert template.libs[:2] == ("libpthread@0", "libc@6")


def test_a_version_keeps_its_last_zero():
    assert parse_template(b"name: x\nversion: 3.10\n", "t").version == "3.10"


def test_lists_and_maps_with_nothing_in_them_are_empty():
    template = parse_template(b"name: x\nversion: 1\nlibs:\nfiles:\n", "t")
    assert template.libs == () and template.files == {}


def test_everything_that_a_template_can_say():
    text = b"""\
name: x
version: 1
requires: [y@2, deb:z=1.0, ./other.yaml]
packages: [a, b=1.2-3, c=4.*]
wheels: {w==1.*: /usr/lib/w}
packs: [nss, locale]
links: {/bin/x: y}
directories: {/var/x: {mode: 0700, user: u}, /var/y: {}}
users: {u: 33}
env: {A: 1}
entrypoint: [x, ""]
without: {libx.so.1: [x_*, y], liby-2.0.so.0: []}
generate:
  - run: [make, it]
    outputs: [/etc/it]
"""
    template = parse_template(text, "t")
    assert template.links == {"/usr/bin/x": "y"}
    assert template.directories == {"/var/x": Directory("0700", "u"), "/var/y": Directory()}
    assert template.users == {"u": 33}
    assert template.entrypoint == ("x", "")
    assert template.without == {"libx.so.1": ("x_*", "y"), "liby-2.0.so.0": ()}
    assert template.generate[0].run == ("make", "it")
    assert template_from_bytes(template_bytes(template), "t") == template


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\n", r"t:1: \$: has no version"),
        ("- x\n", r"expected a map, found a list"),
        ("name: x\nversion: 1\nlibs: [a@1, b@1, c]\n", r"t:3: \$\.libs\[2\]: not a library: 'c'"),
        ("name: x\nversion: 1\nlibs: a@1\n", r"\$\.libs: expected a list, found the text 'a@1'"),
        ("name: x\nversion: 1\nfiles: [a]\n", r"\$\.files: expected a map, found a list"),
        ("name: x\nversion: 1\nfiles: {a: b}\n", r"\$\.files\.a: not an absolute path"),
        ("name: x\nversion: 1\nfiles: {a: /../etc/shadow}\n", r"\$\.files\.a: path climbs"),
        ("name: x\nversion: 1\nlinks: {/../x: y}\n", r"\$\.links\./\.\./x"),
        ("name: x\nversion: 1\nlinks: {/bin/a: x, /usr/bin/a: y}\n", "two spellings"),
        ("name: x\nversion: [1]\n", r"\$\.version: expected text, found a list"),
        ("name: X Y\nversion: 1\n", r"\$\.name: not a name"),
        ("name: ../x\nversion: 1\n", r"\$\.name: not a name"),
        ("name: x\nversion: ../1\n", r"\$\.version: not a version"),
        ("name: x\nversion: 1\npackages: [-o]\n", r"\$\.packages\[0\]: not a Debian package"),
        ("name: x\nversion: 1\npackages: [a=-o]\n", r"\$\.packages\[0\]"),
        ("name: x\nversion: 1\nwheels: {--index-url=x: /x}\n", r"\$\.wheels"),
        ("name: x\nversion: 1\npacks: [nothing]\n", r"\$\.packs\[0\]: expected one of"),
        ("name: x\nversion: 1\nusers: {u: 65536}\n", r"\$\.users\.u"),
        ("name: x\nversion: 1\nusers: {u: x}\n", r"\$\.users\.u"),
        ("name: x\nversion: 1\ndirectories: {/x: {mode: 4755}}\n", r"\$\.directories\./x\.mode"),
        ("name: x\nversion: 1\ndirectories: {/x: {user: u}}\n", "u is not among users"),
        ("name: x\nversion: 1\nenv: {A=B: x}\n", r"\$\.env\.A=B"),
        ("name: x\nversion: 1\ngenerate: [{run: [x]}]\n", r"\$\.generate\[0\]: needs run"),
        ("name: x\nversion: 1\nwithout: {/lib/x: []}\n", r"\$\.without\./lib/x: not a library's name"),
        ("name: x\nversion: 1\nwithout: {x.so: [a-b]}\n", r"\$\.without\.x\.so\[0\]: not a function's name"),
        ("name: x\nversion: 1\ninclude: [x]\n", r"\$\.include\[0\]"),
        ("name: x\nversion: 1\nrequires: [host:x]\n", r"\$\.requires\[0\]"),
        ("name: x\nversion: 1\nfiles: {a: /" + "x" * 300 + "}\n", "not a usable path"),
    ],
)
def test_what_is_wrong_is_said_with_the_path_into_the_document(text, words):
    with pytest.raises(InputError, match=words) as caught:
        parse_template(text.encode(), "t")
    assert "\n" not in str(caught.value)


def test_a_mistyped_key_gets_the_right_one_as_a_hint():
    with pytest.raises(InputError, match=r"\$\.package: unknown key") as caught:
        parse_template(b"name: x\nversion: 1\npackage: [a]\n", "t")
    assert "packages" in caught.value.hint


def test_two_spellings_of_one_template_have_one_digest():
    one = parse_template(b"name: x\nversion: 1\nfiles: {a: /bin/a, b: /bin/b}\n", "t")
    other = parse_template(b"version: '1'\nfiles:\n  b: /usr/bin/b\n  a: /bin//a\nname: x\n", "u")
    assert template_digest(one) == template_digest(other)


def test_damaged_canonical_bytes_are_refused():
    for data in (b"", b"{", b"[]", b'{"name": 1}', b'{"name": "x", "version": "1", "more": 1}', b"\xff"):
        with pytest.raises(InputError, match=r"^t: "):
            template_from_bytes(data, "t")


def test_the_names_of_packs_are_those_that_there_are():
    assert set(PACK_NAMES) == set(PACKS)


@pytest.mark.parametrize("path", sorted(glob.glob(f"{RECIPES}/*.yaml")))
def test_every_shipped_recipe_is_a_template_and_is_called_like_its_file(path):
    template = load_template(path)
    assert path.endswith(f"/{template.name}-{template.version}.yaml")
    assert template.description
