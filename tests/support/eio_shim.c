/* Preloaded into a farm under test: while a switch file exists, calls on the files below one folder fail.
 *
 * EIO_PREFIX  what the paths of those files begin with
 * EIO_SWITCH  the file whose existence makes them fail. It holds the number of the error, then the calls that are to
 *             fail: read, write, sync, truncate, open. "5 write sync"
 *
 * Nothing is kept between two calls, so that a file may be switched at any moment and in every process at once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Which error this kind of call is to have now; 0: none. */
static int fault(const char *kind) {
    const char *path = getenv("EIO_SWITCH");
    char text[128];
    if (path == NULL || getenv("EIO_PREFIX") == NULL) return 0;
    int kept = errno, found = 0;
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        long length = syscall(SYS_read, (int)fd, text, sizeof text - 1);
        syscall(SYS_close, (int)fd);
        if (length > 0) {
            text[length] = 0;
            if (strstr(text, kind) != NULL) found = atoi(text);
        }
    }
    errno = kept;
    return found;
}

static int below(const char *path) {
    const char *prefix = getenv("EIO_PREFIX");
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

static int fails(const char *kind, int fd) {
    int error = fault(kind);
    if (error == 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!below(path)) return 0;
    errno = error;
    return 1;
}

#define REAL(name) static __typeof__(&name) real; if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *to, size_t n) { REAL(read); return fails("read", fd) ? -1 : real(fd, to, n); }
ssize_t pread(int fd, void *to, size_t n, off_t at) { REAL(pread); return fails("read", fd) ? -1 : real(fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) { REAL(pread64); return fails("read", fd) ? -1 : real(fd, to, n, at); }
ssize_t write(int fd, const void *from, size_t n) { REAL(write); return fails("write", fd) ? -1 : real(fd, from, n); }
ssize_t writev(int fd, const struct iovec *from, int n) { REAL(writev); return fails("write", fd) ? -1 : real(fd, from, n); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) { REAL(pwrite); return fails("write", fd) ? -1 : real(fd, from, n, at); }
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) { REAL(pwrite64); return fails("write", fd) ? -1 : real(fd, from, n, at); }
int fsync(int fd) { REAL(fsync); return fails("sync", fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return fails("sync", fd) ? -1 : real(fd); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); return fails("truncate", fd) ? -1 : real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); return fails("truncate", fd) ? -1 : real(fd, n); }

static int may_open(const char *path) {
    int error = fault("open");
    if (error == 0 || !below(path)) return 1;
    errno = error;
    return 0;
}

#define MODE(flags) mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { REAL(open); MODE(flags); return may_open(path) ? real(path, flags, mode) : -1; }
int open64(const char *path, int flags, ...) { REAL(open64); MODE(flags); return may_open(path) ? real(path, flags, mode) : -1; }
