/* Waiting for many things at once, and things made to be waited for. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define PIPES 20

static void by_epoll(void)
{
    int ends[PIPES][2], set = MUST(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event found[PIPES];
    for (int number = 0; number < PIPES; number++) {
        struct epoll_event wanted = {.events = EPOLLIN | (number == 1 ? EPOLLET : 0), .data.u32 = (uint32_t) number};
        MUST(pipe(ends[number]));
        MUST(epoll_ctl(set, EPOLL_CTL_ADD, ends[number][0], &wanted));
    }
    HOLDS(MUST(epoll_wait(set, found, PIPES, 0)) == 0, "an empty pipe is ready");
    MUST(write(ends[1][1], "x", 1));
    MUST(write(ends[17][1], "x", 1));
    HOLDS(MUST(epoll_wait(set, found, PIPES, 5000)) == 2, "two pipes are ready and another number is told");
    HOLDS(found[0].data.u32 + found[1].data.u32 == 18, "other pipes are ready than those written to");
    int count = MUST(epoll_wait(set, found, PIPES, 0));
    HOLDS(count == 1 && found[0].data.u32 == 17, "edges and levels are not told apart");
    MUST(epoll_ctl(set, EPOLL_CTL_DEL, ends[17][0], NULL));
    HOLDS(MUST(epoll_wait(set, found, PIPES, 0)) == 0, "a pipe that was taken out is told");
    close(ends[3][1]);
    HOLDS(MUST(epoll_wait(set, found, PIPES, 5000)) == 1 && found[0].events & EPOLLHUP, "a closed pipe is not told");
}

static void by_eventfd(void)
{
    uint64_t number = 3;
    int event = MUST(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    MUST(write(event, &number, sizeof number));
    MUST(write(event, &number, sizeof number));
    MUST(read(event, &number, sizeof number));
    HOLDS(number == 6, "3 and 3 came to %d", (int) number);
    REFUSED(read(event, &number, sizeof number), EAGAIN);
}

static void by_signalfd(void)
{
    struct signalfd_siginfo info;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    int descriptor = MUST(signalfd(-1, &set, SFD_CLOEXEC));
    MUST(raise(SIGUSR1));
    struct pollfd waiting = {descriptor, POLLIN, 0};
    HOLDS(MUST(poll(&waiting, 1, 5000)) == 1, "a signal does not make its descriptor ready");
    MUST(read(descriptor, &info, sizeof info));
    HOLDS(info.ssi_signo == SIGUSR1 && info.ssi_pid == (uint32_t) getpid(), "another signal was read");
}

static void by_poll(void)
{
    int ends[2];
    MUST(pipe(ends));
    struct pollfd both[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    HOLDS(MUST(poll(both, 2, 0)) == 1 && both[1].revents == POLLOUT, "an empty pipe is not just for writing");
    double begin = seconds_now();
    HOLDS(MUST(poll(both, 1, 20)) == 0 && seconds_now() - begin >= 0.019, "poll did not wait its time");
    MUST(write(ends[1], "x", 1));
    HOLDS(MUST(poll(both, 1, 5000)) == 1 && both[0].revents == POLLIN, "a full pipe is not for reading");
    close(ends[1]);
    HOLDS(MUST(poll(both, 1, 5000)) == 1 && both[0].revents & POLLHUP, "a closed pipe is not told");
}

static void by_select(void)
{
    int ends[2];
    fd_set set;
    struct timeval wait = {5, 0}, none = {0, 0};
    MUST(pipe(ends));
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    HOLDS(MUST(select(ends[0] + 1, &set, NULL, NULL, &none)) == 0, "an empty pipe is ready");
    MUST(write(ends[1], "x", 1));
    FD_SET(ends[0], &set);
    HOLDS(MUST(select(ends[0] + 1, &set, NULL, NULL, &wait)) == 1, "a full pipe is not ready");
    HOLDS(FD_ISSET(ends[0], &set), "another descriptor is ready");
}

const struct check EVENTS[] = {
    {"events.epoll", by_epoll},
    {"events.eventfd", by_eventfd},
    {"events.signalfd", by_signalfd},
    {"events.poll", by_poll},
    {"events.select", by_select},
    {NULL, NULL},
};
