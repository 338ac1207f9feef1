//! Whether the models of a bundle are what its description says.

use super::codec;
use crate::bundle::{Bundle, FILE_NAME, LanguageModel};
use crate::engine::{AttentionShape, Model};
use crate::{Error, ErrorKind, Result};
use std::fmt::Display;

/// What sessions keep may be so many times the weights, and this in any case.
const STATE_GROWTH: usize = 64;
const STATE_ALLOWANCE: usize = 256 << 20;

/// Compares all that both state.
///
/// # Errors
/// `Mismatch`, naming the first two values that differ.
pub(super) fn check(
    bundle: &Bundle,
    target: &Model,
    draft: Option<&Model>,
    decoder: &Model,
) -> Result<()> {
    language_model(bundle, "target", &bundle.target, target)?;
    if let (Some(section), Some(model)) = (&bundle.draft, draft) {
        language_model(bundle, "draft", section, model)?;
        let (read, hidden, taps) = (model.feature_width(), target.hidden_width(), target.taps());
        if ![0, hidden, (taps + 1) * hidden].contains(&read) {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{} reads {read} features, {} gives {hidden} and {taps} taps of that width: \
                     they do not belong together; copy the bundle again",
                    section.file, bundle.target.file
                ),
            ));
        }
    }
    codec::check(decoder, &bundle.audio, &bundle.codec)
}

fn language_model(
    bundle: &Bundle,
    section: &str,
    said: &LanguageModel,
    model: &Model,
) -> Result<()> {
    let file = &said.file;
    let attention = model.attention();
    let key = |key: &str| format!("{section}.{key}");
    same(file, "attention layers", attention.len(), &key("layers"), said.layers)?;
    for a in attention {
        let &AttentionShape { heads, kv_heads, head_dim, rope_base, qk_norm, .. } = a;
        same(file, "heads", heads, &key("heads"), said.heads)?;
        same(file, "key heads", kv_heads, &key("kv_heads"), said.kv_heads)?;
        same(file, "channels a head", head_dim, &key("head_dim"), said.head_dim)?;
        // A table of frequencies in the graph says more than any base.
        if let (Some(found), Some(said)) = (rope_base, said.rope_base) {
            same(file, "the rotary base", found, &key("rope_base"), said)?;
        }
        if let Some(said) = said.qk_norm {
            same(file, "norms of queries and keys", qk_norm, &key("qk_norm"), said)?;
        }
    }
    let hidden = [model.embedding_width(), model.hidden_width()];
    for width in hidden.into_iter().filter(|&w| w > 0) {
        same(file, "the width", width, &key("hidden"), said.hidden)?;
    }
    if let Some(columns) = model.feed_forward_columns() {
        same(file, "feed-forward columns", columns, &key("ffn"), said.ffn)?;
    }
    let state = model.state_bytes(said.max_positions);
    if state > STATE_GROWTH.saturating_mul(model.mapped_bytes()).saturating_add(STATE_ALLOWANCE) {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "{section}.max_positions {} of {FILE_NAME} would take {state} bytes a session, which \
                 the weights of {file} do not account for: copy the bundle again",
                said.max_positions
            ),
        ));
    }
    same(file, "features", model.feature_width(), &key("features"), said.features)?;
    let vocabulary = &bundle.vocabulary;
    let (speech, scored) = (vocabulary.speech, vocabulary.scored());
    let what = format!("vocabulary.speech {speech}, with the end of speech,");
    same(file, "scored tokens", model.output_columns(), &what, scored)?;
    // Rows behind the last id are never read.
    let (known, ids) = (model.known_tokens(), vocabulary.len());
    let key = if vocabulary.size.is_some() { "vocabulary.size" } else { "the vocabulary's ids" };
    let enough = vocabulary.size.is_none() && known >= ids;
    same(file, "tokens with an embedding", if enough { ids } else { known }, key, ids)
}

fn same<T: PartialEq + Display>(
    file: &str,
    what: &str,
    found: T,
    key: &str,
    said: T,
) -> Result<()> {
    if found == said {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Mismatch,
        format!(
            "{file} and {FILE_NAME} contradict each other: {what} {found} in the graph, {said} by \
             {key}; export the voice again or correct the description"
        ),
    ))
}
