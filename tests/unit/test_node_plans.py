"""What is decided without touching the host: rules, mounts' places, checks of a workload, other firewalls."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlet.model.error import InputError
from swiftlet.model.workload import Workload
from swiftlet.node import firewall
from swiftlet.node.check import check_command, workload_of
from swiftlet.node.doctor import dropping_chains
from swiftlet.node.firewall import ANYWHERE, Owner, Published, Setting
from swiftlet.node.signals import signal_number
from swiftlet.node.volumes import Mounted, Spot, parse_mounts, spot_of

SETTING = Setting("swiftlet_x", "swlx", "swlxv", IPv4Network("10.70.0.0/16"), ("eth0", "eth1"))


def chains(rules):
    return {each["add"]["chain"]["name"]: each["add"]["chain"] for each in rules if "chain" in each.get("add", {})}


def rules_of(rules, chain):
    found = [each["add"]["rule"] for each in rules if "rule" in each.get("add", {})]
    return [json.dumps(rule["expr"]) for rule in found if rule["chain"] == chain]


def test_a_table_is_made_from_nothing_in_one_transaction():
    rules = firewall.base_rules(SETTING)
    table = {"family": "ip", "name": "swiftlet_x"}
    assert rules[:3] == [{"add": {"table": table}}, {"delete": {"table": table}}, {"add": {"table": table}}]
    assert set(chains(rules)) == {"raw", "prerouting", "output", "postrouting", "forward"}
    assert all(chain["policy"] == "accept" for chain in chains(rules).values()), "never a policy for all of the host"


def test_every_rule_but_the_published_ports_names_the_bridge_or_the_subnet_or_the_uplinks():
    rules = firewall.base_rules(SETTING)
    for chain in ("raw", "postrouting", "forward"):
        for rule in rules_of(rules, chain):
            assert "swlx" in rule or '"eth0", "eth1"' in rule


def test_uplinks_are_kept_apart_only_where_forwarding_was_switched_on_for_them():
    assert len(rules_of(firewall.base_rules(SETTING), "forward")) == 4
    assert len(rules_of(firewall.base_rules(SETTING._replace(uplinks=())), "forward")) == 3


def test_what_is_published_is_withdrawn_by_the_same_elements():
    ports = [Published("tcp", ANYWHERE, 8080, "10.70.0.2", 80), Published("udp", "127.0.0.1", 53, "10.70.0.2", 53)]
    added = [each["add"] for each in firewall.publish(SETTING, ports)]
    assert added == [each["delete"] for each in firewall.withdraw(SETTING, ports)]
    assert {each["element"]["name"] for each in added} == {"tcp_address", "tcp_port", "udp_address", "udp_port"}


def test_no_owner_makes_no_empty_element():
    assert firewall.own(SETTING, []) == []
    owner = Owner("swlxv2", "02:42:0a:46:00:02", IPv4Address("10.70.0.2"))
    assert len(firewall.guard_rules(SETTING, [owner])) == len(firewall.guard_rules(SETTING, [])) + 1


def test_another_firewalls_drop_is_noticed_and_our_own_is_not():
    def chain(table, hook, policy):
        return {"chain": {"family": "ip", "table": table, "name": "FORWARD", "hook": hook, "policy": policy}}

    listing = {
        "nftables": [
            {"metainfo": {}},
            chain("filter", "forward", "drop"),
            chain("mine", "forward", "drop"),
            chain("filter", "input", "drop"),
            chain("other", "forward", "accept"),
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}},
        ]
    }
    assert dropping_chains(json.dumps(listing), "mine") == ["ip filter FORWARD"]


MOUNTS = [
    Mounted("8:1", "/", "/"),
    Mounted("0:20", "/", "/run"),
    Mounted("8:1", "/var/lib/swiftlet", "/mnt/alias"),
    Mounted("8:2", "/", "/data"),
    Mounted("8:2", "/sub", "/data/over"),
    Mounted("8:3", "/", "/data/over"),
]


@pytest.mark.parametrize(
    ("path", "spot"),
    [
        ("/", Spot("8:1", "/")),
        ("/var/lib", Spot("8:1", "/var/lib")),
        ("/run", Spot("0:20", "/")),
        ("/runner", Spot("8:1", "/runner")),
        ("/run/x/y", Spot("0:20", "/x/y")),
        ("/mnt/alias/objects", Spot("8:1", "/var/lib/swiftlet/objects")),
        ("/data/over/x", Spot("8:3", "/x")),
    ],
)
def test_a_path_is_followed_to_its_place_in_a_file_system(path, spot):
    assert spot_of(path, MOUNTS) == spot


def test_a_place_holds_itself_and_what_is_below_and_nothing_beside():
    place = Spot("8:1", "/var/lib")
    assert place.holds(place) and place.holds(Spot("8:1", "/var/lib/x"))
    assert not place.holds(Spot("8:1", "/var/library")) and not place.holds(Spot("8:2", "/var/lib/x"))
    assert Spot("8:1", "/").holds(place)


def test_mountinfo_is_read_with_its_escapes():
    text = "22 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n23 22 0:5 /a\\040b /mnt/c\\040d rw - tmpfs t rw\nnonsense\n"
    assert parse_mounts(text) == [Mounted("8:1", "/", "/"), Mounted("0:5", "/a b", "/mnt/c d")]


# Workloads from the wire

GOOD = {
    "templates": ["python@3.11"],
    "command": ["python3", "app.py"],
    "volumes": [{"source": "/srv", "target": "/app"}],
    "ports": [{"guest": 80, "host": 8080}],
    "resources": {"memory": 1 << 20, "cpus": 1.5},
    "ulimits": {"nofile": [1024, 4096]},
    "hostname": "web-1.example",
    "env": {"NAME": "wert ä"},
}


def test_a_good_workload_is_decoded():
    workload = workload_of(GOOD)
    assert workload.volumes[0].target == "/app" and workload.ports[0].host == 8080
    assert workload_of(msgspec.to_builtins(workload)) == workload


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"templates": []}, r"\$\.templates"),
        ({"templates": "python"}, r"\$\.templates: expected array, got str"),
        ({"templates": [5]}, r"\$\.templates\[0\]"),
        ({"nonsense": 1}, "nonsense"),
        ({"command": ["a\0b"]}, r"\$\.command\[0\]"),
        ({"command": ["x" * 200_000]}, r"\$\.command\[0\]"),
        ({"env": {"A=B": "x"}}, r"\$\.env"),
        ({"env": {"": "x"}}, r"\$\.env"),
        ({"env": {"A": "x\0"}}, r"\$\.env"),
        ({"env": {"A": "\u00e4" * 65_535}}, r"\$\.env: 'A' is no variable"),
        ({"command": ["x" * 131_000] * 17}, r"\$\.command: with its variables takes \d+ bytes, more than the 2097152"),
        ({"command": ["x"], "env": {str(i): "x" * 131_000 for i in range(17)}}, r"\$\.command: with its variables"),
        ({"command": [""] * 240_000}, r"\$\.command: with its variables"),
        ({"volumes": [{"source": "/s", "target": f"/{i}"} for i in range(129)]}, r"\$\.volumes: 129 .* more than 128"),
        ({"workdir": "app"}, r"\$\.workdir"),
        ({"workdir": "/a/../../etc"}, r"\$\.workdir"),
        ({"hostname": "-x"}, r"\$\.hostname"),
        ({"hostname": "x" * 65}, r"\$\.hostname"),
        ({"volumes": [{"source": "srv", "target": "/x"}]}, r"\$\.volumes\[0\]\.source"),
        ({"volumes": [{"source": "/srv", "target": "x"}]}, r"\$\.volumes\[0\]\.target"),
        ({"volumes": [{"source": "/srv", "target": "/"}]}, r"\$\.volumes\[0\]\.target"),
        ({"volumes": [{"source": "/srv", "target": "/../x"}]}, r"\$\.volumes\[0\]\.target"),
        ({"volumes": [{"source": "/srv", "target": "/x", "mode": 1}]}, r"\$\.volumes\[0\]"),
        ({"volumes": [{"source": "/srv", "target": "//."}]}, r"\$\.volumes\[0\]\.target"),
        ({"volumes": [{"source": "/srv", "target": "/proc"}]}, r"\$\.volumes\[0\]\.target: '/proc' is the kernel's"),
        ({"volumes": [{"source": "/srv", "target": "/.//proc/1/"}]}, r"\$\.volumes\[0\]\.target: .*nothing can be"),
        ({"volumes": [{"source": "/srv", "target": "/dev/"}]}, r"\$\.volumes\[0\]\.target: .*nothing can be"),
        ({"tmpfs": ["/sys"]}, r"\$\.tmpfs\[0\]: '/sys' is the kernel's"),
        ({"tmpfs": ["/proc/acpi:size=1m"]}, r"\$\.tmpfs\[0\]: '/proc/acpi:size=1m' is the kernel's"),
        ({"tmpfs": ["x"]}, r"\$\.tmpfs\[0\]"),
        ({"tmpfs": ["/x:size=1m", "/y:suid"]}, r"\$\.tmpfs\[1\]: 'suid' is no option"),
        ({"tmpfs": ["/x:size=lots"]}, r"\$\.tmpfs\[0\]: 'size=lots'"),
        ({"tmpfs": ["/"]}, r"\$\.tmpfs\[0\]"),
        ({"ports": [{"guest": 0}]}, r"\$\.ports\[0\]"),
        ({"ports": [{"guest": 80, "host": 70000}]}, r"\$\.ports\[0\]"),
        ({"ports": [{"guest": 80, "protocol": "sctp"}]}, r"\$\.ports\[0\]\.protocol"),
        ({"ports": [{"guest": 80, "host": 8080}] * 2}, r"\$\.ports\[1\]: 8080/tcp is published twice"),
        (
            {"ports": [{"guest": 80, "host": 80, "host_ip": "127.0.0.1"}, {"guest": 81, "host": 80}]},
            r"\$\.ports\[1\]: 80/tcp is published twice",
        ),
        ({"network": "host"}, r"\$\.ports: ports are published on the bridge only"),
        ({"network": "vpn"}, r"\$\.network"),
        ({"resources": {"memory": -1}}, r"\$\.resources\.memory"),
        ({"resources": {"memory": 10**30}}, r"\$\.resources\.memory"),
        ({"resources": {"memory": 1024}}, r"\$\.resources\.memory: 1024 bytes is less than 1M, .*setting a guest up"),
        ({"resources": {"cpus": -0.5}}, r"\$\.resources\.cpus"),
        ({"resources": {"cpu_weight": 10001}}, r"\$\.resources\.cpu_weight"),
        ({"resources": {"pids": -2}}, r"\$\.resources\.pids"),
        ({"stop_timeout": -1}, r"\$\.stop_timeout"),
        ({"ulimits": {"../x": [1, 2]}}, r"\$\.ulimits"),
        ({"ulimits": {"nofile": [1]}}, r"\$\.ulimits"),
        ({"kind": "submarine"}, r"\$\.kind"),
        ({"cpu_level": "v3"}, r"\$\.cpu_level: is for a unikernel only"),
        ({"cpu_level": "v5"}, r"\$\.cpu_level"),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(change, told):
    with pytest.raises(InputError, match=told) as caught:
        workload_of({**GOOD, **change})
    assert "\n" not in str(caught.value)


def test_what_can_be_executed_and_attached_is_taken():
    workload_of({**GOOD, "command": ["x" * 131_071] * 14, "env": {"A": "x" * 131_069}})
    workload_of({**GOOD, "volumes": [{"source": "/s", "target": f"/{i}"} for i in range(128)]})
    workload_of({**GOOD, "volumes": [{"source": "/s", "target": "/dev/x"}], "tmpfs": ["/dev/shm", "/processes"]})


def test_ports_that_do_not_collide_are_taken():
    ports = [("", 0, "tcp"), ("", 0, "tcp"), ("127.0.0.1", 80, "tcp"), ("127.0.0.2", 80, "tcp"), ("", 80, "udp")]
    published = [{"guest": 80, "host_ip": ip, "host": host, "protocol": protocol} for ip, host, protocol in ports]
    assert len(workload_of({**GOOD, "ports": published}).ports) == 5


def test_a_further_command_is_checked_alike():
    check_command(["x" * 131_071] * 14, {"A": "x"})
    for command, env in ((["a\0"], {}), (["x" * 131_000] * 17, {}), (["x"], {"A=B": "x"})):
        with pytest.raises(InputError, match=r"exec: \$\."):
            check_command(command, env)


def test_infinite_numbers_are_refused():
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError):
            workload_of({**GOOD, "stop_timeout": value})
        with pytest.raises(InputError):
            workload_of({**GOOD, "resources": {"cpus": value}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(Workload.__struct_fields__)


@given(st.dictionaries(FIELDS, JSON, max_size=5) | JSON)
def test_any_json_is_a_workload_or_an_input_error(document):
    try:
        workload_of(document)
    except InputError:
        pass


@pytest.mark.parametrize(("name", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("KILL", 9), ("hup", 1)])
def test_signals_are_known_by_name_and_number(name, number):
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "SIG", "NOPE", "0", "999", "-1", "9x", "SIG_DFL", "٣"])
def test_what_is_no_signal_is_refused(name):
    with pytest.raises(InputError, match="no signal"):
        signal_number(name)
