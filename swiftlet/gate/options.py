"""Which kernel options a check's feature usually needs: what to look at first where the check fails in a guest.

Each line says where the kernel decides it (paths of Linux 6.1; the files are the same in later ones). A container has
its host's kernel: there a failing check more often means a right, a limit or a device that the guest was not given.
"""

from __future__ import annotations

from collections.abc import Mapping

_TMP = ("CONFIG_TMPFS", "CONFIG_OVERLAY_FS", "CONFIG_EXT4_FS")
"""What a folder that can be written is on: fs/Kconfig, fs/overlayfs/Kconfig, fs/ext4/Kconfig."""

_THREADS = ("CONFIG_FUTEX",)
"""kernel/futex, init/Kconfig: every lock of the C library waits there."""

_CLOCKS = ("CONFIG_KVM_GUEST", "CONFIG_PARAVIRT_CLOCK", "CONFIG_HPET_TIMER", "CONFIG_X86_PM_TIMER")
"""What tells the time where the processor's own counter is not trusted: arch/x86/kernel/kvmclock.c, arch/x86/Kconfig,
drivers/acpi/Kconfig. With none of them the kernel counts ticks; and the machine must have what the option is for."""

NEEDS: Mapping[str, tuple[str, ...]] = {
    "algorithms.max_flow": (),  # arithmetic alone
    "algorithms.elimination": (),  # SSE2, which every x86-64 kernel saves
    "algorithms.simplex": (),
    "ipc.pipe": (),  # fs/pipe.c is always there
    "ipc.unix_socket": ("CONFIG_UNIX",),  # net/unix/Kconfig
    "ipc.shared_memory": ("CONFIG_FUTEX", "CONFIG_SHMEM"),  # kernel/futex; mm/shmem.c keeps what processes share
    "files.create": _TMP,
    "files.rename": _TMP,
    "files.link": _TMP,
    "files.symlink": _TMP,
    "files.unlink_open": _TMP,
    "files.truncate": _TMP,
    "files.sparse": _TMP,
    "files.directories": _TMP,
    "files.statfs": _TMP,
    "files.times": _TMP,
    "files.temporary": (*_TMP, "CONFIG_PROC_FS"),  # fs/namei.c do_tmpfile; linkat from /proc/self/fd
    "files.mmap": ("CONFIG_MMU", "CONFIG_SHMEM"),  # mm/filemap.c, mm/shmem.c
    "files.flock": ("CONFIG_FILE_LOCKING",),  # kernel/sys_ni.c: flock; fs/locks.c, fs/Kconfig
    "files.fcntl_lock": ("CONFIG_FILE_LOCKING",),  # fs/fcntl.c calls fs/locks.c, include/linux/filelock.h without it
    "files.permissions": ("CONFIG_MULTIUSER",),  # kernel/sys_ni.c: setresuid and its like; init/Kconfig
    "files.xattr": ("CONFIG_TMPFS_XATTR", "CONFIG_EXT4_FS"),  # fs/Kconfig; ext4 always has them
    "files.inotify": ("CONFIG_INOTIFY_USER",),  # kernel/sys_ni.c; fs/notify/inotify/Kconfig
    "files.sendfile": (),  # fs/read_write.c, fs/splice.c are always there
    "files.splice": (),
    "files.memfd": ("CONFIG_MEMFD_CREATE", "CONFIG_TMPFS"),  # kernel/sys_ni.c; fs/Kconfig: with tmpfs or hugetlbfs
    "files.aio": ("CONFIG_AIO",),  # kernel/sys_ni.c: io_setup; fs/aio.c, init/Kconfig
    "signals.handler": (),  # kernel/signal.c is always there
    "signals.interrupt": (),
    "signals.mask": (),
    "signals.queue": (),
    "signals.stack": (),
    "signals.child": (),  # kernel/exit.c
    "signals.timer": ("CONFIG_POSIX_TIMERS",),  # kernel/time/posix-stubs.c: setitimer, alarm
    "threads.create": _THREADS,
    "threads.mutex": _THREADS,
    "threads.condition": _THREADS,
    "threads.futex": _THREADS,  # kernel/sys_ni.c: futex
    "threads.local": _THREADS,
    "threads.robust": _THREADS,  # kernel/futex/syscalls.c: set_robust_list
    "threads.scheduling": ("CONFIG_SMP", "CONFIG_SYSFS"),  # kernel/sched/core.c; processors are counted in /sys
    "timers.sleep": ("CONFIG_HIGH_RES_TIMERS", *_CLOCKS),  # kernel/time/Kconfig: without it all waiting is in ticks
    "timers.timerfd": ("CONFIG_TIMERFD",),  # kernel/sys_ni.c; init/Kconfig
    "timers.posix": ("CONFIG_POSIX_TIMERS",),  # kernel/time/posix-stubs.c: timer_create
    "timers.monotonic": _CLOCKS,
    "timers.realtime": ("CONFIG_KVM_GUEST", "CONFIG_PARAVIRT_CLOCK", "CONFIG_RTC_CLASS"),  # read_persistent_clock64
    "timers.cpu": ("CONFIG_POSIX_TIMERS",),  # kernel/time/posix-cpu-timers.c, left out by posix-stubs.c
    "memory.map": ("CONFIG_MMU",),  # mm/mmap.c
    "memory.protect": ("CONFIG_MMU",),  # kernel/sys_ni.c: mprotect; mm/mprotect.c
    "memory.execute": ("CONFIG_MMU",),  # refused by some security modules: PROT_EXEC on what was written
    "memory.large": ("CONFIG_MMU",),  # or the guest has little memory
    "memory.copy_on_write": ("CONFIG_MMU",),  # mm/memory.c
    "memory.remap": ("CONFIG_MMU",),  # kernel/sys_ni.c: mremap
    "memory.advise": ("CONFIG_ADVISE_SYSCALLS",),  # kernel/sys_ni.c: madvise; init/Kconfig
    "memory.lock": ("CONFIG_MMU",),  # kernel/sys_ni.c: mlock; RLIMIT_MEMLOCK
    "sockets.tcp": ("CONFIG_NET", "CONFIG_INET"),  # net/Kconfig; and the loopback interface must be up
    "sockets.udp": ("CONFIG_NET", "CONFIG_INET"),
    "sockets.unix_stream": ("CONFIG_NET", "CONFIG_UNIX"),  # net/unix/Kconfig
    "sockets.unix_datagram": ("CONFIG_NET", "CONFIG_UNIX"),
    "sockets.descriptors": ("CONFIG_NET", "CONFIG_UNIX"),  # net/unix/scm.c
    "events.epoll": ("CONFIG_EPOLL",),  # kernel/sys_ni.c; init/Kconfig
    "events.eventfd": ("CONFIG_EVENTFD",),  # kernel/sys_ni.c; init/Kconfig
    "events.signalfd": ("CONFIG_SIGNALFD",),  # kernel/sys_ni.c; init/Kconfig
    "events.poll": (),  # fs/select.c is always there
    "events.select": (),
    "processes.fork": (),  # kernel/fork.c; a limit of processes
    "processes.exec": ("CONFIG_BINFMT_ELF",),  # fs/Kconfig.binfmt
    "processes.script": ("CONFIG_BINFMT_SCRIPT",),  # fs/Kconfig.binfmt
    "processes.spawn": ("CONFIG_BINFMT_ELF",),
    "processes.session": ("CONFIG_TTY",),  # kernel/sys.c; /dev/tty is drivers/tty/tty_io.c
    "processes.terminal": ("CONFIG_TTY", "CONFIG_UNIX98_PTYS"),  # drivers/tty/Kconfig; devpts at /dev/pts
    "processes.limits": (),  # kernel/sys.c
    "processes.prctl": (),  # kernel/sys.c
    "processes.identity": ("CONFIG_MULTIUSER",),  # kernel/sys_ni.c: setuid and its like; init/Kconfig
    "processes.pidfd": (),  # kernel/pid.c, kernel/signal.c; Linux 5.3
    "system.names": (),  # kernel/sys.c; a host name that was never set is (none)
    "system.random": ("CONFIG_HW_RANDOM_VIRTIO", "CONFIG_RANDOM_TRUST_CPU"),  # drivers/char/random.c: its first seed
    "system.proc": ("CONFIG_PROC_FS",),  # fs/proc/Kconfig; mounted at /proc
    "system.meminfo": ("CONFIG_PROC_FS",),  # fs/proc/meminfo.c
    "system.sysctl": ("CONFIG_PROC_FS", "CONFIG_PROC_SYSCTL"),  # fs/proc/Kconfig
    "system.devices": ("CONFIG_DEVTMPFS", "CONFIG_UNIX98_PTYS"),  # drivers/base/Kconfig, unless made by mknod
    "system.tmp": _TMP,
    "system.shm": ("CONFIG_TMPFS", "CONFIG_SHMEM"),  # a tmpfs at /dev/shm
    "system.sysfs": ("CONFIG_SYSFS",),  # fs/sysfs/Kconfig; mounted at /sys
    "web.page": ("CONFIG_NET", "CONFIG_INET", "CONFIG_NETDEVICES", "CONFIG_VIRTIO_NET"),  # net/, drivers/net/Kconfig
}
"""Check -> the options without which its feature is not there, the likeliest first."""
