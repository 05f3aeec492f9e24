/* Faults for tests: an LD_PRELOAD library that lets chosen calls of libc fail.
 *
 * Everything it does is told by one page of memory, a file named by STILLWATCH_FAULT_PAGE that
 * is mapped and shared by all processes of a test (tests/faults/injection.py writes it). A rule
 * names calls and a folder; the library counts such calls on files below it and, at the Nth,
 * kills the process, returns an error, writes a part only, or waits. The page can also shift the
 * wall clock. Without the variable, and without rules, every call just goes through.
 *
 * Not seen: changes through mmap, calls that bypass libc, and what libc calls by itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define RULES 4
#define PATH_BYTES 4096

enum action { NOTHING, SIGNAL, ERROR, SHORT, DELAY };
enum outcome { PASS, FAIL, CUT };

struct rule {
    char calls[256];      /* names and groups, ",write,sync,"; empty: the rule is off */
    char below[PATH_BYTES]; /* a folder, or one file */
    uint64_t first;       /* the first call that is hit, counted from 1; 0: none */
    uint64_t last;        /* the last one */
    uint32_t action;
    uint32_t argument;    /* signal, errno or milliseconds */
    uint64_t seen;
    uint64_t hits;
    char call[32];        /* of the newest hit */
    char path[PATH_BYTES];
};

struct page {
    int64_t clock_offset_ns; /* added to the wall clock */
    struct rule rules[RULES];
};

static struct page *page;

__attribute__((constructor)) static void map_page(void)
{
    const char *name = getenv("STILLWATCH_FAULT_PAGE");
    if (!name || page)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return; /* the test is over: its last children run on undisturbed */
    struct stat status;
    if (fstat(fd, &status) != 0 || (size_t)status.st_size != sizeof(struct page)) {
        static const char text[] = "injector: the page has another layout\n";
        syscall(SYS_write, 2, text, sizeof text - 1);
        _exit(99);
    }
    void *mapped = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (mapped != MAP_FAILED)
        page = mapped;
}

/* ---- which file a call is about ---------------------------------------------------------- */

static int has_word(const char *words, const char *word)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, ",%s,", word);
    return strstr(words, wanted) != NULL;
}

static int names_call(const struct rule *rule, const char *call, const char *group)
{
    return rule->calls[0] && (has_word(rule->calls, call) || has_word(rule->calls, group));
}

static int is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return length && strncmp(path, folder, length) == 0 &&
           (path[length] == '\0' || path[length] == '/');
}

static void link_of(const char *link, char *out)
{
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_BYTES - 1);
    out[length < 0 ? 0 : length] = '\0';
}

