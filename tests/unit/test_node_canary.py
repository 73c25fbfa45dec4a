"""A /dev/kvm that lies: it is found out in time, told, and guests are emulated."""

from __future__ import annotations

import os
import signal
import time

import pytest

from swiftlet.model.instance import instance_of
from swiftlet.node import canary
from swiftlet.node.canary import Verdict
from swiftlet.node.machines import Machines
from swiftlet.store.layout import Layout

DETAILS = {
    "hangs": "opens, but a guest of 79 bytes has not run after 0 s",
    "is killed": "the canary died",
    "fails": "fails at its first exception",
}


def lie(what: str) -> str:
    if what == "hangs":
        time.sleep(60)
    if what == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return "/dev/kvm opens and a guest begins, but it fails at its first exception"


@pytest.mark.parametrize("what", DETAILS)
def test_a_kvm_that_lies_is_found_out_and_guests_are_emulated(what, monkeypatch, tmp_path):
    monkeypatch.setattr(canary, "_run", lambda path: lie(what))
    begin = time.monotonic()
    verdict = canary.try_kvm("/dev/null", 0.4)
    assert time.monotonic() - begin < 5
    assert not verdict.works and DETAILS[what] in verdict.detail
    monkeypatch.setattr(canary, "try_kvm", lambda: verdict)
    machines = Machines(Layout(instance_of({"SWIFTLET_ROOT": str(tmp_path)})))
    assert machines.accelerator == ("tcg", verdict.detail)


def test_a_device_that_is_none_is_told(tmp_path):
    assert canary.try_kvm(str(tmp_path / "kvm")) == Verdict(False, f"{tmp_path}/kvm is not there")
    refused = canary.try_kvm("/dev/null")
    assert not refused.works and "Inappropriate ioctl" in refused.detail


def test_a_kvm_that_keeps_its_word_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(canary, "_run", lambda path: "works")
    verdict = canary.try_kvm("/dev/null")
    assert verdict.works
    monkeypatch.setattr(canary, "try_kvm", lambda: verdict)
    assert Machines(Layout(instance_of({"SWIFTLET_ROOT": str(tmp_path)}))).accelerator[0] == "kvm"
