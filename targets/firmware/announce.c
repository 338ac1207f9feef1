/* Announcements on a device: an example of the voxgrain C interface.
 *
 * Events arrive with a deadline for their first sample. One thread turns them into speech and
 * writes it to a ring buffer; the sound device takes 10 ms out of it at a time and never
 * waits; a button breaks off whatever is being said. Lateness and underruns are reported.
 *
 *   event thread  --- queue --->  speech thread (main)  --- ring --->  device thread
 *         \________________ button: vx_engine_cancel ________________/
 *
 * Here the device is a thread with a clock, the events are lines of a script:
 *
 *   announce [-s SEED] [-t THREADS] [-m BYTES] [-p POSITIONS] [-v SPEAKER] [-x SPEED]
 *            [-u MOST] [-o FILE] BUNDLE [SCRIPT]
 *
 *   at_ms deadline_ms text       say text; it is dropped if it would begin later
 *   at_ms button                 break off
 *
 * -x makes the clock run faster or slower (for simulators), -u fails on more underruns than
 * that, -o writes what the device played (16 bits, mono). The application itself allocates
 * nothing. C11 with POSIX threads; the interface is C99.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "voxgrain.h"

/* ---------------------------------------------------------------- the clock */

static double speed = 1.0;
static struct timespec epoch;

/* Milliseconds of device time since the start. */
static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return ((double)(t.tv_sec - epoch.tv_sec) * 1e3 + (double)(t.tv_nsec - epoch.tv_nsec) / 1e6) *
         speed;
}

static void sleep_until(double at_ms) {
  double left = (at_ms - now_ms()) / speed;
  if (left <= 0) return;
  struct timespec t = {(time_t)(left / 1e3), (long)(left * 1e6) % 1000000000L};
  while (nanosleep(&t, &t) != 0) {
  }
}

/* ---------------------------------------------------------------- the ring */

/* One writer, one reader, no lock. 2^15 samples are two seconds at 16 kHz. */
#define RING (1u << 15)

static struct {
  int16_t samples[RING];
  atomic_uint head;   /* written by the speech thread */
  atomic_uint tail;   /* written by the device thread */
  atomic_uint cut;    /* the device drops what was written before it, */
  atomic_bool flush;  /* once this is set */
  atomic_bool active; /* an utterance is being made: an empty ring is an underrun */
  atomic_bool closed;
} ring;

/* What was written so far is not to sound; what is written next is. */
static void ring_flush(void) {
  atomic_store(&ring.cut, atomic_load(&ring.head));
  atomic_store(&ring.flush, true);
}

static unsigned ring_used(void) {
  return atomic_load_explicit(&ring.head, memory_order_acquire) -
         atomic_load_explicit(&ring.tail, memory_order_acquire);
}

/* ---------------------------------------------------------------- the device */

static uint32_t rate;
static FILE *output;
static atomic_ulong underruns, played, discarded;

/* Samples to have before an utterance starts to sound. */
static unsigned cushion(void) { return rate / 20; }

/* What an interrupt of the sound device would do. */
static void device_period(int16_t *out, unsigned n, bool *sounding) {
  unsigned tail = atomic_load_explicit(&ring.tail, memory_order_relaxed);
  if (atomic_exchange(&ring.flush, false)) {
    unsigned drop = atomic_load(&ring.cut) - tail;
    if (drop <= RING) {
      atomic_fetch_add(&discarded, drop);
      tail += drop;
      atomic_store_explicit(&ring.tail, tail, memory_order_release);
    }
    *sounding = false;
  }
  /* In this order: what was written before it became inactive is seen. */
  bool active = atomic_load_explicit(&ring.active, memory_order_acquire);
  unsigned used = ring_used();
  memset(out, 0, n * sizeof *out);
  if (!*sounding && used > 0 && (used >= cushion() || !active)) *sounding = true;
  if (!*sounding) return;
  unsigned take = used < n ? used : n;
  for (unsigned i = 0; i < take; i++) out[i] = ring.samples[(tail + i) % RING];
  atomic_store_explicit(&ring.tail, tail + take, memory_order_release);
  atomic_fetch_add(&played, take);
  if (take < n) {
    if (active) atomic_fetch_add(&underruns, 1);
    *sounding = false;
  }
}

