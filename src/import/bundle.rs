//! From a model's folder or file to a bundle's: everything checked first, files that appear when
//! all of them are complete.

use super::codec::Codec;
use super::config::Config;
use super::family::{Family, Ids};
use super::gguf::Gguf;
use super::graph::{Counts, Graph, Written};
use super::lm::LanguageModel;
use super::quantize::Bits;
use super::source::{Tensors, malformed, unsupported};
use super::{codec, files, open_tensors, tokenizer};
use crate::asg::{BuildOptions, Family as GroupFamily, IndexBuilder, Metric, RowSource};
use crate::bundle::{Bundle, FILE_NAME, FORMAT, hex};
use crate::convert::{Output, unwritable};
use crate::engine::Model;
use crate::map::Map;
use crate::part::{self, Part};
use crate::speech::bpe::Bpe;
use crate::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use toml::{Table, Value};

/// Neighbours of a group: enough for transport, a tenth of what a threshold finds.
const GROUP_SIZE: u32 = 32;
/// Longest tokenizer.json, in bytes.
const MAX_TOKENIZER: u64 = 256 << 20;

/// What is to be imported, and how.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// A Hugging Face folder, or a GGUF file.
    pub model: PathBuf,
    /// The codec decoder: the folder of a bundle.
    pub codec: Option<PathBuf>,
    /// The folder to write.
    pub output: PathBuf,
    /// 4 or 8 bits a weight; as stored, and 8 of floats, if not given.
    pub bits: Option<u32>,
    /// A tokenizer.json that is not in the folder.
    pub tokenizer: Option<PathBuf>,
    /// Longest sequence; the family's if not given.
    pub context: Option<usize>,
    /// Whether no groups are built.
    pub no_groups: bool,
    /// Whether files that exist give way.
    pub force: bool,
    /// Threads that quantise and search; all if 0.
    pub threads: usize,
}

impl Options {
    /// What is at `model`, to be written to `output`.
    pub fn new(model: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self { model: model.into(), output: output.into(), ..Self::default() }
    }
}

/// What was found and written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The family.
    pub family: Family,
    /// The shape.
    pub config: Config,
    /// What a person should know: what was requantised, what is missing.
    pub notes: Vec<String>,
    /// Rows that kept their integers, and that were quantised.
    pub counts: Counts,
    /// Bits of most matrices.
    pub bits: u32,
    /// Longest sequence.
    pub positions: usize,
    /// Bytes of weights that a token reads.
    pub token_bytes: u64,
    /// Bytes of the bundle's files.
    pub file_bytes: u64,
    /// Bytes of one session's state.
    pub state_bytes: u64,
    /// Groups and their mean size, if they were built.
    pub groups: Option<(u32, f64)>,
}

/// The model's files as they are found.
struct Found {
    config: Config,
    tensors: Tensors,
    gguf: bool,
    tokenizer: Vec<u8>,
    family: Family,
    name: String,
}

/// Imports a model. `progress` gets what is being done, and how far it is.
///
/// # Errors
/// `Unsupported` with the reason for what cannot be run, `Malformed`, `Mismatch` or `Unreadable`
/// for files that are damaged, do not belong together or are missing, `InvalidArgument`,
/// `Unwritable`. Nothing is left in the output then.
pub fn import(options: &Options, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<Report> {
    let bits = match options.bits {
        None => None,
        Some(n) => Some(Bits::from_count(n.into()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("{n} bits are neither 4 nor 8"))
        })?),
    };
    let out = &options.output;
    if !options.force && out.join(FILE_NAME).exists() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} is a bundle already: name another folder, or give --force", out.display()),
        ));
    }
    let found = find(options)?;
    let (config, family) = (&found.config, &found.family);
    let wanted = options.context.unwrap_or(family.context).min(config.context);
    if wanted < 64 {
        let what = format!("a context of {wanted} tokens is too short for any speech");
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    let Some(codec) = &options.codec else {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{} needs the decoder of its codec, {}: name its folder with --codec",
                family.name, family.codec
            ),
        ));
    };
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    let made = !out.exists();
    std::fs::create_dir_all(out).map_err(|e| unwritable(out, e))?;
    let written = write(options, &found, codec, bits, wanted, threads, progress);
    if written.is_err() && made {
        // Only if nothing of anybody else is in it.
        let _ = std::fs::remove_dir(out);
    }
    written
}

