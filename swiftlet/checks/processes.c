/* Processes: made, replaced by programs, ended, grouped, limited, with terminals and with other rights. */
#include "check.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ANOTHER 1234
#define EXECUTED 42    /* what `guest-check executed A B` ends with */
#define INTERPRETED 43 /* and `guest-check executed ./script` */

extern char **environ;

static int code_of(pid_t child)
{
    int status;
    MUST(waitpid(child, &status, 0));
    if (result_told())
        _exit(1);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void forked(void)
{
    pid_t children[50];
    for (int number = 0; number < 50; number++)
        if ((children[number] = fork_or_break()) == 0)
            _exit(number);
    for (int number = 0; number < 50; number++) {
        int code = code_of(children[number]);
        HOLDS(code == number, "child %d ended with %d", number, code);
    }
    REFUSED(waitpid(-1, NULL, 0), ECHILD);
}

static void executed(void)
{
    char *words[] = {(char *) own_path, "executed", "A", "B", NULL};
    pid_t child = fork_or_break();
    if (child == 0) {
        execve(own_path, words, environ);
        broke("execve of %s: %s", own_path, strerror(errno));
    }
    int code = code_of(child);
    HOLDS(code == EXECUTED, "an executed program ended with %d and not %d", code, EXECUTED);
    REFUSED(execve("/is/not/there", words, environ), ENOENT);
}

static void scripts(void)
{
    char text[512];
    char *words[] = {"./script", NULL};
    scratch();
    int length = snprintf(text, sizeof text, "#!%s executed\n", own_path);
    HOLDS(length < 250, "the path %s is too long for a script", own_path);
    write_file("script", text);
    MUST(chmod("script", 0755));
    pid_t child = fork_or_break();
    if (child == 0) {
        execve("./script", words, environ);
        broke("execve of a script: %s", strerror(errno));
    }
    int code = code_of(child);
    HOLDS(code == INTERPRETED, "a script's interpreter ended with %d and not %d", code, INTERPRETED);
}

static void spawned(void)
{
    pid_t child;
    char *words[] = {(char *) own_path, "executed", "A", "B", NULL};
    ZERO(posix_spawn(&child, own_path, NULL, NULL, words, environ));
    int code = code_of(child);
    HOLDS(code == EXECUTED, "a spawned program ended with %d", code);
}

static void sessions(void)
{
    pid_t child = fork_or_break();
    if (child == 0) {
        pid_t own = MUST(setsid());
        HOLDS(own == getpid() && getsid(0) == own && getpgrp() == own, "a new session has another's number");
        REFUSED(setsid(), EPERM);
        REFUSED(open("/dev/tty", O_RDWR), ENXIO);
        pid_t member = fork_or_break();
        if (member == 0) {
            MUST(setpgid(0, 0));
            for (;;)
                pause();
        }
        while (getpgid(member) != member)
            sched_yield();
        MUST(kill(-member, SIGKILL));
        HOLDS(code_of(member) == -SIGKILL, "a signal to a group did not end its process");
        _exit(0);
    }
    end_well(child);
}

/* A child with a terminal of its own: keys arrive, its size can be set, Ctrl-C is a signal. */
static void terminals(void)
{
    char text[64] = "", name[64];
    struct winsize size = {.ws_row = 33, .ws_col = 99}, found = {0};
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    HOLDS(master >= 0, "a terminal cannot be made: /dev/ptmx: %s", strerror(errno));
    HOLDS(grantpt(master) == 0 && unlockpt(master) == 0, "unlockpt: %s", strerror(errno));
    ZERO(ptsname_r(master, name, sizeof name));
    pid_t child = fork_or_break();
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        MUST(setsid());
        int slave = open(name, O_RDWR);
        HOLDS(slave >= 0, "the terminal %s cannot be opened: %s", name, strerror(errno));
        MUST(ioctl(slave, TIOCSCTTY, 0));
        HOLDS(isatty(slave), "%s is no terminal", name);
        HOLDS(MUST(read(slave, text, sizeof text)) == 5 && !memcmp(text, "keys\n", 5), "typed keys came as %s", text);
        MUST(write(slave, "done\n", 5));
        for (;;)
            pause();
    }
    MUST(ioctl(master, TIOCSWINSZ, &size));
    MUST(ioctl(master, TIOCGWINSZ, &found));
    HOLDS(found.ws_row == 33 && found.ws_col == 99, "a terminal's size was set and is another");
    MUST(write(master, "keys\n", 5));
    for (size_t done = 0; !strstr(text, "done\r\n"); ) {
        struct pollfd waiting = {master, POLLIN, 0};
        HOLDS(MUST(poll(&waiting, 1, 5000)) == 1 && done < sizeof text - 1, "the terminal shows %s", text);
        done += (size_t) MUST(read(master, text + done, sizeof text - 1 - done));
    }
    HOLDS(!strncmp(text, "keys\r\n", 6), "a terminal does not echo what is typed: %s", text);
    MUST(write(master, "\003", 1));
    HOLDS(code_of(child) == -SIGINT, "Ctrl-C is no signal");
}

