//! From an ONNX graph and its data file to a [`Model`].

use super::model::{Model, TensorInfo};
use super::nbits;
use super::ops::{Kind, Operator};
use super::program::Program;
use super::weight::{Floats, Halves, Weight, packed_shape};
use crate::kernel::{CODES, FACTORS, SUM_BLOCK};
use crate::map::{Map, MappedSlice};
use crate::{Error, ErrorKind, Result};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::prelude::Framework;
use tract_onnx::tract_hir::internal::*;

/// The domain of our operators in an ONNX file.
pub(crate) const DOMAIN: &str = "ai.voxgrain";

/// Largest external tensor that a standard operator may read: tract keeps a copy of it.
const MAX_COPIED_BYTES: usize = 1 << 20;

/// The optional second input of a draft and the optional second output of any model.
const FEATURES: &str = "features";
const HIDDEN: &str = "hidden";

/// Most nodes of a graph.
const MAX_NODES: usize = 100_000;

impl Model {
    /// Maps `path` and its external data (`<path>.data`) and builds the plan.
    ///
    /// Nothing is copied from the data file and nothing in it is read beyond what checks
    /// need. `max_positions` bounds the key/value caches of its sessions.
    ///
    /// # Errors
    /// `Unreadable` for missing files, `Malformed` for damaged ones, `Unsupported` for
    /// operators or layouts that this build does not know.
    pub fn load(path: impl AsRef<Path>, max_positions: usize) -> Result<Arc<Self>> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let graph_file = Map::open(path)?;
        let mut data_path = path.as_os_str().to_owned();
        data_path.push(".data");
        Self::from_maps(&name, &graph_file, Map::open(data_path)?, max_positions)
    }

    /// [`load`](Self::load) for files that are in memory already: the graph `name`, which is
    /// not needed afterwards, and `<name>.data`, which is kept.
    pub fn from_maps(
        name: &str,
        graph_file: &Map,
        data: Map,
        max_positions: usize,
    ) -> Result<Arc<Self>> {
        let loader = Loader { max_positions, ..Loader::new(name, data) };
        let proto = loader.parse(graph_file)?;
        loader.load(proto)
    }
}

fn malformed(name: &str, what: &str, source: Option<TractError>) -> Error {
    let context = format!("{name}: {what}; restore the file or export the model again");
    match source {
        Some(e) => Error::with_source(ErrorKind::Malformed, context, e),
        None => Error::new(ErrorKind::Malformed, context),
    }
}

thread_local! {
    /// Operators of the graph being parsed, by node name: tract's builders are plain
    /// functions and can carry nothing.
    static OPERATORS: RefCell<HashMap<String, Operator>> = RefCell::new(HashMap::new());
}

fn build(
    _: &tract_onnx::model::ParsingContext,
    node: &pb::NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let op = OPERATORS.with(|t| t.borrow_mut().remove(&node.name));
    Ok((expand(op.with_context(|| format!("no operator for {}", node.name))?), vec![]))
}

pub(crate) struct Loader {
    name: String,
    data: Map,
    data_name: String,
    max_positions: usize,
}

#[derive(Default)]
struct Found {
    operators: HashMap<String, Operator>,
    caches: Vec<(usize, usize)>,
    tails: Vec<usize>,
    embedding: Option<(Halves, usize)>,
    head: Option<Arc<Weight>>,
}

impl Loader {
    /// For the graph `name` with its data in `<name>.data`.
    pub(crate) fn new(name: &str, data: Map) -> Self {
        let data_name = format!("{name}.data");
        Self { name: name.to_owned(), data, data_name, max_positions: 0 }
    }

    pub(crate) fn parse(&self, graph_file: &[u8]) -> Result<pb::ModelProto> {
        tract_onnx::onnx()
            .proto_model_for_read(&mut &graph_file[..])
            .map_err(|e| malformed(&self.name, "not an ONNX model", Some(e)))
    }

    pub(crate) fn bad(&self, what: impl AsRef<str>) -> Error {
        malformed(&self.name, what.as_ref(), None)
    }

