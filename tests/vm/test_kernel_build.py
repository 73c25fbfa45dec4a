"""What a build of a kernel does around the tree's own tools: checks, keeps, resumes, refuses, and is the same twice."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.image.kernel import build, configuration, footprint, kept, make
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.source import Source, source_at
from swiftlet.model.error import FullError, HostError, InputError, KernelError, NotFoundError
from tests.tiny_kernel import make_tree, packed


def asked(text: str) -> list[Wanted]:
    return list(configuration.merged([("mine.config", text)]).values())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "builds"


@pytest.fixture
def tree(tmp_path: Path, log: Path) -> Path:
    return make_tree(tmp_path / "linux", log)


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def source_of(tree: Path, cache: str) -> Source:
    return source_at(str(tree), cache)


def builds(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def half_made(cache: str) -> list[str]:
    return [name for name in os.listdir(f"{cache}/kernels") if name.startswith(".") or name.endswith(".new")]


def test_a_kernel_is_built_once_and_kept_with_all_that_it_was_made_of(tree: Path, cache: str, log: Path) -> None:
    told: list[tuple[str, str, int, int]] = []
    source = source_of(tree, cache)
    made = build.build(source, asked("CONFIG_NET=y\n"), cache, lambda *step: told.append(step), name="net")
    assert sorted(os.listdir(made.folder)) == [
        "System.map", "bzImage", "config", "kernel.json", "objects.json", "vmlinux"
    ]  # fmt: skip
    assert {stage for stage, *_ in told} == {"configure", "compile", "keep"} and told[-2][2:] == (2, 2)
    assert made.version == "6.1.7-tiny" and made.options == 2 and made.sizes["bzimage"] > 0 and made.steps == 2
    again = build.build(source, asked("CONFIG_NET=y\n"), cache, name="net")
    assert (again.digest, builds(log), half_made(cache)) == (made.digest, 1, [])
    assert kept.requests_of(again) == {"CONFIG_NET": Wanted("CONFIG_NET", "y", "mine.config", 1)}


def test_a_kernel_has_the_names_of_all_profiles_that_come_to_it(tree: Path, cache: str) -> None:
    source = source_of(tree, cache)
    one = build.build(source, asked("CONFIG_NET=y\n"), cache, name="one")
    two = build.build(source, asked("# nothing more\nCONFIG_NET=y\n"), cache, name="two")
    assert one.digest == two.digest and kept.names_of(two) == ["one", "two"]
    assert kept.kernel_named(cache, "one").digest == kept.kernel_named(cache, one.digest[:6]).digest == one.digest
    assert kept.requests_of(two, "one")["CONFIG_NET"].line == 1 and kept.requests_of(two)["CONFIG_NET"].line == 2


def test_the_newest_kernel_of_a_profile_is_meant_and_a_doubtful_beginning_is_refused(tree: Path, cache: str) -> None:
    source = source_of(tree, cache)
    build.build(source, asked("CONFIG_NET=y\n"), cache, name="net")
    newest = build.build(source, asked("CONFIG_NET=y\nCONFIG_INET=y\n"), cache, name="net")
    assert kept.kernel_named(cache, "net").digest == kept.kernel_named(cache, "").digest == newest.digest
    twin = f"{newest.digest[:8]}{'0' * 56}"
    os.rename(kept.kernels_of(cache)[1].folder, f"{cache}/kernels/{twin}")
    with pytest.raises(InputError, match="is the beginning of 2 kernels"):
        kept.kernel_named(cache, newest.digest[:8])
    with pytest.raises(NotFoundError, match="no kernel net2"):
        kept.kernel_named(cache, "net2")
    with pytest.raises(NotFoundError, match="no kernel of profile docker is built"):
        kept.kernel_named(cache, "docker")
    kept.remove(cache, newest)
    assert kept.kernel_of(cache, newest.digest) is None and half_made(cache) == []


def test_each_object_is_measured_with_the_options_that_it_is_for(tree: Path, cache: str) -> None:
    made = build.build(source_of(tree, cache), asked("CONFIG_NET=y\n"), cache)
    objects = footprint.read(made.folder)
    assert objects is not None and {path: each.needs for path, each in objects.items()} == {
        "init/main.o": (),
        "net/net.o": (("CONFIG_NET",),),
    }
    cost = footprint.cost_of("CONFIG_NET", objects, kept.values_of(made))
    assert cost is not None and cost.objects == 1 and cost.bytes == objects["net/net.o"].bytes > 0
    assert footprint.cost_of("CONFIG_TINY", objects, kept.values_of(made)) is None


def test_two_builds_of_one_digest_give_the_same_bytes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCACHE_DISABLE", "1")
    one, two = (build.build(source_of(tree, ""), asked("CONFIG_NET=y\n"), str(tmp_path / each)) for each in "ab")
    assert one.digest == two.digest
    for name in ("vmlinux", "bzImage", "System.map", "config"):
        assert Path(one.folder, name).read_bytes() == Path(two.folder, name).read_bytes(), name


@pytest.fixture
def no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CCACHE_DIR", "CCACHE_DEPEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_setting")
def test_the_first_kernel_of_a_cache_is_compiled_without_looking_for_others(tree: Path, cache: str, log: Path) -> None:
    """And goes on where it was broken off; a second one is looked for in what was compiled before."""
    (tree / "slow").write_text("0.5")
    source = source_of(tree, cache)
    seen: list[list[str]] = []
    request = asked("CONFIG_NET=y\n")
    build.build(source, request, cache, lambda stage, *_: seen.append(half_made(cache)) if stage == "keep" else None)
    first = log.read_text().splitlines()[0]
    folder, depends = first.split()
    assert os.path.dirname(folder) == f"{cache}/kernels" and depends == "1"
    assert any(os.path.basename(folder) in names for names in seen) and half_made(cache) == []
    kept.remove(cache, kept.kernels_of(cache)[0])
    os.makedirs(folder)  # of one that was broken off
    build.build(source, request, cache)
    assert log.read_text().splitlines()[1] == first and half_made(cache) == []
    build.build(source, asked("CONFIG_NET=y\nCONFIG_INET=y\n"), cache)
    assert log.read_text().splitlines()[2].split() == [f"{cache}/ccache"]


@pytest.mark.usefixtures("no_setting")
def test_after_a_build_of_something_else_that_failed_more_are_expected(tree: Path, cache: str, log: Path) -> None:
    os.makedirs(f"{cache}/kernels/.compiled-else")
    build.build(source_of(tree, cache), asked("CONFIG_NET=y\n"), cache)
    assert log.read_text().split() == [f"{cache}/ccache"] and half_made(cache) == []


def test_a_cache_of_compilers_of_the_users_own_is_left_to_its_settings(
    tree: Path, cache: str, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "own"))
    monkeypatch.delenv("CCACHE_DEPEND", raising=False)
    build.build(source_of(tree, cache), asked("CONFIG_NET=y\n"), cache)
    assert log.read_text().split() == [str(tmp_path / "own")]


def test_a_dropped_request_is_told_with_what_it_needs_and_leaves_nothing(tree: Path, cache: str, log: Path) -> None:
    with pytest.raises(KernelError) as caught:
        build.build(source_of(tree, cache), asked("CONFIG_INET=y\n"), cache)
    assert str(caught.value) == "CONFIG_INET=y (mine.config, line 1) needs NET" and caught.value.hint
    assert (builds(log), half_made(cache), kept.kernels_of(cache)) == (0, [], [])


def test_the_compilers_own_words_are_told_and_the_rest_is_kept_in_a_log(tree: Path, cache: str) -> None:
    (tree / "broken").touch()
    with pytest.raises(KernelError, match=r"did not compile: init/main\.c:1:1: error: no such thing") as caught:
        build.build(source_of(tree, cache), asked("CONFIG_NET=y\n"), cache)
    assert "no such thing" in Path(caught.value.hint.removeprefix("see ")).read_text()
    assert half_made(cache) == [] and kept.kernels_of(cache) == []


def test_a_tree_whose_tools_are_not_there_is_refused_by_name(tree: Path, cache: str) -> None:
    (tree / "scripts/kconfig/merge_config.sh").unlink()
    with pytest.raises((KernelError, FileNotFoundError), match=r"merge_config\.sh"):
        build.build(source_of(tree, cache), asked("CONFIG_NET=y\n"), cache)
    assert half_made(cache) == []


def test_without_a_compiler_nothing_is_begun(
    tree: Path, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tree, cache)
    (tmp_path / "bin").mkdir()
    for name in ("make", "ld", "objcopy", "flex", "bison"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(HostError, match="without gcc, bc") as caught:
        build.build(source, asked("CONFIG_NET=y\n"), cache)
    assert caught.value.hint == "apt-get install bc gcc libc6-dev libelf-dev" and not os.path.exists(cache)


def test_a_missing_header_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "HEADERS", {"no_such_header.h": "libnothing-dev"})
    with pytest.raises(HostError, match=r"no_such_header\.h") as caught:
        make.check_tools()
    assert caught.value.hint == "apt-get install libnothing-dev"


def test_of_two_builds_at_a_time_the_second_waits_and_finds_what_the_first_made(
    tree: Path, cache: str, log: Path
) -> None:
    (tree / "slow").write_text("1")
    source = source_of(tree, cache)
    told: list[str] = []
    made: list[str] = []

    def one() -> None:
        made.append(build.build(source, asked("CONFIG_NET=y\n"), cache, lambda *step: told.append(step[0])).digest)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1 and builds(log) == 1 and "wait" in told


def test_what_a_killed_build_left_is_swept_and_a_running_one_is_left_alone(cache: str) -> None:
    for folder in ("kernels/.work-dead", "kernels/abc.new", "sources/.unpacking-x", "kernels/kept"):
        os.makedirs(f"{cache}/{folder}")
    with kept.locked(f"{cache}/kernels"):
        kept.sweep(cache)
        assert sorted(os.listdir(f"{cache}/kernels")) == [".work-dead", "abc.new", "kept"]
    kept.sweep(cache)
    assert os.listdir(f"{cache}/kernels") == ["kept"] and os.listdir(f"{cache}/sources") == []


def test_a_sweep_waits_for_compilers_that_are_still_dying(cache: str) -> None:
    os.makedirs(f"{cache}/kernels/.work-dead")
    lock = os.open(f"{cache}/kernels.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    dying = threading.Timer(0.5, os.close, (lock,))
    dying.start()
    kept.sweep(cache)
    assert os.listdir(f"{cache}/kernels") == [".work-dead"]
    kept.sweep(cache, 10)
    assert os.listdir(f"{cache}/kernels") == []
    dying.join()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    """A file system of eight MiB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(mounted)], check=True)
    yield str(mounted)
    subprocess.run(["umount", str(mounted)], check=True)


