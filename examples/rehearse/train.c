/* C: a linear model with momentum in a raw file, whose header tells when it was written. The argument says what it does wrong. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LAST = 60, EVERY = 10, SIZE = 64 };

static volatile sig_atomic_t asked;
static void hear(int number) { (void)number; asked = 1; }

static struct { char header[64]; double weights[SIZE], momentum[SIZE]; unsigned long random; long step; } state;

static double next(void) {
  state.random = state.random * 6364136223846793005UL + 1442695040888963407UL;
  return (double)(state.random >> 11) / 4503599627370496.0 - 1.0;
}

static void save(int is_in_place) {
  char path[4096], last[4096];
  const char *folder = getenv("NEMO_CHECKPOINT_DIR");
  time_t now = time(NULL);
  snprintf(state.header, sizeof state.header, "STATE 1 of %ld by %ld", (long)now, (long)getpid());
  snprintf(last, sizeof last, "%s/step-%ld.bin", folder, state.step);
  snprintf(path, sizeof path, is_in_place ? "%s/step-%ld.bin" : "%s/_step%ld.bin", folder, state.step);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(&state, sizeof state, 1, file) != 1 || fclose(file)) exit(1);
  if (!is_in_place && rename(path, last)) exit(1);
}

int main(int argc, char **argv) {
  const char *fault = argc > 1 ? argv[1] : "none", *given = getenv("NEMO_RESUME_FROM");
  signal(SIGUSR1, hear);
  signal(SIGTERM, hear);
  if (given && *given) {
    FILE *file = fopen(given, "rb");
    if (!file || fread(&state, sizeof state, 1, file) != 1) return 1;
    fclose(file);
    if (!strcmp(fault, "momentum")) memset(state.momentum, 0, sizeof state.momentum);
  }
  while (state.step < LAST) {
    double x[SIZE], error = 0;
    for (int i = 0; i < SIZE; i++) { x[i] = next(); error += (state.weights[i] - 1) * x[i]; }
    for (int i = 0; i < SIZE; i++) {
      state.momentum[i] = 0.9 * state.momentum[i] - 0.005 * error * x[i];
      state.weights[i] += state.momentum[i];
    }
    state.step++;
    printf("step %ld loss: %.17g\n", state.step, error * error);
    fflush(stdout);
    if (state.step % EVERY == 0 || asked) save(!strcmp(fault, "in-place"));
    if (asked && state.step < LAST) return 75;
    usleep(30000);
  }
  char path[4096];
  snprintf(path, sizeof path, "%s/artifacts/weights.bin", getenv("NEMO_DIR"));
  FILE *file = fopen(path, "wb");
  return !file || fwrite(state.weights, sizeof state.weights, 1, file) != 1 || fclose(file);
}
