/*
 * Makes a disk slow: every fsync and fdatasync of the process takes SLOW_SYNC_MS milliseconds more.
 * Loaded before everything else (LD_PRELOAD) into a `tributary-agent` under test, and into nothing
 * else. Anything that is not as expected here ends the process with exit code 99.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct timespec delay;

static void fail(const char *why) {
    fprintf(stderr, "slow.c: %s\n", why);
    _exit(99);
}

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("SLOW_SYNC_MS");
    long ms = text ? atol(text) : 0;
    if (ms <= 0) fail("SLOW_SYNC_MS is needed");
    delay.tv_sec = ms / 1000;
    delay.tv_nsec = ms % 1000 * 1000 * 1000;
}

static int slowly(const char *name, int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    if (!real) fail(name);
    struct timespec left = delay;
    while (nanosleep(&left, &left) != 0)
        if (errno != EINTR) fail("nanosleep");
    return real(fd);
}

int fsync(int fd) { return slowly("fsync", fd); }

int fdatasync(int fd) { return slowly("fdatasync", fd); }
