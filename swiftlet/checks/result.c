/* What became of a check, as one line of JSON on standard output: written at once, by whoever is first to know. */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *current, *blamed;
enum { NOTHING, FAILURE, SUCCESS };
static atomic_int *told; /* which of them, shared with the check's children */
static FILE *numbers;
static char *numbers_text;
static size_t numbers_size;

static void put_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *at = (const unsigned char *) text; *at; at++) {
        if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at);
        else if (*at < 32 || *at > 126)
            fprintf(out, "\\u%04x", *at);
        else
            fputc(*at, out);
    }
    fputc('"', out);
}

static void write_all(const char *text, size_t size)
{
    while (size) {
        ssize_t written = write(1, text, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            _exit(2);
        text += written;
        size -= (size_t) written;
    }
}

void result_begin(const char *name)
{
    if (!told) {
        told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (told == MAP_FAILED) {
            static atomic_int own;
            told = &own;
        }
    }
    current = name;
    blamed = NULL;
    atomic_store(told, NOTHING);
    numbers = open_memstream(&numbers_text, &numbers_size);
    if (!numbers)
        _exit(2);
}

/* The first word counts. */
static void tell(int what, const char *line, size_t size)
{
    int expected = NOTHING;
    if (atomic_compare_exchange_strong(told, &expected, what))
        write_all(line, size);
}

int result_told(void)
{
    return atomic_load(told) == FAILURE;
}

void result_passed(double milliseconds)
{
    char *line;
    size_t size;
    FILE *out = open_memstream(&line, &size);
    fflush(numbers);
    if (!out)
        _exit(2);
    fprintf(out, "{\"check\": \"%s\", \"ok\": true, \"ms\": %.3f, \"values\": {%s}}\n", current, milliseconds,
            numbers_text);
    fclose(out);
    tell(SUCCESS, line, size);
    free(line);
}

void result_failed(const char *problem)
{
    char *line;
    size_t size;
    FILE *out = open_memstream(&line, &size);
    if (!out)
        _exit(2);
    fprintf(out, "{\"check\": \"%s\", \"ok\": false, \"problem\": ", current);
    put_text(out, problem);
    if (blamed)
        fprintf(out, ", \"because\": \"%s\"", blamed);
    fputs("}\n", out);
    fclose(out);
    tell(FAILURE, line, size);
    free(line);
}

void blame(const char *feature)
{
    blamed = feature;
}

void broke(const char *format, ...)
{
    char problem[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    result_failed(problem);
    _exit(1);
}

static void put_name(const char *name)
{
    fprintf(numbers, "%s\"%s\": ", ftell(numbers) > 0 ? ", " : "", name);
}

/* 17 digits give every double back as it was. */
void value(const char *name, double number)
{
    HOLDS(isfinite(number), "%s is no number", name);
    put_name(name);
    fprintf(numbers, "%.17g", number);
}

void values(const char *name, const double *list, size_t count)
{
    put_name(name);
    for (size_t index = 0; index < count; index++) {
        HOLDS(isfinite(list[index]), "%s[%zu] is no number", name, index);
        fprintf(numbers, "%s%.17g", index ? ", " : "[", list[index]);
    }
    fputs("]", numbers);
}

void value_text(const char *name, const char *text)
{
    put_name(name);
    put_text(numbers, text);
}
