"""A guest's control groups, when nobody but this daemon can end it any more."""

from __future__ import annotations

import logging

from swiftlet.linux import cgroup

log = logging.getLogger("swiftlet.guests")


def end_groups(groups: dict[str, str]) -> dict[str, int]:
    """Kill every process of these control groups and remove them; returns what they had used. Never raises."""
    usage: dict[str, int] = {}
    if not groups:
        return usage
    try:
        cgroup.kill_all(groups)
        usage = cgroup.usage(groups)
        cgroup.remove(groups)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s", error)
    return {name: value for name, value in usage.items() if name.startswith("cpu") or name.endswith("peak_bytes")}
