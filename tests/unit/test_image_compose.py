"""What lies on top of a stack, as values."""

from __future__ import annotations

import hashlib

import pytest

from swiftlet.image.compose import compose, merge, resolve
from swiftlet.model.closure import Closure, Entry, closure_of
from swiftlet.model.error import InputError
from tests.stores import folder, symlink

SOME = "a" * 64


def file(path: str, digest: str = SOME) -> Entry:
    return Entry(path, "file", 0o444, digest, 1)


def closure(*entries: Entry, **more) -> Closure:
    return closure_of("x@1", list(entries), **more)


def composed(*closures: Closure, **more) -> dict:
    return {made.entry.path: made for made in compose(closures, **more)}


def text(made: dict, path: str) -> str:
    return made[path].content.decode()


def test_an_empty_stack_still_has_everything_that_a_guest_expects():
    made = composed()
    links = {path: item.entry.target for path, item in made.items() if item.entry.kind == "symlink"}
    assert links == {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64",
                     "/etc/mtab": "../proc/self/mounts", "/var/run": "../run"}  # fmt: skip
    modes = {path: item.entry.mode for path, item in made.items() if item.entry.kind == "directory"}
    assert modes["/tmp"] == modes["/var/tmp"] == 0o1777 and modes["/root"] == 0o700
    assert {"/proc", "/sys", "/dev", "/run", "/etc", "/home", "/mnt"} <= modes.keys()
    assert {"/etc/passwd", "/etc/group", "/etc/nsswitch.conf"} <= made.keys() and "/etc/ld.so.cache" not in made


def test_composing_is_pure_and_sorted():
    stack = [closure(file("/usr/lib/libx.so.1"), folder("/srv", 0o750, 5, 5), users={"x": 5})]
    assert compose(stack) == compose(stack)
    paths = [made.entry.path for made in compose(stack)]
    assert paths == sorted(paths) and len(paths) == len(set(paths))
    for made in compose(stack):
        if made.entry.kind == "file":
            assert made.entry.digest == hashlib.sha256(made.content).hexdigest()
            assert made.entry.size == len(made.content)


def test_the_users_of_all_closures_are_in_passwd_and_group_and_the_first_wins():
    made = composed(closure(users={"redis": 101}), closure(users={"redis": 999, "mysql": 102, "root": 7}))
    passwd = text(made, "/etc/passwd").splitlines()
    assert passwd[0] == "root:x:0:0:root:/root:/bin/sh"
    assert "redis:x:101:101:redis:/nonexistent:/usr/sbin/nologin" in passwd
    assert "www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin" in passwd
    assert "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin" in passwd
    assert sum(line.startswith(("redis:", "root:")) for line in passwd) == 2
    group = text(made, "/etc/group").splitlines()
    assert {"root:x:0:", "nogroup:x:65534:", "mysql:x:102:", "tty:x:5:"} <= set(group)


def test_a_user_lives_in_the_folder_that_he_owns():
    made = composed(
        closure(folder("/run/db", 0o755, 102, 102), folder("/var/lib/db", 0o700, 102, 102), users={"db": 102})
    )
    assert "db:x:102:102:db:/var/lib/db:" in text(made, "/etc/passwd")


@pytest.mark.parametrize(
    "users", [{"x:0:0::/:/bin/sh\nroot2": 5}, {"a b": 5}, {"": 5}, {"x": -1}, {"x": 65536}, {"X": 5}]
)
def test_a_user_who_would_smuggle_in_a_line_is_refused(users):
    with pytest.raises(InputError, match="no such user"):
        composed(closure(users=users))


def test_roots_shell_is_bash_where_the_stack_has_it():
    assert text(composed(closure(file("/usr/bin/bash"))), "/etc/passwd").startswith("root:x:0:0:root:/root:/bin/bash\n")


def test_what_a_closure_brings_is_not_replaced():
    made = composed(closure(file("/etc/nsswitch.conf"), file("/etc/passwd"), file("/etc/group"), folder("/tmp", 0o700)))
    assert not {"/etc/nsswitch.conf", "/etc/passwd", "/etc/group"} & made.keys()
    assert made["/tmp"].entry.mode == 0o700
    with_users = composed(closure(file("/etc/passwd"), users={"x": 5}))
    assert "x:x:5:5:" in text(with_users, "/etc/passwd")


