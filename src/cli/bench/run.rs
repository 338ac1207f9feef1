//! The run: every sentence by every arm in turn, each round timed.

use super::cold::ColdStart;
use super::machine::{Build, Conditions, Machine, Watch};
use super::pace::Pace;
use crate::cli::stats::{self, Spread, spread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;
use voxgrain::Stream;
use voxgrain::decode::{self, Arm, Options, SpecStats};
use voxgrain::speech::calibrate::costs_of;
use voxgrain::speech::stream::Step;
use voxgrain::speech::synth::SpeechStats;
use voxgrain::speech::text::Chunk;

/// Format of the JSON; raised when a field changes its meaning or goes away.
pub const FORMAT: u32 = 1;

/// The simulated player's buffers: those of `voxgrain say`.
pub const DEVICE_MS: u32 = 100;
pub const RING_MS: u32 = 200;

/// Everything one run measured; the Markdown, the table and the page are made of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub voxgrain_bench: u32,
    pub build: Build,
    pub machine: Machine,
    pub conditions: Conditions,
    pub voice: VoiceFacts,
    pub settings: Settings,
    pub load_ms: f64,
    /// Of this process, which holds an engine for each arm.
    pub rss_bytes: Option<u64>,
    pub peak_rss_bytes: Option<u64>,
    pub cold_start: Option<ColdStart>,
    pub arms: Vec<ArmReport>,
    pub definitions: BTreeMap<String, String>,
    pub utterances: Vec<Utterance>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct VoiceFacts {
    pub name: String,
    /// Who spoke; runs of before there was a choice do not say.
    #[serde(default)]
    pub speaker: Option<String>,
    /// Of `bundle.toml`, which holds the hash of every other file.
    pub sha256: String,
    pub groups_sha256: Option<String>,
    pub mapped_bytes: u64,
    pub target_bits: u32,
    pub sample_rate_hz: u32,
    pub frame_rate_hz: u32,
}

/// A draft step and a further row of a target pass, in passes of one row.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Costs {
    pub draft: f32,
    pub row: f32,
    /// Measured on this machine before, see `voxgrain calibrate`; else the voice's.
    #[serde(default)]
    pub calibrated: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    pub utterances: usize,
    pub sets: BTreeMap<String, usize>,
    pub seed: u64,
    /// A number, `auto` or `measured`.
    pub gamma: String,
    /// By which `auto` chooses, in target passes of one row; runs of before do not say.
    #[serde(default)]
    pub costs: Option<Costs>,
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub device_ms: u32,
    pub ring_ms: u32,
}

/// Seconds by what they were spent on.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Split {
    pub prefill: f64,
    pub draft: f64,
    pub verify: f64,
    pub sampling: f64,
    pub codec: f64,
    /// The rest of the time: text, bookkeeping, the clock itself.
    pub other: f64,
}

impl Split {
    pub const NAMES: [&str; 6] = ["prefill", "draft", "verify", "sampling", "codec", "other"];

    pub fn parts(&self) -> [f64; 6] {
        [self.prefill, self.draft, self.verify, self.sampling, self.codec, self.other]
    }

    pub fn total(&self) -> f64 {
        self.parts().iter().sum()
    }

