"""Resolution of templates that take this host's own files: all of the resolver but the fetching of packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from swiftlet.model.error import BadElfError, HostError, InputError, MissingLibraryError, NotFoundError, ResolveError
from swiftlet.resolve.explain import explain, paths_named
from swiftlet.resolve.resolver import Resolver
from swiftlet.store.layout import Layout
from swiftlet.store.session import Session
from tests.unit.elf_sample import build_elf


class Instance:
    """A store in a temporary folder and a resolver over it."""

    def __init__(self, root, sandbox=None):
        self.root = str(root)
        self.layout = Layout(self.root)
        self.layout.prepare()
        self.session = Session(self.layout)
        self.sandbox = sandbox

    def resolver(self):
        return Resolver(self.session.objects, self.session.records, f"{self.root}/cache", sandbox=self.sandbox)

    def stack(self, *references, **options):
        return self.resolver().stack(references, **options)


@pytest.fixture
def instance(tmp_path):
    found = Instance(tmp_path / "root")
    with found.session:
        yield found


def template(folder, name, text):
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nversion: 1\n{text}")
    return str(path)


def paths(closure):
    return {entry.path for entry in closure.entries}


def objects_of(instance):
    return [os.path.join(where, name) for where, _, names in os.walk(instance.layout.objects) for name in names]


def test_a_program_of_the_host_with_its_libraries(instance):
    (closure,) = instance.stack("host:/bin/ls")
    assert {"/usr/bin/ls", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib64/ld-linux-x86-64.so.2"} <= paths(closure)
    assert closure.entrypoint == ("/bin/ls",) or closure.entrypoint == ("/usr/bin/ls",)
    chain = explain([closure], "/lib/x86_64-linux-gnu/libc.so.6")
    assert chain[-1].path == "/usr/bin/ls" and chain[-1].by == ""
    instance.session.trees.build(closure.digest, closure.entries)


def test_the_papers_template_takes_its_files_and_libraries_from_the_host(instance, tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "x").write_text("hello")
    (folder / "link").symlink_to("sub/x")
    text = f"files:\n  ls: /bin/ls\n  data: {folder}\nlibs:\n  - libpthread@0\n  - libc@6\n  - libm@6\n"
    (closure,) = instance.stack(template(tmp_path, "paper", text))
    assert {"/usr/bin/ls", f"{folder}/sub/x", f"{folder}/link"} <= paths(closure)
    assert "/usr/lib/x86_64-linux-gnu/libm.so.6" in paths(closure)
    entry = closure.find("/usr/lib/x86_64-linux-gnu/libpthread.so.0")
    assert entry is not None and entry.why == "listed in libs as libpthread@0"


def test_an_unchanged_template_is_not_resolved_again_and_takes_milliseconds(instance, monkeypatch):
    (first,) = instance.stack("host:/bin/ls")
    monkeypatch.setattr("swiftlet.resolve.assemble.assemble", None)
    start = time.perf_counter()
    (second,) = instance.stack("host:/bin/ls")
    assert time.perf_counter() - start < 0.05
    assert second == first


def test_the_short_way_loads_none_of_the_modules_that_read_packages(instance):
    instance.stack("host:/bin/ls")
    program = f"""
import sys
from swiftlet.store.layout import Layout
from swiftlet.store.session import Session
from swiftlet.resolve.resolver import Resolver
with Session(Layout({instance.root!r})) as session:
    Resolver(session.objects, session.records, {instance.root!r} + "/cache").stack(["host:/bin/ls"])
ours = ("apt", "walk", "archive", "assemble")
heavy = {{"yaml", "tarfile", "zipfile"}} | {{f"swiftlet.resolve.{{name}}" for name in ours}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=os.getcwd())


def test_a_host_file_that_changes_makes_another_closure(instance, tmp_path):
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    (first,) = instance.stack(f"host:{program}")
    assert instance.stack(f"host:{program}")[0].digest == first.digest
    shutil.copy("/bin/false", program)
    assert instance.stack(f"host:{program}")[0].digest != first.digest


def test_a_lost_object_is_fetched_again(instance):
    (closure,) = instance.stack("host:/bin/ls")
    for path in objects_of(instance):
        os.unlink(path)
    other = Instance(instance.root)
    with other.session:
        (again,) = other.stack("host:/bin/ls")
        assert again.digest == closure.digest
        other.session.trees.build(again.digest, again.entries)


@pytest.mark.parametrize("folder", ["locks", "closures"])
def test_damaged_records_are_made_anew(instance, folder):
    (closure,) = instance.stack("host:/bin/ls")
    for name in os.listdir(f"{instance.root}/{folder}"):
        with open(f"{instance.root}/{folder}/{name}", "r+b") as file:
            file.write(b"XXXX")
    assert instance.stack("host:/bin/ls")[0].digest == closure.digest


