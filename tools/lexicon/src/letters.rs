//! Trains the letter model.

use std::collections::{BTreeMap, HashMap};

use voxgrain::speech::phonemes::letters::{Letters, Past, search, slot};

use crate::align::align;

pub struct Trained {
    pub bits: u32,
    pub chunks: Vec<String>,
    pub readings: Vec<Vec<u16>>,
    pub weights: Vec<i8>,
}

pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

impl Trained {
    pub fn read(&self, word: &str) -> Option<String> {
        search(
            word,
            |l| &self.readings[usize::from(l) - 1],
            |c| &self.chunks[usize::from(c)],
            |f, c| i32::from(self.weights[slot(f, c, self.bits)]),
        )
    }

    pub fn section(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.bits.to_le_bytes());
        out.extend((self.chunks.len() as u32).to_le_bytes());
        for list in &self.readings {
            out.push(list.len() as u8);
            for c in list {
                out.extend(c.to_le_bytes());
            }
        }
        for c in &self.chunks {
            out.push(c.len() as u8);
            out.extend(c.as_bytes());
        }
        out.extend(self.weights.iter().map(|&w| w as u8));
        out
    }
}

pub fn train(words: &[(String, String)], bits: u32, epochs: usize, l1: f32) -> Trained {
    let aligned = align(words);
    let mut counts: BTreeMap<(u8, String), usize> = BTreeMap::new();
    for ((word, _), chunks) in words.iter().zip(&aligned) {
        if let Some(chunks) = chunks {
            for (l, c) in word.bytes().zip(chunks) {
                *counts.entry((l, c.clone())).or_default() += 1;
            }
        }
    }
    counts.retain(|_, n| *n >= 12);
    let mut chunks: Vec<String> = counts.keys().map(|k| k.1.clone()).collect();
    chunks.sort();
    chunks.dedup();
    let id: HashMap<&str, u16> =
        chunks.iter().enumerate().map(|(i, c)| (c.as_str(), i as u16)).collect();
    let mut readings = vec![Vec::new(); 26];
    for (l, c) in counts.keys() {
        readings[usize::from(l - b'a')].push(id[c.as_str()]);
    }
    // Each word: letters and the place of the right chunk among its letter's readings.
    let mut data: Vec<(Letters, Vec<u8>)> = Vec::new();
    for ((word, _), chunked) in words.iter().zip(&aligned) {
        let (Some(chunked), Some(letters)) = (chunked, Letters::new(word)) else { continue };
        let right: Option<Vec<u8>> = (0..letters.len())
            .map(|i| {
                let list: &Vec<u16> = &readings[usize::from(letters.letter(i)) - 1];
                let want = *id.get(chunked[i].as_str())?;
                list.iter().position(|&c| c == want).map(|p| p as u8)
            })
            .collect();
        if let Some(right) = right {
            data.push((letters, right));
        }
    }
    eprintln!(
        "letters: {} of {} words aligned, {} chunks, readings a letter at most {}",
        data.len(),
        words.len(),
        chunks.len(),
        readings.iter().map(Vec::len).max().unwrap()
    );
    let size = 1usize << bits;
    let mut w = vec![0f32; size];
    let mut g = vec![1e-8f32; size];
    let mut rng = Rng(0x1234_5678_9ABC_DEF1);
    let mut order: Vec<usize> = (0..data.len()).collect();
    let mut slots: Vec<usize> = Vec::new();
    let mut scores: Vec<f32> = Vec::new();
    for epoch in 0..epochs {
        rng.shuffle(&mut order);
        let rate = 0.25 * (1.0 - epoch as f32 / epochs as f32).max(0.1);
        let (mut loss, mut seen, mut wrong) = (0f64, 0usize, 0usize);
        for &k in &order {
            let (letters, right) = &data[k];
            let mut past = Past::default();
            for i in 0..letters.len() {
                let list = &readings[usize::from(letters.letter(i)) - 1];
                let fixed = letters.features(i);
                let history = letters.history(i, &past);
                let per = fixed.len() + history.len();
                slots.clear();
                scores.clear();
                for &c in list {
                    let mut s = 0.0;
                    for &f in fixed.iter().chain(&history) {
                        let at = slot(f, c, bits);
                        slots.push(at);
                        s += w[at];
                    }
                    scores.push(s);
                }
                let top = scores.iter().cloned().fold(f32::MIN, f32::max);
                let total: f32 = scores.iter().map(|s| (s - top).exp()).sum();
                let want = usize::from(right[i]);
                let p = (scores[want] - top).exp() / total;
                loss -= f64::from(p.max(1e-9).ln());
                seen += 1;
                if scores[want] < top {
                    wrong += 1;
                }
                for (y, s) in scores.iter().enumerate() {
                    let grad = (s - top).exp() / total - if y == want { 1.0 } else { 0.0 };
                    if grad.abs() < 2e-4 {
                        continue;
                    }
                    for &at in &slots[y * per..(y + 1) * per] {
                        g[at] += grad * grad;
                        let step = rate / g[at].sqrt();
                        let mut x = w[at] - step * grad;
                        // Soft threshold: weights that help little become nothing.
                        let cut = l1 * step;
                        x = if x > cut {
                            x - cut
                        } else if x < -cut {
                            x + cut
                        } else {
                            0.0
                        };
                        w[at] = x;
                    }
                }
                let chunk = list[want];
                past = past.then(chunk, &chunks[usize::from(chunk)]);
            }
        }
        eprintln!(
            "  epoch {epoch}: loss {:.4}, wrong {:.4}, weights used {:.3}",
            loss / seen as f64,
            wrong as f64 / seen as f64,
            w.iter().filter(|x| **x != 0.0).count() as f64 / size as f64
        );
    }
    let mut sizes: Vec<f32> = w.iter().map(|x| x.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let scale = sizes[size - 1 - size / 2000] / 127.0;
    let weights = w.iter().map(|x| (x / scale).round().clamp(-127.0, 127.0) as i8).collect();
    Trained { bits, chunks, readings, weights }
}

/// Edit distance in symbols.
pub fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut corner = row[0];
        row[0] = i;
        for j in 1..=b.len() {
            let up = row[j];
            row[j] = (corner + usize::from(a[i - 1] != b[j - 1])).min(up + 1).min(row[j - 1] + 1);
            corner = up;
        }
    }
    row[b.len()]
}

/// Errors by symbol with stress, errors by sound without, words all right with and without.
pub fn measure(
    held: &[(String, String)],
    read: impl Fn(&str) -> Option<String>,
) -> (f64, f64, f64, f64) {
    let (mut e, mut n, mut eb, mut nb, mut ok, mut okb) = (0, 0, 0, 0, 0, 0);
    for (word, want) in held {
        let got = read(word).unwrap_or_default();
        let plain = |s: &str| s.chars().filter(|c| !"ˈˌ".contains(*c)).collect::<Vec<char>>();
        let (a, b): (Vec<char>, Vec<char>) = (got.chars().collect(), want.chars().collect());
        let d = distance(&a, &b);
        e += d;
        n += b.len();
        ok += usize::from(d == 0);
        let (a, b) = (plain(&got), plain(want));
        let d = distance(&a, &b);
        eb += d;
        nb += b.len();
        okb += usize::from(d == 0);
    }
    let k = held.len() as f64;
    (e as f64 / n as f64, eb as f64 / nb as f64, ok as f64 / k, okb as f64 / k)
}
