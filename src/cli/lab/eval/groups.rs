use super::coarse::map;
use super::mel::Mel;
use super::{Engine, output, usage};
use crate::cli::files::{make_folder, target_sha256, write_whole};
use crate::cli::output::progress;
use crate::cli::table;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use voxgrain::asg::{
    BuildOptions, Family, Index, IndexBuilder, Metric, Order, RowSource, nearest_neighbours,
};
use voxgrain::core::rng::{SeededRng, Uniform};
use voxgrain::engine::{CodecSession, Pool};
use voxgrain::speech::synth::Voice;
use voxgrain::{Error, ErrorKind};

/// Build the index files of several families at once
///
/// A family is KIND:VALUE. One neighbour search serves all families of one kind, so this is
/// quicker than `voxgrain asg build` for each. A file that is there already is kept. All
/// groups are symmetric: of a top-K family, each of two tokens counts as near if one has the
/// other among its K nearest.
#[derive(Args)]
#[command(after_help = "\
Kinds:
  cos:X     cosine of the target's input-embedding rows above X; top:K the K nearest
  l2-top:K  the K nearest by Euclidean distance of the same rows
  head-cos:X, head-top:K  the same of the output head's rows
  fsq:D     at most D steps of codec digits apart in all
  sound-top:K, sound:X  nearest (closer than X) in the log-mel spectrum that the codec gives
            for the token held still
  random:K  K tokens at random: the control
  ...@P     the same with similarities stored, weighted with their power P

Threshold families keep at most --nearest neighbours a token.

Examples:
  voxgrain eval groups --out idx
  voxgrain eval groups --out idx cos:0.7 cos:0.8 head-top:32 fsq:1 fsq:2 fsq:2@2")]
pub struct Groups {
    /// Families [default: those of docs/experiments]
    families: Vec<String>,
    /// Folder of the index files, KIND-VALUE.asg
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Neighbours that the search keeps a token for threshold families
    #[arg(long, value_name = "N", default_value_t = 512)]
    nearest: u32,
    /// Tokens that the codec is held still for
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    hold: u32,
    /// Seed of the random groups
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: Engine,
}

pub const DEFAULT: [&str; 24] = [
    "cos:0.6",
    "cos:0.65",
    "cos:0.7",
    "cos:0.8",
    "top:8",
    "top:32",
    "top:128",
    "l2-top:32",
    "head-cos:0.7",
    "head-top:8",
    "head-top:32",
    "head-top:128",
    "fsq:1",
    "fsq:2",
    "fsq:3",
    "sound-top:8",
    "sound-top:32",
    "sound-top:128",
    "random:4",
    "random:16",
    "random:64",
    "fsq:2@1",
    "fsq:2@2",
    "cos:0.7@4",
];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Input,
    InputL2,
    Head,
    Sound,
    Fsq,
    Random,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Choice {
    Nearest(u32),
    Within(f32),
}

#[derive(Clone, PartialEq, Debug)]
struct Spec {
    kind: Kind,
    choice: Choice,
    power: Option<f32>,
    name: String,
}

impl Spec {
    fn parse(text: &str) -> voxgrain::Result<Self> {
        let bad = |what: &str| usage(format!("family {text:?}: {what}; see --help"));
        let (body, power) = match text.split_once('@') {
            Some((body, power)) => {
                let power: f32 = power.parse().map_err(|_| bad("@ needs a number"))?;
                if !(power > 0.0 && power.is_finite()) {
                    return Err(bad("the power must be above 0"));
                }
                (body, Some(power))
            }
            None => (text, None),
        };
        let (kind, value) = body.split_once(':').ok_or_else(|| bad("needs KIND:VALUE"))?;
        let count = || match value.parse::<u32>() {
            Ok(k) if k > 0 => Ok(Choice::Nearest(k)),
            _ => Err(bad("needs a number of tokens above 0")),
        };
        let bound = || match value.parse::<f32>() {
            Ok(x) if x.is_finite() => Ok(Choice::Within(x)),
            _ => Err(bad("needs a number")),
        };
        let (kind, choice) = match kind {
            "cos" => (Kind::Input, bound()?),
            "top" => (Kind::Input, count()?),
            "l2" => (Kind::InputL2, bound()?),
            "l2-top" => (Kind::InputL2, count()?),
            "head-cos" => (Kind::Head, bound()?),
            "head-top" => (Kind::Head, count()?),
            "sound" => (Kind::Sound, bound()?),
            "sound-top" => (Kind::Sound, count()?),
            "fsq" => (Kind::Fsq, bound()?),
            "random" => (Kind::Random, count()?),
            _ => return Err(bad("is of no kind known")),
        };
        let name = text.replace(':', "-").replace('@', "-p");
        Ok(Self { kind, choice, power, name })
    }
}

