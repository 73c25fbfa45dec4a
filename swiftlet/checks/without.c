/* A kernel without some system calls, played: they fail with ENOSYS, as they do where an option leaves them out.
 *
 * This is how the checks are checked: each must fail, and name what broke, where what it is about is not there.
 */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>

#define MOST 32

/* numbers: system call numbers of x86-64, with commas. Returns 0, or -1 with errno. */
int do_without(const char *numbers)
{
    struct sock_filter program[2 * MOST + 2] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    unsigned short length = 1;
    for (const char *at = numbers; *at && length < 2 * MOST;) {
        char *end;
        unsigned number = (unsigned) strtoul(at, &end, 10);
        if (end == at) {
            errno = EINVAL;
            return -1;
        }
        program[length++] = (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        program[length++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
        at = *end ? end + 1 : end;
    }
    program[length++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {length, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}
