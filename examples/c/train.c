/* Fits a line to noisy points, one random point a step. Its state: the weights, the generator of random numbers, the step. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { STEPS = 200, EVERY = 20, SAVED = 75 };

struct state {
    uint64_t step, random;
    double slope, offset;
};

static volatile sig_atomic_t asked;
static void ask(int signal) { (void)signal; asked = 1; }

static double uniform(uint64_t *random) {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (double)(*random >> 11) / 9007199254740992.0;
}

static void fail(const char *what) { perror(what); exit(1); }

/* The whole state into a file, which is on the disk before the function returns. */
static void write_state(const char *path, const struct state *state) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(state, sizeof *state, 1, file) != 1 || fflush(file) || fsync(fileno(file)) || fclose(file)) fail(path);
}

/* Under another name first: who sees `step-N` sees it whole. */
static void save(const struct state *state) {
    const char *folder = getenv("NEMO_CHECKPOINT_DIR");
    char temporary[4096], path[4096];
    if (!folder) return;
    snprintf(temporary, sizeof temporary, "%s/.tmp", folder);
    snprintf(path, sizeof path, "%s/step-%llu", folder, (unsigned long long)state->step);
    write_state(temporary, state);
    if (rename(temporary, path)) fail(path);
}

static void load(struct state *state) {
    const char *path = getenv("NEMO_RESUME_FROM");
    if (!path || !*path) return; /* empty: from the start */
    FILE *file = fopen(path, "rb");
    if (!file || fread(state, sizeof *state, 1, file) != 1) fail(path);
    fclose(file);
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
    struct state state = {.random = 42};
    char result[4096];
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    load(&state);
    const char *pace = getenv("PACE");
    while (state.step < STEPS) {
        double x = uniform(&state.random), y = 3 * x - 1 + 0.1 * uniform(&state.random);
        double error = state.slope * x + state.offset - y;
        state.slope -= 0.1 * error * x;
        state.offset -= 0.1 * error;
        state.step++;
        printf("step %llu loss: %.17g\n", (unsigned long long)state.step, error * error);
        fflush(stdout);
        usleep(pace ? (useconds_t)(atof(pace) * 1e6) : 50000); /* a real step takes its time */
        if (asked || state.step % EVERY == 0) save(&state);
        if (asked) return SAVED;
    }
    snprintf(result, sizeof result, "%s/line.bin", argc > 1 ? argv[1] : ".");
    write_state(result, &state);
    return 0;
}
