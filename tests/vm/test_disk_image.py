"""`swiftlet image build`: what it makes starts under real firmware, with the disks and cards of other hosts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.image.disk import grub
from swiftlet.image.kernel import configuration, profile
from tests.product import Product, eventually, unmount
from tests.vm.booting import OVMF, Machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.skipif(
        not os.path.isdir(grub.FOLDER) or not os.path.isdir(OVMF) or shutil.which("qemu-img") is None,
        reason="no programs for disk images: ./dev test installs them",
    ),
]

BUSYBOX = "host:/usr/bin/busybox"
SERVE = ("busybox", "sh", "-c", "busybox httpd -f -p 8080 -h /etc")


def _installed(folder: Path) -> Iterator[Product]:
    made = Product(str(folder))
    os.mkdir(made.instance.root, 0o711)
    yield made
    made.close()
    assert made.leftovers() == []


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Product]:
    """A product of the test's own."""
    yield from _installed(tmp_path / "root")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for images."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def server(product: Product, made: Path) -> str:
    """A web server's image in every format, without the ending."""
    path = str(made / "server")
    arguments = ["-t", BUSYBOX, "-o", path, "--format", "raw,qcow2,vhd,ova", "--hostname", "server", "--", *SERVE]
    product.ok("image", "build", *arguments)
    return path


# Starting


@pytest.mark.slow
@pytest.mark.parametrize("firmware", ["bios", "efi"])
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_it_starts_under_both_kinds_of_firmware_on_both_kinds_of_machine(
    server: str, tmp_path: Path, machine: str, firmware: str
) -> None:
    with Machine(f"{server}.raw", str(tmp_path), machine=machine, firmware=firmware) as started:
        text, seconds = started.answer("/hostname")
    print(f"{machine} {firmware}: {seconds:.1f} s")
    assert text == "server\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "disk", "card"),
    [
        ("q35", "ahci", "e1000e"),
        ("pc", "ide", "e1000"),
        ("q35", "scsi", "vmxnet3"),
        ("q35", "pvscsi", "vmxnet3"),
        ("q35", "lsi", "e1000"),
    ],
)
def test_it_finds_other_hosts_disks_and_cards(server: str, tmp_path: Path, machine: str, disk: str, card: str) -> None:
    with Machine(f"{server}.raw", str(tmp_path), machine=machine, disk=disk, card=card) as started:
        text, seconds = started.answer("/hostname")
    print(f"{machine} {disk} {card}: {seconds:.1f} s")
    assert text == "server\n"


@pytest.mark.slow
def test_it_finds_an_nvme_disk_from_efi(server: str, tmp_path: Path) -> None:
    with Machine(f"{server}.raw", str(tmp_path), firmware="efi", disk="nvme") as started:
        assert started.answer("/hostname")[0] == "server\n"


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "format_"), [("qcow2", "qcow2"), ("vhd", "vpc")])
def test_the_other_formats_start_as_well(server: str, tmp_path: Path, ending: str, format_: str) -> None:
    with Machine(f"{server}.{ending}", str(tmp_path), format_=format_) as started:
        assert started.answer("/hostname")[0] == "server\n"


@pytest.mark.slow
def test_an_appliances_disk_is_what_its_descriptor_and_digests_say_and_starts(server: str, tmp_path: Path) -> None:
    with tarfile.open(f"{server}.ova") as archive:
        assert archive.getnames() == ["server.ovf", "server.mf", "server.vmdk"]
        archive.extractall(tmp_path)
    for line in (tmp_path / "server.mf").read_text().splitlines():
        name, digest = line.removeprefix("SHA256(").split(")= ")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    text = (tmp_path / "server.ovf").read_text()
    assert f'ovf:size="{(tmp_path / "server.vmdk").stat().st_size}"' in text
    assert f'ovf:capacity="{os.stat(f"{server}.raw").st_size}"' in text
    with Machine(str(tmp_path / "server.vmdk"), str(tmp_path), format_="vmdk", disk="ahci", card="e1000") as started:
        assert started.answer("/hostname")[0] == "server\n"


@pytest.mark.slow
def test_an_image_for_a_bios_alone_starts(product: Product, made: Path, tmp_path: Path) -> None:
    path = str(made / "bios.raw")
    product.ok("image", "build", "-t", BUSYBOX, "-o", path, "--firmware", "bios", "--", *SERVE)
    with Machine(path, str(tmp_path), machine="pc", disk="ide", card="e1000") as started:
        assert started.answer("/hostname")[0] == "swiftlet\n"


# Running and ending


