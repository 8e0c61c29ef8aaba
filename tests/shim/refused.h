/*
 * Calls that `disk.c` does not model: on a recorded file each of them ends the process. A part of
 * `disk.c`, which includes it.
 */
/* C streams are written past us; nothing of ours uses them for what must survive. */
#define STREAM(name)                                                       \
    FILE *name(const char *path, const char *mode) {                       \
        REAL(name);                                                        \
        char full[PATH_MAX];                                               \
        absolute(AT_FDCWD, path, full);                                    \
        if (is_ours(full) && strpbrk(mode, "wa+")) unmodelled(#name);      \
        return real(path, mode);                                           \
    }
STREAM(fopen)
STREAM(fopen64)

int symlinkat(const char *target, int dir, const char *name) {
    REAL(symlinkat);
    char path[PATH_MAX];
    absolute(dir, name, path);
    if (is_ours(path)) unmodelled("symlink");
    return real(target, dir, name);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int truncate64(const char *path, off64_t length) {
    REAL(truncate64);
    char full[PATH_MAX];
    absolute(AT_FDCWD, path, full);
    if (is_ours(full)) unmodelled("truncate");
    return real(path, length);
}
int truncate(const char *path, off_t length) { return truncate64(path, length); }

#define REFUSE(result, name, parameters, arguments, fd)                    \
    result name parameters {                                               \
        REAL(name);                                                        \
        if (is_recorded(fd)) unmodelled(#name);                            \
        return real arguments;                                             \
    }
REFUSE(int, posix_fallocate, (int fd, off_t offset, off_t length), (fd, offset, length), fd)
REFUSE(int, posix_fallocate64, (int fd, off64_t offset, off64_t length), (fd, offset, length), fd)
REFUSE(ssize_t, pwritev2, (int fd, const struct iovec *data, int parts, off_t offset, int flags),
       (fd, data, parts, offset, flags), fd)
REFUSE(ssize_t, pwritev64v2,
       (int fd, const struct iovec *data, int parts, off64_t offset, int flags),
       (fd, data, parts, offset, flags), fd)
REFUSE(ssize_t, copy_file_range,
       (int from, off64_t *place, int fd, off64_t *to_place, size_t length, unsigned flags),
       (from, place, fd, to_place, length, flags), fd)
REFUSE(ssize_t, splice,
       (int from, off64_t *place, int fd, off64_t *to_place, size_t length, unsigned flags),
       (from, place, fd, to_place, length, flags), fd)
REFUSE(int, syncfs, (int fd), (fd), fd)

#include <sys/sendfile.h>
REFUSE(ssize_t, sendfile, (int fd, int from, off_t *place, size_t length),
       (fd, from, place, length), fd)
REFUSE(ssize_t, sendfile64, (int fd, int from, off64_t *place, size_t length),
       (fd, from, place, length), fd)

#define MAP(name, type)                                                    \
    void *name(void *at, size_t length, int protection, int flags, int fd, type offset) { \
        REAL(name);                                                        \
        if (is_recorded(fd) && (flags & MAP_SHARED) && (protection & PROT_WRITE)) \
            unmodelled(#name);                                             \
        return real(at, length, protection, flags, fd, offset);            \
    }
MAP(mmap, off_t)
MAP(mmap64, off64_t)

/* Past the wrappers above, io_uring could write, and so could any call by its number. */
long syscall(long call, ...) {
    REAL(syscall);
    long given[6];
    va_list rest;
    va_start(rest, call);
    for (int i = 0; i < 6; i++) given[i] = va_arg(rest, long);
    va_end(rest);
    switch (call) {
        case SYS_io_uring_setup: unmodelled("io_uring"); break;
        case SYS_write: case SYS_pwrite64: case SYS_writev: case SYS_pwritev: case SYS_ftruncate:
        case SYS_fsync: case SYS_fdatasync: case SYS_fallocate:
            if (is_recorded((int)given[0])) unmodelled("a call by its number");
            break;
        case SYS_copy_file_range: case SYS_splice:
            if (is_recorded((int)given[2])) unmodelled("a copy by its number");
            break;
        default: break;
    }
    return real(call, given[0], given[1], given[2], given[3], given[4], given[5]);
}
