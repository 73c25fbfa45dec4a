/* Signals: handlers, masks, queues, stacks of their own, children and timers that tell. */
#include "check.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MANY 20

static volatile sig_atomic_t count, code, sender, payload[MANY];
static volatile uintptr_t stack_at;

static void note(int signal, siginfo_t *info, void *context)
{
    (void) signal, (void) context;
    int local;
    stack_at = (uintptr_t) &local;
    code = info->si_code;
    sender = info->si_pid;
    if (count < MANY)
        payload[count] = info->si_value.sival_int;
    count = count + 1;
}

static void handle(int signal, int flags)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags};
    count = 0;
    MUST(sigaction(signal, &action, NULL));
}

static sigset_t set_of(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

/* Wait until something is true, five seconds at most; no signal is needed for it. */
#define SOON(condition, ...)                                                                                           \
    do {                                                                                                               \
        double end_ = seconds_now() + 5;                                                                               \
        while (!(condition) && seconds_now() < end_)                                                                   \
            nanosleep(&(struct timespec) {0, 1000000}, NULL);                                                          \
        HOLDS(condition, __VA_ARGS__);                                                                                 \
    } while (0)

static void handlers(void)
{
    handle(SIGUSR1, 0);
    MUST(kill(getpid(), SIGUSR1));
    SOON(count == 1, "a handler was called %d times for one signal", (int) count);
    HOLDS(code == SI_USER && sender == getpid(), "a signal of ours says code %d, sender %d", (int) code, (int) sender);
    HOLDS(signal(SIGUSR1, SIG_IGN) != SIG_ERR, "signal: %s", strerror(errno));
    MUST(raise(SIGUSR1));
    HOLDS(count == 1, "an ignored signal was handled");
    pid_t child = fork_or_break();
    if (child == 0) {
        signal(SIGTERM, SIG_DFL);
        pause();
        _exit(0);
    }
    MUST(kill(child, SIGTERM));
    int status;
    MUST(waitpid(child, &status, 0));
    HOLDS(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "SIGTERM did not end a process (status %x)", status);
}

static void interrupted(void)
{
    int ends[2];
    char byte;
    MUST(pipe(ends));
    pid_t parent = getpid(), child;
    handle(SIGUSR1, 0);
    if ((child = fork_or_break()) == 0) {
        nanosleep(&(struct timespec) {0, 30000000}, NULL);
        MUST(kill(parent, SIGUSR1));
        nanosleep(&(struct timespec) {0, 30000000}, NULL);
        MUST(kill(parent, SIGUSR1)); /* the second is handled with SA_RESTART, or has become a handled one too early */
        nanosleep(&(struct timespec) {0, 30000000}, NULL);
        MUST(write(ends[1], "x", 1));
        _exit(0);
    }
    REFUSED(read(ends[0], &byte, 1), EINTR);
    handle(SIGUSR1, SA_RESTART);
    HOLDS(MUST(read(ends[0], &byte, 1)) == 1, "a read that goes on after a signal got nothing");
    end_well(child);
}

static void masks(void)
{
    sigset_t usr1 = set_of(SIGUSR1), pending, old;
    handle(SIGUSR1, 0);
    MUST(sigprocmask(SIG_BLOCK, &usr1, &old));
    MUST(raise(SIGUSR1));
    MUST(sigpending(&pending));
    HOLDS(count == 0 && sigismember(&pending, SIGUSR1), "a blocked signal is not kept back");
    HOLDS(sigsuspend(&old) == -1 && errno == EINTR && count == 1, "sigsuspend did not let the signal in");
    MUST(raise(SIGUSR1));
    siginfo_t info;
    HOLDS(MUST(sigtimedwait(&usr1, &info, &(struct timespec) {5, 0})) == SIGUSR1, "sigtimedwait gave another signal");
    REFUSED(sigtimedwait(&usr1, &info, &(struct timespec) {0, 1000000}), EAGAIN);
}

static void queued(void)
{
    int signal = SIGRTMIN + 2;
    sigset_t set = set_of(signal), old;
    handle(signal, 0);
    MUST(sigprocmask(SIG_BLOCK, &set, &old));
    for (int number = 0; number < MANY; number++)
        MUST(sigqueue(getpid(), signal, (union sigval) {.sival_int = number * 7}));
    HOLDS(count == 0, "a blocked realtime signal was handled");
    MUST(sigprocmask(SIG_SETMASK, &old, NULL));
    SOON(count == MANY, "%d of %d queued signals came", (int) count, MANY);
    for (int number = 0; number < MANY; number++)
        HOLDS(payload[number] == number * 7, "queued signal %d carries %d", number, (int) payload[number]);
}

static void on_own_stack(void)
{
    size_t size = 65536;
    char *stack = MUST(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    stack_t wanted = {.ss_sp = stack, .ss_size = size}, found;
    MUST(sigaltstack(&wanted, NULL));
    handle(SIGUSR2, SA_ONSTACK);
    MUST(raise(SIGUSR2));
    HOLDS(stack_at >= (uintptr_t) stack && stack_at < (uintptr_t) stack + size, "a handler ran on the usual stack");
    MUST(sigaltstack(NULL, &found));
    HOLDS(found.ss_sp == stack && !(found.ss_flags & SS_ONSTACK), "the alternative stack is another one");
}

static void children(void)
{
    int status;
    siginfo_t info = {0};
    handle(SIGCHLD, 0);
    pid_t child = fork_or_break();
    if (child == 0) {
        for (;;)
            pause();
    }
    MUST(kill(child, SIGSTOP));
    HOLDS(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status), "a stopped child: status %x", status);
    MUST(kill(child, SIGCONT));
    HOLDS(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status), "a continued child: status %x", status);
    MUST(kill(child, SIGKILL));
    MUST(waitid(P_PID, (id_t) child, &info, WEXITED));
    HOLDS(info.si_code == CLD_KILLED && info.si_status == SIGKILL, "a killed child: code %d, status %d", info.si_code,
          info.si_status);
    count = 0;
    if ((child = fork_or_break()) == 0)
        _exit(7);
    HOLDS(waitpid(child, &status, 0) == child || errno == EINTR, "waitpid: %s", strerror(errno));
    SOON(count > 0, "no SIGCHLD came");
    HOLDS(code == CLD_EXITED && sender == child, "SIGCHLD says code %d of process %d", (int) code, (int) sender);
}

static void by_timer(void)
{
    struct itimerval every = {{0, 5000}, {0, 5000}}, none = {{0, 0}, {0, 0}};
    handle(SIGALRM, 0);
    MUST(setitimer(ITIMER_REAL, &every, NULL));
    SOON(count >= 3, "a timer of 5 ms has signalled %d times", (int) count);
    MUST(setitimer(ITIMER_REAL, &none, NULL));
    handle(SIGVTALRM, 0);
    MUST(setitimer(ITIMER_VIRTUAL, &every, NULL));
    double end = seconds_now() + 5;
    while (!count && seconds_now() < end)
        continue; /* it counts this process's own time */
    MUST(setitimer(ITIMER_VIRTUAL, &none, NULL));
    HOLDS(count > 0, "a timer of the process's own time never signals");
    handle(SIGALRM, 0);
    alarm(1);
    SOON(count == 1, "alarm(1) does not signal");
}

const struct check SIGNALS[] = {
    {"signals.handler", handlers},
    {"signals.interrupt", interrupted},
    {"signals.mask", masks},
    {"signals.queue", queued},
    {"signals.stack", on_own_stack},
    {"signals.child", children},
    {"signals.timer", by_timer},
    {NULL, NULL},
};
