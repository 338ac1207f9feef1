use super::args::{
    ArmName, EmissionName, Gamma, Reading, VoiceArgs, WeightsName, parse_gamma, stream,
    user_lexicon,
};
use super::files::{make_folder, read_file};
use super::output::{self, progress, status};
use super::sink::{Sink, Wanted, check_name, is_stdout};
use super::{Cut, usage};
use clap::Args;
use serde_json::json;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use voxgrain::asg::Weights;
use voxgrain::core::accept::Emission;
use voxgrain::decode::{Arm, DEFAULT_BETA, Options};
use voxgrain::engine::Pool;
use voxgrain::speech::stream::OWN_SILENCE;
use voxgrain::speech::synth::SpeechStats;
use voxgrain::speech::text::{self, Chunk, Markup, Report, TextFrontend};
use voxgrain::speech::wav::{Container, WavFile};
use voxgrain::{Error, ErrorKind, Stream, Voice};

const EXAMPLES: &str = "\
Examples:
  voxgrain say \"The birch canoe slid on the smooth planks.\"
  voxgrain say -o out.wav -f story.txt
  voxgrain say -o - \"Hello.\" | aplay
  voxgrain say -f README.md                 Markdown, HTML and SSML are understood
  voxgrain say < story.txt                  sentence by sentence, wrapped lines joined
  tail -f log.txt | voxgrain say --lines    speaks each line as it arrives
  voxgrain say --pause sentence=0.6,paragraph=1.2 -f story.txt
  voxgrain say --speaker michael \"A bundle may have several speakers.\"
  voxgrain say --arm ar --json -o out.wav \"Plain decoding, measured.\"
  voxgrain say --seed 7 --temperature 0.8 \"Another reading of the same words.\"
  voxgrain say --lexicon names.tsv \"Nginx runs.\"   names.tsv: nginx<TAB>engine x
  voxgrain say --batch lines.txt --out-dir spoken --keep-going
  voxgrain text \"Dr. Ma ran 5 km.\"         shows what would be said, without sound

From standard input a sentence is spoken when its mark and a space or a line break have come, or
a blank line, or the end; with --lines, and from a terminal, every line is spoken when it has
come. An SSML document is spoken when it has ended, as is all with --markup markdown or ssml.

The same seed, text, build and bundle give the same sound, whatever the number of threads. Each
line of a batch begins with the seed as given: it sounds as it does alone.

Exit code 8: all was written or played, but the voice did not end some of it by itself and was
cut at the length limit.";

