//! A tiny language model of any known body with 16 speech tokens, in every container, and
//! what can be wrong with it.

use half::f16;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use voxgrain::ErrorKind;
use voxgrain::import::source::Dtype;
use voxgrain::import::{Options, import};

/// A folder of its own, removed at the end.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("voxgrain-import-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
    pub fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }
    /// About normal, of variance 1.
    fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| (self.next() & 0xffff) as f32 / 65536.0).sum();
        sum - 6.0
    }
}

const HIDDEN: usize = 32;
const LAYERS: usize = 2;
const HEADS: usize = 2;
const SIZE: usize = 16;
pub const SPEECH: usize = 16;
const FIRST: usize = 262;
const END: usize = 259;
const VOCABULARY: usize = 280;

/// The folder of a bundle whose codec has 16 codes.
pub fn codec(dir: &Dir) -> PathBuf {
    let to = dir.path("codec");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    if to.exists() {
        return to;
    }
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let mut text = std::fs::read_to_string(from.join("bundle.toml")).unwrap();
    for (a, b) in [
        ("65536", "16"),
        ("65537", "17"),
        ("65538", "18"),
        ("65539", "19"),
        ("65540", "20"),
        ("fsq_digits = 8", "fsq_digits = 2"),
    ] {
        text = text.replace(a, b);
    }
    std::fs::write(to.join("bundle.toml"), text).unwrap();
    to
}

/// The model: what its folder would hold.
#[derive(Clone)]
pub struct Tiny {
    pub config: Json,
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub tokenizer: Json,
}

