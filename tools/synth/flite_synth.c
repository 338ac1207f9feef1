/* Speaks lines of text with flite (voices: CMU ARCTIC slt, female, and rms, male) for the training corpus.
 *
 *   flite_synth [--voice slt|rms] [--plain] [--noise SEED] TEXTS WORKER WORKERS OUT_PREFIX [SEED [FIRST [LAST]]]
 *
 * Worker W of N takes lines W, W+N, W+2N, ... of TEXTS and appends to OUT_PREFIX.pcm
 * (16 kHz mono int16) and OUT_PREFIX.tsv: line, first sample, samples, duration stretch,
 * pitch, phones ("name:end_sample " ...), text, voice. The .pcm data is flushed before its .tsv
 * line, so a reader that takes complete lines never runs past the audio.
 * Stretch and pitch come from a hash of the text, hence are the same on every machine;
 * --plain leaves both as the voice has them. --noise seeds the excitation's noise anew for every line (else it
 * goes on from line to line): the same speech said again, to compare with.
 */
#include <flite/flite.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cst_voice *register_cmu_us_slt(const char *voxdir);
cst_voice *register_cmu_us_rms(const char *voxdir);

/* libflite refers to a sound card's library that a batch program never calls. */
#define NO_SOUND_CARD(name) int name(void) { return -1; }
NO_SOUND_CARD(snd_config_update_free_global)
NO_SOUND_CARD(snd_pcm_close)
NO_SOUND_CARD(snd_pcm_drain)
NO_SOUND_CARD(snd_pcm_drop)
NO_SOUND_CARD(snd_pcm_hw_params)
NO_SOUND_CARD(snd_pcm_hw_params_any)
NO_SOUND_CARD(snd_pcm_hw_params_set_access)
NO_SOUND_CARD(snd_pcm_hw_params_set_channels)
NO_SOUND_CARD(snd_pcm_hw_params_set_format)
NO_SOUND_CARD(snd_pcm_hw_params_set_rate)
NO_SOUND_CARD(snd_pcm_hw_params_sizeof)
NO_SOUND_CARD(snd_pcm_open)
NO_SOUND_CARD(snd_pcm_prepare)
NO_SOUND_CARD(snd_pcm_resume)
NO_SOUND_CARD(snd_pcm_set_params)
NO_SOUND_CARD(snd_pcm_state)
NO_SOUND_CARD(snd_pcm_wait)
NO_SOUND_CARD(snd_pcm_writei)
NO_SOUND_CARD(snd_strerror)

static uint64_t hash_text(const char *text, uint64_t seed) {
    uint64_t h = 1469598103934665603ull ^ (seed * 0x9e3779b97f4a7c15ull);
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 1099511628211ull;
    h ^= h >> 33; h *= 0xff51afd7ed558ccdull; h ^= h >> 33;
    return h;
}

int main(int argc, char **argv) {
    const char *name = "slt", *program = argv[0];
    int plain = 0;
    long noise = -1;
    while (argc > 1 && !strncmp(argv[1], "--", 2)) {
        int used = 1;
        if (!strcmp(argv[1], "--plain")) plain = 1;
        else if (!strcmp(argv[1], "--voice") && argc > 2) name = argv[2], used = 2;
        else if (!strcmp(argv[1], "--noise") && argc > 2) noise = atol(argv[2]), used = 2;
        else argc = 0;
        argc -= used, argv += used;
    }
    int male = !strcmp(name, "rms");
    if (argc < 5 || (!male && strcmp(name, "slt"))) {
        fprintf(stderr, "usage: %s [--voice slt|rms] [--plain] [--noise SEED] TEXTS WORKER WORKERS OUT_PREFIX "
                "[SEED [FIRST [LAST]]]\n", program);
        return 2;
    }
    long worker = atol(argv[2]), workers = atol(argv[3]);
    uint64_t seed = argc > 5 ? strtoull(argv[5], NULL, 10) : 1;
    long first = argc > 6 ? atol(argv[6]) : 0, last = argc > 7 ? atol(argv[7]) : -1;
    char path[4096], line[8192];
    FILE *texts = fopen(argv[1], "r");
    snprintf(path, sizeof path, "%s.pcm", argv[4]);
    FILE *pcm = fopen(path, "wb");
    snprintf(path, sizeof path, "%s.tsv", argv[4]);
    FILE *index = fopen(path, "wb");
    if (!texts || !pcm || !index || workers < 1) {
        fprintf(stderr, "cannot open %s or %s\n", argv[1], path);
        return 1;
    }
    setvbuf(pcm, NULL, _IOFBF, 1 << 20);
    flite_init();
    cst_voice *voice = male ? register_cmu_us_rms(NULL) : register_cmu_us_slt(NULL);
    long long offset = 0;
    for (long number = 0; fgets(line, sizeof line, texts); number++) {
        line[strcspn(line, "\r\n")] = 0;
        if (number % workers != worker || number < first || !line[0]) continue;
        if (last >= 0 && number >= last) break;
        uint64_t h = hash_text(line, seed);
        float stretch = 0.92f + 0.23f * (float)(h & 0xffff) / 65535.0f;
        float pitch = 0.93f + 0.14f * (float)((h >> 16) & 0xffff) / 65535.0f;
        if (plain) stretch = pitch = 1.0f;
        feat_set_float(voice->features, "duration_stretch", stretch);
        feat_set_float(voice->features, "f0_shift", pitch);
        if (noise >= 0) srand((unsigned)(noise + number));
        cst_utterance *utterance = flite_synth_text(line, voice);
        if (!utterance) continue;
        cst_wave *wave = utt_wave(utterance);
        if (wave && wave->sample_rate == 16000 && wave->num_samples > 0) {
            fwrite(wave->samples, 2, (size_t)wave->num_samples, pcm);
            fflush(pcm);
            fprintf(index, "%ld\t%lld\t%d\t%.4f\t%.4f\t", number, offset, wave->num_samples, stretch, pitch);
            for (cst_item *s = relation_head(utt_relation(utterance, "Segment")); s; s = item_next(s))
                fprintf(index, "%s:%d ", item_name(s), (int)(item_feat_float(s, "end") * 16000.0f + 0.5f));
            fprintf(index, "\t%s\t%s\n", line, name);
            fflush(index);
            offset += wave->num_samples;
        }
        delete_utterance(utterance);
    }
    fclose(pcm);
    fclose(index);
    return 0;
}
