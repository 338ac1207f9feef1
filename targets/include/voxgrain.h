/* voxgrain: speech on the device, drawn token by token and decoded as it comes.
 *
 * Two interfaces:
 *   vx_*       speech: a voice, an engine, text in, PCM out. Needs an operating system.
 *   vx_core_*  acceptance and group index over memory that the caller owns. Needs nothing:
 *              no heap, no libc, no operating system.
 *
 * Rules for all of it
 *   - Nothing throws, exits or longjmps through these functions. A bug inside the library is
 *     reported as VX_E_INTERNAL (and prints a line on stderr, the only thing ever printed).
 *     The exception is an allocator that returns no memory: the Rust runtime then ends the
 *     process. vx_options.max_memory exists so that it does not come to that.
 *   - Every struct that begins with `size` may be all zeros, which asks for every default.
 *     Set `size` to sizeof the struct. 0 stands for the size that the struct had in
 *     interface version 1, so a zeroed struct stays valid when fields are added. A larger
 *     size than this library knows is accepted if the fields beyond are zero, and
 *     VX_E_SIZE otherwise.
 *   - Text is UTF-8 with its length in bytes; VX_NUL_TERMINATED as the length asks for
 *     strlen. Text is copied before the call returns, and so is every path and name.
 *   - A pointer documented as "owned by the library" is never freed by the caller.
 *   - On failure the output parameters are left as they were, unless stated otherwise.
 *
 * Threads
 *   - vx_voice: any number of threads at once.
 *   - vx_engine: vx_engine_feed, _flush, _cancel, _stats and _memory from any thread at any
 *     time, also while another thread is in a call on the same engine. Of _read, _read_i16
 *     and _speak one at a time; a second one is refused with VX_E_BUSY and does nothing. The
 *     thread may change from call to call.
 *   - vx_core: one thread at a time for each object; different objects are independent.
 *   - Closing an object while a call on it is running is an error that is not detected.
 */
#ifndef VOXGRAIN_H
#define VOXGRAIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Define it as an attribute (dllimport, a calling convention) where one is needed. */
#ifndef VX_API
#define VX_API
#endif

/* Raised when something is added; the first digit of the SONAME is raised when something
 * is changed or taken away. */
#define VX_ABI_VERSION 3

/* As a length of text: up to the first zero byte. */
#define VX_NUL_TERMINATED ((size_t)-1)

/* What a call came to. Not an enum type, whose width is the compiler's choice. */
typedef int32_t vx_status;
enum {
  VX_OK = 0,
  VX_END = 1,            /* nothing left to read; not an error */
  VX_E_ARGUMENT = -1,    /* a null pointer, an option out of range, options that clash */
  VX_E_SIZE = -2,        /* a struct's size is unknown, or memory handed in is too small */
  VX_E_TEXT = -3,        /* not UTF-8, or nothing in it can be spoken */
  VX_E_UNREADABLE = -4,  /* a file is missing or cannot be read */
  VX_E_MALFORMED = -5,   /* a file is damaged or of another format */
  VX_E_MISMATCH = -6,    /* files that are sound but do not belong together */
  VX_E_UNSUPPORTED = -7, /* sound, but nothing that this build can do */
  VX_E_NUMERIC = -8,     /* a model produced no numbers; its file may be damaged */
  VX_E_CANCELLED = -9,   /* vx_engine_cancel, or the callback returned non-zero */
  VX_E_BUSY = -10,       /* another thread, or the callback's own caller, is reading */
  VX_E_FULL = -11,       /* more text than the queue holds; nothing of it was taken */
  VX_E_MEMORY = -12,     /* the budget does not suffice; nothing was allocated */
  VX_E_INTERNAL = -13    /* a bug; the engine can only be closed */
};

/* The name of a status, for instance "VX_E_TEXT"; "unknown" for a number that is none.
 * Owned by the library, valid for ever. */
VX_API const char *vx_status_name(vx_status status);

/* What went wrong in the last vx_* call of this thread that failed, and what to do about it;
 * "" if none has. Calls that succeed leave it. vx_core_* calls set none. Owned by the
 * library; valid until the next vx_* call of this thread. Never NULL. */
VX_API const char *vx_last_error(void);

/* VX_ABI_VERSION of the library that is linked, to compare with the header's. */
VX_API uint32_t vx_abi_version(void);

