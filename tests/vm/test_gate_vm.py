"""`guest check --as vm`: it passes on our kernel and on Debian's; what a kernel, or a machine, lacks is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swiftlet.gate.options import NEEDS
from swiftlet.image.kernel import build, configuration, profile
from swiftlet.image.kernel.source import Source
from tests.product import Product
from tests.vm import stock
from tests.vm.conftest import CACHE

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

LACKING = {
    "INOTIFY_USER": {"files.inotify"},
    "AIO": {"files.aio"},
    "FILE_LOCKING": {"files.flock", "files.fcntl_lock"},
    "TMPFS_XATTR": {"files.xattr"},
    "POSIX_TIMERS": {"timers.posix", "timers.cpu", "signals.timer"},
    "TIMERFD": {"timers.timerfd"},
    "SIGNALFD": {"events.signalfd"},
    "EPOLL": {"events.epoll"},
    "EVENTFD": {"events.eventfd"},
    "ADVISE_SYSCALLS": {"memory.advise"},
    "BINFMT_SCRIPT": {"processes.script"},
}
"""Option that a kernel is built without -> the checks that must fail on it."""


def verdicts(product: Product, code: int, *options: str) -> dict[str, dict]:
    """Every check's verdict, by name."""
    done = product.run("guest", "check", "-q", "--json", "--as", "vm", *options)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr
    return {each["check"]: each for each in json.loads(done.stdout)["checks"]}


def failed(found: dict[str, dict]) -> dict[str, str]:
    return {name: each["problem"] for name, each in found.items() if not each["ok"]}


@pytest.fixture(scope="module")
def imported(product: Product) -> str:
    """The name of Debian's kernel in the product."""
    told = product.json("kernel", "import", stock.vmlinuz(CACHE), "--name", "stock")
    assert told["sizes"]["initramfs"] > 0
    return "stock"


def test_our_kernel_has_what_ordinary_software_needs(product: Product) -> None:
    found = verdicts(product, 0)
    assert found.keys() == NEEDS.keys() and failed(found) == {}
    assert found["web.page"]["values"] == {"requests": 2}
    compared = [each["values"]["numbers"] for name, each in found.items() if name.startswith("algorithms.")]
    assert compared == [1010, 2000, 810]
    assert product.json("ps", "-a") == []


@pytest.mark.net
def test_debians_kernel_has_it_too(product: Product, imported: str) -> None:
    found = verdicts(product, 0, "--kernel", imported)
    assert found.keys() == NEEDS.keys() and failed(found) == {}


@pytest.mark.net
def test_a_machine_with_debians_kernel_is_as_any_other(product: Product, imported: str, tmp_path: Path) -> None:
    release = product.json("kernel", "show", imported)["kernel"]["version"]
    assert release.endswith("-cloud-amd64")
    told = product.ok("run", "--rm", "--as", "vm", "-t", "busybox", "--", "busybox", "uname", "-r")
    assert told != f"{release}\n", "it is taken only where it is meant"
    (tmp_path / "word").write_text("from the host\n")
    run = ("--as", "vm", "--kernel", imported, "-t", "busybox", "-v", f"{tmp_path}:/host")
    script = "cat /host/word; busybox uname -r; exit 7"
    done = product.run("run", "--rm", *run, "--", "busybox", "sh", "-c", script)
    assert (done.stdout, done.returncode) == (f"from the host\n{release}\n", 7), done.stderr
    guest = product.ok("run", "-d", *run, "--", "busybox", "sleep", "1000").strip()
    assert product.ok("exec", guest, "busybox", "cat", "/host/word") == "from the host\n"
    assert product.json("inspect", guest)[0]["state"] == "Running"
    product.ok("rm", "-f", guest)


@pytest.mark.net
def test_debians_kernel_with_too_little_memory_is_told_with_how_much_is_enough(product: Product, imported: str) -> None:
    run = ("run", "--rm", "--as", "vm", "--kernel", imported, "-t", "busybox")
    refused = product.run(*run, "-m", "64M", "--", "busybox", "true")
    assert "64 MiB of memory are too little" in refused.stderr
    advice = refused.stderr.strip().rpartition("hint: give it more: -m ")[2]
    assert product.ok(*run, "-m", advice, "--", "busybox", "echo", "enough") == "enough\n"


@pytest.mark.parametrize(
    ("options", "broken"),
    [
        (
            ("--only", "files.inotify,files.flock", "--without", "inotify_init1"),
            {"files.inotify": "inotify_init1(IN_CLOEXEC): Function not implemented"},
        ),
        (
            ("--only", "web,sockets", "--network", "none"),
            {"web.page": "no port can be published with network none"},
        ),
        (
            ("--only", "processes.identity,processes.exec", "--cap-drop", "SETUID"),
            {"processes.identity": "setresuid(ANOTHER, ANOTHER, ANOTHER): Operation not permitted"},
        ),
    ],
    ids=["call", "network", "capability"],
)
def test_what_a_machine_lacks_is_named_and_nothing_else_is(
    product: Product, options: tuple[str, ...], broken: dict[str, str]
) -> None:
    found = verdicts(product, 1, *options)
    assert failed(found) == broken and len(found) > len(broken)
    for name in broken:
        assert tuple(found[name]["options"]) == NEEDS[name]


@pytest.mark.compiles
@pytest.mark.timeout(3000, func_only=True)
def test_a_kernel_without_options_is_told_by_the_checks_that_need_them(product: Product, debian_source: Source) -> None:
    without = "".join(f"# CONFIG_{option} is not set\n" for option in LACKING)
    texts = [*profile.texts_of(profile.profile_named("net")), ("without.config", without)]
    poor = build.build(debian_source, configuration.merged(texts).values(), CACHE, name="net+without")
    Path(product.instance.root, "cache/kernels", poor.digest).symlink_to(poor.folder)
    found = verdicts(product, 1, "--kernel", poor.digest)
    broken = failed(found)
    assert broken.keys() >= set().union(*LACKING.values())
    for option, names in LACKING.items():
        for name in names:
            assert f"CONFIG_{option}" in found[name]["options"], f"{name} failed and does not name CONFIG_{option}"
