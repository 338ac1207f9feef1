//! A language model's graph from its tensors: names, the order of rows, and which bits.

use super::config::{Body, Config};
use super::family::Family;
use super::graph::{Attribute, Dim, Graph, element};
use super::quantize::{Bits, Picked};
use super::source::{Dtype, Tensor, TensorSource, unsupported};
use crate::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// How the tensors of a file are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// transformers', with this in front of all but the head.
    HuggingFace(&'static str),
    /// GGUF's.
    Gguf,
}

/// What is asked for, and what came of it.
pub struct LanguageModel<'a> {
    config: &'a Config,
    source: &'a dyn TensorSource,
    naming: Naming,
    /// Bits of every matrix, or as they are stored (eight for floats).
    bits: Option<Bits>,
    used: BTreeSet<String>,
    notes: BTreeSet<String>,
    /// Fewest and most bits of a matrix.
    range: (u32, u32),
}

impl<'a> LanguageModel<'a> {
    /// A model of this shape in `source`.
    ///
    /// # Errors
    /// `Malformed` if it has no embedding by any name.
    pub fn new(
        config: &'a Config,
        source: &'a dyn TensorSource,
        gguf: bool,
        bits: Option<Bits>,
    ) -> Result<Self> {
        let naming = match gguf {
            true => Naming::Gguf,
            false if source.get("model.embed_tokens.weight").is_some() => {
                Naming::HuggingFace("model.")
            }
            false => Naming::HuggingFace(""),
        };
        let used = BTreeSet::new();
        Ok(Self { config, source, naming, bits, used, notes: BTreeSet::new(), range: (8, 4) })
    }

    /// The file's name for one of ours.
    fn name(&self, layer: Option<usize>, part: &str) -> String {
        let (hf, gguf) = match part {
            "embedding" => ("embed_tokens", "token_embd"),
            "head" => ("lm_head", "output"),
            "final_norm" => ("norm", "output_norm"),
            "attn_norm" => ("input_layernorm", "attn_norm"),
            "mlp_norm" => ("post_attention_layernorm", "ffn_norm"),
            "q" => ("self_attn.q_proj", "attn_q"),
            "k" => ("self_attn.k_proj", "attn_k"),
            "v" => ("self_attn.v_proj", "attn_v"),
            "o" => ("self_attn.o_proj", "attn_output"),
            "q_norm" => ("self_attn.q_norm", "attn_q_norm"),
            "k_norm" => ("self_attn.k_norm", "attn_k_norm"),
            "gate" => ("mlp.gate_proj", "ffn_gate"),
            "up" => ("mlp.up_proj", "ffn_up"),
            "down" => ("mlp.down_proj", "ffn_down"),
            other => (other, other),
        };
        match (self.naming, layer) {
            (Naming::Gguf, Some(l)) => format!("blk.{l}.{gguf}"),
            (Naming::Gguf, None) => gguf.to_owned(),
            (Naming::HuggingFace(_), None) if part == "head" => hf.to_owned(),
            (Naming::HuggingFace(p), Some(l)) => format!("{p}layers.{l}.{hf}"),
            (Naming::HuggingFace(p), None) => format!("{p}{hf}"),
        }
    }

