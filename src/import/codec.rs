//! The decoders of NeuCodec and X-codec2: their tensors, as transformers or their own releases name
//! them, as a graph of our operators.
//!
//! What both classes do before their first convolution, digits to 2,048 numbers to 1,024, is two
//! linear maps without anything between: one is written. Their attention turns queries and keys by
//! an angle that depends on the head's number alone (a transposed tensor in the releases, kept by
//! transformers); within a head both turn alike, so it cancels and is left out.

use super::graph::{Attribute, Dim, Graph, Written, element};
use super::quantize::{Bits, Computed, Picked};
use super::source::{Tensor, TensorSource, unsupported};
use super::{files, open_tensors};
use crate::bundle;
use crate::convert::unwritable;
use crate::part::{self, Part};
use crate::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::path::Path;
use toml::{Table, Value};

const GROUPS: usize = 32;
const EPSILON: f32 = 1e-6;
/// Digits of a code.
const DIGITS: usize = 8;
/// Codes of such a decoder: digits of four levels.
pub const CODES: u32 = 1 << (2 * DIGITS);
/// Channels of a head where nothing says how many heads there are, as in the releases.
const HEAD_DIM: usize = 64;
/// Tokens a second, likewise.
const FRAME_RATE: usize = 50;
/// Tokens of a window, those of its view ahead included, where bundle.toml says nothing of them.
const WINDOW: usize = 30;
/// The natural logarithm of 100, where magnitudes are clipped.
const MAX_LOG_MAGNITUDE: f64 = 4.605_170_185_988_092;

/// How the tensors are called.
struct Names {
    project_out: &'static str,
    fc: &'static str,
    /// Before `embed`, `prior_net` and `post_net`.
    prefix: &'static str,
    layers: &'static str,
    attn_norm: &'static str,
    /// One matrix of all three, or each of its own.
    qkv: &'static [&'static str],
    attn_out: &'static str,
    mlp_norm: &'static str,
    norm: &'static str,
    head: &'static str,
}

const TRANSFORMERS: Names = Names {
    project_out: "quantizer.project_out",
    fc: "acoustic_decoder.fc",
    prefix: "acoustic_decoder.",
    layers: "acoustic_decoder.layers",
    attn_norm: "input_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    attn_out: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    norm: "acoustic_decoder.norm",
    head: "acoustic_decoder.head.linear",
};

const RELEASE: Names = Names {
    project_out: "generator.quantizer.project_out",
    fc: "fc_post_a",
    prefix: "generator.backbone.",
    layers: "generator.backbone.transformers",
    attn_norm: "att_norm",
    qkv: &["att.c_attn"],
    attn_out: "att.c_proj",
    mlp_norm: "ffn_norm",
    norm: "generator.backbone.final_layer_norm",
    head: "generator.head.out",
};

/// What is found in a decoder's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Heads of each.
    pub heads: usize,
    /// Samples of the inverse transform, four hops.
    pub fft_size: usize,
}

/// A codec decoder, written and not yet in its place.
#[derive(Debug)]
pub struct Codec {
    /// `[audio]`.
    pub audio: Table,
    /// `[codec]`.
    pub codec: Table,
    /// Files by their names, weights before the graph that makes sense of them.
    pub files: Vec<(String, Part, (u64, [u8; 32]))>,
}

/// Tensors of a decoder, and which are used.
struct Reader<'a> {
    source: &'a dyn TensorSource,
    names: &'static Names,
    used: BTreeSet<String>,
    bits: Bits,
    hidden: usize,
}

/// Whether these are the tensors of such a decoder.
pub fn is_decoder(source: &dyn TensorSource) -> bool {
    names(source).is_some()
}

fn names(source: &dyn TensorSource) -> Option<&'static Names> {
    [&TRANSFORMERS, &RELEASE]
        .into_iter()
        .find(|n| source.get(&format!("{}.weight", n.project_out)).is_some())
}