/// Speak text through the sound device, or write it to a file or pipe
#[derive(Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct Say {
    /// What to say; without it, standard input is read and spoken as it comes
    text: Vec<String>,
    /// Read the text from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Write a WAV file (.wav) instead of playing; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write bare 16-bit little-endian samples without a header
    #[arg(long)]
    raw: bool,
    /// Where no sound device is usable, write voxgrain.wav instead of ending with exit code 7
    #[arg(long)]
    fallback: bool,
    /// Who speaks; `voxgrain inspect` shows the names [default: the bundle's first]
    #[arg(long, visible_alias = "voice", value_name = "NAME")]
    speaker: Option<String>,
    /// How tokens are decoded [default: transport; pcg with --emission resample, --weights
    /// similarity or an index that is not symmetric; sd without an index]
    #[arg(long, value_enum)]
    arm: Option<ArmName>,
    /// Tokens drafted a round: 0 to 15; `auto` follows the running acceptance and the voice's
    /// costs; `measured` follows the clock as well, which is fastest and not reproducible
    #[arg(long, value_name = "N|auto|measured", value_parser = parse_gamma, default_value = "auto", allow_negative_numbers = true)]
    gamma: Gamma,
    /// Seed of every random choice: with the text it fixes the sound
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Divides the logits; 0 takes the most probable token [default: the voice's]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw from the K most probable tokens only; 0 is off [default: the voice's]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Draw from the smallest set that holds this probability; 1 is off [default: the voice's]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Drop tokens less probable than this share of the best; 0 is off [default: the voice's]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Added to the acceptance probability by the tolerance arm
    #[arg(long, default_value_t = DEFAULT_BETA, allow_negative_numbers = true)]
    beta: f32,
    /// What the pcg arm emits for an accepted draft
    #[arg(long, value_enum, default_value = "stand-in")]
    emission: EmissionName,
    /// How a token's mass is split over the groups that contain it
    #[arg(long, value_enum, default_value = "equal")]
    weights: WeightsName,
    /// Times the natural speed; a voice of one tempo takes 1 alone
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    rate: f32,
    /// Words and how to say them, a line each: the word, a tab, a respelling or /IPA/; may be
    /// repeated, later files win
    #[arg(long, value_name = "FILE")]
    lexicon: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Longest stretch spoken in one breath, in characters
    #[arg(long, value_name = "N", default_value_t = text::Options::default().max_chars)]
    max_chars: usize,
    /// Say nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object with the measurements on stdout
    #[arg(long)]
    json: bool,
    /// Speak each line of a file to its own WAV file in --out-dir
    #[arg(long, value_name = "FILE", requires = "out_dir", conflicts_with_all = ["text", "file", "output"])]
    batch: Option<PathBuf>,
    /// Where --batch writes the first line's 00000.wav, the second line's 00001.wav, ...; a blank
    /// line has no file
    #[arg(long, value_name = "DIR", requires = "batch")]
    out_dir: Option<PathBuf>,
    /// Leave out lines of --batch that cannot be spoken; the exit code tells of them at the end
    #[arg(long, requires = "batch")]
    keep_going: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

impl Say {
    pub fn run(self) -> anyhow::Result<()> {
        if self.output.as_deref().is_some_and(is_stdout) && self.json {
            return Err(usage("-o - and --json both write to stdout: use -o FILE").into());
        }
        if self.raw && self.output.is_none() {
            return Err(usage("--raw needs -o FILE or -o -").into());
        }
        if let Some(path) = &self.output {
            check_name(path, self.container())?;
        }
        let mut voice = self.voice.open_as(self.speaker.as_deref())?;
        if let WeightsName::Similarity = self.weights {
            voice = voice.with_weights(Weights::Similarity)?;
        }
        for path in &self.lexicon {
            voice = voice.with_lexicon(&user_lexicon(path)?)?;
        }
        voice.check_rate(self.rate)?;
        let frontend = self.frontend(&voice)?;
        let options = self.options(&voice)?;
        let pool = self.voice.pool();
        if self.batch.is_some() {
            return self.batch(&voice, options, frontend);
        }
        let mut job = Job {
            voicing: Voicing::new(&voice, options, &pool, self.rate, self.json)?,
            sink: None,
            open: || Sink::open(self.wanted(&voice)),
            report: Report::default(),
            quiet: self.quiet,
        };
        self.speak_all(frontend, &mut job)?;
        let stats = job.voicing.stats();
        let report = std::mem::take(&mut job.report);
        if let Some(sink) = job.sink.take()
            && let Some(path) = sink.finish()?
            && !self.quiet
        {
            status(&format!("wrote {}", path.display()));
        }
        if stats.utterances == 0 {
            let what = "there is nothing to speak: give some words as an argument, a file or stdin";
            return Err(Error::new(ErrorKind::InvalidText, what).into());
        }
        if !self.quiet {
            warn_about(&report);
        }
        if self.json {
            output::json(&measurements(&job.voicing, &options, &voice, &pool))?;
        } else if !self.quiet {
            status(&summary(&stats, &options, voice.bundle().audio.sample_rate_hz));
        }
        Cut::check(&stats)
    }

