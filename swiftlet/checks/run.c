/* Runs checks, each in a process and a process group of its own: what hangs is killed, what crashes is told. */
#include "check.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 30.0 /* seconds of one check, on a slow machine */
#define WEB_PATIENCE 600.0

const char *scratch_parent = "/tmp";
const char *own_path;

static char scratch_path[256];

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

void scratch(void)
{
    blame("system.tmp");
    HOLDS(mkdir(scratch_path, 0755) == 0, "a folder cannot be made in %s: %s", scratch_parent, strerror(errno));
    MUST(chmod(scratch_path, 0755));
    MUST(chdir(scratch_path));
    blame(NULL);
}

static int remove_entry(const char *path, const struct stat *found, int kind, struct FTW *place)
{
    (void) found, (void) kind, (void) place;
    return remove(path);
}

pid_t fork_or_break(void)
{
    blame("processes.fork");
    pid_t child = fork();
    HOLDS(child >= 0, "fork: %s", strerror(errno));
    blame(NULL);
    return child;
}

void end_well(pid_t child)
{
    int status;
    MUST(waitpid(child, &status, 0));
    if (result_told())
        _exit(1);
    HOLDS(!WIFSIGNALED(status), "a child was killed by signal %d", WTERMSIG(status));
    HOLDS(WEXITSTATUS(status) == 0, "a child ended with code %d", WEXITSTATUS(status));
}

void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    HOLDS(file, "%s cannot be made: %s", path, strerror(errno));
    HOLDS(fputs(text, file) >= 0 && fclose(file) == 0, "%s cannot be written: %s", path, strerror(errno));
}

static void settle(int status, int late)
{
    char problem[200];
    if (late)
        snprintf(problem, sizeof problem, "did not end in time and was killed");
    else if (WIFSIGNALED(status))
        snprintf(problem, sizeof problem, "was killed by signal %d (%s)%s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)), WTERMSIG(status) == SIGKILL ? ", as for want of memory" : "");
    else
        snprintf(problem, sizeof problem, "ended with code %d and without a word", WEXITSTATUS(status));
    result_failed(problem); /* says nothing if the check has said how it went */
}

/* Waits by looking, as timers and signals are among what is checked. Returns whether it had to be killed. */
static int await(pid_t child, int *status, double patience)
{
    double end = seconds_now() + patience;
    long pause = 100000;
    while (waitpid(child, status, WNOHANG) == 0) {
        if (seconds_now() > end) {
            kill(child, SIGKILL);
            waitpid(child, status, 0);
            return 1;
        }
        nanosleep(&(struct timespec) {0, pause}, NULL);
        pause = pause < 5000000 ? pause * 2 : 10000000;
    }
    return 0;
}

/* End what a check left behind. A guest's first process is the parent of all orphans, which count until reaped. */
static void clean_up(pid_t child)
{
    double end = seconds_now() + 1;
    pid_t found = 0;
    kill(-child, SIGKILL);
    while (seconds_now() < end && (found = waitpid(-1, NULL, WNOHANG)) >= 0)
        if (found == 0)
            nanosleep(&(struct timespec) {0, 100000}, NULL);
    nftw(scratch_path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Returns 1 when the check failed. */
static int run_one(const struct check *check, int number)
{
    int status = 0;
    snprintf(scratch_path, sizeof scratch_path, "%s/guest-check.%d.%d", scratch_parent, (int) getpid(), number);
    result_begin(check->name);
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) {
        result_failed("fork: no process can be made");
        return 1;
    }
    if (child == 0) {
        double begin = seconds_now();
        setpgid(0, 0);
        check->run();
        result_passed((seconds_now() - begin) * 1e3);
        _exit(0);
    }
    int late = await(child, &status, check == WEB ? WEB_PATIENCE : PATIENCE);
    settle(status, late);
    clean_up(child);
    return result_told();
}

/* Whether a check is one of those named: `files,signals.mask` is an area and a check. */
static int is_wanted(const char *name, const char *only)
{
    for (const char *at = only, *comma; at; at = comma ? comma + 1 : NULL) {
        comma = strchr(at, ',');
        size_t length = comma ? (size_t) (comma - at) : strlen(at);
        if (length && !strncmp(name, at, length) && (name[length] == '\0' || name[length] == '.'))
            return 1;
    }
    return only == NULL;
}

int run_checks(const char *only)
{
    int failed = 0, number = 0;
    signal(SIGPIPE, SIG_IGN);
    setenv("CHECK", "inherited", 1);
    for (const struct check *const *area = AREAS; *area; area++)
        for (const struct check *check = *area; check->name; check++)
            if (is_wanted(check->name, only) && (check != WEB || web_port))
                failed |= run_one(check, number++);
    return failed;
}