impl Groups {
    pub fn run(self) -> anyhow::Result<()> {
        let (voice, _) = self.engine.open()?;
        let given: Vec<&str> = match &self.families[..] {
            [] => DEFAULT.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        let specs: Vec<Spec> =
            given.into_iter().map(Spec::parse).collect::<voxgrain::Result<_>>()?;
        let sha = target_sha256(voice.bundle())?;
        let path = |spec: &Spec| self.out.join(format!("{}.asg", spec.name));
        let current = |spec: &Spec| {
            let index = std::fs::read(path(spec)).ok().and_then(|data| Index::open(data).ok());
            index.is_some_and(|index| index.header().weights_sha256 == sha)
        };
        make_folder(&self.out)?;
        let missing: Vec<&Spec> = specs.iter().filter(|s| !current(s)).collect();
        for kind in [Kind::Fsq, Kind::Random, Kind::Sound, Kind::Input, Kind::InputL2, Kind::Head] {
            let wanted: Vec<&Spec> = missing.iter().copied().filter(|s| s.kind == kind).collect();
            if wanted.is_empty() {
                continue;
            }
            let clock = Instant::now();
            let names: Vec<&str> = wanted.iter().map(|s| s.name.as_str()).collect();
            output::status(&format!("groups: {}", names.join(" ")));
            self.build(&voice, kind, &wanted, sha, &|spec, built| {
                let (bytes, _) = built.to_bytes().map_err(invalid)?;
                write_whole(&path(spec), &bytes)
            })?;
            output::status(&format!("groups: done in {:.0} s", clock.elapsed().as_secs_f64()));
        }
        let mut rows = Vec::new();
        for spec in &specs {
            let data = std::fs::read(path(spec)).map_err(|e| {
                let what = format!("cannot read {}", path(spec).display());
                Error::with_source(ErrorKind::Unreadable, what, e)
            })?;
            let bytes = data.len();
            let index = Index::open(data)
                .map_err(|e| Error::with_source(ErrorKind::Malformed, "index", e))?;
            let h = index.header();
            rows.push(json!({
                "name": spec.name,
                "file": path(spec).display().to_string(),
                "mean_members": h.entries as f64 / f64::from(h.codebook),
                "max_members": h.max_members,
                "bytes": bytes,
                "power": h.power,
            }));
        }
        if self.json {
            return Ok(output::json(&json!({ "eval": "groups", "families": rows }))?);
        }
        let cells = |r: &Value| {
            vec![
                r["name"].as_str().unwrap_or_default().to_owned(),
                format!("{:.1}", r["mean_members"].as_f64().unwrap_or(f64::NAN)),
                r["max_members"].to_string(),
                format!("{:.2}", r["bytes"].as_f64().unwrap_or(f64::NAN) / 1e6),
            ]
        };
        let rows: Vec<_> = rows.iter().map(cells).collect();
        output::line(table::markdown(&["groups", "members", "most", "MB"], &rows).trim_end())?;
        Ok(())
    }

    fn build(
        &self,
        voice: &Voice,
        kind: Kind,
        wanted: &[&Spec],
        weights_sha256: [u8; 32],
        finish: &dyn Fn(&Spec, IndexBuilder) -> voxgrain::Result<()>,
    ) -> voxgrain::Result<()> {
        let bar = progress(1000, self.json);
        let on_progress = |f: f32| bar.set_position((f * 1000.0) as u64);
        let options = |power: Option<f32>, source: RowSource| BuildOptions {
            threads: self.engine.threads(),
            cap: None,
            power,
            used: None,
            order: Order::Ids,
            source,
            weights_sha256,
            progress: &on_progress,
        };
        let codebook = voice.bundle().vocabulary.speech as usize;
        match kind {
            Kind::Fsq => {
                let levels =
                    voice.bundle().vocabulary.levels().ok_or_else(crate::cli::no_digits)?;
                for spec in wanted {
                    let Choice::Within(theta) = spec.choice else { continue };
                    let (family, o) =
                        (Family::Threshold { theta }, options(spec.power, RowSource::FsqDigits));
                    let built = IndexBuilder::from_fsq(&levels, Metric::FsqL1, family, &o);
                    finish(spec, built.map_err(invalid)?)?;
                }
            }
            Kind::Random => {
                for spec in wanted {
                    let Choice::Nearest(k) = spec.choice else { continue };
                    let mut rng = SeededRng::new(self.seed);
                    let mut draw = || ((rng.uniform() * codebook as f32) as u32, 0.5);
                    let lists: Vec<Vec<(u32, f32)>> =
                        (0..codebook).map(|_| (0..k).map(|_| draw()).collect()).collect();
                    let o = options(spec.power, RowSource::Unknown);
                    let built = IndexBuilder::from_lists(&both_ways(lists), &o);
                    finish(spec, built.map_err(invalid)?)?;
                }
            }
            _ => {
                let none = || Error::new(ErrorKind::Unsupported, "the target has no token rows");
                let (rows, width) = match kind {
                    Kind::Head => voice.target().head_rows().ok_or_else(none)?,
                    Kind::Sound => self.sounds(voice)?,
                    _ => voice.target().embedding_rows().ok_or_else(none)?,
                };
                let (metric, source) = match kind {
                    Kind::Input => (Metric::Cosine, RowSource::InputEmbedding),
                    Kind::InputL2 => (Metric::Euclidean, RowSource::InputEmbedding),
                    Kind::Head => (Metric::Cosine, RowSource::OutputHead),
                    _ => (Metric::Euclidean, RowSource::Unknown),
                };
                let k = wanted.iter().map(|s| match s.choice {
                    Choice::Nearest(k) => k,
                    Choice::Within(_) => self.nearest,
                });
                let k = k.max().unwrap_or(1) as usize;
                let near = nearest_neighbours(&rows, width, metric, k, &options(None, source))
                    .map_err(invalid)?;
                drop(rows);
                for spec in wanted {
                    let (lists, cut) = select(&near, spec.choice, metric, self.nearest as usize);
                    if cut > 0 {
                        output::status(&format!(
                            "groups: {}: {cut} tokens have more than {} neighbours; the nearest are kept",
                            spec.name, self.nearest
                        ));
                    }
                    let built = IndexBuilder::from_lists(&lists, &options(spec.power, source));
                    finish(spec, built.map_err(invalid)?)?;
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// `[codebook][frames * MELS]`: the log-mel spectra of the last of `hold` equal tokens.
    fn sounds(&self, voice: &Voice) -> voxgrain::Result<(Vec<f32>, usize)> {
        const MELS: usize = 40;
        const PART: usize = 512;
        let bundle = voice.bundle();
        let bins = bundle.audio.fft_size as usize / 2 + 1;
        let mel = Mel::new(MELS, bins, bundle.audio.sample_rate_hz);
        let codebook = bundle.vocabulary.speech as usize;
        let hold = self.hold as usize;
        let parts = map(codebook.div_ceil(PART), self.engine.threads(), |part| {
            let pool = Pool::pinned(voxgrain::kernel::best(), 1, &[]);
            let mut codec = CodecSession::new(voice.codec(), &pool)?;
            let columns = codec.columns();
            let mut rows = Vec::new();
            for token in part * PART..codebook.min((part + 1) * PART) {
                codec.reset();
                let spectra = codec.push(&vec![token as u32; hold])?;
                let frames = spectra.len() / columns / hold;
                for frame in spectra.chunks_exact(columns).skip(frames * (hold - 1)) {
                    let most = bundle.audio.max_log_magnitude;
                    let magnitudes: Vec<f32> =
                        frame[..bins].iter().map(|m| m.min(most).exp()).collect();
                    mel.push(&magnitudes, &mut rows);
                }
            }
            Ok(rows)
        });
        let rows = parts.into_iter().collect::<voxgrain::Result<Vec<_>>>()?.concat();
        let width = rows.len() / codebook;
        Ok((rows, width))
    }
}

fn invalid(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::InvalidArgument, "cannot build the index", e)
}

/// The groups of one family with similarities, and how many tokens had more than were kept.
fn select(
    near: &[Vec<(u32, f32)>],
    choice: Choice,
    metric: Metric,
    most: usize,
) -> (Vec<Vec<(u32, f32)>>, usize) {
    let similarity = |score: f32| match metric {
        Metric::Cosine => score.max(0.0),
        _ => 1.0 / (1.0 + score),
    };
    let similar = |list: &[(u32, f32)]| -> Vec<(u32, f32)> {
        list.iter().map(|&(t, score)| (t, similarity(score))).collect()
    };
    match choice {
        Choice::Nearest(k) => {
            let cut = |list: &Vec<(u32, f32)>| similar(&list[..list.len().min(k as usize)]);
            (both_ways(near.iter().map(cut).collect()), 0)
        }
        Choice::Within(x) => {
            let inside = |score: f32| match metric {
                Metric::Cosine => score > x,
                _ => score < x,
            };
            let mut cut = 0;
            let mut lists: Vec<Vec<(u32, f32)>> = Vec::with_capacity(near.len());
            for list in near {
                let n = list.partition_point(|n| inside(n.1)).min(most);
                cut += usize::from(n == most && list.get(n).is_none_or(|n| inside(n.1)));
                lists.push(similar(&list[..n]));
            }
            if cut > 0 {
                // A pair stays only if both keep it, so that groups remain symmetric.
                let mut kept: Vec<Vec<u32>> =
                    lists.iter().map(|l| l.iter().map(|m| m.0).collect()).collect();
                kept.iter_mut().for_each(|l| l.sort_unstable());
                for (g, list) in lists.iter_mut().enumerate() {
                    list.retain(|m| kept[m.0 as usize].binary_search(&(g as u32)).is_ok());
                }
            }
            (lists, cut)
        }
    }
}

/// Each pair in both lists.
fn both_ways(lists: Vec<Vec<(u32, f32)>>) -> Vec<Vec<(u32, f32)>> {
    let mut out = lists.clone();
    for (g, list) in lists.iter().enumerate() {
        for &(t, similarity) in list {
            out[t as usize].push((g as u32, similarity));
        }
    }
    for list in &mut out {
        list.sort_unstable_by_key(|m| m.0);
        list.dedup_by_key(|m| m.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_read_and_refused() {
        let s = Spec::parse("fsq:2@1.5").unwrap();
        assert_eq!((s.kind, s.choice, s.power), (Kind::Fsq, Choice::Within(2.0), Some(1.5)));
        assert_eq!(s.name, "fsq-2-p1.5");
        assert_eq!(Spec::parse("head-top:32").unwrap().choice, Choice::Nearest(32));
        for bad in ["", "cos", "cos:x", "top:0", "top:1.5", "odd:1", "cos:0.7@0", "cos:nan"] {
            assert!(Spec::parse(bad).is_err(), "{bad}");
        }
        DEFAULT.iter().for_each(|f| assert!(Spec::parse(f).is_ok(), "{f}"));
    }

    #[test]
    fn thresholds_and_nearest_are_symmetric() {
        let near =
            vec![vec![(1, 0.9), (2, 0.8)], vec![(0, 0.9), (2, 0.5)], vec![(0, 0.8), (1, 0.5)]];
        let (lists, cut) = select(&near, Choice::Within(0.7), Metric::Cosine, 2);
        assert_eq!(cut, 1); // Token 0 has no list beyond its two.
        assert_eq!(lists, [vec![(1, 0.9), (2, 0.8)], vec![(0, 0.9)], vec![(0, 0.8)]]);
        let (lists, cut) = select(&near, Choice::Within(0.7), Metric::Cosine, 1);
        assert_eq!((lists, cut), (vec![vec![(1, 0.9)], vec![(0, 0.9)], vec![]], 1));
        let (lists, _) = select(&near, Choice::Nearest(1), Metric::Cosine, 2);
        assert_eq!(lists, [vec![(1, 0.9), (2, 0.8)], vec![(0, 0.9)], vec![(0, 0.8)]]);
    }
}
