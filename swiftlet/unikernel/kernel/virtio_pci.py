"""A virtio network card on PCI. Virtio 1.1, 4.1. Interrupts are messages where the card has them, a line otherwise."""

from __future__ import annotations

from swiftlet.unikernel.kernel import apic, paging, pci
from swiftlet.unikernel.metal.words import Device, Struct, at, pause, place, text, u8, u16, u32, u64

VENDOR, MODERN, TRANSITIONAL = 0x1AF4, 0x1041, 0x1000
"""Virtio 1.1, 4.1.2 and 4.1.2.1: of network cards."""

NETWORK_CLASS = 2
"""PCI 3.0, appendix D."""

VIRTIO_CAPABILITY, MESSAGES_CAPABILITY = 0x09, 0x11
"""PCI 3.0, appendix H: vendor specific, MSI-X."""

COMMON, NOTIFY, STATUS, CONFIGURATION = 1, 2, 3, 4
"""Virtio 1.1, 4.1.4: kinds of structures."""

MESSAGES_ON, MESSAGES_MASKED = 1 << 31, 1 << 30
"""PCI 3.0, 6.8.2.3: bits of the message control, which is the upper half of the capability's first register."""

MESSAGE_ADDRESS = 0xFEE00000
"""Intel SDM 3, 11.11.1: which processor is in bits 12 to 19. The data, 11.11.2: fixed, an edge, is the vector alone."""

NO_MESSAGE = 0xFFFF
"""Virtio 1.1, 4.1.5.1.2.1: VIRTIO_MSI_NO_VECTOR."""

PATIENCE = 1 << 20
"""Turns of waiting for the card."""


class Common(Device):
    """Virtio 1.1, 4.1.4.3. What has 64 bits there is two fields: they are written half by half (4.1.3.1)."""

    device_features_select: u32
    device_features: u32
    driver_features_select: u32
    driver_features: u32
    configuration_message: u16
    queues: u16
    status: u8
    generation: u8
    queue_select: u16
    queue_size: u16
    queue_message: u16
    queue_enable: u16
    queue_notify: u16
    descriptors: u32
    descriptors_high: u32
    available: u32
    available_high: u32
    used: u32
    used_high: u32


class Interrupts(Device):
    """Virtio 1.1, 4.1.4.5: reading it tells the card that its interrupt has come."""

    status: u8


class Doorbell(Device):
    """Virtio 1.1, 4.1.4.4: a queue's number is written there."""

    queue: u16


class Address(Device):
    """Virtio 1.1, 5.1.4: the configuration of a network card, so far as it is read; fields, for no array is so wide."""

    mac_0: u8
    mac_1: u8
    mac_2: u8
    mac_3: u8
    mac_4: u8
    mac_5: u8


class Message(Device):
    """PCI 3.0, 6.8.2.6 to 6.8.2.9: an entry of the MSI-X table."""

    address: u32
    address_high: u32
    data: u32
    masked: u32


class Places(Struct):
    """Where the card's structures lie. distance: of its doorbells. messages: whether it sends them."""

    function: u64
    common: u64
    notify: u64
    distance: u64
    status: u64
    configuration: u64
    messages: u64
    heard: u64


card = place(Places)


def find() -> u64:
    """Find a card: 0, or a text that says why there is none."""
    why = text("no network card was found")
    for i in range(pci.functions.count):
        function = pci.functions.list[i]
        identity = pci.read(function, pci.IDENTITY)
        if identity == MODERN << 16 | VENDOR or identity == TRANSITIONAL << 16 | VENDOR:
            why = take(function)
            if why == 0:
                return 0
        elif pci.read(function, pci.CLASS) >> 24 == NETWORK_CLASS:
            why = text("the network card is no virtio card: give the machine a virtio-net-pci")
    return why


def take(function: u64) -> u64:
    """Find a card's structures: 0, or a text that says what is wrong."""
    card.function = function
    card.common = 0
    card.notify = 0
    card.status = 0
    card.configuration = 0
    known = 0
    at_ = pci.next_capability(function, 0)
    for _ in range(pci.LONGEST):
        if at_ == 0:
            break
        if pci.read(function, at_) & 255 == VIRTIO_CAPABILITY:
            known += 1
            structure(function, at_)
        at_ = pci.next_capability(function, at_)
    if known == 0:
        return text("the network card speaks only what was before virtio 1.0: leave out disable-modern=on")
    if card.common == 0 or card.notify == 0 or card.status == 0 or card.configuration == 0:
        return text("the network card has no addresses: nobody has set up the bridge that it is behind")
    pci.set_command(function, pci.MEMORY | pci.MASTER, 0)
    return 0