    fn scaled(&self, by: f64) -> Self {
        let [prefill, draft, verify, sampling, codec, other] = self.parts().map(|p| p * by);
        Self { prefill, draft, verify, sampling, codec, other }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ArmReport {
    pub arm: String,
    /// Most tokens drafted in a round, and how many were on average.
    pub gamma: usize,
    pub mean_gamma: f64,
    /// As they were in this run, against its `ar`.
    #[serde(default)]
    pub costs: Option<Costs>,
    #[serde(skip)]
    pub spec: SpecStats,
    pub tokens: u64,
    pub audio_seconds: f64,
    pub compute_seconds: f64,
    pub tokens_per_second: f64,
    /// Compute seconds over audio seconds: lower is better.
    pub rtf: f64,
    /// Median of the per-utterance ratios of `ar`'s rtf to this arm's, with its 95 % interval.
    pub speed_up: Option<[f64; 3]>,
    pub rounds: u64,
    pub tokens_per_round: f64,
    pub acceptance_rate: Option<f64>,
    pub proposed_at: Vec<u64>,
    pub accepted_at: Vec<u64>,
    /// Rounds that accepted 0, 1, ... drafts.
    pub accepted_lengths: Vec<u64>,
    pub first_token_ms: Option<Spread>,
    pub first_audio_ms: Option<Spread>,
    pub token_ms: Option<Spread>,
    pub round_ms: Option<Spread>,
    pub codec_token_ms: Option<Spread>,
    pub utterance_rtf: Option<Spread>,
    /// The percentiles 0 to 100.
    pub token_ms_percentiles: Vec<f64>,
    pub split_seconds: Split,
    pub share: Split,
    /// A mean round after the prompt, in milliseconds.
    pub round_split_ms: Split,
    pub playback: Playback,
    pub by_set: BTreeMap<String, BySet>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct BySet {
    pub utterances: usize,
    pub tokens_per_second: f64,
    pub rtf: f64,
    pub speed_up: Option<[f64; 3]>,
    pub first_audio_ms: Option<Spread>,
}

/// The simulated player.
#[derive(Debug, Serialize, Deserialize)]
pub struct Playback {
    pub simulated: bool,
    pub underruns: u64,
    pub utterances_with_underruns: u64,
    pub silence_seconds: f64,
    /// From the text until the device begins.
    pub start_ms: Option<Spread>,
    /// Least sound queued while playing, in milliseconds: the 5th percentile of utterances.
    pub lowest_fill_ms_p05: Option<f64>,
    /// Seconds and milliseconds queued, over the longest utterance.
    pub trace: Vec<[f64; 2]>,
    pub trace_utterance: Option<usize>,
}

/// One sentence by one arm.
#[derive(Debug, Serialize, Deserialize)]
pub struct Utterance {
    /// Number in the run.
    pub utterance: usize,
    pub set: String,
    pub text: String,
    pub arm: String,
    /// Which arm's turn it was, 0 first.
    pub turn: usize,
    pub tokens: u64,
    pub rounds: u64,
    pub proposed: u64,
    pub accepted: u64,
    pub audio_seconds: f64,
    pub compute_seconds: f64,
    pub rtf: Option<f64>,
    pub first_token_ms: f64,
    pub first_audio_ms: f64,
    pub token_ms: f64,
    pub split_seconds: Split,
    pub start_ms: f64,
    pub underruns: u32,
    pub silence_seconds: f64,
    pub lowest_fill_ms: Option<f64>,
    pub celsius: Option<f64>,
    pub mhz: Option<f64>,
}

pub struct Sentence {
    pub set: &'static str,
    pub text: String,
    pub chunks: Vec<Chunk>,
}

/// One step of the stream: a round of decoding and the codec over its tokens.
#[derive(Clone, Copy)]
struct Round {
    seconds: f64,
    samples: usize,
    /// Tokens emitted, the end included.
    emitted: u64,
    accepted: u64,
    proposed: u64,
    split: Split,
    /// Of a chunk's first round: what came before it.
    begin: f64,
}

/// Rounds that an utterance has room for without allocating.
const ROUNDS: usize = 8192;

pub struct Lane {
    pub arm: Arm,
    gamma: usize,
    stream: Stream,
    rounds: Vec<Round>,
    spec: Vec<SpecStats>,
    token_ms: Vec<f64>,
    round_ms: Vec<f64>,
    codec_ms: Vec<f64>,
    lengths: Vec<u64>,
    later: (u64, Split),
    trace: (usize, Vec<[f64; 2]>, Option<usize>),
}

fn difference(a: &SpeechStats, b: &SpeechStats) -> Split {
    let d = |x: std::time::Duration, y: std::time::Duration| (y - x).as_secs_f64();
    Split {
        prefill: d(a.spec.prefill, b.spec.prefill),
        draft: d(a.spec.draft, b.spec.draft),
        verify: d(a.spec.verify, b.spec.verify),
        sampling: d(a.spec.sampling, b.spec.sampling),
        codec: d(a.codec, b.codec),
        other: 0.0,
    }
}

impl Lane {
    pub fn new(arm: Arm, options: &Options, stream: Stream) -> Self {
        Self {
            arm,
            gamma: if arm == Arm::Ar { 0 } else { options.gamma.most() },
            stream,
            rounds: Vec::with_capacity(ROUNDS),
            spec: Vec::new(),
            token_ms: Vec::new(),
            round_ms: Vec::new(),
            codec_ms: Vec::new(),
            lengths: vec![0; options.gamma.most() + 1],
            later: Default::default(),
            trace: Default::default(),
        }
    }

    /// Speaks without counting.
    pub fn warm_up(&mut self, sentence: &Sentence) -> voxgrain::Result<()> {
        self.time(sentence).map(|_| ())
    }

    /// Fills `rounds`. Between two looks at the clock there is nothing but the stream.
    fn time(&mut self, sentence: &Sentence) -> voxgrain::Result<(SpeechStats, SpeechStats)> {
        self.rounds.clear();
        let stats = |stream: &Stream| stream.synthesizer().stats();
        let first = stats(&self.stream);
        for chunk in &sentence.chunks {
            let utterance = self.stream.synthesizer().voice().write(chunk, 1.0)?;
            self.stream.push(utterance)?;
            let mut before = stats(&self.stream);
            let mut begin = 0.0;
            loop {
                let clock = Instant::now();
                let step = self.stream.step()?;
                let seconds = clock.elapsed().as_secs_f64();
                match step {
                    Step::Idle => break,
                    Step::Prompt => {
                        begin += seconds;
                        continue;
                    }
                    Step::Round => {}
                }
                let after = stats(&self.stream);
                self.rounds.push(Round {
                    seconds,
                    samples: self.stream.take().len(),
                    emitted: after.spec.emitted - before.spec.emitted,
                    accepted: after.spec.accepted - before.spec.accepted,
                    proposed: after.spec.proposed - before.spec.proposed,
                    split: difference(&before, &after),
                    begin,
                });
                begin = 0.0;
                before = after;
            }
        }
        Ok((first, stats(&self.stream)))
    }

    pub fn speak(
        &mut self,
        utterance: usize,
        turn: usize,
        sentence: &Sentence,
        rate: u32,
        watch: &mut Watch,
    ) -> voxgrain::Result<Utterance> {
        let (before, after) = self.time(sentence)?;
        let sample = watch.look();
        let audio = (after.samples - before.samples) as f64 / f64::from(rate);
        let compute = (after.compute - before.compute).as_secs_f64();
        let mut split = difference(&before, &after);
        split.other = (compute - split.total()).max(0.0);

        let mut pace = Pace::new(rate, DEVICE_MS, RING_MS);
        let keep = after.samples - before.samples > self.trace.0 as u64;
        let mut trace = Vec::new();
        let (mut first_token, mut first_audio, mut clock) = (None, None, 0.0);
        for r in &self.rounds {
            let seconds = r.begin + r.seconds;
            clock += seconds;
            first_token.get_or_insert(clock - r.split.codec);
            if r.samples > 0 {
                first_audio.get_or_insert(clock);
            }
            pace.work(seconds);
            let low = [pace.now(), pace.fill() * 1e3];
            pace.push(r.samples);
            if keep {
                trace.extend([low, [pace.now(), pace.fill() * 1e3]]);
            }
            // A round's tokens share its time without the codec, which comes after.
            let decode = (r.seconds - r.split.codec) * 1e3;
            self.round_ms.push(r.seconds * 1e3);
            for _ in 0..r.emitted {
                self.token_ms.push(decode / r.emitted as f64);
                self.codec_ms.push(r.split.codec * 1e3 / r.emitted as f64);
            }
            if r.proposed > 0 {
                let last = self.lengths.len() - 1;
                self.lengths[(r.accepted as usize).min(last)] += 1;
            }
            let rest = Split { prefill: 0.0, ..r.split };
            self.later.0 += 1;
            let sum = &mut self.later.1;
            sum.draft += rest.draft;
            sum.verify += rest.verify;
            sum.sampling += rest.sampling;
            sum.codec += rest.codec;
            sum.other += (r.seconds - rest.total()).max(0.0);
        }
        let (fill, now) = (pace.fill(), pace.now());
        pace.finish();
        if keep {
            trace.push([now + fill, 0.0]);
            self.trace = ((after.samples - before.samples) as usize, trace, Some(utterance));
        }
        let tokens = after.tokens - before.tokens;
        let decode: f64 = self.rounds.iter().map(|r| r.seconds - r.split.codec).sum();
        self.spec.push(after.spec - before.spec);
        Ok(Utterance {
            utterance,
            set: sentence.set.to_owned(),
            text: sentence.text.clone(),
            arm: self.arm.name().to_owned(),
            turn,
            tokens,
            rounds: after.spec.rounds - before.spec.rounds,
            proposed: after.spec.proposed - before.spec.proposed,
            accepted: after.spec.accepted - before.spec.accepted,
            audio_seconds: audio,
            compute_seconds: compute,
            rtf: (audio > 0.0).then(|| compute / audio),
            first_token_ms: first_token.unwrap_or_default() * 1e3,
            first_audio_ms: first_audio.unwrap_or_default() * 1e3,
            token_ms: decode * 1e3 / tokens.max(1) as f64,
            split_seconds: split,
            start_ms: pace.start().unwrap_or_default() * 1e3,
            underruns: pace.underruns(),
            silence_seconds: pace.silence(),
            lowest_fill_ms: pace.lowest().map(|f| f * 1e3),
            celsius: sample.celsius,
            mhz: sample.mhz,
        })
    }

    pub fn report(self, all: &[Utterance]) -> ArmReport {
        let name = self.arm.name();
        let own = || all.iter().filter(|u| u.arm == name);
        let mut spec = SpecStats::default();
        self.spec.iter().for_each(|s| spec += *s);
        let tokens: u64 = own().map(|u| u.tokens).sum();
        let compute: f64 = own().map(|u| u.compute_seconds).sum();
        let audio: f64 = own().map(|u| u.audio_seconds).sum();
        let mut split = Split::default();
        for u in own() {
            let (a, b) = (split.parts(), u.split_seconds.parts());
            let [prefill, draft, verify, sampling, codec, other] =
                std::array::from_fn(|i| a[i] + b[i]);
            split = Split { prefill, draft, verify, sampling, codec, other };
        }
        let mut sets: BTreeMap<String, BySet> = BTreeMap::new();
        for set in own().map(|u| u.set.clone()) {
            if sets.contains_key(&set) {
                continue;
            }
            let of = || own().filter(|u| u.set == set);
            let compute: f64 = of().map(|u| u.compute_seconds).sum();
            let by = BySet {
                utterances: of().count(),
                tokens_per_second: of().map(|u| u.tokens as f64).sum::<f64>() / compute,
                rtf: ratio(compute, of().map(|u| u.audio_seconds).sum()),
                speed_up: speed_up(all, name, |u| u.set == set),
                first_audio_ms: spread(of().map(|u| u.first_audio_ms)),
            };
            sets.insert(set, by);
        }
        let lowest = stats::sorted(own().filter_map(|u| u.lowest_fill_ms));
        let gamma = self.gamma;
        ArmReport {
            arm: name.to_owned(),
            gamma,
            mean_gamma: spec.mean_gamma(),
            costs: None,
            spec,
            tokens,
            audio_seconds: audio,
            compute_seconds: compute,
            tokens_per_second: ratio(tokens as f64, compute),
            rtf: ratio(compute, audio),
            speed_up: speed_up(all, name, |_| true),
            rounds: spec.rounds,
            tokens_per_round: spec.tokens_per_round(),
            acceptance_rate: spec.acceptance_rate(),
            proposed_at: spec.proposed_at[..gamma].to_vec(),
            accepted_at: spec.accepted_at[..gamma].to_vec(),
            accepted_lengths: if gamma > 0 { self.lengths } else { Vec::new() },
            first_token_ms: spread(own().map(|u| u.first_token_ms)),
            first_audio_ms: spread(own().map(|u| u.first_audio_ms)),
            token_ms: spread(self.token_ms.iter().copied()),
            round_ms: spread(self.round_ms.iter().copied()),
            codec_token_ms: spread(self.codec_ms.iter().copied()),
            utterance_rtf: spread(own().filter_map(|u| u.rtf)),
            token_ms_percentiles: stats::percentiles(self.token_ms.iter().copied()),
            share: split.scaled(if split.total() > 0.0 { 1.0 / split.total() } else { 0.0 }),
            split_seconds: split,
            round_split_ms: self.later.1.scaled(1e3 / self.later.0.max(1) as f64),
            playback: Playback {
                simulated: true,
                underruns: own().map(|u| u64::from(u.underruns)).sum(),
                utterances_with_underruns: own().filter(|u| u.underruns > 0).count() as u64,
                silence_seconds: own().map(|u| u.silence_seconds).sum(),
                start_ms: spread(own().map(|u| u.start_ms)),
                lowest_fill_ms_p05: (!lowest.is_empty()).then(|| stats::quantile(&lowest, 0.05)),
                trace: thin(self.trace.1),
                trace_utterance: self.trace.2,
            },
            by_set: sets,
        }
    }
}

/// Every so many points of a long trace.
fn thin(trace: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    // Low and high points alternate: an odd step keeps both.
    let step = (trace.len() / 400) | 1;
    let last = trace.last().copied();
    let mut out: Vec<[f64; 2]> = trace.into_iter().step_by(step).collect();
    if let Some(last) = last.filter(|l| out.last() != Some(l)) {
        out.push(last);
    }
    out
}

/// Finite for JSON, whatever happened.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// Ratios of ar's rtf to this arm's, utterance by utterance.
fn speed_up(all: &[Utterance], arm: &str, wanted: impl Fn(&Utterance) -> bool) -> Option<[f64; 3]> {
    let of = |name: &str| -> BTreeMap<usize, f64> {
        let own = all.iter().filter(|u| u.arm == name && wanted(u));
        own.filter_map(|u| Some((u.utterance, u.rtf?))).collect()
    };
    let (base, own) = (of("ar"), of(arm));
    stats::median_interval(own.iter().filter_map(|(i, x)| Some(base.get(i)? / x)))
}

/// Says of every arm that drafted what its drafts and rows cost.
pub fn with_costs(mut arms: Vec<ArmReport>) -> Vec<ArmReport> {
    if let Some(plain) = arms.iter().find(|a| a.arm == "ar").map(|a| a.spec) {
        for arm in arms.iter_mut().filter(|a| a.spec.proposed > 0) {
            let decode::Costs { draft, row, .. } = costs_of(&plain, &arm.spec);
            arm.costs = Some(Costs { draft, row, calibrated: true });
        }
    }
    arms
}

pub fn definitions() -> BTreeMap<String, String> {
    [
        ("rtf", "compute seconds over audio seconds, codec included; lower is better, below 1 keeps up with speech"),
        ("speed_up", "median over utterances of rtf(ar) / rtf(arm), with a 95 % bootstrap interval; higher is better"),
        ("first_token_ms", "from the text to the first speech token: prompt and first round without the codec"),
        ("first_audio_ms", "from the text to the first samples"),
        ("token_ms", "a round's time without codec and prompt over its tokens, each token counted once"),
        ("round_ms", "one round with its codec pass, without the prompt"),
        ("codec_token_ms", "the codec's time over the tokens it decoded"),
        ("costs", "a draft step with its law, and a further row of a target pass, in rounds of one row; codec and prompts apart"),
        ("acceptance_rate", "accepted over drafted tokens, the rejected tail included"),
        ("tokens_per_round", "tokens that one pass of the target yields"),
        ("playback", "simulated: the measured times of the chunks against the clock of a player with the buffers of `voxgrain say`; no sound device was used"),
        ("cold_start", "from starting a fresh process to its first samples; warm: files in the system's cache, cold: dropped from it first"),
        ("others_share", "share of all cores' time that other programs took during the run"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}
