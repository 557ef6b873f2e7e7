/* What chaos does to one process from inside, loaded before libc (see inside.py):

   The wall clock is off by what the file CHAOS_CLOCK holds, an int64 of nanoseconds, from the moment it is written. The steady
   clock is the machine's. Who waits until a time of day waits by the wrong clock, also if it is set meanwhile: the kernel does so.
   (libfaketime knows nothing of waits that last, nor of C11's, which librdkafka's are; and kill -9 leaves its semaphores behind.)

   Below the folder CHAOS_DISK the disk is full while the file CHAOS_FULL exists. If it holds "b", there is no new block: what is
   there can be written over, a file can be made, a write may be short. Else nothing is made, written, renamed or flushed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define SECOND 1000000000LL
#define SLICE (SECOND / 4)
#define BLOCK 4096

static volatile int64_t *offset;
static const char *disk, *flag;

__attribute__((constructor)) static void begin(void) {
    const char *clock = getenv("CHAOS_CLOCK");
    int fd = clock ? open(clock, O_RDONLY) : -1;
    if (fd >= 0) {
        void *at = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED) offset = at;
        close(fd);
    }
    flag = getenv("CHAOS_FULL");
    disk = getenv("CHAOS_DISK");
}

/* The clock */

static int64_t real_now(void) {
    struct timespec at;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &at);
    return at.tv_sec * SECOND + at.tv_nsec;
}

static int64_t now(void) { return real_now() + (offset ? *offset : 0); }

static struct timespec timespec_of(int64_t ns) { return (struct timespec){ns / SECOND, ns % SECOND}; }

int clock_gettime(clockid_t id, struct timespec *at) {
    if (offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        *at = timespec_of(now());
        return 0;
    }
    NEXT(clock_gettime);
    return next ? next(id, at) : (int)syscall(SYS_clock_gettime, id, at);
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    int64_t ns = now();
    *at = (struct timeval){ns / SECOND, ns % SECOND / 1000};
    return 0;
}

time_t time(time_t *at) {
    time_t s = now() / SECOND;
    if (at) *at = s;
    return s;
}

/* In short waits, so that a jump counts. After each the caller looks again, as after any spurious wake-up: to wait on here
   would lose a signal that falls between two of them. For conditions on the wall clock, which librdkafka's are. */
