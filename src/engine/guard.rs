//! What a graph may be: checked by its own numbers before tract sees it.
//!
//! Every value has a shape that is known here: so many rows for each token, or constant, and so
//! many columns. Operators of the standard set that could make anything else are refused, so that
//! neither loading nor a pass can take more than the bounds below, and the outputs have the rows
//! that a session asks for.

use super::ops::Node;
use crate::{Error, ErrorKind, Result};
use std::collections::{HashMap, HashSet, VecDeque};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// Longest graph file; weights lie beside it.
pub(super) const MAX_GRAPH_BYTES: usize = 8 << 20;
/// Most nodes, initializers, inputs and outputs of a graph.
const MAX_NODES: usize = 4096;
const MAX_CONSTANTS: usize = 65_536;
const MAX_PORTS: usize = 1024;
/// Most nodes of the standard set: tract works on each of them many times while it loads.
const MAX_STANDARD: usize = 1024;
/// Most inputs of one node.
const MAX_INPUTS: usize = 16;
/// Most dimensions of a constant.
const MAX_RANK: usize = 4;
/// Most rows that one token may become.
const MAX_ROWS: u64 = 4096;
/// Bytes that the results of one token may take, and the constants that loading computes, for
/// each byte of the graph and the data; and what is allowed in any case, logits above all.
const GROWTH: u64 = 4;
const ALLOWANCE: u64 = 16 << 20;

/// One dimension of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dim {
    /// As many for each token.
    Rows(u64),
    Fixed(u64),
}

/// A value of the graph.
#[derive(Debug, Clone, PartialEq)]
struct Value {
    dims: Vec<Dim>,
    floats: bool,
}

impl Value {
    /// Elements, for one token.
    fn elements(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |n, d| match d {
            Dim::Rows(k) | Dim::Fixed(k) => n.checked_mul(*k),
        })
    }
    fn is_constant(&self) -> bool {
        self.dims.iter().all(|d| matches!(d, Dim::Fixed(_)))
    }
    /// Rows a token and columns.
    fn matrix(&self) -> Option<(u64, u64)> {
        match self.dims[..] {
            [Dim::Rows(k), Dim::Fixed(c)] if self.floats => Some((k, c)),
            _ => None,
        }
    }
}

/// What stands behind the sizes of a graph.
pub(super) struct Sizes {
    /// Columns of the second input; 0 if there is none.
    pub features: usize,
    /// Bytes of the graph's file and of its data.
    pub graph: usize,
    pub data: usize,
}

/// What the graph makes.
pub(super) struct Made {
    /// Rows of each output for one token.
    pub rows: Vec<usize>,
    /// Columns of the widest value but the first output.
    pub widest: usize,
}

