//! `com.microsoft.MatMulNBits` nodes: what of the operator's definition is understood.

use crate::kernel::{Bits, PackedShape, RowMajor, SCALE_BLOCK};
use crate::map::{Map, MappedSlice};
use crate::{Error, ErrorKind, Result};
use tract_onnx::pb;

/// Whether the node multiplies by a stock quantized weight.
pub(crate) fn is(node: &pb::NodeProto) -> bool {
    node.domain == "com.microsoft" && node.op_type == "MatMulNBits"
}

/// The places of a node's tensors among its inputs.
pub(crate) const WEIGHTS: usize = 1;
pub(crate) const SCALES: usize = 2;
pub(crate) const ZERO_POINTS: usize = 3;
const GROUPS: usize = 4;
pub(crate) const BIAS: usize = 5;

/// A tensor that a node may name: its bytes, element type and shape.
pub(crate) type Tensor<'a> = (&'a MappedSlice, &'a str, &'a [usize]);

/// The checked content of one node.
pub(crate) struct Stock {
    pub shape: PackedShape,
    /// `[N][K/32]` blocks.
    pub weights: MappedSlice,
    /// `[N][K/32]`, f16 if `half` and f32 if not.
    pub scales: MappedSlice,
    pub half: bool,
    /// Only where some block's is not the usual one.
    pub zero_points: Option<MappedSlice>,
    /// `[N]` f32.
    pub bias: Option<MappedSlice>,
}

/// The name of an input that is there.
pub(crate) fn input(node: &pb::NodeProto, at: usize) -> Option<&str> {
    node.input.get(at).map(String::as_str).filter(|n| !n.is_empty())
}

/// Checks a node against the tensors that it names.
pub(crate) fn read<'a>(
    node: &pb::NodeProto,
    tensor: impl Fn(&str) -> Option<Tensor<'a>>,
) -> Result<Stock> {
    let error = |kind, what: String| Error::new(kind, format!("node {:?}: {what}", node.name));
    let bad = |what: String| error(ErrorKind::Malformed, what);
    let unsupported = |what: String| error(ErrorKind::Unsupported, what);
    let int = |key: &str| node.attribute.iter().find(|a| a.name == key).map(|a| a.i);
    let need = |key: &str| int(key).ok_or_else(|| bad(format!("attribute {key} is missing")));
    let size = |key: &str| {
        usize::try_from(need(key)?)
            .ok()
            .filter(|v| (1..1 << 24).contains(v))
            .ok_or_else(|| bad(format!("attribute {key} is out of range")))
    };

    let (n, k, block) = (size("N")?, size("K")?, need("block_size")?);
    // The operator's own default.
    let count = int("bits").unwrap_or(4);
    let bits = Bits::from_count(count)
        .ok_or_else(|| unsupported(format!("weights of {count} bits; quantize to 4 or 8")))?;
    if block != SCALE_BLOCK as i64 {
        return Err(unsupported(format!(
            "block_size {block}; quantize with blocks of {SCALE_BLOCK}"
        )));
    }
    if k % SCALE_BLOCK != 0 {
        return Err(unsupported(format!(
            "K is {k}, which is not a multiple of {SCALE_BLOCK}: pad the weight with zero columns"
        )));
    }
    if input(node, GROUPS).is_some() {
        return Err(unsupported("g_idx orders the columns; quantize without it".into()));
    }
    if int("weight_prepacked").is_some_and(|v| v != 0) {
        return Err(unsupported("weight_prepacked is for one device only; export without".into()));
    }
    let shape = PackedShape { n, k, bits };
    let blocks = shape.blocks();

    let find = |at: usize, what: &str| {
        let name = input(node, at).ok_or_else(|| bad(format!("no {what}")))?;
        tensor(name).ok_or_else(|| bad(format!("{what} {name:?} is not a stored tensor")))
    };
    let length = |dims: &[usize], want: usize, what: &str| {
        let got = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        // N may stand alone or be folded into the whole.
        if got == Some(want) && (dims.len() == 1 || dims[0] == n) {
            return Ok(());
        }
        Err(bad(format!("{what} of shape {dims:?} where {n} x {k} needs {want} elements")))
    };

    let (weights, data_type, dims) = find(WEIGHTS, "weights")?;
    if data_type != "u8" {
        return Err(bad(format!("weights are {data_type}, not u8")));
    }
    length(dims, n * blocks * bits.bytes_per_row_block(), "weights")?;

    let (scales, data_type, dims) = find(SCALES, "scales")?;
    let half = match data_type {
        "f16" => true,
        "f32" => false,
        other => return Err(unsupported(format!("scales are {other}, not f32 or f16"))),
    };
    length(dims, n * blocks, "scales")?;
    // Other writers pack tensors without gaps.
    let sound = if half { scales.as_f16().is_ok() } else { scales.as_f32().is_ok() };
    let scales = if sound { scales.clone() } else { Map::copy_of(scales, "scales").whole() };

    let mut zero_points = None;
    if input(node, ZERO_POINTS).is_some() {
        let (zero, data_type, dims) = find(ZERO_POINTS, "zero points")?;
        if data_type != "u8" {
            return Err(unsupported(format!("zero points are {data_type}; only u8 is exact here")));
        }
        length(dims, n * RowMajor::zero_bytes(bits, blocks), "zero points")?;
        zero_points = (!usual(bits, blocks, zero)).then(|| zero.clone());
    }

    let mut bias = None;
    if input(node, BIAS).is_some() {
        let (tensor, data_type, dims) = find(BIAS, "bias")?;
        if data_type != "f32" {
            return Err(unsupported(format!("the bias is {data_type}, not f32")));
        }
        length(dims, n, "bias")?;
        let sound = tensor.as_f32().is_ok();
        bias = Some(if sound { tensor.clone() } else { Map::copy_of(tensor, "bias").whole() });
    }
    if let Some(extra) = (BIAS + 1..node.input.len()).find_map(|i| input(node, i)) {
        return Err(unsupported(format!("input {extra:?} is one too many")));
    }
    Ok(Stock { shape, weights: weights.clone(), scales, half, zero_points, bias })
}

/// Whether all zero points are what they would be without any.
fn usual(bits: Bits, blocks: usize, zero: &[u8]) -> bool {
    match bits {
        Bits::Eight => zero.iter().all(|&z| z == 128),
        // The last nibble of a row of odd length belongs to no block.
        Bits::Four => zero
            .chunks_exact(blocks.div_ceil(2))
            .all(|row| (0..blocks).all(|b| row[b / 2] >> (b % 2 * 4) & 15 == bits.zero_point())),
    }
}