def test_a_lock_gives_the_same_closure_elsewhere(instance, tmp_path):
    (closure,) = instance.stack("host:/bin/ls")
    lock = instance.resolver().lock(["host:/bin/ls"])
    other = Instance(tmp_path / "other")
    with other.session:
        (again,) = other.stack("host:/bin/ls", lock=json.loads(lock))
        assert again.digest == closure.digest
        assert other.resolver().lock(["host:/bin/ls"]) == lock
        other.session.trees.build(again.digest, again.entries)


def test_a_lock_of_a_file_that_has_changed_since_is_refused_and_keeps_nothing(instance, tmp_path):
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    instance.stack(f"host:{program}")
    lock = json.loads(instance.resolver().lock([f"host:{program}"]))
    shutil.copy("/bin/false", program)
    other = Instance(tmp_path / "other")
    with other.session, pytest.raises(ResolveError, match="is not the file that the lock names"):
        other.stack(f"host:{program}", lock=lock)
    assert other.session.records.locks() == []


def test_what_is_not_resolved_has_no_lock(instance):
    with pytest.raises(NotFoundError, match="not resolved"):
        instance.resolver().lock(["host:/bin/ls"])


def test_requires_come_below_and_their_files_are_not_taken_twice(instance, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    template(tmp_path, "low", "files: {sh: /bin/sh}\n")
    high = template(tmp_path, "high", f"requires: [./low.yaml]\nfiles: {{s: {script}}}\n")
    upper, lower = instance.stack(high)
    assert "/usr/bin/sh" in paths(lower) and "/usr/bin/sh" not in paths(upper)
    assert upper.requires == (lower.template,)


def test_links_folders_users_and_environment_are_the_templates(instance, tmp_path):
    text = """\
files: {ls: /bin/ls}
links: {/bin/dir: ls, /var/log/x: /dev/stdout}
directories: {/var/x: {mode: 0700, user: u}}
users: {u: 42}
env: {A: b}
entrypoint: [/bin/ls, -l]
"""
    (closure,) = instance.stack(template(tmp_path, "t", text))
    link, folder = closure.find("/usr/bin/dir"), closure.find("/var/x")
    assert link is not None and (link.kind, link.target) == ("symlink", "ls")
    assert folder is not None and (folder.kind, folder.mode, folder.uid, folder.gid) == ("directory", 0o700, 42, 42)
    assert closure.users == {"u": 42} and closure.env == {"A": "b"} and closure.entrypoint == ("/bin/ls", "-l")


def test_what_a_template_generates_is_made_in_the_sandbox_and_kept(tmp_path):
    seen = []

    def sandbox(entries, run):
        seen.append(({entry.path for entry in entries}, tuple(run)))
        return {"/etc/made": (0o640, b"hello"), "/etc/other": (0o644, b"no")}

    instance = Instance(tmp_path / "root", sandbox)
    text = "files: {ls: /bin/ls}\ngenerate:\n  - run: [ls, -l]\n    outputs: [/etc/made]\n"
    with instance.session:
        (closure,) = instance.stack(template(tmp_path, "t", text))
        made = closure.find("/etc/made")
        assert made is not None and made.source == "generated" and made.why == "made by `ls -l`" and made.mode == 0o444
        assert closure.find("/etc/other") is None
        assert seen[0][1] == ("ls", "-l") and "/usr/bin/ls" in seen[0][0]
        assert instance.session.objects.has(made.digest)


def test_what_was_made_over_required_templates_can_be_made_again_over_them(tmp_path):
    def sandbox(entries, run):
        assert "/usr/bin/ls" in {entry.path for entry in entries}
        return {"/etc/made": (0o640, b"hello")}

    template(tmp_path, "low", "files: {ls: /bin/ls}\n")
    text = "requires: [./low.yaml]\ngenerate:\n  - run: [ls]\n    outputs: [/etc/made]\n"
    high = template(tmp_path, "high", text)
    first, other = Instance(tmp_path / "root", sandbox), Instance(tmp_path / "other", sandbox)
    with first.session:
        closures, lock = first.stack(high), json.loads(first.resolver().lock([high]))
    with other.session:
        assert other.stack(high, lock=lock) == closures
        assert other.session.objects.has(closures[0].find("/etc/made").digest)


def test_an_output_that_is_not_made_is_an_error(tmp_path):
    instance = Instance(tmp_path / "root", lambda entries, run: {})
    text = "files: {ls: /bin/ls}\ngenerate:\n  - run: [ls]\n    outputs: [/etc/made]\n"
    with instance.session, pytest.raises(ResolveError, match="`ls` did not make /etc/made"):
        instance.stack(template(tmp_path, "t", text))


def test_without_a_sandbox_nothing_is_generated(instance, tmp_path):
    text = "files: {ls: /bin/ls}\ngenerate:\n  - run: [ls]\n    outputs: [/etc/made]\n"
    with pytest.raises(HostError, match="no sandbox"):
        instance.stack(template(tmp_path, "t", text))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (build_elf()[:4] + b"\x01" + build_elf()[5:], BadElfError, "32-bit"),
        (build_elf(interpreter="/lib64/ld-linux-x86-64.so.2")[:100], BadElfError, "cut short"),
        (build_elf(machine=183), BadElfError, "machine 183"),
        (build_elf(kind=2, needed=["libnothing.so.7"]), MissingLibraryError, r"libnothing\.so\.7"),
        (build_elf(kind=2, needed=["libc.so.6"], versions={"libc.so.6": ["GLIBC_9.9"]}), ResolveError, r"GLIBC_9\.9"),
        (build_elf(kind=2, interpreter="/lib/none.so"), ResolveError, "/lib/none.so"),
    ],
)
def test_a_program_that_cannot_run_is_refused_by_name_and_nothing_is_recorded(
    instance, tmp_path, content, error, words
):
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    with pytest.raises(error, match=words) as caught:
        instance.stack(f"host:{program}")
    assert "program" in str(caught.value) and "\n" not in str(caught.value)
    assert instance.session.records.locks() == [] and instance.session.records.closures() == []


