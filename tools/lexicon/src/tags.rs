//! Trains the tagger from texts tagged by the oracle.

use voxgrain::speech::phonemes::tagger::{FEATURES, Shape, Tag, features, search, slot};

use crate::letters::Rng;

pub struct Sentence {
    shapes: Vec<Shape>,
    tags: Vec<Tag>,
}

/// A sentence from (token, Penn tag) pairs; `lower`: as a text in lower case has it.
pub fn sentence(tokens: &[(String, String)], lower: bool) -> Sentence {
    let mut shapes = Vec::new();
    let mut tags = Vec::new();
    for (text, tag) in tokens {
        let text = text.replace('\u{2019}', "'");
        let shape = if lower { Shape::new(&text.to_lowercase()) } else { Shape::new(&text) };
        let tag = if shape.is_mark() { Tag::Mark } else { Tag::from_penn(tag) };
        // A word with a mark's tag teaches nothing.
        let tag = if tag == Tag::Mark && !shape.is_mark() { Tag::Other } else { tag };
        shapes.push(shape);
        tags.push(tag);
    }
    Sentence { shapes, tags }
}

/// Averaged perceptron in a table of `1 << bits` weights; the section.
pub fn train(sentences: &[Sentence], bits: u32, epochs: usize) -> Vec<u8> {
    let size = 1usize << bits;
    let (mut w, mut sum, mut when) = (vec![0f32; size], vec![0f64; size], vec![0u32; size]);
    let mut step = 1u32;
    let mut rng = Rng(99);
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    for epoch in 0..epochs {
        rng.shuffle(&mut order);
        let (mut wrong, mut seen) = (0usize, 0usize);
        for &k in &order {
            let s = &sentences[k];
            let mut before = [Tag::Mark; 2];
            for i in 0..s.shapes.len() {
                let right = s.tags[i];
                if s.shapes[i].is_mark() {
                    before = [Tag::Mark, before[0]];
                    continue;
                }
                let f: [u32; FEATURES] = features(&s.shapes, i, before);
                let score = |t: Tag, w: &[f32]| -> f32 {
                    f.iter().map(|&x| w[slot(x, t as usize, bits)]).sum()
                };
                let mut best = (f32::MIN, Tag::Noun);
                for t in Tag::ALL {
                    if t != Tag::Mark {
                        let s = score(t, &w);
                        if s > best.0 {
                            best = (s, t);
                        }
                    }
                }
                seen += 1;
                if best.1 != right {
                    wrong += 1;
                    for (tag, by) in [(right, 1.0f32), (best.1, -1.0)] {
                        for &x in &f {
                            let at = slot(x, tag as usize, bits);
                            sum[at] += f64::from(step - when[at]) * f64::from(w[at]);
                            when[at] = step;
                            w[at] += by;
                        }
                    }
                }
                step += 1;
                // Its own guesses to the left, as it will have them.
                before = [best.1, before[0]];
            }
        }
        eprintln!("  tagger epoch {epoch}: wrong {:.4}", wrong as f64 / seen as f64);
    }
    let mean: Vec<f32> = (0..size)
        .map(|at| {
            ((sum[at] + f64::from(step - when[at]) * f64::from(w[at])) / f64::from(step)) as f32
        })
        .collect();
    let mut sizes: Vec<f32> = mean.iter().map(|x| x.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let scale = sizes[size - 1 - size / 1000] / 127.0;
    let mut section = bits.to_le_bytes().to_vec();
    section.extend(mean.iter().map(|x| (x / scale).round().clamp(-127.0, 127.0) as i8 as u8));
    section
}

/// Share of words with the oracle's tag.
pub fn accuracy(section: &[u8], sentences: &[Sentence]) -> f64 {
    let bits = u32::from_le_bytes(section[..4].try_into().unwrap());
    let (mut right, mut seen) = (0, 0);
    for s in sentences {
        let got = search(&s.shapes, |f, t| i32::from(section[4 + slot(f, t, bits)] as i8));
        for (i, t) in got.iter().enumerate() {
            if !s.shapes[i].is_mark() {
                seen += 1;
                right += usize::from(*t == s.tags[i]);
            }
        }
    }
    right as f64 / seen as f64
}
