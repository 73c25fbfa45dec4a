"""Resolution of templates of packages, over an archive that the tests make themselves."""

from __future__ import annotations

import json
import os
from zipfile import ZipFile, ZipInfo

import pytest

from swiftlet.model.error import FetchError, MissingLibraryError, NotFoundError, ResolveError
from swiftlet.resolve.explain import explain
from swiftlet.resolve.protocol import no_progress
from swiftlet.resolve.resolver import Resolver
from swiftlet.store.layout import Layout
from swiftlet.store.session import Session
from tests.unit.debian_sample import Sample
from tests.unit.elf_sample import build_elf

LIB = "/usr/lib/x86_64-linux-gnu"
LOADER = "/lib64/ld-linux-x86-64.so.2"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    sample = Sample(tmp_path_factory.mktemp("archive"))
    sample.add(
        "libc6",
        files={
            "/lib/x86_64-linux-gnu/libc.so.6": build_elf(soname="libc.so.6", defines=["GLIBC_2.36"]),
            "/lib/x86_64-linux-gnu/ld.so": build_elf(soname="ld.so"),
            LOADER: ("link", "/lib/x86_64-linux-gnu/ld.so"),
            "/usr/share/doc/libc6/copyright": b"x",
            f"{LIB}/gconv/UTF-16.so": build_elf(),
        },
        Section="libs",
        Source="glibc",
    )
    sample.add(
        "libfoo3",
        files={
            f"{LIB}/libfoo.so.3": ("link", "libfoo.so.3.1"),
            f"{LIB}/libfoo.so.3.1": build_elf(soname="libfoo.so.3", needed=["libc.so.6"]),
            "/etc/foo.conf": b"x",
        },
        Section="libs",
        Depends="libc6",
    )
    sample.add("libodd-name", files={f"{LIB}/libbar.so.1": build_elf(soname="libbar.so.1")}, Section="libs")
    sample.add("coreutils", files={"/usr/bin/env": (build_elf(kind=2), 0o755), "/usr/bin/cat": b"x"})
    sample.add("far", files={"/usr/bin/far": b"x"}, Section="utils")
    sample.add("libbig9", files={f"{LIB}/libbig.so.9": build_elf(soname="libbig.so.9")}, Section="libs")
    sample.add("app-data", files={"/usr/share/app/data": b"data"}, Source="app")
    sample.add(
        "dash",
        files={
            "/bin/dash": (build_elf(interpreter=LOADER, needed=["libc.so.6"]), 0o755),
            "/bin/sh": ("link", "dash"),
            "/usr/share/dash/x": b"x",
        },
        Depends="libc6",
    )
    sample.add(
        "lang", files={"/usr/bin/lang": (build_elf(kind=2), 0o755), "/usr/lib/lang/core": b"core"}, Source="language"
    )
    sample.add("lang-modules", files={"/usr/lib/lang/more": b"more"}, Source="language")
    app = {
        "/usr/bin/app": (
            build_elf(
                interpreter=LOADER,
                needed=["libfoo.so.3", "libbar.so.1", "libc.so.6"],
                versions={"libc.so.6": ["GLIBC_2.36"]},
            ),
            0o4755,
        ),
        "/usr/bin/again": ("hard", "/usr/bin/app"),
        "/usr/bin/run": (b"#!/bin/sh -e\n", 0o755),
        "/usr/bin/lingo": (b"#!/usr/bin/env lang\n", 0o755),
        "/usr/share/man/man1/app.1": b"x",
        "/usr/share/doc/app/copyright": b"x",
        "/usr/include/app.h": b"x",
        "/var/lib/app": ("folder", 0o700),
        "/var/run/app": ("folder", 0o755),
        "/etc/app.conf": b"conf",
    }
    sample.add(
        "app", "1.0", files=app, Depends="libc6, libfoo3 (>= 1), libodd-name, libbig9, app-data, lang, lang-modules"
    )
    sample.add("app", "2.0", files=app, Depends="libc6, libfoo3, libodd-name, app-data, far, lang, lang-modules")
    sample.add("broken", files={"/usr/bin/broken": (build_elf(kind=2, needed=["libfoo.so.3"]), 0o755)})
    sample.add(
        "old",
        files={"/usr/bin/old": (build_elf(kind=2, needed=["libc.so.6"], versions={"libc.so.6": ["GLIBC_9"]}), 0o755)},
        Depends="libc6",
    )
    sample.add(
        "python3-mod",
        files={"/usr/lib/python3/dist-packages/mod.py": b"x"},
        Section="python",
        Depends="python3-dep, libbig9",
    )
    sample.add("python3-dep", files={"/usr/lib/python3/dist-packages/dep.py": b"x"}, Section="python")
    sample.add("fight-a", files={"/usr/bin/a": b"x"}, Conflicts="fight-b")
    sample.add("fight-b", files={"/usr/bin/b": b"x"})
    sample.add("wide32", files={"/usr/lib32/x.so": build_elf()[:4] + b"\x01" + build_elf()[5:]})
    return sample


