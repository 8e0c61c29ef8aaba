/*
 * fallocate, which programs may call past the C library: a filter of system calls stops each one
 * with SIGSYS, and the handler does it instead, as an operation like the others; or it finds the disk
 * full. A part of `disk.c`, which includes it.
 *
 * The handler's own call carries a sixth argument that the filter lets pass, and that fallocate does
 * not have.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <ucontext.h>

enum { PASSED = 0x4b534944 };

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#define ARGUMENT_0(context) ((context)->uc_mcontext.gregs[REG_RDI])
#define ARGUMENT_1(context) ((context)->uc_mcontext.gregs[REG_RSI])
#define ARGUMENT_2(context) ((context)->uc_mcontext.gregs[REG_RDX])
#define ARGUMENT_3(context) ((context)->uc_mcontext.gregs[REG_R10])
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#define ARGUMENT_0(context) ((context)->uc_mcontext.regs[0])
#define ARGUMENT_1(context) ((context)->uc_mcontext.regs[1])
#define ARGUMENT_2(context) ((context)->uc_mcontext.regs[2])
#define ARGUMENT_3(context) ((context)->uc_mcontext.regs[3])
#else
#error "growth.h knows the registers of x86-64 and of 64-bit ARM alone"
#endif

static long grow(int fd, int mode, off64_t offset, off64_t length) {
    REAL(syscall);
    if (!is_recorded(fd)) {
        long done = real(SYS_fallocate, fd, mode, offset, length, 0L, (long)PASSED);
        return done < 0 ? -errno : done;
    }
    if (mode != 0) unmodelled("fallocate with a mode");
    lock();
    if (finds_it_full(fd)) {
        unlock();
        return -ENOSPC;
    }
    struct stat before = look(fd);
    long done = real(SYS_fallocate, fd, mode, offset, length, 0L, (long)PASSED);
    int why = errno;
    if (done == 0) {
        struct record record = {.inode = before.st_ino, .length = (uint64_t)look(fd).st_size};
        record.size_before = (uint64_t)before.st_size;
        put('T', NULL, NULL, record, NULL, 0);
    }
    unlock();
    return done < 0 ? -why : done;
}

static void caught(int signal, siginfo_t *info, void *context_) {
    (void)signal;
    ucontext_t *context = context_;
    if (info->si_syscall != SYS_fallocate) unmodelled("a call that nobody has stopped");
    int kept = errno;
    RESULT(context) = grow((int)ARGUMENT_0(context), (int)ARGUMENT_1(context),
                           (off64_t)ARGUMENT_2(context), (off64_t)ARGUMENT_3(context));
    errno = kept;
}

static void catch_growth(void) {
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL) != 0) fail("sigaction");
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PASSED, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("PR_SET_NO_NEW_PRIVS");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) fail("PR_SET_SECCOMP");
}
