//! Speech tokens of a reference voice: a PyTorch tensor, a NumPy array, a JSON list or numbers in a
//! text.

use super::source::{TensorSource, malformed, unsupported};
use super::{files, pickle};
use crate::map::Map;
use crate::{Error, ErrorKind, Result};
use std::path::Path;

/// Longest list: half an hour at 50 a second.
const MOST: usize = 90_000;

/// Reads the file, by its extension: `.pt`, `.pth`, `.npy`, `.json`; anything else is text.
///
/// # Errors
/// `Unreadable`; `Malformed` or `Mismatch` if it does not hold tokens, `Unsupported` for element
/// types that no tokens are of.
pub fn read(path: &Path) -> Result<Vec<u32>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let numbers = match extension {
        "pt" | "pth" => {
            let tensors = pickle::open(path)?;
            let mut all = tensors.tensors.values();
            match (all.next(), all.next()) {
                (Some(one), None) => one.to_integers()?,
                _ => {
                    let names: Vec<&str> = tensors.tensors().keys().map(String::as_str).collect();
                    return Err(malformed(format!(
                        "{} holds the tensors {}: one is wanted",
                        path.display(),
                        names.join(", ")
                    )));
                }
            }
        }
        "npy" => npy(&Map::open(path)?)?,
        "json" => {
            let mut all = Vec::new();
            flatten(&files::read_json(path)?, &mut all, 0).ok_or_else(|| {
                malformed(format!("{} is no list of whole numbers", path.display()))
            })?;
            all
        }
        _ => {
            let text = files::read_text(path, 1 << 20)?;
            let words = text.split(|c: char| c.is_whitespace() || c == ',');
            let number = |w: &str| {
                w.parse::<i64>().map_err(|e| {
                    let what = format!("{}: {w:?} is no speech token", path.display());
                    Error::with_source(ErrorKind::Malformed, what, e)
                })
            };
            words.filter(|w| !w.is_empty()).map(number).collect::<Result<_>>()?
        }
    };
    if numbers.is_empty() || numbers.len() > MOST {
        return Err(malformed(format!(
            "{} holds {} speech tokens, 1 to {MOST} are a voice",
            path.display(),
            numbers.len()
        )));
    }
    let one = |n: i64| {
        u32::try_from(n).map_err(|_| {
            malformed(format!("{} holds {n}, which is no speech token", path.display()))
        })
    };
    numbers.into_iter().map(one).collect()
}

fn flatten(json: &serde_json::Value, out: &mut Vec<i64>, depth: usize) -> Option<()> {
    match json {
        serde_json::Value::Array(all) if depth < 8 => {
            all.iter().try_for_each(|v| flatten(v, out, depth + 1))
        }
        serde_json::Value::Number(n) => {
            out.push(n.as_i64()?);
            Some(())
        }
        _ => None,
    }
}

/// NumPy's own format, versions 1 to 3: a header of text, then the elements.
fn npy(map: &Map) -> Result<Vec<i64>> {
    let bad = |what: &str| malformed(format!("{} {what}", map.name()));
    let version = map.get(..8).filter(|m| m.starts_with(b"\x93NUMPY")).map(|m| m[6]);
    let (start, length) = match version {
        Some(1) => (10, map.get(8..10).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8)),
        Some(2 | 3) => {
            (12, map.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize))
        }
        _ => return Err(bad("is no .npy file of version 1 to 3")),
    };
    let end = length.and_then(|n| usize::checked_add(start, n));
    let header =
        end.and_then(|end| map.get(start..end)).ok_or_else(|| bad("ends in its header"))?;
    let header = std::str::from_utf8(header).map_err(|_| bad("has a header that is no text"))?;
    let kind = header.split("'descr':").nth(1).and_then(|t| t.split('\'').nth(1));
    let body = &map[start + header.len()..];
    fn all<const N: usize>(body: &[u8], f: impl Fn([u8; N]) -> i64) -> Option<Vec<i64>> {
        let (whole, rest) = body.as_chunks::<N>();
        rest.is_empty().then(|| whole.iter().map(|c| f(*c)).collect())
    }
    let found = match kind {
        Some("<i8") => all(body, i64::from_le_bytes),
        Some("<i4") => all(body, |c| i32::from_le_bytes(c).into()),
        Some("<i2") => all(body, |c| i16::from_le_bytes(c).into()),
        Some("<u4") => all(body, |c| u32::from_le_bytes(c).into()),
        Some("<u2") => all(body, |c| u16::from_le_bytes(c).into()),
        Some("|u1") => all(body, |c: [u8; 1]| c[0].into()),
        other => {
            return Err(unsupported(format!(
                "{} holds elements of type {:?}; whole numbers of 8, 16, 32 or 64 bits are tokens",
                map.name(),
                other.unwrap_or("unknown")
            )));
        }
    };
    found.ok_or_else(|| bad("is cut short"))
}
