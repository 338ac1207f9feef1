//! Byte-level BPE: the tokenizer that an imported model was trained with, run by the crate that
//! defines its format.

use crate::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::Arc;
use tokenizers::Tokenizer;

/// A `tokenizer.json`; clones share it.
#[derive(Clone)]
pub struct Bpe {
    inner: Arc<Tokenizer>,
}

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bpe({} tokens)", self.inner.get_vocab_size(true))
    }
}

impl Bpe {
    /// Reads the text of a `tokenizer.json`; `name` is for messages.
    ///
    /// # Errors
    /// `Malformed` if it is none.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self> {
        let bad = |e: tokenizers::Error| {
            let what = format!("{name} is no tokenizer.json that can be read");
            Error::with_source(ErrorKind::Malformed, what, e)
        };
        let mut inner = Tokenizer::from_bytes(bytes).map_err(bad)?;
        // A text that names a control token must not become one.
        inner.set_encode_special_tokens(true);
        // Settings of a training run, which would cut or fill prompts.
        inner.with_truncation(None).map_err(bad)?;
        inner.with_padding(None);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The id of a token by its name.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether a token was added to the vocabulary by its name, rather than learnt.
    pub fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().contains_key(&id)
    }

    /// Every token and its id.
    pub fn ids(&self) -> HashMap<String, u32> {
        self.inner.get_vocab(true).into_iter().collect()
    }

    /// Names of the tokens that are put before any text, such as `<|begin_of_text|>`.
    ///
    /// # Errors
    /// `Malformed` if not even a letter can be encoded.
    pub fn before(&self) -> Result<Vec<String>> {
        let (with, without) = (self.ids_of("a", true)?, self.ids_of("a", false)?);
        let at = with.windows(without.len().max(1)).position(|w| w == without).unwrap_or(0);
        Ok(with[..at].iter().filter_map(|id| self.inner.id_to_token(*id)).collect())
    }

    /// The ids of a text, nothing put around it.
    ///
    /// # Errors
    /// `InvalidText` if the vocabulary has no tokens for it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids_of(text, false)
    }

    fn ids_of(&self, text: &str, around: bool) -> Result<Vec<u32>> {
        let encoded = self.inner.encode_fast(text, around).map_err(|e| {
            let what = "the model's tokenizer has no tokens for the text";
            Error::with_source(ErrorKind::InvalidText, what, e)
        })?;
        Ok(encoded.get_ids().to_vec())
    }
}
