//! Writing a model: an ONNX graph of our operators, its weights streamed into the data file beside
//! it, 64-byte aligned, a few tiles of 16 rows in memory at a time.

use super::quantize::{self, Bits, Rows};
use super::source::unsupported;
use crate::convert::{Output, wire};
use crate::engine::load::DOMAIN;
use crate::engine::pb;
use crate::kernel::{PackedShape, SCALE_BLOCK, TILE, pack};
use crate::part::Part;
use crate::{Error, ErrorKind, Result};
use half::f16;
use pb::tensor_shape_proto::{Dimension, dimension};
use prost::Message;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The bodies of our operators as model-local functions, made by
/// `python -m voxgrain_tools export functions`: any ONNX runtime then runs what is written here.
static FUNCTIONS: &[u8] = include_bytes!("functions.onnx");

/// As models/README.md says.
const IR_VERSION: i64 = 10;
const OPSET: i64 = 20;

/// Tiles that are quantised before they are written.
const BATCH: usize = 16;

/// Element types of ONNX.
pub mod element {
    #![allow(missing_docs)]
    pub const F32: i32 = 1;
    pub const U8: i32 = 2;
    pub const I64: i32 = 7;
    pub const F16: i32 = 10;
}

/// An attribute of a node.
#[derive(Debug, Clone, Copy)]
pub enum Attribute<'a> {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f32),
    /// Text.
    Text(&'a str),
}

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy)]
pub enum Dim<'a> {
    /// Always the same.
    Fixed(usize),
    /// By name.
    Named(&'a str),
}

/// What [`Graph::finish`] leaves: files that are written and have not their names yet.
#[derive(Debug)]
pub struct Written {
    /// The weights.
    pub data: Part,
    /// The graph.
    pub graph: Part,
    /// Bytes of the two and their SHA-256, weights first.
    pub facts: [(u64, [u8; 32]); 2],
}

/// How many rows came as they were stored, and how many were quantised here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Integers and scales kept.
    pub kept: u64,
    /// Quantised here.
    pub quantised: u64,
}

/// Called with the bytes of source weights that are done.
pub type Progress<'a> = dyn FnMut(u64) + 'a;

/// A model being written.
pub struct Graph<'p> {
    name: String,
    path: PathBuf,
    data: Output,
    nodes: Vec<pb::NodeProto>,
    initializers: Vec<pb::TensorProto>,
    inputs: Vec<pb::ValueInfoProto>,
    outputs: Vec<pb::ValueInfoProto>,
    counts: Counts,
    threads: usize,
    progress: &'p mut Progress<'p>,
}

impl<'p> Graph<'p> {
    /// Begins `<name>.onnx` and `<name>.onnx.data` in `folder`. `progress` is called with the
    /// number of weights that were written since the last call.
    ///
    /// # Errors
    /// `Unwritable`.
    pub fn create(
        folder: &Path,
        name: &str,
        threads: usize,
        progress: &'p mut Progress<'p>,
    ) -> Result<Self> {
        let path = folder.join(format!("{name}.onnx"));
        let data = Output::create(&folder.join(format!("{name}.onnx.data")))?;
        Ok(Self {
            name: name.to_owned(),
            path,
            data,
            nodes: Vec::new(),
            initializers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            counts: Counts::default(),
            threads: threads.max(1),
            progress,
        })
    }

    /// An input of the graph.
    pub fn input(&mut self, name: &str, element: i32, dims: &[Dim]) {
        self.inputs.push(value(name, element, dims));
    }

    /// An output of the graph.
    pub fn output(&mut self, name: &str, dims: &[Dim]) {
        self.outputs.push(value(name, element::F32, dims));
    }

    /// How rows came about so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of weights so far.
    pub fn bytes(&self) -> u64 {
        self.data.offset()
    }

    /// A weight of these bytes; its name.
    pub fn tensor(
        &mut self,
        name: &str,
        element: i32,
        dims: &[usize],
        bytes: &[u8],
    ) -> Result<String> {
        self.data.align()?;
        let offset = self.data.offset();
        self.data.write(bytes)?;
        Ok(self.initializer(name, element, dims, offset))
    }