/// Checks `proto`, whose own nodes have been read as `nodes`, and strips what tract has no need
/// to read. `name` is for messages, `domain` that of our operators.
///
/// # Errors
/// `Malformed` for a graph that cannot be, `Unsupported` for operators that are not known here.
pub(super) fn check(
    (name, domain): (&str, &str),
    proto: &mut pb::ModelProto,
    nodes: &HashMap<String, Node>,
    sizes: &Sizes,
) -> Result<Made> {
    let error = |what: String| {
        let what = format!("{name}: {what}; restore the file or export the model again");
        Error::new(ErrorKind::Malformed, what)
    };
    let bad = |what: String| Err(error(what));
    strip(proto);
    let Some(graph) = &mut proto.graph else { return bad("no graph".into()) };
    if graph.node.len() > MAX_NODES
        || graph.initializer.len() > MAX_CONSTANTS
        || graph.input.len().max(graph.output.len()) > MAX_PORTS
    {
        return bad("more nodes, constants or outputs than a graph may have".into());
    }
    let standard = graph.node.iter().filter(|n| n.domain != domain).count();
    if standard > MAX_STANDARD {
        let what = format!("{standard} standard operators, {MAX_STANDARD} are the most");
        return bad(what);
    }
    // tract asks for a type; what the file says of the shape is not needed.
    for (i, input) in graph.input.iter_mut().enumerate() {
        let elem_type = if i == 0 { DataType::Int64 } else { DataType::Float } as i32;
        let tensor = pb::type_proto::Tensor { elem_type, shape: None };
        let value = Some(pb::type_proto::Value::TensorType(tensor));
        input.r#type = Some(pb::TypeProto { denotation: String::new(), value });
    }

    let mut values: HashMap<&str, Value> = HashMap::new();
    let inputs = [
        Value { dims: vec![Dim::Rows(1)], floats: false },
        Value { dims: vec![Dim::Rows(1), Dim::Fixed(sizes.features as u64)], floats: true },
    ];
    for (input, value) in graph.input.iter().zip(inputs) {
        if input.name.is_empty() || values.insert(&input.name, value).is_some() {
            return bad(format!("the input {:?} is there twice or without a name", input.name));
        }
    }
    let mut constants = 0u64;
    for t in &graph.initializer {
        let value = constant(t).map_err(|what| error(format!("constant {:?}: {what}", t.name)))?;
        constants += t.encoded_bytes();
        if values.insert(&t.name, value).is_some() {
            return bad(format!("{:?} is made twice", t.name));
        }
    }
    let copied = constants;

    let order = match order(&graph.node, &values) {
        Ok(order) => order,
        Err(what) => return bad(what),
    };
    let budget = |of: u64| GROWTH.saturating_mul(of).saturating_add(ALLOWANCE);
    let budget_of_pass = budget((sizes.graph + sizes.data) as u64);
    let budget_of_constants = budget(sizes.graph as u64 + copied);
    let mut pass = 0u64;
    for i in order {
        let node = &graph.node[i];
        let label = if node.name.is_empty() { &node.op_type } else { &node.name };
        let given: Vec<&Value> =
            node.input.iter().filter(|i| !i.is_empty()).filter_map(|i| values.get(&**i)).collect();
        let made = match nodes.get(&node.name).filter(|_| node.domain == domain) {
            Some(own) => of_own(own, &given),
            None => match of_standard(node, &given) {
                Some(made) => made,
                None => {
                    let what = format!(
                        "{name}: {} {:?} is not an operator that is known here; between those of \
                         {domain} and MatMulNBits only {STANDARD} may stand",
                        node.op_type, node.name
                    );
                    return Err(Error::new(ErrorKind::Unsupported, what));
                }
            },
        };
        let value = match made {
            Ok(value) => value,
            Err(what) => return bad(format!("node {label:?}: {what}")),
        };
        let bytes = value.elements().and_then(|n| n.checked_mul(4));
        let many = value.dims.iter().any(|d| matches!(d, Dim::Rows(k) if *k > MAX_ROWS));
        let (sum, most) = match value.is_constant() {
            true => (&mut constants, budget_of_constants),
            false => (&mut pass, budget_of_pass),
        };
        *sum = bytes.and_then(|b| sum.checked_add(b)).unwrap_or(u64::MAX);
        if many || *sum > most {
            let what = format!("node {label:?}: a result larger than the file accounts for");
            return bad(what);
        }
        values.insert(&node.output[0], value);
    }
    let mut rows = Vec::new();
    for output in &graph.output {
        match values.get(&*output.name).and_then(Value::matrix) {
            Some((k, columns)) if columns > 0 => rows.push(k as usize),
            _ => {
                return bad(format!(
                    "output {:?} is not made, or no row for each token",
                    output.name
                ));
            }
        }
    }
    let first = graph.output.first().map(|o| &*o.name);
    let inner = values.iter().filter(|(name, _)| Some(&***name) != first);
    let columns = inner.filter_map(|(_, v)| v.matrix()).map(|(_, c)| c as usize);
    Ok(Made { rows, widest: columns.max().unwrap_or(0) })
}

/// Drops what tract would only keep: texts, training, annotations.
fn strip(proto: &mut pb::ModelProto) {
    proto.metadata_props.clear();
    proto.training_info.clear();
    proto.functions.clear();
    for text in [
        &mut proto.doc_string,
        &mut proto.producer_name,
        &mut proto.producer_version,
        &mut proto.domain,
    ] {
        text.clear();
    }
    if let Some(graph) = &mut proto.graph {
        graph.sparse_initializer.clear();
        graph.quantization_annotation.clear();
        graph.value_info.clear();
        graph.node.iter_mut().for_each(|n| n.doc_string.clear());
    }
}

/// Bytes that a constant holds.
trait Encoded {
    fn encoded_bytes(&self) -> u64;
}

impl Encoded for pb::TensorProto {
    fn encoded_bytes(&self) -> u64 {
        let wide = self.int64_data.len() + self.double_data.len() + self.uint64_data.len();
        let narrow = self.float_data.len() + self.int32_data.len();
        (self.raw_data.len() + 4 * narrow + 8 * wide) as u64
    }
}

