/* The bare-metal half of the interface: acceptance rounds over memory that we own.
 *
 * No heap, no libc, no operating system. The rows come from a small generator in place of a
 * model, so every build must print the same line: the host's and the microcontroller's are
 * compared. `board_print` and `board_exit` are in board.c, or from stdio with -DHOSTED.
 */
#include "voxgrain.h"

#define VOCABULARY 65537u
#define BLOCKS ((VOCABULARY + 255u) / 256u)
#define GAMMA 2u
#define ROUNDS 12u

#ifdef HOSTED
#include <stdio.h>
#include <stdlib.h>
static void board_print(const char *text) { fputs(text, stdout); }
static void board_exit(int code) { exit(code); }
#else
void board_print(const char *text);
void board_exit(int code);
/* Only a bug of the library's leads here. */
void vx_core_panic(void);
void vx_core_panic(void) {
  board_print("panic\n");
  for (;;) board_exit(1);
}
#endif

/* The group index, in flash: see index.S. */
extern const unsigned char asg_start[], asg_end[];

static float target_probs[(GAMMA + 1) * VOCABULARY], target_sums[(GAMMA + 1) * BLOCKS];
static float draft_probs[GAMMA * VOCABULARY], draft_sums[GAMMA * BLOCKS];
static uint64_t core_memory[512];
static uint64_t scratch[4096];

static char line[160];
static unsigned used;

static void text(const char *s) {
  while (*s && used < sizeof line - 1) line[used++] = *s++;
  line[used] = 0;
}

static void number(uint32_t n) {
  char digits[11];
  unsigned i = sizeof digits - 1;
  digits[i] = 0;
  do digits[--i] = (char)('0' + n % 10);
  while (n /= 10);
  text(digits + i);
}

static void check(vx_status status, const char *what) {
  if (status == VX_OK) return;
  used = 0;
  text("FAIL ");
  text(what);
  text(": ");
  text(vx_status_name(status));
  text("\n");
  board_print(line);
  board_exit(1);
}

static uint32_t random_state = 1;

static uint32_t random_next(void) {
  random_state = random_state * 1664525u + 1013904223u;
  return random_state >> 8;
}

/* A peaked row; every step is rounded the same way on every machine. */
static void make_row(float *row, float *sums, uint32_t seed) {
  random_state = seed;
  for (uint32_t i = 0; i < VOCABULARY; i++) {
    float x = (float)random_next() / 16777216.0f;
    x = x * x;
    row[i] = x * x * x * x;
  }
  check(vx_core_transform(row, sums, VOCABULARY, 500, 0.95f, 0.0f, scratch, sizeof scratch),
        "transform");
}

int main(void) {
  vx_core *core = 0;
  if (vx_core_get_size() > sizeof core_memory || vx_core_scratch_size() > sizeof scratch)
    check(VX_E_SIZE, "memory");
  check(vx_core_init(core_memory, sizeof core_memory, 42, &core), "init");
  check(vx_core_set_index(core, asg_start, (size_t)(asg_end - asg_start)), "index");
  check(vx_core_verify_index(core), "verify index");

  uint32_t members[64];
  size_t count = 0;
  check(vx_core_members(core, 12345, members, 64, &count), "members");

  uint32_t accepted = 0, hash = 2166136261u;
  for (uint32_t round = 0; round < ROUNDS; round++) {
    uint32_t drafted[GAMMA];
    for (uint32_t i = 0; i <= GAMMA; i++)
      make_row(target_probs + i * VOCABULARY, target_sums + i * BLOCKS, round * 100 + i);
    for (uint32_t i = 0; i < GAMMA; i++) {
      float *row = draft_probs + i * VOCABULARY, *sums = draft_sums + i * BLOCKS;
      /* The draft agrees with the target in one round of two. */
      make_row(row, sums, round * 100 + i + 50 * (round % 2));
      check(vx_core_draft(core, row, sums, VOCABULARY, &drafted[i]), "draft");
    }
    vx_core_round r = {sizeof r,    VX_ARM_PCG,   VX_EMIT_STAND_IN, 0.0f,        VOCABULARY, GAMMA,
                       drafted,     target_probs, target_sums,      draft_probs, draft_sums};
    vx_core_verdict v = {sizeof v, 0, 0, 0, 0, 0};
    check(vx_core_verify(core, &r, &v), "verify");
    accepted += v.accepted;
    for (uint32_t i = 0; i < v.accepted; i++) hash = (hash ^ drafted[i]) * 16777619u;
    hash = (hash ^ v.next) * 16777619u;
  }
  text("rounds ");
  number(ROUNDS);
  text(", drafted ");
  number(ROUNDS * GAMMA);
  text(", accepted ");
  number(accepted);
  text(", members of 12345: ");
  number((uint32_t)count);
  text(", hash ");
  number(hash);
  text("\n");
  board_print(line);
  board_exit(accepted > 0 ? 0 : 1);
  return 0;
}
