"""Journals, names, leases, the files of /etc: what lies on the disk survives being cut off, claims are exclusive."""

from __future__ import annotations

import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network

import pytest

from swiftlet.model.error import ConflictError, FullError, HostError, InputError, StoreError
from swiftlet.node import hosts
from swiftlet.node.addresses import DEFAULT_SUBNET, Addresses, choose_subnet, hardware_address
from swiftlet.node.journal import Journal, read_journal
from swiftlet.node.names import Names, delete, is_id, new_id, storage_error
from swiftlet.node.prepare import furnish, guest_file

ID = "0123456789ab"


# Journal


def test_a_journal_is_read_back_as_it_was_written(tmp_path):
    journal = Journal(ID, str(tmp_path))
    for state, reason in (("Generating", ""), ("Generated", ""), ("Running", ""), ("Stopped", "exited with 3\nx")):
        journal.enter(state, reason)
    again = read_journal(ID, str(tmp_path))
    assert again.state == "Stopped"
    assert again.changes == journal.changes
    assert [change.old for change in again.changes] == ["", "Generating", "Generated", "Running"]
    assert again.begun_ns == journal.changes[0].time_ns > 1e18
    assert again.last("Running") == journal.changes[2]
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == {"time_ns", "from", "to", "reason"}


@pytest.mark.parametrize("cut", [0, 10])
def test_a_change_that_the_disk_refuses_is_not_made_but_what_has_happened_is_true(tmp_path, monkeypatch, cut):
    """The disk takes a part of the line, or nothing."""
    journal = Journal(ID, str(tmp_path))
    journal.enter("Generating")
    before = (tmp_path / "journal.jsonl").read_bytes()
    write = os.write

    def refuse(handle, data):
        if cut:
            return write(handle, data[:cut])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("swiftlet.node.journal.os.write", refuse)
    with pytest.raises(FullError, match=r"no space left for .*journal"):
        journal.enter("Generated")
    assert journal.state == "Generating" and (tmp_path / "journal.jsonl").read_bytes() == before
    journal.note("Removed", "given up")
    assert journal.state == "Removed" and (tmp_path / "journal.jsonl").read_bytes() == before
    with pytest.raises(ConflictError):
        journal.note("Running")


def test_an_illegal_change_is_refused_and_not_written(tmp_path):
    journal = Journal(ID, str(tmp_path))
    with pytest.raises(ConflictError):
        journal.enter("Running")
    journal.enter("Generating")
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(ConflictError, match="is Generating and cannot become Running"):
        journal.enter("Running")
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_journal_cut_off_anywhere_keeps_every_whole_line_and_goes_on(tmp_path):
    journal = Journal(ID, str(tmp_path))
    for state in ("Generating", "Generated", "Running"):
        journal.enter(state)
    whole = (tmp_path / "journal.jsonl").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "journal.jsonl").write_bytes(whole[:length])
        torn = read_journal(ID, str(tmp_path))
        kept = whole[:length].count(b"\n") + (whole[length : length + 1] == b"\n")
        assert len(torn.changes) == kept
        if kept == 2:
            torn.enter("Running")
            assert [change.new for change in read_journal(ID, str(tmp_path)).changes] == [
                "Generating",
                "Generated",
                "Running",
            ]


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b"{}", b'{"to":"Flying"}', b"\xff\xfe", b"[" * 5000, b"null"])
def test_a_line_that_is_no_change_is_passed_over(tmp_path, line):
    journal = Journal(ID, str(tmp_path))
    journal.enter("Generating")
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(line + b"\n")
    journal.enter("Generated")
    assert read_journal(ID, str(tmp_path)).state == "Generated"


# Names


@pytest.fixture
def names(tmp_path):
    return Names(str(tmp_path))


def test_an_id_is_no_number_for_as_a_host_name_it_would_have_no_address(monkeypatch):
    drawn = iter(["481203948571", "000000000000", "12345678901e"])
    monkeypatch.setattr("secrets.token_hex", lambda count: next(drawn))
    assert new_id() == "12345678901e"


def test_a_name_is_claimed_once_whoever_tries_at_the_same_time(names):
    ids = [new_id() for _ in range(40)]

    def claim(id_):
        try:
            return names.claim("cache", id_)
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [result for result in pool.map(claim, ids) if result]
    assert len(won) == 1
    assert names.holder("cache") in ids