/* What was built and what it runs on. The strings are owned by the library and valid for
 * ever. */
typedef struct vx_build {
  uint32_t size;
  uint32_t abi_version;
  const char *version; /* of the library, "0.1.0" */
  const char *target;  /* "x86_64-linux" */
  const char *kernel;  /* the instruction set picked for this CPU: "scalar", "avx2", ... */
  const char *kernels; /* all that this CPU could run, "scalar avx2 avx512-vnni" */
} vx_build;

/* Fills `build`, whose size must be set (or zero). The environment variable VOXGRAIN_KERNEL,
 * read once a process, picks a narrower kernel. A voice reads what `voxgrain calibrate` kept of
 * this machine when it is opened; VOXGRAIN_CALIBRATION names another file, or is `off`. */
VX_API vx_status vx_build_info(vx_build *build);

/* ---------------------------------------------------------------- the voice */

/* A bundle with its models: immutable, shared by any number of engines. */
typedef struct vx_voice vx_voice;

enum {
  /* vx_voice_open alone takes these two; VX_E_ARGUMENT in memory. */
  VX_VOICE_VERIFY = 1, /* read every file and compare its SHA-256 */
  VX_VOICE_COPY = 4,   /* read the files instead of mapping them */
  /* vx_voice_open_memory alone takes this one; VX_E_ARGUMENT for a folder. */
  VX_VOICE_BORROW = 2  /* use the buffers in place, without a copy */
};

typedef struct vx_voice_options {
  uint32_t size;
  uint32_t flags;          /* VX_VOICE_*, or'ed */
  const char *groups_path; /* group index to use instead of the bundle's; NULL: the bundle's */
  uint64_t max_memory;     /* bytes that the voice may take, see vx_memory; 0: no limit */
} vx_voice_options;

/* A file in memory. */
typedef struct vx_file {
  const char *name; /* as bundle.toml lists it; "bundle.toml" itself; group index, lexicon */
  const void *data;
  size_t bytes;
} vx_file;

/* Opens the bundle in the folder `path` (NUL-terminated). `options` may be NULL. On VX_OK
 * `*voice` is the caller's, to be given to vx_voice_close.
 *
 * Files are mapped, not read: until the voice and its engines are closed they must not be
 * truncated or rewritten in place, or the process is ended by the system (SIGBUS). Replace
 * them by renaming, or open with VX_VOICE_COPY. */
VX_API vx_status vx_voice_open(const char *path, const vx_voice_options *options,
                               vx_voice **voice);

/* Opens a bundle from `count` files in memory: "bundle.toml", every file that it lists, the
 * lexicon of a voice that reads phonemes, and the group index, if there is one, these two under
 * the last part of their paths. `options` may be NULL.
 *
 * The files are copied, and the buffers are the caller's to free when the call returns.
 * With VX_VOICE_BORROW they are used in place: each must then be aligned to 64 bytes and
 * stay as it is until the voice AND every engine opened with it are closed. Flash that is
 * mapped into the address space will do. The array itself and the names are never kept. */
VX_API vx_status vx_voice_open_memory(const vx_file *files, size_t count,
                                      const vx_voice_options *options, vx_voice **voice);

/* Gives a voice back; NULL is allowed. Engines opened with it keep what they need. */
VX_API void vx_voice_close(vx_voice *voice);

/* The strings are owned by the voice and valid until vx_voice_close. */
typedef struct vx_voice_info {
  uint32_t size;
  uint32_t sample_rate_hz;
  uint32_t token_rate_hz; /* speech tokens a second */
  uint32_t latency_samples; /* how far the sound stays behind the newest token */
  uint32_t max_positions;   /* longest context, prompt included, in tokens */
  uint32_t default_gamma;   /* tokens drafted a round unless an option says otherwise */
  int32_t has_groups;       /* whether VX_ARM_PCG can be used; VX_ARM_TRANSPORT: if symmetric */
  uint32_t reserved;
  const char *name;
  const char *licence;
  const char *attribution; /* may be "" */
  uint32_t speaker_count;  /* at least 1; since interface version 2 */
  uint32_t reserved2;
  /* Since interface version 3: */
  float min_rate;          /* the slowest that vx_options.rate takes, up to 1 */
  float max_rate;          /* the fastest, 1 or more */
  int32_t reads_phonemes;  /* whether it has a lexicon: see vx_voice_with_lexicon */
  uint32_t reserved3;
} vx_voice_info;

