/* Memory: mapped, protected, plenty, copied when written, moved, given back. */
#include "check.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define LARGE (48u << 20)       /* touched, every page of it */
#define RESERVED (1ul << 30)    /* address space alone, as runtimes with garbage collection ask for it */

static sigjmp_buf escape;
static void *volatile fault_at;
static volatile sig_atomic_t fault_code;

static void note(int signal, siginfo_t *info, void *context)
{
    (void) signal, (void) context;
    fault_at = info->si_addr;
    fault_code = info->si_code;
    siglongjmp(escape, 1);
}

/* Whether touching a byte is a SIGSEGV that says that byte's address and this reason. */
static int faults(volatile char *at, int writing, int reason)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGSEGV, &action, NULL));
    if (sigsetjmp(escape, 1))
        return fault_at == at && fault_code == reason;
    if (writing)
        *at = 1;
    else
        (void) *at;
    return 0;
}

static char *pages(size_t count)
{
    return MUST(mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static void mapped(void)
{
    char *map = pages(3);
    for (int index = 0; index < 3 * PAGE; index++)
        HOLDS(map[index] == 0, "new memory holds %d at %d", map[index], index);
    map[PAGE] = 1;
    MUST(munmap(map + PAGE, PAGE));
    HOLDS(faults(map + PAGE, 0, SEGV_MAPERR), "memory that was given back can be read, or its signal says otherwise");
    map[2 * PAGE] = 2;
    char *fixed = MUST(mmap(map + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    HOLDS(fixed == map + PAGE && fixed[0] == 0, "a mapping is not where it was asked for");
    HOLDS(faults(NULL, 0, SEGV_MAPERR), "address 0 can be read");
}

static void protected_pages(void)
{
    char *map = pages(1);
    map[10] = 7;
    MUST(mprotect(map, PAGE, PROT_READ));
    HOLDS(faults(map + 10, 1, SEGV_ACCERR), "read-only memory can be written, or its signal says otherwise");
    HOLDS(map[10] == 7, "read-only memory changed");
    MUST(mprotect(map, PAGE, PROT_NONE));
    HOLDS(faults(map + 10, 0, SEGV_ACCERR), "closed memory can be read, or its signal says otherwise");
    MUST(mprotect(map, PAGE, PROT_READ | PROT_WRITE));
    map[10]++;
    HOLDS(map[10] == 8, "memory that was opened again has another content");
}

/* What a compiler at run time does: write code, then let it be executed (mov eax, 42; ret). */
static void executed(void)
{
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
    int (*function)(void);
    char *map = pages(1);
    memcpy(map, code, sizeof code);
    MUST(mprotect(map, PAGE, PROT_READ | PROT_EXEC));
    memcpy(&function, &map, sizeof function);
    HOLDS(function() == 42, "code in memory returned something else");
}

static void large(void)
{
    char *reserved = MUST(mmap(NULL, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    MUST(mprotect(reserved + RESERVED / 2, PAGE, PROT_READ | PROT_WRITE));
    reserved[RESERVED / 2] = 1;
    char *map = pages(LARGE / PAGE);
    for (size_t page = 0; page < LARGE / PAGE; page++)
        *(uint64_t *) (map + page * PAGE) = page * 31;
    for (size_t page = 0; page < LARGE / PAGE; page++)
        HOLDS(*(uint64_t *) (map + page * PAGE) == page * 31, "page %zu of %u MiB lost its content", page, LARGE >> 20);
    value("touched_mib", LARGE >> 20);
}

static void copied_when_written(void)
{
    size_t count = 256;
    char *map = pages(count);
    memset(map, 'p', count * PAGE);
    pid_t child = fork_or_break();
    if (child == 0) {
        for (size_t page = 0; page < count; page++) {
            HOLDS(map[page * PAGE] == 'p', "a child's page %zu is not its parent's", page);
            map[page * PAGE] = 'c';
        }
        _exit(0);
    }
    end_well(child);
    for (size_t index = 0; index < count * PAGE; index++)
        HOLDS(map[index] == 'p', "what a child wrote is in its parent's memory");
}

static void moved(void)
{
    char *map = pages(2), *wall = pages(1);
    memset(map, 'm', 2 * PAGE);
    char *grown = MUST(mremap(map, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE));
    HOLDS(grown[0] == 'm' && grown[2 * PAGE - 1] == 'm' && grown[2 * PAGE] == 0, "memory made longer lost its content");
    grown[64 * PAGE - 1] = 1;
    char *target = pages(4);
    char *there = MUST(mremap(grown, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target));
    HOLDS(there == target && there[0] == 'm', "memory was not moved where it should");
    HOLDS(wall[0] == 0, "memory beside changed");
}

static void advised(void)
{
    unsigned char resident[4];
    char *map = pages(4);
    memset(map, 'a', 4 * PAGE);
    MUST(madvise(map, 2 * PAGE, MADV_DONTNEED));
    HOLDS(map[0] == 0 && map[2 * PAGE] == 'a', "memory that is not needed keeps its content, or another lost it");
    MUST(madvise(map, 4 * PAGE, MADV_WILLNEED));
    MUST(madvise(map + 2 * PAGE, PAGE, MADV_FREE));
    MUST(mincore(map, 4 * PAGE, resident));
    HOLDS(resident[3] & 1, "a page that was just written is not resident");
}

static void locked(void)
{
    char *map = pages(2);
    MUST(mlock(map, 2 * PAGE));
    MUST(munlock(map, 2 * PAGE));
}

const struct check MEMORY[] = {
    {"memory.map", mapped},
    {"memory.protect", protected_pages},
    {"memory.execute", executed},
    {"memory.large", large},
    {"memory.copy_on_write", copied_when_written},
    {"memory.remap", moved},
    {"memory.advise", advised},
    {"memory.lock", locked},
    {NULL, NULL},
};
