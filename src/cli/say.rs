mod jsonl;
mod subtitles;

use super::args::{
    ArmName, DraftName, EmissionName, Gamma, Reading, VoiceArgs, WeightsName, parse_gamma, stream,
    user_lexicon,
};
use super::files::{make_folder, read_file, write_whole};
use super::output::{self, progress, status};
use super::rot::Rot;
use super::sink::{Sink, Wanted, check_name, is_stdout};
use super::{Cut, usage};
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, IsTerminal, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use voxgrain::asg::Weights;
use voxgrain::core::accept::Emission;
use voxgrain::decode::{Arm, DEFAULT_BETA, Options};
use voxgrain::engine::Pool;
use voxgrain::speech::command::PhonemesCommand;
use voxgrain::speech::stream::{OWN_SILENCE, Utterance};
use voxgrain::speech::synth::SpeechStats;
use voxgrain::speech::text::{self, Chunk, Markup, Report, TextFrontend};
use voxgrain::speech::timing;
use voxgrain::speech::wav::{Container, WavFile};
use voxgrain::speech::written::pronounced_by_word;
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
  voxgrain say -o story.wav --srt story.srt --vtt story.vtt -f story.txt
  echo '{\"text\": \"Hello.\", \"output\": \"a.wav\"}' | voxgrain say --json-input   one that stays
  voxgrain text \"Dr. Ma ran 5 km.\"         shows what would be said, without sound

