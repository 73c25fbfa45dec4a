"""The pure half of mounts: which ones a launcher can do without."""

from __future__ import annotations

from swiftlet.linux.mount import mount_points, superfluous

TEXT = r"""21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
23 21 0:21 / /data\040dir rw - tmpfs x rw
24 21 0:22 / /sys/fs/cgroup rw - tmpfs x rw
25 24 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
26 21 0:24 / /var rw - ext4 /dev/vdb rw
27 26 0:25 / /var/lib/swiftlet/disk rw - ext4 /dev/vdc rw
28 21 0:26 / /home rw - ext4 /dev/vdd rw
"""


def test_escaped_mount_points_are_read() -> None:
    assert "/data dir" in mount_points(TEXT)


def test_what_is_needed_stays_with_all_above_and_below_it() -> None:
    gone = superfluous(mount_points(TEXT), ["/var/lib/swiftlet", "/proc", "/sys/fs/cgroup"])
    assert gone == ["/data dir", "/home"]


def test_the_deepest_goes_first() -> None:
    assert superfluous(["/a", "/a/b", "/a/b/c"], []) == ["/a/b/c", "/a/b", "/a"]


def test_a_path_that_only_begins_alike_is_no_reason_to_stay() -> None:
    assert superfluous(["/var/lib/swift"], ["/var/lib/swiftlet"]) == ["/var/lib/swift"]