static void limits(void)
{
    struct rlimit files = {16, 16}, found;
    MUST(getrlimit(RLIMIT_STACK, &found));
    HOLDS(found.rlim_cur >= 1 << 20, "a stack has %ld bytes at most", (long) found.rlim_cur);
    MUST(getrlimit(RLIMIT_NOFILE, &found));
    value("open_files", (double) found.rlim_cur);
    pid_t child = fork_or_break();
    if (child == 0) {
        int opened;
        MUST(setrlimit(RLIMIT_NOFILE, &files));
        while ((opened = dup(0)) >= 0)
            HOLDS(opened < 16, "descriptor %d is above the limit", opened);
        HOLDS(errno == EMFILE, "too many descriptors: %s", strerror(errno));
        _exit(0);
    }
    end_well(child);
    errno = 0;
    HOLDS(getpriority(PRIO_PROCESS, 0) != -1 || !errno, "getpriority: %s", strerror(errno));
}

static void controlled(void)
{
    char name[17] = "";
    MUST(prctl(PR_SET_NAME, "checked", 0, 0, 0));
    MUST(prctl(PR_GET_NAME, name, 0, 0, 0));
    HOLDS(!strcmp(name, "checked"), "a process's name was set and is %s", name);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    pid_t child = fork_or_break();
    if (child == 0) {
        if (fork_or_break() == 0) {
            MUST(prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0));
            nanosleep(&(struct timespec) {0, 10000000}, NULL);
            _exit(5);
        }
        nanosleep(&(struct timespec) {0, 1000000}, NULL);
        _exit(0);
    }
    end_well(child);
    int status, code = waitpid(-1, &status, 0) > 0 ? status : -1; /* the grandchild came to us */
    HOLDS(code == (5 << 8) || code == SIGTERM, "an orphan did not come to its reaper (status %x)", code);
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void identities(void)
{
    uid_t real, effective, saved;
    pid_t child = fork_or_break();
    if (child == 0) {
        gid_t groups[2] = {7, 9}, found[4];
        MUST(setgroups(2, groups));
        HOLDS(MUST(getgroups(4, found)) == 2 && found[1] == 9, "groups were set and are others");
        MUST(setresgid(ANOTHER, ANOTHER, ANOTHER));
        MUST(setresuid(ANOTHER, ANOTHER, ANOTHER));
        MUST(getresuid(&real, &effective, &saved));
        HOLDS(real == ANOTHER && effective == ANOTHER && saved == ANOTHER, "a user was set and is %d", (int) real);
        REFUSED(setuid(0), EPERM);
        _exit(0);
    }
    end_well(child);
}

static void by_descriptor(void)
{
    pid_t child = fork_or_break();
    if (child == 0)
        for (;;)
            pause();
    long descriptor = syscall(SYS_pidfd_open, child, 0);
    HOLDS(descriptor >= 0, "pidfd_open: %s", strerror(errno));
    struct pollfd waiting = {(int) descriptor, POLLIN, 0};
    HOLDS(MUST(poll(&waiting, 1, 0)) == 0, "a process that lives is told to have ended");
    HOLDS(syscall(SYS_pidfd_send_signal, (int) descriptor, SIGKILL, NULL, 0) == 0, "pidfd_send_signal: %s",
          strerror(errno));
    HOLDS(MUST(poll(&waiting, 1, 5000)) == 1, "a process that ended is not told");
    HOLDS(code_of(child) == -SIGKILL, "a signal by descriptor did not arrive");
}

const struct check PROCESSES[] = {
    {"processes.fork", forked},
    {"processes.exec", executed},
    {"processes.script", scripts},
    {"processes.spawn", spawned},
    {"processes.session", sessions},
    {"processes.terminal", terminals},
    {"processes.limits", limits},
    {"processes.prctl", controlled},
    {"processes.identity", identities},
    {"processes.pidfd", by_descriptor},
    {NULL, NULL},
};