    /// A weight whose bytes come in so many pieces.
    pub fn stream(
        &mut self,
        name: &str,
        element: i32,
        dims: &[usize],
        pieces: usize,
        mut piece: impl FnMut(usize) -> Result<Vec<u8>>,
    ) -> Result<String> {
        self.data.align()?;
        let offset = self.data.offset();
        let each = dims.iter().product::<usize>() / pieces.max(1);
        for i in 0..pieces {
            self.data.write(&piece(i)?)?;
            (self.progress)(each as u64);
        }
        Ok(self.initializer(name, element, dims, offset))
    }

    /// A weight of floats.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Result<String> {
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            let what = format!("{name} has the value {bad}; the checkpoint is damaged");
            return Err(Error::new(ErrorKind::Malformed, what));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, element::F32, dims, &bytes)
    }

    fn initializer(&mut self, name: &str, element: i32, dims: &[usize], offset: u64) -> String {
        let length = self.data.offset() - offset;
        let entry =
            |key: &str, value: String| pb::StringStringEntryProto { key: key.into(), value };
        self.initializers.push(pb::TensorProto {
            name: name.into(),
            data_type: element,
            dims: dims.iter().map(|&d| d as i64).collect(),
            // External.
            data_location: Some(1),
            external_data: vec![
                entry("location", format!("{}.onnx.data", self.name)),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ],
            ..Default::default()
        });
        name.to_owned()
    }

    /// A node of our domain; its first output, `<name>.out` unless `outputs` says otherwise.
    pub fn op(
        &mut self,
        kind: &str,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> String {
        let mut inputs: Vec<String> = inputs.iter().map(|i| (*i).to_owned()).collect();
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        let outputs = match outputs {
            [] => vec![format!("{name}.out")],
            given => given.iter().map(|o| (*o).to_owned()).collect(),
        };
        let first = outputs[0].clone();
        self.nodes.push(pb::NodeProto {
            input: inputs,
            output: outputs,
            name: name.into(),
            op_type: kind.into(),
            domain: DOMAIN.into(),
            attribute: attributes.iter().map(attribute).collect(),
            ..Default::default()
        });
        first
    }

    /// `rows` in the interleaved layout: the names of weights and scales.
    fn packed(&mut self, name: &str, rows: &dyn Rows, bits: Bits) -> Result<(String, String)> {
        let (n, k) = rows.shape();
        let shape = PackedShape { n, k: quantize::padded(k), bits };
        let mut scales = vec![0u8; shape.scale_count() * 2];
        self.data.align()?;
        let offset = self.data.offset();
        let per_tile = shape.blocks() * TILE * 2;
        let (counts, progress) = (&mut self.counts, &mut *self.progress);
        let data = &mut self.data;
        in_tiles(rows, bits, self.threads, &mut |tile, q, s, kept| {
            let valid = s.len() / shape.blocks();
            let one = PackedShape { n: valid, ..shape };
            let (bytes, packed) = pack(one, q, s)
                .map_err(|e| Error::with_source(ErrorKind::Internal, "rows cannot be packed", e))?;
            data.write(&bytes)?;
            let to = scales[tile * per_tile..][..per_tile].as_chunks_mut::<2>().0;
            to.iter_mut().zip(packed).for_each(|(to, s)| *to = s.to_le_bytes());
            count(counts, valid, kept);
            progress((valid * k) as u64);
            Ok(())
        })?;
        let (tiles, blocks) = (shape.tiles(), shape.blocks());
        let dims = [tiles, blocks, bits.bytes_per_row_block() / 4, TILE, 4];
        let weights = self.initializer(&format!("{name}.packed"), element::U8, &dims, offset);
        let scales =
            self.tensor(&format!("{name}.scales"), element::F16, &[tiles, blocks, TILE], &scales)?;
        Ok((weights, scales))
    }

    /// x Wᵀ + bias + residual; `output` is `<name>.out` where it is none. Columns of `rows` that
    /// are no whole blocks are padded, and whoever makes `x` pads it likewise.
    #[allow(clippy::too_many_arguments)]
    pub fn matmul(
        &mut self,
        name: &str,
        x: &str,
        rows: &dyn Rows,
        bits: Bits,
        bias: Option<&[f32]>,
        residual: Option<&str>,
        output: Option<&str>,
    ) -> Result<String> {
        let (n, k) = rows.shape();
        if n == 0 || k == 0 || n >= 1 << 24 || k >= 1 << 24 {
            return Err(unsupported(format!("{name} has the shape [{n}, {k}]")));
        }
        let (weights, scales) = self.packed(name, rows, bits)?;
        let bias = match bias {
            Some(b) => self.floats(&format!("{name}.bias"), &[n], b)?,
            None => String::new(),
        };
        let inputs = [x, &weights, &scales, &bias, residual.unwrap_or_default()];
        let outputs: Vec<&str> = output.into_iter().collect();
        let attributes = [
            ("N", Attribute::Int(n as i64)),
            ("K", Attribute::Int(quantize::padded(k) as i64)),
            ("bits", Attribute::Int(bits.bytes_per_row_block() as i64 / 4)),
        ];
        Ok(self.op("QMatMul", name, &inputs, &outputs, &attributes))
    }

    /// A convolution over `taps` rows, as many on either side: `rows` has the channels of one tap
    /// behind those of another, whole blocks of 32.
    #[allow(clippy::too_many_arguments)]
    pub fn conv(
        &mut self,
        name: &str,
        x: &str,
        rows: &dyn Rows,
        taps: usize,
        bits: Bits,
        bias: Option<&[f32]>,
        residual: Option<&str>,
    ) -> Result<String> {
        let (n, k) = rows.shape();
        if taps % 2 == 0 || k % (taps * SCALE_BLOCK) != 0 {
            return Err(unsupported(format!("{name} convolves {k} columns over {taps} rows")));
        }
        let (weights, scales) = self.packed(name, rows, bits)?;
        let bias = match bias {
            Some(b) => self.floats(&format!("{name}.bias"), &[n], b)?,
            None => String::new(),
        };
        let inputs = [x, &weights, &scales, &bias, residual.unwrap_or_default()];
        let attributes = [
            ("N", Attribute::Int(n as i64)),
            ("K", Attribute::Int(k as i64)),
            ("bits", Attribute::Int(bits.bytes_per_row_block() as i64 / 4)),
            ("kernel", Attribute::Int(taps as i64)),
            ("padding", Attribute::Int(taps as i64 / 2)),
        ];
        Ok(self.op("Conv", name, &inputs, &[], &attributes))
    }

    /// A table that tokens are looked up in, row by row in blocks of 32.
    pub fn table(
        &mut self,
        name: &str,
        tokens: &str,
        rows: &dyn Rows,
        bits: Bits,
    ) -> Result<String> {
        let (n, k) = rows.shape();
        if k % SCALE_BLOCK != 0 {
            return Err(unsupported(format!("{name} has {k} columns, no multiple of 32")));
        }
        self.data.align()?;
        let offset = self.data.offset();
        let blocks = k / SCALE_BLOCK;
        let mut scales = Vec::with_capacity(n * blocks * 2);
        let (counts, progress) = (&mut self.counts, &mut *self.progress);
        let data = &mut self.data;
        let mut bytes = Vec::new();
        in_tiles(rows, bits, self.threads, &mut |_, q, s, kept| {
            bytes.clear();
            for block in q.as_chunks::<SCALE_BLOCK>().0 {
                match bits {
                    Bits::Eight => bytes.extend(block.map(|q| (i16::from(q) + 128) as u8)),
                    Bits::Four => bytes.extend(
                        (0..16).map(|i| (block[i] + 8) as u8 | ((block[i + 16] + 8) as u8) << 4),
                    ),
                }
            }
            data.write(&bytes)?;
            scales.extend(s.iter().flat_map(|s| s.to_le_bytes()));
            let valid = s.len() / blocks;
            count(counts, valid, kept);
            progress((valid * k) as u64);
            Ok(())
        })?;
        let dims = [n, blocks, bits.bytes_per_row_block()];
        let q = self.initializer(&format!("{name}.q"), element::U8, &dims, offset);
        let scales = self.tensor(&format!("{name}.scales"), element::F16, &[n, blocks], &scales)?;
        let attributes = [
            ("K", Attribute::Int(k as i64)),
            ("bits", Attribute::Int(bits.bytes_per_row_block() as i64 / 4)),
        ];
        Ok(self.op("QEmbed", name, &[tokens, &q, &scales], &[], &attributes))
    }

    /// A table of f16 that tokens are looked up in.
    pub fn half_table(&mut self, name: &str, tokens: &str, rows: &dyn Rows) -> Result<String> {
        let (n, k) = rows.shape();
        let mut row = vec![0.0; k];
        let mut bytes = Vec::with_capacity(2 * k);
        let table = self.stream(&format!("{name}.weight"), element::F16, &[n, k], n, |r| {
            rows.read(r, &mut row);
            bytes.clear();
            for x in &row {
                let half = f16::from_f32(*x);
                if !half.is_finite() {
                    return Err(Error::new(
                        ErrorKind::Malformed,
                        format!("{} has the value {x}, which f16 does not hold", rows.origin(r)),
                    ));
                }
                bytes.extend(half.to_le_bytes());
            }
            Ok(bytes.clone())
        })?;
        Ok(self.op("Embed", name, &[tokens, &table], &[], &[]))
    }

    /// Writes the graph. The files have their names once the caller finishes the parts, the
    /// weights first.
    pub fn finish(self, kind: &str) -> Result<Written> {
        let kinds: BTreeSet<String> = self.nodes.iter().map(function_of).collect();
        let functions = functions(&kinds)?;
        let opset =
            |domain: &str, version| pb::OperatorSetIdProto { domain: domain.into(), version };
        let model = pb::ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![opset("", OPSET), opset(DOMAIN, 1)],
            producer_name: "voxgrain".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            metadata_props: vec![pb::StringStringEntryProto {
                key: "voxgrain.kind".into(),
                value: kind.into(),
            }],
            graph: Some(pb::GraphProto {
                node: self.nodes,
                name: self.name,
                initializer: self.initializers,
                input: self.inputs,
                output: self.outputs,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut bytes = model.encode_to_vec();
        bytes.extend(functions);
        let mut graph = Output::create(&self.path)?;
        graph.write(&bytes)?;
        let (data, data_facts) = self.data.end()?;
        let (graph, graph_facts) = graph.end()?;
        Ok(Written { data, graph, facts: [data_facts, graph_facts] })
    }
}

fn count(counts: &mut Counts, rows: usize, kept: usize) {
    counts.kept += kept as u64;
    counts.quantised += (rows - kept) as u64;
}

/// What one tile of up to 16 rows became: its number, integers, scales, and how many of its rows
/// were stored so already.
type Take<'a> = dyn FnMut(usize, &[i8], &[u16], usize) -> Result<()> + 'a;

/// Integers and scales of a tile.
#[derive(Default, Clone)]
struct Tile {
    q: Vec<i8>,
    scales: Vec<u16>,
    kept: usize,
}

/// Quantises all rows, tiles of a batch side by side, and hands them out in order.
fn in_tiles(rows: &dyn Rows, bits: Bits, threads: usize, take: &mut Take) -> Result<()> {
    let (n, k) = rows.shape();
    let (k, tiles) = (quantize::padded(k), n.div_ceil(TILE));
    let blocks = k / SCALE_BLOCK;
    let one = |tile: usize, to: &mut Tile, x: &mut Vec<f32>| -> Result<()> {
        let first = tile * TILE;
        let valid = (n - first).min(TILE);
        to.q.resize(valid * k, 0);
        to.scales.resize(valid * blocks, 0);
        to.kept = 0;
        for r in 0..valid {
            let (q, s) = (&mut to.q[r * k..][..k], &mut to.scales[r * blocks..][..blocks]);
            to.kept += usize::from(quantize::row(rows, first + r, bits, x, q, s)?);
        }
        Ok(())
    };
    let mut batch = vec![Tile::default(); BATCH];
    for first in (0..tiles).step_by(BATCH) {
        let batch = &mut batch[..BATCH.min(tiles - first)];
        let share = batch.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let work: Vec<_> = batch
                .chunks_mut(share)
                .enumerate()
                .map(|(t, part)| {
                    scope.spawn(move || {
                        let mut x = Vec::new();
                        let first = first + t * share;
                        part.iter_mut()
                            .enumerate()
                            .try_for_each(|(i, to)| one(first + i, to, &mut x))
                    })
                })
                .collect();
            work.into_iter().try_for_each(|w| {
                w.join().unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::Internal, "a thread that quantises ended early"))
                })
            })
        })?;
        for (i, tile) in batch.iter().enumerate() {
            take(first + i, &tile.q, &tile.scales, tile.kept)?;
        }
    }
    Ok(())
}