fn find(options: &Options) -> Result<Found> {
    let model = &options.model;
    let missing =
        |what: &str| Error::new(ErrorKind::Unreadable, format!("{} {what}", model.display()));
    if !model.exists() {
        return Err(missing("does not exist: name a model's folder or a GGUF file"));
    }
    let folder = match model.is_dir() {
        true => model.clone(),
        false => model.parent().unwrap_or(Path::new("")).to_path_buf(),
    };
    let is_gguf = model.is_file() && Map::open(model)?.starts_with(b"GGUF");
    if model.is_file() && !is_gguf {
        let what = "is no GGUF file; of safetensors and PyTorch files name the folder, whose config.json \
                    says what they are";
        return Err(missing(what));
    }
    let (config, tensors, own_tokenizer) = if is_gguf {
        let gguf = Gguf::open(model)?;
        let config = Config::from_gguf(&gguf)?;
        let own = match options.tokenizer {
            Some(_) => None,
            None => Some(tokenizer::from_gguf(&gguf)?),
        };
        (config, gguf.tensors, own)
    } else {
        let path = folder.join("config.json");
        if !path.exists() {
            return Err(missing("has no config.json: name the folder of a language model"));
        }
        let config = Config::from_json(&files::read_json(&path)?, &path.display().to_string())?;
        (config, open_tensors(&folder)?, None)
    };
    let tokenizer = match own_tokenizer {
        Some(own) => own,
        None => {
            let path = options.tokenizer.clone().unwrap_or_else(|| folder.join("tokenizer.json"));
            if !path.exists() {
                return Err(Error::new(
                    ErrorKind::Unreadable,
                    format!(
                        "{} is missing: fetch it beside the weights, or name it with --tokenizer",
                        path.display()
                    ),
                ));
            }
            files::read_text(&path, MAX_TOKENIZER)?.into_bytes()
        }
    };
    let bpe = Bpe::read(&tokenizer, "the model's tokenizer")?;
    let ids: Ids = bpe.ids();
    if let Some((token, id)) = ids.iter().find(|(_, id)| **id as usize >= config.vocabulary) {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "the tokenizer's token {token:?} has the id {id}, the model has {} rows: it is the \
                 tokenizer of another model",
                config.vocabulary
            ),
        ));
    }
    let template =
        std::fs::read_to_string(folder.join("tokenizer_config.json")).unwrap_or_default();
    let jinja = std::fs::read_to_string(folder.join("chat_template.jinja")).unwrap_or_default();
    let date = [template, jinja].iter().any(|t| t.contains("Cutting Knowledge Date"));
    let family = Family::find(&config, &ids, &bpe.before()?, date)?;
    let named = if model.is_dir() { model.file_name() } else { model.file_stem() };
    let name = named.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = if name.trim().is_empty() { family.name.clone() } else { name };
    Ok(Found { config, tensors, gguf: is_gguf, tokenizer, family, name })
}

/// A file of the bundle that is being written.
struct File {
    name: String,
    part: Part,
    facts: (u64, [u8; 32]),
}