    fn options(&self, voice: &Voice) -> voxgrain::Result<Options> {
        let emission = match self.emission {
            EmissionName::StandIn => Emission::StandIn,
            EmissionName::Resample => Emission::Resample,
        };
        let arm = match self.arm {
            Some(name) => name.arm(self.beta, emission),
            None => voice.default_arm(emission),
        };
        if self.arm.is_none() && arm == Arm::Sd && !self.quiet {
            status(
                "this voice has no group index, so its speech is decoded by token (sd), which is \
                 slower: `voxgrain asg build` makes one",
            );
        }
        let mut o = voice.options(arm);
        o.seed = self.seed;
        o.gamma = self.gamma.length(voice, self.voice.threads());
        let s = &mut o.sampling;
        s.temperature = self.temperature.unwrap_or(s.temperature);
        s.transforms.top_k = self.top_k.unwrap_or(s.transforms.top_k);
        s.transforms.top_p = self.top_p.unwrap_or(s.transforms.top_p);
        s.transforms.min_p = self.min_p.unwrap_or(s.transforms.min_p);
        o.sampling.check()?;
        Ok(o)
    }

    fn frontend(&self, voice: &Voice) -> voxgrain::Result<TextFrontend> {
        let options = self.reading.options(voxgrain::Options::for_voice(voice).text);
        // Who types wants to hear what was typed.
        let typed = self.batch.is_none() && self.reads_stdin() && std::io::stdin().is_terminal();
        TextFrontend::new(text::Options {
            max_chars: self.max_chars,
            lines: options.lines || typed,
            ..options
        })
    }

    fn reads_stdin(&self) -> bool {
        match &self.file {
            Some(path) => path.as_os_str() == "-",
            None => self.text.is_empty() || self.text == ["-"],
        }
    }

    fn container(&self) -> Container {
        if self.raw { Container::Raw } else { Container::Wav }
    }

