/*
 * Records what a process does to files, so that a power cut can be replayed at any of its steps, and
 * makes a disk fail: loaded before everything else (LD_PRELOAD) into programs under test, and into
 * nothing else.
 *
 *   DISK_ROOTS      directories, separated by colons; what lies below them is recorded
 *   DISK_LOG        where to: processes may share it, and then what they do stands in it in order
 *   DISK_LINGER_US  how long a sync waits before it begins, so that whoever acknowledges too early
 *                   gets the time to do so
 *   DISK_KILL_AT    SIGKILL comes when the process has added so many records: between two of them, for
 *                   a kill from outside may come between a write and its record
 *   DISK_FAULT      `enospc:N` or `eio:N`: the N-th write, creation or growth of the process fails
 *                   with ENOSPC; its N-th fsync or fdatasync with EIO
 *   DISK_WIRE       a TCP port: what is sent to it and heard from it is recorded as well, so that a
 *                   device can be played on from any moment (wire.h)
 *
 * The log is a row of records: `struct record`, then its names and its data; tests/src/power/log.rs
 * reads it. Each operation and its record happen under one lock, across processes; a sync has a
 * record where it begins and one where it has succeeded, and what others do meanwhile stands
 * between. Every record of a file says how long the file was before. fallocate is called past the C
 * library: a filter of system calls hands it back (growth.h).
 *
 * A call on a recorded file that this does not model ends the process with exit code 99, so that no
 * test takes a recording for whole that is not.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FILES_MAX = 65536, ROOTS_MAX = 8, MAGIC = 0x4b534944 };
enum { IS_READ = 1, IS_WRITTEN = 2, IS_WIRE = 4 };
enum { SYNC_ALL = 0, SYNC_DATA = 1, SYNC_RANGE = 2 };

struct record {
    uint32_t magic;
    uint8_t op;
    uint8_t kind;
    uint16_t name_bytes;
    uint16_t other_name_bytes;
    uint16_t unused;
    uint32_t process;
    uint64_t inode;
    uint64_t offset;
    uint64_t length;
    uint64_t size_before;
    uint64_t data_bytes;
    uint64_t sync;
};
_Static_assert(sizeof(struct record) == 64, "tests/src/power/log.rs reads 64 bytes");

static int log_fd = -1;
static char *roots[ROOTS_MAX];
static int root_count;
static int wire_port;
static long linger_us, enospc_at, eio_at, kill_at, records;
static atomic_long writes, syncs;
static atomic_uchar recorded[FILES_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_ulong sync_count;

static void fail(const char *why) {
    fprintf(stderr, "disk.c: %s: %s\n", why, strerror(errno));
    _exit(99);
}

static void unmodelled(const char *call) {
    fprintf(stderr, "disk.c: %s on a recorded file, which is not modelled\n", call);
    _exit(99);
}

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) fail(name);
    return found;
}

/* The function behind ours, looked up once. */
#define REAL(name)                  \
    static __typeof__(&name) real;  \
    if (!real) real = next(#name)

static long number_behind(const char *text, const char *word) {
    size_t length = strlen(word);
    return text && strncmp(text, word, length) == 0 ? atol(text + length) : 0;
}

static void put(uint8_t op, const char *name, const char *other, struct record record,
                const struct iovec *data, int parts);
static void catch_growth(void);

static int is_below(const char *path, const char *root) {
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int is_ours(const char *path) {
    for (int i = 0; i < root_count; i++)
        if (is_below(path, roots[i])) return 1;
    return 0;
}

/* The path without relative parts that stand in front; `..` within is refused. */
static void absolute(int dir, const char *path, char *out) {
    int length;
    if (path[0] == '/') {
        length = snprintf(out, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX], link[64];
        if (dir == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) fail("getcwd");
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t read = readlink(link, base, sizeof base - 1);
            if (read < 0) {
                /* The call itself will say so. */
                out[0] = 0;
                return;
            }
            base[read] = 0;
        }
        length = snprintf(out, PATH_MAX, "%.2000s/%.2000s", base, path);
    }
    if (length >= PATH_MAX) fail("a path that is too long");
    if (is_ours(out) && (strstr(out, "/../") || strstr(out, "/./"))) unmodelled("a path with dots");
}

static int kind_of(int fd) { return fd >= 0 && fd < FILES_MAX ? atomic_load(&recorded[fd]) : 0; }

static int is_recorded(int fd) { return (kind_of(fd) & (IS_READ | IS_WRITTEN)) != 0; }

static void mark(int fd, int kind) {
    if (fd >= FILES_MAX && kind) fail("a descriptor beyond those that are watched");
    if (fd >= 0 && fd < FILES_MAX) atomic_store(&recorded[fd], (unsigned char)kind);
}

static void lock(void) {
    if (pthread_mutex_lock(&mutex) != 0) fail("the lock");
    if (log_fd < 0) return;
    while (flock(log_fd, LOCK_EX) != 0)
        if (errno != EINTR) fail("flock");
}

static void unlock(void) {
    int kept = errno;
    if (log_fd >= 0 && flock(log_fd, LOCK_UN) != 0) fail("flock");
    if (pthread_mutex_unlock(&mutex) != 0) fail("the lock");
    errno = kept;
}

/* Appends one record. The lock is held. */
static void put(uint8_t op, const char *name, const char *other, struct record record,
                const struct iovec *data, int parts) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = next("writev");
    if (log_fd < 0) return;
    int kept = errno;
    record.magic = MAGIC;
    record.op = op;
    record.process = (uint32_t)getpid();
    record.name_bytes = (uint16_t)(name ? strlen(name) : 0);
    record.other_name_bytes = (uint16_t)(other ? strlen(other) : 0);
    struct iovec all[3 + IOV_MAX];
    int count = 0;
    size_t bytes = 0;
    all[count++] = (struct iovec){&record, sizeof record};
    if (name) all[count++] = (struct iovec){(char *)name, record.name_bytes};
    if (other) all[count++] = (struct iovec){(char *)other, record.other_name_bytes};
    size_t left = record.data_bytes;
    for (int i = 0; i < parts && left > 0; i++) {
        size_t take = data[i].iov_len < left ? data[i].iov_len : left;
        all[count++] = (struct iovec){data[i].iov_base, take};
        left -= take;
    }
    for (int i = 0; i < count; i++) bytes += all[i].iov_len;
    /* One call, which a local file takes whole but for what ends the test anyway. */
    if (count > IOV_MAX) unmodelled("a write of more than 1021 parts");
    ssize_t written = real(log_fd, all, count);
    if (written < 0 || (size_t)written != bytes) fail("the log");
    if (++records == kill_at) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = kept;
}

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("DISK_ROOTS"), *log = getenv("DISK_LOG");
    if (!text) fail("DISK_ROOTS is needed");
    char *copy = strdup(text), *rest = copy, *root;
    while (copy && (root = strsep(&rest, ":")) != NULL) {
        if (root[0] != '/' || root_count == ROOTS_MAX) fail("DISK_ROOTS: a few absolute paths");
        roots[root_count++] = root;
    }
    const char *linger = getenv("DISK_LINGER_US");
    linger_us = linger ? atol(linger) : 0;
    kill_at = getenv("DISK_KILL_AT") ? atol(getenv("DISK_KILL_AT")) : 0;
    enospc_at = number_behind(getenv("DISK_FAULT"), "enospc:");
    eio_at = number_behind(getenv("DISK_FAULT"), "eio:");
    wire_port = getenv("DISK_WIRE") ? atoi(getenv("DISK_WIRE")) : 0;
    if (log) {
        int (*real)(const char *, int, ...) = next("open");
        log_fd = real(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log_fd < 0) fail("DISK_LOG");
    }
    /* Roots that are there already have no record of their creation. */
    for (int i = 0; i < root_count; i++) {
        struct stat stat_;
        if (stat(roots[i], &stat_) != 0) continue;
        lock();
        put('O', roots[i], NULL, (struct record){.inode = stat_.st_ino}, NULL, 0);
        unlock();
    }
    catch_growth();
}

