"""The descriptor of a virtual machine in an OVA: OVF 1.0 (DMTF DSP0243), as VirtualBox and VMware read it. Pure."""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

_STREAM = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2"

_PROCESSORS, _MEMORY, _SATA, _DISK, _CARD = 3, 4, 20, 17, 10
"""Kinds of hardware (CIM_ResourceAllocationSettingData.ResourceType)."""


Members = dict[str, int | str]


class Appliance(NamedTuple):
    """memory, capacity: bytes, the latter of the disk as its guest sees it. disk: the name of the file beside."""

    name: str
    about: str
    memory: int
    processors: int
    disk: str
    disk_bytes: int
    capacity: int
    efi: bool


def descriptor(appliance: Appliance) -> str:
    """The text of NAME.ovf."""
    name = escape(appliance.name)
    items = "".join(_item(number, *each) for number, each in enumerate(_hardware(appliance), 1))
    firmware = '\n      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>' if appliance.efi else ""
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1" \
xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="{_CIM}/CIM_ResourceAllocationSettingData" \
xmlns:vssd="{_CIM}/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file" ovf:href={quoteattr(appliance.disk)} ovf:size="{appliance.disk_bytes}"/>
  </References>
  <DiskSection>
    <Info>The disk: firmware starts it, and it holds everything.</Info>
    <Disk ovf:diskId="disk" ovf:fileRef="file" ovf:capacity="{appliance.capacity}" ovf:format="{_STREAM}"/>
  </DiskSection>
  <NetworkSection>
    <Info>A network that tells addresses by DHCP.</Info>
    <Network ovf:name="network"><Description>any with DHCP</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id={quoteattr(appliance.name)}>
    <Info>{escape(appliance.about)}</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="101">
      <Info>Linux, 64 bits.</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>What the workload asked for.</Info>
      <System>
        <vssd:ElementName>hardware</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>
      </System>
{items.rstrip()}{firmware}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""


def _hardware(appliance: Appliance) -> list[tuple[int, str, Members]]:
    """Kind, name and further members of each piece; the disk names its controller by its place in this list."""
    return [
        (_PROCESSORS, f"{appliance.processors} processors", {"VirtualQuantity": appliance.processors}),
        (_MEMORY, "memory", {"AllocationUnits": "byte * 2^20", "VirtualQuantity": appliance.memory >> 20}),
        (_SATA, "disks", {"Address": 0, "ResourceSubType": "AHCI"}),
        (_DISK, "disk", {"AddressOnParent": 0, "HostResource": "ovf:/disk/disk", "Parent": 3}),
        (_CARD, "network card", {"Connection": "network", "ResourceSubType": "E1000"}),
    ]


def _item(number: int, kind: int, name: str, members: Members) -> str:
    """A piece of hardware; its members stand in the order of their names, as the schema wants them."""
    all_members: dict[str, int | str] = {"ElementName": name, "InstanceID": number, "ResourceType": kind, **members}
    if kind == _CARD:
        all_members["AutomaticAllocation"] = "true"
    lines = "".join(
        f"        <rasd:{key}>{escape(str(all_members[key]))}</rasd:{key}>\n" for key in sorted(all_members)
    )
    return f"      <Item>\n{lines}      </Item>\n"
