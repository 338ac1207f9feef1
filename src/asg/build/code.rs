//! Prefix codes of bounded length, as tables that a reader looks its next bits up in.

use crate::asg::bits::BitWriter;

/// Codes of at most this many bits: 28 tables of 2^11 entries are 224 KiB.
pub(super) const CODE_BITS: u32 = 11;

/// A prefix code for the masks of one context: the frequent ones, and an escape.
pub(super) struct Code {
    /// `(symbol, length, bits)`, bits to be written lowest first; `None` is the escape.
    words: Vec<(Option<u16>, u32, u32)>,
    by_mask: Vec<u32>,
}

const ESCAPED: u32 = u32::MAX;

impl Code {
    pub(super) fn new(frequencies: &[u64]) -> Self {
        let mut by_mask = vec![ESCAPED; 1 << 16];
        let total: u64 = frequencies.iter().sum();
        let mut symbols: Vec<(Option<u16>, u64)> = (0..=u16::MAX)
            .map(|m| (Some(m), frequencies[usize::from(m)]))
            .filter(|s| s.1 > 0)
            .collect();
        symbols.sort_by_key(|s| (std::cmp::Reverse(s.1), s.0));
        // A mask rarer than the longest code is cheaper escaped; leave a slot for it.
        let worth = symbols.iter().take_while(|s| s.1 << (CODE_BITS + 1) >= total).count();
        let kept = worth.min((1 << CODE_BITS) - 1);
        let rest: u64 = symbols[kept..].iter().map(|s| s.1).sum();
        symbols.truncate(kept);
        if rest > 0 {
            symbols.push((None, rest));
        }
        let lengths = code_lengths(&symbols.iter().map(|s| s.1).collect::<Vec<_>>());
        let mut order: Vec<usize> = (0..symbols.len()).collect();
        order.sort_by_key(|&i| (lengths[i], i));
        let (mut next, mut last) = (0u32, 0u32);
        let mut words = Vec::new();
        for i in order {
            let length = lengths[i];
            next <<= length - last;
            last = length;
            let bits = if length == 0 { 0 } else { next.reverse_bits() >> (32 - length) };
            if let Some(mask) = symbols[i].0 {
                by_mask[usize::from(mask)] = words.len() as u32;
            }
            words.push((symbols[i].0, length, bits));
            next += 1;
        }
        Self { words, by_mask }
    }

    pub(super) fn write(&self, mask: u16, out: &mut BitWriter) {
        match self.by_mask[usize::from(mask)] {
            ESCAPED => {
                let escape = self.words.iter().find(|w| w.0.is_none());
                let (_, length, bits) = escape.expect("a rare mask has made room for the escape");
                out.push(*bits, *length);
                out.push(mask.into(), 16);
            }
            at => {
                let (_, length, bits) = self.words[at as usize];
                out.push(bits, length);
            }
        }
    }

    pub(super) fn table(&self) -> Vec<u8> {
        let mut table = vec![0u8; 4 << CODE_BITS];
        for &(symbol, length, bits) in &self.words {
            let [low, high] = symbol.unwrap_or(0).to_le_bytes();
            let row = [low, high, length as u8, u8::from(symbol.is_none())];
            for upper in 0..1usize << (CODE_BITS - length) {
                let at = (upper << length | bits as usize) * 4;
                table[at..at + 4].copy_from_slice(&row);
            }
        }
        table
    }
}

/// Lengths of a prefix code of at most `CODE_BITS` bits; a lone symbol takes none.
fn code_lengths(weights: &[u64]) -> Vec<u32> {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    let n = weights.len();
    if n < 2 {
        return vec![0; n];
    }
    // Huffman: merge the two lightest until one is left; ties by age, so it is stable.
    let mut heap: BinaryHeap<Reverse<(u64, usize)>> =
        weights.iter().enumerate().map(|(i, &w)| Reverse((w, i))).collect();
    let mut parent = vec![usize::MAX; 2 * n - 1];
    for new in n..2 * n - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if let Some(Reverse((w, i))) = heap.pop() {
                weight += w;
                parent[i] = new;
            }
        }
        heap.push(Reverse((weight, new)));
    }
    let mut depth = vec![0u32; 2 * n - 1];
    for i in (0..2 * n - 2).rev() {
        depth[i] = depth[parent[i]] + 1;
    }
    let mut lengths: Vec<u32> = depth[..n].iter().map(|d| (*d).min(CODE_BITS)).collect();
    // Clamping overfills the code space; lengthen the rarest codes that can be.
    let space = |lengths: &[u32]| lengths.iter().map(|l| 1u64 << (CODE_BITS - l)).sum::<u64>();
    let mut rarest: Vec<usize> = (0..n).collect();
    rarest.sort_by_key(|&i| (weights[i], Reverse(i)));
    while space(&lengths) > 1 << CODE_BITS {
        match rarest.iter().copied().filter(|&i| lengths[i] < CODE_BITS).max_by_key(|&i| lengths[i])
        {
            Some(i) => lengths[i] += 1,
            None => break,
        }
    }
    lengths
}
