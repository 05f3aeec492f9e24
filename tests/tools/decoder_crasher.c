/* Loaded into a decoding process (LD_PRELOAD): files whose first bytes name a fate bring it about.

   Stands for the decoder with a hole: the process itself dies, loops, hangs or eats memory. Other
   processes that are given this library stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t (*real_read)(int, void *, size_t);
static int armed;

__attribute__((constructor)) static void look(void) {
    char line[4096] = {0};
    real_read = dlsym(RTLD_NEXT, "read");
    int descriptor = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = real_read(descriptor, line, sizeof line);
    close(descriptor);
    armed = length > 0 && memmem(line, (size_t)length, "decode_child", 12) != NULL;
}

ssize_t read(int descriptor, void *buffer, size_t size) {
    ssize_t length = real_read(descriptor, buffer, size);
    if (!armed || length < 16)
        return length;
    if (!memcmp(buffer, "fate: crash     ", 16))
        *(volatile int *)0 = 1;
    if (!memcmp(buffer, "fate: loop      ", 16))
        for (volatile int forever = 1; forever;)
            ;
    if (!memcmp(buffer, "fate: hang      ", 16))
        for (;;)
            sleep(60);
    if (!memcmp(buffer, "fate: grow      ", 16))
        for (char *part; (part = malloc(1 << 20)) != NULL;)
            memset(part, 1, 1 << 20);
    return length;
}
