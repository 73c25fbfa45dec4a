"""Which template has a command that a guest lacks."""

from __future__ import annotations

import pytest

from swiftlet.model.closure import Closure, Entry, closure_of
from swiftlet.model.template import Template
from swiftlet.resolve.catalogue import Located
from swiftlet.resolve.commands import programs_like, templates_with


def located(name: str, **more: object) -> Located:
    return Located(f"{name}@1", Template(name, "1", **more), "shipped", "/", name)  # type: ignore[arg-type]


KNOWN = [
    located("bash", entrypoint=("/usr/bin/bash",)),
    located("box", links={"/usr/bin/ls": "box", "/usr/bin/[": "box"}),
    located("files", files={"tool": "/usr/sbin/tool"}),
    located("server", packages=("server=1.*",), exclude=("/usr/bin/**",), include=("/usr/bin/client",)),
    located("basics"),
]


def resolved(item: Located) -> Closure | None:
    if item.template.name != "basics":
        return None
    return closure_of(
        "basics@1", [Entry("/usr/bin/ls", "file", 0o555, "0" * 64, 1), Entry("/usr/bin/bash", "directory")]
    )


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("ls", ["box", "basics"]),
        ("/bin/ls", ["box", "basics"]),
        ("/usr/sbin/ls", ["box", "basics"]),
        ("[", ["box"]),
        ("bash", ["bash"]),
        ("tool", ["files"]),
        ("client", ["server"]),
        ("nothing", []),
        ("/opt/ls", []),
        ("../ls", []),
        ("", []),
        ("*", []),
        ("l" * 1000, []),
    ],
)
def test_a_command_is_found_by_files_and_by_what_templates_spell_out(command: str, found: list[str]) -> None:
    assert templates_with(command, KNOWN, resolved, host=False) == found


def test_this_hosts_packages_tell_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = located("packaged", packages=("coreutils=9.*",))
    bare = located("bare", packages=("coreutils",), exclude=("/usr/bin/*",))
    assert templates_with("tac", [packaged, bare], lambda _: None) == ["packaged"]
    assert templates_with("tac", [bare], lambda _: None) == ["deb:coreutils"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert templates_with("tac", [packaged], lambda _: None) == []


PROGRAMS = closure_of(
    "deb:db",
    [
        Entry("/usr/lib/postgresql/15/bin/postgres", "file", 0o555, "0" * 64, 1),
        Entry("/usr/share/doc/postgres", "file", 0o444, "0" * 64, 1),
        Entry("/usr/share/php", "directory"),
        *(Entry(f"/usr/bin/{name}", "file", 0o555, "0" * 64, 1) for name in ("php8.2", "phpize", "nc.openbsd")),
        *(Entry(f"/usr/bin/{name}", "file", 0o555, "0" * 64, 1) for name in ("vim.tiny", "vimdiff", "clang-14", "[")),
    ],
)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("postgres", ["/usr/lib/postgresql/15/bin/postgres"]),
        ("/usr/bin/postgres", ["/usr/lib/postgresql/15/bin/postgres"]),
        ("php", ["/usr/bin/php8.2"]),
        ("nc", ["/usr/bin/nc.openbsd"]),
        ("vi", ["/usr/bin/vim.tiny"]),
        ("clang", ["/usr/bin/clang-14"]),
        ("vimd", []),
        ("/usr/bin/[", []),
        ("(", []),
        ("", []),
    ],
)
def test_a_guest_may_have_a_command_elsewhere_or_under_another_name(command: str, found: list[str]) -> None:
    assert programs_like(command, [PROGRAMS]) == found