def test_a_folder_that_an_upper_closure_has_only_in_passing_keeps_its_declared_owner():
    upper = closure(file("/var/lib/db/plugin"))
    lower = closure(folder("/var/lib/db", 0o750, 102, 102))
    entry = composed(upper, lower)["/var/lib/db"].entry
    assert (entry.mode, entry.uid, entry.gid) == (0o750, 102, 102)


def test_of_two_declarations_of_a_folder_the_upper_one_stands():
    ordinary = closure(folder("/srv"))
    special = closure(folder("/srv", 0o700, 5, 5))
    assert composed(ordinary, special)["/srv"].entry.mode == 0o755
    assert composed(special, ordinary)["/srv"].entry.mode == 0o700


def test_a_folder_below_an_upper_closures_link_stays_hidden():
    made = composed(closure(symlink("/srv", "/data")), closure(folder("/srv/x", 0o700), folder("/srv", 0o700)))
    assert not {"/srv", "/srv/x"} & made.keys()


def test_a_mount_point_that_is_a_link_in_a_closure_stays_one():
    made = composed(closure(symlink("/var/tmp", "/tmp"), symlink("/home", "/data/home")))
    assert not {"/var/tmp", "/home"} & made.keys() and "/tmp" in made


def test_var_run_is_left_alone_where_a_closure_has_something_in_it():
    assert "/var/run" not in composed(closure(file("/var/run/x/pid")))
    assert "/var/run" not in composed(closure(symlink("/var", "/data")))


def test_an_upper_file_hides_a_lower_folder_and_the_other_way_round():
    seen = merge([closure(file("/a")), closure(file("/a/b"), file("/c"))])
    assert set(seen) == {"/a", "/c"}
    seen = merge([closure(file("/a/b")), closure(file("/a"), symlink("/a/b", "x"))])
    assert set(seen) == {"/a/b"} and seen["/a/b"].kind == "file"


def test_links_are_followed_within_the_stack_and_never_for_ever():
    links = {
        "/usr/lib/y": "x",
        "/usr/lib/a.so": "/lib/y/libreal.so",
        "/usr/up": "../../../usr/lib/x/libreal.so",
        "/loop": "/loop",
        "/no": "nowhere",
    }
    made = [symlink(path, target) for path, target in links.items()]
    stack = merge([closure(file("/usr/lib/x/libreal.so"), *made)])
    for path in ("/usr/lib/a.so", "/lib/y/libreal.so", "/usr/up"):
        assert resolve(stack, path) == stack["/usr/lib/x/libreal.so"]
    assert resolve(stack, "/loop") is None and resolve(stack, "/no") is None


def test_the_loader_cache_names_the_libraries_of_the_whole_stack():
    upper = closure(file("/opt/odd/libodd.so.1"), file("/usr/lib/libboth.so.1"), symlink("/usr/lib/libgone.so.1", "no"))
    lower = closure(
        symlink("/usr/lib/x86_64-linux-gnu/libz.so.1", "libz.so.1.2.13"),
        file("/usr/lib/x86_64-linux-gnu/libz.so.1.2.13"),
        file("/usr/lib/libboth.so.1"),
    )
    cache = composed(upper, lower, library_directories=["/opt/odd"])["/etc/ld.so.cache"].content
    assert b"libodd.so.1\0/opt/odd/libodd.so.1\0" in cache
    assert b"libz.so.1\0/usr/lib/x86_64-linux-gnu/libz.so.1\0" in cache
    assert cache.count(b"\0libboth.so.1\0") + cache.count(b"\0libgone") == 1
    assert b"/opt/odd" not in composed(upper, lower)["/etc/ld.so.cache"].content
    named = composed(upper, sonames={"/usr/lib/libboth.so.1": "libother.so.9"})["/etc/ld.so.cache"].content
    assert b"libother.so.9\0/usr/lib/libboth.so.1\0" in named