class Instance:
    def __init__(self, root):
        self.layout = Layout(str(root))
        self.layout.prepare()

    def stack(self, *references, **options):
        with Session(self.layout) as session:
            return Resolver(session.objects, session.records, self.layout.cache).stack(references, **options)

    def lock(self, *references):
        with Session(self.layout) as session:
            return json.loads(Resolver(session.objects, session.records, self.layout.cache).lock(references))

    def tree(self, closure):
        with Session(self.layout) as session:
            return session.trees.build(closure.digest, closure.entries)


@pytest.fixture
def instance(tmp_path, archive, monkeypatch):
    monkeypatch.setenv("APT_CONFIG", archive.configuration())
    monkeypatch.setattr("swiftlet.resolve.apt.HOST_LISTS", str(tmp_path / "none"))
    # The packs of a package without a recipe come from packages that this archive does not have.
    monkeypatch.setattr("swiftlet.resolve.catalogue._PACKS_OF_ANY_PACKAGE", ())
    return Instance(tmp_path / "root")


def paths(closure):
    return {entry.path for entry in closure.entries}


def write(tmp_path, name, text):
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: {name}\nversion: 1\n{text}")
    return str(path)


def test_a_package_without_a_recipe_takes_what_it_needs_and_nothing_else(instance):
    (closure,) = instance.stack("deb:app=1.0")
    assert paths(closure) == {
        "/usr/bin/app",
        "/usr/bin/again",
        "/usr/bin/run",
        "/usr/bin/lingo",
        "/usr/bin/env",
        "/usr/bin/lang",
        "/usr/lib/lang/core",
        "/usr/lib/lang/more",
        "/usr/bin/sh",
        "/usr/bin/dash",
        "/etc/app.conf",
        "/var/lib/app",
        "/usr/share/app/data",
        f"{LIB}/libfoo.so.3",
        f"{LIB}/libfoo.so.3.1",
        f"{LIB}/libbar.so.1",
        f"{LIB}/libc.so.6",
        f"{LIB}/ld.so",
        "/usr/lib64/ld-linux-x86-64.so.2",
    }
    assert closure.entrypoint == ("/usr/bin/app",)
    assert all(entry.source and entry.why for entry in closure.entries)
    instance.tree(closure)


def test_only_packages_that_an_edge_leads_to_are_fetched(instance):
    instance.stack("deb:app=2.0")
    read = {package["name"] for package in instance.lock("deb:app=2.0")["locks"][0]["packages"]}
    direct = {"app", "app-data", "libc6", "libfoo3", "libodd-name", "lang", "lang-modules"}
    assert read == direct | {"dash", "coreutils"}  # the two that run scripts; but not `far`, nor what nobody needs
    assert len(os.listdir(f"{instance.layout.cache}/debs")) == len(read)


def test_modes_and_folders_of_packages(instance):
    (closure,) = instance.stack("deb:app")
    program, folder = closure.find("/usr/bin/app"), closure.find("/var/lib/app")
    assert program is not None and program.mode == 0o555
    assert folder is not None and (folder.kind, folder.mode) == ("directory", 0o700)
    again = closure.find("/usr/bin/again")
    assert again is not None and again.digest == program.digest


def test_the_chain_of_reasons_ends_at_the_package(instance):
    closures = instance.stack("deb:app")
    chain = explain(closures, "/lib/x86_64-linux-gnu/libfoo.so.3.1")
    assert [entry.path for entry in chain] == [f"{LIB}/libfoo.so.3.1", "/usr/bin/again"]
    assert "DT_NEEDED libfoo.so.3" in chain[0].why and chain[0].source == "deb:libfoo3=1.0"


