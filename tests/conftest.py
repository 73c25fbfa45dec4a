"""What holds for every test: which need root, and that CI skips nothing which the set-up should have made possible.

A skip is honest in CI only for what no set-up can install: a reason of the form `host lacks: CAPABILITY` where
CAPABILITY is one that the kernel or its owner gives. Elsewhere a developer's machine may miss more.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

KERNEL_CAPABILITIES = (
    "cgroup v1",
    "cgroup v2",
    "CAP_SYS_RESOURCE",
    "KVM",
    "PIDFD_INFO_EXIT",
    "a file system",
    "a known kernel",
    "a network address",
    "id-mapped",
    "overlay",
    "user namespaces",
)
"""What `host lacks:` may name; a test that needs another one adds it here, with a reviewer's eye on it."""


def is_continuous_integration() -> bool:
    """Whether CI is set to something true."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def is_honest_skip(reason: str) -> bool:
    """Whether the reason names a capability that no set-up could have installed."""
    before, _, capability = reason.removeprefix("Skipped: ").partition("host lacks: ")
    return not before and capability.startswith(KERNEL_CAPABILITIES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root, tests marked `root` are skipped (which CI, where they must run, turns into failures)."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI make a failure of a skip without an honest reason."""
    if not report.skipped or hasattr(report, "wasxfail") or not is_continuous_integration():
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not is_honest_skip(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped (CI is set): {reason}"


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See `judge`."""
    report = yield
    judge(report)
    item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a failed test leaves in the installation that all share is removed, so that no other test fails by it."""
    product = request.getfixturevalue("product") if "product" in request.fixturenames else None
    before = product.holdings() if product else set()
    yield
    if product and request.node.stash.get(_FAILED, False):
        product.remove(product.holdings() - before)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself whole is judged too."""
    report = yield
    judge(report)
    return report