@pytest.mark.slow
def test_output_goes_to_the_console_and_the_end_switches_off(product: Product, made: Path, tmp_path: Path) -> None:
    path = str(made / "short.raw")
    script = "echo out; echo err >&2; cat /etc/resolv.conf; id -u; exit 3"
    product.ok("image", "build", "-t", BUSYBOX, "-o", path, "-u", "33", "--", "busybox", "sh", "-c", script)
    with Machine(path, str(tmp_path)) as started:
        started.wait()
        assert "\nout\n" in started.console
        assert "\nerr\n" in started.console
        assert "nameserver 10.0.2.3" in started.console
        assert "\n33\n" in started.console
        assert "exited 3" in started.console


@pytest.mark.slow
def test_a_compressed_root_takes_less_and_is_read_as_well(product: Product, made: Path, tmp_path: Path) -> None:
    script = "busybox sha256sum /usr/bin/busybox"
    taken = []
    for name, options in (("plain", ()), ("compressed", ("--compress",))):
        words = (
            "-t",
            BUSYBOX,
            "-o",
            str(made / f"{name}.raw"),
            *options,
            "--json",
            "--",
            "busybox",
            "sh",
            "-c",
            script,
        )
        taken.append(json.loads(product.ok("image", "build", *words))[0]["disk_bytes"])
    assert taken[1] < taken[0] - 500_000
    with Machine(str(made / "compressed.raw"), str(tmp_path)) as started:
        started.wait()
        assert hashlib.sha256(Path("/usr/bin/busybox").read_bytes()).hexdigest() in started.console


@pytest.mark.slow
def test_a_machine_that_is_to_stay_does(product: Product, made: Path, tmp_path: Path) -> None:
    path = str(made / "stay.raw")
    product.ok("image", "build", "-t", BUSYBOX, "-o", path, "--at-end", "stay", "--", "busybox", "echo", "done")
    with Machine(path, str(tmp_path)) as started:
        started.wait_for("System halted")
        with pytest.raises(subprocess.TimeoutExpired):
            started.process.wait(2)


@pytest.mark.slow
def test_without_a_serial_port_output_is_on_the_screen(product: Product, made: Path, tmp_path: Path) -> None:
    path = str(made / "screen.raw")
    product.ok("image", "build", "-t", BUSYBOX, "-o", path, "--at-end", "stay", "--", "busybox", "echo", "seen")
    with Machine(path, str(tmp_path), serial=False) as started:
        eventually(lambda: "System halted" in started.screen(), 60)
        assert "\nseen\n" in started.screen()


@pytest.mark.slow
def test_the_power_button_is_the_workloads_stop_signal(product: Product, made: Path, tmp_path: Path) -> None:
    path = str(made / "button.raw")
    script = "trap 'echo bye; exit 0' HUP; echo up; while true; do sleep 0.2; done"
    arguments = ["-o", path, "--stop-signal", "HUP", "--", "busybox", "sh", "-c", script]
    product.ok("image", "build", "-t", BUSYBOX, *arguments)
    with Machine(path, str(tmp_path)) as started:
        started.wait_for("up\n")
        started.press_power()
        started.wait()
        assert "bye" in started.console


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["virtio", "ahci"])
def test_what_is_written_stays_where_a_size_was_asked_for(
    product: Product, made: Path, tmp_path: Path, disk: str
) -> None:
    path = str(made / f"kept-{disk}.raw")
    arguments = [
        "-o",
        path,
        "--size",
        "96M",
        "--",
        "busybox",
        "sh",
        "-c",
        "echo x >>/var/n; echo lines $(wc -l </var/n)",
    ]
    product.ok("image", "build", "-t", BUSYBOX, *arguments)
    for count in (1, 2):
        with Machine(path, str(tmp_path), disk=disk, keep=True) as started:
            started.wait()
            assert f"lines {count}\n" in started.console


# What is asked wrongly, or cannot be had


def give_kernel(product: Product, size: int = 6) -> None:
    """Put what looks like a kernel for disks into a product's cache."""
    folder = f"{product.instance.root}/cache/kernels/{'d' * 64}"
    os.makedirs(folder)
    Path(folder, "bzImage").write_bytes(os.urandom(size))
    requests = profile.requests_of(profile.profile_named("disk")).values()
    Path(folder, "config").write_text(configuration.render(requests))
    said = {"version": "6.1", "bytes": 6, "seconds": 1.0, "source": "s", "steps": 1}
    Path(folder, "kernel.json").write_text(json.dumps(said))