/* Fills `info`, whose size must be set (or zero). */
VX_API vx_status vx_voice_describe(const vx_voice *voice, vx_voice_info *info);

/* One of the speakers of a voice. The strings are owned by the voice and valid until
 * vx_voice_close. */
typedef struct vx_speaker {
  uint32_t size;
  uint32_t reserved;
  const char *name;        /* what vx_options.speaker takes */
  const char *description; /* for people, "female, US English"; may be "" */
} vx_speaker;

/* Fills `speaker`, whose size must be set (or zero), with speaker `index` of 0 ..
 * speaker_count. The first one speaks where no option says otherwise. */
VX_API vx_status vx_voice_speaker(const vx_voice *voice, uint32_t index, vx_speaker *speaker);

/* Makes a voice that says some words as the caller wants; since interface version 3. `voice`
 * stays as it is. On VX_OK `*changed` is the caller's, to be given to vx_voice_close; the two
 * share everything else and may be closed in any order. Given a changed voice, it adds to its
 * words, and of two entries for a word the later one counts.
 *
 * `text` has an entry a line: the word, a tab, and how to say it, in IPA (between slashes, or
 * with any character that is not ASCII) or in other words: "nginx\tengine x". Empty lines and
 * lines that begin with # are passed over. A word in lower case stands for all its spellings,
 * one with capitals for itself alone. At most 4 MiB; nothing of it is kept. `name` is what
 * messages call it beside the number of the line, NUL-terminated; it may be NULL.
 *
 * VX_E_ARGUMENT for a line that is no entry, VX_E_TEXT for text that is not UTF-8,
 * VX_E_UNSUPPORTED for a voice that does not read phonemes. */
VX_API vx_status vx_voice_with_lexicon(const vx_voice *voice, const char *text, size_t bytes,
                                       const char *name, vx_voice **changed);

/* ---------------------------------------------------------------- the engine */

/* Speaks with a voice: a queue of text, the state of one utterance, worker threads. */
typedef struct vx_engine vx_engine;

/* How tokens are found. */
enum {
  /* VX_ARM_TRANSPORT; VX_ARM_PCG with VX_EMIT_RESAMPLE or where the voice's index is not symmetric;
   * VX_ARM_SD where it has none. Of a vx_core_round: see there. */
  VX_ARM_DEFAULT = 0,
  VX_ARM_AR = 1,        /* one token a pass of the target */
  VX_ARM_SD = 2,        /* speculation, accepted by token; the law is the target's */
  VX_ARM_TOLERANCE = 3, /* accepted by token with a tolerance (beta) */
  VX_ARM_PCG = 4,       /* accepted by acoustic similarity group */
  /* Accepted by token or for a similar token that the draft has too little of: what is emitted
   * is at most one step of the index from a token of exactly the target's law. The index must
   * be symmetric (built by a threshold or from symmetrised top-k lists), else VX_E_ARGUMENT. */
  VX_ARM_TRANSPORT = 5
};

/* What VX_ARM_PCG emits for an accepted draft. */
enum {
  VX_EMIT_STAND_IN = 0, /* the draft, standing in for its group */
  VX_EMIT_RESAMPLE = 1  /* a draw from its group: the law is the target's */
};

/* "Switched off" and "greedy" for the options below, where 0 asks for the default. */
#define VX_OFF (-1)
/* vx_options.gamma: the draft length that the clock finds fastest. Not reproducible: where
 * a round ends decides what the draft may choose. */
#define VX_GAMMA_MEASURED (-2)

/* What markup in the text is understood. */
enum {
  VX_MARKUP_AUTO = 0,     /* what is unmistakable: an SSML document, Markdown's links, headings,
                           * tables and bold words, HTML's tags and named characters */
  VX_MARKUP_NONE = 1,     /* none: every character is text */
  VX_MARKUP_MARKDOWN = 2, /* Markdown, and the HTML in it */
  VX_MARKUP_SSML = 3      /* SSML: one <speak> document */
};