    /// The output is opened when the first samples are there, so that a failure before leaves no
    /// file.
    fn wanted(&self, voice: &Voice) -> Wanted<'_> {
        Wanted {
            output: self.output.as_deref(),
            container: self.container(),
            sample_rate_hz: voice.bundle().audio.sample_rate_hz,
            fallback: self.fallback,
        }
    }

    fn speak_all<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        frontend: TextFrontend,
        job: &mut Job<F>,
    ) -> anyhow::Result<()> {
        if self.reads_stdin() {
            return self.speak_stdin(frontend, job);
        }
        let bytes = match &self.file {
            Some(path) => read_file(path)?,
            None => self.text.join(" ").into_bytes(),
        };
        self.speak_whole(&frontend, &bytes, job)
    }

    fn speak_whole<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        frontend: &TextFrontend,
        bytes: &[u8],
        job: &mut Job<F>,
    ) -> anyhow::Result<()> {
        let speech = frontend.speak(text::utf8(bytes)?)?;
        job.report = speech.report;
        job.speak(&speech.chunks, !self.quiet)
    }

    /// Speaks what is complete as it comes. Text goes to the front end line by line, however it
    /// arrives, so that the same text gives the same sound.
    fn speak_stdin<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        mut frontend: TextFrontend,
        job: &mut Job<F>,
    ) -> anyhow::Result<()> {
        let unreadable =
            |e| Error::with_source(ErrorKind::Unreadable, "cannot read standard input", e);
        let options = frontend.options();
        let stdin = std::io::stdin();
        if stdin.is_terminal() && !self.quiet {
            status("type what to say, a line at a time; Ctrl-D ends");
        }
        let mut stdin = stdin.lock();
        // What has come of a line, cut where it would fill the memory: between words, or else
        // between characters.
        let mut line = Vec::new();
        let mut begun = false;
        loop {
            let room = LONGEST_LINE.saturating_sub(line.len()) as u64;
            let n = (&mut stdin).take(room).read_until(b'\n', &mut line).map_err(unreadable)?;
            if n == 0 && line.is_empty() {
                break;
            }
            if !begun && !options.lines && is_document(&line, options.markup) {
                stdin.read_to_end(&mut line).map_err(unreadable)?;
                return self.speak_whole(&frontend, &line, job);
            }
            let whole = n == 0 || line.ends_with(b"\n");
            let rest = if whole { Vec::new() } else { line.split_off(end_of_words(&line)) };
            let chunks = frontend.feed(text::utf8(&line)?)?;
            let blank = line.trim_ascii().is_empty();
            begun |= !blank;
            if blank && chunks.is_empty() {
                job.voicing.end_paragraph(options.pauses.paragraph);
            }
            job.speak(&chunks, false)?;
            line = rest;
        }
        job.speak(&frontend.flush()?, false)?;
        job.report = frontend.take_report();
        Ok(())
    }

    fn batch(&self, voice: &Voice, options: Options, frontend: TextFrontend) -> anyhow::Result<()> {
        let (Some(list), Some(dir)) = (&self.batch, &self.out_dir) else {
            return Err(usage("--batch needs --out-dir").into());
        };
        let bytes = read_file(list)?;
        let lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
        make_folder(dir)?;
        let pool = self.voice.pool();
        let batch = Batch { voice, options, frontend, pool, dir, rate: self.rate, json: self.json };
        let bar = progress(lines.len() as u64, self.quiet);
        let mut total = SpeechStats::default();
        let mut bad = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            bar.inc(1);
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let file = format!("{i:05}.wav");
            let spoken = text::utf8(line).and_then(|text| batch.speak(text, &file));
            let mut told = match spoken {
                Ok(voicing) => {
                    let stats = voicing.stats();
                    total.utterances += stats.utterances;
                    total.cut += stats.cut;
                    measurements(&voicing, &options, voice, &batch.pool)
                }
                // Only the text is the line's own fault.
                Err(e) if e.kind() == ErrorKind::InvalidText => {
                    let what = format!("line {} of {}", i + 1, list.display());
                    if !self.keep_going {
                        let what = format!("{what} (--keep-going leaves such lines out)");
                        return Err(Error::with_source(ErrorKind::InvalidText, what, e).into());
                    }
                    let why = format!("{e:#}");
                    bar.suspend(|| status(&format!("{what}: {why}")));
                    bad.push(i + 1);
                    json!({ "error": why })
                }
                Err(e) => return Err(e.into()),
            };
            if self.json {
                told["line"] = json!(i + 1);
                told["text"] = json!(String::from_utf8_lossy(line));
                if told["error"].is_null() {
                    told["file"] = json!(file);
                }
                output::json(&told)?;
            }
        }
        bar.finish_and_clear();
        if !bad.is_empty() {
            let numbers: Vec<String> = bad.iter().take(20).map(usize::to_string).collect();
            let more = if bad.len() > 20 { ", ..." } else { "" };
            let what = format!(
                "{} of the lines of {} could not be spoken: {}{more}",
                bad.len(),
                list.display(),
                numbers.join(", ")
            );
            return Err(Error::new(ErrorKind::InvalidText, what).into());
        }
        Cut::check(&total)
    }
}

/// What the lines of a batch have in common.
struct Batch<'a> {
    voice: &'a Voice,
    options: Options,
    frontend: TextFrontend,
    pool: Arc<Pool>,
    dir: &'a Path,
    rate: f32,
    json: bool,
}

impl Batch<'_> {
    /// Every line begins anew, so that it sounds as it does alone.
    fn speak(&self, line: &str, file: &str) -> voxgrain::Result<Voicing> {
        let chunks = self.frontend.speak(line)?.chunks;
        let mut voicing = Voicing::new(self.voice, self.options, &self.pool, self.rate, self.json)?;
        let rate = self.voice.bundle().audio.sample_rate_hz;
        let mut file = WavFile::create(self.dir.join(file), rate)?;
        for chunk in &chunks {
            voicing.speak(chunk, |pcm| file.write(pcm))?;
        }
        file.finish()?;
        Ok(voicing)
    }
}

/// Whether a text that begins so is known only when all of it is there.
fn is_document(begin: &[u8], markup: Markup) -> bool {
    let begin = begin.trim_ascii_start();
    match markup {
        Markup::Markdown | Markup::Ssml => true,
        Markup::Auto => begin.starts_with(b"<speak") || begin.starts_with(b"<?xml"),
        _ => false,
    }
}

/// Bytes of a line of standard input that are kept; a longer one is spoken by parts.
const LONGEST_LINE: usize = 1 << 20;

