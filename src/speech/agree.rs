//! What a description and its graphs both say: compared when a voice is opened, so that neither
//! `inspect` nor a memory budget believes one that the other contradicts.

use crate::bundle::{Bundle, FILE_NAME, LanguageModel};
use crate::engine::Model;
use crate::{Error, ErrorKind, Result};

/// What sessions keep may be so many times the weights, and this in any case.
const STATE_GROWTH: usize = 64;
const STATE_ALLOWANCE: usize = 256 << 20;

/// # Errors
/// `Mismatch`, naming the key and what the graph has.
pub(super) fn agree(bundle: &Bundle, target: &Model, draft: &Model, codec: &Model) -> Result<()> {
    language_model(bundle, "target", &bundle.target, target)?;
    language_model(bundle, "draft", &bundle.draft, draft)?;
    let (found, hidden, taps) = (draft.feature_width(), target.hidden_width(), target.taps());
    same("draft.features", bundle.draft.features, &bundle.draft.file, found)?;
    if ![0, hidden, (taps + 1) * hidden].contains(&found) {
        let what = format!(
            "{} reads {found} features, {} gives {hidden} and {taps} taps of that width",
            bundle.draft.file, bundle.target.file
        );
        return Err(apart(what));
    }

    let (audio, file) = (&bundle.audio, &bundle.codec.file);
    let (rows, columns) = (codec.rows_per_token(), codec.output_columns());
    if rows != audio.spectra_per_frame() {
        let what = format!(
            "{file} gives {rows} spectra a token, audio.hop and audio.frame_rate_hz of {FILE_NAME} \
             make {}",
            audio.spectra_per_frame()
        );
        return Err(apart(what));
    }
    if columns != 2 * audio.bins() {
        let what = format!(
            "{file} gives {columns} values a spectrum, audio.fft_size {} of {FILE_NAME} needs {}",
            audio.fft_size,
            2 * audio.bins()
        );
        return Err(apart(what));
    }
    Ok(())
}

fn language_model(bundle: &Bundle, key: &str, said: &LanguageModel, model: &Model) -> Result<()> {
    let equal = |name: &str, expected: usize, found: usize| {
        same(&format!("{key}.{name}"), expected, &said.file, found)
    };
    equal("(rows a token)", 1, model.rows_per_token())?;
    // A model without attention, or of layers that differ, is no transformer as described.
    let (layers, kv_heads, head_dim) = model.attention().unwrap_or_default();
    equal("layers", said.layers, layers)?;
    equal("kv_heads", said.kv_heads, kv_heads)?;
    equal("head_dim", said.head_dim, head_dim)?;
    if model.embedding_width() > 0 {
        equal("hidden", said.hidden, model.embedding_width())?;
    }
    if model.hidden_width() > 0 {
        equal("hidden", said.hidden, model.hidden_width())?;
    }
    if !model.has_width(said.ffn) {
        let what = format!(
            "{} has no values of {key}.ffn {} columns, which {FILE_NAME} says",
            said.file, said.ffn
        );
        return Err(apart(what));
    }
    if let Some(base) = model.rope_base()
        && base != said.rope_base
    {
        let what = format!(
            "{FILE_NAME} says {key}.rope_base {}, {} has {base}",
            said.rope_base, said.file
        );
        return Err(apart(what));
    }
    // Every id of a prompt has a row, or the text would be refused word by word.
    let ids = bundle.vocabulary.len();
    if model.known_tokens() > 0 && model.known_tokens() < ids {
        let what = format!(
            "the vocabulary of {FILE_NAME} has {ids} ids, {} knows {}",
            said.file,
            model.known_tokens()
        );
        return Err(apart(what));
    }
    let state = model.state_bytes(said.max_positions);
    if state > STATE_GROWTH.saturating_mul(model.mapped_bytes()).saturating_add(STATE_ALLOWANCE) {
        let what = format!(
            "{key}.max_positions {} would take {state} bytes a session, which the weights of {} do \
             not account for",
            said.max_positions, said.file
        );
        return Err(apart(what));
    }
    Ok(())
}

fn same(key: &str, said: usize, file: &str, found: usize) -> Result<()> {
    if said == found {
        return Ok(());
    }
    Err(apart(format!("{FILE_NAME} says {key} {said}, {file} has {found}")))
}

fn apart(what: String) -> Error {
    let what = format!("{what}: they do not belong together; copy the bundle again");
    Error::new(ErrorKind::Mismatch, what)
}