typedef struct vx_options {
  uint32_t size;
  int32_t arm;            /* VX_ARM_* */
  uint64_t seed;          /* same seed, build and voice: same sound, whatever the threads */
  uint64_t max_memory;    /* bytes for the voice and this engine, see vx_memory; 0: no limit */
  uint32_t max_positions; /* longest context; the voice's if 0 or larger */
  uint32_t threads;       /* that compute, the caller's included, 1..64; 0: cores, at most 4 */
  int32_t gamma;          /* tokens drafted a round, 1..15; VX_OFF, VX_GAMMA_MEASURED; 0: what pays, by the
                             voice's costs or this machine's (`voxgrain calibrate`) */
  int32_t emission;       /* VX_EMIT_* */
  float beta;             /* tolerance, up to 1; 0: 0.4 */
  float temperature;      /* up to 100; VX_OFF: the most probable token; 0: the voice's */
  int32_t top_k;          /* keep so many; VX_OFF: all; 0: the voice's */
  float top_p;            /* keep this mass, up to 1; VX_OFF (or 1): all; 0: the voice's */
  float min_p;            /* keep from this share of the best, below 1; VX_OFF: all; 0: the voice's */
  uint32_t max_chars;     /* longest stretch in one breath, 20..1000; 0: 200 */
  uint32_t max_text;      /* bytes of text waiting to be spoken, 8192..16777216; 0: 65536 */
  uint32_t reserved;      /* 0 */
  /* Since interface version 2: */
  const char *speaker;    /* who speaks, by name, see vx_voice_speaker; NULL: by speaker_index */
  uint32_t speaker_index; /* who speaks, by number; 0: the first. One of the two at most */
  uint32_t reserved2;     /* 0 */
  /* Since interface version 3: */
  double rate;            /* times the voice's natural speed, min_rate..max_rate; 0: 1 */
  int32_t markup;         /* VX_MARKUP_* */
  int32_t lines;          /* 1: every line is an utterance; 0: lines that go on are joined */
  /* Silence from one utterance to the next, in seconds, up to 60; VX_OFF: none; 0: the default.
   * 0.2 of it are the voice's own, and where that is more nothing is added. */
  float pause_comma;      /* behind a comma, where a sentence is cut there; 0.1 */
  float pause_clause;     /* behind a semicolon, a colon or a dash; 0.2 */
  float pause_sentence;   /* behind a sentence or an item of a list; 0.3 */
  float pause_paragraph;  /* behind a paragraph; 0.6 */
  float pause_heading;    /* behind a heading; 0.7 */
  uint32_t reserved3;     /* 0 */
} vx_options;

/* Upper bounds, in bytes, of what an engine and its voice take.
 *
 * Counted are heap and mapped files. Not counted: the code itself, the stacks of the worker
 * threads, allocator overhead. Mapped pages are the file's own; the system may drop and read
 * them again, and they are shared with every process that maps the same file. */
typedef struct vx_memory {
  uint32_t size;
  uint32_t reserved;
  uint64_t voice_mapped; /* files in place: mapped, or borrowed buffers */
  uint64_t voice_heap;   /* graphs, and copies of files where they are copied */
  uint64_t engine_state; /* key/value caches for the whole context, convolutions */
  uint64_t engine_work;  /* probabilities, intermediate results, text, samples */
  uint64_t total;        /* the sum; what max_memory is compared with */
} vx_memory;

/* Computes what vx_engine_open would need with the same `options` (NULL: defaults), without
 * allocating it; max_memory is not looked at. Fills `memory`, whose size must be set (or
 * zero). */
VX_API vx_status vx_engine_estimate(const vx_voice *voice, const vx_options *options,
                                    vx_memory *memory);

/* A word as it will be said. */
typedef struct vx_word {
  const char *text; /* a to z and ' */
  size_t begin;     /* where it was written, in bytes of the text, `end` excluded: all that was */
  size_t end;       /* read together, so that "1984" is the place of several words */
} vx_word;

/* Where a pronunciation comes from. */
enum {
  VX_ORIGIN_OTHER = 0,    /* none of the following */
  VX_ORIGIN_GIVEN = 1,    /* the markup gives it */
  VX_ORIGIN_USER = 2,     /* vx_voice_with_lexicon */
  VX_ORIGIN_LEXICON = 3,  /* the voice's lexicon, with or without an ending */
  VX_ORIGIN_COMPOUND = 4, /* two words of it written as one */
  VX_ORIGIN_SPELT = 5,    /* letter by letter */
  VX_ORIGIN_LETTERS = 6   /* guessed from the letters */
};

/* A word and how it will be said. */
typedef struct vx_pronunciation {
  const char *word;
  const char *phonemes; /* in the voice's symbols, which are IPA but for some diphthongs */
  int32_t origin;       /* VX_ORIGIN_* */
  uint32_t reserved;
} vx_pronunciation;