impl Tiny {
    pub fn new(body: &str, seed: u64) -> Self {
        let kv_heads = if body == "qwen2" { 2 } else { 1 };
        let mut config = json!({
            "architectures": ["CausalLM"], "model_type": body, "num_hidden_layers": LAYERS,
            "hidden_size": HIDDEN, "intermediate_size": 64, "num_attention_heads": HEADS,
            "num_key_value_heads": kv_heads, "vocab_size": VOCABULARY,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
            "hidden_act": "silu", "rope_theta": 100.0,
        });
        if body == "qwen3" {
            config["head_dim"] = json!(SIZE);
        }
        let mut tiny = Self { config, tensors: BTreeMap::new(), tokenizer: tokenizer() };
        let mut random = Random(seed * 2 + 1);
        tiny.add("model.embed_tokens.weight", &[VOCABULARY, HIDDEN], 1.0, &mut random);
        tiny.add("lm_head.weight", &[VOCABULARY, HIDDEN], 0.3, &mut random);
        tiny.ones("model.norm.weight", HIDDEN, &mut random);
        for l in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{l}.{part}");
            let kv = kv_heads * SIZE;
            for (part, rows, columns) in [
                ("self_attn.q_proj", HEADS * SIZE, HIDDEN),
                ("self_attn.k_proj", kv, HIDDEN),
                ("self_attn.v_proj", kv, HIDDEN),
                ("self_attn.o_proj", HIDDEN, HEADS * SIZE),
                ("mlp.gate_proj", 64, HIDDEN),
                ("mlp.up_proj", 64, HIDDEN),
                ("mlp.down_proj", HIDDEN, 64),
            ] {
                tiny.add(&name(&format!("{part}.weight")), &[rows, columns], 0.2, &mut random);
                let biased = ["q_proj", "k_proj", "v_proj"].iter().any(|p| part.ends_with(p));
                if body == "qwen2" && biased {
                    tiny.add(&name(&format!("{part}.bias")), &[rows], 0.5, &mut random);
                }
            }
            tiny.ones(&name("input_layernorm.weight"), HIDDEN, &mut random);
            tiny.ones(&name("post_attention_layernorm.weight"), HIDDEN, &mut random);
            if body == "qwen3" {
                tiny.ones(&name("self_attn.q_norm.weight"), SIZE, &mut random);
                tiny.ones(&name("self_attn.k_norm.weight"), SIZE, &mut random);
            }
        }
        tiny
    }

    fn add(&mut self, name: &str, shape: &[usize], scale: f32, random: &mut Random) {
        let n = shape.iter().product();
        let values = (0..n).map(|_| scale * random.normal()).collect();
        self.tensors.insert(name.into(), (shape.to_vec(), values));
    }

    fn ones(&mut self, name: &str, n: usize, random: &mut Random) {
        let values = (0..n).map(|_| 1.0 + 0.3 * random.normal()).collect();
        self.tensors.insert(name.into(), (vec![n], values));
    }

    /// The first columns and rows of the feed-forward layers only.
    pub fn set_ffn(&mut self, ffn: usize) {
        self.config["intermediate_size"] = json!(ffn);
        for (name, (shape, values)) in &mut self.tensors {
            if name.contains("gate_proj") || name.contains("up_proj") {
                values.truncate(ffn * HIDDEN);
                shape[0] = ffn;
            } else if name.contains("down_proj") {
                *values = values.chunks(64).flat_map(|row| row[..ffn].to_vec()).collect();
                shape[1] = ffn;
            }
        }
    }

    pub fn set_tied(&mut self, tied: bool) {
        self.config["tie_word_embeddings"] = json!(tied);
        if tied {
            self.tensors.remove("lm_head.weight");
        }
    }

    pub fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| keep(name));
    }

    /// Every matrix becomes what blocks of this type hold.
    pub fn round_to(&mut self, dtype: Dtype) {
        for (_, values) in self.tensors.values_mut().filter(|t| t.0.len() == 2) {
            for block in values.chunks_exact_mut(32) {
                let (d, q) = quantise(dtype, block);
                block.iter_mut().zip(q).for_each(|(x, q)| *x = f32::from(q) * d.to_f32());
            }
        }
    }

    pub fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let json = |name: &str, value: &Json| {
            std::fs::write(folder.join(name), value.to_string()).unwrap();
        };
        json("config.json", &self.config);
        json("tokenizer.json", &self.tokenizer);
        std::fs::write(folder.join("model.safetensors"), self.safetensors(|_| true)).unwrap();
    }

    pub fn safetensors(&self, keep: impl Fn(&str) -> bool) -> Vec<u8> {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .filter(|(name, _)| keep(name))
            .map(|(name, (shape, values))| (name, shape, f32_bytes(values)))
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = ::safetensors::tensor::TensorView::new(
                ::safetensors::Dtype::F32,
                (*shape).clone(),
                bytes,
            );
            (name.as_str(), view.unwrap())
        });
        ::safetensors::serialize(views, None).unwrap()
    }

    pub fn write_shards(&self, folder: &Path) {
        self.shards(folder, "model", "safetensors", "model.safetensors.index.json", |first| {
            self.safetensors(|name| (name < "model.layers.1") == first)
        });
    }

    pub fn write_torch_shards(&self, folder: &Path) {
        self.shards(folder, "pytorch_model", "bin", "pytorch_model.bin.index.json", |first| {
            self.torch(|name| (name < "model.layers.1") == first)
        });
    }

    fn shards(
        &self,
        folder: &Path,
        stem: &str,
        extension: &str,
        index: &str,
        bytes: impl Fn(bool) -> Vec<u8>,
    ) {
        let file =
            |first: bool| format!("{stem}-0000{}-of-00002.{extension}", 2 - usize::from(first));
        for first in [true, false] {
            std::fs::write(folder.join(file(first)), bytes(first)).unwrap();
        }
        let map: serde_json::Map<String, Json> = self
            .tensors
            .keys()
            .map(|name| (name.clone(), json!(file(name.as_str() < "model.layers.1"))))
            .collect();
        let json = json!({"metadata": {"total_size": 1}, "weight_map": map});
        std::fs::write(folder.join(index), json.to_string()).unwrap();
    }

    /// A state dict as `torch.save` writes it, protocol 2.
    pub fn torch(&self, keep: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut pickle = b"\x80\x02}(".to_vec();
        let mut storages = Vec::new();
        for (name, (shape, values)) in self.tensors.iter().filter(|(name, _)| keep(name)) {
            text(&mut pickle, name);
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(&mut pickle, "storage");
            pickle.extend(b"ctorch\nFloatStorage\n");
            text(&mut pickle, &storages.len().to_string());
            text(&mut pickle, "cpu");
            int(&mut pickle, values.len());
            pickle.extend(b"tQK\x00(");
            shape.iter().for_each(|&d| int(&mut pickle, d));
            pickle.extend(b"t(");
            for i in 0..shape.len() {
                int(&mut pickle, shape[i + 1..].iter().product());
            }
            pickle.extend(b"t\x89}tR");
            storages.push(f32_bytes(values));
        }
        pickle.extend(b"u.");
        zip(&pickle, &storages)
    }

    /// A GGUF file of version 3, matrices in blocks of this type.
    pub fn gguf(&self, dtype: Dtype) -> Vec<u8> {
        let body = self.config["model_type"].as_str().unwrap();
        let of = |key: &str| self.config[key].as_u64().unwrap();
        let heads = of("num_attention_heads") as usize;
        let kv_heads = of("num_key_value_heads") as usize;
        let mut g = Gguf::default();
        g.text("general.architecture", body);
        let mut size = |key: &str, value: u64| g.int(&format!("{body}.{key}"), value as u32);
        size("block_count", LAYERS as u64);
        size("embedding_length", HIDDEN as u64);
        size("feed_forward_length", of("intermediate_size"));
        size("attention.head_count", heads as u64);
        size("attention.head_count_kv", kv_heads as u64);
        size("attention.key_length", SIZE as u64);
        size("context_length", 4096);
        g.float(&format!("{body}.attention.layer_norm_rms_epsilon"), 1e-5);
        g.float(&format!("{body}.rope.freq_base"), 100.0);
        g.text("tokenizer.ggml.model", "gpt2");
        g.text("tokenizer.ggml.pre", "llama-bpe");
        let (tokens, types) = names();
        g.texts("tokenizer.ggml.tokens", &tokens);
        g.ints("tokenizer.ggml.token_type", &types);
        g.texts("tokenizer.ggml.merges", &["t h".to_owned()]);
        for (name, (shape, values)) in &self.tensors {
            let theirs = gguf_name(name);
            let turned = body == "llama" && (name.contains("q_proj") || name.contains("k_proj"));
            let n = if name.contains("q_proj") { heads } else { kv_heads };
            let values = if turned { interleave(values, n, shape[0]) } else { values.clone() };
            if shape.len() == 1 {
                g.tensor(&theirs, shape, 0, f32_bytes(&values));
                continue;
            }
            let mut bytes = Vec::new();
            for block in values.chunks_exact(32) {
                let (d, q) = quantise(dtype, block);
                bytes.extend(d.to_le_bytes());
                match dtype {
                    Dtype::Q8_0 => bytes.extend(q.map(|q| q as u8)),
                    _ => bytes
                        .extend((0..16).map(|i| (q[i] + 8) as u8 | ((q[i + 16] + 8) as u8) << 4)),
                }
            }
            g.tensor(&theirs, shape, if dtype == Dtype::Q8_0 { 8 } else { 2 }, bytes);
        }
        g.bytes(3)
    }

    /// Logits of speech tokens and the end, one row a token: the definition, read plainly.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let get = |name: &str| &self.tensors[name].1;
        let body = self.config["model_type"].as_str().unwrap();
        let kv_heads = self.config["num_key_value_heads"].as_u64().unwrap() as usize;
        let ffn = self.config["intermediate_size"].as_u64().unwrap() as usize;
        let frequencies = self.frequencies();
        let mut h: Vec<Vec<f32>> = tokens
            .iter()
            .map(|&t| get("model.embed_tokens.weight")[t as usize * HIDDEN..][..HIDDEN].to_vec())
            .collect();
        for l in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{l}.{part}");
            let linear = |part: &str, x: &[f32]| {
                let bias = self.tensors.get(&name(&format!("{part}.bias"))).map(|t| &t.1);
                product(get(&name(&format!("{part}.weight"))), x, bias)
            };
            let x: Vec<Vec<f32>> =
                h.iter().map(|h| norm(h, get(&name("input_layernorm.weight")))).collect();
            let project = |part: &str, heads: usize, norm_of: Option<&str>, turn: bool| {
                let rows = x.iter().enumerate().map(|(at, x)| {
                    let all = linear(part, x);
                    let by_head = (0..heads).map(|i| {
                        let mut head = all[i * SIZE..][..SIZE].to_vec();
                        if let Some(n) = norm_of.filter(|_| body == "qwen3") {
                            head = norm(&head, get(&name(n)));
                        }
                        if turn { rotate(&head, at as f32, &frequencies) } else { head }
                    });
                    by_head.collect::<Vec<_>>()
                });
                rows.collect::<Vec<_>>()
            };
            let q = project("self_attn.q_proj", HEADS, Some("self_attn.q_norm.weight"), true);
            let k = project("self_attn.k_proj", kv_heads, Some("self_attn.k_norm.weight"), true);
            let v = project("self_attn.v_proj", kv_heads, None, false);
            for at in 0..tokens.len() {
                let mut mixed = Vec::new();
                for head in 0..HEADS {
                    let kv = head * kv_heads / HEADS;
                    let score = |j: usize| dot(&q[at][head], &k[j][kv]) / (SIZE as f32).sqrt();
                    let weights: Vec<f32> = (0..=at).map(|j| score(j).exp()).collect();
                    let total: f32 = weights.iter().sum();
                    mixed.extend((0..SIZE).map(|d| {
                        weights.iter().enumerate().map(|(j, w)| w * v[j][kv][d]).sum::<f32>()
                            / total
                    }));
                }
                let out = linear("self_attn.o_proj", &mixed);
                h[at].iter_mut().zip(out).for_each(|(h, o)| *h += o);
                let x = norm(&h[at], get(&name("post_attention_layernorm.weight")));
                let (gate, up) = (linear("mlp.gate_proj", &x), linear("mlp.up_proj", &x));
                let both: Vec<f32> =
                    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                assert_eq!(both.len(), ffn);
                let out = linear("mlp.down_proj", &both);
                h[at].iter_mut().zip(out).for_each(|(h, o)| *h += o);
            }
        }
        let head = match self.tensors.get("lm_head.weight") {
            Some((_, head)) => head,
            None => get("model.embed_tokens.weight"),
        };
        let scored = (FIRST..FIRST + SPEECH).chain([END]);
        let row = |h: &Vec<f32>| {
            let x = norm(h, get("model.norm.weight"));
            scored.clone().map(|t| dot(&head[t * HIDDEN..][..HIDDEN], &x)).collect()
        };
        h.iter().map(row).collect()
    }

    fn frequencies(&self) -> Vec<f32> {
        let rope = &self.config["rope_parameters"];
        let number = |key: &str| rope[key].as_f64();
        let base = number("rope_theta").or(self.config["rope_theta"].as_f64()).unwrap();
        (0..SIZE / 2)
            .map(|d| {
                let f = base.powf(-2.0 * d as f64 / SIZE as f64);
                let f = match rope["rope_type"].as_str() {
                    Some("linear") => f / number("factor").unwrap(),
                    Some("llama3") => {
                        let (low, high) = (
                            number("low_freq_factor").unwrap(),
                            number("high_freq_factor").unwrap(),
                        );
                        let turns = number("original_max_position_embeddings").unwrap() * f
                            / (2.0 * std::f64::consts::PI);
                        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                        f * smooth + f / number("factor").unwrap() * (1.0 - smooth)
                    }
                    _ => f,
                };
                f as f32
            })
            .collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn product(matrix: &[f32], x: &[f32], bias: Option<&Vec<f32>>) -> Vec<f32> {
    let rows = matrix.chunks_exact(x.len()).enumerate();
    rows.map(|(n, row)| dot(row, x) + bias.map_or(0.0, |b| b[n])).collect()
}

fn norm(x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mean = dot(x, x) / x.len() as f32;
    x.iter().zip(weight).map(|(x, w)| x / (mean + 1e-5).sqrt() * w).collect()
}

fn rotate(x: &[f32], at: f32, frequencies: &[f32]) -> Vec<f32> {
    let half = x.len() / 2;
    let mut out = x.to_vec();
    for d in 0..half {
        let (sin, cos) = (at * frequencies[d]).sin_cos();
        out[d] = x[d] * cos - x[d + half] * sin;
        out[d + half] = x[d + half] * cos + x[d] * sin;
    }
    out
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A block as ggml's reference quantises it.
fn quantise(dtype: Dtype, block: &[f32]) -> (f16, [i8; 32]) {
    let peak = block.iter().fold(0.0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
    let (d, low, high) = match dtype {
        Dtype::Q8_0 => (f16::from_f32(peak.abs() / 127.0), -127.0, 127.0),
        _ => (f16::from_f32(peak / -8.0), -8.0, 7.0),
    };
    (d, std::array::from_fn(|i| (block[i] / d.to_f32()).round().clamp(low, high) as i8))
}

/// The rows of each head with its two halves interleaved, as llama.cpp's converter has them.
fn interleave(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let size = rows / heads;
    let mut out = vec![0.0; values.len()];
    for row in 0..rows {
        let (head, half, i) = (row / size, row % size / (size / 2), row % (size / 2));
        let to = head * size + 2 * i + half;
        out[to * columns..][..columns].copy_from_slice(&values[row * columns..][..columns]);
    }
    out
}

fn gguf_name(name: &str) -> String {
    let mut out = name.replace("model.layers.", "blk.");
    for (a, b) in [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        out = out.replace(a, b);
    }
    out
}

/// Names of all tokens and their types in GGUF: bytes, then NeuTTS's own.
fn names() -> (Vec<String>, Vec<i32>) {
    let mut names: Vec<String> = (0..=255u8).map(|b| byte(b).to_string()).collect();
    let mut types = vec![1; names.len()];
    for name in [
        "<|TEXT_PROMPT_START|>",
        "<|TEXT_PROMPT_END|>",
        "<|SPEECH_GENERATION_START|>",
        "<|SPEECH_GENERATION_END|>",
        "<|TEXT_REPLACE|>",
        "<|HAPPY|>",
    ] {
        names.push(name.into());
        types.push(3);
    }
    assert_eq!((names.len(), END), (FIRST, 259));
    names.extend((0..SPEECH).map(|i| format!("<|speech_{i}|>")));
    types.resize(names.len(), 4);
    // Not in any merge, so a word of the vocabulary that is never made.
    names.extend(["th".to_owned(), "<|spare|>".to_owned()]);
    types.extend([1, 3]);
    assert_eq!(names.len(), VOCABULARY);
    (names, types)
}

/// The letter that stands for a byte in GPT-2's alphabet.
fn byte(b: u8) -> char {
    let plain = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if plain(b) {
        return b as char;
    }
    let before = (0..b).filter(|b| !plain(*b)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

pub fn tokenizer() -> Json {
    let (names, types) = names();
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, (name, kind)) in names.iter().zip(types).enumerate() {
        // Known to the model as well, or ids would be given anew.
        vocab.insert(name.clone(), json!(id));
        if kind != 1 {
            added.push(json!({
                "id": id, "content": name, "special": kind == 3, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
    }
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": ["t h"]},
    })
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.as_bytes());
}

fn int(pickle: &mut Vec<u8>, n: usize) {
    pickle.push(b'J');
    pickle.extend((n as i32).to_le_bytes());
}

/// A PyTorch archive of this pickle and these storages.
pub fn zip(pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    zip_with(pickle, storages, "archive", &[])
}

pub fn zip_with(
    pickle: &[u8],
    storages: &[Vec<u8>],
    stem: &str,
    more: &[(&str, &[u8])],
) -> Vec<u8> {
    use std::io::Write;
    let mut zip = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = ::zip::write::SimpleFileOptions::default()
        .compression_method(::zip::CompressionMethod::Stored);
    let mut put = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("{stem}/{name}"), stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    put("data.pkl", pickle);
    for (i, bytes) in storages.iter().enumerate() {
        put(&format!("data/{i}"), bytes);
    }
    more.iter().for_each(|(name, bytes)| put(name, bytes));
    put("version", b"3\n");
    zip.finish().unwrap().into_inner()
}

/// A GGUF file being put together.
#[derive(Default)]
pub struct Gguf {
    entries: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

fn gguf_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Gguf {
    pub fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        let mut out = Vec::new();
        gguf_text(&mut out, key);
        out.extend(kind.to_le_bytes());
        out.extend(value);
        self.entries.push(out);
    }
    fn int(&mut self, key: &str, value: u32) {
        self.entry(key, 4, &value.to_le_bytes());
    }
    fn float(&mut self, key: &str, value: f32) {
        self.entry(key, 6, &value.to_le_bytes());
    }
    fn text(&mut self, key: &str, value: &str) {
        let mut out = Vec::new();
        gguf_text(&mut out, value);
        self.entry(key, 8, &out);
    }
    fn array(&mut self, key: &str, kind: u32, n: usize, items: &[u8]) {
        let mut out = kind.to_le_bytes().to_vec();
        out.extend((n as u64).to_le_bytes());
        out.extend(items);
        self.entry(key, 9, &out);
    }
    fn texts(&mut self, key: &str, all: &[String]) {
        let mut items = Vec::new();
        all.iter().for_each(|t| gguf_text(&mut items, t));
        self.array(key, 8, all.len(), &items);
    }
    fn ints(&mut self, key: &str, all: &[i32]) {
        let items: Vec<u8> = all.iter().flat_map(|i| i.to_le_bytes()).collect();
        self.array(key, 5, all.len(), &items);
    }
    fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, bytes: Vec<u8>) {
        self.tensors.push((name.into(), shape.to_vec(), kind, bytes));
    }

    pub fn bytes(&self, version: u32) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        self.entries.iter().for_each(|e| out.extend(e));
        let mut offset = 0u64;
        for (name, shape, kind, bytes) in &self.tensors {
            gguf_text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|d| out.extend((*d as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += bytes.len().next_multiple_of(32) as u64;
        }
        out.resize(out.len().next_multiple_of(32), 0);
        for (_, _, _, bytes) in &self.tensors {
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(32), 0);
        }
        out
    }
}

/// A language model of ours, read back from its file.
pub struct Own {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    config: Json,
    characters: String,
}

impl Own {
    pub fn read(path: &Path) -> Self {
        use prost::Message;
        let proto = tract_onnx::pb::ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap();
        let graph = proto.graph.unwrap();
        let data = std::fs::read(format!("{}.data", path.display())).unwrap();
        let bytes = |name: &str| {
            let t = graph.initializer.iter().find(|t| t.name == name).unwrap();
            let field = |key: &str| -> usize {
                t.external_data.iter().find(|e| e.key == key).unwrap().value.parse().unwrap()
            };
            &data[field("offset")..][..field("length")]
        };
        let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
        let single = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let mut tensors = BTreeMap::new();
        let mut facts = BTreeMap::new();
        for node in &graph.node {
            let int = |key: &str| node.attribute.iter().find(|a| a.name == key).unwrap().i as usize;
            let float = |key: &str| node.attribute.iter().find(|a| a.name == key).unwrap().f;
            match node.op_type.as_str() {
                "QMatMul" => {
                    let (n, k) = (int("N"), int("K"));
                    let (q, s) = (bytes(&node.input[1]), bytes(&node.input[2]));
                    tensors
                        .insert(node.name.clone(), (vec![n, k], unpack(q, s, n, k, int("bits"))));
                }
                "RmsNorm" => {
                    let w: Vec<f32> = bytes(&node.input[1]).chunks(4).map(single).collect();
                    tensors.insert(node.name.clone(), (vec![w.len()], w));
                    facts.insert("epsilon", json!(float("epsilon")));
                }
                "Attention" => {
                    for key in ["heads", "kv_heads", "head_dim"] {
                        facts.insert(key, json!(int(key)));
                    }
                    facts.insert("rope_base", json!(float("rope_base")));
                }
                "FactorEmbed" => {
                    for (part, at) in [("factors", 1), ("extra", 2)] {
                        let w: Vec<f32> = bytes(&node.input[at]).chunks(2).map(half).collect();
                        tensors.insert(format!("embedding.{part}"), (vec![], w));
                    }
                }
                _ => {}
            }
        }
        let text = std::fs::read_to_string(path.with_file_name("bundle.toml")).unwrap();
        let bundle: toml::Table = toml::from_str(&text).unwrap();
        let characters = bundle["vocabulary"]["characters"].as_str().unwrap().to_owned();
        Self { tensors, config: json!(facts), characters }
    }

    fn width(&self) -> usize {
        self.tensors["final_norm"].1.len()
    }

    /// Ids that are no codes, the end among them.
    pub fn others(&self) -> u32 {
        (self.tensors["embedding.extra"].1.len() / self.width()) as u32
    }

    /// Rows of codes, from factors.
    fn codes(&self, factors: &[f32]) -> Vec<f32> {
        let width = self.width();
        let mut out = Vec::with_capacity(width << 16);
        for code in 0..65_536usize {
            let digit = |i: usize| code >> (2 * i) & 3;
            let single = (0..8).map(|i| 4 * i + digit(i));
            let pairs = (0..8).flat_map(|a| (a + 1..8).map(move |b| (a, b))).enumerate();
            let pairs = pairs.map(|(p, (a, b))| 32 + 16 * p + 4 * digit(a) + digit(b));
            let mut row = vec![0.0f32; width];
            for f in single.chain(pairs) {
                row.iter_mut().zip(&factors[f * width..]).for_each(|(o, w)| *o += w);
            }
            out.extend(row);
        }
        out
    }

    /// A Llama folder: text ids first, then the codes, the end last.
    pub fn as_llama(&self) -> Tiny {
        let (width, others) = (self.width(), self.others() as usize);
        let size = 65_536 + others;
        let get = |name: &str| self.tensors[name].clone();
        let int = |key: &str| self.config[key].as_u64().unwrap() as usize;
        let layers =
            (0..).take_while(|l| self.tensors.contains_key(&format!("layers.{l}.qkv"))).count();
        let table = |factors: &[f32], extra: &[f32]| {
            let mut rows = extra[width..].to_vec();
            rows.resize((others - 1) * width, 0.0);
            rows.extend(self.codes(factors));
            rows.extend(&extra[..width]);
            (vec![size, width], rows)
        };
        let head = get("head").1;
        let mut tensors = BTreeMap::from([
            (
                "model.embed_tokens.weight".to_owned(),
                table(&get("embedding.factors").1, &get("embedding.extra").1),
            ),
            ("lm_head.weight".to_owned(), table(&head[..480 * width], &head[480 * width..])),
            ("model.norm.weight".to_owned(), get("final_norm")),
        ]);
        let size_of = int("head_dim");
        let (q, kv) = (int("heads") * size_of, int("kv_heads") * size_of);
        let mut ffn = 0;
        for l in 0..layers {
            let mut put = |name: &str, rows: std::ops::Range<usize>, from: &str| {
                let (shape, values) = get(&format!("layers.{l}.{from}"));
                let columns = shape[1];
                let part = values[rows.start * columns..rows.end * columns].to_vec();
                tensors.insert(
                    format!("model.layers.{l}.{name}.weight"),
                    (vec![rows.len(), columns], part),
                );
            };
            put("self_attn.q_proj", 0..q, "qkv");
            put("self_attn.k_proj", q..q + kv, "qkv");
            put("self_attn.v_proj", q + kv..q + 2 * kv, "qkv");
            put("self_attn.o_proj", 0..width, "attn_out");
            ffn = get(&format!("layers.{l}.gate_up")).0[0] / 2;
            put("mlp.gate_proj", 0..ffn, "gate_up");
            put("mlp.up_proj", ffn..2 * ffn, "gate_up");
            put("mlp.down_proj", 0..width, "down");
            for (name, from) in
                [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "mlp_norm")]
            {
                let norm = get(&format!("layers.{l}.{from}"));
                tensors.insert(format!("model.layers.{l}.{name}.weight"), norm);
            }
        }
        let config = json!({
            "model_type": "llama", "num_hidden_layers": layers, "hidden_size": width,
            "intermediate_size": ffn, "num_attention_heads": int("heads"),
            "num_key_value_heads": int("kv_heads"), "head_dim": size_of, "vocab_size": size,
            "max_position_embeddings": 512, "rms_norm_eps": self.config["epsilon"],
            "rope_theta": self.config["rope_base"], "tie_word_embeddings": false,
        });
        Tiny { config, tensors, tokenizer: self.tokenizer() }
    }

    fn tokenizer(&self) -> Json {
        let others = self.others();
        let names = ["<|begin|>", "<|start_of_speech|>", "<|pad|>"].map(str::to_owned);
        let names = names.into_iter().chain(self.characters.chars().map(String::from));
        let mut vocab: serde_json::Map<String, Json> =
            names.enumerate().map(|(i, n)| (n, json!(i))).collect();
        (0..65_536)
            .for_each(|i| drop(vocab.insert(format!("<|speech_{i}|>"), json!(others - 1 + i))));
        vocab.insert("<|end_of_speech|>".into(), json!(others + 65_535));
        let marks = ["<|begin|>", "<|start_of_speech|>", "<|pad|>", "<|end_of_speech|>"];
        let added = marks.map(|m| {
            json!({
                "id": vocab[m], "content": m, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            })
        });
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null, "post_processor": null, "decoder": null,
            "pre_tokenizer": {
                "type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false,
            },
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<|pad|>"},
        })
    }
}

/// Weights of the packed layout as floats.
fn unpack(packed: &[u8], scales: &[u8], n: usize, k: usize, bits: usize) -> Vec<f32> {
    let blocks = k / 32;
    let mut out = vec![0.0; n * k];
    for row in 0..n {
        for c in 0..k {
            let (block, c32) = (row / 16 * blocks + c / 32, c % 32);
            let at = |c: usize| block * 64 * bits + (c / 4 * 16 + row % 16) * 4 + c % 4;
            let q = match bits {
                8 => i32::from(packed[at(c32)]) - 128,
                _ if c32 < 16 => i32::from(packed[at(c32)] & 15) - 8,
                _ => i32::from(packed[at(c32 - 16)] >> 4) - 8,
            };
            let s = (block * 16 + row % 16) * 2;
            out[row * k + c] = q as f32 * f16::from_le_bytes([scales[s], scales[s + 1]]).to_f32();
        }
    }
    out
}

/// What a case changes: the folder with the model in it, and the options.
type Change = Box<dyn Fn(&Path, &mut Options)>;

struct Case {
    name: String,
    kind: ErrorKind,
    /// What the message must say.
    says: &'static str,
    change: Change,
}

/// Cases of wrong input.
pub struct Wrong(Vec<Case>);

impl Wrong {
    pub fn new() -> Self {
        Self(Vec::new())
    }
    pub fn count(&self) -> usize {
        self.0.len()
    }
    fn add(
        &mut self,
        name: &str,
        kind: ErrorKind,
        says: &'static str,
        change: impl Fn(&Path, &mut Options) + 'static,
    ) {
        self.0.push(Case { name: name.into(), kind, says, change: Box::new(change) });
    }

    /// A changed model as a folder.
    fn model(
        &mut self,
        name: &str,
        kind: ErrorKind,
        says: &'static str,
        change: impl Fn(&mut Tiny) + 'static,
    ) {
        self.add(name, kind, says, move |folder, _| {
            let mut tiny = Tiny::new("llama", 1);
            change(&mut tiny);
            tiny.write(folder);
        });
    }

    /// Changed bytes of a file of the folder.
    fn file(
        &mut self,
        name: &str,
        kind: ErrorKind,
        says: &'static str,
        file: &'static str,
        change: impl Fn(&mut Vec<u8>) + 'static,
    ) {
        self.add(name, kind, says, move |folder, _| {
            let mut bytes = std::fs::read(folder.join(file)).unwrap();
            change(&mut bytes);
            std::fs::write(folder.join(file), bytes).unwrap();
        });
    }

    /// A GGUF file in place of the folder.
    fn gguf(
        &mut self,
        name: &str,
        kind: ErrorKind,
        says: &'static str,
        bytes: impl Fn(Vec<u8>) -> Vec<u8> + 'static,
    ) {
        self.add(name, kind, says, move |folder, options| {
            let tiny = Tiny::new("llama", 1);
            options.model = folder.join("model.gguf");
            std::fs::write(&options.model, bytes(tiny.gguf(Dtype::Q8_0))).unwrap();
        });
    }

    /// PyTorch weights in place of safetensors.
    fn torch(
        &mut self,
        name: &str,
        kind: ErrorKind,
        says: &'static str,
        bytes: impl Fn(&Tiny) -> Vec<u8> + 'static,
    ) {
        self.add(name, kind, says, move |folder, _| {
            std::fs::remove_file(folder.join("model.safetensors")).unwrap();
            let tiny = Tiny::new("llama", 1);
            std::fs::write(folder.join("pytorch_model.bin"), bytes(&tiny)).unwrap();
        });
    }
}

/// Runs every case; those that did not end as they should.
pub fn fails(wrong: &Wrong) -> Vec<String> {
    let dir = Dir::new("wrong");
    let codec = codec(&dir);
    let mut failed = Vec::new();
    for (i, case) in wrong.0.iter().enumerate() {
        let (folder, out) = (dir.path(&format!("in{i}")), dir.path(&format!("out{i}")));
        Tiny::new("llama", 1).write(&folder);
        let mut options = Options::new(&folder, &out);
        options.codec = Some(codec.clone());
        (case.change)(&folder, &mut options);
        match import(&options, &mut |_, _, _| ()) {
            Ok(_) => failed.push(format!("{}: imported", case.name)),
            Err(e) => {
                let text = format!("{e:#}");
                if e.kind() != case.kind || !text.contains(case.says) {
                    failed.push(format!("{}: {:?} {text}", case.name, e.kind()));
                }
            }
        }
        if out.exists() && !case.name.starts_with("taken") {
            failed.push(format!("{}: left {}", case.name, out.display()));
        }
        let _ = std::fs::remove_dir_all(folder);
    }
    failed
}

use ErrorKind::{InvalidArgument, Malformed, Mismatch, Unreadable, Unsupported};

/// Replaces in the text of bytes; it must be there, and keep its length where `pad` is set.
fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
    bytes.splice(at..at + from.len(), to.bytes());
}