static struct stat look(int fd) {
    struct stat found;
    int kept = errno;
    if (fstat(fd, &found) != 0) fail("fstat");
    errno = kept;
    return found;
}

static void linger(void) {
    struct timespec left = {linger_us / 1000000, linger_us % 1000000 * 1000};
    while (linger_us > 0 && nanosleep(&left, &left) != 0)
        if (errno != EINTR) fail("nanosleep");
}

/* Whether this write, creation or growth is the one that finds the disk full. */
static int finds_it_full(int fd) {
    if (atomic_fetch_add(&writes, 1) + 1 != enospc_at) return 0;
    struct record record = {0};
    if (fd >= 0) record.inode = look(fd).st_ino;
    put('E', "ENOSPC", NULL, record, NULL, 0);
    errno = ENOSPC;
    return 1;
}

/* --- names --- */

static int opened(int (*real)(int, const char *, int, ...), int dir, const char *name, int flags,
                  mode_t mode) {
    char path[PATH_MAX];
    absolute(dir, name, path);
    if (!is_ours(path)) {
        int fd = real(dir, name, flags, mode);
        mark(fd, 0);
        return fd;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) unmodelled("O_TMPFILE");
    if (flags & (O_SYNC | O_DSYNC)) unmodelled("O_SYNC");
    lock();
    struct stat before;
    int kept = errno;
    int was_there = lstat(path, &before) == 0;
    errno = kept;
    if (was_there && S_ISLNK(before.st_mode)) unmodelled("a symbolic link");
    if (!was_there && (flags & O_CREAT) && finds_it_full(-1)) {
        unlock();
        return -1;
    }
    int fd = real(dir, name, flags, mode);
    if (fd >= 0) {
        struct stat found = look(fd);
        mark(fd, (flags & O_ACCMODE) == O_RDONLY ? IS_READ : IS_WRITTEN);
        struct record record = {.inode = found.st_ino};
        if (!was_there) put('C', path, NULL, record, NULL, 0);
        record.size_before = (uint64_t)(was_there ? before.st_size : 0);
        if (was_there && (flags & O_TRUNC)) put('T', NULL, NULL, record, NULL, 0);
    }
    unlock();
    return fd;
}