@pytest.fixture
def with_any_kernel(installation: Product) -> Product:
    """The product with what looks like a kernel for disks: for all that needs none to start."""
    give_kernel(installation)
    return installation


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--format", "vdi"), "--format: there is no 'vdi'"),
        (("--firmware", "coreboot"), "--firmware: there is no 'coreboot'"),
        (("--at-end", "explode"), "--at-end: there is no 'explode'"),
        (("--size", "1M"), "--size: 1048576 bytes are too few"),
        (("--kernel", "ffff"), "no kernel ffff"),
        (("--kernel", "server"), "no kernel of profile server is built"),
        (("-o", "/nowhere/x"), "/nowhere is no folder"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_line_with_a_hint(
    with_any_kernel: Product, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    output = () if "-o" in arguments else ("-o", str(tmp_path / "x"))
    done = with_any_kernel.run("image", "build", "-t", BUSYBOX, *output, *arguments, "--", "busybox")
    lines = done.stderr.splitlines()
    assert done.returncode == 125, done.stderr
    assert told in lines[-2]
    assert lines[-1].startswith("  hint: ")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("x", "."))]


def test_a_workload_without_a_command_is_told_what_to_add(with_any_kernel: Product, tmp_path: Path) -> None:
    template = tmp_path / "t.yaml"
    template.write_text("name: t\nversion: 1\nfiles: {busybox: /usr/bin/busybox}\n")
    done = with_any_kernel.run("image", "build", "-t", str(template), "-o", str(tmp_path / "x"))
    assert "no command was given and" in done.stderr
    assert "hint: add one behind `--`" in done.stderr


def test_without_a_kernel_for_disks_it_is_said_how_to_get_one(installation: Product) -> None:
    done = installation.run("image", "build", "-t", BUSYBOX, "--", "busybox")
    assert "no kernel that starts from a disk" in done.stderr
    assert "hint: `swiftlet kernel build --profile disk`" in done.stderr


def test_a_volume_of_a_workload_file_cannot_go_along(with_any_kernel: Product, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(f"templates: ['{BUSYBOX}']\ncommand: [busybox]\nvolumes: ['{tmp_path}:/data']\n")
    done = with_any_kernel.run("image", "build", "-f", str(file), "-o", str(tmp_path / "x"))
    assert f"$.volumes: {tmp_path} is a place of this host" in done.stderr


@pytest.mark.parametrize("full", ["the output's disk", "the store's disk"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, full: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=711", "tmpfs", str(small)], check=True)
    root = small / "root" if full == "the store's disk" else tmp_path / "root"
    product = Product(str(root))
    try:
        os.mkdir(root, 0o711)
        give_kernel(product, 8 << 20 if root.parent == tmp_path else 1 << 20)
        output = tmp_path / "x" if full == "the store's disk" else small / "x"
        done = product.run("image", "build", "-t", BUSYBOX, "-o", str(output), "--", "busybox")
        assert "no room" in done.stderr or "no space left" in done.stderr.lower(), done.stderr
        assert "hint: " in done.stderr
        assert not [name for name in os.listdir(output.parent) if "x" in name.split(".")]
        assert not [name for name in os.listdir(product.instance.root + "/tmp") if name.startswith("session-")]
        subprocess.run(["mount", "-o", "remount,size=500m", str(small)], check=True)
        product.ok("image", "build", "-t", BUSYBOX, "-o", str(output), "--", "busybox")
        assert os.path.exists(f"{output}.raw")
    finally:
        product.close()
        unmount(small)


@pytest.mark.parametrize("delay", [0.3, 0.6, 1.2])
def test_who_breaks_off_leaves_nothing_behind(with_any_kernel: Product, tmp_path: Path, delay: float) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with_any_kernel.ok("ps")
    arguments = ("-o", str(folder / "x"), "--format", "raw,qcow2,vhd,ova", "--", "busybox")
    process = with_any_kernel.spawn("image", "build", "-t", BUSYBOX, *arguments)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    temporary = f"{with_any_kernel.instance.root}/tmp"
    eventually(lambda: not [name for name in os.listdir(temporary) if name.startswith("session-")])
    assert all(name.startswith("x.") for name in os.listdir(folder))


def test_a_workload_gives_the_same_disk_at_every_time(with_any_kernel: Product, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        arguments = ("-o", str(tmp_path / name), "--json", "-e", "X=1", "--size", "96M", "--", "busybox")
        digests.add(json.loads(with_any_kernel.ok("image", "build", "-t", BUSYBOX, *arguments))[0]["digest"])
    assert len(digests) == 1


def test_a_name_says_the_format_and_where(with_any_kernel: Product, tmp_path: Path) -> None:
    path = str(tmp_path / "x.qcow2")
    said = json.loads(with_any_kernel.ok("image", "build", "-t", BUSYBOX, "-o", path, "--json", "--", "busybox"))
    assert [(each["format"], each["path"]) for each in said] == [("qcow2", path)]
    assert said[0]["digest"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