/* Something said differently from how it is written, or left out. */
typedef struct vx_change {
  const char *written;
  const char *spoken; /* NULL: it cannot be said; "": something invisible that was removed */
  size_t begin;       /* where, in bytes of the text, `end` excluded */
  size_t end;
} vx_change;

/* A sentence and what becomes of it. All of it is owned by the library and valid during the
 * callback. A later version may add fields; `size` says how many bytes there are. */
typedef struct vx_sentence {
  uint32_t size;
  float pause_after;    /* silence behind it, in seconds */
  size_t begin;         /* where it was written, in bytes of the text, `end` excluded */
  size_t end;
  const char *text;     /* words and marks, as they are said */
  const char *phonemes; /* the same in phonemes; "" for a voice that reads letters */
  const vx_word *words;
  size_t word_count;
  /* Of a voice that reads phonemes: one for each word, but letters written as one are one, and
   * so are words that the markup gives one pronunciation. */
  const vx_pronunciation *pronunciations;
  size_t pronunciation_count;
  const vx_change *changes; /* in the order of the text */
  size_t change_count;
} vx_sentence;

/* Takes a sentence; non-zero ends it with VX_E_CANCELLED. It may call anything but
 * vx_voice_close for this voice, and must not throw or longjmp. */
typedef int32_t (*vx_sentence_fn)(void *user, const vx_sentence *sentence);

/* Hands to `sink`, sentence by sentence, what an engine with the same `options` (NULL: defaults)
 * would say of `text`; nothing is spoken. `user` is handed through and never looked at. A
 * sentence may be spoken in several utterances. VX_E_TEXT if there is nothing to speak in it or
 * its markup is wrong. Since interface version 3. */
VX_API vx_status vx_voice_explain(const vx_voice *voice, const vx_options *options,
                                  const char *text, size_t bytes, vx_sentence_fn sink,
                                  void *user);

/* Makes an engine. `options` may be NULL. Refuses with VX_E_MEMORY, before anything is
 * allocated, if the estimate exceeds max_memory: a smaller max_positions, gamma or max_text
 * makes it fit. On VX_OK `*engine` is the caller's, to be given to vx_engine_close. */
VX_API vx_status vx_engine_open(const vx_voice *voice, const vx_options *options,
                                vx_engine **engine);

/* Ends whatever is being spoken, stops the threads, gives everything back. NULL is allowed.
 * Not to be called from the engine's own callback. */
VX_API void vx_engine_close(vx_engine *engine);

/* Adds text behind what was fed before. A sentence goes to the queue when its end is certain;
 * the parts may be cut anywhere, within a character too, and every cut gives the same speech.
 * VX_E_FULL takes nothing; VX_E_TEXT (not UTF-8) takes nothing either. */
VX_API vx_status vx_engine_feed(vx_engine *engine, const char *text, size_t bytes);

/* Ends the text: what was fed and is not yet in the queue goes there. */
VX_API vx_status vx_engine_flush(vx_engine *engine);

/* Writes up to `capacity` samples, about -1..1, to `pcm`, and how many to `*written`, which is
 * 0 unless the result is VX_OK; VX_E_ARGUMENT if `capacity` is 0. Runs at most as much as it
 * takes to have a sample: usually one round, at the start of an utterance the prompt and a few.
 * What it writes is of one utterance, or the silence before it: vx_engine_stats says which.
 *
 *   VX_OK           at least one sample was written
 *   VX_END          the queue has been spoken; feed or flush, then go on
 *   VX_E_CANCELLED  what was fed before vx_engine_cancel is dropped; go on with new text
 *   other           the utterance ends there; the next call goes on with the next one
 */
VX_API vx_status vx_engine_read(vx_engine *engine, float *pcm, size_t capacity,
                                size_t *written);

/* The same in 16 bits, rounded and limited. */
VX_API vx_status vx_engine_read_i16(vx_engine *engine, int16_t *pcm, size_t capacity,
                                    size_t *written);

/* Takes samples; non-zero cancels. `pcm` is owned by the engine and valid during the call.
 * It may call vx_engine_feed, _flush, _cancel and _stats, and must not throw or longjmp. */
typedef int32_t (*vx_pcm_fn)(void *user, const float *pcm, size_t samples);

