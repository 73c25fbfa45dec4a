/* Files and folders: what every program does with them. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define MANY 300 /* entries: more than one getdents gives */

static int contains(const char *path, const char *text)
{
    char found[256] = "";
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t size = read(file, found, sizeof found - 1);
    close(file);
    return size >= 0 && !strcmp(found, text);
}

static void create(void)
{
    struct stat found;
    scratch();
    umask(027);
    int file = MUST(open("new", O_RDWR | O_CREAT | O_EXCL, 0666));
    MUST(write(file, "hello", 5));
    MUST(pwrite(file, "J", 1, 0));
    MUST(fsync(file));
    MUST(fstat(file, &found));
    HOLDS(found.st_size == 5 && S_ISREG(found.st_mode), "a file of 5 bytes has %ld", (long) found.st_size);
    HOLDS((found.st_mode & 0777) == 0640, "a new file has mode %o with umask 027", found.st_mode & 0777);
    HOLDS(found.st_nlink == 1 && found.st_uid == geteuid(), "a new file has %d names, owner %d", (int) found.st_nlink,
          (int) found.st_uid);
    MUST(close(file));
    HOLDS(contains("new", "Jello"), "what was written is not what is read");
    REFUSED(open("new", O_WRONLY | O_CREAT | O_EXCL, 0666), EEXIST);
    REFUSED(open("other", O_RDONLY), ENOENT);
    file = MUST(open("new", O_WRONLY | O_APPEND));
    MUST(write(file, "!", 1));
    HOLDS(contains("new", "Jello!"), "what was appended is not at the end");
}

static void rename_files(void)
{
    scratch();
    write_file("a", "a");
    write_file("b", "b");
    MUST(rename("a", "b"));
    HOLDS(contains("b", "a") && access("a", F_OK), "rename did not put one file in the other's place");
    MUST(mkdir("folder", 0755));
    MUST(rename("b", "folder/b"));
    MUST(rename("folder", "moved"));
    HOLDS(contains("moved/b", "a"), "a file is not in its renamed folder");
    write_file("c", "c");
    REFUSED(renameat2(AT_FDCWD, "c", AT_FDCWD, "moved/b", RENAME_NOREPLACE), EEXIST);
}

static void link_files(void)
{
    struct stat one, other;
    scratch();
    write_file("one", "1");
    MUST(link("one", "other"));
    MUST(stat("one", &one));
    MUST(stat("other", &other));
    HOLDS(one.st_ino == other.st_ino && one.st_nlink == 2, "two names are not one file with two links");
    MUST(unlink("one"));
    HOLDS(contains("other", "1"), "a file is gone with one of its names");
}

