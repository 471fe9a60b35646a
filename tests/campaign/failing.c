/* Preloaded below the program: the Nth call that changes a file below one folder fails, or kills the process.
 *
 * Python, GDAL and SQLite all end in these functions of the C library. Nothing happens until fault_arm() is called, by
 * ctypes, in the process that is to suffer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4, TRUNCATE = 8, OPEN = 16 };

static char folder[PATH_MAX];
static size_t length;
static int kinds, number, lasting;
static long nth, counts[32];

/* error: an errno, or 0 to kill the process. lasts: all calls from the Nth on, as on a full disk, else the Nth alone. */
void fault_arm(const char *below, int which, long call, int error, int lasts) {
    strncpy(folder, below, PATH_MAX - 1);
    length = strlen(folder);
    kinds = which, nth = call, number = error, lasting = lasts;
    memset(counts, 0, sizeof counts);
}

long fault_count(int kind) { return counts[kind]; }

static int fails(int kind, const char *path) {
    if (!(kinds & kind) || !path || strncmp(path, folder, length) != 0)
        return 0;
    long now = __sync_add_and_fetch(&counts[kind], 1);
    if (now != nth && !(lasting && now > nth))
        return 0;
    if (!number)
        kill(getpid(), SIGKILL);
    errno = number;
    return 1;
}

static int fails_at(int kind, int fd) {
    char link[64], path[PATH_MAX];
    if (!(kinds & kind))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return fails(kind, path);
}

static int fails_named(int kind, int at, const char *path) { /* relative names are below the working folder */
    char whole[PATH_MAX];
    if (!(kinds & kind) || !path || path[0] == '/' || at != AT_FDCWD || !getcwd(whole, sizeof whole))
        return fails(kind, path);
    size_t used = strlen(whole);
    snprintf(whole + used, sizeof whole - used, "/%s", path);
    return fails(kind, whole);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(type, name, kind, parameters, arguments) \
    type name parameters { \
        static __typeof__(&name) real; \
        if (!real) real = REAL(name); \
        return fails_at(kind, fd) ? -1 : real arguments; \
    }

ON_FD(ssize_t, write, WRITE, (int fd, const void *from, size_t size), (fd, from, size))
ON_FD(ssize_t, pwrite, WRITE, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
ON_FD(ssize_t, pwrite64, WRITE, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
ON_FD(ssize_t, writev, WRITE, (int fd, const struct iovec *from, int size), (fd, from, size))
ON_FD(int, fsync, SYNC, (int fd), (fd))
ON_FD(int, fdatasync, SYNC, (int fd), (fd))
ON_FD(int, ftruncate, TRUNCATE, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, TRUNCATE, (int fd, off64_t size), (fd, size))

size_t fwrite(const void *from, size_t size, size_t many, FILE *file) {
    static __typeof__(&fwrite) real;
    if (!real) real = REAL(fwrite);
    return fails_at(WRITE, fileno(file)) ? 0 : real(from, size, many, file);
}

int rename(const char *from, const char *to) {
    static __typeof__(&rename) real;
    if (!real) real = REAL(rename);
    return fails_named(RENAME, AT_FDCWD, to) ? -1 : real(from, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    static __typeof__(&renameat) real;
    if (!real) real = REAL(renameat);
    return fails_named(RENAME, to_at, to) ? -1 : real(from_at, from, to_at, to);
}

#define OPENS(name, at, parameters, arguments) \
    int name parameters { \
        static __typeof__(&name) real; \
        mode_t mode = 0; \
        if (flags & O_CREAT) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (!real) real = REAL(name); \
        return (flags & O_ACCMODE) != O_RDONLY && fails_named(OPEN, at, path) ? -1 : real arguments; \
    }

OPENS(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPENS(openat64, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))

#define FOPENS(name) \
    FILE *name(const char *path, const char *mode) { \
        static __typeof__(&name) real; \
        if (!real) real = REAL(name); \
        return strpbrk(mode, "wa+") && fails_named(OPEN, AT_FDCWD, path) ? NULL : real(path, mode); \
    }

FOPENS(fopen)
FOPENS(fopen64)
