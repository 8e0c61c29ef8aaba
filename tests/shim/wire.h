/*
 * What a process says and hears on its connections to one port, in the order in which it stands to
 * what is done to files: bytes that were handed to the system, and bytes that were read. A part of
 * `disk.c`, which includes it.
 *
 * A device has said a byte once its record stands there, and no program can have written down what
 * it made of it before: both happen under the lock. It has heard one when its record stands there,
 * and that may be later than it was sent, as on any network.
 */
static atomic_ulong connections;
static atomic_ulong connection_of[FILES_MAX];

/* A record of the connection behind a descriptor. The lock is held. */
static void put_wire(uint8_t op, int fd, ssize_t bytes, const struct iovec *data, int parts) {
    struct record record = {.inode = atomic_load(&connection_of[fd])};
    record.data_bytes = bytes > 0 ? (uint64_t)bytes : 0;
    put(op, NULL, NULL, record, data, parts);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    REAL(connect);
    const struct sockaddr_in *to = (const struct sockaddr_in *)address;
    int is_ours_ = wire_port && length >= sizeof *to && address->sa_family == AF_INET &&
                   ntohs(to->sin_port) == wire_port && log_fd >= 0;
    if (!is_ours_) return real(fd, address, length);
    mark(fd, IS_WIRE);
    atomic_store(&connection_of[fd], atomic_fetch_add(&connections, 1));
    lock();
    int done = real(fd, address, length);
    put_wire('K', fd, 0, NULL, 0);
    unlock();
    return done;
}

#define SAYS(call, data, parts)                                            \
    lock();                                                                \
    ssize_t said = (call);                                                 \
    if (said > 0) put_wire('N', fd, said, data, parts);                    \
    unlock();                                                              \
    return said

#define HEARS(call, data, parts)                                           \
    ssize_t heard = (call);                                                \
    if (heard > 0 && kind_of(fd) == IS_WIRE) {                             \
        lock();                                                            \
        put_wire('V', fd, heard, data, parts);                             \
        unlock();                                                          \
    }                                                                      \
    return heard

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    REAL(send);
    if (kind_of(fd) != IS_WIRE) return real(fd, bytes, count, flags);
    struct iovec part = {(void *)bytes, count};
    SAYS(real(fd, bytes, count, flags), &part, 1);
}

ssize_t recv(int fd, void *bytes, size_t count, int flags) {
    REAL(recv);
    if (flags & MSG_PEEK) return real(fd, bytes, count, flags);
    struct iovec part = {bytes, count};
    HEARS(real(fd, bytes, count, flags), &part, 1);
}

ssize_t read(int fd, void *bytes, size_t count) {
    REAL(read);
    struct iovec part = {bytes, count};
    HEARS(real(fd, bytes, count), &part, 1);
}

ssize_t readv(int fd, const struct iovec *data, int parts) {
    REAL(readv);
    HEARS(real(fd, data, parts), data, parts);
}