static void symbolic_links(void)
{
    char target[64] = "";
    struct stat found;
    scratch();
    write_file("file", "text");
    MUST(symlink("file", "link"));
    MUST(readlink("link", target, sizeof target - 1));
    HOLDS(!strcmp(target, "file"), "a link leads to %s", target);
    MUST(lstat("link", &found));
    HOLDS(S_ISLNK(found.st_mode) && contains("link", "text"), "a link is not followed");
    MUST(symlink("loop", "loop"));
    REFUSED(open("loop", O_RDONLY), ELOOP);
    REFUSED(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
}

static void unlink_open(void)
{
    char text[8] = "";
    scratch();
    write_file("file", "kept");
    int file = MUST(open("file", O_RDONLY));
    MUST(unlink("file"));
    HOLDS(access("file", F_OK), "a removed file still has its name");
    HOLDS(MUST(read(file, text, sizeof text - 1)) == 4 && !strcmp(text, "kept"), "an open file went with its name");
}

static void truncate_file(void)
{
    char text[16] = "................";
    scratch();
    write_file("file", "0123456789");
    MUST(truncate("file", 4));
    int file = MUST(open("file", O_RDWR));
    HOLDS(MUST(lseek(file, 0, SEEK_END)) == 4, "a file cut to 4 bytes has another length");
    MUST(ftruncate(file, 8));
    HOLDS(MUST(pread(file, text, sizeof text, 0)) == 8, "a file made longer has another length");
    HOLDS(!memcmp(text, "0123\0\0\0\0", 8), "a file made longer has no zeros there");
}

static void sparse(void)
{
    struct stat found;
    char byte = 'x';
    off_t far = 64 << 20;
    scratch();
    int file = MUST(open("file", O_RDWR | O_CREAT, 0644));
    MUST(pwrite(file, &byte, 1, far));
    MUST(fsync(file));
    MUST(fstat(file, &found));
    HOLDS(found.st_size == far + 1, "a file with a byte at 64 MiB has %ld bytes", (long) found.st_size);
    HOLDS(found.st_blocks < 16 << 11, "a hole of 64 MiB takes %ld blocks", (long) found.st_blocks);
    HOLDS(MUST(lseek(file, 0, SEEK_DATA)) <= far, "there is data only beyond the data");
    HOLDS(MUST(lseek(file, 0, SEEK_HOLE)) <= far + 1, "there is no hole");
    MUST(pread(file, &byte, 1, 1 << 20));
    HOLDS(byte == 0, "a hole reads as %d", byte);
}

static void directories(void)
{
    char name[32], path[4096];
    int seen = 0;
    struct dirent *entry;
    scratch();
    MUST(mkdir("folder", 0755));
    for (int number = 0; number < MANY; number++) {
        snprintf(name, sizeof name, "folder/%d", number);
        write_file(name, "");
    }
    DIR *folder = opendir("folder");
    HOLDS(folder, "opendir: %s", strerror(errno));
    while ((errno = 0, entry = readdir(folder)))
        seen += entry->d_name[0] != '.';
    HOLDS(seen == MANY && errno == 0, "a folder of %d entries lists %d: %s", MANY, seen, strerror(errno));
    closedir(folder);
    REFUSED(rmdir("folder"), ENOTEMPTY);
    MUST(mkdir("folder/deeper", 0755));
    MUST(chdir("folder/deeper"));
    HOLDS(getcwd(path, sizeof path) && strstr(path, "/folder/deeper"), "getcwd: %s", strerror(errno));
    MUST(chdir(".."));
    MUST(rmdir("deeper"));
}

static void file_system_size(void)
{
    struct statfs found;
    scratch();
    MUST(statfs(".", &found));
    HOLDS(found.f_bsize > 0 && found.f_blocks > 0, "a file system of %ld blocks", (long) found.f_blocks);
    HOLDS(found.f_bavail <= found.f_blocks, "more blocks are free than there are");
    HOLDS(found.f_namelen >= 255, "names have %ld bytes at most", (long) found.f_namelen);
    value("free_mib", (double) found.f_bavail * (double) found.f_bsize / 1048576);
}

static void times_of_files(void)
{
    struct stat found;
    struct timespec wanted[2] = {{1000000000, 123456789}, {1500000000, 987654321}};
    scratch();
    write_file("file", "");
    MUST(utimensat(AT_FDCWD, "file", wanted, 0));
    MUST(stat("file", &found));
    HOLDS(found.st_mtim.tv_sec == 1500000000, "a file's time was set and is %ld", (long) found.st_mtim.tv_sec);
}

/* Files without a name are not on every file system (overlayfs of Linux 6.1): who uses them must do without, too. */
static void temporary_file(void)
{
    char path[64] = "made-XXXXXX";
    scratch();
    MUST(mkstemp(path));
    int file = open(".", O_RDWR | O_TMPFILE, 0600);
    value("unnamed", file >= 0);
    if (file < 0) {
        HOLDS(errno == EOPNOTSUPP, "a file without a name: %s", strerror(errno));
        return;
    }
    MUST(write(file, "whole", 5));
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    MUST(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    HOLDS(contains("named", "whole"), "a file without a name got one and is another");
}

const struct check FILES[] = {
    {"files.create", create},
    {"files.rename", rename_files},
    {"files.link", link_files},
    {"files.symlink", symbolic_links},
    {"files.unlink_open", unlink_open},
    {"files.truncate", truncate_file},
    {"files.sparse", sparse},
    {"files.directories", directories},
    {"files.statfs", file_system_size},
    {"files.times", times_of_files},
    {"files.temporary", temporary_file},
    {NULL, NULL},
};
