"""Every profile against Debian's kernel source: the tree's own tools must follow each of its requests."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from swiftlet.image.kernel import build, configuration, profile, wished
from swiftlet.image.kernel.source import Source
from swiftlet.model.error import KernelError
from tests.vm.conftest import PROFILE

NECESSARY = """
NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_CPUACCT CGROUP_DEVICE CGROUP_FREEZER CGROUP_SCHED CPUSETS MEMCG
KEYS VETH BRIDGE BRIDGE_NETFILTER IP_NF_FILTER IP_NF_MANGLE IP_NF_TARGET_MASQUERADE IP6_NF_FILTER IP6_NF_MANGLE
IP6_NF_TARGET_MASQUERADE NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_MATCH_IPVS
NETFILTER_XT_MARK IP_NF_RAW IP_NF_NAT NF_NAT IP6_NF_RAW IP6_NF_NAT POSIX_MQUEUE CGROUP_BPF OVERLAY_FS
"""
"""What moby's contrib/check-config.sh calls generally necessary, and the storage driver."""


Configured = Callable[[str], dict[str, str]]


def configure(source: Source, name: str, folder: Path) -> dict[str, str]:
    requests = profile.requests_of(profile.profile_named(name)).values()
    return configuration.read(build.configure(source, requests, str(folder)))


@pytest.fixture(scope="module")
def configured(debian_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Configured:
    """What the tree makes of a profile, each in a folder of its own, once: that takes ten seconds."""
    return functools.cache(lambda name: configure(debian_source, name, tmp_path_factory.mktemp(name) / "work"))


@pytest.mark.parametrize("name", profile.PROFILES)
def test_a_kernel_can_be_all_that_a_profile_asks_for(configured: Configured, name: str) -> None:
    values = configured(name)
    assert values["CONFIG_PVH"] == values["CONFIG_VIRTIO_BLK"] == "y"


def test_the_kernel_of_the_tests_has_all_that_a_server_has(configured: Configured) -> None:
    assert configured("server").items() <= configured(PROFILE).items()


def test_a_docker_kernel_has_what_dockers_own_check_asks_for(configured: Configured) -> None:
    values = configured("docker")
    assert {name for name in NECESSARY.split() if values.get(f"CONFIG_{name}") != "y"} == set()


def test_a_configuration_does_not_depend_on_what_lay_in_its_folder(
    configured: Configured, debian_source: Source, tmp_path: Path
) -> None:
    configure(debian_source, "docker", tmp_path / "one")
    assert configure(debian_source, "micro", tmp_path / "one") == configured("micro")


def test_a_request_that_is_dropped_is_told_with_what_it_needs(debian_source: Source, tmp_path: Path) -> None:
    requests = configuration.merged([("mine.config", "CONFIG_64BIT=y\nCONFIG_EXT4_FS=y\nCONFIG_NO_SUCH=y\n")])
    with pytest.raises(KernelError) as caught:
        build.configure(debian_source, requests.values(), str(tmp_path / "work"))
    assert re.search(r"CONFIG_EXT4_FS=y \(mine\.config, line 2\) needs BLOCK", str(caught.value))
    assert "CONFIG_NO_SUCH=y (mine.config, line 3) is no option of this kernel" in str(caught.value)
    assert caught.value.hint


def test_what_can_be_had_of_the_trees_own_configuration_is_started_from(debian_source: Source, tmp_path: Path) -> None:
    needed = list(profile.requests_of(profile.profile_named("full")).values())
    asked = wished.builtin(wished.text_of_tree(debian_source), wished.DEFCONFIG)
    start = wished.over(debian_source, asked, needed, str(tmp_path / "wished"))
    values = configuration.read(build.configure(debian_source, start, str(tmp_path / "work")))
    assert configuration.unmet(needed, values) == []
    assert values["CONFIG_DRM_I915"] == values["CONFIG_NFS_FS"] == "y" and "CONFIG_MODULES" not in values
