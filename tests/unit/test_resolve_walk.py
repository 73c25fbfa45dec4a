from __future__ import annotations

import pytest

from swiftlet.model.error import BadElfError, MissingLibraryError, ResolveError
from swiftlet.resolve import walk
from swiftlet.resolve.archive import Member
from swiftlet.resolve.elf import Dlopen, Facts
from swiftlet.resolve.walk import Found, Walker, Want, link_target, script_programs

LIB = "/usr/lib/x86_64-linux-gnu"


class Files:
    """A Supply of members in memory; what is in `hidden` is found only after `seek`."""

    def __init__(self, *members: Member, hidden: tuple[Member, ...] = ()) -> None:
        self.members = {member.path: member for member in members}
        self.hidden = list(hidden)
        self.sought: list[str] = []

    def find(self, path):
        member = self.members.get(path)
        return Found(member, "pkg", "deb:pkg=1", own=False) if member else None

    def by_soname(self, soname):
        return next((self.find(path) for path in self.members if path.endswith(f"/own/{soname}")), None)

    def seek(self, wants):
        self.sought += [want.name for want in wants]
        if not self.hidden:
            return False
        member = self.hidden.pop(0)
        self.members[member.path] = member
        return True

    def companions(self, found):
        return [path for path in self.members if path.startswith("/usr/lib/companion/")]

    def advice(self, want):
        return f"package of {want.name}"


def program(path, *needed, **more):
    return Member(path, "file", 0o4755, 10, digest="0" * 64, facts=Facts(needed=needed, program=True, **more))


def library(path, *needed, **more):
    return Member(path, "file", 0o644, 5, digest="1" * 64, facts=Facts(needed=needed, **more))


def link(path, target):
    return Member(path, "symlink", 0o777, target=target)


def script(path, line, mode=0o755):
    return Member(path, "file", mode, 1, digest="2" * 64, script=line)


def walked(supply, *roots, **options):
    walker = Walker(supply, **options)
    for root in roots:
        assert walker.take(root, "asked for") is not None
    walker.run()
    return {path: taken.entry for path, taken in walker.taken.items()}


def test_every_edge_remembers_what_caused_it():
    supply = Files(
        program("/usr/bin/a", "libx.so.1", interpreter="/lib64/ld.so"),
        link(f"{LIB}/libx.so.1", "libx.so.1.2"),
        library(f"{LIB}/libx.so.1.2", "liby.so.2"),
        library(f"{LIB}/liby.so.2"),
        link("/usr/lib64/ld.so", f"{LIB}/ld.so"),
        library(f"{LIB}/ld.so"),
    )
    taken = walked(supply, "/bin/a")
    assert taken["/usr/bin/a"].by == "" and taken["/usr/bin/a"].why == "asked for"
    assert taken[f"{LIB}/libx.so.1"].by == "/usr/bin/a"
    assert taken[f"{LIB}/libx.so.1.2"].why == "needed by /usr/bin/a (DT_NEEDED libx.so.1)"
    assert taken[f"{LIB}/liby.so.2"].by == f"{LIB}/libx.so.1.2"
    assert taken[f"{LIB}/ld.so"].why == "loader of /usr/bin/a (PT_INTERP)"
    assert taken["/usr/lib64/ld.so"].kind == "symlink"


def test_privileges_and_write_bits_are_dropped():
    taken = walked(Files(program("/usr/bin/su"), script("/usr/share/x", "", 0o666)), "/usr/bin/su", "/usr/share/x")
    assert taken["/usr/bin/su"].mode == 0o555
    assert taken["/usr/share/x"].mode == 0o444


def test_runpath_with_origin_comes_before_the_default_folders():
    supply = Files(
        program("/opt/app/bin/a", "libx.so", runpath=("$ORIGIN/../lib", "${ORIGIN}/none", "$LIB/x")),
        library("/opt/app/lib/libx.so"),
        library(f"{LIB}/libx.so"),
    )
    assert set(walked(supply, "/opt/app/bin/a")) == {"/opt/app/bin/a", "/opt/app/lib/libx.so"}


def test_the_templates_library_path_is_searched_first():
    supply = Files(program("/usr/bin/a", "libx.so"), library("/opt/l/libx.so"), library(f"{LIB}/libx.so"))
    assert "/opt/l/libx.so" in walked(supply, "/usr/bin/a", library_path=["/opt/l"])


