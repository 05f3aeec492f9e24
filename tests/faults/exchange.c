/* Exchanges pairs of names again and again, until it is killed: `exchange COUNTER A B [A B...]`.
   At every moment each name is either the folder or the symbolic link (RENAME_EXCHANGE). Their
   folders are opened once, so a name below another one of the list stays the same entry. The number
   of exchanges stands in the first eight bytes of the file COUNTER. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64 };

static uint64_t chance(uint64_t below) {
    static uint64_t state = 88172645463325252u; /* xorshift64 */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % below;
}

static void idle(uint64_t microseconds) {
    struct timespec wait = {0, (long)microseconds * 1000};
    if (microseconds > 5)
        nanosleep(&wait, NULL);
}

int main(int count, char **names) {
    int file = open(names[1], O_RDWR), folders[MOST];
    char *entries[MOST];
    volatile uint64_t *done;

    if (count < 4 || count > MOST || file < 0)
        return 2;
    done = mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (done == MAP_FAILED)
        return 2;
    for (int name = 2; name < count; name++) {
        entries[name] = strdup(basename(strdup(names[name])));
        folders[name] = open(dirname(strdup(names[name])), O_RDONLY | O_DIRECTORY);
        if (folders[name] < 0)
            return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    puts("exchanging");
    fflush(stdout);
    for (;;) {
        int a = 2 + 2 * (int)(chance(count - 2) / 2), b = a + 1;
        /* away and back again, for times from nothing up to those of a whole operation */
        for (int turn = 0; turn < 2; turn++) {
            if (renameat2(folders[a], entries[a], folders[b], entries[b], RENAME_EXCHANGE) == 0)
                ++*done;
            idle(chance(turn ? 250 : 100));
        }
    }
}