#[allow(clippy::too_many_arguments)]
fn write(
    options: &Options,
    found: &Found,
    codec: &Path,
    bits: Option<Bits>,
    positions: usize,
    threads: usize,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Report> {
    let (config, family, out) = (&found.config, &found.family, &options.output);
    let mut all: Vec<File> = Vec::new();
    // The smaller part first: what is wrong with it is told at once.
    let codec = read_codec(codec, family, out, threads, progress)?;
    all.extend(codec.files.into_iter().map(|(name, part, facts)| File { name, part, facts }));

    let total: u64 = found.tensors.tensors.values().map(|t| t.len() as u64).sum();
    let mut done = 0;
    let mut on_weights = |n: u64| {
        done += n;
        progress("weights", done.min(total), total);
    };
    let mut graph = Graph::create(out, "target", threads, &mut on_weights)?;
    let mut model = LanguageModel::new(config, &found.tensors, found.gguf, bits)?;
    let table_bytes = model.write(&mut graph, family)?;
    let counts = graph.counts();
    let token_bytes = graph.bytes() - table_bytes + table_bytes / config.vocabulary as u64;
    let Written { data, graph, facts } = graph.finish("language_model")?;

    // It is loaded as any voice will load it: what does not fit together is found here.
    let loaded = Model::from_maps(
        "target.onnx",
        &Map::open(graph.temporary())?,
        Map::open(data.temporary())?,
        positions,
    )?;
    let state_bytes = loaded.state_bytes(positions) as u64;
    let mut notes: Vec<String> = model.notes().cloned().collect();
    let weights_sha256 = facts[0].1;
    all.push(File { name: "target.onnx.data".into(), part: data, facts: facts[0] });
    all.push(File { name: "target.onnx".into(), part: graph, facts: facts[1] });

    let mut groups = None;
    if !options.no_groups {
        let (bytes, entries) = build_groups(&loaded, weights_sha256, threads, progress)?;
        groups = Some((family.speech, entries as f64 / f64::from(family.speech)));
        all.push(whole(out, "groups.asg", &bytes)?);
    }
    drop(loaded);
    all.push(whole(out, "tokenizer.json", &found.tokenizer)?);
    notes.push(
        "there is no draft: it decodes plainly (--arm ar) until one is trained, see docs/models.md"
            .into(),
    );

    let mut head = Table::new();
    for (key, value) in [
        ("name", found.name.clone()),
        ("licence", format!("that of {}, whose weights these are", found.name)),
        ("attribution", format!("imported from {} ({})", found.name, family.name)),
    ] {
        head.insert(key.into(), value.into());
    }
    let sections = [
        ("audio", codec.audio),
        ("vocabulary", vocabulary(family, config)),
        ("text", table([("front_end", "bpe".into()), ("tokenizer", "tokenizer.json".into())])),
        ("prompt", prompt(family)),
        ("target", target(config, model.bits(), positions)),
        ("codec", codec.codec),
        ("sampling", sampling(family)),
    ];
    let mut text = format!("format = {FORMAT}\n{head}");
    for (name, section) in sections {
        text += &format!("\n[{name}]\n{section}");
    }
    if groups.is_some() {
        text += "\n[groups]\nfile = \"groups.asg\"\n";
    }
    for f in all.iter().filter(|f| f.name != "groups.asg") {
        let entry = table([
            ("path", Value::from(f.name.as_str())),
            ("bytes", Value::from(f.facts.0 as i64)),
            ("sha256", hex(&f.facts.1).into()),
        ]);
        text += &format!("\n[[files]]\n{entry}");
    }
    let facts = table([
        ("family", family.name.as_str().into()),
        ("rows_kept", (counts.kept as i64).into()),
        ("rows_quantised", (counts.quantised as i64).into()),
    ]);
    text += &format!("\n[training]\n{facts}");
    Bundle::parse(&text, out)?;
    all.push(whole(out, FILE_NAME, text.as_bytes())?);
    let file_bytes = all.iter().map(|f| f.facts.0).sum();
    let parts = all.into_iter().map(|f| f.part).collect();
    part::finish_all(parts).map_err(|e| unwritable(out, e))?;
    Ok(Report {
        family: family.clone(),
        config: config.clone(),
        notes,
        counts,
        bits: model.bits(),
        positions,
        token_bytes,
        file_bytes,
        state_bytes,
        groups,
    })
}

fn whole(folder: &Path, name: &str, bytes: &[u8]) -> Result<File> {
    let mut out = Output::create(&folder.join(name))?;
    out.write(bytes)?;
    let (part, facts) = out.end()?;
    Ok(File { name: name.to_owned(), part, facts })
}

/// The codec's files and what bundle.toml says of them.
fn read_codec(
    path: &Path,
    family: &Family,
    out: &Path,
    threads: usize,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Codec> {
    if !path.exists() {
        let what = format!("{} does not exist: name the folder of the codec", path.display());
        return Err(Error::new(ErrorKind::Unreadable, what));
    }
    if path.join(FILE_NAME).exists() {
        return codec_of_bundle(path, family, out);
    }
    if family.speech != codec::CODES {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "{} is no bundle, and of other codecs those of {} codes are read; the model has {} \
                 speech tokens",
                path.display(),
                codec::CODES,
                family.speech
            ),
        ));
    }
    let mut done = 0;
    codec::import(path, out, Bits::Eight, threads, &mut |n| {
        done += n;
        progress("codec", done, done);
    })
}

/// Another bundle's codec, as it is.
fn codec_of_bundle(path: &Path, family: &Family, out: &Path) -> Result<Codec> {
    let bundle = Bundle::open(path)?;
    if bundle.vocabulary.speech != family.speech {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "the codec of {} has {} codes, the model has {} speech tokens",
                path.display(),
                bundle.vocabulary.speech,
                family.speech
            ),
        ));
    }
    let text = files::read_text(&bundle.dir().join(FILE_NAME), 1 << 20)?;
    let mut description: Table = toml::from_str(&text)
        .map_err(|e| Error::with_source(ErrorKind::Malformed, "bundle.toml changed", e))?;
    let mut section = |name: &str| match description.remove(name) {
        Some(Value::Table(t)) => Ok(t),
        _ => Err(malformed(format!("{} has no [{name}]", path.display()))),
    };
    let (audio, mut codec) = (section("audio")?, section("codec")?);
    codec.insert("file".into(), "codec.onnx".into());
    let mut files = Vec::new();
    for (ours, theirs) in [
        ("codec.onnx.data", format!("{}.data", bundle.codec.file)),
        ("codec.onnx", bundle.codec.file.clone()),
    ] {
        if theirs != ours {
            return Err(unsupported(format!(
                "the codec of {} is {theirs:?}: only {ours:?} can be taken over",
                path.display()
            )));
        }
        let file = whole(out, ours, &Map::open(bundle.path(&theirs))?)?;
        let listed = bundle.listed_sha256(&theirs).unwrap_or_default();
        if hex(&file.facts.1) != listed {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{theirs} of {} is not what its bundle.toml lists", path.display()),
            ));
        }
        files.push((file.name, file.part, file.facts));
    }
    Ok(Codec { audio, codec, files })
}

