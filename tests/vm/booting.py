"""Starts a disk image as a stranger's host does: QEMU with its firmware, disk and card, and no word to the kernel."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

OVMF = "/usr/share/OVMF"

DISKS = {
    "virtio": ("virtio-blk-pci,drive=disk",),
    "ahci": ("ich9-ahci,id=ahci", "ide-hd,drive=disk,bus=ahci.0"),
    "ide": ("ide-hd,drive=disk",),
    "scsi": ("virtio-scsi-pci", "scsi-hd,drive=disk"),
    "pvscsi": ("pvscsi", "scsi-hd,drive=disk"),
    "lsi": ("mptsas1068", "scsi-hd,drive=disk,wwn=0x5000c50015ea71ac"),  # without a name of the world's it has no disk
    "nvme": ("nvme,drive=disk,serial=1",),
}
CARDS = {"virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e", "vmxnet3": "vmxnet3"}


class Machine:
    """A machine that runs; a context manager that ends it. `console` is what it has written to its serial port."""

    def __init__(
        self,
        image: str,
        folder: str,
        *,
        machine: str = "q35",
        firmware: str = "bios",
        disk: str = "virtio",
        card: str = "virtio",
        format_: str = "raw",
        memory: int = 256,
        guest_port: int = 8080,
        keep: bool = False,
        serial: bool = True,
    ) -> None:
        self.port = _free_port()
        self._log = f"{folder}/console"
        self._monitor = f"{folder}/monitor"
        if os.path.exists(self._log):
            os.unlink(self._log)
        words = ["qemu-system-x86_64", "-machine", machine, "-accel", "tcg", "-cpu", "max", "-m", str(memory)]
        words += ["-nodefaults", "-display", "none", "-vga", "std", "-no-reboot"]
        words += ["-serial", f"file:{self._log}" if serial else "none"]
        words += ["-monitor", f"unix:{self._monitor},server=on,wait=off"]
        if firmware == "efi":
            settings = f"{folder}/settings.fd"
            shutil.copy(f"{OVMF}/OVMF_VARS_4M.fd", settings)
            words += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"]
            words += ["-drive", f"if=pflash,format=raw,file={settings}"]
        snapshot = "off" if keep else "on"
        words += ["-drive", f"file={image},format={format_},if=none,id=disk,snapshot={snapshot}"]
        for device in DISKS[disk]:
            words += ["-device", device]
        words += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:{guest_port}"]
        words += ["-device", f"{CARDS[card]},netdev=net"]
        self._begin = time.monotonic()
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    @property
    def console(self) -> str:
        """What the machine has written, its lines ended as ours."""
        try:
            with open(self._log, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def answer(self, path: str = "/", seconds: float = 120) -> tuple[str, float]:
        """What the service says, and after how many seconds from the machine's start. Fails at the deadline."""
        end = self._begin + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=0.5) as reply:
                    return reply.read().decode(), time.monotonic() - self._begin
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        raise AssertionError(f"no answer within {seconds} s; QEMU: {self.process.poll()}; console:\n{self.console}")

    def wait_for(self, pattern: str, seconds: float = 120) -> re.Match[str]:
        """Wait until the console has it. Fails at the deadline."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, self.console):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} does not come; console:\n{self.console}")

    def press_power(self) -> None:
        """Ask for the end as a host's owner does."""
        self._command("system_powerdown")

    def screen(self) -> str:
        """What stands on the screen, or stood there before it scrolled, where it shows text as a BIOS leaves it."""
        path = f"{self._monitor}.screen"
        self._command(f'pmemsave 0xb8000 32768 "{path}"')
        with open(path, "rb") as file:
            cells = file.read()[::2].decode("latin-1")
        return "".join(f"{cells[start : start + 80].rstrip()}\n" for start in range(0, len(cells), 80))

    def _command(self, text: str) -> None:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(self._monitor)
            monitor.settimeout(2)
            monitor.sendall(f"{text}\n".encode())
            time.sleep(0.5)
            monitor.recv(65536)

    def wait(self, seconds: float = 60) -> float:
        """Wait until it has powered off by itself; seconds from its start. Fails at the deadline."""
        try:
            assert self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; console:\n{self.console}") from None
        return time.monotonic() - self._begin

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
