//! What a language model's configuration says: config.json of a Hugging Face folder, with the keys
//! of transformers 4 and 5, or the metadata of a GGUF file.

use super::gguf::{Gguf, Value};
use super::source::{TensorSource, malformed, unsupported};
use crate::Result;
use serde_json::Value as Json;

/// Bodies that are known: pre-norm, RMS norms, rotary positions, gated SiLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `llama`.
    Llama,
    /// `qwen2`: biases on q, k and v.
    Qwen2,
    /// `qwen3`: queries and keys are normed head by head.
    Qwen3,
}

impl Body {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Body::Llama,
            "qwen2" => Body::Qwen2,
            "qwen3" => Body::Qwen3,
            _ => return None,
        })
    }

    /// As config.json spells it.
    pub fn name(self) -> &'static str {
        match self {
            Body::Llama => "llama",
            Body::Qwen2 => "qwen2",
            Body::Qwen3 => "qwen3",
        }
    }
}

/// How positions turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// By the base alone.
    None,
    /// Frequencies divided by a factor.
    Linear(f32),
    /// Long waves divided by a factor, short ones kept, those between mixed.
    Llama3 {
        /// Divides the frequencies of long waves.
        factor: f32,
        /// Waves longer than the original context over this are long.
        low: f32,
        /// Waves shorter than the original context over this are short.
        high: f32,
        /// Positions that the model was first trained on.
        original: f32,
    },
    /// Divides each frequency: the table of a GGUF file.
    Table(Vec<f32>),
}

/// The shape of a language model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Its kind.
    pub body: Body,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Longest sequence that the configuration names.
    pub context: usize,
    /// Of the RMS norms.
    pub epsilon: f32,
    /// Of the rotary angles.
    pub rope_base: f32,
    /// What is done to the frequencies.
    pub scaling: Scaling,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// `neuphonic.input_format` of NeuTTS: `phonemes` or `BPE`.
    pub input_format: Option<String>,
    /// Emotions that a NeuTTS model was trained on.
    pub emotions: Vec<String>,
}