def test_the_newest_version_is_taken_unless_another_is_asked_for(instance):
    assert instance.stack("deb:app")[0].find("/usr/bin/app").source == "deb:app=2.0"
    assert instance.stack("deb:app=1.*")[0].find("/usr/bin/app").source == "deb:app=1.0"


def test_an_unknown_package_gets_near_names(instance):
    with pytest.raises(NotFoundError, match="no Debian package libfo3") as caught:
        instance.stack("deb:libfo3")
    assert "libfoo3" in caught.value.hint


def test_a_version_that_is_not_there_gets_those_that_are(instance):
    with pytest.raises(NotFoundError, match="app has no version 3") as caught:
        instance.stack("deb:app=3.0")
    assert "2.0, 1.0" in caught.value.hint


def test_a_missing_library_is_named_with_the_package_that_has_it(instance):
    with pytest.raises(MissingLibraryError, match=r"/usr/bin/broken needs libfoo\.so\.3") as caught:
        instance.stack("deb:broken")
    assert "package libfoo3 should have it" in caught.value.hint
    with Session(instance.layout) as session:
        assert session.records.locks() == [] and session.records.closures() == []


def test_a_library_too_old_is_named_with_the_one_that_needs_it(instance):
    with pytest.raises(
        ResolveError, match=r"/usr/bin/old \(deb:old=1.0\) needs GLIBC_9 of libc\.so\.6, but .*deb:libc6=1\.0"
    ):
        instance.stack("deb:old")


def test_a_module_of_a_language_comes_with_the_modules_that_it_needs(instance):
    (closure,) = instance.stack("deb:python3-mod")
    assert {"/usr/lib/python3/dist-packages/mod.py", "/usr/lib/python3/dist-packages/dep.py"} == paths(closure)


def test_packages_that_cannot_be_together(instance, tmp_path):
    with pytest.raises(ResolveError, match="fight-a, fight-b cannot be installed together") as caught:
        instance.stack(write(tmp_path, "t", "packages: [fight-a, fight-b]\n"))
    assert "\n" not in str(caught.value)


def test_an_object_of_another_class_is_data_of_its_package(instance):
    assert "/usr/lib32/x.so" in paths(instance.stack("deb:wide32")[0])


def test_include_exclude_files_and_libs_of_a_template(instance, tmp_path):
    text = """\
packages: [app=1.0]
exclude: [/usr/bin]
include: [/usr/bin/app, /usr/share/doc/app/copyright]
files: {manual: /usr/share/man/man1/app.1}
libs: [libbig@9]
"""
    (closure,) = instance.stack(write(tmp_path, "t", text))
    found = paths(closure)
    assert "/usr/bin/app" in found and "/usr/share/doc/app/copyright" in found
    assert "/usr/bin/run" not in found and "/usr/bin/lang" not in found
    manual, library = closure.find("/usr/share/man/man1/app.1"), closure.find(f"{LIB}/libbig.so.9")
    assert manual is not None and manual.why == "listed in files as manual"
    assert library is not None and library.why == "listed in libs as libbig@9"


def test_a_lock_gives_the_same_closure_elsewhere_also_when_newer_versions_are_there(instance, tmp_path, archive):
    (closure,) = instance.stack("deb:app=1.0")
    lock = instance.lock("deb:app=1.0")
    other = Instance(tmp_path / "other")
    (again,) = other.stack("deb:app=1.0", lock=lock)
    assert again.digest == closure.digest and other.lock("deb:app=1.0") == lock
    other.tree(again)


def test_a_lock_of_another_content_is_refused(instance, tmp_path):
    instance.stack("deb:app=1.0")
    lock = instance.lock("deb:app=1.0")
    for package in lock["locks"][0]["packages"]:
        package["sha256"] = "0" * 64
    with pytest.raises(FetchError, match=r"another .* than its list says"):
        Instance(tmp_path / "other").stack("deb:app=1.0", lock=lock)


