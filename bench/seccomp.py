"""The system call filter of a default swiftlet container: as the launcher loads it, and as an OCI runtime takes it."""

from __future__ import annotations

from swiftlet.guest import seccomp_profile
from swiftlet.linux import capability


def default(folder: str) -> tuple[list[str], str]:
    """The allowed system calls by name, and a file below `folder` with the same profile compiled.

    Calls that swiftlet allows with some arguments only are allowed whole in the list, which makes the peers'
    programs a little shorter.
    """
    kept = frozenset(capability.DEFAULT)
    names = " ".join(seccomp_profile.ALLOWED.values()).split()
    names += [name for name in seccomp_profile.CONDITIONAL if name != "clone3"]
    for needed, more in seccomp_profile.BY_CAPABILITY.items():
        if capability.NUMBERS[needed] in kept:
            names += more.split()
    return sorted(set(names)), seccomp_profile.program_file(kept, folder)
