"""Which system calls a guest may make: the default profile, grouped by purpose, and what each capability adds.

In effect it is docker's default profile for 64-bit programs, with Linux 6.18's newer calls decided in its spirit. A
call that is known and not allowed fails with EPERM; a number that is not known here fails with ENOSYS, so that a
newer C library takes its older way. clone3 fails with ENOSYS too: its flags lie in memory, where a program could
change them after the check, and C libraries fall back to clone. `linux.seccomp_compiler`
compiles, `linux.seccomp` loads.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os

from swiftlet.linux.capability import NUMBERS as CAPABILITIES
from swiftlet.linux.seccomp_compiler import ALLOW, Condition, Profile, Rule, compile_profile, refuse
from swiftlet.linux.syscall_table import NUMBERS

ALLOWED: dict[str, str] = {
    "reading and writing": """read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile
        splice tee vmsplice copy_file_range readahead fadvise64 ioctl""",
    "opening and descriptors": """open openat openat2 creat close close_range dup dup2 dup3 fcntl flock pipe pipe2
        memfd_create memfd_secret name_to_handle_at""",
    "files and folders": """stat fstat lstat newfstatat statx access faccessat faccessat2 getdents getdents64 getcwd
        chdir fchdir mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat readlink readlinkat rename
        renameat renameat2 truncate ftruncate fallocate mknod mknodat statfs fstatfs umask""",
    "owners, modes, times, attributes": """chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes
        futimesat utimensat getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr
        llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat file_getattr
        file_setattr""",
    "getting data to the disk": "sync syncfs fsync fdatasync sync_file_range msync",
    "asynchronous reading and writing": """io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents""",
    "waiting for events": """poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
        epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime inotify_init
        inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark""",
    "memory": """brk mmap munmap mremap mprotect madvise mincore mlock mlock2 munlock mlockall munlockall
        remap_file_pages membarrier pkey_alloc pkey_free pkey_mprotect mseal map_shadow_stack cachestat""",
    "processes": """fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid setpgid
        getpgrp getsid setsid pidfd_open pidfd_send_signal process_mrelease prctl arch_prctl modify_ldt
        set_thread_area get_thread_area uretprobe""",
    "debugging processes of the same guest": "ptrace process_vm_readv process_vm_writev",
    "threads": """futex futex_wait futex_wake futex_waitv futex_requeue set_robust_list get_robust_list
        set_tid_address rseq getcpu""",
    "signals": """rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo
        rt_tgsigqueueinfo rt_sigreturn sigaltstack kill tkill tgkill pause restart_syscall""",
    "who one is": """getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid
        setresuid setresgid setfsuid setfsgid setgroups capget capset""",
    "time": """time gettimeofday times clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer
        timer_create timer_settime timer_gettime timer_getoverrun timer_delete adjtimex clock_adjtime""",
    "sockets": """socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt
        setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg""",
    "messages, semaphores, shared memory": """mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
        msgget msgsnd msgrcv msgctl semget semop semtimedop semctl shmget shmat shmdt shmctl""",
    "scheduling": """sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam
        sched_getscheduler sched_setscheduler sched_getattr sched_setattr sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set""",
    "limits and facts": "getrlimit setrlimit prlimit64 getrusage sysinfo uname getrandom",
    "giving up rights": """seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
        lsm_get_self_attr lsm_set_self_attr lsm_list_modules""",
}
"""Calls that are allowed with any arguments."""

BY_CAPABILITY: dict[str, str] = {
    "BPF": "bpf",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "PERFMON": "perf_event_open",
    "SYS_ADMIN": """bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount
        mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname
        setns statmount syslog umount2 unshare""",
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYSLOG": "syslog",
    "SYS_MODULE": "init_module finit_module delete_module",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "settimeofday clock_settime",
    "SYS_TTY_CONFIG": "vhangup",
}
"""Calls that a capability makes useful and that are allowed only with it."""

NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h)."""

AF_VSOCK = 40
"""Sockets to the hypervisor, which no namespace confines."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, each with UNAME26, and the question which one it is; never ADDR_NO_RANDOMIZE."""

CONDITIONAL: dict[str, tuple[Rule, ...]] = {
    "clone": (Rule(ALLOW, (Condition(0, "&", NAMESPACES),)),),
    "clone3": (Rule(refuse(errno.ENOSYS)),),
    "socket": (Rule(ALLOW, (Condition(0, "!=", AF_VSOCK),)),),
    "personality": tuple(Rule(ALLOW, (Condition(0, "==", value),)) for value in PERSONALITIES),
}
"""Calls that are allowed with some arguments; what a capability allows replaces these."""


def profile_for(capabilities: frozenset[int]) -> Profile:
    """The profile of a guest that keeps these capabilities (numbers)."""
    rules: dict[str, tuple[Rule, ...]] = dict.fromkeys(NUMBERS, ())
    rules |= CONDITIONAL
    for names in ALLOWED.values():
        rules |= dict.fromkeys(names.split(), (Rule(ALLOW),))
    for capability, names in BY_CAPABILITY.items():
        if CAPABILITIES[capability] in capabilities:
            rules |= dict.fromkeys(names.split(), (Rule(ALLOW),))
    return Profile({NUMBERS[name]: rule for name, rule in rules.items()})


@functools.cache
def program_for(capabilities: frozenset[int]) -> bytes:
    """The default profile for these capabilities, compiled. It takes a few milliseconds the first time."""
    return compile_profile(profile_for(capabilities))


def program_file(capabilities: frozenset[int], cache: str) -> str:
    """The path of a file with `program_for`'s program below `cache`, for a launcher that compiles nothing.

    Named by its content's SHA-256 and compared with it, so that a damaged file is replaced; appears whole.
    Raises OSError when it cannot be written.
    """
    program = program_for(capabilities)
    path = f"{cache}/seccomp/{hashlib.sha256(program).hexdigest()}.bpf"
    try:
        with open(path, "rb") as file:
            if file.read() == program:
                return path
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.new"
    try:
        with open(temporary, "wb") as file:
            file.write(program)
        os.rename(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    return path