/// Where to cut bytes that go on: behind the last white space, or else before a character that is
/// not whole.
fn end_of_words(bytes: &[u8]) -> usize {
    if let Some(at) = bytes.iter().rposition(u8::is_ascii_whitespace) {
        return at + 1;
    }
    match std::str::from_utf8(bytes) {
        // Anything else that is wrong is told by whoever reads the text.
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => bytes.len(),
    }
}

/// What speaks: one stretch of text after the other.
struct Voicing {
    stream: Stream,
    rate: f32,
    /// Samples so far, silence included.
    sounded: u64,
    /// Pause behind the last stretch, in seconds.
    pause: f32,
    /// Samples of silence before the next stretch, besides that pause.
    longer: usize,
    /// For --json.
    stretches: Option<Vec<Stretch>>,
}

/// What was said when.
struct Stretch {
    text: String,
    /// Of a voice that reads them.
    phonemes: Option<String>,
    /// Its first sample and the one behind its last.
    samples: (u64, u64),
}

impl Voicing {
    fn new(
        voice: &Voice,
        options: Options,
        pool: &Arc<Pool>,
        rate: f32,
        keep: bool,
    ) -> voxgrain::Result<Self> {
        voice.check_rate(rate)?;
        let stream = stream(voice, options, pool)?;
        let stretches = keep.then(Vec::new);
        Ok(Self { stream, rate, sounded: 0, pause: f32::INFINITY, longer: 0, stretches })
    }

    /// A blank line came when all before it had been spoken: the pause there is to have so many
    /// seconds.
    fn end_paragraph(&mut self, pause: f32) {
        let more = pause.max(OWN_SILENCE) - self.pause.max(OWN_SILENCE);
        if more > 0.0 {
            let rate = self.stream.synthesizer().voice().bundle().audio.sample_rate_hz;
            self.longer += (more * rate as f32) as usize;
            self.pause = pause;
        }
    }

    fn speak(
        &mut self,
        chunk: &Chunk,
        mut sink: impl FnMut(&[f32]) -> voxgrain::Result<()>,
    ) -> voxgrain::Result<()> {
        let voice = self.stream.synthesizer().voice();
        let utterance = voice.utterance(chunk, self.rate)?;
        let phonemes = if self.stretches.is_some() { voice.phonemes(chunk)? } else { None };
        let longer = std::mem::take(&mut self.longer);
        if longer > 0 {
            sink(&vec![0.0; longer])?;
            self.sounded += longer as u64;
        }
        let begin = self.sounded + self.stream.silence() as u64;
        self.stream.push(utterance)?;
        while let Some(pcm) = self.stream.next_pcm()? {
            self.sounded += pcm.len() as u64;
            sink(pcm)?;
        }
        self.pause = chunk.pause_after;
        if let Some(all) = &mut self.stretches {
            let samples = (begin, self.sounded);
            all.push(Stretch { text: chunk.text.clone(), phonemes, samples });
        }
        Ok(())
    }

    fn stats(&self) -> SpeechStats {
        self.stream.stats().speech
    }
}

struct Job<F> {
    voicing: Voicing,
    sink: Option<Sink>,
    open: F,
    report: Report,
    quiet: bool,
}