/// The shape of a constant whose bytes are all there.
fn constant(t: &pb::TensorProto) -> std::result::Result<Value, String> {
    let (width, typed) = match DataType::try_from(t.data_type) {
        Ok(DataType::Float) => (4, t.float_data.len()),
        Ok(DataType::Float16) => (2, t.int32_data.len()),
        Ok(DataType::Int64) => (8, t.int64_data.len()),
        Ok(DataType::Int32) => (4, t.int32_data.len()),
        Ok(DataType::Uint8 | DataType::Int8) => (1, t.int32_data.len()),
        _ => return Err("an element type that is not known here".into()),
    };
    if t.dims.len() > MAX_RANK {
        return Err(format!("more than {MAX_RANK} dimensions"));
    }
    let mut elements = 1u64;
    let mut dims = Vec::new();
    for &d in &t.dims {
        let d = u64::try_from(d).map_err(|_| "a negative dimension")?;
        elements = elements.checked_mul(d).ok_or("too large")?;
        dims.push(Dim::Fixed(d));
    }
    let there = match t.raw_data.len() {
        0 => typed as u64,
        bytes => bytes as u64 / width,
    };
    let odd = t.raw_data.len() as u64 % width != 0 || t.segment.is_some();
    let other = (t.float_data.len() > 0) as usize
        + (t.int32_data.len() > 0) as usize
        + (t.int64_data.len() > 0) as usize
        + (t.raw_data.len() > 0) as usize;
    let elsewhere = !(t.string_data.is_empty() && t.double_data.is_empty())
        || !t.uint64_data.is_empty()
        || !t.external_data.is_empty()
        || t.data_location.unwrap_or(0) != 0;
    if elements == 0 || there != elements || odd || other > 1 || elsewhere {
        return Err("its shape and its bytes disagree".into());
    }
    Ok(Value { dims, floats: DataType::try_from(t.data_type) == Ok(DataType::Float) })
}