/// Reads a decoder from the folder or file `path` and writes it to `folder` as `codec.onnx`, with
/// what bundle.toml says of it. `progress` is called with the weights that were written.
///
/// # Errors
/// `Unsupported` for another codec, `Malformed` or `Mismatch` for tensors that are missing or have
/// other shapes, `Unwritable`.
pub fn import(
    path: &Path,
    folder: &Path,
    bits: Bits,
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Codec> {
    let tensors = open_tensors(path)?;
    let config = path.join("config.json");
    let config = match config.is_file() {
        true => files::read_json(&config)?,
        false => serde_json::Value::Null,
    };
    let number = |key: &str| config[key].as_u64().map(|v| v as usize);
    let heads = number("num_attention_heads");
    let mut frame_rate = FRAME_RATE;
    if let Some(ratios) = config["downsampling_ratios"].as_array() {
        let steps = ratios.iter().filter_map(|r| r.as_u64()).product::<u64>().max(1) as usize;
        frame_rate = number("input_sampling_rate").unwrap_or(16_000) / steps;
    }
    let mut graph = Graph::create(folder, "codec", threads, progress)?;
    let shape = write(&mut graph, &tensors, heads, bits)?;
    let Written { data, graph, facts } = graph.finish("codec_decoder")?;
    let hop = shape.fft_size / 4;
    let int = |v: usize| Value::from(v as i64);
    let entries = |all: Vec<(&str, Value)>| -> Table {
        all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    };
    let bits = match bits {
        Bits::Four => 4,
        Bits::Eight => 8,
    };
    // A whole window of tokens waits, and the sound of the last one for the frames that overlap it.
    let latency = WINDOW * hop + (shape.fft_size - hop) / 2;
    Ok(Codec {
        audio: entries(vec![
            ("sample_rate_hz", int(hop * frame_rate)),
            ("frame_rate_hz", int(frame_rate)),
            ("fft_size", int(shape.fft_size)),
            ("hop", int(hop)),
            ("max_log_magnitude", MAX_LOG_MAGNITUDE.into()),
        ]),
        codec: entries(vec![
            ("file", "codec.onnx".into()),
            ("kind", "windowed".into()),
            ("latency_samples", int(latency)),
            ("bits", int(bits)),
        ]),
        files: vec![
            ("codec.onnx.data".into(), data, facts[0]),
            ("codec.onnx".into(), graph, facts[1]),
        ],
    })
}

/// [`import`], its files put in their places: `codec.onnx` and `codec.onnx.data` in `folder`.
///
/// # Errors
/// As [`import`]; neither file is there then.
pub fn convert(
    path: &Path,
    folder: &Path,
    bits: Bits,
    threads: usize,
) -> Result<(bundle::Audio, bundle::Codec)> {
    let written = import(path, folder, bits, threads, &mut |_| ())?;
    let bad = |e| Error::with_source(ErrorKind::Internal, "the codec cannot be described", e);
    let audio = written.audio.try_into().map_err(bad)?;
    let codec = written.codec.try_into().map_err(bad)?;
    let parts = written.files.into_iter().map(|f| f.1).collect();
    part::finish_all(parts).map_err(|e| unwritable(folder, e))?;
    Ok((audio, codec))
}

/// Writes the decoder's graph, tokens to `spectrum`.
///
/// # Errors
/// As [`import`].
pub fn write(
    graph: &mut Graph,
    source: &dyn TensorSource,
    heads: Option<usize>,
    bits: Bits,
) -> Result<Shape> {
    let Some(names) = names(source) else {
        return Err(unsupported(format!(
            "{} has no decoder of NeuCodec or X-codec2 ({} or {} are not there)",
            source.origin(),
            TRANSFORMERS.project_out,
            RELEASE.project_out
        )));
    };
    let wide = |name: &str| source.get(&format!("{name}.weight")).map_or(0, |t| t.rows());
    let (hidden, columns) = (wide(names.fc), wide(names.head));
    let heads = heads.unwrap_or(hidden / HEAD_DIM);
    let fft_size = columns.saturating_sub(2);
    if hidden == 0 || hidden % GROUPS != 0 || hidden > 1 << 16 {
        return Err(unsupported(format!("a decoder {hidden} wide; a multiple of 32 is wanted")));
    }
    if heads == 0 || hidden % (16 * heads) != 0 {
        let what = format!("{heads} heads over {hidden} channels; heads of 16, 32, 48 .. are run");
        return Err(unsupported(what));
    }
    if fft_size == 0 || fft_size % 8 != 0 || fft_size > 1 << 16 {
        return Err(unsupported(format!("a head of {columns} rows; fft size + 2 is wanted")));
    }
    let mut r = Reader { source, names, used: BTreeSet::new(), bits, hidden };
    graph.input("tokens", element::I64, &[Dim::Named("T")]);
    graph.output("spectrum", &[Dim::Named("T"), Dim::Fixed(columns)]);

    let mut h = r.embedding(graph)?;
    h = r.conv(graph, "embed", &format!("{}embed", names.prefix), 7, &h, None)?;
    h = r.resnets(graph, "prior", "prior_net", h)?;
    let layers = r.count(names.layers);
    for l in 0..layers {
        h = r.layer(graph, l, heads, &h)?;
    }
    h = r.resnets(graph, "post", "post_net", h)?;
    h = r.norm(graph, "LayerNorm", "norm", names.norm, &h, true, &[])?;
    let bias = r.floats(&format!("{}.bias", names.head), &[columns])?;
    let weight = r.tensor(&format!("{}.weight", names.head), &[columns, hidden])?;
    graph.matmul("head", &h, &Picked::all(weight), bits, Some(&bias), None, Some("spectrum"))?;
    r.nothing_left()?;
    Ok(Shape { hidden, layers, heads, fft_size })
}

impl<'a> Reader<'a> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<&'a Tensor> {
        let tensor = self.source.expect(name, shape)?;
        self.used.insert(name.to_owned());
        Ok(tensor)
    }

    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.tensor(name, shape)?.to_vec())
    }

    /// How many numbered parts `prefix` has.
    fn count(&self, prefix: &str) -> usize {
        let numbers = self.source.tensors().keys().filter_map(|name| {
            let number = name.strip_prefix(prefix)?.strip_prefix('.')?.split('.').next()?;
            number.parse::<usize>().ok()
        });
        // A gap is found when its tensors are asked for.
        numbers.max().map_or(0, |n| n.min(1 << 10) + 1)
    }

    /// Digits of a code to the first rows: both linear maps, and what the digits stand for, in one.
    fn embedding(&mut self, graph: &mut Graph) -> Result<String> {
        let (out, fc, hidden) = (self.names.project_out, self.names.fc, self.hidden);
        let middle = self.source.get(&format!("{out}.weight")).map_or(0, |t| t.rows());
        let first = self.floats(&format!("{out}.weight"), &[middle, DIGITS])?;
        let first_bias = self.floats(&format!("{out}.bias"), &[middle])?;
        let second = self.floats(&format!("{fc}.weight"), &[hidden, middle])?;
        let second_bias = self.floats(&format!("{fc}.bias"), &[hidden])?;
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for (row, b) in second.chunks_exact(middle.max(1)).zip(&second_bias) {
            let mut sums = [0f64; DIGITS];
            let mut offset = f64::from(*b);
            for ((w, first), b) in row.iter().zip(first.as_chunks::<DIGITS>().0).zip(&first_bias) {
                sums.iter_mut().zip(first).for_each(|(s, f)| *s += f64::from(*w) * f64::from(*f));
                offset += f64::from(*w) * f64::from(*b);
            }
            // They learned from digits of -1, -1/2, 0 and 1/2; FsqEmbed's -1, -1/3, 1/3 and 1 are
            // v with 3/4 v - 1/4 for those.
            weight.extend(sums.map(|s| (0.75 * s) as f32));
            bias.push((offset - 0.25 * sums.iter().sum::<f64>()) as f32);
        }
        let weight = graph.floats("inp.weight", &[hidden, DIGITS], &weight)?;
        let bias = graph.floats("inp.bias", &[hidden], &bias)?;
        Ok(graph.op("FsqEmbed", "inp", &["tokens", &weight, &bias], &[], &[]))
    }

    fn conv(
        &mut self,
        graph: &mut Graph,
        node: &str,
        key: &str,
        taps: usize,
        x: &str,
        residual: Option<&str>,
    ) -> Result<String> {
        let hidden = self.hidden;
        let bias = self.floats(&format!("{key}.bias"), &[hidden])?;
        let name = format!("{key}.weight");
        let tensor = self.tensor(&name, &[hidden, hidden, taps])?;
        // A row has the channels of one tap behind those of another.
        let fill = |n: usize, out: &mut [f32]| {
            let mut row = vec![0.0; hidden * taps];
            tensor.read_row(n, &mut row);
            for (c, taps) in row.chunks_exact(taps).enumerate() {
                taps.iter().enumerate().for_each(|(j, w)| out[j * hidden + c] = *w);
            }
        };
        let rows = Computed { shape: (hidden, hidden * taps), fill, name };
        graph.conv(node, x, &rows, taps, self.bits, Some(&bias), residual)
    }

    #[allow(clippy::too_many_arguments)]
    fn norm(
        &mut self,
        graph: &mut Graph,
        kind: &str,
        node: &str,
        key: &str,
        x: &str,
        has_bias: bool,
        more: &[(&str, Attribute)],
    ) -> Result<String> {
        let hidden = self.hidden;
        let mut inputs = vec![x.to_owned()];
        for part in ["weight", "bias"].into_iter().take(1 + usize::from(has_bias)) {
            let values = self.floats(&format!("{key}.{part}"), &[hidden])?;
            inputs.push(graph.floats(&format!("{node}.{part}"), &[hidden], &values)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut attributes = vec![("epsilon", Attribute::Float(EPSILON))];
        attributes.extend_from_slice(more);
        Ok(graph.op(kind, node, &inputs, &[], &attributes))
    }

    fn resnets(
        &mut self,
        graph: &mut Graph,
        node: &str,
        key: &str,
        mut h: String,
    ) -> Result<String> {
        let prefix = format!("{}{key}", self.names.prefix);
        let groups = [("groups", Attribute::Int(GROUPS as i64))];
        for i in 0..self.count(&prefix) {
            let mut x = h.clone();
            for part in [1, 2] {
                let (node, key) = (format!("{node}.{i}"), format!("{prefix}.{i}"));
                let of =
                    |what: &str| (format!("{node}.{what}{part}"), format!("{key}.{what}{part}"));
                let (name, tensors) = of("norm");
                x = self.norm(graph, "GroupNorm", &name, &tensors, &x, true, &groups)?;
                x = graph.op("Silu", &of("silu").0, &[&x], &[], &[]);
                let (name, tensors) = of("conv");
                let residual = (part == 2).then_some(h.as_str());
                x = self.conv(graph, &name, &tensors, 3, &x, residual)?;
            }
            h = x;
        }
        Ok(h)
    }

    fn layer(&mut self, graph: &mut Graph, l: usize, heads: usize, h: &str) -> Result<String> {
        let (names, hidden, bits) = (self.names, self.hidden, self.bits);
        let (node, key) = (format!("layers.{l}"), format!("{}.{l}", names.layers));
        let attn_norm = format!("{key}.{}", names.attn_norm);
        let x =
            self.norm(graph, "RmsNorm", &format!("{node}.attn_norm"), &attn_norm, h, false, &[])?;
        let mut rows = Picked::new(hidden);
        for part in names.qkv {
            let share = 3 / names.qkv.len() * hidden;
            let weight = self.tensor(&format!("{key}.{part}.weight"), &[share, hidden])?;
            rows.push(weight, 0..share)?;
        }
        let x = graph.matmul(&format!("{node}.qkv"), &x, &rows, bits, None, None, None)?;
        let shape = [
            ("heads", Attribute::Int(heads as i64)),
            ("head_dim", Attribute::Int((hidden / heads) as i64)),
        ];
        let x = graph.op("SelfAttention", &format!("{node}.attention"), &[&x], &[], &shape);
        let weight = self.tensor(&format!("{key}.{}.weight", names.attn_out), &[hidden, hidden])?;
        let name = format!("{node}.attn_out");
        let h = graph.matmul(&name, &x, &Picked::all(weight), bits, None, Some(h), None)?;

        let mlp_norm = format!("{key}.{}", names.mlp_norm);
        let x =
            self.norm(graph, "RmsNorm", &format!("{node}.mlp_norm"), &mlp_norm, &h, false, &[])?;
        let up = format!("{key}.mlp.fc1.weight");
        let ffn = self.source.get(&up).map_or(0, |t| t.rows());
        if ffn % 32 != 0 {
            return Err(unsupported(format!("{up} has {ffn} rows, no multiple of 32")));
        }
        let up = self.tensor(&up, &[ffn, hidden])?;
        let down = self.tensor(&format!("{key}.mlp.fc2.weight"), &[hidden, ffn])?;
        let name = format!("{node}.up");
        let x = graph.matmul(&name, &x, &Picked::all(up), bits, None, None, None)?;
        let x = graph.op("Silu", &format!("{node}.silu"), &[&x], &[], &[]);
        let name = format!("{node}.down");
        graph.matmul(&name, &x, &Picked::all(down), bits, None, Some(&h), None)
    }

    /// A decoder with parts that nobody asked for is another one.
    fn nothing_left(&self) -> Result<()> {
        let part_of = |name: &str| {
            ["acoustic_decoder.", "generator.backbone.", "generator.head."]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        // Tables that are computed, not learned.
        let table = |name: &str| {
            name.ends_with(".window")
                || name.contains("rotary_emb")
                || name.contains("rotary_embed")
        };
        let spare = |name: &&String| part_of(name) && !table(name) && !self.used.contains(*name);
        match self.source.tensors().keys().find(spare) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} has a tensor {name:?} that the decoders of NeuCodec and X-codec2 do not have",
                    self.source.origin()
                ),
            )),
        }
    }
}