fn value(name: &str, element: i32, dims: &[Dim]) -> pb::ValueInfoProto {
    let dim = |d: &Dim| Dimension {
        value: Some(match d {
            Dim::Fixed(n) => dimension::Value::DimValue(*n as i64),
            Dim::Named(name) => dimension::Value::DimParam((*name).into()),
        }),
        ..Default::default()
    };
    pb::ValueInfoProto {
        name: name.into(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(pb::type_proto::Tensor {
                elem_type: element,
                shape: Some(pb::TensorShapeProto { dim: dims.iter().map(dim).collect() }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn attribute((name, value): &(&str, Attribute)) -> pb::AttributeProto {
    let mut a = pb::AttributeProto { name: (*name).into(), ..Default::default() };
    // 1 is a float, 2 an integer, 3 text.
    a.r#type = match value {
        Attribute::Float(f) => {
            a.f = *f;
            1
        }
        Attribute::Int(i) => {
            a.i = *i;
            2
        }
        Attribute::Text(s) => {
            a.s = s.as_bytes().to_vec();
            3
        }
    };
    a
}

/// Optional inputs of the attention, behind the cache.
const ATTENTION_OPTIONS: [&str; 3] = ["frequencies", "q_norm", "k_norm"];

/// Which function a node wants: a function cannot ask whether an input is there, so the attention
/// has one for each set of optional inputs.
fn function_of(node: &pb::NodeProto) -> String {
    let mut name = node.op_type.clone();
    if name == "Attention" {
        let given = ATTENTION_OPTIONS.iter().zip(node.input.iter().skip(3));
        let form: Vec<&str> = given.filter(|(_, i)| !i.is_empty()).map(|(o, _)| *o).collect();
        if !form.is_empty() {
            name += &format!(":{}", form.join(","));
        }
    }
    name
}

/// The functions of these operators as fields of a model.
fn functions(kinds: &BTreeSet<String>) -> Result<Vec<u8>> {
    let damaged = || Error::new(ErrorKind::Internal, "the operators' functions are damaged");
    let mut out = Vec::new();
    let mut missing = kinds.clone();
    for f in wire::fields(FUNCTIONS).ok_or_else(damaged)? {
        // 25: a function; 1: its name, 8: its description, which is the form of an attention.
        if f.number != 25 {
            continue;
        }
        let parts = wire::fields(f.payload).ok_or_else(damaged)?;
        let text = |number: u64| {
            let part = parts.iter().find(|p| p.number == number);
            part.map(|p| std::str::from_utf8(p.payload)).transpose().map_err(|_| damaged())
        };
        let name = text(1)?.ok_or_else(damaged)?;
        let name = match text(8)?.filter(|form| !form.is_empty()) {
            Some(form) => format!("{name}:{form}"),
            None => name.to_owned(),
        };
        if missing.remove(&name) {
            out.extend_from_slice(f.raw);
        }
    }
    match missing.first() {
        None => Ok(out),
        Some(name) => {
            let what = format!("operator {name} has no function in functions.onnx");
            Err(Error::new(ErrorKind::Internal, what))
        }
    }
}
