/*
 * Kills its own process at a chosen step of one commit of the agent's write-ahead log: loaded before
 * everything else (LD_PRELOAD) into a `tributary-agent` under test, and into nothing else.
 *
 * A commit is a frame that the thread `wal` writes into a file below a folder `wal`, its fdatasync,
 * and the acknowledgements that leave then. Commits are counted from the start of the process; of
 * number KILL_AT, KILL_POINT says what is still done:
 *
 *   unsynced   the write is held back, and SIGKILL comes in the place of the fdatasync: what was
 *              written and not synced is gone, as after a power cut
 *   torn       the same, but the first half of the frame is written
 *   written    all of it is written, and SIGKILL comes in the place of the fdatasync
 *   synced     SIGKILL comes when the fdatasync has returned, before anybody knows that it has
 *   acked      SIGKILL comes when the next PUBACK, PUBREC or PUBCOMP was handed to the system
 *
 * Before it dies it adds a line `<point> <commit>` to KILL_LOG, with one write. Anything that is not
 * as expected here ends the process with exit code 99, so that no test takes it for a kill.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SEGMENT_HEADER_BYTES = 4096, PUBACK = 0x40, PUBREC = 0x50, PUBCOMP = 0x70 };

static const char *point = "";
static long kill_at;
static const char *kill_log;
/* Both are touched by the thread `wal` alone. */
static long commits;
static int pending_fd = -1;
/* Set by the thread `wal`, seen by those that send. */
static atomic_bool is_due_at_ack;
/* Several threads may send at once, and the process dies once. */
static atomic_flag is_dying = ATOMIC_FLAG_INIT;

static void fail(const char *why) {
    fprintf(stderr, "kill.c: %s\n", why);
    _exit(99);
}

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) fail(name);
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("KILL_AT");
    point = getenv("KILL_POINT");
    kill_log = getenv("KILL_LOG");
    if (!at || !point || !kill_log) fail("KILL_POINT, KILL_AT and KILL_LOG are needed");
    kill_at = atol(at);
}

static int is(const char *name) { return strcmp(point, name) == 0; }

static void die(void) {
    if (atomic_flag_test_and_set(&is_dying))
        for (;;) pause();
    char line[64];
    int length = snprintf(line, sizeof line, "%s %ld\n", point, kill_at);
    int log = open(kill_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || write(log, line, (size_t)length) != length) fail("KILL_LOG");
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* A disk is slow: whoever acknowledges too early gets the time to do so. */
static void linger(void) {
    struct timespec wait = {0, 3 * 1000 * 1000};
    nanosleep(&wait, NULL);
}

static int is_frame(int fd, off_t offset) {
    char name[16] = "", link[64], path[4096];
    if (offset < SEGMENT_HEADER_BYTES) return 0;
    prctl(PR_GET_NAME, name);
    if (strcmp(name, "wal") != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) fail("a file without a name");
    path[length] = 0;
    return strstr(path, "/wal/") != NULL;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = next("pwrite64");
    if (!is_frame(fd, offset)) return real(fd, bytes, count, offset);
    commits++;
    pending_fd = fd;
    if (commits == kill_at && is("unsynced")) return (ssize_t)count;
    if (commits == kill_at && is("torn")) {
        if (real(fd, bytes, count / 2, offset) != (ssize_t)(count / 2)) fail("pwrite64");
        return (ssize_t)count;
    }
    return real(fd, bytes, count, offset);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = next("fdatasync");
    /* The number is the thread's own once its name is right, which is_frame has seen to. */
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    int is_commit = strcmp(name, "wal") == 0 && fd == pending_fd;
    if (!is_commit) return real(fd);
    pending_fd = -1;
    if (commits != kill_at) return real(fd);
    if (is("unsynced") || is("torn") || is("written")) {
        linger();
        die();
    }
    int synced = real(fd);
    if (synced != 0) fail("fdatasync");
    if (is("synced")) {
        linger();
        die();
    }
    atomic_store(&is_due_at_ack, 1);
    return synced;
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    static ssize_t (*real)(int, const void *, size_t, int);
    if (!real) real = next("send");
    ssize_t sent = real(fd, bytes, count, flags);
    unsigned char first = count > 0 ? *(const unsigned char *)bytes : 0;
    if (sent > 0 && (first == PUBACK || first == PUBREC || first == PUBCOMP) &&
        atomic_load(&is_due_at_ack))
        die();
    return sent;
}