From standard input a sentence is spoken when its mark and a space or a line break have come, or
a blank line, or the end; with --lines, and from a terminal, every line is spoken when it has
come. An SSML document is spoken when it has ended, as is all with --markup markdown or ssml. A
file of 32 KiB or more is read in the same way, unless its beginning shows that it is marked up.

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
    /// similarity or an index that is not symmetric; sd without an index; ar without a draft]
    #[arg(long, value_enum)]
    arm: Option<ArmName>,
    /// `none`: plain decoding, the arm ar [default: the voice's draft, if it has one]
    #[arg(long, value_enum, value_name = "none", conflicts_with = "arm")]
    draft: Option<DraftName>,
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
    /// Divides positive logits of tokens that were said, and multiplies negative ones; 1 is off
    /// [default: the voice's]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Only of the last N tokens, prompt included; 0: all of them [default: the voice's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    repetition_window: Option<u32>,
    /// Speech tokens before an utterance may end [default: the voice's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    min_tokens: Option<u32>,
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
    /// The text is phonemes, a line each stretch, as the voice reads them: of imported voices what
    /// espeak-ng writes, of others what `voxgrain text` shows
    #[arg(long, conflicts_with_all = ["batch", "lexicon"])]
    phonemes: bool,
    /// Program that writes the phonemes that an imported voice reads, such as
    /// 'espeak-ng -v en-us --ipa -q'; it gets lines on its standard input
    #[arg(long, value_name = "COMMAND", conflicts_with = "phonemes")]
    phonemes_command: Option<String>,
    /// Mood of an imported voice that knows some
    #[arg(long, value_name = "NAME")]
    emotion: Option<String>,
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
    /// Read requests as lines of JSON from standard input, {"text", "voice", "rate", "seed",
    /// "output"}, all but the text optional, and answer each with a line of JSON
    #[arg(long, conflicts_with_all = ["text", "file", "output", "batch", "srt", "vtt"])]
    json_input: bool,
    /// Write subtitles, a cue a sentence (SubRip); standard input is read to its end first
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    srt: Option<PathBuf>,
    /// The same as WebVTT, with a time for each word: estimated, half of them within 60 ms
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    vtt: Option<PathBuf>,
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
        let mut voice = self.voice.open()?;
        if let Some(command) = &self.phonemes_command {
            voice = voice.with_phonemes_command(PhonemesCommand::parse(command)?)?;
        }
        if let Some(emotion) = &self.emotion {
            voice = voice.with_emotion(emotion)?;
        }
        if let Some(name) = &self.speaker {
            voice = voice.with_speaker(name)?;
        }
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
        if self.json_input {
            return jsonl::Lines { say: &self, voice, options, frontend, pool }.run();
        }
        let keep = self.json || self.wants_subtitles();
        let mut job = Job {
            voicing: Voicing::new(&voice, options, &pool, self.rate, keep)?,
            sink: None,
            open: || Sink::open(self.wanted(&voice)),
            left_out: LeftOut::default(),
            quiet: self.quiet,
        };
        let mut rot = Rot::begin(&voice, self.voice.groups.as_deref());
        let text = self.speak_all(frontend, &mut job)?;
        let stats = job.voicing.stats();
        let left_out = std::mem::take(&mut job.left_out);
        rot.end()?;
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
        let rate = voice.bundle().audio.sample_rate_hz;
        let cues = job.voicing.stretches.as_deref().unwrap_or_default();
        for (path, write) in [
            (&self.srt, subtitles::srt as fn(&[Stretch], &[u8], u32) -> String),
            (&self.vtt, subtitles::vtt),
        ] {
            if let Some(path) = path {
                write_whole(path, write(cues, &text, rate).as_bytes())?;
            }
        }
        if !self.quiet {
            left_out.warn();
        }
        if self.json {
            output::json(&measurements(&job.voicing, &options, &voice, &pool))?;
        } else if !self.quiet {
            status(&summary(&stats, &options, rate));
        }
        Cut::check(&stats)
    }

    fn wants_subtitles(&self) -> bool {
        self.srt.is_some() || self.vtt.is_some()
    }

    fn options(&self, voice: &Voice) -> voxgrain::Result<Options> {
        let emission = match self.emission {
            EmissionName::StandIn => Emission::StandIn,
            EmissionName::Resample => Emission::Resample,
        };
        let arm = match self.arm {
            Some(name) => name.arm(self.beta, emission),
            None if self.draft == Some(DraftName::None) => Arm::Ar,
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
        let p = &mut s.penalties;
        p.repetition = self.repetition_penalty.unwrap_or(p.repetition);
        p.window = self.repetition_window.unwrap_or(p.window);
        p.min_tokens = self.min_tokens.unwrap_or(p.min_tokens);
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

    /// The text, where it is there as a whole.
    fn speak_all<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        frontend: TextFrontend,
        job: &mut Job<F>,
    ) -> anyhow::Result<Vec<u8>> {
        if self.phonemes {
            let bytes = match &self.file {
                Some(path) => read_file(path)?,
                None if self.reads_stdin() => read_stdin()?,
                None => self.text.join(" ").into_bytes(),
            };
            job.speak_written(text::utf8(&bytes)?)?;
            return Ok(bytes);
        }
        // Subtitles name places of a text, which is kept for them.
        let bytes = match &self.file {
            _ if self.reads_stdin() && self.wants_subtitles() => read_stdin()?,
            _ if self.reads_stdin() => {
                self.speak_stdin(frontend, job)?;
                return Ok(Vec::new());
            }
            Some(path) if self.wants_subtitles() => read_file(path)?,
            Some(path) => {
                self.speak_file(frontend, path, job)?;
                return Ok(Vec::new());
            }
            None => self.text.join(" ").into_bytes(),
        };
        self.speak_whole(&frontend, &bytes, job)?;
        Ok(bytes)
    }

    /// A short file or a document is read whole; any other text is spoken as it is read.
    fn speak_file<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        frontend: TextFrontend,
        path: &Path,
        job: &mut Job<F>,
    ) -> anyhow::Result<()> {
        let what = path.display().to_string();
        let mut file = BufReader::new(File::open(path).map_err(|e| unreadable(&what, e))?);
        let mut begin = Vec::new();
        let n = file.by_ref().take(SHORT).read_to_end(&mut begin);
        if (n.map_err(|e| unreadable(&what, e))? as u64) < SHORT {
            return self.speak_whole(&frontend, &begin, job);
        }
        let markup = frontend.options().markup;
        let known = String::from_utf8_lossy(&begin);
        if is_document(&begin, markup) || (markup == Markup::Auto && text::is_marked_up(&known)) {
            read_document(&mut file, &mut begin, &what)?;
            return self.speak_whole(&frontend, &begin, job);
        }
        let mut all = Cursor::new(begin).chain(file);
        self.speak_lines(frontend, &mut all, &what, true, job)
    }

    fn speak_whole<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        frontend: &TextFrontend,
        bytes: &[u8],
        job: &mut Job<F>,
    ) -> anyhow::Result<()> {
        let speech = frontend.speak(text::utf8(bytes)?)?;
        job.left_out.note(speech.report);
        job.speak(&speech.chunks, !self.quiet)
    }

    fn speak_stdin<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        frontend: TextFrontend,
        job: &mut Job<F>,
    ) -> anyhow::Result<()> {
        let stdin = std::io::stdin();
        if stdin.is_terminal() && !self.quiet {
            status("type what to say, a line at a time; Ctrl-D ends");
        }
        self.speak_lines(frontend, &mut stdin.lock(), "standard input", false, job)
    }

    /// Speaks what is complete as it comes. Text goes to the front end line by line, however it
    /// arrives, so that the same text gives the same sound. `known` says that it is no document.
    fn speak_lines<F: FnMut() -> voxgrain::Result<Sink>>(
        &self,
        mut frontend: TextFrontend,
        input: &mut impl BufRead,
        name: &str,
        known: bool,
        job: &mut Job<F>,
    ) -> anyhow::Result<()> {
        let options = frontend.options();
        // What has come of a line, cut where it would fill the memory: between words, or else
        // between characters.
        let mut line = Vec::new();
        // Bytes before it; whether a line is being read that was cut; whether text has come.
        let (mut before, mut inside, mut begun) = (0, false, known);
        loop {
            let room = LONGEST_LINE.saturating_sub(line.len()) as u64;
            let n = input.take(room).read_until(b'\n', &mut line);
            let n = n.map_err(|e| unreadable(name, e))?;
            if n == 0 && line.is_empty() {
                break;
            }
            if !begun && !options.lines && is_document(&line, options.markup) {
                read_document(input, &mut line, name)?;
                return self.speak_whole(&frontend, &line, job);
            }
            let whole = n == 0 || line.ends_with(b"\n");
            let rest = if whole { Vec::new() } else { line.split_off(end_of_words(&line)) };
            let chunks = frontend.feed(utf8_behind(before, &line)?)?;
            before += line.len();
            let blank = line.trim_ascii().is_empty();
            begun |= !blank;
            if blank && whole && !inside && chunks.is_empty() {
                job.voicing.end_paragraph(options.pauses.paragraph);
            }
            inside = !whole;
            job.left_out.note(frontend.take_report());
            job.speak(&chunks, false)?;
            line = rest;
        }
        job.speak(&frontend.flush()?, false)?;
        job.left_out.note(frontend.take_report());
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
        Rot::begin(voice, self.voice.groups.as_deref()).end()?;
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

/// Bytes of a line that are kept; a longer one is spoken by parts.
const LONGEST_LINE: usize = 16 << 10;
/// A file below this is read whole, in which markup is found wherever it is.
const SHORT: u64 = 32 << 10;
/// Longest document, which is known only as a whole.
const LONGEST_DOCUMENT: u64 = 16 << 20;

fn read_stdin() -> voxgrain::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|e| unreadable("standard input", e))?;
    Ok(bytes)
}