/* Feeds `text`, flushes, and hands everything in the queue to `sink` round by round until
 * there is no more (VX_OK). `text` may be NULL with 0 bytes: speaks what was fed before.
 * `user` is handed through and never looked at.
 *
 * If it is broken off, by the callback or by an error while speaking, the rest of the queue is
 * dropped. VX_E_TEXT if there is nothing to speak in `text`, VX_E_FULL as for feed. */
VX_API vx_status vx_engine_speak(vx_engine *engine, const char *text, size_t bytes,
                                 vx_pcm_fn sink, void *user);

/* Drops all that was fed so far: what is being spoken ends after the round that is running
 * (or after the pass over its prompt), the reader gets VX_E_CANCELLED, and the engine is
 * ready for new text at once. Nothing happens if there was nothing to drop. It only adds to
 * an atomic counter, so it may be called from a signal handler. */
VX_API vx_status vx_engine_cancel(vx_engine *engine);

/* Totals since the engine was opened, as of the last round. Times in nanoseconds. */
typedef struct vx_stats {
  uint32_t size;
  uint32_t threads;        /* that compute */
  uint64_t utterances;     /* spoken to their end */
  uint64_t cut;            /* of these, cut at a length limit before the voice ended them */
  uint64_t cancelled;      /* utterances that were broken off */
  uint64_t tokens;         /* speech tokens */
  uint64_t samples;        /* PCM that was read or can be, silences between utterances included */
  uint64_t rounds;         /* target passes after the prompts */
  uint64_t proposed;       /* drafted tokens */
  uint64_t accepted;       /* of these, accepted */
  uint64_t emitted;        /* tokens out of rounds, ends of speech included */
  uint64_t exhausted;      /* rejections that needed the full residual */
  uint64_t replaced;       /* pieces of text said differently from how they are written */
  uint64_t unspeakable;    /* pieces of text that were left out */
  uint64_t compute_ns;     /* models, sampling and codec; not waiting for the consumer */
  uint64_t prefill_ns;     /* of that: prompts */
  uint64_t draft_ns;       /* of that: passes of the draft */
  uint64_t verify_ns;      /* of that: passes of the target */
  uint64_t sampling_ns;    /* of that: softmax, transforms, acceptance */
  uint64_t codec_ns;       /* of that: tokens to samples */
  uint64_t first_audio_ns; /* start of the latest utterance to its first samples; 0: none yet */
  uint64_t longest_round_ns; /* the longest wait that a reader has had for one round */
  /* Since interface version 3: */
  uint64_t begun;          /* utterances that were begun; the others are of the latest of them */
  uint64_t begun_at;       /* samples that came before its first; the silence before it is over */
  uint64_t source_begin;   /* where it was written, in bytes of what was fed since the flush */
  uint64_t source_end;     /* before, source_end excluded */
} vx_stats;

/* Fills `stats`, whose size must be set (or zero). */
VX_API vx_status vx_engine_stats(const vx_engine *engine, vx_stats *stats);

/* The estimate that the engine was opened with. Fills `memory`, whose size must be set (or
 * zero). */
VX_API vx_status vx_engine_memory(const vx_engine *engine, vx_memory *memory);

/* ---------------------------------------------------------------- the bare-metal core */

/* Acceptance and group index, for a system that runs the models itself. All memory is the
 * caller's, nothing is ever freed, every call ends in bounded time.
 *
 * A probability row is `vocabulary` floats that sum to one, with vx_core_block_count(
 * vocabulary) sums of its blocks of 256 behind it in a second array; vx_core_normalise and
 * vx_core_transform make one out of numbers that are only positive.
 *
 * On a target without operating system the application defines `void vx_core_panic(void)`,
 * which must not return (reset, or stop for the debugger). No input is known that leads
 * there: an index is checked when it is set, and rows and tokens before they are used. */
typedef struct vx_core vx_core;

/* Alignment of the memory handed to vx_core_init and vx_core_transform. */
#define VX_CORE_ALIGN 8

/* Bytes of a vx_core. */
VX_API size_t vx_core_get_size(void);

/* Makes a vx_core in `memory` (VX_CORE_ALIGN, at least vx_core_get_size() bytes), which it
 * occupies until the caller uses the memory for something else; there is nothing to close.
 * `*core` then points into it. Without an index every token is a group of its own. */
