"""A process that dropped its capabilities has no others, after execve and against set-uid files too."""

import os
import subprocess
import traceback

import pytest

from swiftlet.linux import capability

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Groups", "Uid")


def child(work, *, execute=()):
    """What `work` wrote, and what the executed program printed, in a forked process."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.dup2(write, 1)
            os.write(1, (work() or "").encode())
            if execute:
                os.execv(execute[0], execute)
        except BaseException:
            os.write(1, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as output:
        text = output.read()
    os.waitpid(process, 0)
    return text


def status(text):
    pairs = (line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return {name: value.strip() for name, value in pairs if name in FIELDS}


def mask(numbers):
    return f"{sum(1 << number for number in numbers):016x}"


def own_status():
    with open("/proc/self/status") as file:
        return file.read()


def dropped(uid, keep, then=own_status, execute=()):
    def work():
        capability.drop_to(uid, uid, (7,) if uid else (), keep)
        capability.no_new_privileges()
        return then()

    return child(work, execute=execute)


CAT_STATUS = ("/bin/cat", "/proc/self/status")
DEFAULT = mask(capability.DEFAULT)
NONE = mask(())


@pytest.mark.parametrize("execute", [(), CAT_STATUS], ids=["at once", "after execve"])
def test_root_keeps_what_it_was_given_and_can_inherit_nothing(execute):
    found = status(dropped(0, capability.DEFAULT, then=own_status if not execute else str, execute=execute))
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (DEFAULT, DEFAULT, DEFAULT)
    assert (found["CapInh"], found["CapAmb"], found["NoNewPrivs"]) == (NONE, NONE, "1")


@pytest.mark.parametrize("execute", [(), CAT_STATUS], ids=["at once", "after execve"])
def test_a_user_has_no_capability(execute):
    found = status(dropped(1000, capability.DEFAULT, then=own_status if not execute else str, execute=execute))
    assert (found["CapPrm"], found["CapEff"], found["CapInh"], found["CapAmb"]) == (NONE, NONE, NONE, NONE)
    assert found["CapBnd"] == DEFAULT
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Groups"] == "7"


@pytest.mark.parametrize("number", [-1, 0xFFFFFFFF, 1 << 32])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_id_that_the_kernel_reads_as_no_change_is_refused(number, place):
    def work():
        ids = [7, 7, (7,)]
        ids[place] = (number,) if place == 2 else number
        try:
            capability.drop_to(*ids, ())
        except ValueError as error:
            return f"refused:\t{error}\n{own_status()}"
        return "taken"

    text = child(work)
    assert text.startswith(f"refused:\tno user or group has the id {number}\n")
    assert status(text)["Uid"].split() == ["0"] * 4


def test_an_empty_list_leaves_root_without_any():
    found = status(dropped(0, ()))
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (NONE, NONE, NONE)


def test_capabilities_that_were_inheritable_or_ambient_before_are_gone():
    def work():
        raised = (1 << 0) | (1 << 13)
        everything = sum(1 << number for number in capability.permitted())
        low, high = everything & 0xFFFFFFFF, everything >> 32
        capability.struct.pack_into("<6I", capability._sets, 0, low, low, raised, high, high, 0)
        capability.call(126, capability._header, capability._sets)
        capability.call(157, 47, 2, 13, 0, 0)
        before = status(own_status())
        capability.drop_to(0, 0, (), capability.DEFAULT)
        return f"before:\t{before['CapInh']} {before['CapAmb']}\n{own_status()}"

    text = child(work)
    assert f"before:\t{mask((0, 13))} {mask((13,))}" in text
    found = status(text)
    assert (found["CapInh"], found["CapAmb"]) == (NONE, NONE)


def test_what_this_process_itself_lacks_is_left_out():
    held = status(own_status())["CapPrm"]
    found = status(dropped(0, capability.ALL))
    assert (found["CapPrm"], found["CapEff"]) == (held, held)


def test_dropping_is_for_good():
    def again():
        try:
            capability.set_capabilities(frozenset((21,)))
        except PermissionError:
            return "refused"
        return "taken"

    assert dropped(0, capability.DEFAULT, then=again) == "refused"


def test_a_set_uid_file_gives_nothing_after_no_new_privileges(tmp_path):
    program = tmp_path / "id"
    subprocess.run(["cp", "/usr/bin/id", program], check=True)
    os.chmod(program, 0o4755)
    for folder in [tmp_path, *tmp_path.parents[:3]]:
        if str(folder) != "/tmp":
            os.chmod(folder, 0o755)
    text = dropped(1000, capability.DEFAULT, then=str, execute=(str(program), "-u"))
    assert text.strip() == "1000"


def test_without_setpcap_bounding_is_refused_and_says_what():
    def work():
        capability.set_capabilities(frozenset((0,)))
        try:
            capability.bound(frozenset())
        except PermissionError as error:
            return str(error.filename)
        return "dropped"

    assert child(work) == "capability 0"
