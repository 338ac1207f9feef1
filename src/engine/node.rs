//! A node as the file has it: attributes and weights, checked as they are read.

use super::kv::Frequencies;
use super::shape::{AttentionShape, Embedding};
use super::weight::Floats;
use crate::map::MappedSlice;
use crate::{Error, ErrorKind, Result};
use std::collections::HashMap;
use tract_onnx::pb;
use tract_onnx::tract_hir::internal::TractError;

/// A tensor stored in the model's external data file.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// The initializer's name.
    pub name: String,
    /// Element type as ONNX spells it.
    pub data_type: String,
    /// Shape.
    pub dims: Vec<usize>,
    /// Bytes in the file.
    pub bytes: usize,
}

/// The stored tensors of a graph by name.
pub(crate) type Tensors = HashMap<String, (MappedSlice, TensorInfo)>;

/// What the operators of a graph need of its sessions and give to its model.
#[derive(Default)]
pub(super) struct Needs {
    /// Of each attention layer.
    pub attention: Vec<AttentionShape>,
    /// Different rotations, which layers share.
    pub frequencies: Vec<Frequencies>,
    /// `(k - 1) * C` of each causal convolution.
    pub tails: Vec<usize>,
    /// Floats that each convolution keeps of the rows before.
    pub edges: Vec<usize>,
    /// Channels of each group norm.
    pub norms: Vec<usize>,
    /// Whether rows see later rows of the same pass.
    pub both_ways: bool,
    /// What tokens are looked up in.
    pub embedding: Option<Embedding>,
}

pub(super) fn malformed(name: &str, what: &str, source: Option<TractError>) -> Error {
    let context = format!("{name}: {what}; restore the file or export the model again");
    match source {
        Some(e) => Error::with_source(ErrorKind::Malformed, context, e),
        None => Error::new(ErrorKind::Malformed, context),
    }
}

/// One node, from which an operator is made.
pub(super) struct NodeReader<'a> {
    /// The model's name, for messages.
    pub model: &'a str,
    pub node: &'a pb::NodeProto,
    pub tensors: &'a Tensors,
    pub needs: &'a mut Needs,
}

impl NodeReader<'_> {
    pub fn bad(&self, what: &str) -> Error {
        malformed(self.model, &format!("node {:?}: {what}", self.node.name), None)
    }

    pub fn unsupported(&self, what: &str) -> Error {
        Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.model))
    }

    fn attribute(&self, key: &str) -> Option<&pb::AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == key)
    }

    /// An integer attribute.
    pub fn int(&self, key: &str) -> Result<i64> {
        let found = self.attribute(key).map(|a| a.i);
        found.ok_or_else(|| self.bad(&format!("attribute {key} is missing")))
    }

    /// An integer attribute from 1 to 2^20.
    pub fn size(&self, key: &str) -> Result<usize> {
        usize::try_from(self.int(key)?)
            .ok()
            .filter(|v| (1..=1 << 20).contains(v))
            .ok_or_else(|| self.bad(&format!("attribute {key} is out of range")))
    }

    /// A number attribute above zero.
    pub fn positive(&self, key: &str) -> Result<f32> {
        let f = self.attribute(key).map(|a| a.f);
        f.filter(|f| f.is_finite() && *f > 0.0)
            .ok_or_else(|| self.bad(&format!("attribute {key} must be a positive number")))
    }

    /// A number attribute above zero, or `default` where it is absent.
    pub fn positive_or(&self, key: &str, default: f32) -> Result<f32> {
        if self.attribute(key).is_none() { Ok(default) } else { self.positive(key) }
    }

    /// A text attribute, if it is there.
    pub fn text(&self, key: &str) -> Option<&[u8]> {
        self.attribute(key).map(|a| a.s.as_slice())
    }

    /// Whether input `i` is given.
    pub fn has(&self, i: usize) -> bool {
        self.node.input.get(i).is_some_and(|name| !name.is_empty())
    }

    /// The stored tensor that input `i` names, and its shape.
    pub fn weight(&self, i: usize, data_type: &str) -> Result<(MappedSlice, Vec<usize>)> {
        self.node
            .input
            .get(i)
            .and_then(|n| self.tensors.get(n))
            .filter(|(_, info)| info.data_type == data_type)
            .map(|(slice, info)| (slice.clone(), info.dims.clone()))
            .ok_or_else(|| self.bad(&format!("input {i} must be an external {data_type} weight")))
    }

    /// [`weight`](Self::weight) of float32.
    pub fn floats(&self, i: usize) -> Result<Floats> {
        Floats::new(self.weight(i, "f32")?.0)
    }

    pub fn same(&self, a: usize, b: usize, what: &str) -> Result<()> {
        if a == b { Ok(()) } else { Err(self.bad(&format!("{what}: {a} against {b}"))) }
    }
}
