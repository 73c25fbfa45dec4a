/* Maximum flow by push-relabel, first-in first-out (Goldberg and Tarjan 1988), in integers.
 *
 * Instances as in the MicroswiftOS paper, appendix B: 100 vertices, each possible directed edge with probability 0.1,
 * capacities even over 0..10, two different vertices as source and sink.
 */
#include "check.h"

#include <stdio.h>

#define VERTICES 100
#define MOST_CAPACITY 10
#define SEED 0x6d617866u

struct network {
    int capacity[VERTICES][VERTICES]; /* -1: no edge */
    int source, sink;
};

struct search {
    int residual[VERTICES][VERTICES];
    int height[VERTICES];
    long excess[VERTICES];
    int queue[VERTICES], first, waiting; /* vertices with excess, each once */
    int queued[VERTICES];
};

static void generate(struct network *network, int instance)
{
    struct random random = {SEED + (uint64_t) instance};
    for (int from = 0; from < VERTICES; from++)
        for (int to = 0; to < VERTICES; to++) {
            int there = from != to && random_unit(&random) < 0.1;
            network->capacity[from][to] = there ? random_below(&random, MOST_CAPACITY + 1) : -1;
        }
    network->source = random_below(&random, VERTICES);
    do
        network->sink = random_below(&random, VERTICES);
    while (network->sink == network->source);
}

static void enqueue(struct search *search, const struct network *network, int vertex)
{
    if (search->queued[vertex] || vertex == network->source || vertex == network->sink)
        return;
    search->queued[vertex] = 1;
    search->queue[(search->first + search->waiting++) % VERTICES] = vertex;
}

static void push(struct search *search, const struct network *network, int from, int to, long amount)
{
    search->residual[from][to] -= (int) amount;
    search->residual[to][from] += (int) amount;
    search->excess[from] -= amount;
    search->excess[to] += amount;
    enqueue(search, network, to);
}

static void relabel(struct search *search, int vertex)
{
    int lowest = 2 * VERTICES;
    for (int to = 0; to < VERTICES; to++)
        if (search->residual[vertex][to] > 0 && search->height[to] < lowest)
            lowest = search->height[to];
    search->height[vertex] = lowest + 1;
}

static void discharge(struct search *search, const struct network *network, int vertex)
{
    while (search->excess[vertex] > 0) {
        for (int to = 0; to < VERTICES && search->excess[vertex] > 0; to++) {
            int open = search->residual[vertex][to];
            if (open > 0 && search->height[vertex] == search->height[to] + 1)
                push(search, network, vertex, to, open < search->excess[vertex] ? open : search->excess[vertex]);
        }
        if (search->excess[vertex] > 0)
            relabel(search, vertex);
    }
}

static long solve(struct search *search, const struct network *network)
{
    *search = (struct search) {0};
    for (int from = 0; from < VERTICES; from++)
        for (int to = 0; to < VERTICES; to++)
            search->residual[from][to] = network->capacity[from][to] > 0 ? network->capacity[from][to] : 0;
    search->height[network->source] = VERTICES;
    for (int to = 0; to < VERTICES; to++)
        if (search->residual[network->source][to] > 0)
            push(search, network, network->source, to, search->residual[network->source][to]);
    while (search->waiting) {
        int vertex = search->queue[search->first];
        search->first = (search->first + 1) % VERTICES;
        search->waiting--;
        search->queued[vertex] = 0;
        discharge(search, network, vertex);
    }
    return search->excess[network->sink];
}

/* 1 for each vertex that the source still reaches: the smallest cut, whose capacity proves the flow's value. */
static void cut(const struct search *search, int source, double *side)
{
    int pending[VERTICES], count = 0;
    memset(side, 0, VERTICES * sizeof *side);
    side[source] = 1;
    pending[count++] = source;
    while (count) {
        int from = pending[--count];
        for (int to = 0; to < VERTICES; to++)
            if (search->residual[from][to] > 0 && side[to] == 0) {
                side[to] = 1;
                pending[count++] = to;
            }
    }
}

void check_max_flow(void)
{
    static struct network network;
    static struct search search;
    double flow[INSTANCES], sides[INSTANCES][VERTICES];
    for (int instance = 0; instance < INSTANCES; instance++) {
        generate(&network, instance);
        flow[instance] = (double) solve(&search, &network);
        cut(&search, network.source, sides[instance]);
    }
    values("flow", flow, INSTANCES);
    values("source_side", sides[0], INSTANCES * VERTICES);
}

void print_max_flow_inputs(void)
{
    static struct network network;
    for (int instance = 0; instance < INSTANCES; instance++) {
        generate(&network, instance);
        printf("{\"source\": %d, \"sink\": %d, \"capacity\": [", network.source, network.sink);
        for (int index = 0; index < VERTICES * VERTICES; index++)
            printf("%s%d", index ? ", " : "", network.capacity[index / VERTICES][index % VERTICES]);
        puts("]}");
    }
}
