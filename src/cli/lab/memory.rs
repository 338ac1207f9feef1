//! How fast memory is read, by threads that sum it.

use crate::cli::bench::machine;
use std::time::{Duration, Instant};

/// Memory larger than the caches to read from: eight times the largest cache, within 128 to
/// 512 MB and a quarter of what is free.
pub fn field() -> Vec<u8> {
    let cache = machine::describe(1).cache_bytes.unwrap_or(4 << 20);
    let free = machine::available_bytes().unwrap_or(1 << 30) / 4;
    let bytes = (8 * cache).clamp(128 << 20, 512 << 20).min(free).max(1 << 20);
    // Written, so that every page is there.
    (0..bytes).map(|i| (i >> 6) as u8).collect()
}

/// GB/s at which `threads` sum `parts`, the best of passes over `budget`.
pub fn read_gb_s(parts: &[&[u8]], threads: usize, budget: Duration) -> f64 {
    let bytes: usize = parts.iter().map(|p| p.len()).sum();
    let begin = Instant::now();
    let mut best = 0.0f64;
    while best == 0.0 || begin.elapsed() < budget {
        let clock = Instant::now();
        std::thread::scope(|s| {
            for t in 0..threads {
                s.spawn(move || {
                    for part in parts {
                        let (a, b) = (part.len() * t / threads, part.len() * (t + 1) / threads);
                        std::hint::black_box(sum(&part[a..b]));
                    }
                });
            }
        });
        best = best.max(bytes as f64 / clock.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// As many sums as registers hold, so that only the memory is waited for.
fn sum(bytes: &[u8]) -> u64 {
    let mut acc = [0u64; 16];
    for chunk in bytes.chunks_exact(128) {
        for (a, w) in acc.iter_mut().zip(chunk.chunks_exact(8)) {
            let word = [w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]];
            *a = a.wrapping_add(u64::from_le_bytes(word));
        }
    }
    acc.iter().fold(0, |a, b| a.wrapping_add(*b))
}
