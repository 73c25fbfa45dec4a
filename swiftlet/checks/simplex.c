/* Linear programs by the simplex method with Bland's rule, in doubles: maximise c x where A x <= b and x >= 0.
 *
 * Instances as in the MicroswiftOS paper, appendix B: A is 50 by 30, all entries of A, b and c even over [0, 1]. As no
 * b is negative, x = 0 is a solution to begin with. The prices of the constraints (the dual solution) are given too:
 * they prove that the optimum is one.
 */
#include "check.h"

#include <stdio.h>

#define ROWS 50
#define COLUMNS 30
#define SEED 0x73696d70u
#define TINY 1e-12 /* a coefficient smaller than this is a rounded zero */

/* basic = limit - coefficients * free; value = value + gain * free. Variables: 0..29 are x, 30..79 the rows' slacks. */
struct program {
    double coefficient[ROWS][COLUMNS], limit[ROWS], gain[COLUMNS], value;
    int basic[ROWS], free[COLUMNS];
};

static void generate(struct program *program, int instance)
{
    struct random random = {SEED + (uint64_t) instance};
    for (int row = 0; row < ROWS; row++)
        for (int column = 0; column < COLUMNS; column++)
            program->coefficient[row][column] = random_unit(&random);
    for (int row = 0; row < ROWS; row++) {
        program->limit[row] = random_unit(&random);
        program->basic[row] = COLUMNS + row;
    }
    for (int column = 0; column < COLUMNS; column++) {
        program->gain[column] = random_unit(&random);
        program->free[column] = column;
    }
    program->value = 0;
}

/* The free variable of the lowest number that is worth raising, -1 at the optimum. */
static int entering(const struct program *program)
{
    int best = -1;
    for (int column = 0; column < COLUMNS; column++)
        if (program->gain[column] > TINY && (best < 0 || program->free[column] < program->free[best]))
            best = column;
    return best;
}

/* The row that stops the variable of this column first, the lowest number among equals. */
static int leaving(const struct program *program, int column)
{
    int best = -1;
    double least = 0;
    for (int row = 0; row < ROWS; row++) {
        if (program->coefficient[row][column] <= TINY)
            continue;
        double ratio = program->limit[row] / program->coefficient[row][column];
        if (best < 0 || ratio < least || (ratio == least && program->basic[row] < program->basic[best])) {
            best = row;
            least = ratio;
        }
    }
    return best;
}

static void exchange(struct program *program, int row, int column)
{
    double *pivots = program->coefficient[row], pivot = pivots[column];
    for (int each = 0; each < COLUMNS; each++)
        pivots[each] = each == column ? 1 / pivot : pivots[each] / pivot;
    program->limit[row] /= pivot;
    for (int other = 0; other < ROWS; other++) {
        double factor = program->coefficient[other][column];
        if (other == row || factor == 0)
            continue;
        for (int each = 0; each < COLUMNS; each++)
            program->coefficient[other][each] =
                (each == column ? 0 : program->coefficient[other][each]) - factor * pivots[each];
        program->limit[other] -= factor * program->limit[row];
    }
    double gain = program->gain[column];
    for (int each = 0; each < COLUMNS; each++)
        program->gain[each] = (each == column ? 0 : program->gain[each]) - gain * pivots[each];
    program->value += gain * program->limit[row];
    int variable = program->free[column];
    program->free[column] = program->basic[row];
    program->basic[row] = variable;
}

static void maximise(struct program *program)
{
    int column;
    while ((column = entering(program)) >= 0) {
        int row = leaving(program, column);
        HOLDS(row >= 0, "a bounded linear program has no bound: arithmetic is wrong");
        exchange(program, row, column);
    }
}

void check_simplex(void)
{
    static struct program program;
    double optimum[INSTANCES];
    static double x[INSTANCES][COLUMNS], price[INSTANCES][ROWS];
    for (int instance = 0; instance < INSTANCES; instance++) {
        generate(&program, instance);
        maximise(&program);
        optimum[instance] = program.value;
        for (int row = 0; row < ROWS; row++)
            if (program.basic[row] < COLUMNS)
                x[instance][program.basic[row]] = program.limit[row];
        for (int column = 0; column < COLUMNS; column++)
            if (program.free[column] >= COLUMNS)
                price[instance][program.free[column] - COLUMNS] = -program.gain[column];
    }
    values("optimum", optimum, INSTANCES);
    values("x", x[0], INSTANCES * COLUMNS);
    values("price", price[0], INSTANCES * ROWS);
}

void print_simplex_inputs(void)
{
    static struct program program;
    for (int instance = 0; instance < INSTANCES; instance++) {
        generate(&program, instance);
        print_numbers("{\"a\": ", program.coefficient[0], ROWS * COLUMNS, ", ");
        print_numbers("\"b\": ", program.limit, ROWS, ", ");
        print_numbers("\"c\": ", program.gain, COLUMNS, "}\n");
    }
}