/* The path of an open regular file or folder; empty for a pipe, socket or device. */
static void path_of_fd(int fd, char *out)
{
    struct stat status;
    char link[64];
    out[0] = '\0';
    if (fstat(fd, &status) != 0 || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    link_of(link, out);
}

static void path_of_name(int directory, const char *name, char *out)
{
    if (!name || name[0] == '\0') {
        path_of_fd(directory, out);
        return;
    }
    if (name[0] == '/') {
        snprintf(out, PATH_BYTES, "%s", name);
        return;
    }
    if (directory == AT_FDCWD)
        link_of("/proc/self/cwd", out);
    else
        path_of_fd(directory, out);
    size_t length = strlen(out);
    snprintf(out + length, PATH_BYTES - length, "/%s", name);
}

/* ---- what becomes of a call -------------------------------------------------------------- */

static void wait_milliseconds(uint32_t milliseconds)
{
    struct timespec pause = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    syscall(SYS_nanosleep, &pause, NULL);
}

static enum outcome hit(struct rule *rule, const char *call, const char *path)
{
    snprintf(rule->call, sizeof rule->call, "%s", call);
    snprintf(rule->path, sizeof rule->path, "%s", path);
    __atomic_add_fetch(&rule->hits, 1, __ATOMIC_SEQ_CST);
    switch ((enum action)rule->action) {
    case SIGNAL:
        syscall(SYS_kill, syscall(SYS_getpid), rule->argument);
        return PASS; /* after SIGSTOP and SIGCONT it goes on */
    case ERROR:
        errno = (int)rule->argument;
        return FAIL;
    case SHORT:
        return CUT;
    case DELAY:
        wait_milliseconds(rule->argument);
        return PASS;
    default:
        return PASS;
    }
}

/* One or two files, each as (descriptor, name): a call counts where either is below the folder. */
static enum outcome judge(const char *call, const char *group, int fd, const char *name, int fd2,
                          const char *name2)
{
    int saved = errno;
    enum outcome outcome = PASS;
    char path[PATH_BYTES] = "", path2[PATH_BYTES] = "";
    int resolved = 0;
    if (!page)
        return PASS;
    for (int i = 0; i < RULES; i++) {
        struct rule *rule = &page->rules[i];
        if (!names_call(rule, call, group))
            continue;
        if (!resolved) {
            path_of_name(fd, name, path);
            if (name2)
                path_of_name(fd2, name2, path2);
            resolved = 1;
        }
        int first = is_below(path, rule->below);
        if (!first && !is_below(path2, rule->below))
            continue;
        uint64_t number = __atomic_add_fetch(&rule->seen, 1, __ATOMIC_SEQ_CST);
        if (rule->first && number >= rule->first && number <= rule->last) {
            enum outcome verdict = hit(rule, call, first ? path : path2);
            if (verdict != PASS) {
                if (verdict == FAIL)
                    saved = errno;
                outcome = verdict;
            }
        }
    }
    errno = saved;
    return outcome;
}

#define NEXT(name)                                                                             \
    static __typeof__(&name) next;                                                             \
    if (!next)                                                                                 \
    next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_FD(call, group, fd) judge(call, group, fd, NULL, -1, NULL)
#define ON_NAME(call, group, dir, name) judge(call, group, dir, name, -1, NULL)
#define REFUSE_FD(call, group, fd)                                                             \
    if (ON_FD(call, group, fd) == FAIL)                                                        \
    return -1
#define REFUSE_NAME(call, group, dir, name)                                                    \
    if (ON_NAME(call, group, dir, name) == FAIL)                                               \
    return -1
#define REFUSE_TWO(call, dir, name, dir2, name2)                                               \
    if (judge(call, "change", dir, name, dir2, name2) == FAIL)                                 \
    return -1

/* ---- names ------------------------------------------------------------------------------- */

int rename(const char *from, const char *to)
{
    NEXT(rename);
    REFUSE_TWO("rename", AT_FDCWD, from, AT_FDCWD, to);
    return next(from, to);
}

int renameat(int dir, const char *from, int dir2, const char *to)
{
    NEXT(renameat);
    REFUSE_TWO("rename", dir, from, dir2, to);
    return next(dir, from, dir2, to);
}

int renameat2(int dir, const char *from, int dir2, const char *to, unsigned int flags)
{
    NEXT(renameat2);
    REFUSE_TWO("rename", dir, from, dir2, to);
    return next(dir, from, dir2, to, flags);
}

int link(const char *from, const char *to)
{
    NEXT(link);
    REFUSE_TWO("link", AT_FDCWD, from, AT_FDCWD, to);
    return next(from, to);
}

int linkat(int dir, const char *from, int dir2, const char *to, int flags)
{
    NEXT(linkat);
    REFUSE_TWO("link", dir, from, dir2, to);
    return next(dir, from, dir2, to, flags);
}

int symlink(const char *content, const char *name)
{
    NEXT(symlink);
    REFUSE_NAME("symlink", "change", AT_FDCWD, name);
    return next(content, name);
}

int symlinkat(const char *content, int dir, const char *name)
{
    NEXT(symlinkat);
    REFUSE_NAME("symlink", "change", dir, name);
    return next(content, dir, name);
}

int unlink(const char *name)
{
    NEXT(unlink);
    REFUSE_NAME("unlink", "change", AT_FDCWD, name);
    return next(name);
}

int unlinkat(int dir, const char *name, int flags)
{
    NEXT(unlinkat);
    REFUSE_NAME("unlink", "change", dir, name);
    return next(dir, name, flags);
}

int remove(const char *name)
{
    NEXT(remove);
    REFUSE_NAME("unlink", "change", AT_FDCWD, name);
    return next(name);
}

int rmdir(const char *name)
{
    NEXT(rmdir);
    REFUSE_NAME("rmdir", "change", AT_FDCWD, name);
    return next(name);
}

int mkdir(const char *name, mode_t mode)
{
    NEXT(mkdir);
    REFUSE_NAME("mkdir", "change", AT_FDCWD, name);
    return next(name, mode);
}

int mkdirat(int dir, const char *name, mode_t mode)
{
    NEXT(mkdirat);
    REFUSE_NAME("mkdir", "change", dir, name);
    return next(dir, name, mode);
}

/* ---- opening ----------------------------------------------------------------------------- */

#define CREATING (O_CREAT | O_TRUNC)
#define HAS_MODE(flags) (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE)
#define REFUSE_OPEN(dir, name, flags)                                                          \
    REFUSE_NAME((flags) & CREATING ? "create" : "open", (flags) & CREATING ? "change" : "open", \
                dir, name)
#define MODE(last)                                                                             \
    mode_t mode = 0;                                                                           \
    if (HAS_MODE(flags)) {                                                                     \
        va_list rest;                                                                          \
        va_start(rest, last);                                                                  \
        mode = va_arg(rest, mode_t);                                                           \
        va_end(rest);                                                                          \
    }

int open(const char *name, int flags, ...)
{
    NEXT(open);
    MODE(flags)
    REFUSE_OPEN(AT_FDCWD, name, flags);
    return next(name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    NEXT(open64);
    MODE(flags)
    REFUSE_OPEN(AT_FDCWD, name, flags);
    return next(name, flags, mode);
}

int openat(int dir, const char *name, int flags, ...)
{
    NEXT(openat);
    MODE(flags)
    REFUSE_OPEN(dir, name, flags);
    return next(dir, name, flags, mode);
}

int openat64(int dir, const char *name, int flags, ...)
{
    NEXT(openat64);
    MODE(flags)
    REFUSE_OPEN(dir, name, flags);
    return next(dir, name, flags, mode);
}

#define WRITES(mode) (strpbrk(mode, "wa+") != NULL)
#define REFUSE_FOPEN(name, mode)                                                               \
    if (ON_NAME(WRITES(mode) ? "create" : "open", WRITES(mode) ? "change" : "open", AT_FDCWD,  \
                name) == FAIL)                                                                 \
    return NULL

FILE *fopen(const char *name, const char *mode)
{
    NEXT(fopen);
    REFUSE_FOPEN(name, mode);
    return next(name, mode);
}

FILE *fopen64(const char *name, const char *mode)
{
    NEXT(fopen64);
    REFUSE_FOPEN(name, mode);
    return next(name, mode);
}

/* ---- content ----------------------------------------------------------------------------- */

#define WRITTEN(call, fd, whole, part)                                                         \
    switch (ON_FD(call, "change", fd)) {                                                       \
    case FAIL:                                                                                 \
        return -1;                                                                             \
    case CUT:                                                                                  \
        return part;                                                                           \
    default:                                                                                   \
        return whole;                                                                          \
    }

ssize_t write(int fd, const void *bytes, size_t count)
{
    NEXT(write);
    WRITTEN("write", fd, next(fd, bytes, count), next(fd, bytes, (count + 1) / 2))
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    NEXT(pwrite);
    WRITTEN("write", fd, next(fd, bytes, count, offset), next(fd, bytes, (count + 1) / 2, offset))
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    NEXT(pwrite64);
    WRITTEN("write", fd, next(fd, bytes, count, offset), next(fd, bytes, (count + 1) / 2, offset))
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    NEXT(writev);
    WRITTEN("write", fd, next(fd, parts, count), next(fd, parts, 1))
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t count, unsigned flags)
{
    NEXT(copy_file_range);
    WRITTEN("write", out, next(in, from, out, to, count, flags),
            next(in, from, out, to, (count + 1) / 2, flags))
}

ssize_t sendfile(int out, int in, off_t *from, size_t count)
{
    NEXT(sendfile);
    WRITTEN("write", out, next(out, in, from, count), next(out, in, from, (count + 1) / 2))
}

ssize_t sendfile64(int out, int in, off64_t *from, size_t count)
{
    NEXT(sendfile64);
    WRITTEN("write", out, next(out, in, from, count), next(out, in, from, (count + 1) / 2))
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file)
{
    NEXT(fwrite);
    switch (ON_FD("write", "change", fileno(file))) {
    case FAIL:
        return 0;
    case CUT:
        return next(bytes, size, (count + 1) / 2, file);
    default:
        return next(bytes, size, count, file);
    }
}

static int is_for_writing(FILE *file)
{
    return file && (fcntl(fileno(file), F_GETFL) & O_ACCMODE) != O_RDONLY;
}

int fflush(FILE *file)
{
    NEXT(fflush);
    if (page && is_for_writing(file) && ON_FD("write", "change", fileno(file)) == FAIL)
        return EOF;
    return next(file);
}

int fclose(FILE *file)
{
    NEXT(fclose);
    if (page && is_for_writing(file) && ON_FD("write", "change", fileno(file)) == FAIL) {
        int saved = errno;
        next(file);
        errno = saved;
        return EOF;
    }
    return next(file);
}

int ftruncate(int fd, off_t length)
{
    NEXT(ftruncate);
    REFUSE_FD("truncate", "change", fd);
    return next(fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    NEXT(ftruncate64);
    REFUSE_FD("truncate", "change", fd);
    return next(fd, length);
}

int truncate(const char *name, off_t length)
{
    NEXT(truncate);
    REFUSE_NAME("truncate", "change", AT_FDCWD, name);
    return next(name, length);
}

int truncate64(const char *name, off64_t length)
{
    NEXT(truncate64);
    REFUSE_NAME("truncate", "change", AT_FDCWD, name);
    return next(name, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    NEXT(posix_fallocate);
    if (ON_FD("allocate", "change", fd) == FAIL)
        return errno;
    return next(fd, offset, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    NEXT(posix_fallocate64);
    if (ON_FD("allocate", "change", fd) == FAIL)
        return errno;
    return next(fd, offset, length);
}

/* ---- attributes -------------------------------------------------------------------------- */

int chmod(const char *name, mode_t mode)
{
    NEXT(chmod);
    REFUSE_NAME("attributes", "change", AT_FDCWD, name);
    return next(name, mode);
}

int fchmod(int fd, mode_t mode)
{
    NEXT(fchmod);
    REFUSE_FD("attributes", "change", fd);
    return next(fd, mode);
}

int fchmodat(int dir, const char *name, mode_t mode, int flags)
{
    NEXT(fchmodat);
    REFUSE_NAME("attributes", "change", dir, name);
    return next(dir, name, mode, flags);
}

int fchown(int fd, uid_t user, gid_t group)
{
    NEXT(fchown);
    REFUSE_FD("attributes", "change", fd);
    return next(fd, user, group);
}

int futimens(int fd, const struct timespec times[2])
{
    NEXT(futimens);
    REFUSE_FD("attributes", "change", fd);
    return next(fd, times);
}

int utimensat(int dir, const char *name, const struct timespec times[2], int flags)
{
    NEXT(utimensat);
    REFUSE_NAME("attributes", "change", dir, name);
    return next(dir, name, times, flags);
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    NEXT(fsetxattr);
    REFUSE_FD("attributes", "change", fd);
    return next(fd, name, value, size, flags);
}

/* ---- durability -------------------------------------------------------------------------- */

int fsync(int fd)
{
    NEXT(fsync);
    REFUSE_FD("fsync", "sync", fd);
    return next(fd);
}

int fdatasync(int fd)
{
    NEXT(fdatasync);
    REFUSE_FD("fdatasync", "sync", fd);
    return next(fd);
}

/* ---- reading ----------------------------------------------------------------------------- */

#define READ(fd, whole, part)                                                                  \
    switch (ON_FD("read", "read", fd)) {                                                       \
    case FAIL:                                                                                 \
        return -1;                                                                             \
    case CUT:                                                                                  \
        return part;                                                                           \
    default:                                                                                   \
        return whole;                                                                          \
    }

ssize_t read(int fd, void *bytes, size_t count)
{
    NEXT(read);
    READ(fd, next(fd, bytes, count), next(fd, bytes, (count + 1) / 2))
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset)
{
    NEXT(pread);
    READ(fd, next(fd, bytes, count, offset), next(fd, bytes, (count + 1) / 2, offset))
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset)
{
    NEXT(pread64);
    READ(fd, next(fd, bytes, count, offset), next(fd, bytes, (count + 1) / 2, offset))
}

size_t fread(void *bytes, size_t size, size_t count, FILE *file)
{
    NEXT(fread);
    if (page && ON_FD("read", "read", fileno(file)) == FAIL)
        return 0;
    return next(bytes, size, count, file);
}

/* ---- the wall clock ---------------------------------------------------------------------- */

#define SECOND_NS 1000000000LL

static int64_t clock_offset(void)
{
    return page ? __atomic_load_n(&page->clock_offset_ns, __ATOMIC_RELAXED) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    NEXT(clock_gettime);
    int result = next(clock, now);
    int64_t offset = clock_offset();
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t shifted = now->tv_sec * SECOND_NS + now->tv_nsec + offset;
        now->tv_sec = shifted / SECOND_NS;
        now->tv_nsec = shifted % SECOND_NS;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out)
        *out = exact.tv_sec;
    return exact.tv_sec;
}