    fn weight(&mut self, layer: Option<usize>, part: &str, shape: &[usize]) -> Result<&'a Tensor> {
        let name = format!("{}.weight", self.name(layer, part));
        let tensor = self.source.expect(&name, shape)?;
        self.used.insert(name);
        Ok(tensor)
    }

    fn bias(&mut self, layer: usize, part: &str, rows: usize) -> Result<Option<Vec<f32>>> {
        let name = format!("{}.bias", self.name(Some(layer), part));
        if self.source.get(&name).is_none() {
            return Ok(None);
        }
        let tensor = self.source.expect(&name, &[rows])?;
        self.used.insert(name);
        Ok(Some(tensor.to_vec()))
    }

    /// Biases of matrices that became one.
    fn biases(&mut self, layer: usize, parts: &[(&str, usize)]) -> Result<Option<Vec<f32>>> {
        let mut any = false;
        let mut all = Vec::new();
        for (part, rows) in parts {
            match self.bias(layer, part, *rows)? {
                Some(b) => {
                    any = true;
                    all.extend(b);
                }
                None => all.resize(all.len() + rows, 0.0),
            }
        }
        Ok(any.then_some(all))
    }

    /// Row `r` of a projection of `heads` heads, where the file has it: llama.cpp keeps the two
    /// halves of a head's queries and keys of `llama` interleaved.
    fn rotated(&self, heads: usize) -> impl Iterator<Item = usize> + use<> {
        let (size, half) = (self.config.head_dim, self.config.head_dim / 2);
        let swapped = self.naming == Naming::Gguf && self.config.body == Body::Llama;
        (0..heads * size).map(move |r| match swapped {
            true => r / size * size + 2 * (r % half) + r % size / half,
            false => r,
        })
    }

    /// Bits of a matrix of these tensors, which a note tells where something is lost.
    fn bits_of(&mut self, tensors: &[&Tensor]) -> Bits {
        let stored = tensors.iter().map(|t| match t.dtype().quantised_bits() {
            Some(bits) if bits <= 4 => Bits::Four,
            _ => Bits::Eight,
        });
        let most =
            if stored.into_iter().any(|b| b == Bits::Eight) { Bits::Eight } else { Bits::Four };
        let bits = self.bits.unwrap_or(most);
        for t in tensors {
            let (dtype, to) = (t.dtype(), if bits == Bits::Four { 4 } else { 8 });
            let lossless = matches!((dtype, bits), (Dtype::Q4_0, _) | (Dtype::Q8_0, Bits::Eight));
            if dtype.quantised_bits().is_some() && !lossless {
                self.notes.insert(format!("{dtype} is requantised to {to} bits, block 32"));
            }
        }
        let count = if bits == Bits::Four { 4 } else { 8 };
        self.range = (self.range.0.min(count), self.range.1.max(count));
        bits
    }

    /// Writes all nodes, inputs and outputs; the bytes of the embedding.
    ///
    /// # Errors
    /// `Malformed` or `Mismatch` if tensors are missing or of another shape, `Unsupported` if
    /// there are weights that a model of this kind does not have.
    pub fn write(&mut self, g: &mut Graph, family: &Family) -> Result<u64> {
        let c = self.config;
        let (hidden, size) = (c.hidden, c.head_dim);
        let (q_rows, kv_rows) = (c.heads * size, c.kv_heads * size);
        let ffn = c.ffn.next_multiple_of(32);

        let named = Dim::Named("S");
        g.input("tokens", element::I64, &[named]);
        let logits = family.speech as usize + 1;
        g.output("logits", &[named, Dim::Fixed(logits)]);
        g.output("hidden", &[named, Dim::Fixed(hidden)]);

        let embedding = self.weight(None, "embedding", &[c.vocabulary, hidden])?;
        let head_name = format!("{}.weight", self.name(None, "head"));
        let head = match self.source.get(&head_name) {
            Some(_) if c.tied => {
                // transformers does not read it either.
                self.used.insert(head_name);
                embedding
            }
            Some(_) => self.weight(None, "head", &[c.vocabulary, hidden])?,
            None if c.tied => embedding,
            None => {
                return Err(Error::new(
                    ErrorKind::Malformed,
                    format!(
                        "{} has no head {head_name:?}, and its configuration does not tie it to the embedding",
                        self.source.origin()
                    ),
                ));
            }
        };
        let order = family.order(c.vocabulary);
        let mut h = self.embed(g, embedding, &order)?;
        let table_bytes = g.bytes();

        let frequencies = match c.frequencies() {
            Some(f) => g.floats("frequencies", &[f.len()], &f)?,
            None => String::new(),
        };
        for l in 0..c.layers {
            let at = format!("layers.{l}");
            let x = self.norm(g, &format!("{at}.attn_norm"), Some(l), "attn_norm", &h, &[])?;
            let q = self.weight(Some(l), "q", &[q_rows, hidden])?;
            let k = self.weight(Some(l), "k", &[kv_rows, hidden])?;
            let v = self.weight(Some(l), "v", &[kv_rows, hidden])?;
            let mut rows = Picked::new(hidden);
            rows.push(q, self.rotated(c.heads))?;
            rows.push(k, self.rotated(c.kv_heads))?;
            rows.push(v, 0..kv_rows)?;
            let bits = self.bits_of(&[q, k, v]);
            let bias = self.qkv_bias(l, q_rows, kv_rows)?;
            let name = format!("{at}.qkv");
            let qkv = g.matmul(&name, &x, &rows, bits, bias.as_deref(), None, None)?;

            let (past_key, past_value) = (format!("past_key_{l}"), format!("past_value_{l}"));
            let (key, value) = (format!("present_key_{l}"), format!("present_value_{l}"));
            let cache = [Dim::Fixed(c.kv_heads), Dim::Named("P"), Dim::Fixed(size)];
            let grown = [Dim::Fixed(c.kv_heads), Dim::Named("P + S"), Dim::Fixed(size)];
            for past in [&past_key, &past_value] {
                g.input(past, element::F32, &cache);
            }
            for present in [&key, &value] {
                g.output(present, &grown);
            }
            let (mut q_norm, mut k_norm) = (String::new(), String::new());
            if c.body == Body::Qwen3 {
                for (part, to) in [("q_norm", &mut q_norm), ("k_norm", &mut k_norm)] {
                    let weight = self.weight(Some(l), part, &[size])?;
                    *to = g.floats(&format!("{at}.{part}.weight"), &[size], &weight.to_vec())?;
                }
            }
            let name = format!("{at}.attention");
            let out = format!("{name}.out");
            let mut attributes = vec![
                ("heads", Attribute::Int(c.heads as i64)),
                ("kv_heads", Attribute::Int(c.kv_heads as i64)),
                ("head_dim", Attribute::Int(size as i64)),
                ("rope_base", Attribute::Float(c.rope_base)),
            ];
            if !q_norm.is_empty() {
                attributes.push(("epsilon", Attribute::Float(c.epsilon)));
            }
            let x = g.op(
                "Attention",
                &name,
                &[&qkv, &past_key, &past_value, &frequencies, &q_norm, &k_norm],
                &[&out, &key, &value],
                &attributes,
            );

            let o = self.weight(Some(l), "o", &[hidden, q_rows])?;
            let bits = self.bits_of(&[o]);
            let bias = self.bias(l, "o", hidden)?;
            let name = format!("{at}.attn_out");
            h = g.matmul(&name, &x, &Picked::all(o), bits, bias.as_deref(), Some(&h), None)?;

            let x = self.norm(g, &format!("{at}.mlp_norm"), Some(l), "mlp_norm", &h, &[])?;
            let gate = self.weight(Some(l), "gate", &[c.ffn, hidden])?;
            let up = self.weight(Some(l), "up", &[c.ffn, hidden])?;
            let mut rows = Picked::new(hidden);
            for half in [gate, up] {
                rows.push(half, 0..c.ffn)?;
                rows.pad(ffn - c.ffn);
            }
            let bits = self.bits_of(&[gate, up]);
            let bias = self.biases(l, &[("gate", c.ffn), ("up", c.ffn)])?;
            if bias.is_some() && ffn != c.ffn {
                return Err(unsupported("biases of a feed-forward layer that must be padded"));
            }
            let name = format!("{at}.gate_up");
            let both = g.matmul(&name, &x, &rows, bits, bias.as_deref(), None, None)?;
            let x = g.op("SwiGlu", &format!("{at}.swiglu"), &[&both], &[], &[]);
            let down = self.weight(Some(l), "down", &[hidden, c.ffn])?;
            let bits = self.bits_of(&[down]);
            let bias = self.bias(l, "down", hidden)?;
            let name = format!("{at}.down");
            h = g.matmul(&name, &x, &Picked::all(down), bits, bias.as_deref(), Some(&h), None)?;
        }
        let x = self.norm(g, "final_norm", None, "final_norm", &h, &["hidden"])?;
        let mut rows = Picked::new(hidden);
        rows.push(head, order[..logits].iter().copied())?;
        let bits = self.bits_of(&[head]);
        g.matmul("head", &x, &rows, bits, None, None, Some("logits"))?;
        self.nothing_left()?;
        Ok(table_bytes)
    }

    fn qkv_bias(&mut self, l: usize, q_rows: usize, kv_rows: usize) -> Result<Option<Vec<f32>>> {
        let parts = [("q", q_rows), ("k", kv_rows), ("v", kv_rows)];
        let Some(b) = self.biases(l, &parts)? else { return Ok(None) };
        let q = self.rotated(self.config.heads);
        let k = self.rotated(self.config.kv_heads).map(|r| q_rows + r);
        let v = q_rows + kv_rows..q_rows + 2 * kv_rows;
        Ok(Some(q.chain(k).chain(v).map(|r| b[r]).collect()))
    }

    /// Blocks stay blocks; floats become f16, since one row a token is read, whatever its size.
    fn embed(&mut self, g: &mut Graph, table: &'a Tensor, order: &[usize]) -> Result<String> {
        let mut rows = Picked::new(self.config.hidden);
        rows.push(table, order.iter().copied())?;
        if table.dtype().quantised_bits().is_some() {
            let bits = self.bits_of(&[table]);
            return g.table("embedding", "tokens", &rows, bits);
        }
        g.half_table("embedding", "tokens", &rows)
    }

    fn norm(
        &mut self,
        g: &mut Graph,
        node: &str,
        layer: Option<usize>,
        part: &str,
        x: &str,
        outputs: &[&str],
    ) -> Result<String> {
        let hidden = self.config.hidden;
        let weight = self.weight(layer, part, &[hidden])?.to_vec();
        let weight = g.floats(&format!("{node}.weight"), &[hidden], &weight)?;
        let attributes = [("epsilon", Attribute::Float(self.config.epsilon))];
        Ok(g.op("RmsNorm", node, &[x, &weight], outputs, &attributes))
    }

    /// Weights that nobody asked for would be missing from the sound without a word.
    fn nothing_left(&self) -> Result<()> {
        let spare = |name: &&String| {
            !self.used.contains(*name)
                && !name.ends_with("rotary_emb.inv_freq")
                && *name != "rope_freqs.weight"
        };
        match self.source.tensors().keys().find(spare) {
            None => Ok(()),
            Some(name) => Err(unsupported(format!(
                "{} has a tensor {name:?} that a {} of {} layers does not have; merge adapters first, \
                 or is the configuration another model's?",
                self.source.origin(),
                self.config.body.name(),
                self.config.layers
            ))),
        }
    }

    /// What a person should know of how the weights came over.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter()
    }

    /// Bits of most matrices: the fewest where they differ.
    pub fn bits(&self) -> u32 {
        self.range.0
    }
}