fn build_groups(
    model: &Model,
    weights_sha256: [u8; 32],
    threads: usize,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<(Vec<u8>, u64)> {
    progress("groups", 0, 1000);
    let (mut rows, width) = model
        .head_rows()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the head that was written is not found"))?;
    // The end of speech is in no group.
    rows.truncate(rows.len() - width);
    let done = AtomicU32::new(0);
    let options = BuildOptions {
        threads,
        source: RowSource::OutputHead,
        weights_sha256,
        progress: &|f| done.store((f * 1000.0) as u32, Ordering::Relaxed),
        ..BuildOptions::default()
    };
    let family =
        GroupFamily::TopKSymmetrised { k: GROUP_SIZE.min((rows.len() / width) as u32 - 1) };
    let bad = |e| Error::with_source(ErrorKind::Malformed, "the head has no groups", e);
    // The search tells its progress from any thread, the caller wants it on this one.
    let builder = std::thread::scope(|scope| {
        let search = || IndexBuilder::from_rows(&rows, width, Metric::Cosine, family, &options);
        let work = scope.spawn(search);
        while !work.is_finished() {
            progress("groups", done.load(Ordering::Relaxed).into(), 1000);
            std::thread::sleep(Duration::from_millis(20));
        }
        work.join()
    });
    let builder = builder
        .map_err(|_| Error::new(ErrorKind::Internal, "the search for groups ended early"))?
        .map_err(bad)?;
    let entries = builder.entries();
    let (bytes, _) = builder.to_bytes().map_err(bad)?;
    progress("groups", 1000, 1000);
    Ok((bytes, entries))
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn vocabulary(f: &Family, c: &Config) -> Table {
    let mut t = table([
        ("speech", i64::from(f.speech).into()),
        ("end_of_speech", i64::from(f.speech).into()),
        ("size", (c.vocabulary as i64).into()),
        ("first_speech_id", i64::from(f.first_speech).into()),
        ("end_id", i64::from(f.end).into()),
    ]);
    if let Some((digits, levels)) = f.fsq {
        t.insert("fsq_digits".into(), i64::from(digits).into());
        t.insert("fsq_levels".into(), i64::from(levels).into());
    }
    t
}

fn prompt(f: &Family) -> Table {
    let texts = |all: &[String]| Value::Array(all.iter().map(|p| p.as_str().into()).collect());
    let mut t = table([("parts", texts(&f.parts)), ("text_is", f.text_is.name().into())]);
    if !f.emotions.is_empty() {
        t.insert("emotions".into(), texts(&f.emotions));
    }
    t
}

fn target(c: &Config, bits: u32, positions: usize) -> Table {
    let n = |v: usize| Value::from(v as i64);
    let mut t = table([
        ("file", "target.onnx".into()),
        ("layers", n(c.layers)),
        ("hidden", n(c.hidden)),
        ("heads", n(c.heads)),
        ("kv_heads", n(c.kv_heads)),
        ("head_dim", n(c.head_dim)),
        ("ffn", n(c.ffn.next_multiple_of(32))),
        ("max_positions", n(positions)),
        ("bits", i64::from(bits).into()),
    ]);
    // A table of frequencies is in the graph.
    if c.frequencies().is_none() {
        t.insert("rope_base".into(), float(c.rope_base));
    }
    if c.body == super::config::Body::Qwen3 {
        t.insert("qk_norm".into(), true.into());
    }
    t
}

fn sampling(f: &Family) -> Table {
    let s = f.sampling;
    let mut t = table([
        ("temperature", float(s.temperature)),
        ("top_k", i64::from(s.top_k).into()),
        ("top_p", float(s.top_p)),
        ("min_p", 0.0.into()),
        ("gamma", 0.into()),
    ]);
    if s.repetition_penalty != 1.0 {
        t.insert("repetition_penalty".into(), float(s.repetition_penalty));
    }
    if s.min_tokens > 0 {
        t.insert("min_tokens".into(), i64::from(s.min_tokens).into());
    }
    t
}

/// The shortest decimal that is this f32: 0.8, not 0.800000011920929.
fn float(x: f32) -> Value {
    Value::Float(x.to_string().parse().unwrap_or_else(|_| x.into()))
}