def structure(function: u64, at_: u64) -> None:
    """Note where a structure lies, the first of its kind. Virtio 1.1, 4.1.4."""
    kind = pci.read(function, at_) >> 24
    if kind == COMMON and card.common == 0:
        card.common = mapped(function, at_)
    elif kind == NOTIFY and card.notify == 0:
        card.notify = mapped(function, at_)
        card.distance = pci.read(function, at_ + 16)
    elif kind == STATUS and card.status == 0:
        card.status = mapped(function, at_)
    elif kind == CONFIGURATION and card.configuration == 0:
        card.configuration = mapped(function, at_)


def mapped(function: u64, at_: u64) -> u64:
    """Where a structure can be reached; 0 for nowhere."""
    number = pci.read(function, at_ + 4) & 255
    if number > 5:  # reserved (4.1.4.1)
        return 0
    start = pci.base(function, number)
    if start == 0:
        return 0
    start = start + pci.read(function, at_ + 8)
    paging.map_device(start, pci.read(function, at_ + 12))
    return start


def reset() -> None:
    """Virtio 1.1, 4.1.4.3.2: it has happened when the status is read as 0."""
    common = at(Common, card.common)
    common.status = 0
    for _ in range(PATIENCE):
        if common.status == 0:
            return
        pause()


def set_status(value: u64) -> None:
    """Say how far this driver is."""
    at(Common, card.common).status = value


def status() -> u64:
    """What the card says of it."""
    return at(Common, card.common).status


def accept(features: u64) -> None:
    """Say what this driver knows."""
    common = at(Common, card.common)
    common.driver_features_select = 0
    common.driver_features = features
    common.driver_features_select = 1
    common.driver_features = features >> 32


def listen() -> None:
    """Let the card interrupt this processor: by messages if it can, else by its line.

    Which line that is nobody needs to know: all of them are routed here (`apic.route_all`), to be seen when they rise.
    Reading the card's status lets it fall again.
    """
    card.messages = 0
    at_ = pci.next_capability(card.function, 0)
    for _ in range(pci.LONGEST):
        if at_ == 0 or pci.read(card.function, at_) & 255 == MESSAGES_CAPABILITY:
            break
        at_ = pci.next_capability(card.function, at_)
    if at_ and send_messages(at_):
        card.messages = 1
    else:
        pci.set_command(card.function, 0, pci.SILENT)


def send_messages(at_: u64) -> bool:
    """Make the first message an interrupt here, and let it be sent; whether it can be. PCI 3.0, 6.8.3."""
    table = pci.read(card.function, at_ + 4)
    start = pci.base(card.function, table & 7)
    if start == 0:
        return False
    start = start + (table & ~7)
    paging.map_device(start, 16)
    pci.set_command(card.function, pci.MEMORY, 0)  # which giving it a place has turned off
    message = at(Message, start)
    message.address = MESSAGE_ADDRESS | apic.identity() << 12
    message.address_high = 0
    message.data = apic.CARD_VECTOR
    message.masked = 0
    pci.write(card.function, at_, pci.read(card.function, at_) & ~MESSAGES_MASKED | MESSAGES_ON)
    at(Common, card.common).configuration_message = NO_MESSAGE
    return True


def add_queue(number: u64, size: u64, descriptors: u64, available: u64, used: u64, heard: bool) -> bool:
    """Tell the card of a queue; whether it takes it. heard: whether interrupts are wanted (4.1.5.1.3)."""
    common = at(Common, card.common)
    common.queue_select = number
    if common.queue_size < size:
        return False
    common.queue_size = size
    if card.messages:
        message = 0 if heard else NO_MESSAGE
        common.queue_message = message
        if common.queue_message != message:  # 4.1.5.1.2.1: it has no room for it
            return False
    common.descriptors = descriptors
    common.descriptors_high = descriptors >> 32
    common.available = available
    common.available_high = available >> 32
    common.used = used
    common.used_high = used >> 32
    common.queue_enable = 1
    return True


def doorbell(number: u64) -> u64:
    """Where a queue's number is to be written. Virtio 1.1, 4.1.4.4."""
    common = at(Common, card.common)
    common.queue_select = number
    return card.notify + common.queue_notify * card.distance


def ring(bell: u64, number: u64) -> None:
    """Tell the card that there is something in a queue. Virtio 1.1, 4.1.5.2."""
    at(Doorbell, bell).queue = number


def acknowledge() -> None:
    """Tell the card that its interrupt has come. A message needs no answer."""
    if card.messages == 0:
        pending = at(Interrupts, card.status)
        card.heard = pending.status


def mac() -> u64:
    """Its address as a number, the first byte lowest."""
    told = at(Address, card.configuration)
    low = told.mac_0 | told.mac_1 << 8 | told.mac_2 << 16 | told.mac_3 << 24
    return low | told.mac_4 << 32 | told.mac_5 << 40