def test_a_library_that_its_program_loads_by_path_is_found_by_name():
    supply = Files(library(f"{LIB}/plugin.so", "libjvm.so"), library("/usr/lib/jvm/own/libjvm.so"))
    assert "/usr/lib/jvm/own/libjvm.so" in walked(supply, f"{LIB}/plugin.so")


def test_more_is_looked_for_only_when_it_is_needed():
    supply = Files(program("/usr/bin/a", "libx.so"), hidden=(library(f"{LIB}/libx.so"), library(f"{LIB}/liby.so")))
    assert f"{LIB}/libx.so" in walked(supply, "/usr/bin/a")
    assert len(supply.hidden) == 1 and supply.sought == ["libx.so"]


def test_a_missing_library_is_named_with_who_needs_it_and_which_package_has_it():
    with pytest.raises(MissingLibraryError, match=r"/usr/bin/a needs libx\.so\.3") as caught:
        walked(Files(program("/usr/bin/a", "libx.so.3")), "/usr/bin/a")
    assert caught.value.hint == "package of libx.so.3"


def test_a_missing_loader_is_an_error():
    with pytest.raises(ResolveError, match=r"needs /lib64/ld\.so"):
        walked(Files(program("/usr/bin/a", interpreter="/lib64/ld.so")), "/usr/bin/a")


def test_a_library_of_another_class_is_passed_over_or_named():
    bad = Member(f"{LIB}/libx.so", "file", 0o644, 5, digest="3" * 64, unusable="libx.so: a 32-bit ELF file")
    both = Files(program("/usr/bin/a", "libx.so"), bad, library("/usr/lib/libx.so"))
    assert set(walked(both, "/usr/bin/a")) == {"/usr/bin/a", "/usr/lib/libx.so"}
    with pytest.raises(BadElfError, match=r"32-bit.*/usr/bin/a needs it"):
        walked(Files(program("/usr/bin/a", "libx.so"), bad), "/usr/bin/a")


def test_a_library_that_lacks_a_needed_version_is_refused_with_both_named():
    versions = {"libc.so.6": ("GLIBC_2.38",)}
    supply = Files(
        program("/usr/bin/a", "libc.so.6", versions=versions), library(f"{LIB}/libc.so.6", defines=("GLIBC_2.36",))
    )
    with pytest.raises(ResolveError, match=r"/usr/bin/a .*GLIBC_2\.38 of libc\.so\.6, but .*/libc\.so\.6"):
        walked(supply, "/usr/bin/a")


def test_a_library_without_versions_is_taken_as_the_loader_does():
    supply = Files(program("/usr/bin/a", "libx.so", versions={"libx.so": ("X",)}), library(f"{LIB}/libx.so"))
    assert f"{LIB}/libx.so" in walked(supply, "/usr/bin/a")


def test_what_is_opened_at_run_time_is_taken_when_it_is_recommended():
    notes = (
        Dlopen(("libz.so.9", "libz.so.1"), "recommended", "compression"),
        Dlopen(("libq.so",), "suggested"),
        Dlopen(("libnone.so",), "recommended"),
    )
    supply = Files(program("/usr/bin/a", dlopen=notes), library(f"{LIB}/libz.so.1"), library(f"{LIB}/libq.so"))
    taken = walked(supply, "/usr/bin/a")
    assert set(taken) == {"/usr/bin/a", f"{LIB}/libz.so.1"}
    assert ".note.dlopen compression" in taken[f"{LIB}/libz.so.1"].why
    with pytest.raises(MissingLibraryError, match=r"libnone\.so"):
        walked(Files(program("/usr/bin/a", dlopen=(Dlopen(("libnone.so",), "required"),))), "/usr/bin/a")


