use super::args::VoiceArgs;
use super::files::{make_folder_of, read_file, write_whole};
use super::{find, output, usage};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use voxgrain::bundle::Bundle;
use voxgrain::import::codes;
use voxgrain::speech::command::PhonemesCommand;
use voxgrain::speech::reader::{voice_path, voices};
use voxgrain::speech::text;

const EXAMPLES: &str = "\
CODES are the speech tokens of the recording, as the model's own encoder gives them: a tensor (.pt), an
array (.npy), a list (.json) or numbers in a text. TRANSCRIPT is a text file with what is said in it.

Examples:
  voxgrain voice add jo jo.pt jo.txt --bundle models/nano --phonemes-command 'espeak-ng -v en-us --ipa -q'
  voxgrain voice list --bundle models/nano
  voxgrain say --bundle models/nano --voice jo \"Hello.\"";

/// Reference voices of an imported bundle, which its prompts begin with
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Voice {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep a voice's speech tokens and transcript in the bundle
    Add(Add),
    /// Names of the voices that the bundle has
    List(List),
}

#[derive(Args)]
struct Add {
    /// What `say --voice` calls it by
    name: String,
    /// Its speech tokens
    codes: PathBuf,
    /// What is said, a text file
    transcript: PathBuf,
    /// Writes the transcript's phonemes now, so that nothing has to be run later
    #[arg(long, value_name = "COMMAND")]
    phonemes_command: Option<String>,
    /// Replace a voice of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

#[derive(Args)]
struct List {
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

impl Voice {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Add(c) => c.run(),
            Command::List(c) => c.run(),
        }
    }
}

impl Add {
    fn run(self) -> anyhow::Result<()> {
        let bundle = Bundle::open(find::bundle(self.voice.bundle.as_deref())?)?;
        let Some(prompt) = &bundle.prompt else {
            return Err(usage(format!(
                "{} was not imported: its prompts hold no other voice",
                bundle.dir().display()
            ))
            .into());
        };
        if !prompt.parts.iter().any(|p| p.contains("{reference_codes}")) {
            return Err(usage("this model has one voice: its prompts hold no other").into());
        }
        let path = voice_path(bundle.dir(), &self.name)?;
        if path.exists() && !self.force {
            let what = format!("there is a voice {:?} already: give --force", self.name);
            return Err(usage(what).into());
        }
        let codes = codes::read(&self.codes)?;
        let speech = bundle.vocabulary.speech;
        if let Some(code) = codes.iter().find(|c| **c >= speech) {
            let what = format!(
                "{} holds the token {code}, the model has {speech}: it is of another codec",
                self.codes.display()
            );
            return Err(usage(what).into());
        }
        let bytes = read_file(&self.transcript)?;
        let transcript = text::utf8(&bytes)?.split_whitespace().collect::<Vec<_>>().join(" ");
        if transcript.is_empty() {
            return Err(usage(format!("{} is empty", self.transcript.display())).into());
        }
        let mut file = format!("transcript = {}\n", toml_text(&transcript));
        if let Some(command) = &self.phonemes_command {
            let phonemes = PhonemesCommand::parse(command)?.phonemes(&transcript)?;
            file += &format!("phonemes = {}\n", toml_text(&phonemes));
        }
        file += &format!("codes = {}\n", json!(codes));
        make_folder_of(&path)?;
        write_whole(&path, file.as_bytes())?;
        let seconds = codes.len() as f64 / f64::from(bundle.audio.frame_rate_hz);
        output::status(&format!(
            "{}: {} tokens, {seconds:.1} s; `voxgrain say --voice {}` speaks as it",
            path.display(),
            codes.len(),
            self.name
        ));
        Ok(())
    }
}

/// A text as TOML has it: JSON's quoting is one of its forms.
fn toml_text(text: &str) -> String {
    json!(text).to_string()
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let bundle = Bundle::open(find::bundle(self.voice.bundle.as_deref())?)?;
        let names = voices(bundle.dir());
        if self.json {
            return Ok(output::json(&json!({ "voices": names }))?);
        }
        if names.is_empty() {
            output::status("no voices yet: `voxgrain voice add` makes one");
        }
        for name in names {
            output::line(&name)?;
        }
        Ok(())
    }
}
