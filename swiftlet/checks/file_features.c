/* What the kernel does with files beyond keeping them: mapping, locks, rights, attributes, watching, moving bytes. */
#include "check.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define ANOTHER 1234 /* a user that is not us */

static int filled(const char *path, size_t size)
{
    int file = MUST(open(path, O_RDWR | O_CREAT, 0644));
    struct random random = {2};
    unsigned char bytes[PAGE];
    for (size_t done = 0; done < size; done += sizeof bytes) {
        for (size_t index = 0; index < sizeof bytes; index++)
            bytes[index] = (unsigned char) random_next(&random);
        HOLDS(MUST(write(file, bytes, sizeof bytes)) == PAGE, "a page was written in part");
    }
    MUST(lseek(file, 0, SEEK_SET));
    return file;
}

static void mapped_shared(void)
{
    char text[6] = "";
    scratch();
    int file = filled("file", 2 * PAGE);
    char *map = MUST(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    pid_t child = fork_or_break();
    if (child == 0) {
        memcpy(map + PAGE, "child", 5);
        MUST(msync(map, 2 * PAGE, MS_SYNC));
        _exit(0);
    }
    end_well(child);
    HOLDS(!memcmp(map + PAGE, "child", 5), "what a child wrote into a shared mapping is not there");
    MUST(pread(file, text, 5, PAGE));
    HOLDS(!strcmp(text, "child"), "what was written into a shared mapping is not in the file");
    char *own = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, PAGE));
    own[0] = 'C';
    HOLDS(map[PAGE] == 'c', "what was written into a private mapping is in the file");
}

/* Take a lock, see another process refused and then wait for it until it is ours no more. */
static void exclude(int (*lock)(int file, int wait), int (*unlock)(int file), const char *what)
{
    int ready[2];
    char byte;
    scratch();
    write_file("file", "");
    int file = MUST(open("file", O_RDWR));
    MUST(pipe(ready));
    HOLDS(lock(file, 0) == 0, "%s: %s", what, strerror(errno));
    pid_t child = fork_or_break();
    if (child == 0) {
        int other = MUST(open("file", O_RDWR));
        HOLDS(lock(other, 0) == -1, "%s: two processes hold an exclusive lock", what);
        HOLDS(errno == EAGAIN || errno == EACCES, "%s: a lock that another holds: %s", what, strerror(errno));
        MUST(write(ready[1], "r", 1));
        HOLDS(lock(other, 1) == 0, "%s: waiting for a lock: %s", what, strerror(errno));
        _exit(0);
    }
    close(ready[1]);
    HOLDS(read(ready[0], &byte, 1) == 1 || result_told(), "%s: the other process is gone", what);
    nanosleep(&(struct timespec) {0, 5000000}, NULL);
    HOLDS(waitpid(child, NULL, WNOHANG) == 0 || result_told(), "%s: a process does not wait for the lock", what);
    HOLDS(unlock(file) == 0, "%s: unlocking: %s", what, strerror(errno));
    end_well(child);
}

static int flock_lock(int file, int wait) { return flock(file, LOCK_EX | (wait ? 0 : LOCK_NB)); }
static int flock_unlock(int file) { return flock(file, LOCK_UN); }

static int fcntl_lock(int file, int wait)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
    return fcntl(file, wait ? F_SETLKW : F_SETLK, &lock);
}

static int fcntl_unlock(int file)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    return fcntl(file, F_SETLK, &lock);
}

static void locked_by_flock(void) { exclude(flock_lock, flock_unlock, "flock"); }
static void locked_by_fcntl(void) { exclude(fcntl_lock, fcntl_unlock, "fcntl(F_SETLK)"); }

static void permissions(void)
{
    scratch();
    write_file("ours", "secret");
    MUST(chmod("ours", 0600));
    write_file("theirs", "given");
    MUST(chmod("theirs", 0400));
    MUST(chown("theirs", ANOTHER, ANOTHER));
    MUST(mkdir("closed", 0700));
    pid_t child = fork_or_break();
    if (child == 0) {
        MUST(setgroups(0, NULL));
        MUST(setresgid(ANOTHER, ANOTHER, ANOTHER));
        MUST(setresuid(ANOTHER, ANOTHER, ANOTHER));
        REFUSED(open("ours", O_RDONLY), EACCES);
        REFUSED(open("new", O_WRONLY | O_CREAT, 0644), EACCES);
        REFUSED(open("closed/file", O_RDONLY), EACCES);
        REFUSED(chown("theirs", 0, 0), EPERM);
        MUST(open("theirs", O_RDONLY));
        _exit(0);
    }
    end_well(child);
}

/* User attributes; or, where the file system keeps none (tmpfs before Linux 6.6), those that setcap(8) writes. */
static void attributes(void)
{
    char found[64] = "";
    struct vfs_cap_data capabilities = {.magic_etc = VFS_CAP_REVISION_2};
    scratch();
    write_file("file", "");
    if (setxattr("file", "user.check", "text", 4, 0) == 0) {
        HOLDS(MUST(getxattr("file", "user.check", found, sizeof found)) == 4 && !strcmp(found, "text"),
              "an attribute has another value");
        MUST(listxattr("file", found, sizeof found));
        MUST(removexattr("file", "user.check"));
        REFUSED(getxattr("file", "user.check", found, sizeof found), ENODATA);
        value_text("kind", "user");
        return;
    }
    HOLDS(errno == EOPNOTSUPP, "setxattr: %s", strerror(errno));
    MUST(setxattr("file", "security.capability", &capabilities, XATTR_CAPS_SZ_2, 0));
    MUST(getxattr("file", "security.capability", found, sizeof found));
    value_text("kind", "security");
}