#define OPEN_AT(name)                                                      \
    int name(int dir, const char *path, int flags, ...) {                  \
        REAL(name);                                                        \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                      \
        return opened(real, dir, path, flags, mode);                       \
    }
OPEN_AT(openat)
OPEN_AT(openat64)

#define OPEN(name, at)                                                     \
    int name(const char *path, int flags, ...) {                           \
        static int (*real)(int, const char *, int, ...);                   \
        if (!real) real = next(#at);                                       \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                      \
        return opened(real, AT_FDCWD, path, flags, mode);                  \
    }
OPEN(open, openat)
OPEN(open64, openat64)

int creat(const char *path, mode_t mode) {
    return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) {
    return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd == log_fd) return 0;
    if (kind_of(fd) == IS_WRITTEN) {
        /* How long it is by now: fallocate may have been the last that was done to it. */
        lock();
        struct stat found = look(fd);
        uint64_t size = (uint64_t)found.st_size;
        put('T', NULL, NULL,
            (struct record){.inode = found.st_ino, .length = size, .size_before = size}, NULL, 0);
        unlock();
    }
    mark(fd, 0);
    return real(fd);
}

/* It closes a descriptor past `close`, whose number the next file or socket may get. */
int closedir(DIR *dir) {
    REAL(closedir);
    mark(dirfd(dir), 0);
    return real(dir);
}

int dup(int fd) {
    REAL(dup);
    int other = real(fd);
    mark(other, kind_of(fd));
    return other;
}

int dup2(int fd, int other) {
    REAL(dup2);
    int got = real(fd, other);
    if (got >= 0) mark(got, kind_of(fd));
    return got;
}

int dup3(int fd, int other, int flags) {
    REAL(dup3);
    int got = real(fd, other, flags);
    if (got >= 0) mark(got, kind_of(fd));
    return got;
}

#define CONTROL(name)                                                      \
    int name(int fd, int command, ...) {                                   \
        REAL(name);                                                        \
        va_list rest;                                                      \
        va_start(rest, command);                                           \
        void *argument = va_arg(rest, void *);                             \
        va_end(rest);                                                      \
        int got = real(fd, command, argument);                             \
        if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) mark(got, kind_of(fd)); \
        return got;                                                        \
    }
CONTROL(fcntl)
CONTROL(fcntl64)

