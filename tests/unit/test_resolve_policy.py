from __future__ import annotations

import pytest

from swiftlet.resolve import policy


@pytest.mark.parametrize(
    ("soname", "package"),
    [
        ("libssl.so.3", "libssl3"),
        ("libpcre2-8.so.0", "libpcre2-8-0"),
        ("libgcc_s.so.1", "libgcc-s1"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libc.so.6", "libc6"),
        ("libz.so.1", "zlib1g"),
        ("libcrypto.so.3", "libssl3"),
        ("libbz2.so.1.0", "libbz2-1.0"),
        ("libgssapi_krb5.so.2", "libgssapi-krb5-2"),
        ("libperl.so.5.36", "libperl5.36"),
        ("libapr-1.so.0", "libapr-1-0"),
        ("libX11.so.6", "libx11-6"),
        ("ld-linux-x86-64.so.2", "libc6"),
        ("libssl.so.3", "libssl3t64"),
    ],
)
def test_debians_names_of_library_packages(soname, package):
    assert package in policy.library_packages(soname)


def test_the_likeliest_name_comes_first():
    assert policy.library_packages("libssl.so.3")[0] == "libssl3"
    assert policy.likeness("libkrb5.so.3", "libkrb5-3") > policy.likeness("libkrb5.so.3", "libk5crypto3")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/usr/share/doc/x/copyright", "documentation"),
        ("/usr/share/man/man1/x.1.gz", "manual pages"),
        ("/usr/share/locale/de/LC_MESSAGES/x.mo", "translations"),
        ("/usr/lib/systemd/system/x.service", "service units"),
        ("/etc/init.d/x", "init scripts"),
        ("/etc/cron.daily/x", "periodic jobs"),
        ("/usr/include/x.h", "development"),
        ("/usr/lib/libx.a", "development"),
        ("/usr/share/lintian/overrides/x", "packaging"),
        ("/usr/share/bash-completion/completions/x", "completions"),
        ("/usr/share/icons/x.png", "desktop"),
        ("/usr/bin/x", ""),
        ("/etc/x/x.conf", ""),
        ("/usr/share/x/data", ""),
        ("/usr/lib/locale/C.utf8/LC_CTYPE", ""),
    ],
)
def test_what_no_program_reads_is_left_out(path, kind):
    assert policy.why_left_out(path) == kind
    assert policy.is_left_out(path) == bool(kind)


def test_globs_know_folders():
    pattern = policy.glob_pattern(["/usr/lib/*/x", "/opt/**/y.so", "/etc/a?"])
    assert pattern is not None
    for path in ("/usr/lib/q/x", "/usr/lib/q/x/below", "/opt/a/b/y.so", "/etc/ab"):
        assert pattern.fullmatch(path), path
    for path in ("/usr/lib/a/b/x", "/usr/lib/q/xy", "/etc/abc", "/opt/y"):
        assert not pattern.fullmatch(path), path
    assert policy.glob_pattern([]) is None


def test_include_wins_over_exclude_and_over_the_tables_but_not_over_the_kernels_folders():
    include, exclude = (
        policy.glob_pattern(["/usr/share/doc/x", "/usr/bin/a", "/dev/x"]),
        policy.glob_pattern(["/usr/bin/*"]),
    )
    assert policy.is_chosen("/usr/share/doc/x/y", include, exclude)
    assert policy.is_chosen("/usr/bin/a", include, exclude)
    assert not policy.is_chosen("/usr/bin/b", include, exclude)
    assert not policy.is_chosen("/dev/x", include, exclude)
    assert policy.is_chosen("/usr/lib/z", include, exclude)