impl Config {
    /// The frequencies of a head's pairs, `[head_dim / 2]`; `None` where the base alone gives them.
    pub fn frequencies(&self) -> Option<Vec<f32>> {
        let half = self.head_dim / 2;
        let plain =
            |d: usize| 1.0 / f64::from(self.rope_base).powf(2.0 * d as f64 / self.head_dim as f64);
        let scaled = |f: &dyn Fn(usize, f64) -> f64| {
            (0..half).map(|d| f(d, plain(d)) as f32).collect::<Vec<f32>>()
        };
        match &self.scaling {
            Scaling::None => None,
            Scaling::Linear(factor) => Some(scaled(&|_, f| f / f64::from(*factor))),
            Scaling::Table(t) => Some(scaled(&|d, f| f / f64::from(t[d]))),
            &Scaling::Llama3 { factor, low, high, original } => {
                let [factor, low, high, original] = [factor, low, high, original].map(f64::from);
                Some(scaled(&|_, f| {
                    let wave = std::f64::consts::TAU / f;
                    if wave > original / low {
                        f / factor
                    } else if wave < original / high {
                        f
                    } else {
                        let smooth = (original / wave - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                }))
            }
        }
    }

    /// From config.json.
    ///
    /// # Errors
    /// `Unsupported` with the reason for what cannot be run, `Malformed` for what makes no sense.
    pub fn from_json(json: &Json, name: &str) -> Result<Self> {
        let r = Reader { json, name };
        let kind = r.text("model_type").ok_or_else(|| r.bad("it has no model_type"))?;
        let body = Body::parse(kind).ok_or_else(|| {
            unsupported(format!(
                "{name}: model_type {kind:?} cannot be imported; known are llama, qwen2 and qwen3 \
                 (docs/models.md has the families)"
            ))
        })?;
        if json.get("quantization_config").is_some_and(|q| !q.is_null()) {
            return Err(unsupported(format!(
                "{name}: the checkpoint is quantised by another tool; take the original, or a GGUF"
            )));
        }
        for (key, right) in [("hidden_act", "silu"), ("hidden_activation", "silu")] {
            if let Some(found) = r.text(key).filter(|v| *v != right) {
                return Err(unsupported(format!(
                    "{name}: {key} {found:?} cannot be run, only {right}"
                )));
            }
        }
        if json.get("use_sliding_window").and_then(Json::as_bool) == Some(true) {
            return Err(unsupported(format!("{name}: sliding windows cannot be run")));
        }
        if r.number("partial_rotary_factor").is_some_and(|f| f != 1.0) {
            return Err(unsupported(format!("{name}: partly rotated heads cannot be run")));
        }
        let heads = r.size("num_attention_heads", 1024)?;
        let hidden = r.size("hidden_size", 65_536)?;
        let kv_heads = match r.has("num_key_value_heads") {
            true => r.size("num_key_value_heads", 1024)?,
            false => heads,
        };
        let head_dim = match (r.has("head_dim"), body) {
            (true, _) => r.size("head_dim", 4096)?,
            // Its default, whatever hidden / heads is.
            (false, Body::Qwen3) => 128,
            (false, _) => hidden / heads,
        };
        let (rope_base, scaling) = r.rope()?;
        let neuphonic = json.get("neuphonic");
        let emotions = neuphonic.and_then(|n| n.get("supported_emotions")).and_then(Json::as_array);
        let texts = |all: &Vec<Json>| {
            all.iter().filter_map(|e| e.as_str().map(str::to_owned)).collect::<Vec<String>>()
        };
        let config = Self {
            body,
            layers: r.size("num_hidden_layers", 256)?,
            hidden,
            ffn: r.size("intermediate_size", 1 << 20)?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: r.size("vocab_size", 1 << 20)?,
            context: r.size("max_position_embeddings", 1 << 24)?,
            epsilon: r.number("rms_norm_eps").unwrap_or(1e-6) as f32,
            rope_base,
            scaling,
            tied: json.get("tie_word_embeddings").and_then(Json::as_bool).unwrap_or(false),
            input_format: neuphonic
                .and_then(|n| n.get("input_format"))
                .and_then(Json::as_str)
                .map(str::to_owned),
            emotions: emotions.map(texts).unwrap_or_default(),
        };
        config.check(name)?;
        Ok(config)
    }

    /// From the metadata of a GGUF file.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let name = gguf.tensors.origin();
        let bad = |what: String| malformed(format!("{name}: {what}"));
        let kind = gguf
            .text("general.architecture")
            .ok_or_else(|| bad("it has no general.architecture".into()))?;
        let body = Body::parse(kind).ok_or_else(|| {
            unsupported(format!(
                "{name}: the architecture {kind:?} cannot be imported; known are llama, qwen2 and qwen3"
            ))
        })?;
        let key = |k: &str| format!("{kind}.{k}");
        let size = |k: &str, most: usize| {
            let found = gguf.size(&key(k)).filter(|n| (1..=most).contains(n));
            found.ok_or_else(|| bad(format!("{} is missing or not within 1 to {most}", key(k))))
        };
        let heads = size("attention.head_count", 1024)?;
        let hidden = size("embedding_length", 65_536)?;
        let kv_heads = match gguf.metadata.contains_key(&key("attention.head_count_kv")) {
            true => size("attention.head_count_kv", 1024)?,
            false => heads,
        };
        let head_dim = match gguf.metadata.contains_key(&key("attention.key_length")) {
            true => size("attention.key_length", 4096)?,
            false => hidden / heads,
        };
        for k in ["attention.value_length", "rope.dimension_count"] {
            if gguf.size(&key(k)).is_some_and(|n| n != head_dim) {
                return Err(unsupported(format!(
                    "{name}: {} differs from the head's width {head_dim}",
                    key(k)
                )));
            }
        }
        if size("expert_count", usize::MAX).is_ok() {
            return Err(unsupported(format!("{name}: mixtures of experts cannot be run")));
        }
        let table = gguf.tensors.get("rope_freqs.weight").map(|t| t.to_vec());
        let factor = gguf.number(&key("rope.scaling.factor"));
        let scaling = match (table, gguf.text(&key("rope.scaling.type")), factor) {
            (Some(table), _, _) => Scaling::Table(table),
            (None, Some("linear"), Some(factor)) => Scaling::Linear(factor as f32),
            (None, None | Some("none"), _) => Scaling::None,
            (None, Some(other), _) => {
                return Err(unsupported(format!(
                    "{name}: positions scaled by {other:?} cannot be run"
                )));
            }
        };
        let emotions = gguf.texts("neuphonic.supported_emotions").unwrap_or_default();
        let vocabulary = match gguf.metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array(all)) => all.len(),
            _ => size("vocab_size", 1 << 20)?,
        };
        let config = Self {
            body,
            layers: size("block_count", 256)?,
            hidden,
            ffn: size("feed_forward_length", 1 << 20)?,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            context: size("context_length", 1 << 24)?,
            epsilon: gguf.number(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-6) as f32,
            rope_base: gguf.number(&key("rope.freq_base")).unwrap_or(10_000.0) as f32,
            scaling,
            tied: gguf.tensors.get("output.weight").is_none(),
            input_format: gguf.text("neuphonic.input_format").map(str::to_owned),
            emotions: emotions.into_iter().map(str::to_owned).collect(),
        };
        config.check(name)?;
        Ok(config)
    }

    fn check(&self, name: &str) -> Result<()> {
        let bad = |what: String| Err(malformed(format!("{name}: {what}")));
        if !self.heads.is_multiple_of(self.kv_heads) {
            return bad(format!("{} key heads do not divide {} heads", self.kv_heads, self.heads));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(16) {
            return Err(unsupported(format!(
                "{name}: heads of {} cannot be run, multiples of 16 can",
                self.head_dim
            )));
        }
        if !self.hidden.is_multiple_of(32) || !(self.heads * self.head_dim).is_multiple_of(32) {
            return Err(unsupported(format!(
                "{name}: a width of {} and {} heads of {} are not multiples of 32, the block that \
                 one scale is for",
                self.hidden, self.heads, self.head_dim
            )));
        }
        let positive = |x: f32| x.is_finite() && x > 0.0;
        let base = positive(self.rope_base) && self.rope_base > 1.0;
        if !(positive(self.epsilon) && base) {
            return bad(format!("epsilon {} or rope base {}", self.epsilon, self.rope_base));
        }
        let right = match &self.scaling {
            Scaling::None => true,
            Scaling::Linear(f) => positive(*f),
            &Scaling::Llama3 { factor, low, high, original } => {
                [factor, low, high, original].into_iter().all(positive) && low < high
            }
            Scaling::Table(t) => t.len() == self.head_dim / 2 && t.iter().all(|f| positive(*f)),
        };
        if !right {
            return bad(format!("its rope scaling makes no sense: {:?}", self.scaling));
        }
        Ok(())
    }
}

