/* What a program asks its system for: names, randomness, /proc, the usual devices, a place for temporary files. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PROC_MAGIC 0x9fa0 /* linux/magic.h */

/* The beginning of a file, as text. */
static char *text_of(const char *path)
{
    static char text[16384];
    int file = open(path, O_RDONLY);
    HOLDS(file >= 0, "%s: %s", path, strerror(errno));
    ssize_t size = read(file, text, sizeof text - 1);
    HOLDS(size >= 0, "%s cannot be read: %s", path, strerror(errno));
    text[size] = '\0';
    close(file);
    return text;
}

static void names(void)
{
    struct utsname found;
    char host[256] = "";
    MUST(uname(&found));
    HOLDS(!strcmp(found.sysname, "Linux") && !strcmp(found.machine, "x86_64"), "this is %s on %s", found.sysname,
          found.machine);
    HOLDS(atoi(found.release) >= 5, "the kernel is %s", found.release);
    MUST(gethostname(host, sizeof host));
    HOLDS(*host && !strcmp(host, found.nodename), "the host is named %s and %s", host, found.nodename);
    value_text("release", found.release);
    value_text("hostname", host);
}

static void randomness(void)
{
    unsigned char one[64], other[64];
    memset(one, 0, sizeof one);
    HOLDS(getrandom(one, sizeof one, GRND_NONBLOCK) == 64, "getrandom would wait: %s", strerror(errno));
    HOLDS(getrandom(other, sizeof other, 0) == 64, "getrandom: %s", strerror(errno));
    HOLDS(memcmp(one, other, sizeof one), "two random texts of 64 bytes are the same");
}

static void own_proc(void)
{
    struct statfs found;
    char path[512] = "";
    HOLDS(statfs("/proc", &found) == 0 && found.f_type == PROC_MAGIC, "nothing is mounted at /proc");
    char *status = text_of("/proc/self/status");
    HOLDS(strstr(status, "Name:") && strstr(status, "VmRSS:"), "/proc/self/status lacks a line");
    HOLDS(strstr(text_of("/proc/self/maps"), "[stack]"), "/proc/self/maps has no stack");
    HOLDS(readlink("/proc/self/exe", path, sizeof path - 1) > 0, "/proc/self/exe: %s", strerror(errno));
    HOLDS(readlink("/proc/self/fd/1", path, sizeof path) > 0, "/proc/self/fd: %s", strerror(errno));
    HOLDS(atoi(text_of("/proc/self/stat")) == getpid(), "/proc/self is another process");
    HOLDS(strstr(text_of("/proc/cpuinfo"), "processor"), "/proc/cpuinfo names no processor");
    HOLDS(strstr(text_of("/proc/mounts"), " / "), "/proc/mounts has no root");
}

static long kibibytes(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    HOLDS(at, "/proc/meminfo lacks %s", name);
    return atol(at + strlen(name));
}

static void memory_information(void)
{
    char *text = text_of("/proc/meminfo");
    long total = kibibytes(text, "MemTotal:"), available = kibibytes(text, "MemAvailable:");
    HOLDS(total > 8192 && available > 0 && available <= total, "%ld KiB of %ld KiB are available", available, total);
    value("total_mib", (double) total / 1024);
}

static void settings(void)
{
    struct utsname found;
    MUST(uname(&found));
    char *text = text_of("/proc/sys/kernel/osrelease");
    text[strcspn(text, "\n")] = '\0';
    HOLDS(!strcmp(text, found.release), "/proc/sys/kernel/osrelease says %s", text);
    HOLDS(atoi(text_of("/proc/sys/kernel/pid_max")) > 300, "there is room for few processes");
}

static int device(const char *path, unsigned wanted_major, unsigned wanted_minor)
{
    struct stat found;
    int file = open(path, O_RDWR | O_CLOEXEC);
    HOLDS(file >= 0, "%s: %s", path, strerror(errno));
    MUST(fstat(file, &found));
    HOLDS(S_ISCHR(found.st_mode) && major(found.st_rdev) == wanted_major && minor(found.st_rdev) == wanted_minor,
          "%s is not the device %u:%u", path, wanted_major, wanted_minor);
    return file;
}

static void devices(void)
{
    char bytes[64], zeros[64] = "";
    int null = device("/dev/null", 1, 3), zero = device("/dev/zero", 1, 5), full = device("/dev/full", 1, 7);
    HOLDS(MUST(write(null, bytes, 1)) == 1 && MUST(read(null, bytes, 1)) == 0, "/dev/null is not empty");
    memset(bytes, 'x', sizeof bytes);
    HOLDS(MUST(read(zero, bytes, sizeof bytes)) == 64 && !memcmp(bytes, zeros, 64), "/dev/zero gives no zeros");
    REFUSED(write(full, bytes, 1), ENOSPC);
    int random = open("/dev/urandom", O_RDONLY);
    HOLDS(random >= 0, "/dev/urandom: %s", strerror(errno));
    HOLDS(MUST(read(random, bytes, 64)) == 64 && memcmp(bytes, zeros, 64), "/dev/urandom gives zeros");
    HOLDS(access("/dev/pts", X_OK) == 0, "/dev/pts: %s", strerror(errno));
    HOLDS(access("/dev/ptmx", R_OK | W_OK) == 0, "/dev/ptmx: %s", strerror(errno));
    HOLDS(access("/dev/fd/0", F_OK) == 0 || access("/dev/fd", X_OK) == 0, "/dev/fd: %s", strerror(errno));
}

static void temporary_folder(void)
{
    struct stat found;
    char path[] = "/tmp/check-XXXXXX";
    MUST(stat("/tmp", &found));
    HOLDS(S_ISDIR(found.st_mode) && (found.st_mode & 07777) == 01777, "/tmp has mode %o", found.st_mode & 07777);
    int file = MUST(mkstemp(path));
    HOLDS(MUST(write(file, "x", 1)) == 1, "/tmp takes no byte");
    MUST(unlink(path));
}

/* POSIX shared memory, as shm_open makes it. */
static void shared_memory(void)
{
    char path[] = "/dev/shm/check-XXXXXX";
    int file = mkstemp(path);
    HOLDS(file >= 0, "/dev/shm: %s", strerror(errno));
    MUST(ftruncate(file, 1 << 20));
    char *map = MUST(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    memset(map, 's', 1 << 20);
    MUST(unlink(path));
}

static void devices_listed(void)
{
    HOLDS(access("/sys/devices/system/cpu", X_OK) == 0, "/sys/devices/system/cpu: %s", strerror(errno));
    HOLDS(*text_of("/sys/devices/system/cpu/online") == '0', "/sys/devices/system/cpu/online does not begin with 0");
}

const struct check SYSTEM[] = {
    {"system.names", names},
    {"system.random", randomness},
    {"system.proc", own_proc},
    {"system.meminfo", memory_information},
    {"system.sysctl", settings},
    {"system.devices", devices},
    {"system.tmp", temporary_folder},
    {"system.shm", shared_memory},
    {"system.sysfs", devices_listed},
    {NULL, NULL},
};