impl<F: FnMut() -> voxgrain::Result<Sink>> Job<F> {
    fn speak(&mut self, chunks: &[Chunk], show: bool) -> anyhow::Result<()> {
        let bar = progress(chunks.len() as u64, self.quiet || !show || chunks.len() < 2);
        let (sink, open) = (&mut self.sink, &mut self.open);
        for chunk in chunks {
            self.voicing.speak(chunk, |pcm| {
                let sink = match &mut *sink {
                    Some(s) => s,
                    none => none.insert(open()?),
                };
                sink.write(pcm)
            })?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        if let Some(Sink::Stdout(_)) = self.sink {
            let _ = std::io::stdout().flush();
        }
        Ok(())
    }
}

fn warn_about(report: &Report) {
    if !report.unspeakable.is_empty() {
        let mut shown: Vec<String> =
            report.unspeakable.iter().map(|u| format!("{:?}", u.text)).collect();
        shown.dedup();
        let more = shown.len().saturating_sub(8);
        shown.truncate(8);
        let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
        status(&format!("not spoken: {}{tail}", shown.join(" ")));
    }
}

fn seconds(d: Duration) -> f64 {
    d.as_secs_f64()
}

struct Rates {
    audio: f64,
    compute: f64,
    per_second: f64,
    rtf: f64,
}

fn rates(s: &SpeechStats, rate: u32) -> Rates {
    let audio = s.samples as f64 / rate as f64;
    let compute = seconds(s.compute);
    Rates {
        audio,
        compute,
        per_second: if compute > 0.0 { s.tokens as f64 / compute } else { 0.0 },
        rtf: if audio > 0.0 { compute / audio } else { 0.0 },
    }
}

fn measurements(
    voicing: &Voicing,
    options: &Options,
    voice: &Voice,
    pool: &Pool,
) -> serde_json::Value {
    let s = &voicing.stats();
    let rate = voice.bundle().audio.sample_rate_hz;
    let r = rates(s, rate);
    let at = |samples: u64| samples as f64 / f64::from(rate);
    let chunks = voicing.stretches.iter().flatten();
    let chunks: Vec<_> = chunks
        .map(|s| {
            let (begin, end) = s.samples;
            let mut told = json!({ "text": s.text, "start": at(begin), "end": at(end) });
            if let Some(phonemes) = &s.phonemes {
                told["phonemes"] = json!(phonemes);
            }
            told
        })
        .collect();
    json!({
        "speaker": voice.speaker().name,
        "arm": options.arm.name(),
        "seed": options.seed,
        "audio_seconds": r.audio,
        "compute_seconds": r.compute,
        "tokens": s.tokens,
        "tokens_per_second": r.per_second,
        "rounds": s.spec.rounds,
        "proposed": s.spec.proposed,
        "accepted": s.spec.accepted,
        "acceptance_rate": s.spec.acceptance_rate(),
        "tokens_per_round": s.spec.tokens_per_round(),
        "mean_gamma": s.spec.mean_gamma(),
        "first_audio_ms": s.first_audio.map(|d| seconds(d) * 1e3),
        "rtf": r.rtf,
        "peak_rss_bytes": output::peak_rss_bytes(),
        "kernel": pool.kernel().name(),
        "threads": pool.threads(),
        "stretches": s.utterances,
        "cut": s.cut,
        "chunks": chunks,
        "split_seconds": {
            "prefill": seconds(s.spec.prefill),
            "draft": seconds(s.spec.draft),
            "verify": seconds(s.spec.verify),
            "sampling": seconds(s.spec.sampling),
            "codec": seconds(s.codec),
        },
    })
}

fn summary(s: &SpeechStats, options: &Options, rate: u32) -> String {
    let r = rates(s, rate);
    let acceptance = match s.spec.acceptance_rate() {
        Some(a) => format!("accepted {:.0} % of {:.1} drafted", a * 100.0, s.spec.mean_gamma()),
        None => "no drafts".into(),
    };
    format!(
        "{}: {:.2} s of sound, {} tokens at {:.0}/s, {acceptance}, first audio {:.0} ms, rtf {:.3}",
        options.arm.name(),
        r.audio,
        s.tokens,
        r.per_second,
        s.first_audio.map_or(0.0, |d| seconds(d) * 1e3),
        r.rtf
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_between_words_or_else_characters() {
        assert_eq!(end_of_words(b"one two thr"), 8);
        assert_eq!(end_of_words("\u{e4}\u{e4}".as_bytes()), 4);
        assert_eq!(end_of_words(&"\u{e4}\u{e4}".as_bytes()[..3]), 2);
        // What is wrong anyway is not kept for ever.
        assert_eq!(end_of_words(&[0xff, 0xfe]), 2);
        assert_eq!(end_of_words(&[0xc3]), 1);
    }
}