def test_a_version_that_has_left_the_archive_is_one_clear_error(instance, tmp_path):
    instance.stack("deb:app=1.0")
    lock = instance.lock("deb:app=1.0")
    for package in lock["locks"][0]["packages"]:
        package["version"] += "9"
    for entry in lock["locks"][0]["entries"]:
        if "source" in entry:
            entry["source"] += "9"
    with pytest.raises(FetchError, match="no longer has") as caught:
        Instance(tmp_path / "other").stack("deb:app=1.0", lock=lock)
    assert type(caught.value) is FetchError  # the kind that the wire knows


def test_lists_that_are_too_old_are_fetched_again_once(instance, archive):
    instance.stack("deb:dash")
    archive.add("newcomer", files={"/usr/bin/newcomer": b"x"})
    assert "/usr/bin/newcomer" in paths(instance.stack("deb:newcomer")[0])


def test_upgrade_takes_what_has_come_since_and_nothing_else_does(instance, archive):
    archive.add("moving", "1.0", files={"/usr/bin/moving": b"one"})
    first = instance.stack("deb:moving")[0]
    archive.add("moving", "1.1", files={"/usr/bin/moving": b"two"})
    assert instance.stack("deb:moving")[0].digest == first.digest
    assert instance.stack("deb:moving", upgrade=True)[0].digest != first.digest


def test_no_archive_at_all_is_one_clear_error(tmp_path, monkeypatch):
    sample = Sample(tmp_path / "archive")
    monkeypatch.setenv("APT_CONFIG", sample.configuration())
    (tmp_path / "archive" / "sources.list").write_text("deb http://127.0.0.1:9/debian x main\n")
    monkeypatch.setattr("swiftlet.resolve.apt.HOST_LISTS", str(tmp_path / "none"))
    with pytest.raises(FetchError, match="cannot fetch the package lists") as caught:
        Instance(tmp_path / "root").stack("deb:app")
    assert "\n" not in str(caught.value)


def test_an_archive_that_vanishes_in_between_is_one_clear_error(instance, archive, tmp_path):
    instance.stack("deb:dash")
    os.rename(archive.pool, f"{archive.pool}.away")
    try:
        with pytest.raises(FetchError, match="cannot fetch"):
            instance.stack("deb:app")
    finally:
        os.rename(f"{archive.pool}.away", archive.pool)
    assert instance.stack("deb:app")


def test_a_cache_that_was_damaged_is_made_again(instance):
    first = instance.stack("deb:app")[0]
    for where, _, names in os.walk(instance.layout.cache):
        for name in names:
            if name.endswith(".json") or name == "apt.conf":
                with open(f"{where}/{name}", "wb") as file:
                    file.write(b"{")
    for where, _, names in os.walk(instance.layout.locks):
        for name in names:
            os.unlink(f"{where}/{name}")
    assert instance.stack("deb:app")[0].digest == first.digest


def test_lists_older_than_a_day_are_fetched_anew_before_something_is_resolved(instance, archive, tmp_path):
    archive.add("aging", "1.0", files={"/usr/bin/aging": b"one"})
    instance.stack("deb:aging")
    archive.add("aging", "1.1", files={"/usr/bin/aging": b"two"})
    fresh = instance.stack(write(tmp_path, "fresh", "packages: [aging]\n"))[0].find("/usr/bin/aging")
    assert fresh is not None and fresh.source == "deb:aging=1.0"
    os.utime(f"{instance.layout.cache}/apt/state/fetched", (0, 0))
    later = instance.stack(write(tmp_path, "later", "packages: [aging]\n"))[0].find("/usr/bin/aging")
    assert later is not None and later.source == "deb:aging=1.1"