static uint32_t next_event(int watcher)
{
    char buffer[512] __attribute__((aligned(__alignof__(struct inotify_event))));
    struct pollfd waiting = {watcher, POLLIN, 0};
    HOLDS(MUST(poll(&waiting, 1, 5000)) == 1, "inotify tells nothing");
    MUST(read(watcher, buffer, sizeof(struct inotify_event) + 16));
    return ((struct inotify_event *) buffer)->mask;
}

static void watched(void)
{
    uint32_t wanted[] = {IN_CREATE, IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE}, all = 0;
    scratch();
    int watcher = MUST(inotify_init1(IN_CLOEXEC));
    for (size_t index = 0; index < 5; index++)
        all |= wanted[index];
    MUST(inotify_add_watch(watcher, ".", all));
    write_file("file", "text");
    MUST(rename("file", "moved"));
    MUST(unlink("moved"));
    for (size_t index = 0; index < 5; index++) {
        uint32_t told = next_event(watcher);
        HOLDS(told == wanted[index], "event %zu is %x and not %x", index, told, wanted[index]);
    }
}

/* Compare what a pipe gives with the file. */
static void same_bytes(int file, int from, size_t size)
{
    unsigned char wanted[PAGE], found[PAGE];
    for (size_t done = 0; done < size;) {
        ssize_t count = MUST(read(from, found, sizeof found));
        HOLDS(count > 0, "it ends at byte %zu", done);
        HOLDS(MUST(pread(file, wanted, (size_t) count, (off_t) done)) == count, "the file ends at byte %zu", done);
        HOLDS(!memcmp(wanted, found, (size_t) count), "bytes after %zu are others", done);
        done += (size_t) count;
    }
}

static void sent(void)
{
    int ends[2];
    scratch();
    int file = filled("file", 8 * PAGE), copy = MUST(open("copy", O_RDWR | O_CREAT, 0644));
    MUST(pipe(ends));
    HOLDS(MUST(sendfile(ends[1], file, NULL, 8 * PAGE)) == 8 * PAGE, "sendfile to a pipe sent a part");
    same_bytes(file, ends[0], 8 * PAGE);
    off_t start = 0;
    HOLDS(MUST(sendfile(copy, file, &start, 8 * PAGE)) == 8 * PAGE, "sendfile to a file sent a part");
    MUST(lseek(copy, 0, SEEK_SET));
    same_bytes(file, copy, 8 * PAGE);
}

static void spliced(void)
{
    int ends[2];
    scratch();
    int file = filled("file", 8 * PAGE), copy = MUST(open("copy", O_RDWR | O_CREAT, 0644));
    MUST(pipe(ends));
    for (ssize_t done = 0; done < 8 * PAGE;) {
        ssize_t count = MUST(splice(file, NULL, ends[1], NULL, PAGE, 0));
        HOLDS(count > 0 && MUST(splice(ends[0], NULL, copy, NULL, (size_t) count, 0)) == count, "splice moved a part");
        done += count;
    }
    MUST(lseek(copy, 0, SEEK_SET));
    same_bytes(file, copy, 8 * PAGE);
}

static void in_memory(void)
{
    int file = MUST(memfd_create("check", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    MUST(ftruncate(file, PAGE));
    char *map = MUST(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0));
    MUST(pwrite(file, "x", 1, 7));
    HOLDS(map[7] == 'x', "a file in memory is not what is mapped of it");
    MUST(munmap(map, PAGE));
    MUST(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    REFUSED(pwrite(file, "y", 1, 7), EPERM);
}

static void asynchronous(void)
{
    aio_context_t context = 0;
    char buffer[16] = "", wanted[16];
    scratch();
    int file = filled("file", PAGE);
    struct iocb request = {
        .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t) file, .aio_nbytes = sizeof buffer};
    struct iocb *requests[] = {&request};
    struct io_event event;
    request.aio_buf = (uintptr_t) buffer;
    HOLDS(syscall(SYS_io_setup, 4, &context) == 0, "io_setup: %s", strerror(errno));
    HOLDS(syscall(SYS_io_submit, context, 1L, requests) == 1, "io_submit: %s", strerror(errno));
    HOLDS(syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) == 1, "io_getevents: %s", strerror(errno));
    HOLDS(event.res == sizeof buffer, "an asynchronous read of 16 bytes gave %ld", (long) event.res);
    MUST(pread(file, wanted, sizeof wanted, 0));
    HOLDS(!memcmp(buffer, wanted, sizeof wanted), "an asynchronous read gave other bytes");
}

const struct check FILE_FEATURES[] = {
    {"files.mmap", mapped_shared},
    {"files.flock", locked_by_flock},
    {"files.fcntl_lock", locked_by_fcntl},
    {"files.permissions", permissions},
    {"files.xattr", attributes},
    {"files.inotify", watched},
    {"files.sendfile", sent},
    {"files.splice", spliced},
    {"files.memfd", in_memory},
    {"files.aio", asynchronous},
    {NULL, NULL},
};