pub fn wrong_folders(w: &mut Wrong) {
    w.add("no folder", Unreadable, "does not exist", |folder, o| o.model = folder.join("nothing"));
    w.add("no config", Unreadable, "config.json", |f, _| {
        std::fs::remove_file(f.join("config.json")).unwrap();
    });
    w.add("no weights", Unreadable, "no weights", |f, _| {
        std::fs::remove_file(f.join("model.safetensors")).unwrap();
    });
    w.add("no tokenizer", Unreadable, "tokenizer.json", |f, _| {
        std::fs::remove_file(f.join("tokenizer.json")).unwrap();
    });
    w.file("config no JSON", Malformed, "not valid JSON", "config.json", |b| b.truncate(20));
    w.file("config not UTF-8", Malformed, "UTF-8", "config.json", |b| b[3] = 0xff);
    w.file("config a list", Malformed, "model_type", "config.json", |b| *b = b"[1]".to_vec());
    for (name, kind, says, key, value) in [
        ("another body", Unsupported, "mamba2", "model_type", json!("mamba2")),
        ("no layers", Malformed, "num_hidden_layers", "num_hidden_layers", json!(0)),
        ("absurd layers", Malformed, "num_hidden_layers", "num_hidden_layers", json!(1u64 << 40)),
        ("negative width", Malformed, "hidden_size", "hidden_size", json!(-32)),
        ("width no block", Unsupported, "32", "hidden_size", json!(40)),
        ("another width", Mismatch, "[280, 32]", "hidden_size", json!(64)),
        ("another feed-forward", Mismatch, "[64, 32]", "intermediate_size", json!(96)),
        ("more layers", Malformed, "model.layers.2", "num_hidden_layers", json!(3)),
        ("fewer layers", Unsupported, "model.layers.1", "num_hidden_layers", json!(1)),
        ("key heads", Malformed, "divide", "num_key_value_heads", json!(3)),
        ("other key heads", Mismatch, "k_proj", "num_key_value_heads", json!(2)),
        ("odd heads", Unsupported, "16", "head_dim", json!(24)),
        ("activation", Unsupported, "gelu", "hidden_act", json!("gelu_new")),
        ("yarn", Unsupported, "yarn", "rope_parameters", json!({"rope_type": "yarn", "factor": 2})),
        (
            "dynamic",
            Unsupported,
            "dynamic",
            "rope_scaling",
            json!({"type": "dynamic", "factor": 2}),
        ),
        ("no factor", Malformed, "factor", "rope_scaling", json!({"type": "linear"})),
        ("base", Malformed, "rope base", "rope_theta", json!(-1.0)),
        ("epsilon", Malformed, "epsilon", "rms_norm_eps", json!(0.0)),
        ("sliding", Unsupported, "sliding", "use_sliding_window", json!(true)),
        ("quantised", Unsupported, "quantised", "quantization_config", json!({"bits": 4})),
        ("vocabulary", Mismatch, "tokenizer of another model", "vocab_size", json!(100)),
        ("more rows", Mismatch, "[280, 32]", "vocab_size", json!(300)),
        ("context", InvalidArgument, "too short", "max_position_embeddings", json!(32)),
    ] {
        w.model(name, kind, says, move |t| t.config[key] = value.clone());
    }
    w.model("head missing", Malformed, "lm_head", |t| t.keep(|n| n != "lm_head.weight"));
    w.model("norm missing", Malformed, "model.norm.weight", |t| {
        t.keep(|n| n != "model.norm.weight")
    });
    w.model("matrix missing", Malformed, "v_proj", |t| {
        t.keep(|n| !n.contains("1.self_attn.v_proj"))
    });
    w.model("adapter", Unsupported, "lora_A", |t| {
        let one = t.tensors["model.norm.weight"].clone();
        t.tensors.insert("model.layers.0.self_attn.q_proj.lora_A.weight".into(), one);
    });
    w.model("QK norms of a llama", Unsupported, "q_norm", |t| {
        t.tensors
            .insert("model.layers.0.self_attn.q_norm.weight".into(), (vec![16], vec![1.0; 16]));
    });
    w.model("turned matrix", Mismatch, "q_proj", |t| {
        let q = t.tensors.get_mut("model.layers.0.self_attn.k_proj.weight").unwrap();
        q.0.reverse();
        let one = q.clone();
        t.tensors.insert("model.layers.0.self_attn.q_proj.weight".into(), one);
    });
    w.model("not a number", Malformed, "NaN", |t| {
        t.tensors.get_mut("model.layers.0.mlp.up_proj.weight").unwrap().1[77] = f32::NAN;
    });
    w.model("infinite norm", Malformed, "inf", |t| {
        t.tensors.get_mut("model.layers.1.input_layernorm.weight").unwrap().1[3] = f32::INFINITY;
    });
    w.model("embedding beyond f16", Malformed, "f16", |t| {
        t.tensors.get_mut("model.embed_tokens.weight").unwrap().1[9] = 1e6;
    });
    // Safetensors.
    let file = "model.safetensors";
    w.file("cut weights", Malformed, "safetensors", file, |b| b.truncate(b.len() - 100));
    w.file("cut header", Malformed, "safetensors", file, |b| b.truncate(300));
    w.file("weights of nothing", Unreadable, "empty", file, Vec::clear);
    w.file("absurd header", Malformed, "safetensors", file, |b| b[..8].fill(0x7f));
    w.file("text for weights", Malformed, "safetensors", file, |b| {
        *b = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n".to_vec();
    });
    w.file("absurd shape", Malformed, "safetensors", file, |b| replace(b, "[280,32]", "[999,99]"));
    w.file("integers", Mismatch, "not weights", file, |b| replace(b, "\"F32\"", "\"I32\""));
    w.file("odd type", Malformed, "safetensors", file, |b| replace(b, "\"F32\"", "\"Q32\""));
    w.add("8-bit floats", Unsupported, "F8", |f, _| {
        let view =
            ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F8_E4M3, vec![4], &[0; 4]);
        let bytes = ::safetensors::serialize([("w", view.unwrap())], None).unwrap();
        std::fs::write(f.join("model.safetensors"), bytes).unwrap();
    });
    w.add("two files", InvalidArgument, "several weight files", |f, _| {
        for name in ["a.safetensors", "b.safetensors"] {
            std::fs::copy(f.join("model.safetensors"), f.join(name)).unwrap();
        }
        std::fs::remove_file(f.join("model.safetensors")).unwrap();
    });
    // Shards.
    let mut shards = |name: &str, kind, says, change: fn(&Path)| {
        w.add(name, kind, says, move |f, _| {
            std::fs::remove_file(f.join("model.safetensors")).unwrap();
            Tiny::new("llama", 1).write_shards(f);
            change(f);
        });
    };
    shards("shard missing", Unreadable, "is missing", |f| {
        std::fs::remove_file(f.join("model-00002-of-00002.safetensors")).unwrap();
    });
    shards("shard of another export", Malformed, "has no tensor", |f| {
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        std::fs::copy(f.join(names[0]), f.join(names[1])).unwrap();
    });
    shards("index outside", Malformed, "no file name", |f| {
        let path = f.join("model.safetensors.index.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace("model-00002", "../model-00002")).unwrap();
    });
    shards("index empty", Malformed, "empty", |f| {
        std::fs::write(f.join("model.safetensors.index.json"), "{\"weight_map\": {}}").unwrap();
    });
    shards("index no index", Malformed, "weight_map", |f| {
        std::fs::write(f.join("model.safetensors.index.json"), "{}").unwrap();
    });
    shards("index short", Malformed, "does not list", |f| {
        let path = f.join("model.safetensors.index.json");
        let mut json: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json["weight_map"].as_object_mut().unwrap().remove("model.norm.weight");
        std::fs::write(path, json.to_string()).unwrap();
    });
    // Tokenizer.
    w.file("tokenizer no JSON", Malformed, "tokenizer", "tokenizer.json", |b| b.truncate(50));
    w.file("tokenizer of nothing", Malformed, "tokenizer", "tokenizer.json", |b| {
        *b = b"{}".to_vec()
    });
    let rename = |t: &mut Tiny, from: &str, to: &str| {
        let text = t.tokenizer.to_string();
        assert!(text.contains(from), "{from}");
        t.tokenizer = serde_json::from_str(&text.replace(from, to)).unwrap();
    };
    w.model("no speech", Unsupported, "no speech tokens", move |t| {
        rename(t, "<|speech_", "<|sound_");
    });
    w.model("no family", Unsupported, "no known family", move |t| {
        rename(t, "TEXT_PROMPT_START", "X")
    });
    w.model("no end", Malformed, "SPEECH_GENERATION_END", move |t| {
        rename(t, "SPEECH_GENERATION_END", "FIN");
    });
    w.model("a code missing", Malformed, "<|speech_9|>", move |t| {
        rename(t, "<|speech_9|>", "<|nine|>")
    });
    w.model("codes out of order", Unsupported, "follow each other", move |t| {
        rename(t, "<|speech_9|>", "<|a|>");
        rename(t, "<|speech_10|>", "<|speech_9|>");
        rename(t, "<|a|>", "<|speech_10|>");
    });
    w.model("codes of another codec", Mismatch, "codes", move |t| {
        rename(t, "<|speech_15|>", "<|x|>")
    });
    w.model("id beyond", Mismatch, "another model", |t| {
        let added = t.tokenizer["added_tokens"].as_array_mut().unwrap();
        added.push(json!({
            "id": 280, "content": "<|beyond|>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        }));
    });
}

pub fn wrong_gguf(w: &mut Wrong) {
    w.gguf("GGUF cut in its data", Malformed, "cut short", |mut b| {
        b.truncate(b.len() - 64);
        b
    });
    w.gguf("GGUF cut in its header", Malformed, "rest of the file", |mut b| {
        b.truncate(900);
        b
    });
    w.gguf("no GGUF", Unreadable, "no GGUF", |mut b| {
        b[0] = b'X';
        b
    });
    w.gguf("GGUF 1", Unsupported, "version", |mut b| {
        b[4] = 1;
        b
    });
    w.gguf("GGUF big-endian", Unsupported, "big-endian", |mut b| {
        b[4..8].reverse();
        b
    });
    w.gguf("GGUF of absurd counts", Malformed, "do not fit", |mut b| {
        b[8..16].fill(0x7f);
        b
    });
    w.gguf("GGUF of absurd text", Malformed, "do not fit", |mut b| {
        b[24..32].fill(0x7f);
        b
    });
    w.gguf("GGUF of another body", Unsupported, "llamb", |mut b| {
        let at = b.windows(5).position(|x| x == b"llama").unwrap();
        b[at + 4] = b'b';
        b
    });
    w.gguf("GGUF without layers", Malformed, "block_count", |mut b| {
        replace(&mut b, "llama.block_count", "llama.black_count");
        b
    });
    w.gguf("GGUF tensor by another name", Malformed, "blk.0.attn_q.weight", |mut b| {
        replace(&mut b, "blk.0.attn_q.weight", "blk.0.attn_z.weight");
        b
    });
    w.gguf("GGUF splits words otherwise", Unsupported, "tokenizer.json", |mut b| {
        replace(&mut b, "llama-bpe", "lloma-bpe");
        b
    });
    w.gguf("GGUF of another tokenizer", Unsupported, "byte-level", |mut b| {
        replace(&mut b, "gpt2", "bert");
        b
    });
    // The type stands behind the dimensions of a tensor.
    let kind = |b: &mut Vec<u8>, name: &str, rank: usize, to: u32| {
        let at = b.windows(name.len()).rposition(|x| x == name.as_bytes()).unwrap();
        b[at + name.len() + 4 + 8 * rank..][..4].copy_from_slice(&to.to_le_bytes());
    };
    w.gguf("GGUF of IQ blocks", Unsupported, "IQ", move |mut b| {
        kind(&mut b, "blk.0.attn_q.weight", 2, 16);
        b
    });
    w.gguf("GGUF of integers", Mismatch, "not weights", move |mut b| {
        kind(&mut b, "blk.0.attn_norm.weight", 1, 26);
        b
    });
    w.gguf("GGUF of cut blocks", Malformed, "cuts blocks", move |mut b| {
        kind(&mut b, "blk.0.attn_q.weight", 2, 14);
        b
    });
}

pub fn wrong_torch(w: &mut Wrong) {
    w.torch("torch no zip", Malformed, "PyTorch", |_| b"\x80\x02\x8a\nl\xfc\x9cF".to_vec());
    w.torch("torch cut", Malformed, "PyTorch", |t| {
        let mut b = t.torch(|_| true);
        b.truncate(b.len() / 2);
        b
    });
    w.torch("torch that calls", Unsupported, "posix.system", |_| {
        zip(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.", &[])
    });
    w.torch("torch that imports", Unsupported, "builtins.eval", |_| {
        zip(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", &[])
    });
    w.torch("torch that makes objects", Unsupported, "instruction", |_| {
        zip(b"\x80\x02(icollections\nOrderedDict\n.", &[])
    });
    w.torch("torch without a pickle", Malformed, "data.pkl", |_| zip_with(b"", &[], "a/b", &[]));
    w.torch("torch without tensors", Malformed, "no tensor", |_| zip(b"\x80\x02}.", &[]));
    w.torch("torch stack", Malformed, "stack", |_| zip(b"\x80\x02R.", &[]));
    w.torch("torch without end", Malformed, "too early", |_| zip(b"\x80\x02}", &[]));
    w.torch("torch big-endian", Unsupported, "big-endian", |_| {
        zip_with(b"\x80\x02}.", &[], "archive", &[("byteorder", b"big")])
    });
    w.torch("torch deep", Malformed, "deep", |_| {
        let mut p = b"\x80\x02}".to_vec();
        for _ in 0..100_000 {
            p.extend(b"X\x01\x00\x00\x00a}");
        }
        p.extend(std::iter::repeat_n(b's', 100_000));
        p.push(b'.');
        zip(&p, &[])
    });
    let view = |elements: usize, shape: &[usize], strides: &[usize], storage: usize| {
        let mut p = b"\x80\x02}(".to_vec();
        text(&mut p, "w");
        p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut p, "storage");
        p.extend(b"ctorch\nFloatStorage\n");
        text(&mut p, "0");
        text(&mut p, "cpu");
        int(&mut p, elements);
        p.extend(b"tQK\x00(");
        shape.iter().for_each(|&d| int(&mut p, d));
        p.extend(b"t(");
        strides.iter().for_each(|&d| int(&mut p, d));
        p.extend(b"t\x89}tRu.");
        zip(&p, &[vec![0; storage * 4]])
    };
    w.torch("torch beyond its storage", Malformed, "beyond", move |_| view(4, &[5], &[1], 4));
    w.torch("torch stride beyond", Malformed, "beyond", move |_| view(4, &[2, 2], &[3, 1], 4));
    w.torch("torch storage cut", Malformed, "another length", move |_| view(8, &[8], &[1], 4));
    w.torch("torch that repeats", Malformed, "repeats", move |_| {
        view(4, &[1 << 20, 2], &[0, 1], 4)
    });
    w.torch("torch of absurd shape", Malformed, "impossible", move |_| {
        view(4, &[1 << 30, 1 << 30, 1 << 30], &[0, 0, 0], 4)
    });
}

pub fn wrong_options(w: &mut Wrong) {
    w.add("no codec", InvalidArgument, "--codec", |_, o| o.codec = None);
    w.add("codec nowhere", Unreadable, "does not exist", |f, o| o.codec = Some(f.join("nothing")));
    w.add("codec no codec", Mismatch, "is no bundle", |f, o| {
        std::fs::create_dir(f.join("none")).unwrap();
        o.codec = Some(f.join("none"));
    });
    w.add("codec damaged", Mismatch, "not what its bundle.toml lists", |f, o| {
        let from = o.codec.clone().unwrap();
        let to = f.join("codec");
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let path = to.join("codec.onnx.data");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(path, bytes).unwrap();
        o.codec = Some(to);
    });
    w.add("three bits", InvalidArgument, "neither 4 nor 8", |_, o| o.bits = Some(3));
    w.add("short context", InvalidArgument, "too short", |_, o| o.context = Some(10));
    w.add("weights for a model", Unreadable, "name the folder", |f, o| {
        o.model = f.join("model.safetensors");
    });
    w.add("taken", InvalidArgument, "--force", |_, o| {
        std::fs::create_dir_all(&o.output).unwrap();
        std::fs::write(o.output.join("bundle.toml"), "").unwrap();
    });
}
