//! From an ONNX graph and its data file to a [`Model`].

use super::model::Model;
use super::nbits;
use super::node::{Needs, NodeReader, TensorInfo, Tensors, malformed};
use super::ops::{self, Node};
use super::program::Program;
use super::weight::Weight;
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

/// The optional second input of a draft and the optional second output of any model; behind it
/// `tap_1`, `tap_2` and so on may follow.
const FEATURES: &str = "features";
const HIDDEN: &str = "hidden";
const TAP: &str = "tap_";

/// Most taps of a target.
const MAX_TAPS: usize = 16;

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
        loader.load(proto, graph_file.len())
    }
}

thread_local! {
    /// Our nodes of the graph being parsed, by name: tract's builders are plain functions and
    /// can carry nothing.
    static NODES: RefCell<HashMap<String, Node>> = RefCell::new(HashMap::new());
}

fn build(
    _: &tract_onnx::model::ParsingContext,
    node: &pb::NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let found = NODES.with(|t| t.borrow_mut().remove(&node.name));
    Ok((expand(found.with_context(|| format!("no operator for {}", node.name))?), vec![]))
}

/// Reads the graph and the data file of one model.
pub(crate) struct Loader {
    name: String,
    data: Map,
    data_name: String,
    max_positions: usize,
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

    fn load(self, mut proto: pb::ModelProto, graph_bytes: usize) -> Result<Arc<Model>> {
        let mut graph = proto.graph.take().ok_or_else(|| self.bad("no graph"))?;
        if graph.node.len() > MAX_NODES {
            return Err(self.bad("too many nodes"));
        }
        let mut weights = Tensors::new();
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
        let states = self.states(&mut graph)?;
        let features = self.features(&graph)?;
        let (mut nodes, mut needs) = (HashMap::new(), Needs::default());
        let mut names = HashSet::new();
        for (slot, node) in graph.node.iter_mut().enumerate() {
            if node.domain != DOMAIN && !nbits::is(node) {
                continue;
            }
            if node.name.is_empty() || !names.insert(node.name.clone()) {
                return Err(self.bad(format!("node name {:?} is empty or used twice", node.name)));
            }
            let mut reader =
                NodeReader { model: &self.name, node, tensors: &weights, needs: &mut needs };
            let (name, operator) =
                ops::read(&mut reader)?.ok_or_else(|| self.unknown(&node.op_type))?;
            // Caches live in the session, weights in the operator: only activations stay.
            node.input
                .retain(|i| !i.is_empty() && !weights.contains_key(i) && !i.starts_with("past_"));
            node.output.truncate(1);
            node.domain = DOMAIN.into();
            node.op_type = format!("{DOMAIN}.{name}");
            let own = Node { name, operator, slot, selects_rows: false };
            nodes.insert(node.name.clone(), own);
        }
        // Logits that are sums of factors are made outside of the plan, if at all: sampling
        // needs their softmax, which is cheaper from the factors.
        let last = graph.node.iter().position(|n| n.output.first() == Some(&first_output));
        let factored = last.is_some_and(|i| {
            nodes.get(&graph.node[i].name).is_some_and(|n| n.operator.expands_factors())
        });
        if let Some(i) = last
            && factored
        {
            let node = graph.node.remove(i);
            nodes.remove(&node.name);
            let input = node.input.first().ok_or_else(|| self.bad("logits of nothing"))?;
            first_output.clone_from(input);
            graph.output[0].name.clone_from(input);
        }
        let head = select_rows(&graph, &first_output, &states, &mut nodes);
        let head = head.filter(|_| needs.embedding.is_some());
        self.copy_small(&mut graph, stored, &weights)?;
        graph.input.retain(|i| !i.name.starts_with("past_"));
        graph.output.truncate(1 + states.len());
        // Their shapes are found, and the first may be another value than declared.
        graph.output.iter_mut().for_each(|o| o.r#type = None);
        graph.value_info.clear();
        if graph.input.len() != 1 + (features > 0) as usize {
            return Err(self.bad("expected the tokens as input, and features at most"));
        }
        let slots = graph.node.len() + factored as usize;
        proto.graph = Some(graph);

        let mut onnx = tract_onnx::onnx();
        for (name, _) in ops::OPERATORS {
            onnx.op_register.0.insert(format!("{DOMAIN}.{name}"), build);
        }
        onnx.ignore_value_info = true;
        NODES.with(|t| *t.borrow_mut() = nodes);
        let plan = self
            .plan(&onnx, &proto, features)
            .map_err(|e| malformed(&self.name, "broken graph", Some(e)));
        NODES.with(|t| t.borrow_mut().clear());
        let (plan, columns) = plan?;
        let mut outputs = columns[0];
        if factored {
            outputs =
                (outputs.checked_sub(FACTORS)).filter(|&extra| extra <= SUM_BLOCK).ok_or_else(
                    || self.bad(format!("a factorised head has {FACTORS} scores and a few more")),
                )? + CODES;
        }
        let codes = if factored { CODES } else { outputs.saturating_sub(1) };
        let hidden = columns.get(1).copied().unwrap_or(0);
        for (name, width) in states.iter().zip(&columns[1..]) {
            if *width != hidden {
                return Err(self.bad(format!(
                    "output {name:?} has {width} columns, {HIDDEN:?} has {hidden}: a tap is a row \
                     of the residual stream"
                )));
            }
        }
        // A table that lacks tokens is none to compare them by.
        let embedding = needs.embedding.filter(|(table, hidden)| {
            let of = |rows: usize| rows * hidden;
            table.len() >= of(codes) || (codes == CODES && table.len() == of(FACTORS))
        });
        Ok(Arc::new(Model {
            program: Program::of(plan.model()),
            plan,
            caches: needs.caches,
            tails: needs.tails,
            slots,
            max_positions: self.max_positions,
            tensors,
            embedding,
            head,
            data: self.data,
            graph_bytes,
            name: self.name,
            outputs,
            codes,
            factored,
            features,
            hidden,
            taps: states.len().saturating_sub(1),
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

    /// The names of the outputs behind the first that passes keep: `hidden`, then the taps, which
    /// are brought there in order.
    fn states(&self, graph: &mut pb::GraphProto) -> Result<Vec<String>> {
        if graph.output.get(1).is_none_or(|o| o.name != HIDDEN) {
            return Ok(Vec::new());
        }
        let mut states = vec![HIDDEN.to_owned()];
        loop {
            let name = format!("{TAP}{}", states.len());
            let Some(at) = graph.output.iter().position(|o| o.name == name) else { break };
            graph.output.swap(1 + states.len(), at);
            states.push(name);
        }
        let taps = graph.output.iter().filter(|o| o.name.starts_with(TAP)).count();
        if taps != states.len() - 1 || taps > MAX_TAPS {
            return Err(self.bad(format!(
                "{taps} outputs are called {TAP}..: they are numbered from 1 without gaps, and are \
                 at most {MAX_TAPS}"
            )));
        }
        Ok(states)
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

    /// Adds what stock matrix products read from the graph file itself, where writers leave
    /// small tensors.
    pub(crate) fn inline(&self, graph: &pb::GraphProto, weights: &mut Tensors) -> Result<()> {
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
        weights: &Tensors,
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

    fn unknown(&self, operator: &str) -> Error {
        let what =
            format!("{}: operator {DOMAIN}.{operator} is unknown; is voxgrain too old?", self.name);
        Error::new(ErrorKind::Unsupported, what)
    }
}

/// The head of a language model costs as much per row as a layer: the operators after the last
/// one that mixes rows need only see the rows whose logits are read. Returns the last matrix
/// product, which is the head.
fn select_rows(
    graph: &pb::GraphProto,
    output: &str,
    states: &[String],
    nodes: &mut HashMap<String, Node>,
) -> Option<Arc<Weight>> {
    let producer: HashMap<&str, &pb::NodeProto> =
        graph.node.iter().flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n))).collect();
    let (mut first, mut head) = (None, None);
    let mut at = output;
    while let Some(node) = producer.get(at) {
        // Whoever reads the hidden states wants those of every row.
        if states.iter().any(|s| s == at) {
            break;
        }
        let Some(own) = nodes.get(&node.name) else { break };
        // A residual has all rows.
        if !own.operator.is_row_wise() || node.input.len() != 1 {
            break;
        }
        if let Some(matrix) = own.operator.matrix() {
            head.get_or_insert_with(|| matrix.clone());
        }
        first = Some(node.name.clone());
        at = &node.input[0];
    }
    if let Some(own) = first.and_then(|n| nodes.get_mut(&n)) {
        own.selects_rows = true;
    }
    head
}