static void *device(void *unused) {
  (void)unused;
  static int16_t period[4800];
  unsigned n = rate / 100;
  bool sounding = false;
  double at = now_ms();
  while (!atomic_load(&ring.closed) || ring_used() > 0) {
    at += 10;
    sleep_until(at);
    device_period(period, n, &sounding);
    if (output) fwrite(period, sizeof *period, n, output);
  }
  return NULL;
}

/* ---------------------------------------------------------------- events */

#define EVENTS 64
#define TEXT 512

struct event {
  double at, due;
  char text[TEXT];
};

static struct event queue[EVENTS];
static unsigned first, last, lost;
static bool no_more;
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER;

static vx_engine *engine;
static FILE *script;
static unsigned presses;

static void button(void) {
  pthread_mutex_lock(&queue_lock);
  first = last; /* what waits is broken off as well */
  presses++;
  pthread_mutex_unlock(&queue_lock);
  vx_engine_cancel(engine);
  ring_flush();
}

static void *events(void *unused) {
  (void)unused;
  char line[TEXT + 64];
  while (fgets(line, sizeof line, script)) {
    char *rest, *text;
    double at = strtod(line, &rest);
    if (rest == line || line[0] == '#') continue;
    sleep_until(at);
    while (*rest == ' ') rest++;
    if (strncmp(rest, "button", 6) == 0) {
      button();
      continue;
    }
    double deadline = strtod(rest, &text);
    pthread_mutex_lock(&queue_lock);
    if (text == rest || last - first == EVENTS) {
      lost++;
    } else {
      struct event *e = &queue[last++ % EVENTS];
      e->at = at;
      e->due = at + deadline;
      snprintf(e->text, sizeof e->text, "%s", text);
      pthread_cond_signal(&queue_filled);
    }
    pthread_mutex_unlock(&queue_lock);
  }
  pthread_mutex_lock(&queue_lock);
  no_more = true;
  pthread_cond_signal(&queue_filled);
  pthread_mutex_unlock(&queue_lock);
  return NULL;
}

static bool next_event(struct event *e) {
  pthread_mutex_lock(&queue_lock);
  while (first == last && !no_more) pthread_cond_wait(&queue_filled, &queue_lock);
  bool some = first != last;
  if (some) *e = queue[first++ % EVENTS];
  pthread_mutex_unlock(&queue_lock);
  return some;
}

/* ---------------------------------------------------------------- speech */

static unsigned long produced;
static double worst_first_ms;

struct utterance {
  const struct event *event;
  bool begun, late;
};

/* Called with the samples of each round; runs in vx_engine_speak. */
static int32_t to_ring(void *user, const float *pcm, size_t n) {
  struct utterance *u = user;
  if (!u->begun) {
    double t = now_ms();
    if (t - u->event->at > worst_first_ms) worst_first_ms = t - u->event->at;
    if (t > u->event->due) {
      u->late = true;
      return 1; /* of no use any more */
    }
    u->begun = true;
    atomic_store_explicit(&ring.active, true, memory_order_release);
  }
  unsigned head = atomic_load_explicit(&ring.head, memory_order_relaxed);
  for (size_t i = 0; i < n;) {
    unsigned room = RING - ring_used();
    if (room == 0) {
      /* The device drains it; the button empties it. */
      sleep_until(now_ms() + 5);
      continue;
    }
    for (; room > 0 && i < n; room--, i++, head++) {
      float x = pcm[i] < -1 ? -1 : pcm[i] > 1 ? 1 : pcm[i];
      ring.samples[head % RING] = (int16_t)(x * 32767.0f);
    }
    atomic_store_explicit(&ring.head, head, memory_order_release);
  }
  produced += n;
  return 0;
}

static void fail(const char *what, vx_status status) {
  fprintf(stderr, "announce: %s: %s: %s\n", what, vx_status_name(status), vx_last_error());
  exit(1);
}