@pytest.mark.parametrize("path", ["/none", "/dev/null", "/proc/self/mem", "/etc/passwd/x"])
def test_what_is_no_file_of_the_host(instance, path):
    with pytest.raises((NotFoundError, ResolveError)) as caught:
        instance.stack(f"host:{path}")
    assert path in str(caught.value)
    assert ("this host has no such file" in str(caught.value)) == (path in ("/none", "/etc/passwd/x"))


def test_a_library_that_only_ld_so_conf_knows_gets_a_link(instance, tmp_path, monkeypatch):
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "libodd.so.1").write_bytes(build_elf(soname="libodd.so.1"))
    (tmp_path / "ld.so.conf").write_text(f"include {tmp_path}/conf.d/*.conf\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "odd.conf").write_text(f"# odd\n{folder}\n")
    monkeypatch.setattr("swiftlet.resolve.host.CONFIGURATION", str(tmp_path / "ld.so.conf"))
    program = tmp_path / "program"
    program.write_bytes(build_elf(kind=2, needed=["libodd.so.1"]))
    program.chmod(0o755)
    (closure,) = instance.stack(f"host:{program}")
    link = closure.find("/usr/lib/x86_64-linux-gnu/libodd.so.1")
    assert link is not None and link.target == f"{folder}/libodd.so.1"
    assert f"{folder}/libodd.so.1" in paths(closure)


def test_an_entry_below_a_file_is_refused(instance, tmp_path):
    text = "files: {ls: /bin/ls}\nlinks: {/bin/ls/x: y}\n"
    with pytest.raises(ResolveError, match="lies below /usr/bin/ls"):
        instance.stack(template(tmp_path, "t", text))


def test_explain_of_a_path_that_is_not_there_has_near_ones(instance):
    closures = instance.stack("host:/bin/ls")
    with pytest.raises(NotFoundError) as caught:
        explain(closures, "/lib/libc.so.6")
    assert "/usr/lib/x86_64-linux-gnu/libc.so.6" in caught.value.hint
    with pytest.raises(InputError):
        explain(closures, "lib/libc.so.6")


def test_explain_of_a_bare_name_finds_it_in_any_folder(instance, tmp_path):
    (tmp_path / "libc.so.6").write_bytes(b"not the first")
    closures = instance.stack(template(tmp_path, "t", f"files: {{ls: /bin/ls, other: {tmp_path}/libc.so.6}}\n"))
    found = paths_named(closures, "libc.so.6")
    assert sorted(found) == sorted([f"{tmp_path}/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6"])
    assert explain(closures, "libc.so.6")[0].path == found[0]
    for name in ("", ".", "so.6", "libc.so"):
        assert paths_named(closures, name) == []
    with pytest.raises(NotFoundError, match=r"libc\.so\.7 is not in t@1") as caught:
        explain(closures, "libc.so.7")
    assert "libc.so.6" in caught.value.hint


def test_names_that_would_be_options_never_reach_a_command_line(instance, tmp_path):
    for reference in ("deb:-o", "deb:a=--x", "deb:a;b"):
        with pytest.raises(InputError):
            instance.stack(reference)
