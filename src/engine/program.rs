//! A plan of our operators alone, run without tract: no tensors, no allocation.
//!
//! tract has parsed, typed and ordered the graph by then; what is left is to call the
//! operators one after the other. Its own executor, which makes tensors and resolves symbols in
//! every pass, is kept for graphs that have other operators too.

use super::ops::{Input, Node, Shape};
use super::state::State;
use tract_onnx::tract_hir::internal::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Tokens,
    Features,
    Buffer(usize),
}

#[derive(Debug)]
struct Step {
    node: Node,
    input: Source,
    residual: Option<Source>,
    out: usize,
}

/// The operators in their order, and which of a few buffers each reads and writes.
#[derive(Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    buffers: usize,
    outputs: Vec<usize>,
    features: usize,
}

impl Program {
    /// `None` if the model has an operator that is not ours.
    pub fn of(model: &TypedModel) -> Option<Self> {
        let order = model.eval_order().ok()?;
        let mut last_use: HashMap<usize, usize> = HashMap::new();
        for (at, &id) in order.iter().enumerate() {
            for input in &model.node(id).inputs {
                last_use.insert(input.node, at);
            }
        }
        for output in &model.outputs {
            last_use.insert(output.node, usize::MAX);
        }
        let mut sources: HashMap<usize, Source> = HashMap::new();
        let mut features = 0;
        for (i, input) in model.input_outlets().ok()?.iter().enumerate() {
            sources.insert(input.node, [Source::Tokens, Source::Features].get(i).copied()?);
            if i == 1 {
                features = model.outlet_fact(*input).ok()?.shape[1].to_usize().ok()?;
            }
        }
        let (mut steps, mut buffers, mut free) = (Vec::new(), 0, Vec::new());
        for (at, &id) in order.iter().enumerate() {
            if sources.contains_key(&id) {
                continue;
            }
            let node = model.node(id);
            let own = node.op_as::<Node>()?.clone();
            if node.outputs.len() != 1 || node.inputs.is_empty() || node.inputs.len() > 2 {
                return None;
            }
            let of = |i: usize| node.inputs.get(i).map(|o| sources.get(&o.node).copied());
            let (input, residual) = (of(0)??, of(1));
            let residual = match residual {
                Some(r) => Some(r?),
                None => None,
            };
            if own.operator.reads_tokens() != (input == Source::Tokens) {
                return None;
            }
            // The output never shares a buffer with what it is made of.
            let out = free.pop().unwrap_or_else(|| {
                buffers += 1;
                buffers - 1
            });
            for (i, o) in node.inputs.iter().enumerate() {
                let again = node.inputs[..i].iter().any(|p| p.node == o.node);
                if let Some(Source::Buffer(b)) = sources.get(&o.node)
                    && last_use.get(&o.node) == Some(&at)
                    && !again
                {
                    free.push(*b);
                }
            }
            if !last_use.contains_key(&id) {
                free.push(out);
            }
            sources.insert(id, Source::Buffer(out));
            steps.push(Step { node: own, input, residual, out });
        }
        let outputs = model.outputs.iter().map(|o| match sources.get(&o.node) {
            Some(Source::Buffer(b)) => Some(*b),
            _ => None,
        });
        Some(Self { outputs: outputs.collect::<Option<_>>()?, steps, buffers, features })
    }

    /// Bytes of all buffers after passes of at most `rows` rows, `wanted` of them read.
    pub fn bytes(&self, rows: usize, wanted: usize) -> usize {
        let mut shapes = vec![(0, 0); self.buffers];
        let mut most = vec![0; self.buffers];
        for step in &self.steps {
            let from = self.shape(step.input, rows, &shapes);
            let shape = step.node.out_shape(from, wanted).unwrap_or_default();
            shapes[step.out] = shape;
            most[step.out] = most[step.out].max(shape.0 * shape.1);
        }
        4 * most.iter().sum::<usize>() + 8 * rows
    }

    fn shape(&self, source: Source, rows: usize, shapes: &[Shape]) -> Shape {
        match source {
            Source::Tokens => (rows, 1),
            Source::Features => (rows, self.features),
            Source::Buffer(b) => shapes[b],
        }
    }
}

/// One session's buffers.
#[derive(Default)]
pub(super) struct Buffers {
    tokens: Vec<i64>,
    values: Vec<Vec<f32>>,
    shapes: Vec<Shape>,
}

impl Buffers {
    pub fn run(
        &mut self,
        program: &Program,
        state: &mut State,
        tokens: &[u32],
        features: &[f32],
    ) -> TractResult<()> {
        self.tokens.clear();
        self.tokens.extend(tokens.iter().map(|&t| i64::from(t)));
        self.values.resize_with(program.buffers, Vec::new);
        self.shapes.resize(program.buffers, (0, 0));
        for step in &program.steps {
            let from = program.shape(step.input, tokens.len(), &self.shapes);
            let to = step.node.out_shape(from, state.wanted);
            let to =
                to.with_context(|| format!("{} columns came to {}", from.1, step.node.name))?;
            let mut out = std::mem::take(&mut self.values[step.out]);
            out.resize(to.0 * to.1, 0.0);
            let read = |source| match source {
                Source::Tokens => &[],
                Source::Features => features,
                Source::Buffer(b) => &self.values[b][..],
            };
            let (x, residual) = (read(step.input), step.residual.map(read));
            let input = Input { tokens: &self.tokens, x, columns: from.1, residual };
            let result = step.node.compute(state, input, &mut out);
            self.values[step.out] = out;
            self.shapes[step.out] = to;
            result?;
        }
        Ok(())
    }

    /// One of the outputs of the last pass, `[rows][columns]`.
    pub fn output(&self, program: &Program, which: usize) -> &[f32] {
        program.outputs.get(which).and_then(|&b| self.values.get(b)).map_or(&[], |v| v)
    }
}
