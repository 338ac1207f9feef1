//! The tokenizer of a model: `tokenizer.json` beside it, or the vocabulary that a GGUF file carries
//! written as one.

use super::gguf::{Gguf, Value};
use super::source::{malformed, unsupported};
use crate::Result;
use serde_json::{Value as Json, json};

/// How a text is split before pairs are merged: the published patterns of Llama 3 and Qwen 2, which
/// differ in how many digits stay together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Types of tokens in a GGUF file.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// A `tokenizer.json` of the vocabulary in a GGUF file.
///
/// # Errors
/// `Unsupported` if it is no byte-level BPE of a kind that is known here: the model's own
/// `tokenizer.json` does then.
pub fn from_gguf(gguf: &Gguf) -> Result<Vec<u8>> {
    let name = &gguf.tensors.origin;
    let bad = |what: &str| malformed(format!("{name}: its vocabulary {what}"));
    let own = "give the model's own with --tokenizer tokenizer.json";
    match gguf.text("tokenizer.ggml.model") {
        Some("gpt2") => {}
        None => return Err(unsupported(format!("{name} carries no tokenizer: {own}"))),
        Some(other) => {
            return Err(unsupported(format!(
                "{name} carries a tokenizer of kind {other:?}, not byte-level BPE: {own}"
            )));
        }
    }
    let (pattern, whole_words, normalizer) = match gguf.text("tokenizer.ggml.pre") {
        Some("llama-bpe" | "llama3" | "llama-v3") => (LLAMA3, true, Json::Null),
        Some("qwen2") => (QWEN2, false, json!({"type": "NFC"})),
        other => {
            return Err(unsupported(format!(
                "{name} splits words by {:?}, which is not known here: {own}",
                other.unwrap_or("an unnamed rule")
            )));
        }
    };
    let tokens = gguf.texts("tokenizer.ggml.tokens").ok_or_else(|| bad("has no tokens"))?;
    let merges = gguf.texts("tokenizer.ggml.merges").ok_or_else(|| bad("has no merges"))?;
    let types = gguf.integers("tokenizer.ggml.token_type").unwrap_or_default();
    if !types.is_empty() && types.len() != tokens.len() {
        return Err(bad("has another number of types than of tokens"));
    }
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let kind = types.get(id).copied().unwrap_or(1);
        if matches!(kind, CONTROL | USER_DEFINED) {
            added.push(json!({
                "id": id, "content": token, "special": kind == CONTROL, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
        // Added tokens too: those that the model does not know get the next free ids, not theirs.
        if vocab.insert((*token).to_owned(), json!(id)).is_some() {
            return Err(bad(&format!("has {token:?} twice")));
        }
    }
    let mut byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    let bos = gguf.size("tokenizer.ggml.bos_token_id").and_then(|id| tokens.get(id).zip(Some(id)));
    let adds_bos =
        matches!(gguf.metadata.get("tokenizer.ggml.add_bos_token"), Some(Value::Bool(true)));
    let post = match bos.filter(|_| adds_bos) {
        Some((token, id)) => json!({
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": token, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": token, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {*token: {"id": token, "ids": [id], "tokens": [token]}},
        }),
        None => byte_level.clone(),
    };
    let split = json!({
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level.clone()]},
        "post_processor": post,
        "decoder": byte_level.take(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": whole_words, "vocab": vocab, "merges": merges,
        },
    });
    Ok(tokenizer.to_string().into_bytes())
}