#define SLICED(name, cond_type, mutex_type, timed_out, version)                                                   \
    int name(cond_type *restrict cond, mutex_type *restrict mutex, const struct timespec *restrict until) {       \
        static __typeof__(&name) next;                                                                            \
        /* dlsym may find the oldest version, whose conditions are laid out otherwise. */                         \
        if (!next) next = (__typeof__(next))dlvsym(RTLD_NEXT, #name, version);                                    \
        if (!next) next = (__typeof__(next))dlsym(RTLD_NEXT, #name);                                              \
        if (!offset) return next(cond, mutex, until);                                                             \
        int64_t left = until->tv_sec * SECOND + until->tv_nsec - now();                                           \
        struct timespec slice = timespec_of(real_now() + (left > SLICE ? SLICE : left));                          \
        int code = next(cond, mutex, &slice);                                                                     \
        return code == timed_out && left > SLICE ? 0 : code;                                                      \
    }
SLICED(pthread_cond_timedwait, pthread_cond_t, pthread_mutex_t, ETIMEDOUT, "GLIBC_2.3.2")
SLICED(cnd_timedwait, cnd_t, mtx_t, thrd_timedout, "GLIBC_2.28")

/* The disk */

/* 0, or how full it is. */
static char full(void) {
    int kept = errno, fd = flag && disk ? (int)syscall(SYS_openat, AT_FDCWD, flag, O_RDONLY | O_CLOEXEC) : -1;
    char how = 0;
    if (fd >= 0) {
        if (syscall(SYS_read, fd, &how, 1) != 1) how = 'a';
        close(fd);
    }
    errno = kept;
    return how;
}

static int is_below(const char *path) {
    size_t length = strlen(disk);
    return !strncmp(path, disk, length) && (path[length] == '/' || !path[length]);
}

static char full_at(const char *path) {
    char how = full();
    return how && is_below(path) ? how : 0;
}

static char full_of(int fd) {
    char how = full(), link[64], path[PATH_MAX];
    if (!how) return 0;
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path) ? how : 0;
}

static int no_space(void) {
    errno = ENOSPC;
    return -1;
}

/* How many of these bytes have a place; at -1: where the file stands. */
static size_t room(int fd, off64_t at, size_t bytes) {
    char how = full_of(fd), link[64];
    struct stat64 about;
    if (!how) return bytes;
    if (how != 'b' || fstat64(fd, &about)) return 0;
    if (at < 0) at = fcntl(fd, F_GETFL) & O_APPEND ? about.st_size : lseek64(fd, 0, SEEK_CUR);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    /* A description of its own, so that the file's position stays. */
    int other = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    off64_t hole = other < 0 ? -1 : lseek64(other, at, SEEK_HOLE);
    if (other >= 0) close(other);
    if (hole < 0) hole = about.st_size;
    if (hole == at && at < about.st_size) return 0;
    /* The last block is there as a whole. */
    hole = (hole + BLOCK - 1) / BLOCK * BLOCK;
    if (hole <= at) return 0;
    return (size_t)(hole - at) < bytes ? (size_t)(hole - at) : bytes;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    NEXT(write);
    size_t most = room(fd, -1, bytes);
    return bytes && !most ? no_space() : next(fd, data, most);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    if (!full_of(fd)) return next(fd, parts, count);
    while (count > 1 && !parts->iov_len) parts++, count--;
    return write(fd, parts->iov_base, parts->iov_len);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at) {
    NEXT(pwrite64);
    size_t most = room(fd, at, bytes);
    return bytes && !most ? no_space() : next(fd, data, most, at);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) { return pwrite64(fd, data, bytes, at); }

static int may_not_open(const char *path, int flags) {
    char how = flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE ? full_at(path) : 0;
    return how && how != 'b' && ((flags & O_TMPFILE) == O_TMPFILE || access(path, F_OK));
}

#define OPEN(name, parameters, path, ...)                          \
    int name parameters {                                          \
        NEXT(name);                                                \
        va_list rest;                                              \
        va_start(rest, flags);                                     \
        mode_t mode = va_arg(rest, mode_t);                        \
        va_end(rest);                                              \
        return may_not_open(path, flags) ? no_space() : next(__VA_ARGS__, mode); \
    }
OPEN(open, (const char *path, int flags, ...), path, path, flags)
OPEN(open64, (const char *path, int flags, ...), path, path, flags)
OPEN(openat, (int at, const char *path, int flags, ...), path, at, path, flags)
OPEN(openat64, (int at, const char *path, int flags, ...), path, at, path, flags)

#define UNLESS_FULL(name, parameters, how, ...)                    \
    int name parameters {                                          \
        NEXT(name);                                                \
        char found = how;                                          \
        return found && found != 'b' ? no_space() : next(__VA_ARGS__); \
    }
UNLESS_FULL(mkdir, (const char *path, mode_t mode), full_at(path), path, mode)
UNLESS_FULL(rename, (const char *from, const char *to), full_at(to), from, to)
UNLESS_FULL(link, (const char *from, const char *to), full_at(to), from, to)
UNLESS_FULL(linkat, (int at, const char *from, int below, const char *to, int flags), full_at(to), at, from, below, to, flags)
UNLESS_FULL(ftruncate, (int fd, off_t to), full_of(fd), fd, to)
UNLESS_FULL(ftruncate64, (int fd, off64_t to), full_of(fd), fd, to)
UNLESS_FULL(fsync, (int fd), full_of(fd), fd)
UNLESS_FULL(fdatasync, (int fd), full_of(fd), fd)
