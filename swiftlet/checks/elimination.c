/* Linear systems by Gauss-Jordan elimination with partial pivoting, in doubles: the solution and the inverse.
 *
 * Instances as in the MicroswiftOS paper, appendix B: a 100 by 100 matrix and a vector, all entries even over [0, 1].
 */
#include "check.h"

#include <math.h>
#include <stdio.h>

#define SIZE 100
#define WIDTH (2 * SIZE + 1) /* the matrix, the unit matrix that becomes its inverse, the vector */
#define SEED 0x67617573u

struct system {
    double rows[SIZE][WIDTH];
};

static void generate(struct system *system, int instance)
{
    struct random random = {SEED + (uint64_t) instance};
    *system = (struct system) {0};
    for (int row = 0; row < SIZE; row++) {
        for (int column = 0; column < SIZE; column++)
            system->rows[row][column] = random_unit(&random);
        system->rows[row][SIZE + row] = 1;
    }
    for (int row = 0; row < SIZE; row++)
        system->rows[row][2 * SIZE] = random_unit(&random);
}

static void swap_rows(struct system *system, int one, int other)
{
    for (int column = 0; column < WIDTH; column++) {
        double kept = system->rows[one][column];
        system->rows[one][column] = system->rows[other][column];
        system->rows[other][column] = kept;
    }
}

static int pivot_row(const struct system *system, int column)
{
    int best = column;
    for (int row = column + 1; row < SIZE; row++)
        if (fabs(system->rows[row][column]) > fabs(system->rows[best][column]))
            best = row;
    return best;
}

static void eliminate(struct system *system)
{
    for (int column = 0; column < SIZE; column++) {
        swap_rows(system, column, pivot_row(system, column));
        double pivot = system->rows[column][column];
        HOLDS(pivot != 0, "a random matrix is singular, which it is not: arithmetic is wrong");
        for (int each = 0; each < WIDTH; each++)
            system->rows[column][each] /= pivot;
        for (int row = 0; row < SIZE; row++) {
            double factor = system->rows[row][column];
            for (int each = 0; row != column && factor != 0 && each < WIDTH; each++)
                system->rows[row][each] -= factor * system->rows[column][each];
        }
    }
}

void check_elimination(void)
{
    static struct system system;
    static double solution[INSTANCES][SIZE], diagonal[INSTANCES][SIZE];
    for (int instance = 0; instance < INSTANCES; instance++) {
        generate(&system, instance);
        eliminate(&system);
        for (int row = 0; row < SIZE; row++) {
            solution[instance][row] = system.rows[row][2 * SIZE];
            diagonal[instance][row] = system.rows[row][SIZE + row];
        }
    }
    values("solution", solution[0], INSTANCES * SIZE);
    values("inverse_diagonal", diagonal[0], INSTANCES * SIZE);
}

void print_elimination_inputs(void)
{
    static struct system system;
    static double matrix[SIZE * SIZE], vector[SIZE];
    for (int instance = 0; instance < INSTANCES; instance++) {
        generate(&system, instance);
        for (int row = 0; row < SIZE; row++) {
            memcpy(matrix + row * SIZE, system.rows[row], SIZE * sizeof *matrix);
            vector[row] = system.rows[row][2 * SIZE];
        }
        print_numbers("{\"matrix\": ", matrix, SIZE * SIZE, ", ");
        print_numbers("\"vector\": ", vector, SIZE, "}\n");
    }
}
