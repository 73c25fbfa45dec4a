/* guest-check: does a guest have what ordinary software needs? One line of JSON for each check.
 *
 *   guest-check list                  the names of all checks
 *   guest-check run [--only NAME,...] [--without NUMBER,...] [--scratch FOLDER] [--serve PORT]
 *                                     run them; NAME is a check or an area (what is before the dot)
 *   guest-check inputs NAME           an algorithm's problems
 *   guest-check page                  what --serve serves
 *
 * Exit code: 0 all passed, 1 something failed, 2 a command line that is not understood.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const struct check *const AREAS[] = {
    ALGORITHMS, IPC, FILES, FILE_FEATURES, SIGNALS, THREADS, TIMERS, MEMORY, SOCKETS, EVENTS, PROCESSES, SYSTEM, WEB,
    NULL,
};

static int list(void)
{
    for (const struct check *const *area = AREAS; *area; area++)
        for (const struct check *check = *area; check->name; check++)
            puts(check->name);
    return 0;
}

static int run(int count, char **words)
{
    const char *only = NULL, *without = NULL;
    for (int index = 0; index + 1 < count; index += 2) {
        if (!strcmp(words[index], "--only"))
            only = words[index + 1];
        else if (!strcmp(words[index], "--without"))
            without = words[index + 1];
        else if (!strcmp(words[index], "--scratch"))
            scratch_parent = words[index + 1];
        else if (!strcmp(words[index], "--serve"))
            web_port = atoi(words[index + 1]);
        else
            return 2;
    }
    if (count % 2)
        return 2;
    if (without && do_without(without)) {
        perror("guest-check: --without");
        return 2;
    }
    return run_checks(only);
}

/* What the checks of executing programs execute: `executed A B`, or `executed ./script` as a script's interpreter. */
static int executed(int count, char **words)
{
    const char *inherited = getenv("CHECK");
    if (count == 1 && !strcmp(words[0], "./script"))
        return 43;
    return count >= 2 && !strcmp(words[0], "A") && inherited && !strcmp(inherited, "inherited") ? 42 : 1;
}

int main(int count, char **words)
{
    own_path = words[0];
    if (count >= 2 && !strcmp(words[1], "executed"))
        return executed(count - 2, words + 2);
    if (count == 2 && !strcmp(words[1], "list"))
        return list();
    if (count == 2 && !strcmp(words[1], "page"))
        return print_page(), fflush(stdout) ? 1 : 0;
    if (count == 3 && !strcmp(words[1], "inputs"))
        return print_inputs(words[2]) ? 0 : 2;
    if (count >= 2 && !strcmp(words[1], "run"))
        return run(count - 2, words + 2);
    fputs("usage: guest-check list | run [OPTIONS] | inputs NAME | page\n", stderr);
    return 2;
}
