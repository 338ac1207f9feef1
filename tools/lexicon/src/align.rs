//! Letters and phonemes of a word side by side.

use std::collections::HashMap;

/// Phonemes with their stress marks.
pub fn units(phonemes: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut mark = String::new();
    for c in phonemes.chars() {
        if "ˈˌ".contains(c) {
            mark = c.to_string();
        } else if c == 'ː' && !out.is_empty() {
            out.last_mut().unwrap().push(c);
        } else {
            out.push(format!("{mark}{c}"));
            mark.clear();
        }
    }
    out
}

fn bare(unit: &str) -> String {
    unit.trim_start_matches(['ˈ', 'ˌ']).to_string()
}

/// Chunks of 0 to 2 units for each letter, found by expectation maximisation on Viterbi paths.
pub fn align(words: &[(String, String)]) -> Vec<Option<Vec<String>>> {
    // Costs by (letter, chunk without stress marks).
    let mut cost: HashMap<(u8, String), f32> = HashMap::new();
    let mut result = vec![None; words.len()];
    let split: Vec<(Vec<u8>, Vec<String>, Vec<String>)> = words
        .iter()
        .map(|(w, p)| {
            let u = units(p);
            let b = u.iter().map(|x| bare(x)).collect();
            (w.bytes().collect(), u, b)
        })
        .collect();
    for round in 0..7 {
        let mut counts: HashMap<(u8, String), f32> = HashMap::new();
        for (k, (letters, full, plain)) in split.iter().enumerate() {
            let (n, m) = (letters.len(), plain.len());
            if m > 2 * n || m == 0 {
                continue;
            }
            let inf = f32::MAX / 4.0;
            let mut best = vec![vec![inf; m + 1]; n + 1];
            let mut from = vec![vec![0u8; m + 1]; n + 1];
            best[0][0] = 0.0;
            for i in 0..n {
                for j in 0..=m {
                    if best[i][j] >= inf {
                        continue;
                    }
                    for take in 0..=2usize {
                        if j + take > m {
                            break;
                        }
                        let chunk = plain[j..j + take].concat();
                        let price = if round == 0 {
                            // Even lengths along the diagonal to begin with.
                            let slant =
                                ((j + take) as f32 / m as f32 - (i + 1) as f32 / n as f32).abs();
                            [1.2, 0.5, 2.5][take] + slant * 3.0
                        } else {
                            cost.get(&(letters[i], chunk)).copied().unwrap_or(14.0)
                        };
                        let total = best[i][j] + price;
                        if total < best[i + 1][j + take] {
                            best[i + 1][j + take] = total;
                            from[i + 1][j + take] = take as u8;
                        }
                    }
                }
            }
            if best[n][m] >= inf {
                continue;
            }
            let mut chunks = vec![String::new(); n];
            let mut j = m;
            for i in (0..n).rev() {
                let take = from[i + 1][j] as usize;
                *counts.entry((letters[i], plain[j - take..j].concat())).or_default() += 1.0;
                chunks[i] = full[j - take..j].concat();
                j -= take;
            }
            result[k] = Some(chunks);
        }
        let mut totals = [0.0f32; 256];
        for ((l, _), c) in &counts {
            totals[*l as usize] += c;
        }
        cost = counts
            .into_iter()
            .map(|((l, chunk), c)| {
                let price = -((c + 0.01) / totals[l as usize]).ln();
                ((l, chunk), price.min(13.0))
            })
            .collect();
    }
    result
}
