/* Messages between two processes by pipe, Unix socket and shared memory: whole, in order, how late and how many.
 *
 * The three of the MicroswiftOS paper's figure 5. Latency: half of a round trip of one byte, the median of batches.
 * Throughput: blocks of 64 KiB one way, each compared with what it should be.
 */
#include "check.h"

#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK 65536
#define BLOCKS 512
#define BATCH 100
#define BATCHES 20
#define ROUNDS (BATCH * BATCHES)
#define SLOTS 8
#define STEPS 1021 /* a prime: block n begins at byte 61 * (n % STEPS) of the pattern */

/* A queue in memory that two processes share. */
struct ring {
    sem_t filled, empty;
    unsigned char slots[SLOTS][BLOCK];
};

/* One process's end of a connection: descriptors, or two rings with a place in each. */
struct end {
    int in, out;
    struct ring *from, *to;
    unsigned taken, given;
};

static unsigned char pattern[BLOCK + 61 * STEPS];

static const unsigned char *block_of(int number)
{
    return pattern + 61 * (number % STEPS);
}

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore))
        HOLDS(errno == EINTR, "sem_wait: %s", strerror(errno));
}

static void give(struct end *end, const void *bytes, size_t size)
{
    if (end->to) {
        wait_for(&end->to->empty);
        memcpy(end->to->slots[end->given++ % SLOTS], bytes, size);
        MUST(sem_post(&end->to->filled));
        return;
    }
    for (const char *at = bytes; size;) {
        ssize_t count = MUST(write(end->out, at, size));
        at += count;
        size -= (size_t) count;
    }
}

static void take(struct end *end, void *bytes, size_t size)
{
    if (end->from) {
        wait_for(&end->from->filled);
        memcpy(bytes, end->from->slots[end->taken++ % SLOTS], size);
        MUST(sem_post(&end->from->empty));
        return;
    }
    for (char *at = bytes; size;) {
        ssize_t count = MUST(read(end->in, at, size));
        HOLDS(count > 0, "the other end closed with %zu bytes to come", size);
        at += count;
        size -= (size_t) count;
    }
}

/* The other process: echoes single bytes, then takes all blocks and says so. */
static void answer(struct end *end)
{
    static unsigned char block[BLOCK];
    unsigned char byte;
    for (int round = 0; round < ROUNDS; round++) {
        take(end, &byte, 1);
        HOLDS(byte == (unsigned char) round, "byte %d came as %d", round & 255, byte);
        give(end, &byte, 1);
    }
    for (int number = 0; number < BLOCKS; number++) {
        take(end, block, BLOCK);
        HOLDS(!memcmp(block, block_of(number), BLOCK), "block %d of %d came changed or out of order", number, BLOCKS);
    }
    give(end, "!", 1);
}

static int by_size(const void *one, const void *other)
{
    double difference = *(const double *) one - *(const double *) other;
    return (difference > 0) - (difference < 0);
}

static void ask(struct end *end)
{
    double times[BATCHES], begin = seconds_now();
    unsigned char byte;
    for (int round = 0; round < ROUNDS; round++) {
        byte = (unsigned char) round;
        give(end, &byte, 1);
        take(end, &byte, 1);
        HOLDS(byte == (unsigned char) round, "byte %d came back as %d", round & 255, byte);
        if (round % BATCH == BATCH - 1) {
            times[round / BATCH] = seconds_now() - begin;
            begin = seconds_now();
        }
    }
    qsort(times, BATCHES, sizeof *times, by_size);
    begin = seconds_now();
    for (int number = 0; number < BLOCKS; number++)
        give(end, block_of(number), BLOCK);
    take(end, &byte, 1);
    HOLDS(byte == '!', "the other end answered %d", byte);
    value("latency_us", times[BATCHES / 2] / BATCH / 2 * 1e6);
    value("throughput_mib_s", BLOCKS * (BLOCK / 1048576.0) / (seconds_now() - begin));
}

static void talk(struct end ours, struct end theirs)
{
    struct random random = {1};
    for (size_t index = 0; index < sizeof pattern; index++)
        pattern[index] = (unsigned char) random_next(&random);
    pid_t child = fork_or_break();
    if (child == 0) {
        close(ours.in), close(ours.out);
        answer(&theirs);
        _exit(0);
    }
    close(theirs.in), close(theirs.out);
    ask(&ours);
    end_well(child);
}

static void over_pipe(void)
{
    int there[2], back[2];
    MUST(pipe(there));
    MUST(pipe(back));
    talk((struct end) {.in = back[0], .out = there[1]}, (struct end) {.in = there[0], .out = back[1]});
}

static void over_unix_socket(void)
{
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    talk((struct end) {.in = pair[0], .out = pair[0]}, (struct end) {.in = pair[1], .out = pair[1]});
}

static void over_shared_memory(void)
{
    struct ring *rings = MUST(mmap(NULL, 2 * sizeof *rings, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (int index = 0; index < 2; index++) {
        MUST(sem_init(&rings[index].filled, 1, 0));
        MUST(sem_init(&rings[index].empty, 1, SLOTS));
    }
    talk((struct end) {.in = -1, .out = -1, .from = rings, .to = rings + 1},
         (struct end) {.in = -1, .out = -1, .from = rings + 1, .to = rings});
}

const struct check IPC[] = {
    {"ipc.pipe", over_pipe},
    {"ipc.unix_socket", over_unix_socket},
    {"ipc.shared_memory", over_shared_memory},
    {NULL, NULL},
};