fn unreadable(name: &str, e: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Unreadable, format!("cannot read {name}"), e)
}

/// The rest of a document, of which `begin` has been read.
fn read_document(
    input: &mut impl BufRead,
    begin: &mut Vec<u8>,
    name: &str,
) -> voxgrain::Result<()> {
    let room = (LONGEST_DOCUMENT + 1).saturating_sub(begin.len() as u64);
    input.take(room).read_to_end(begin).map_err(|e| unreadable(name, e))?;
    if begin.len() as u64 > LONGEST_DOCUMENT {
        let what = format!(
            "{name} is a document of more than {} MiB: split it, or read it with --markup none",
            LONGEST_DOCUMENT >> 20
        );
        return Err(Error::new(ErrorKind::InvalidText, what));
    }
    Ok(())
}

/// Bytes as text, of which `before` others came first.
fn utf8_behind(before: usize, bytes: &[u8]) -> voxgrain::Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let what = format!(
            "the text is not UTF-8 at byte {}; convert it, for instance with iconv -t utf-8",
            before + e.valid_up_to()
        );
        Error::with_source(ErrorKind::InvalidText, what, e)
    })
}

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
    /// Of the context.
    positions: usize,
    /// Samples so far, silence included.
    sounded: u64,
    /// Pause behind the last stretch, in seconds.
    pause: f32,
    /// Samples of silence before the next stretch, besides that pause.
    longer: usize,
    /// For --json and subtitles.
    stretches: Option<Vec<Stretch>>,
}