def test_a_name_in_use_is_told_with_its_holder_and_free_after_release(names):
    names.claim("cache", ID)
    with pytest.raises(ConflictError, match=f"name cache is in use by guest {ID}"):
        names.claim("cache", new_id())
    names.release("cache", "ffffffffffff")
    assert names.holder("cache") == ID, "somebody else gave it back"
    names.release("cache", ID)
    assert names.claim("cache", new_id()) == "cache"


@pytest.mark.parametrize("name", ["", "/", "..", "../x", ".x", "-x", "a/b", "a b", "ä", "a\0", "x" * 64, ID, "a\n"])
def test_a_name_that_could_be_a_path_or_an_id_is_refused(names, name):
    if name == "":
        assert names.claim(name, ID)
        return
    with pytest.raises(InputError):
        names.claim(name, ID)


def test_made_up_names_do_not_run_out(names):
    made = [names.claim("", new_id()) for _ in range(300)]
    assert len(set(made)) == 300
    assert all(len(name) < 32 for name in made)


def test_ids_are_twelve_hex_digits():
    assert is_id(new_id())
    assert not is_id("0123456789AB") and not is_id(ID + "0") and not is_id(ID[:-1])


def test_a_folder_put_away_vanishes_at_once_and_is_found_again_if_it_was_not_deleted(names):
    folder = names.make_folder(ID)
    os.mkdir(f"{folder}/upper")
    grave = names.put_away(ID)
    assert not os.path.exists(folder) and os.path.isdir(f"{grave}/upper")
    assert names.graves() == [grave]
    delete(grave)
    assert names.graves() == []
    assert names.put_away(ID) == ""


