/* A destination that ignores case and composes accents, for a program that names files relative to
   an opened folder: LD_PRELOAD this, with the folder's name in STILLWATCH_FOLDED. Names in that
   folder, and in folders below it, are turned to lower case on their way to the kernel (and e with
   a combining acute into one letter), so two names that fold alike are one file, as on vfat, exFAT,
   APFS or an SMB share. openat2 is refused, so that folders are opened by openat. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct { char text[PATH_MAX]; } name_t;

static const char *folded(int folder, const char *name, name_t *room) {
    const char *place = getenv("STILLWATCH_FOLDED");
    char link[64], path[PATH_MAX];
    ssize_t length;
    size_t at = 0;

    if (place == NULL || folder == AT_FDCWD || name[0] == '/' || strcmp(name, ".") == 0)
        return name;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return name;
    path[length] = 0;
    if (strncmp(path, place, strlen(place)) != 0)
        return name;
    for (; *name && at < sizeof room->text - 1; name++) {
        if (strncmp(name, "e\xcc\x81", 3) == 0) {
            room->text[at++] = (char)0xc3;
            room->text[at++] = (char)0xa9;
            name += 2;
        } else
            room->text[at++] = (char)((unsigned char)*name < 128 ? tolower(*name) : *name);
    }
    room->text[at] = 0;
    return room->text;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int openat64(int folder, const char *name, int flags, ...) {
    name_t room;
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return NEXT(openat64)(folder, folded(folder, name, &room), flags, mode);
}

int fstatat64(int folder, const char *restrict name, struct stat64 *restrict found, int flags) {
    name_t room;
    return NEXT(fstatat64)(folder, folded(folder, name, &room), found, flags);
}

int mkdirat(int folder, const char *name, mode_t mode) {
    name_t room;
    return NEXT(mkdirat)(folder, folded(folder, name, &room), mode);
}

int unlinkat(int folder, const char *name, int flags) {
    name_t room;
    return NEXT(unlinkat)(folder, folded(folder, name, &room), flags);
}

int linkat(int from, const char *source, int to, const char *target, int flags) {
    name_t one, other;
    source = folded(from, source, &one);
    return NEXT(linkat)(from, source, to, folded(to, target, &other), flags);
}

int renameat2(int from, const char *source, int to, const char *target, unsigned flags) {
    name_t one, other;
    source = folded(from, source, &one);
    return NEXT(renameat2)(from, source, to, folded(to, target, &other), flags);
}

long syscall(long number, ...) {
    long argument[6];
    va_list rest;
    if (number == SYS_openat2) {
        errno = ENOSYS;
        return -1;
    }
    va_start(rest, number);
    for (int at = 0; at < 6; at++)
        argument[at] = va_arg(rest, long);
    va_end(rest);
    return NEXT(syscall)(number, argument[0], argument[1], argument[2], argument[3], argument[4],
                         argument[5]);
}
