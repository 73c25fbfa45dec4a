"""`store verify` finds a flipped byte and changes nothing; with `--repair` the next run has sound files again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.product import Product

pytestmark = pytest.mark.root

BUSYBOX = "host:/usr/bin/busybox"


def flip(path: str) -> None:
    with open(path, "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def test_what_verify_finds_damaged_stays_until_repair_and_is_fetched_anew(installation: Product) -> None:
    box = ("run", "--rm", "-q", "-t", BUSYBOX, "--", "/usr/bin/busybox")
    assert installation.ok(*box, "echo", "sound") == "sound\n"
    objects = Path(installation.instance.root, "objects")
    [program] = (path for path in objects.glob("*/*.x") if path.stat().st_size > 100_000)
    flip(str(program))
    damaged = os.open(program, os.O_RDONLY)  # or its number could be the next file's

    for _ in range(2):
        found = installation.run("store", "verify")
        assert found.returncode == 125 and str(program) in found.stdout and "verify --repair" in found.stderr
    found = installation.run("store", "verify", "--repair")
    assert found.returncode == 125 and "were taken out of use" in found.stderr
    assert not program.exists()
    assert installation.json("store", "verify")["damaged"] == []

    assert installation.ok(*box, "echo", "again") == "again\n"
    assert installation.json("store", "verify")["damaged"] == []
    assert os.stat(program).st_ino != os.fstat(damaged).st_ino
    os.close(damaged)


def test_a_running_guest_keeps_what_it_has_and_new_ones_get_sound_files(installation: Product) -> None:
    run = ("run", "-d", "-q", "-t", BUSYBOX)
    installation.ok(*run, "--name", "before", "--", "/usr/bin/busybox", "sleep", "1000")
    installation.ok("run", "--rm", "-q", "-t", BUSYBOX, "--", "/usr/bin/busybox", "true")
    tree = installation.json("inspect", "before")[0]["bundle"]["rootfs"]["lowers"][-1]
    os.chmod(f"{tree}/usr/bin", 0o777)
    assert installation.run("store", "verify", "--repair").returncode == 125
    assert installation.ok("exec", "before", "--", "/usr/bin/busybox", "echo", "lives") == "lives\n"
    installation.ok(*run, "--name", "after", "--", "/usr/bin/busybox", "sleep", "1000")
    assert os.stat(f"{tree}/usr/bin").st_mode & 0o777 == 0o755
    assert installation.json("store", "verify")["damaged"] == []
    installation.ok("rm", "-f", "before", "after")
    installation.ok("store", "gc")
    assert [name for name in os.listdir(f"{installation.instance.root}/trees") if not name.isalnum()] == []