def wheel_that_needs(monkeypatch, soname):
    """The line of a template with a wheel, which pip will give, whose one module needs a library."""

    def download(requirement, folder):
        with ZipFile(f"{folder}/numb-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(ZipInfo("numb.so"), build_elf(needed=[soname]))

    monkeypatch.setattr("swiftlet.resolve.wheel._pip_download", download)
    return "wheels: {numb==1.0: /opt/numb}\n"


WITHOUT_FOO = "packages: [libfoo3, libc6]\nexclude: [/usr/lib/x86_64-linux-gnu/libfoo*]\n"


def test_a_library_of_a_package_that_a_required_template_brought_is_found(instance, tmp_path, monkeypatch):
    write(tmp_path, "low", WITHOUT_FOO)
    high = write(tmp_path, "high", "requires: [./low.yaml]\n" + wheel_that_needs(monkeypatch, "libfoo.so.3"))
    upper, lower = instance.stack(high)
    assert f"{LIB}/libfoo.so.3.1" not in paths(lower)
    found = upper.find(f"{LIB}/libfoo.so.3.1")
    assert found is not None and (found.source, found.by) == ("deb:libfoo3=1.0", "/opt/numb/numb.so")
    monkeypatch.setattr("swiftlet.resolve.assemble.assemble", None)
    assert instance.stack(high)[0] == upper


def test_a_package_finds_libraries_that_it_does_not_depend_on_in_a_required_template(instance, tmp_path):
    write(tmp_path, "low", WITHOUT_FOO)
    high = write(tmp_path, "high", "requires: [./low.yaml]\npackages: [broken]\n")
    assert f"{LIB}/libfoo.so.3.1" in paths(instance.stack(high)[0])


def test_so_is_one_of_a_package_that_those_depend_on_and_nothing_but_libraries_comes(instance, tmp_path):
    write(tmp_path, "low", "packages: [lang, libfoo3]\nexclude: [/usr/bin, /usr/lib]\n")
    assert "libc6" not in {package["name"] for package in _low_lock(instance, tmp_path)["packages"]}
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/lang\n")
    script.chmod(0o755)
    high = write(tmp_path, "high", f"requires: [./low.yaml]\npackages: [broken]\nfiles: {{s: {script}}}\n")
    upper = instance.stack(high)[0]
    assert upper.find(f"{LIB}/libc.so.6").source == "deb:libc6=1.0"
    assert "/usr/bin/lang" not in paths(upper) and "/etc/foo.conf" not in paths(upper)


def _low_lock(instance, tmp_path):
    low = str(tmp_path / "low.yaml")
    instance.stack(low)
    return instance.lock(low)["locks"][0]


def test_a_lock_with_libraries_from_a_required_template_gives_the_same_closure_elsewhere(
    instance, tmp_path, monkeypatch
):
    write(tmp_path, "low", WITHOUT_FOO)
    made = "generate:\n  - run: [make]\n    outputs: [/etc/made]\n"
    high = write(tmp_path, "high", "requires: [./low.yaml]\n" + wheel_that_needs(monkeypatch, "libfoo.so.3") + made)
    monkeypatch.setattr(Resolver.__init__, "__defaults__", (no_progress, lambda *_: {"/etc/made": (0o644, b"x")}, None))
    closures, lock = instance.stack(high), instance.lock(high)
    assert lock["locks"][0]["borrowed"] == ["libc6", "libfoo3"]
    other = Instance(tmp_path / "other")
    assert [closure.digest for closure in other.stack(high, lock=lock)] == [closure.digest for closure in closures]
    assert other.lock(high) == lock
    other.tree(closures[0])


def test_libraries_from_a_required_template_follow_its_version(instance, tmp_path, monkeypatch, archive):
    library = f"{LIB}/libmove.so.1"
    archive.add("libmove1", "1.0", files={library: build_elf(soname="libmove.so.1")}, Section="libs")
    low = write(tmp_path, "low", f"packages: [libmove1]\nexclude: [{library}]\n")
    high = write(tmp_path, "high", "requires: [./low.yaml]\n" + wheel_that_needs(monkeypatch, "libmove.so.1"))
    assert instance.stack(high)[0].find(library).source == "deb:libmove1=1.0"
    archive.add("libmove1", "1.1", files={library: build_elf(soname="libmove.so.1")}, Section="libs")
    assert instance.stack(high)[0].find(library).source == "deb:libmove1=1.0"
    instance.stack(low, upgrade=True)
    assert instance.stack(high)[0].find(library).source == "deb:libmove1=1.1"


def test_a_library_that_a_required_template_has_of_its_host_is_there_already(instance, tmp_path, monkeypatch):
    write(tmp_path, "low", "files: {ls: /bin/ls}\n")
    high = write(tmp_path, "high", "requires: [./low.yaml]\n" + wheel_that_needs(monkeypatch, "libc.so.6"))
    upper, lower = instance.stack(high)
    assert f"{LIB}/libc.so.6" in paths(lower) and paths(upper) == {"/opt/numb/numb.so"}
