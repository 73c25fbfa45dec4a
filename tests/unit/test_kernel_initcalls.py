"""What a kernel's parts take when it starts, read from a console as Linux 6.1 writes it."""

from __future__ import annotations

from swiftlet.image.kernel import initcalls

CONSOLE = """\
[    0.020000] calling  init_hw_perf_events+0x0/0x5d4 @ 1
[    0.024000] initcall init_hw_perf_events+0x0/0x5d4 returned 0 after 4000 usecs
[    0.456789] initcall virtio_net_driver_init+0x0/0xb4 returned 0 after 713 usecs
[    0.460000] initcall acpi_hed_driver_init+0x0/0x2e returned -19 after 0 usecs
[    0.460100] initcall init+0x0/0x10 returned 0 after 20 usecs
[    0.460200] initcall init+0x0/0x20 returned 0 after 30 usecs
"""

SYSTEM_MAP = """\
ffffffff81f10000 t init_hw_perf_events
ffffffff81f20000 t init
ffffffff81f30000 t init
ffffffff81f40000 d virtio_net_driver_init
"""


def test_each_initcall_is_found_with_its_time() -> None:
    assert initcalls.read_console(CONSOLE) == {
        "init_hw_perf_events": 4.0, "virtio_net_driver_init": 0.713, "init": 0.05
    }  # fmt: skip


def test_a_name_that_two_functions_have_is_nobodys() -> None:
    found = initcalls.addresses_of(("init_hw_perf_events", "init", "virtio_net_driver_init"), SYSTEM_MAP)
    assert found == {0xFFFFFFFF81F10000: "init_hw_perf_events"}


def test_an_option_costs_what_would_not_be_there_without_it() -> None:
    milliseconds = {"drivers/net/virtio_net.o": 0.7, "net/core/dev.o": 2.0, "init/main.o": 9.0}
    needs = {
        "drivers/net/virtio_net.o": (("CONFIG_NET",), ("CONFIG_VIRTIO_NET",)),
        "net/core/dev.o": (("CONFIG_NET",),),
        "init/main.o": (),
    }
    values = {"CONFIG_NET": "y", "CONFIG_VIRTIO_NET": "y"}
    assert initcalls.cost_of("CONFIG_NET", milliseconds, needs, values) == 2.7
    assert initcalls.cost_of("CONFIG_VIRTIO_NET", milliseconds, needs, values) == 0.7
    assert initcalls.cost_of("CONFIG_OTHER", milliseconds, needs, values) is None
