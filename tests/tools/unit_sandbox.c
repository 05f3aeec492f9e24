/* Runs a program under the system call rules of the packaged unit: unit_sandbox ALLOWED PROGRAM...
 *
 * ALLOWED is a file of numbers, one a line: what SystemCallFilter= allows; the rest is EPERM, as
 * SystemCallErrorNumber= says. The other rules of the unit that systemd builds from system calls
 * are here too: RestrictAddressFamilies=AF_UNIX, RestrictNamespaces=, RestrictSUIDSGID=.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD_NUMBER BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define LOAD_ARGUMENT(n) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]))
#define RETURN_ERROR(e) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (e))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define NAMESPACES 0x7e020080u
#define SET_ID_BITS 06000u

static struct sock_filter rules[4000];
static unsigned count;

static void add(struct sock_filter rule) {
    if (count == sizeof rules / sizeof *rules) {
        fprintf(stderr, "too many rules\n");
        exit(125);
    }
    rules[count++] = rule;
}

/* If it is call `number` and argument `n` has one of `bits`: the error. */
static void refuse_bits(long number, int n, unsigned bits, int error) {
    add((struct sock_filter)LOAD_NUMBER);
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3));
    add((struct sock_filter)LOAD_ARGUMENT(n));
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1));
    add((struct sock_filter)RETURN_ERROR(error));
}

static void refuse_other(long number, int n, unsigned only, int error) {
    add((struct sock_filter)LOAD_NUMBER);
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3));
    add((struct sock_filter)LOAD_ARGUMENT(n));
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, only, 1, 0));
    add((struct sock_filter)RETURN_ERROR(error));
}

static void refuse(long number, int error) {
    add((struct sock_filter)LOAD_NUMBER);
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1));
    add((struct sock_filter)RETURN_ERROR(error));
}

int main(int argc, char **argv) {
    FILE *allowed = argc > 2 ? fopen(argv[1], "r") : NULL;
    unsigned number;
    if (allowed == NULL) {
        fprintf(stderr, "usage: unit_sandbox ALLOWED PROGRAM...\n");
        return 125;
    }
    refuse(SYS_clone3, ENOSYS); /* its flags cannot be seen; glibc goes on with clone */
    refuse_bits(SYS_clone, 0, NAMESPACES, EPERM);
    refuse_bits(SYS_unshare, 0, NAMESPACES, EPERM);
    refuse(SYS_setns, EPERM);
    refuse_other(SYS_socket, 0, 1 /* AF_UNIX */, EAFNOSUPPORT);
    refuse_bits(SYS_fchmod, 1, SET_ID_BITS, EPERM);
    refuse_bits(SYS_fchmodat, 2, SET_ID_BITS, EPERM);
    refuse_bits(SYS_mkdirat, 2, SET_ID_BITS, EPERM);
#ifdef SYS_chmod
    refuse_bits(SYS_chmod, 1, SET_ID_BITS, EPERM);
#endif
#ifdef SYS_mkdir
    refuse_bits(SYS_mkdir, 1, SET_ID_BITS, EPERM);
#endif
    add((struct sock_filter)LOAD_NUMBER);
    while (fscanf(allowed, "%u", &number) == 1) {
        add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
        add((struct sock_filter)ALLOW);
    }
    add((struct sock_filter)RETURN_ERROR(EPERM));
    fclose(allowed);
    struct sock_fprog program = {.len = (unsigned short)count, .filter = rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("seccomp");
        return 125;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 126;
}