/// What was said when.
struct Stretch {
    text: String,
    /// Of a voice that reads them.
    phonemes: Option<String>,
    /// Where it was written, in bytes of the text.
    source: Range<usize>,
    /// Its first sample and the one behind its last.
    samples: (u64, u64),
    /// Of a voice that reads phonemes.
    words: Vec<Timed>,
}

/// What utterances are of.
enum Said<'a> {
    Chunk(&'a Chunk),
    /// As the voice reads it, and where that stands.
    Written {
        line: &'a str,
        source: Range<usize>,
    },
}

/// Words that were written as one.
struct Timed {
    /// As they were said.
    text: String,
    source: Range<usize>,
    /// From the beginning of all sound, in seconds, estimated.
    seconds: Range<f64>,
}

/// Samples below this are silence before and behind speech.
const SILENCE: f32 = 0.01;

/// When the words of `chunk` are said, if its speech takes the seconds of `sound`.
fn timed(voice: &Voice, chunk: &Chunk, sound: Range<f64>) -> voxgrain::Result<Vec<Timed>> {
    let Some(phonemizer) = voice.phonemizer() else { return Ok(Vec::new()) };
    let (places, said): (Vec<_>, Vec<_>) =
        pronounced_by_word(phonemizer, &chunk.words)?.into_iter().unzip();
    let mut all: Vec<Timed> = Vec::with_capacity(said.len());
    for (place, seconds) in places.into_iter().zip(timing::words(&said, sound)) {
        let words = &chunk.words[place];
        let (Some(first), Some(last)) = (words.first(), words.last()) else { continue };
        let text = words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
        let source = first.source.start..last.source.end;
        match all.last_mut() {
            // "1984" is four words.
            Some(before) if source.start < before.source.end => {
                before.text = format!("{} {text}", before.text);
                before.source.end = before.source.end.max(source.end);
                before.seconds.end = seconds.end;
            }
            _ => all.push(Timed { text, source, seconds }),
        }
    }
    Ok(all)
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
        let positions = voice.max_positions();
        Ok(Self { stream, rate, positions, sounded: 0, pause: f32::INFINITY, longer: 0, stretches })
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
        sink: impl FnMut(&[f32]) -> voxgrain::Result<()>,
    ) -> voxgrain::Result<()> {
        let voice = self.stream.synthesizer().voice();
        let utterances = voice.utterances(chunk, self.rate, self.positions)?;
        self.say(utterances, Said::Chunk(chunk), sink)
    }

    /// `what` is what the utterances are of.
    fn say(
        &mut self,
        utterances: Vec<Utterance>,
        what: Said<'_>,
        mut sink: impl FnMut(&[f32]) -> voxgrain::Result<()>,
    ) -> voxgrain::Result<()> {
        let longer = std::mem::take(&mut self.longer);
        if longer > 0 {
            sink(&vec![0.0; longer])?;
            self.sounded += longer as u64;
        }
        let begin = self.sounded + self.stream.silence() as u64;
        let mut loud: Option<(u64, u64)> = None;
        for utterance in utterances {
            self.stream.push(utterance)?;
            while let Some(pcm) = self.stream.next_pcm()? {
                let is_loud = |x: &f32| x.abs() > SILENCE;
                if self.stretches.is_some()
                    && let (Some(first), Some(last)) =
                        (pcm.iter().position(is_loud), pcm.iter().rposition(is_loud))
                {
                    let before = self.sounded;
                    let begin = loud.map_or(before + first as u64, |l| l.0);
                    loud = Some((begin, before + last as u64 + 1));
                }
                self.sounded += pcm.len() as u64;
                sink(pcm)?;
            }
        }
        self.pause = match &what {
            Said::Chunk(chunk) => chunk.pause_after,
            Said::Written { .. } => text::Options::default().pauses.sentence,
        };
        if let Some(all) = &mut self.stretches {
            let samples = (begin, self.sounded);
            all.push(match what {
                Said::Chunk(chunk) => {
                    let voice = self.stream.synthesizer().voice();
                    let rate = f64::from(voice.bundle().audio.sample_rate_hz);
                    let (from, to) = loud.unwrap_or(samples);
                    let words = timed(voice, chunk, from as f64 / rate..to as f64 / rate)?;
                    let (text, source) = (chunk.text.clone(), chunk.source.clone());
                    Stretch { text, phonemes: voice.phonemes(chunk)?, source, samples, words }
                }
                Said::Written { line, source } => {
                    let (text, phonemes) = (line.to_owned(), Some(line.to_owned()));
                    Stretch { text, phonemes, source, samples, words: Vec::new() }
                }
            });
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
    left_out: LeftOut,
    quiet: bool,
}

impl<F: FnMut() -> voxgrain::Result<Sink>> Job<F> {
    fn speak(&mut self, chunks: &[Chunk], show: bool) -> anyhow::Result<()> {
        let bar = progress(chunks.len() as u64, self.quiet || !show || chunks.len() < 2);
        let (sink, open) = (&mut self.sink, &mut self.open);
        for chunk in chunks {
            self.voicing.speak(chunk, |pcm| opened(sink, open)?.write(pcm))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.flush();
        Ok(())
    }

    /// Lines as the voice reads them, each on its own.
    fn speak_written(&mut self, text: &str) -> anyhow::Result<()> {
        let (sink, open) = (&mut self.sink, &mut self.open);
        let mut end = 0;
        for whole in text.split_inclusive('\n') {
            let begin = end + whole.len() - whole.trim_start().len();
            end += whole.len();
            let line = whole.trim();
            if line.is_empty() {
                continue;
            }
            let mut utterance = Utterance::from(line);
            utterance.pause_after = text::Options::default().pauses.sentence;
            let said = Said::Written { line, source: begin..begin + line.len() };
            self.voicing.say(vec![utterance], said, |pcm| opened(sink, open)?.write(pcm))?;
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(Sink::Stdout(_)) = self.sink {
            let _ = std::io::stdout().flush();
        }
    }
}

/// The sink, opened when the first samples are there.
fn opened<'s>(
    sink: &'s mut Option<Sink>,
    open: &mut impl FnMut() -> voxgrain::Result<Sink>,
) -> voxgrain::Result<&'s mut Sink> {
    Ok(match sink {
        Some(s) => s,
        none => none.insert(open()?),
    })
}

/// What could not be said: the first of it, and how much more there was.
#[derive(Default)]
struct LeftOut {
    first: Vec<String>,
    last: String,
    more: usize,
}

impl LeftOut {
    fn note(&mut self, report: Report) {
        for u in report.unspeakable {
            if u.text == self.last {
                continue;
            }
            self.last.clone_from(&u.text);
            match self.first.len() < 8 {
                // A run of such characters may be long.
                true => self.first.push(format!("{:?}", head(&u.text))),
                false => self.more += 1,
            }
        }
    }

    fn warn(&self) {
        if self.first.is_empty() {
            return;
        }
        let tail = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        status(&format!("not spoken: {}{tail}", self.first.join(" ")));
    }
}

fn head(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into(),
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
                let words = s.words.iter().map(
                    |w| json!({ "text": w.text, "start": w.seconds.start, "end": w.seconds.end }),
                );
                told["words"] = words.collect();
            }
            told
        })
        .collect();
    json!({
        "speaker": voice.speaker().name,
        "arm": options.arm.name(),
        "seed": options.seed,
        "audio_seconds": at(voicing.sounded),
        "speech_seconds": r.audio,
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
