use super::mel::{Mel, distance};
use super::tally::Tally;
use super::walk::Walk;
use super::{Engine, Sentences, Sounds, open_indexes, output, shown};
use crate::cli::output::progress;
use crate::cli::table;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use voxgrain::core::accept::Groups;
use voxgrain::core::rng::{SeededRng, Uniform};
use voxgrain::speech::codec::CodecDecoder;

/// Damage when every token is replaced by a random member of its group
///
/// The target speaks the sentences; then every token is replaced by another one of its group,
/// drawn evenly, and the codec decodes the result. This is what a family would cost if the
/// draft decided everything within groups. With --shared a group that holds the token is
/// drawn first, then one of its members: what a token may stand for under acceptance by
/// group, up to twice as far away. Printed: the share of tokens replaced and the
/// distance of log-mel spectra to the unreplaced speech (mean absolute difference of 80
/// bands, dB). The sounds are written to --out/FAMILY/00000.wav, ..., and unreplaced to
/// --out/unswapped, for a recogniser (`python -m voxgrain_tools experiments`).
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain eval swap                                  the bundle's index, figures only
  voxgrain eval swap idx/*.asg --out swap -n 200 -f tools/data/heldout.txt")]
pub struct Swap {
    /// Index files [default: the bundle's]
    indexes: Vec<PathBuf>,
    #[command(flatten)]
    sentences: Sentences,
    /// Replace by a member of any group that holds the token, not of the token's own
    #[arg(long)]
    shared: bool,
    /// Folder for the sounds [default: none are written]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: Engine,
}

impl Swap {
    pub fn run(self) -> anyhow::Result<()> {
        let (voice, pool) = self.engine.open()?;
        let texts = self.sentences.read(&voice)?;
        let mut named = open_indexes(&self.indexes, &voice)?;
        if self.shared {
            named.iter_mut().for_each(|n| n.name.push_str("-shared"));
        }
        let audio = &voice.bundle().audio;
        let (fft, hop, rate) = (audio.fft_size as usize, audio.hop as usize, audio.sample_rate_hz);
        let mel = Mel::new(80, fft / 2 + 1, rate);
        let mut walk = Walk::new(&voice, &pool, voice.sampling())?;
        let mut codec =
            CodecDecoder::new(voice.codec(), &pool, &voice.bundle().audio, &voice.bundle().codec)?;
        let mut decode = |tokens: &[u32]| -> voxgrain::Result<Vec<f32>> {
            let mut pcm = Vec::new();
            // A few tokens a pass, as the weights are read once a pass.
            tokens.chunks(16).try_for_each(|part| codec.push(part, &mut pcm))?;
            codec.finish(&mut pcm)?;
            Ok(pcm)
        };
        let names = named.iter().map(|n| n.name.as_str());
        let sounds =
            Sounds::new(self.out.as_deref(), ["unswapped"].into_iter().chain(names), rate)?;
        let mut tallies = vec![(Tally::default(), Tally::default()); named.len()];
        let mut members = Vec::new();
        let bar = progress(texts.len() as u64, self.json);
        for (i, chunks) in texts.iter().enumerate() {
            let mut spoken = Vec::new();
            for (c, chunk) in chunks.iter().enumerate() {
                let seed = self.sentences.seed + 1000 * i as u64 + c as u64;
                spoken.push(walk.speak(chunk, seed, 1, |_| false, |_| Ok(()))?);
            }
            let clean: Vec<Vec<f32>> =
                spoken.iter().map(|tokens| decode(tokens)).collect::<voxgrain::Result<_>>()?;
            sounds.write("unswapped", i, &clean.concat())?;
            for (named, (replaced, far)) in named.iter().zip(&mut tallies) {
                let mut rng = SeededRng::with_stream(self.sentences.seed, 1 + i as u64);
                let mut pcm = Vec::new();
                for (tokens, clean) in spoken.iter().zip(&clean) {
                    let swapped: Vec<u32> = tokens
                        .iter()
                        .map(|&token| {
                            let group = match self.shared {
                                true => named.index.draw_owner(token, rng.uniform()),
                                false => token,
                            };
                            members.clear();
                            members.extend(named.index.members(group).filter(|&t| t != token));
                            let at = (rng.uniform() * members.len() as f32) as usize;
                            members
                                .get(at.min(members.len().saturating_sub(1)))
                                .copied()
                                .unwrap_or(token)
                        })
                        .collect();
                    for (a, b) in tokens.iter().zip(&swapped) {
                        replaced.add(i, f64::from(a != b));
                    }
                    let sound = decode(&swapped)?;
                    far.add(i, distance(clean, &sound, fft, hop, &mel));
                    pcm.extend(sound);
                }
                sounds.write(&named.name, i, &pcm)?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let rows: Vec<Value> = named
            .iter()
            .zip(&tallies)
            .map(|(named, (replaced, far))| {
                let h = named.index.header();
                json!({
                    "name": named.name,
                    "mean_members": h.entries as f64 / f64::from(h.codebook),
                    "replaced": replaced.interval(),
                    "mel_db": far.interval(),
                })
            })
            .collect();
        if self.json {
            output::json(&json!({
                "eval": "swap", "voice": voice.bundle().name, "speaker": voice.speaker().name, "sentences": texts.len(),
                "seed": self.sentences.seed, "families": rows,
            }))?;
        } else {
            let rows: Vec<Vec<String>> = named
                .iter()
                .zip(&tallies)
                .map(|(named, (replaced, far))| {
                    let h = named.index.header();
                    vec![
                        named.name.clone(),
                        format!("{:.1}", h.entries as f64 / f64::from(h.codebook)),
                        shown(&replaced.interval(), 3),
                        shown(&far.interval(), 2),
                    ]
                })
                .collect();
            output::line(
                table::markdown(&["groups", "members", "replaced", "mel dB"], &rows).trim_end(),
            )?;
        }
        Ok(())
    }
}