def test_scripts_bring_what_runs_them():
    supply = Files(
        script("/usr/bin/s", "/bin/sh -e"),
        script("/usr/bin/e", "/usr/bin/env -S prog -x"),
        link("/usr/bin/sh", "dash"),
        program("/usr/bin/dash"),
        program("/usr/bin/env"),
        program("/usr/local/bin/prog"),
        script("/usr/share/data", "/usr/bin/never", 0o644),
        script("/usr/lib/python3/x.py", "/usr/bin/never"),
        Member("/usr/lib/companion/x", "file", 0o644, 1, digest="4" * 64),
    )
    taken = walked(supply, "/usr/bin/s", "/usr/bin/e", "/usr/share/data", "/usr/lib/python3/x.py")
    assert {"/usr/bin/sh", "/usr/bin/dash", "/usr/bin/env", "/usr/local/bin/prog"} < set(taken)
    assert "/usr/lib/companion/x" in taken
    assert not any("never" in name for name in supply.sought)


def test_a_script_whose_interpreter_is_nowhere_stays_without_it():
    assert set(walked(Files(script("/usr/bin/s", "/usr/bin/ruby")), "/usr/bin/s")) == {"/usr/bin/s"}


def test_what_a_required_template_has_is_not_taken_again():
    supply = Files(script("/usr/bin/s", "/bin/sh"), link("/usr/bin/sh", "dash"), program("/usr/bin/dash"))
    assert set(walked(supply, "/usr/bin/s", provided=frozenset(["/usr/bin/sh"]))) == {"/usr/bin/s"}


def test_links_are_followed_through_folders_and_packages():
    supply = Files(
        link("/usr/share/app/lib", "../java"),
        link("/usr/share/java/x.jar", "/usr/share/java/x-1.jar"),
        Member("/usr/share/java/x-1.jar", "file", 0o644, 3, digest="5" * 64),
    )
    taken = walked(supply, "/usr/share/app/lib/x.jar")
    assert set(taken) == {"/usr/share/app/lib", "/usr/share/java/x.jar", "/usr/share/java/x-1.jar"}


def test_links_in_a_circle_end():
    supply = Files(link("/usr/a", "b"), link("/usr/b", "a"), link("/usr/c", "c"))
    walker = Walker(supply)
    assert walker.take("/usr/a", "x") is None
    assert walker.take("/usr/c/d", "x") is None
    walker.run()


def test_links_that_climb_stay_in_the_root():
    assert link_target(link("/usr/x", "../../../../etc/shadow")) == "/etc/shadow"
    assert link_target(link("/usr/x", "/bin/sh")) == "/usr/bin/sh"
    supply = Files(link("/usr/x", "../../../../etc/y"), Member("/etc/y", "file", 0o600, 1, digest="6" * 64))
    assert "/etc/y" in walked(supply, "/usr/x")


def test_a_dangling_link_is_kept_and_links_into_dev_are_whole():
    supply = Files(link("/var/log/x", "/dev/stdout"), link("/usr/y", "none"))
    walker = Walker(supply)
    walker.take("/var/log/x", "x")
    walker.take("/usr/y", "x")
    walker.run()
    assert set(walker.taken) == {"/var/log/x", "/usr/y"}
    assert supply.sought == ["/usr/none"]


def test_a_closure_beyond_the_limits_is_refused(monkeypatch):
    monkeypatch.setattr(walk, "MAX_FILES", 2)
    with pytest.raises(ResolveError, match="more than 2 files"):
        walked(Files(*(script(f"/usr/{n}", "") for n in range(3))), "/usr/0", "/usr/1", "/usr/2")
    big = Member("/usr/big", "file", 0o644, 10 << 30, digest="7" * 64)
    with pytest.raises(ResolveError, match="larger than 8 GiB"):
        walked(Files(big), "/usr/big")


@pytest.mark.parametrize(
    ("line", "programs"),
    [
        ("/bin/sh", ["/usr/bin/sh"]),
        ("/usr/bin/env python3", ["/usr/bin/env", "python3"]),
        ("/usr/bin/env -S A=b perl -w", ["/usr/bin/env", "perl"]),
        ("/usr/bin/env ../x", ["/usr/bin/env"]),
        ("sh", []),
        ("", []),
        ("/../../x", []),
    ],
)
def test_what_a_first_line_runs(line, programs):
    assert script_programs(line) == programs


def test_a_want_is_met_once_its_library_is_there():
    walker = Walker(Files(library(f"{LIB}/libx.so.1")))
    walker.need(Want("library", "libx.so.1", "", "", "listed in libs as libx@1"))
    walker.run()
    assert walker.taken[f"{LIB}/libx.so.1"].entry.why == "listed in libs as libx@1"