int mkdirat(int dir, const char *name, mode_t mode) {
    REAL(mkdirat);
    char path[PATH_MAX];
    absolute(dir, name, path);
    if (!is_ours(path)) return real(dir, name, mode);
    lock();
    struct stat found;
    if (lstat(path, &found) != 0 && finds_it_full(-1)) {
        unlock();
        return -1;
    }
    int made = real(dir, name, mode);
    if (made == 0) {
        if (stat(path, &found) != 0) fail(path);
        put('M', path, NULL, (struct record){.inode = found.st_ino}, NULL, 0);
    }
    unlock();
    return made;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int dir, const char *name, int flags) {
    REAL(unlinkat);
    char path[PATH_MAX];
    absolute(dir, name, path);
    if (!is_ours(path)) return real(dir, name, flags);
    lock();
    int gone = real(dir, name, flags);
    if (gone == 0) put('U', path, NULL, (struct record){0}, NULL, 0);
    unlock();
    return gone;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int renameat2(int dir, const char *name, int to_dir, const char *to, unsigned flags) {
    REAL(renameat2);
    char path[PATH_MAX], other[PATH_MAX];
    absolute(dir, name, path);
    absolute(to_dir, to, other);
    if (!is_ours(path) && !is_ours(other)) return real(dir, name, to_dir, to, flags);
    if (flags & ~(unsigned)RENAME_NOREPLACE) unmodelled("renameat2 with flags");
    if (!is_ours(path) || !is_ours(other)) unmodelled("a rename out of what is recorded");
    lock();
    int renamed = real(dir, name, to_dir, to, flags);
    if (renamed == 0) put('R', path, other, (struct record){0}, NULL, 0);
    unlock();
    return renamed;
}
int renameat(int dir, const char *name, int to_dir, const char *to) {
    return renameat2(dir, name, to_dir, to, 0);
}
int rename(const char *path, const char *to) {
    return renameat2(AT_FDCWD, path, AT_FDCWD, to, 0);
}

int linkat(int dir, const char *name, int to_dir, const char *to, int flags) {
    REAL(linkat);
    char path[PATH_MAX], other[PATH_MAX];
    absolute(dir, name, path);
    absolute(to_dir, to, other);
    if (!is_ours(path) && !is_ours(other)) return real(dir, name, to_dir, to, flags);
    if (!is_ours(path) || !is_ours(other)) unmodelled("a link out of what is recorded");
    lock();
    struct stat found;
    int kept = errno;
    int was_there = lstat(other, &found) == 0;
    errno = kept;
    if (!was_there && finds_it_full(-1)) {
        unlock();
        return -1;
    }
    int linked = real(dir, name, to_dir, to, flags);
    if (linked == 0) put('L', path, other, (struct record){0}, NULL, 0);
    unlock();
    return linked;
}
int link(const char *path, const char *to) { return linkat(AT_FDCWD, path, AT_FDCWD, to, 0); }

/* A socket has a name as well. */
int bind(int fd, const struct sockaddr *address, socklen_t length) {
    REAL(bind);
    char name[sizeof(struct sockaddr_un) + 1] = "", path[PATH_MAX];
    if (length > offsetof(struct sockaddr_un, sun_path) && address->sa_family == AF_UNIX)
        memcpy(name, ((const struct sockaddr_un *)address)->sun_path,
               length - offsetof(struct sockaddr_un, sun_path));
    if (!name[0]) return real(fd, address, length);
    absolute(AT_FDCWD, name, path);
    if (!is_ours(path)) return real(fd, address, length);
    lock();
    int bound = real(fd, address, length);
    if (bound == 0) put('S', path, NULL, (struct record){0}, NULL, 0);
    unlock();
    return bound;
}

#include "wire.h"

/* --- data --- */

/* Where a write without a place goes. */
static uint64_t place_of(int fd, uint64_t size) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) fail("fcntl");
    if (flags & O_APPEND) return size;
    off_t place = lseek(fd, 0, SEEK_CUR);
    if (place < 0) fail("lseek");
    return (uint64_t)place;
}

#define WRITES(place, call, data, parts)                                   \
    lock();                                                                \
    if (finds_it_full(fd)) {                                               \
        unlock();                                                          \
        return -1;                                                         \
    }                                                                      \
    struct stat found = look(fd);                                          \
    struct record record = {.inode = found.st_ino, .size_before = (uint64_t)found.st_size}; \
    record.offset = (place);                                               \
    ssize_t written = (call);                                              \
    if (written > 0) {                                                     \
        record.data_bytes = (uint64_t)written;                             \
        put('W', NULL, NULL, record, data, parts);                         \
    }                                                                      \
    unlock();                                                              \
    return written

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    if (kind_of(fd) == IS_WIRE) {
        struct iovec part = {(void *)bytes, count};
        SAYS(real(fd, bytes, count), &part, 1);
    }
    if (!is_recorded(fd)) return real(fd, bytes, count);
    struct iovec data = {(void *)bytes, count};
    WRITES(place_of(fd, record.size_before), real(fd, bytes, count), &data, 1);
}