    fn load(self, mut proto: pb::ModelProto) -> Result<Arc<Model>> {
        let mut graph = proto.graph.take().ok_or_else(|| self.bad("no graph"))?;
        if graph.node.len() > MAX_NODES {
            return Err(self.bad("too many nodes"));
        }
        let mut weights = HashMap::new();
        let mut tensors = Vec::new();
        for t in &graph.initializer {
            if let Some((slice, info)) = self.external(t)? {
                tensors.push(info.clone());
                weights.insert(t.name.clone(), (slice, info));
            }
        }
        self.inline(&graph, &mut weights)?;
        // What only our operators read never reaches tract, which would copy it.
        let stored: Vec<_> =
            graph.initializer.extract_if(.., |t| weights.contains_key(&t.name)).collect();

        let mut first_output =
            graph.output.first().map(|o| o.name.clone()).ok_or_else(|| self.bad("no output"))?;
        let hidden = graph.output.get(1).map(|o| o.name.clone()).filter(|n| n == HIDDEN);
        let features = self.features(&graph)?;
        let mut found = Found::default();
        let mut names = HashSet::new();
        for (slot, node) in graph.node.iter_mut().enumerate() {
            if node.domain != DOMAIN && !nbits::is(node) {
                continue;
            }
            if node.name.is_empty() || !names.insert(node.name.clone()) {
                return Err(self.bad(format!("node name {:?} is empty or used twice", node.name)));
            }
            let kind = self.kind(node, &weights, &mut found)?;
            // Caches live in the session, weights in the operator: only activations stay.
            node.input
                .retain(|i| !i.is_empty() && !weights.contains_key(i) && !i.starts_with("past_"));
            node.output.truncate(1);
            node.domain = DOMAIN.into();
            node.op_type = format!("{DOMAIN}.{}", kind.op_type());
            let operator = Operator { kind: Arc::new(kind), slot, selects_rows: false };
            found.operators.insert(node.name.clone(), operator);
        }
        // Logits that are sums of factors are made outside of the plan, if at all: sampling
        // needs their softmax, which is cheaper from the factors.
        let last = graph.node.iter().position(|n| n.output.first() == Some(&first_output));
        let factored = last.is_some_and(|i| {
            let op = found.operators.get(&graph.node[i].name);
            op.is_some_and(|op| matches!(*op.kind, Kind::FactorLogits))
        });
        if let Some(i) = last
            && factored
        {
            let node = graph.node.remove(i);
            found.operators.remove(&node.name);
            let input = node.input.first().ok_or_else(|| self.bad("logits of nothing"))?;
            first_output.clone_from(input);
            graph.output[0].name.clone_from(input);
        }
        self.select_rows(&graph, &first_output, hidden.as_deref(), &mut found);
        if found.embedding.is_none() {
            found.head = None;
        }
        self.copy_small(&mut graph, stored, &weights)?;
        graph.input.retain(|i| !i.name.starts_with("past_"));
        graph.output.truncate(1 + hidden.is_some() as usize);
        // Their shapes are found, and the first may be another value than declared.
        graph.output.iter_mut().for_each(|o| o.r#type = None);
        graph.value_info.clear();
        if graph.input.len() != 1 + (features > 0) as usize {
            return Err(self.bad("expected the tokens as input, and features at most"));
        }
        let slots = graph.node.len() + factored as usize;
        proto.graph = Some(graph);

        let mut onnx = tract_onnx::onnx();
        for op in [
            "FactorEmbed",
            "Embed",
            "RmsNorm",
            "QMatMul",
            "Attention",
            "SwiGlu",
            "FactorLogits",
            "FsqEmbed",
            "CausalConv",
            "LayerNorm",
            "Gelu",
            "Upsample",
        ] {
            onnx.op_register.0.insert(format!("{DOMAIN}.{op}"), build);
        }
        onnx.ignore_value_info = true;
        OPERATORS.with(|t| *t.borrow_mut() = found.operators);
        let plan = self
            .plan(&onnx, &proto, features)
            .map_err(|e| malformed(&self.name, "broken graph", Some(e)));
        OPERATORS.with(|t| t.borrow_mut().clear());
        let (plan, columns) = plan?;
        let mut outputs = columns[0];
        if factored {
            outputs =
                (outputs.checked_sub(FACTORS)).filter(|&extra| extra <= SUM_BLOCK).ok_or_else(
                    || self.bad(format!("a factorised head has {FACTORS} scores and a few more")),
                )? + CODES;
        }
        let codes = if factored { CODES } else { outputs.saturating_sub(1) };
        // A table that lacks tokens is none to compare them by.
        let embedding = found.embedding.filter(|(table, hidden)| {
            let of = |rows: usize| rows * hidden;
            table.len() >= of(codes) || (codes == CODES && table.len() == of(FACTORS))
        });
        Ok(Arc::new(Model {
            program: Program::of(plan.model()),
            plan,
            caches: found.caches,
            tails: found.tails,
            slots,
            max_positions: self.max_positions,
            tensors,
            embedding,
            head: found.head,
            data: self.data,
            name: self.name,
            outputs,
            codes,
            factored,
            features,
            hidden: columns.get(1).copied().unwrap_or(0),
        }))
    }

    fn plan(
        &self,
        onnx: &tract_onnx::model::Onnx,
        proto: &pb::ModelProto,
        features: usize,
    ) -> TractResult<(Arc<TypedSimplePlan>, Vec<usize>)> {
        let mut parsed = onnx.parse(proto, None)?;
        ensure!(
            parsed.unresolved_inputs.is_empty(),
            "unknown values {:?}",
            parsed.unresolved_inputs
        );
        let rows = parsed.model.symbols.sym("rows");
        let fact = InferenceFact::dt_shape(i64::datum_type(), tvec!(rows.to_dim()));
        parsed.model.set_input_fact(0, fact)?;
        if features > 0 {
            let shape = tvec!(rows.to_dim(), features.to_dim());
            parsed.model.set_input_fact(1, InferenceFact::dt_shape(f32::datum_type(), shape))?;
        }
        for output in parsed.model.outputs.clone() {
            parsed.model.set_outlet_fact(output, InferenceFact::default())?;
        }
        let model = parsed.model.into_typed()?.into_optimized()?;
        let mut columns = Vec::new();
        for output in &model.outputs {
            let fact = model.outlet_fact(*output)?;
            let floats = fact.rank() == 2 && fact.datum_type == f32::datum_type();
            ensure!(floats, "odd output {fact:?}");
            columns.push(fact.shape[1].to_usize()?);
        }
        Ok((SimplePlan::new(model)?, columns))
    }

    /// The width of the graph's second input: that of the matrix that reads it.
    fn features(&self, graph: &pb::GraphProto) -> Result<usize> {
        if !graph.input.iter().any(|i| i.name == FEATURES) {
            return Ok(0);
        }
        let reader = graph.node.iter().find(|n| n.input.first().is_some_and(|i| i == FEATURES));
        reader
            .and_then(|n| n.attribute.iter().find(|a| a.name == "K"))
            .and_then(|a| usize::try_from(a.i).ok())
            .filter(|k| (1..=1 << 20).contains(k))
            .ok_or_else(|| self.bad("no matrix product reads the input `features`"))
    }

    /// The head of a language model costs as much per row as a layer: the operators after
    /// the last one that mixes rows need only see the rows whose logits are read. The last
    /// matrix product is the head.
    fn select_rows(
        &self,
        graph: &pb::GraphProto,
        output: &str,
        hidden: Option<&str>,
        found: &mut Found,
    ) {
        let operators = &mut found.operators;
        let producer: HashMap<&str, &pb::NodeProto> =
            graph.node.iter().flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n))).collect();
        let mut first = None;
        let mut at = output;
        while let Some(node) = producer.get(at) {
            // Whoever reads the hidden states wants those of every row.
            if Some(at) == hidden {
                break;
            }
            let Some(op) = operators.get(&node.name) else { break };
            let row_wise = match &*op.kind {
                Kind::RmsNorm { .. } => true,
                Kind::QMatMul { .. } => node.input.len() == 1,
                _ => false,
            };
            if !row_wise {
                break;
            }
            if let Kind::QMatMul { weight, .. } = &*op.kind {
                found.head.get_or_insert_with(|| weight.clone());
            }
            first = Some(node.name.clone());
            at = &node.input[0];
        }
        if let Some(op) = first.and_then(|n| operators.get_mut(&n)) {
            op.selects_rows = true;
        }
    }

    /// Adds what stock matrix products read from the graph file itself, where writers leave
    /// small tensors.
    pub(crate) fn inline(
        &self,
        graph: &pb::GraphProto,
        weights: &mut HashMap<String, (MappedSlice, TensorInfo)>,
    ) -> Result<()> {
        let read: HashSet<&str> = graph
            .node
            .iter()
            .filter(|n| nbits::is(n))
            .flat_map(|n| n.input.iter().skip(1).map(String::as_str))
            .collect();
        for t in &graph.initializer {
            if !read.contains(t.name.as_str()) || !t.external_data.is_empty() {
                continue;
            }
            let (dims, data_type, bytes) = self.extent(t)?;
            let floats = t.float_data.iter().flat_map(|f| f.to_le_bytes());
            let raw = match t.raw_data.is_empty() {
                true => floats.collect(),
                false => t.raw_data.clone(),
            };
            if raw.len() != bytes {
                return Err(self.bad(format!("tensor {:?}: length and shape disagree", t.name)));
            }
            let info =
                TensorInfo { name: t.name.clone(), data_type: data_type.into(), dims, bytes };
            weights.insert(t.name.clone(), (Map::from_vec(raw).whole(), info));
        }
        Ok(())
    }

    /// Gives standard operators the tensors that they read, as long as they are small.
    fn copy_small(
        &self,
        graph: &mut pb::GraphProto,
        stored: Vec<pb::TensorProto>,
        weights: &HashMap<String, (MappedSlice, TensorInfo)>,
    ) -> Result<()> {
        let mut wanted = HashSet::new();
        for node in &graph.node {
            for name in &node.input {
                let Some((_, info)) = weights.get(name) else { continue };
                if info.bytes > MAX_COPIED_BYTES {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "{}: {} {:?} reads {} bytes of external weights; only {DOMAIN} \
                             operators and MatMulNBits read more than {MAX_COPIED_BYTES}, \
                             which they do in place: export the model with them",
                            self.name, node.op_type, node.name, info.bytes
                        ),
                    ));
                }
                wanted.insert(name.clone());
            }
        }
        for mut t in stored {
            if let Some((slice, _)) = weights.get(&t.name).filter(|_| wanted.contains(&t.name)) {
                t.external_data.clear();
                t.data_location = None;
                t.float_data.clear();
                t.raw_data = slice.to_vec();
                graph.initializer.push(t);
            }
        }
        Ok(())
    }

    /// Shape, element type and bytes of a tensor.
    fn extent(&self, t: &pb::TensorProto) -> Result<(Vec<usize>, &'static str, usize)> {
        let bad = |what: &str| self.bad(format!("tensor {:?}: {what}", t.name));
        let (element, data_type) = match DataType::try_from(t.data_type) {
            Ok(DataType::Float) => (4, "f32"),
            Ok(DataType::Float16) => (2, "f16"),
            Ok(DataType::Uint8) => (1, "u8"),
            Ok(DataType::Int8) => (1, "i8"),
            Ok(DataType::Int32) => (4, "i32"),
            Ok(DataType::Int64) => (8, "i64"),
            _ => return Err(bad("element type is not one of f32, f16, u8, i8, i32, i64")),
        };
        let dims: Option<Vec<usize>> = t.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let dims = dims.ok_or_else(|| bad("negative dimension"))?;
        let bytes = dims
            .iter()
            .try_fold(element, |n: usize, &d| n.checked_mul(d))
            .ok_or_else(|| bad("too large"))?;
        Ok((dims, data_type, bytes))
    }

    /// The slice of the data file that an initializer names, checked.
    pub(crate) fn external(
        &self,
        t: &pb::TensorProto,
    ) -> Result<Option<(MappedSlice, TensorInfo)>> {
        if t.external_data.is_empty() {
            return Ok(None);
        }
        let field =
            |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let bad = |what: &str| self.bad(format!("tensor {:?}: {what}", t.name));
        if field("location") != Some(self.data_name.as_str()) {
            return Err(bad(&format!("external data must be in {}", self.data_name)));
        }
        let number = |key: &str, default: Option<usize>| match field(key) {
            Some(v) => v.parse::<usize>().ok(),
            None => default,
        };
        let (dims, data_type, bytes) = self.extent(t)?;
        let offset = number("offset", Some(0)).ok_or_else(|| bad("bad offset"))?;
        let length = number("length", Some(bytes)).ok_or_else(|| bad("bad length"))?;
        if length != bytes {
            return Err(bad("length and shape disagree"));
        }
        let end = offset.checked_add(length).ok_or_else(|| bad("offset out of range"))?;
        let slice = self.data.slice(offset..end)?;
        let info = TensorInfo { name: t.name.clone(), data_type: data_type.into(), dims, bytes };
        Ok(Some((slice, info)))
    }

    fn kind(
        &self,
        node: &pb::NodeProto,
        weights: &HashMap<String, (MappedSlice, TensorInfo)>,
        found: &mut Found,
    ) -> Result<Kind> {
        let bad = |what: &str| self.bad(format!("node {:?}: {what}", node.name));
        let int = |key: &str| node.attribute.iter().find(|a| a.name == key).map(|a| a.i);
        let need = |key: &str| int(key).ok_or_else(|| bad(&format!("attribute {key} is missing")));
        let size = |key: &str| {
            need(key)?
                .try_into()
                .ok()
                .filter(|v: &usize| (1..=1 << 20).contains(v))
                .ok_or_else(|| bad(&format!("attribute {key} is out of range")))
        };
        let float = |key: &str| {
            let f = node.attribute.iter().find(|a| a.name == key).map(|a| a.f);
            f.filter(|f| f.is_finite() && *f > 0.0)
                .ok_or_else(|| bad(&format!("attribute {key} must be a positive number")))
        };
        let weight = |i: usize, data_type: &str| {
            node.input
                .get(i)
                .and_then(|n| weights.get(n))
                .filter(|(_, info)| info.data_type == data_type)
                .map(|(slice, info)| (slice.clone(), info.dims.clone()))
                .ok_or_else(|| bad(&format!("input {i} must be an external {data_type} weight")))
        };
        let floats = |i: usize| Floats::new(weight(i, "f32")?.0);
        let same = |a: usize, b: usize, what: &str| {
            if a == b { Ok(()) } else { Err(bad(&format!("{what}: {a} against {b}"))) }
        };
        let fsq = |digits: i64, levels: i64| {
            if (digits, levels) == (8, 4) {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: factorised tables of 8 digits of 4 levels only", self.name),
            ))
        };
        if nbits::is(node) {
            let stock = nbits::read(node, |name| {
                weights.get(name).map(|(s, i)| (s, i.data_type.as_str(), i.dims.as_slice()))
            })
            .map_err(|e| Error::new(e.kind(), format!("{}: {e}", self.name)))?;
            let bias = stock.bias.clone().map(Floats::new).transpose()?;
            return Ok(Kind::QMatMul { weight: Arc::new(Weight::stock(stock)), bias });
        }
        match node.op_type.as_str() {
            "FactorEmbed" => {
                fsq(need("digits")?, need("levels")?)?;
                let (factors, dims) = weight(1, "f16")?;
                let (extra, extra_dims) = weight(2, "f16")?;
                let &[FACTORS, hidden] = dims.as_slice() else {
                    return Err(bad("factors must be [480, hidden]"));
                };
                same(extra_dims.get(1).copied().unwrap_or(0), hidden, "width of extra rows")?;
                let (factors, extra) = (Halves::new(factors)?, Halves::new(extra)?);
                found.embedding = Some((factors.clone(), hidden));
                Ok(Kind::FactorEmbed { hidden, factors, extra })
            }
            "Embed" => {
                let (table, dims) = weight(1, "f16")?;
                let &[_, hidden] = dims.as_slice() else {
                    return Err(bad("the table must be [tokens, hidden]"));
                };
                if hidden == 0 {
                    return Err(bad("the table is empty"));
                }
                let table = Halves::new(table)?;
                found.embedding = Some((table.clone(), hidden));
                Ok(Kind::Embed { hidden, table })
            }
            "RmsNorm" => Ok(Kind::RmsNorm { weight: floats(1)?, epsilon: float("epsilon")? }),
            "LayerNorm" => {
                let (weight, bias) = (floats(1)?, floats(2)?);
                same(weight.len(), bias.len(), "weight and bias")?;
                Ok(Kind::LayerNorm { weight, bias, epsilon: float("epsilon")? })
            }
            "QMatMul" => {
                let shape = packed_shape(need("N")?, need("K")?, need("bits")?)?;
                let weight = Arc::new(Weight::new(shape, weight(1, "u8")?.0, weight(2, "f16")?.0)?);
                let bias = match node.input.get(3) {
                    Some(name) if !name.is_empty() => Some(floats(3)?),
                    _ => None,
                };
                if let Some(b) = &bias {
                    same(b.len(), shape.n, "bias and N")?;
                }
                Ok(Kind::QMatMul { weight, bias })
            }
            "Attention" => {
                let (heads, kv_heads, head_dim) =
                    (size("heads")?, size("kv_heads")?, size("head_dim")?);
                if heads % kv_heads != 0 || head_dim % 16 != 0 || heads * head_dim > 1 << 16 {
                    return Err(bad("heads must be a multiple of kv_heads, head_dim of 16"));
                }
                found.caches.push((kv_heads, head_dim));
                Ok(Kind::Attention {
                    layer: found.caches.len() - 1,
                    heads,
                    kv_heads,
                    head_dim,
                    rope_base: float("rope_base")?,
                })
            }
            "SwiGlu" => Ok(Kind::SwiGlu),
            "FactorLogits" => {
                fsq(need("digits")?, need("levels")?)?;
                Ok(Kind::FactorLogits)
            }
            "FsqEmbed" => {
                let (weight, bias) = (floats(1)?, floats(2)?);
                same(weight.len(), bias.len() * 8, "weight and bias")?;
                Ok(Kind::FsqEmbed { channels: bias.len(), weight, bias })
            }
            "CausalConv" => {
                let (_, dims) = weight(1, "f32")?;
                let (weight, bias) = (floats(1)?, floats(2)?);
                let &[taps, channels] = dims.as_slice() else {
                    return Err(bad("weight must be [taps, channels]"));
                };
                same(bias.len(), channels, "bias and channels")?;
                if taps == 0 || taps > 1024 {
                    return Err(bad("taps out of range"));
                }
                found.tails.push((taps - 1) * channels);
                Ok(Kind::CausalConv { tail: found.tails.len() - 1, taps, weight, bias })
            }
            "Gelu" => {
                let approximate = node.attribute.iter().find(|a| a.name == "approximate");
                match approximate.map(|a| a.s.as_slice()) {
                    Some(b"tanh") => Ok(Kind::Gelu { tanh: true }),
                    Some(b"none") | None => Ok(Kind::Gelu { tanh: false }),
                    _ => Err(bad("approximate must be none or tanh")),
                }
            }
            "Upsample" => Ok(Kind::Upsample { factor: size("factor")? }),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: operator {DOMAIN}.{other} is unknown; is voxgrain too old?",
                    self.name
                ),
            )),
        }
    }
}
