/* The checks' common ground: what a check is, how it fails, and how it gives numbers. C library only.
 *
 * A check runs in a process of its own (run.c), so that whatever breaks it breaks nothing else. It fails by `broke`,
 * which says what did, and passes by returning. Its children and threads may call `broke` as well: the first is told.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

struct check {
    const char *name; /* AREA.FEATURE; the feature's kernel options are listed under it in swiftlet/gate/options.py */
    void (*run)(void);
};

/* Each ends with a check without a name. */
extern const struct check ALGORITHMS[], IPC[], FILES[], FILE_FEATURES[], SIGNALS[], THREADS[], TIMERS[], MEMORY[],
    SOCKETS[], EVENTS[], PROCESSES[], SYSTEM[], WEB[];

extern const struct check *const AREAS[];

/* result.c: a check's line of JSON */
void result_begin(const char *name);
void result_passed(double milliseconds);
int result_told(void); /* whether the current check, or a child of it, has said that it failed */
void result_failed(const char *problem);
void blame(const char *feature); /* what fails from here on is another check's matter; NULL: this one's again */
_Noreturn void broke(const char *format, ...) __attribute__((format(printf, 1, 2)));
void value(const char *name, double number);
void values(const char *name, const double *numbers, size_t count);
void value_text(const char *name, const char *text);

/* run.c */
int run_checks(const char *only);
double seconds_now(void);       /* CLOCK_MONOTONIC */
void scratch(void);             /* make an empty folder for this check alone and go there; removed after the check */
pid_t fork_or_break(void);      /* fork; the child may call broke */
void end_well(pid_t child);     /* wait for a child that must end with code 0 */
void write_file(const char *path, const char *text);
extern const char *scratch_parent;
extern const char *own_path;    /* this program, for checks that execute it */

/* random.c: the same numbers everywhere */
struct random { uint64_t state; };
uint64_t random_next(struct random *random);
double random_unit(struct random *random);                 /* [0, 1) */
int random_below(struct random *random, int limit);        /* 0 .. limit-1 */

/* The inputs of the algorithms as JSON, for tests; 0 when there are none of that name. */
int print_inputs(const char *name);
void print_max_flow_inputs(void);
void print_elimination_inputs(void);
void print_simplex_inputs(void);
void print_numbers(const char *name, const double *numbers, size_t count, const char *end);
void check_max_flow(void);
void check_elimination(void);
void check_simplex(void);

/* without.c: make system calls fail with ENOSYS from here on, as in a kernel that lacks them */
int do_without(const char *numbers);

/* web.c */
extern int web_port; /* 0: nobody asked for a page */
void print_page(void);

#define INSTANCES 10 /* of each algorithm's problem (the MicroswiftOS paper, appendix B) */

/* The value of a call that returns -1 (or MAP_FAILED) with errno when it fails. */
#define MUST(call)                                                                                                     \
    ({                                                                                                                 \
        __typeof__(call) answer_ = (call);                                                                             \
        if ((intptr_t) answer_ == -1)                                                                                  \
            broke("%s: %s", #call, strerror(errno));                                                                   \
        answer_;                                                                                                       \
    })

/* A call that returns an error number (pthread's way). */
#define ZERO(call)                                                                                                     \
    do {                                                                                                               \
        int error_ = (call);                                                                                           \
        if (error_)                                                                                                    \
            broke("%s: %s", #call, strerror(error_));                                                                  \
    } while (0)

/* A call that must fail with this errno. */
#define REFUSED(call, number)                                                                                          \
    do {                                                                                                               \
        if ((intptr_t) (call) != -1)                                                                                   \
            broke("%s succeeds, and should fail: %s", #call, strerror(number));                                        \
        if (errno != (number))                                                                                         \
            broke("%s: %s, where it should be: %s", #call, strerror(errno), strerror(number));                         \
    } while (0)

#define HOLDS(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            broke(__VA_ARGS__);                                                                                        \
    } while (0)

#endif
