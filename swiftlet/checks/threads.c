/* Threads: many at once, exclusion, waiting, memory of their own. */
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS_AT_ONCE 64
#define TURNS 500

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long shared_count;
static int arrived;
static __thread long own = 42;
static pthread_key_t key;
static atomic_int destroyed;

static void together(void *(*work)(void *), int expected_sum)
{
    pthread_t threads[THREADS_AT_ONCE];
    long sum = 0;
    for (long number = 0; number < THREADS_AT_ONCE; number++) {
        int error = pthread_create(&threads[number], NULL, work, (void *) number);
        HOLDS(!error, "thread %ld of %d cannot be made: %s", number + 1, THREADS_AT_ONCE, strerror(error));
    }
    for (int number = 0; number < THREADS_AT_ONCE; number++) {
        void *result;
        ZERO(pthread_join(threads[number], &result));
        sum += (long) result;
    }
    HOLDS(sum == expected_sum, "what the threads returned sums to %ld and not %d", sum, expected_sum);
}

static void *meet(void *number)
{
    pthread_barrier_wait(&barrier); /* so that all are there at once */
    return number;
}

static void created(void)
{
    ZERO(pthread_barrier_init(&barrier, NULL, THREADS_AT_ONCE));
    together(meet, THREADS_AT_ONCE * (THREADS_AT_ONCE - 1) / 2);
}

static void *add(void *number)
{
    for (int turn = 0; turn < TURNS; turn++) {
        pthread_mutex_lock(&mutex);
        long seen = shared_count;
        if (turn % 50 == 0)
            sched_yield();
        shared_count = seen + 1;
        pthread_mutex_unlock(&mutex);
    }
    return number;
}

static void excluded(void)
{
    together(add, THREADS_AT_ONCE * (THREADS_AT_ONCE - 1) / 2);
    HOLDS(shared_count == (long) THREADS_AT_ONCE * TURNS, "under a mutex %d additions came to %ld",
          THREADS_AT_ONCE * TURNS, shared_count);
}

static void *arrive(void *number)
{
    pthread_mutex_lock(&mutex);
    if (++arrived == THREADS_AT_ONCE)
        pthread_cond_broadcast(&condition);
    while (arrived < THREADS_AT_ONCE)
        pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    return number;
}

static void conditions(void)
{
    struct timespec past;
    together(arrive, THREADS_AT_ONCE * (THREADS_AT_ONCE - 1) / 2);
    MUST(clock_gettime(CLOCK_REALTIME, &past));
    pthread_mutex_lock(&mutex);
    int error = pthread_cond_timedwait(&condition, &mutex, &past);
    HOLDS(error == ETIMEDOUT, "waiting until now: %s", strerror(error));
}

static long futex(uint32_t *word, int operation, uint32_t number, const struct timespec *time)
{
    return syscall(SYS_futex, word, operation, number, time, NULL, 0);
}

static void futexes(void)
{
    uint32_t *word = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    struct timespec short_time = {0, 2000000}, long_time = {5, 0};
    REFUSED(futex(word, FUTEX_WAIT, 1, NULL), EAGAIN);
    REFUSED(futex(word, FUTEX_WAIT, 0, &short_time), ETIMEDOUT);
    pid_t child = fork_or_break();
    if (child == 0) {
        while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == 0)
            HOLDS(futex(word, FUTEX_WAIT, 0, &long_time) == 0 || errno == EAGAIN, "futex wait: %s", strerror(errno));
        _exit(0);
    }
    nanosleep(&short_time, NULL);
    __atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
    HOLDS(futex(word, FUTEX_WAKE, 1, NULL) >= 0, "futex wake: %s", strerror(errno));
    end_well(child);
}

static void forget(void *number)
{
    (void) number;
    atomic_fetch_add(&destroyed, 1);
}

static void *keep(void *number)
{
    if (own != 42 || pthread_getspecific(key))
        return (void *) -1000000;
    own = (long) number;
    pthread_setspecific(key, &own);
    pthread_barrier_wait(&barrier);
    return own == (long) number && pthread_getspecific(key) == &own ? number : (void *) -1000000;
}

static void local_memory(void)
{
    ZERO(pthread_key_create(&key, forget));
    ZERO(pthread_barrier_init(&barrier, NULL, THREADS_AT_ONCE));
    together(keep, THREADS_AT_ONCE * (THREADS_AT_ONCE - 1) / 2);
    HOLDS(own == 42, "a thread's own variable changed another's");
    HOLDS(destroyed == THREADS_AT_ONCE, "%d of %d threads cleaned up", (int) destroyed, THREADS_AT_ONCE);
}

/* A process that dies with a lock must not hold it for ever. */
static void robust(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t *lock = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ZERO(pthread_mutexattr_init(&attributes));
    ZERO(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    ZERO(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
    ZERO(pthread_mutex_init(lock, &attributes));
    pid_t child = fork_or_break();
    if (child == 0) {
        ZERO(pthread_mutex_lock(lock));
        _exit(0);
    }
    end_well(child);
    struct timespec end;
    MUST(clock_gettime(CLOCK_REALTIME, &end));
    end.tv_sec += 5;
    int error = pthread_mutex_timedlock(lock, &end);
    HOLDS(error == EOWNERDEAD, "the lock of a dead process: %s", strerror(error));
    ZERO(pthread_mutex_consistent(lock));
    ZERO(pthread_mutex_unlock(lock));
}

static void scheduling(void)
{
    cpu_set_t set;
    MUST(sched_getaffinity(0, sizeof set, &set));
    HOLDS(CPU_COUNT(&set) >= 1, "this process may run on no processor");
    MUST(sched_setaffinity(0, sizeof set, &set));
    MUST(sched_yield());
    HOLDS(sysconf(_SC_NPROCESSORS_ONLN) >= 1, "there are %ld processors", sysconf(_SC_NPROCESSORS_ONLN));
    value("processors", CPU_COUNT(&set));
}

const struct check THREADS[] = {
    {"threads.create", created},
    {"threads.mutex", excluded},
    {"threads.condition", conditions},
    {"threads.futex", futexes},
    {"threads.local", local_memory},
    {"threads.robust", robust},
    {"threads.scheduling", scheduling},
    {NULL, NULL},
};
