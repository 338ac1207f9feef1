//! What markup a text has.

use super::html;
use super::markdown;
use super::plain::{Markup, Plain};
use super::ssml;
use crate::Result;

/// Takes the markup off a text.
pub(super) fn plain(text: &str, markup: Markup) -> Result<Plain<'_>> {
    match markup {
        Markup::None => Ok(Plain::bare(text)),
        Markup::Ssml => ssml::plain(text),
        Markup::Markdown => Ok(markdown::plain(text, false)),
        Markup::Auto if ssml::begins(text) => ssml::plain(text),
        Markup::Auto if markdown::signs(text) || html::signs(text) => {
            Ok(markdown::plain(text, true))
        }
        Markup::Auto => Ok(Plain::bare(text)),
    }
}
