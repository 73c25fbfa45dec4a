/* Random numbers that are the same everywhere: splitmix64 (Steele, Lea, Flood 2014). */
#include "check.h"

uint64_t random_next(struct random *random)
{
    uint64_t mixed = random->state += 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

double random_unit(struct random *random)
{
    return (double) (random_next(random) >> 11) * 0x1p-53;
}

/* Not quite even: by limit in 2^64. */
int random_below(struct random *random, int limit)
{
    return (int) (random_next(random) % (uint64_t) limit);
}
