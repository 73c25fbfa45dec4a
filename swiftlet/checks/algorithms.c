/* The algorithms of the MicroswiftOS paper's section 5.2 as checks, and their inputs for tests of them. */
#include "check.h"

#include <stdio.h>

const struct check ALGORITHMS[] = {
    {"algorithms.max_flow", check_max_flow},
    {"algorithms.elimination", check_elimination},
    {"algorithms.simplex", check_simplex},
    {NULL, NULL},
};

void print_numbers(const char *name, const double *numbers, size_t count, const char *end)
{
    fputs(name, stdout);
    for (size_t index = 0; index < count; index++)
        printf("%s%.17g", index ? ", " : "[", numbers[index]);
    printf("]%s", end);
}

int print_inputs(const char *name)
{
    if (!strcmp(name, "algorithms.max_flow"))
        print_max_flow_inputs();
    else if (!strcmp(name, "algorithms.elimination"))
        print_elimination_inputs();
    else if (!strcmp(name, "algorithms.simplex"))
        print_simplex_inputs();
    else
        return 0;
    return 1;
}
