//! Caches emptied between rounds: every round then reads its weights from memory, as on a board
//! or with a model that no cache holds.

use std::hint::black_box;

/// Where the system does not say how large its caches are, and the most that is read.
const UNKNOWN: u64 = 64 << 20;
const MOST: u64 = 512 << 20;
/// Bytes of a line, or less.
const LINE: usize = 64;

/// What is read to fill the caches with something else.
pub struct Caches {
    words: Vec<u64>,
    threads: usize,
}

impl Caches {
    /// For the largest cache of the machine, if it is known: twice as much is read, at most
    /// 512 MiB.
    pub fn of(largest: Option<u64>, threads: usize) -> Self {
        Self::new(enough(largest), threads)
    }

    /// So many bytes are read, by as many threads as compute, since each core has caches of its own.
    pub fn new(bytes: u64, threads: usize) -> Self {
        // Written, so that it is there and not one page of zeros.
        Self { words: vec![1; bytes as usize / size_of::<u64>()], threads }
    }

    /// Bytes that one emptying reads.
    pub fn bytes(&self) -> u64 {
        (self.words.len() * size_of::<u64>()) as u64
    }

    /// Reads all of it.
    pub fn empty(&self) {
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    let lines = self.words.iter().step_by(LINE / size_of::<u64>());
                    black_box(lines.fold(0u64, |sum, w| sum.wrapping_add(*w)));
                });
            }
        });
    }
}

fn enough(largest: Option<u64>) -> u64 {
    largest.map_or(UNKNOWN, |b| b.saturating_mul(2).clamp(UNKNOWN, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_cache_is_read_within_bounds() {
        let caches = Caches::new(3 << 20, 2);
        assert_eq!(caches.bytes(), 3 << 20);
        caches.empty();
        for (largest, bytes) in [
            (None, UNKNOWN),
            (Some(1 << 20), UNKNOWN),
            (Some(48 << 20), 96 << 20),
            (Some(u64::MAX), MOST),
        ] {
            assert_eq!(enough(largest), bytes, "{largest:?}");
        }
    }
}