def test_what_a_guest_left_is_deleted_however_deep_and_odd_it_is(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    grave = tmp_path / "grave"
    grave.mkdir()
    os.symlink(outside, grave / "link")
    os.mkfifo(grave / "fifo")
    (grave / "closed").mkdir(mode=0)
    (grave / ("n" * 255)).write_text("x")
    current = os.open(grave, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    delete(str(grave))
    assert not grave.exists()
    assert (outside / "precious").exists()


def test_a_full_disk_is_told_as_such():
    assert isinstance(storage_error(OSError(28, "No space left on device"), "/x"), FullError)
    assert type(storage_error(OSError(5, "Input/output error"), "/x")) is StoreError


# Addresses


def test_addresses_are_leased_once_and_the_lowest_free_one_first(tmp_path):
    addresses = Addresses(str(tmp_path), IPv4Network("10.70.0.0/29"))
    assert str(addresses.gateway) == "10.70.0.1"
    numbers = [addresses.lease("x") for _ in range(5)]
    assert numbers == [2, 3, 4, 5, 6]
    with pytest.raises(HostError, match="all addresses"):
        addresses.lease("x")
    addresses.release(4)
    addresses.release(3)
    addresses.release(3)
    assert [addresses.lease("x"), addresses.lease("x")] == [3, 4]


def test_a_lease_of_another_process_is_respected(tmp_path):
    first = Addresses(str(tmp_path), IPv4Network("10.70.0.0/24"))
    second = Addresses(str(tmp_path), IPv4Network("10.70.0.0/24"))
    assert [first.lease("a"), second.lease("b"), first.lease("a")] == [2, 3, 4]


def test_leases_without_owner_are_swept_and_ranges_of_user_ids_are_left(tmp_path):
    addresses = Addresses(str(tmp_path), IPv4Network("10.70.0.0/24"))
    for _ in range(6):
        addresses.lease("x")
    (tmp_path / "uid-28672").touch()
    (tmp_path / "10.99.0.2").touch()
    again = Addresses(str(tmp_path), IPv4Network("10.70.0.0/24"))
    again.keep_only({3, 5})
    assert sorted(os.listdir(tmp_path)) == ["10.70.0.3", "10.70.0.5", "uid-28672"]
    assert [again.lease("y") for _ in range(4)] == [2, 4, 6, 7]


def test_the_subnet_never_overlaps_a_route_of_the_host():
    assert choose_subnet("", []) == DEFAULT_SUBNET
    taken = [IPv4Network("10.63.7.0/24"), IPv4Network("0.0.0.0/0"), IPv4Network("10.64.0.0/15")]
    assert str(choose_subnet("", taken)) == "10.66.0.0/16"
    for tag in ("000000", "abcdef", "ffffff"):
        chosen = choose_subnet(tag, taken)
        assert not any(chosen.overlaps(network) for network in taken if network.prefixlen)
        assert choose_subnet(tag, [*taken, chosen]) != chosen
    with pytest.raises(HostError):
        choose_subnet("", [IPv4Network("10.0.0.0/8")])


def test_hardware_addresses_are_local_and_differ():
    network = IPv4Network("10.63.0.0/24")
    made = {hardware_address(address) for address in network}
    assert len(made) == 256
    assert all(int(address[:2], 16) & 3 == 2 for address in made)


# The files of /etc


def test_loopback_name_servers_are_left_out():
    text = "# x\nsearch lan\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\nnameserver fe80::1%eth0\n"
    assert hosts.without_loopback(text) == "# x\nsearch lan\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n"


def test_when_the_host_has_a_stub_only_its_upstream_servers_are_taken(tmp_path):
    stub, upstream = tmp_path / "stub", tmp_path / "upstream"
    stub.write_text("nameserver 127.0.0.53\n")
    upstream.write_text("nameserver 192.0.2.9\n")
    assert hosts.read_resolver(str(stub), str(upstream)) == "nameserver 192.0.2.9\n"
    stub.write_text("nameserver 192.0.2.1\n")
    assert hosts.read_resolver(str(stub), str(upstream)) == "nameserver 192.0.2.1\n"
    assert hosts.read_resolver(str(tmp_path / "none"), str(tmp_path / "none")) == ""


def test_a_guest_finds_itself_under_its_name():
    files = hosts.files("web", "10.63.0.5", "nameserver 192.0.2.1\n")
    assert "10.63.0.5\tweb\n" in files["/etc/hosts"] and files["/etc/hostname"] == "web\n"
    assert "127.0.1.1\tweb\n" in hosts.files("web", "", "")["/etc/hosts"]
    shared = hosts.files("web", "", "nameserver 127.0.0.53\n", shares_host=True)
    assert shared["/etc/resolv.conf"] == "nameserver 127.0.0.53\n"


# Writing below a root that a guest had


def test_files_are_written_below_the_guests_root(tmp_path):
    furnish(str(tmp_path), {"/etc/hosts": "one\n"}, 0)
    furnish(str(tmp_path), {"/etc/hosts": "two\n"}, 0)
    assert (tmp_path / "upper/etc/hosts").read_text() == "two\n"
    assert stat.S_IMODE((tmp_path / "upper").stat().st_mode) == 0o755
    assert guest_file(str(tmp_path), "/etc/hosts") == "two\n"


def test_no_symlink_of_a_guests_leads_a_write_out_of_its_folder(tmp_path):
    outside = tmp_path / "host"
    (outside / "etc").mkdir(parents=True)
    (outside / "etc/hosts").write_text("the host's\n")
    guest = tmp_path / "guest"
    (guest / "upper").mkdir(parents=True)
    os.symlink(outside / "etc", guest / "upper/etc")
    furnish(str(guest), {"/etc/hosts": "attack\n"}, 0)
    os.unlink(guest / "upper/etc")
    os.mkdir(guest / "upper/etc")
    os.symlink(outside / "etc/hosts", guest / "upper/etc/hosts")
    furnish(str(guest), {"/etc/hosts": "own\n"}, 0)
    assert (guest / "upper/etc/hosts").read_text() == "own\n"
    os.unlink(guest / "upper/etc/hosts")
    os.link(outside / "etc/hosts", guest / "upper/etc/hosts")
    furnish(str(guest), {"/etc/hosts": "own\n"}, 0)
    assert (outside / "etc/hosts").read_text() == "the host's\n"


@pytest.mark.parametrize("spoiled", ["file", "fifo", "folder"])
def test_a_guest_that_spoils_its_etc_is_started_without_the_files(tmp_path, spoiled):
    upper = tmp_path / "upper"
    upper.mkdir()
    if spoiled == "file":
        (upper / "etc").write_text("x")
    elif spoiled == "fifo":
        (upper / "etc").mkdir()
        os.mkfifo(upper / "etc/passwd")
    else:
        (upper / "etc/hosts").mkdir(parents=True)
    furnish(str(tmp_path), {"/etc/hosts": "own\n"}, 0)
    assert guest_file(str(tmp_path), "/etc/passwd") is None


def test_a_guests_account_file_is_read_only_if_it_is_a_plain_file(tmp_path):
    (tmp_path / "upper/etc").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.symlink(secret, tmp_path / "upper/etc/passwd")
    assert guest_file(str(tmp_path), "/etc/passwd") is None
    os.unlink(tmp_path / "upper/etc/passwd")
    (tmp_path / "upper/etc/passwd").write_text("x" * (3 << 20))
    text = guest_file(str(tmp_path), "/etc/passwd")
    assert text is not None and len(text) == 1 << 20