ssize_t writev(int fd, const struct iovec *data, int parts) {
    REAL(writev);
    if (kind_of(fd) == IS_WIRE) {
        SAYS(real(fd, data, parts), data, parts);
    }
    if (!is_recorded(fd)) return real(fd, data, parts);
    WRITES(place_of(fd, record.size_before), real(fd, data, parts), data, parts);
}

#define WRITE_AT(name, type)                                               \
    ssize_t name(int fd, const void *bytes, size_t count, type offset) {   \
        REAL(name);                                                        \
        if (!is_recorded(fd)) return real(fd, bytes, count, offset);       \
        struct iovec data = {(void *)bytes, count};                        \
        if (fcntl(fd, F_GETFL) & O_APPEND) unmodelled("pwrite with O_APPEND"); \
        WRITES((uint64_t)offset, real(fd, bytes, count, offset), &data, 1); \
    }
WRITE_AT(pwrite, off_t)
WRITE_AT(pwrite64, off64_t)

#define WRITE_PARTS_AT(name, type)                                         \
    ssize_t name(int fd, const struct iovec *data, int parts, type offset) { \
        REAL(name);                                                        \
        if (!is_recorded(fd)) return real(fd, data, parts, offset);        \
        if (fcntl(fd, F_GETFL) & O_APPEND) unmodelled("pwritev with O_APPEND"); \
        WRITES((uint64_t)offset, real(fd, data, parts, offset), data, parts); \
    }
WRITE_PARTS_AT(pwritev, off_t)
WRITE_PARTS_AT(pwritev64, off64_t)

static int cut(int (*real)(int, off64_t), int fd, off64_t length) {
    lock();
    struct stat found = look(fd);
    if (length > found.st_size && finds_it_full(fd)) {
        unlock();
        return -1;
    }
    int done = real(fd, length);
    struct record record = {.inode = found.st_ino, .length = (uint64_t)length};
    record.size_before = (uint64_t)found.st_size;
    if (done == 0) put('T', NULL, NULL, record, NULL, 0);
    unlock();
    return done;
}

#define TRUNCATE(name, type)                                               \
    int name(int fd, type length) {                                        \
        REAL(name);                                                        \
        return is_recorded(fd) ? cut(real, fd, length) : real(fd, length); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* --- syncs --- */

static int synced(int fd, uint8_t kind, int (*real)(int), uint64_t offset, uint64_t length,
                  int (*real_range)(int, off64_t, off64_t, unsigned), unsigned flags) {
    linger();
    lock();
    if (kind != SYNC_RANGE && atomic_fetch_add(&syncs, 1) + 1 == eio_at) {
        put('E', "EIO", NULL, (struct record){.inode = look(fd).st_ino}, NULL, 0);
        unlock();
        errno = EIO;
        return -1;
    }
    struct stat found = look(fd);
    struct record record = {.inode = found.st_ino, .kind = kind, .offset = offset, .length = length};
    record.size_before = (uint64_t)found.st_size;
    record.sync = atomic_fetch_add(&sync_count, 1);
    put('B', NULL, NULL, record, NULL, 0);
    unlock();
    int done = real ? real(fd) : real_range(fd, (off64_t)offset, (off64_t)length, flags);
    if (done == 0) {
        lock();
        put('D', NULL, NULL, record, NULL, 0);
        unlock();
    }
    return done;
}

int fsync(int fd) {
    REAL(fsync);
    return is_recorded(fd) ? synced(fd, SYNC_ALL, real, 0, 0, NULL, 0) : real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return is_recorded(fd) ? synced(fd, SYNC_DATA, real, 0, 0, NULL, 0) : real(fd);
}

int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    REAL(sync_file_range);
    if (!is_recorded(fd)) return real(fd, offset, length, flags);
    return synced(fd, SYNC_RANGE, NULL, (uint64_t)offset, (uint64_t)length, real, flags);
}

#include "growth.h"
#include "refused.h"