@pytest.mark.root
def test_a_disk_without_room_is_told_before_anything_is_compiled(tree: Path, small_disk: str, log: Path) -> None:
    with pytest.raises(FullError, match=r"600 MiB are needed .* and \d MiB are free") as caught:
        build.build(source_of(tree, small_disk), asked("CONFIG_NET=y\n"), small_disk)
    assert caught.value.hint and builds(log) == 0


@pytest.mark.root
def test_a_disk_that_fills_up_while_it_compiles_loses_nothing(
    tree: Path, small_disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ROOM_BYTES", 0)
    first = build.build(source_of(tree, small_disk), asked("CONFIG_NET=y\n"), small_disk)
    (tree / "large").touch()
    with pytest.raises(FullError, match="no space left"):
        build.build(source_of(tree, small_disk), asked("CONFIG_NET=y\n"), small_disk)
    assert half_made(small_disk) == [] and [each.digest for each in kept.kernels_of(small_disk)] == [first.digest]


@pytest.mark.root
def test_an_archive_that_does_not_fit_is_told_as_a_full_disk(
    tree: Path, small_disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tree / "zeros", "wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(FullError, match=r"no space left in .* to unpack"):
        source_at(str(packed(tree)), small_disk)
    assert os.listdir(f"{small_disk}/sources") == []


def test_a_record_from_before_names_is_still_a_kernel(cache: str) -> None:
    folder = Path(cache, "kernels", "ab" * 32)
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"version": "6.1", "bytes": 7, "seconds": 1.5, "source": "ff"}))
    assert kept.kernels_of(cache)[0].source == {"digest": "ff"} and kept.kernel_named(cache, "abab").bytes == 7


@pytest.mark.compiles
@pytest.mark.timeout(1500, func_only=True)
def test_two_builds_of_a_real_kernel_give_the_same_bytes(
    debian_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCACHE_DISABLE", "1")
    requests = asked("CONFIG_64BIT=y\nCONFIG_HYPERVISOR_GUEST=y\nCONFIG_PVH=y\n")
    one, two = (build.build(debian_source, requests, str(tmp_path / each)) for each in ("one", "another"))
    assert one.digest == two.digest
    for name in ("vmlinux", "bzImage", "System.map", "config"):
        assert Path(one.folder, name).read_bytes() == Path(two.folder, name).read_bytes(), name