struct Reader<'a> {
    json: &'a Json,
    name: &'a str,
}

impl Reader<'_> {
    fn bad(&self, what: &str) -> crate::Error {
        malformed(format!("{}: {what}; is it the config.json of a language model?", self.name))
    }

    fn has(&self, key: &str) -> bool {
        self.json.get(key).is_some_and(|v| !v.is_null())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.json.get(key)?.as_str()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.json.get(key)?.as_f64()
    }

    fn size(&self, key: &str, most: usize) -> Result<usize> {
        let found = self.json.get(key).and_then(Json::as_u64);
        found
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| (1..=most).contains(n))
            .ok_or_else(|| self.bad(&format!("{key} is missing or not within 1 to {most}")))
    }

    /// transformers 5 keeps all in `rope_parameters`, 4 had `rope_theta` and `rope_scaling`.
    fn rope(&self) -> Result<(f32, Scaling)> {
        let object = |key: &str| self.json.get(key).filter(|v| v.is_object());
        let scaling = object("rope_parameters").or_else(|| object("rope_scaling"));
        let inside = |key: &str| scaling?.get(key)?.as_f64();
        let base = inside("rope_theta").or_else(|| self.number("rope_theta")).unwrap_or(10_000.0);
        let kind = scaling.and_then(|s| s.get("rope_type").or_else(|| s.get("type")));
        let need = |key: &str| {
            let found = inside(key).map(|f| f as f32);
            found.ok_or_else(|| self.bad(&format!("the rope scaling has no {key}")))
        };
        let scaling = match kind.and_then(Json::as_str) {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear(need("factor")?),
            Some("llama3") => Scaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: need("original_max_position_embeddings")?,
            },
            Some(other) => {
                return Err(unsupported(format!(
                    "{}: positions scaled by {other:?} cannot be run; linear and llama3 can",
                    self.name
                )));
            }
        };
        Ok((base as f32, scaling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nano() -> Json {
        json!({
            "model_type": "llama", "num_hidden_layers": 24, "hidden_size": 576,
            "intermediate_size": 2304, "num_attention_heads": 9, "num_key_value_heads": 3,
            "vocab_size": 194256, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": true, "hidden_act": "silu",
            "rope_parameters": {"rope_type": "linear", "factor": 32.0, "rope_theta": 500000.0},
        })
    }

    #[test]
    fn new_and_old_keys_say_the_same() {
        let new = Config::from_json(&nano(), "config.json").unwrap();
        let mut old = nano();
        old.as_object_mut().unwrap().remove("rope_parameters");
        old["rope_theta"] = json!(500000.0);
        old["rope_scaling"] = json!({"type": "linear", "factor": 32.0});
        assert_eq!(Config::from_json(&old, "config.json").unwrap(), new);
        assert_eq!((new.head_dim, new.rope_base), (64, 500_000.0));
        let f = new.frequencies().unwrap();
        assert_eq!(f.len(), 32);
        assert_eq!(f[0], 1.0 / 32.0);
        let last = 1.0 / 500_000f64.powf(62.0 / 64.0) / 32.0;
        assert!((f64::from(f[31]) / last - 1.0).abs() < 1e-6);
    }

    /// The three ranges of llama3, by hand.
    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        let mut c = Config::from_json(&nano(), "c").unwrap();
        c.scaling = Scaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192.0 };
        let scaled = c.frequencies().unwrap();
        for (d, f) in scaled.iter().enumerate() {
            let plain = 1.0 / 500_000f64.powf(2.0 * d as f64 / 64.0);
            let wave = 2.0 * std::f64::consts::PI / plain;
            let f = f64::from(*f);
            if wave < 2048.0 {
                assert!((f / plain - 1.0).abs() < 1e-6, "{d}");
            } else if wave > 8192.0 {
                assert!((f * 32.0 / plain - 1.0).abs() < 1e-6, "{d}");
            } else {
                assert!(f > plain / 32.0 && f < plain, "{d}");
            }
        }
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        let refused = |key: &str, value: Json| {
            let mut c = nano();
            c[key] = value;
            Config::from_json(&c, "config.json").unwrap_err().to_string()
        };
        for (key, value, why) in [
            ("model_type", json!("mamba"), "mamba"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("use_sliding_window", json!(true), "sliding"),
            ("quantization_config", json!({"bits": 4}), "quantised"),
            ("num_hidden_layers", json!(0), "num_hidden_layers"),
            ("num_hidden_layers", json!(1e9), "num_hidden_layers"),
            ("num_hidden_layers", json!("two"), "num_hidden_layers"),
            ("num_key_value_heads", json!(4), "divide"),
            ("head_dim", json!(63), "16"),
            ("hidden_size", json!(144), "32"),
            ("rms_norm_eps", json!(-1.0), "epsilon"),
            ("partial_rotary_factor", json!(0.5), "rotated"),
            ("rope_parameters", json!({"rope_type": "yarn"}), "yarn"),
            ("rope_parameters", json!({"rope_type": "linear"}), "factor"),
            ("rope_parameters", json!({"rope_type": "linear", "factor": 0.0}), "rope scaling"),
        ] {
            let text = refused(key, value);
            assert!(text.contains(why), "{key}: {text}");
        }
    }
}