int main(int argc, char **argv) {
  vx_options options = {.size = sizeof options};
  long most = -1;
  int c;
  while ((c = getopt(argc, argv, "s:t:m:p:v:x:u:o:")) != -1) {
    switch (c) {
      case 's': options.seed = strtoull(optarg, NULL, 10); break;
      case 't': options.threads = (uint32_t)strtoul(optarg, NULL, 10); break;
      case 'm': options.max_memory = strtoull(optarg, NULL, 10); break;
      case 'p': options.max_positions = (uint32_t)strtoul(optarg, NULL, 10); break;
      case 'v': options.speaker = optarg; break;
      case 'x': speed = strtod(optarg, NULL); break;
      case 'u': most = strtol(optarg, NULL, 10); break;
      case 'o':
        output = fopen(optarg, "wb");
        if (!output) return perror(optarg), 1;
        break;
      default: return 2;
    }
  }
  if (optind == argc || speed <= 0) {
    fprintf(stderr, "usage: announce [options] BUNDLE [SCRIPT]\n");
    return 2;
  }
  script = optind + 1 < argc ? fopen(argv[optind + 1], "r") : stdin;
  if (!script) return perror(argv[optind + 1]), 1;
  if (vx_abi_version() < VX_ABI_VERSION) {
    fprintf(stderr, "announce: the library is older than the header\n");
    return 1;
  }

  vx_voice *voice = NULL;
  vx_status s = vx_voice_open(argv[optind], NULL, &voice);
  if (s) fail(argv[optind], s);
  vx_voice_info info = {.size = sizeof info};
  s = vx_voice_describe(voice, &info);
  if (s) fail("voice", s);
  rate = info.sample_rate_hz;
  s = vx_engine_open(voice, &options, &engine);
  if (s) fail("engine", s);
  /* The engine keeps what it needs of the voice. */
  vx_voice_close(voice);

  clock_gettime(CLOCK_MONOTONIC, &epoch);
  pthread_t device_thread, event_thread;
  if (pthread_create(&device_thread, NULL, device, NULL) ||
      pthread_create(&event_thread, NULL, events, NULL)) {
    fprintf(stderr, "announce: no threads\n");
    return 1;
  }

  unsigned spoken = 0, cancelled = 0, late = 0, failed = 0;
  static struct event e;
  while (next_event(&e)) {
    struct utterance u = {&e, false, false};
    if (now_ms() > e.due) {
      late++;
      continue;
    }
    s = vx_engine_speak(engine, e.text, VX_NUL_TERMINATED, to_ring, &u);
    atomic_store_explicit(&ring.active, false, memory_order_release);
    if (s == VX_OK) {
      spoken++;
    } else if (u.late) {
      late++;
    } else if (s == VX_E_CANCELLED) {
      cancelled++;
      ring_flush(); /* what was written after the button */
    } else {
      failed++;
      fprintf(stderr, "announce: %s: %s\n", vx_status_name(s), vx_last_error());
    }
  }
  pthread_join(event_thread, NULL);
  atomic_store(&ring.closed, true);
  pthread_join(device_thread, NULL);

  vx_stats stats = {.size = sizeof stats};
  vx_memory memory = {.size = sizeof memory};
  vx_build build = {.size = sizeof build};
  vx_engine_stats(engine, &stats);
  vx_engine_memory(engine, &memory);
  vx_build_info(&build);
  vx_engine_close(engine);
  if (output && fclose(output)) return perror("output"), 1;
  if (script != stdin) fclose(script);

  printf("voxgrain %s, %s, %s, %u threads, at most %.1f MB\n", build.version, build.target,
         build.kernel, stats.threads, (double)memory.total / 1e6);
  printf("spoken %u, broken off %u, late %u, failed %u, lost %u; button %u\n", spoken, cancelled,
         late, failed, lost, presses);
  printf("underruns %lu, samples made %lu, played %lu, discarded %lu\n", atomic_load(&underruns),
         produced, atomic_load(&played), atomic_load(&discarded));
  printf("slowest first sample %.0f ms, longest round %.1f ms\n", worst_first_ms,
         (double)stats.longest_round_ns / 1e6);
  /* Every sample that was made was played or dropped on purpose. */
  if (produced < atomic_load(&played) + atomic_load(&discarded)) return 1;
  if (most >= 0 && atomic_load(&underruns) > (unsigned long)most) return 3;
  return failed > 0;
}
