/* Time: sleeping, timers of three kinds, clocks that go and tell the truth. */
#include "check.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SLEEPS 40
#define YEAR_2024 1704067200
#define YEAR_2100 4102444800

static int by_size(const void *one, const void *other)
{
    double difference = *(const double *) one - *(const double *) other;
    return (difference > 0) - (difference < 0);
}

/* The best quarter: a busy machine makes many sleeps long, coarse timers (1/HZ, 4 ms) all but those begun late. */
static void sleeping(void)
{
    struct timespec millisecond = {0, 1000000};
    double slept[SLEEPS];
    for (int number = 0; number < SLEEPS; number++) {
        double begin = seconds_now();
        MUST(nanosleep(&millisecond, NULL));
        slept[number] = seconds_now() - begin;
        HOLDS(slept[number] >= 0.001, "a sleep of 1 ms ended after %.3f ms", slept[number] * 1e3);
    }
    qsort(slept, SLEEPS, sizeof *slept, by_size);
    double good = slept[SLEEPS / 4];
    HOLDS(good < 0.003, "three quarters of sleeps of 1 ms take %.3f ms and more: timers are coarse", good * 1e3);
    value("quarter_ms", good * 1e3);
    value("most_ms", slept[SLEEPS - 1] * 1e3);
}

static void by_descriptor(void)
{
    struct itimerspec every = {{0, 3000000}, {0, 3000000}};
    uint64_t expirations = 0, sum = 0;
    int timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    double begin = seconds_now();
    MUST(timerfd_settime(timer, 0, &every, NULL));
    while (sum < 5) {
        struct pollfd waiting = {timer, POLLIN, 0};
        HOLDS(MUST(poll(&waiting, 1, 5000)) == 1, "a timer of 3 ms tells nothing in 5 s");
        MUST(read(timer, &expirations, sizeof expirations));
        sum += expirations;
    }
    HOLDS(seconds_now() - begin >= 0.015, "five times 3 ms were %.3f ms", (seconds_now() - begin) * 1e3);
}

static volatile sig_atomic_t told;

static void note(int signal, siginfo_t *info, void *context)
{
    (void) signal, (void) context;
    told = told + (info->si_code == SI_TIMER && info->si_value.sival_int == 99);
}

static void posix_timer(void)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 99};
    struct itimerspec every = {{0, 3000000}, {0, 3000000}};
    timer_t timer;
    MUST(sigaction(SIGRTMIN, &action, NULL));
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
    MUST(timer_settime(timer, 0, &every, NULL));
    double end = seconds_now() + 5;
    while (told < 3 && seconds_now() < end)
        nanosleep(&(struct timespec) {0, 1000000}, NULL);
    HOLDS(told >= 3, "a timer of 3 ms has signalled %d times", (int) told);
    MUST(timer_delete(timer));
}

static double clock_seconds(clockid_t clock)
{
    struct timespec now;
    MUST(clock_gettime(clock, &now));
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

static void monotonic(void)
{
    double last = clock_seconds(CLOCK_MONOTONIC), first = last, real = clock_seconds(CLOCK_REALTIME), step = 1e9;
    for (int number = 0; number < 100000 || (last - first < 0.02 && number < 50000000); number++) {
        double now = clock_seconds(CLOCK_MONOTONIC);
        HOLDS(now >= last, "the clock went back by %.9f s", last - now);
        step = now > last && now - last < step ? now - last : step;
        last = now;
    }
    HOLDS(last > first, "the clock stands still");
    HOLDS(step < 0.001, "the clock goes on in steps of %.3f ms: it counts ticks", step * 1e3);
    value("step_us", step * 1e6);
    nanosleep(&(struct timespec) {0, 50000000}, NULL);
    double passed = clock_seconds(CLOCK_MONOTONIC) - first, by_wall = clock_seconds(CLOCK_REALTIME) - real;
    HOLDS(passed - by_wall < 0.1 && by_wall - passed < 0.1, "%.3f s passed, and %.3f s by the wall", passed, by_wall);
    HOLDS(clock_seconds(CLOCK_BOOTTIME) > 0 && clock_seconds(CLOCK_MONOTONIC_COARSE) > 0, "a clock has not begun");
}

static void realtime(void)
{
    struct timeval day;
    double now = clock_seconds(CLOCK_REALTIME);
    HOLDS(now > YEAR_2024 && now < YEAR_2100, "it is %.0f seconds after 1970, which is no plausible date", now);
    MUST(gettimeofday(&day, NULL));
    HOLDS((double) day.tv_sec - now < 2 && now - (double) day.tv_sec < 2, "two calls tell two times");
    value("realtime_s", now);
}

static void cpu_time(void)
{
    double begin = clock_seconds(CLOCK_PROCESS_CPUTIME_ID), end = seconds_now() + 5;
    double thread = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    while (clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - begin < 0.01 && seconds_now() < end)
        continue;
    HOLDS(clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - begin >= 0.01, "a busy process uses no time");
    HOLDS(clock_seconds(CLOCK_THREAD_CPUTIME_ID) > thread, "a busy thread uses no time");
}

const struct check TIMERS[] = {
    {"timers.sleep", sleeping},
    {"timers.timerfd", by_descriptor},
    {"timers.posix", posix_timer},
    {"timers.monotonic", monotonic},
    {"timers.realtime", realtime},
    {"timers.cpu", cpu_time},
    {NULL, NULL},
};