VX_API vx_status vx_core_init(void *memory, size_t bytes, uint64_t seed, vx_core **core);

/* Begins the random choices of `seed` anew. */
VX_API vx_status vx_core_seed(vx_core *core, uint64_t seed);

/* Uses the group index (*.asg) in `data`, which stays the caller's, is read in place and must
 * not change as long as the core uses it. Any alignment. Reads only the header; an index that
 * may have been damaged since it was built should be verified once. */
VX_API vx_status vx_core_set_index(vx_core *core, const void *data, size_t bytes);

/* Checks every byte of the index: seconds on a microcontroller. */
VX_API vx_status vx_core_verify_index(const vx_core *core);

/* Tokens 0 .. codebook are grouped; 0 without an index. */
VX_API uint32_t vx_core_codebook(const vx_core *core);

/* Writes the members of the group that `group` seeds to `out`, at most `capacity`, the seed
 * first, and how many there are in all to `*count`. `out` may be NULL if `capacity` is 0. A
 * token beyond the codebook is a group of its own. */
VX_API vx_status vx_core_members(const vx_core *core, uint32_t group, uint32_t *out,
                                 size_t capacity, size_t *count);

/* The same for the groups that contain `token`, its own first. */
VX_API vx_status vx_core_owners(const vx_core *core, uint32_t token, uint32_t *out,
                                size_t capacity, size_t *count);

/* Block sums of a row. */
VX_API size_t vx_core_block_count(size_t vocabulary);

/* Divides `probs` (at least 0 and not all 0) by their sum and writes the block sums. */
VX_API vx_status vx_core_normalise(float *probs, float *block_sums, size_t vocabulary);

/* Bytes of the scratch memory of vx_core_transform. */
VX_API size_t vx_core_scratch_size(void);

/* Keeps the `top_k` most probable tokens (0: all), of these the smallest set that holds
 * `top_p` (1: all), of these what has `min_p` times the best (0: all), then normalises. No
 * sorting; the work is a few passes over the row. */
VX_API vx_status vx_core_transform(float *probs, float *block_sums, size_t vocabulary,
                                   uint32_t top_k, float top_p, float min_p, void *scratch,
                                   size_t scratch_bytes);

/* Draws a token from a row: what the draft proposes. */
VX_API vx_status vx_core_draft(vx_core *core, const float *probs, const float *block_sums,
                               size_t vocabulary, uint32_t *token);

/* One round. Row i of `target` is the target's law of the token at drafted[i] with
 * drafted[..i] before it, and there is one row more than drafts; row i of `draft` is the row
 * that drafted[i] was drawn from. gamma 0 draws one token from the target's row. */
typedef struct vx_core_round {
  uint32_t size;
  int32_t arm;               /* VX_ARM_*; VX_ARM_DEFAULT: PCG with an index, else SD */
  int32_t emission;          /* VX_EMIT_* */
  float beta;                /* for VX_ARM_TOLERANCE, as it is: 0 is none */
  size_t vocabulary;
  size_t gamma;              /* drafted tokens */
  const uint32_t *drafted;   /* [gamma] */
  const float *target_probs; /* [gamma + 1][vocabulary] */
  const float *target_sums;  /* [gamma + 1][vx_core_block_count(vocabulary)] */
  const float *draft_probs;  /* [gamma][vocabulary] */
  const float *draft_sums;   /* [gamma][vx_core_block_count(vocabulary)] */
} vx_core_round;

/* Where a round's last token came from. */
enum {
  VX_RECOVERED = 0, /* a draft was rejected */
  VX_BONUS = 1,     /* every draft was accepted */
  VX_RESAMPLED = 2  /* a draft was accepted and replaced from its group */
};

/* The round emits drafted[0 .. accepted], then `next`. */
typedef struct vx_core_verdict {
  uint32_t size;
  uint32_t accepted;
  uint32_t next;
  int32_t origin;    /* VX_RECOVERED, VX_BONUS, VX_RESAMPLED */
  uint32_t tries;    /* of the thinning that found `next`; 0 if nothing was rejected */
  int32_t exhausted; /* whether the residual had to be computed in full */
} vx_core_verdict;

/* Verifies a round. Fills `verdict`, whose size must be set (or zero). */
VX_API vx_status vx_core_verify(vx_core *core, const vx_core_round *round,
                                vx_core_verdict *verdict);

#ifdef __cplusplus
}
#endif

#endif