/// The places of the nodes so that each comes behind what it reads. A value that nobody makes, is
/// made twice, or is made of itself, is an error.
fn order(
    nodes: &[pb::NodeProto],
    given: &HashMap<&str, Value>,
) -> std::result::Result<Vec<usize>, String> {
    let mut maker: HashMap<&str, usize> = HashMap::new();
    let mut names = HashSet::new();
    for (i, node) in nodes.iter().enumerate() {
        let [output] = &node.output[..] else {
            return Err(format!("node {:?} has not one output", node.name));
        };
        if output.is_empty() || given.contains_key(&**output) || maker.insert(output, i).is_some() {
            return Err(format!("{output:?} is made twice or has no name"));
        }
        let label = if node.name.is_empty() { output } else { &node.name };
        if !names.insert(label) {
            return Err(format!("the node name {label:?} is used twice"));
        }
        if node.input.len() > MAX_INPUTS {
            return Err(format!("node {label:?} has more than {MAX_INPUTS} inputs"));
        }
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut waits: Vec<usize> = vec![0; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        for input in node.input.iter().filter(|n| !n.is_empty()) {
            match maker.get(&**input) {
                Some(&m) => {
                    readers[m].push(i);
                    waits[i] += 1;
                }
                None if given.contains_key(&**input) => {}
                None => return Err(format!("unknown values {input:?}")),
            }
        }
    }
    let mut free: VecDeque<usize> = (0..nodes.len()).filter(|&i| waits[i] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(i) = free.pop_front() {
        order.push(i);
        for &r in &readers[i] {
            waits[r] -= 1;
            if waits[r] == 0 {
                free.push_back(r);
            }
        }
    }
    if order.len() < nodes.len() {
        return Err("some nodes read what they make, in a circle".into());
    }
    Ok(order)
}

type Found = std::result::Result<Value, String>;

/// What one of our operators makes.
fn of_own(own: &Node, given: &[&Value]) -> Found {
    let residual = own.operator.takes_residual() && given.len() == 2;
    if given.len() != 1 && !residual {
        return Err(format!("{} inputs", given.len()));
    }
    let (rows, columns) = match own.operator.reads_tokens() {
        true if given[0].dims == [Dim::Rows(1)] => (1, 1),
        true => return Err("what it reads are not the tokens".into()),
        false => given[0].matrix().ok_or("what it reads is no row for each token")?,
    };
    let made = usize::try_from(columns).ok().filter(|&c| c > 0);
    let made = made.and_then(|c| own.operator.columns(c)).filter(|&c| c > 0);
    let made = made.ok_or_else(|| format!("{} is not for {columns} columns", own.name))?;
    let rows = rows.checked_mul(own.operator.rows() as u64).ok_or("too many rows")?;
    let value = Value { dims: vec![Dim::Rows(rows), Dim::Fixed(made as u64)], floats: true };
    if residual && *given[1] != value {
        return Err("the residual has another shape".into());
    }
    Ok(value)
}

/// The operators that [`of_standard`] knows, for messages.
const STANDARD: &str = "Abs, Add, Clip, Concat (of columns), Constant, Cos, Div, Erf, Exp, Identity, Log, \
    MatMul (by a constant), Max, Mean, Min, Mul, Neg, Pow, Reciprocal, Relu, Sigmoid, Sin, Softplus, \
    Sqrt, Sub, Sum, Tanh";

/// What an operator of the standard set makes; `None` for one that is not known here.
fn of_standard(node: &pb::NodeProto, given: &[&Value]) -> Option<Found> {
    if !matches!(&*node.domain, "" | "ai.onnx") {
        return None;
    }
    for a in &node.attribute {
        let plain = a.g.is_none()
            && a.graphs.is_empty()
            && a.tensors.is_empty()
            && a.sparse_tensor.is_none()
            && a.sparse_tensors.is_empty()
            && a.type_protos.is_empty()
            && (a.t.is_none() || node.op_type == "Constant");
        if !plain {
            return Some(Err(format!("the attribute {:?} is not for this operator", a.name)));
        }
    }
    let attribute = |key: &str| node.attribute.iter().find(|a| a.name == key);
    let first = || given.first().map(|v| (*v).clone()).ok_or_else(|| "no input".to_owned());
    let floats = || match given.iter().all(|v| v.floats) {
        true => Ok(()),
        false => Err("an input that has no float32 elements".to_owned()),
    };
    Some(match &*node.op_type {
        "Abs" | "Cos" | "Erf" | "Exp" | "Identity" | "Log" | "Neg" | "Reciprocal" | "Relu"
        | "Sigmoid" | "Sin" | "Softplus" | "Sqrt" | "Tanh" => match given.len() {
            1 => floats().and_then(|()| first()),
            n => Err(format!("{n} inputs")),
        },
        "Clip" => {
            let scalars = given.iter().skip(1).all(|v| v.is_constant() && v.elements() == Some(1));
            match (1..=3).contains(&given.len()) && scalars {
                true => floats().and_then(|()| first()),
                false => Err("bounds that are no constant numbers".into()),
            }
        }
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Mean" | "Pow" | "Sum" => {
            floats().and_then(|()| broadcast(given))
        }
        "MatMul" => floats().and_then(|()| match given {
            [x, w] => match (x.matrix(), &w.dims[..]) {
                (Some((rows, k)), [Dim::Fixed(n), Dim::Fixed(m)]) if *n == k => {
                    let dims = vec![Dim::Rows(rows), Dim::Fixed(*m)];
                    Ok(Value { dims, floats: true })
                }
                _ => Err("it is not for its inputs' columns".into()),
            },
            _ => Err(format!("{} inputs", given.len())),
        }),
        "Concat" => floats().and_then(|()| concat(given, attribute("axis").map(|a| a.i))),
        "Constant" => match (attribute("value").and_then(|a| a.t.as_ref()), given.is_empty()) {
            (Some(t), true) if node.attribute.len() == 1 => constant(t),
            _ => Err("a constant needs its value and nothing else".into()),
        },
        _ => return None,
    })
}

/// Elementwise over inputs that are as large as each other, or 1, along each dimension.
fn broadcast(given: &[&Value]) -> Found {
    let rank = given.iter().map(|v| v.dims.len()).max().ok_or("no input")?;
    let mut dims = vec![Dim::Fixed(1); rank];
    for v in given {
        let skip = rank - v.dims.len();
        for (into, &d) in dims[skip..].iter_mut().zip(&v.dims) {
            *into = match (*into, d) {
                (a, b) if a == b => a,
                (Dim::Fixed(1), b) => b,
                (a, Dim::Fixed(1)) => a,
                _ => return Err("inputs of different shapes".into()),
            };
        }
    }
    Ok(Value { dims, floats: true })
}

/// Columns beside each other.
fn concat(given: &[&Value], axis: Option<i64>) -> Found {
    if !matches!(axis, Some(1 | -1)) {
        return Err("only columns can be put together".into());
    }
    let mut all = None;
    for v in given {
        let (rows, columns) = v.matrix().ok_or("an input is no row for each token")?;
        all = Some(match all {
            None => (rows, columns),
            Some((r, c)) if r == rows => (r, columns.checked_add(c).ok_or("too large")?),
            Some(_) => return Err("inputs of different rows".into()),
        });
    }
    let (rows, columns) = all.ok_or("no input")?;
    Ok(Value { dims: vec![Dim::Rows(rows), Dim::Fixed(columns)], floats: true })
}
