//! The groups as a file: trees, their code tables, the sections.

use std::io::{self, Write};

use super::code::{CODE_BITS, Code};
use super::{IndexBuilder, Written};
use crate::asg::bits::BitWriter;
use crate::asg::error::BuildError;
use crate::asg::format::{Header, Section, entry_width, table_count};

impl IndexBuilder {
    /// Writes the file. A [`BuildError`] arrives inside the `io::Error`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<Written> {
        let (bytes, written) = self.to_bytes().map_err(io::Error::other)?;
        out.write_all(&bytes)?;
        out.flush()?;
        Ok(written)
    }

    /// The file in memory.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Written), BuildError> {
        let n = self.codebook;
        let mut depth = 2;
        while 1u64 << (4 * depth) < u64::from(n) {
            depth += 1;
        }
        let ranks: Option<Vec<u32>> = self.order.as_ref().map(|order| {
            let mut ranks = vec![0; order.len()];
            order.iter().enumerate().for_each(|(rank, &t)| ranks[t as usize] = rank as u32);
            ranks
        });
        let rank = |t: u32| ranks.as_ref().map_or(t, |r| r[t as usize]);

        let mut frequencies = vec![vec![0u64; 1 << 16]; table_count(depth)];
        for lists in [&self.members, &self.owners] {
            for (g, list) in lists.iter().enumerate() {
                each_node(&relative(list, rank(g as u32), rank), depth, &mut |table, mask| {
                    frequencies[table][usize::from(mask)] += 1;
                });
            }
        }
        let codes: Vec<Code> = frequencies.iter().map(|f| Code::new(f)).collect();
        drop(frequencies);

        let mut sections: Vec<(Section, Vec<u8>)> = Vec::new();
        sections.push((Section::Tables, codes.iter().flat_map(Code::table).collect()));
        if let (Some(order), Some(ranks)) = (&self.order, &ranks) {
            sections.push((Section::Order, narrow(n, order.iter().copied())));
            sections.push((Section::Ranks, narrow(n, ranks.iter().copied())));
        }
        self.push_lists(
            &self.members,
            &[
                Section::Counts,
                Section::Offsets,
                Section::Stream,
                Section::Starts,
                Section::Similarities,
            ],
            (depth, &codes),
            &rank,
            &mut sections,
        )?;
        if let Some(power) = self.power {
            let owners = if self.symmetric { &self.members } else { &self.owners };
            // As the reader sums them: in the order of the tree, in f32.
            let norms = owners.iter().enumerate().flat_map(|(t, list)| {
                let mut sum = 0f32;
                for (_, s) in relative(list, rank(t as u32), rank) {
                    sum += libm::powf(f32::from(s) / 255.0, power);
                }
                sum.to_le_bytes()
            });
            sections.push((Section::Norms, norms.collect()));
        }
        if !self.symmetric {
            self.push_lists(
                &self.owners,
                &[
                    Section::OwnerCounts,
                    Section::OwnerOffsets,
                    Section::OwnerStream,
                    Section::OwnerStarts,
                    Section::OwnerSimilarities,
                ],
                (depth, &codes),
                &rank,
                &mut sections,
            )?;
        }
        let header = Header {
            codebook: n,
            family: self.family,
            metric: self.metric,
            source: self.source,
            symmetric: self.symmetric,
            power: self.power,
            cap: self.cap,
            max_members: self.members.iter().map(Vec::len).max().unwrap_or(0) as u32,
            entries: self.entries(),
            weights_sha256: self.weights_sha256,
            depth,
            code_bits: CODE_BITS,
            ordered: self.order.is_some(),
            sections: Default::default(),
        };
        let file = header.write(&sections);
        let Header { entries, max_members, .. } = header;
        let written = Written { bytes: file.len() as u64, entries, max_members };
        Ok((file, written))
    }

    fn push_lists(
        &self,
        lists: &[Vec<(u32, u8)>],
        names: &[Section; 5],
        (depth, codes): (usize, &[Code]),
        rank: &impl Fn(u32) -> u32,
        sections: &mut Vec<(Section, Vec<u8>)>,
    ) -> Result<(), BuildError> {
        let mut stream = BitWriter::default();
        let (mut offsets, mut starts, mut similarities) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = 0u64;
        for (g, list) in lists.iter().enumerate() {
            let offset = u32::try_from(stream.len()).map_err(|_| BuildError::TooLarge)?;
            offsets.extend(offset.to_le_bytes());
            let set = relative(list, rank(g as u32), rank);
            each_node(&set, depth, &mut |table, mask| codes[table].write(mask, &mut stream));
            if self.power.is_some() {
                let start = u32::try_from(before).map_err(|_| BuildError::TooLarge)?;
                starts.extend(start.to_le_bytes());
                similarities.extend(set.iter().map(|m| m.1));
            }
            before += list.len() as u64;
        }
        let counts = lists.iter().map(|l| l.len() as u32 - 1);
        sections.push((names[0], narrow(self.codebook, counts)));
        sections.push((names[1], offsets));
        sections.push((names[2], stream.finish()));
        if self.power.is_some() {
            sections.push((names[3], starts));
            sections.push((names[4], similarities));
        }
        Ok(())
    }
}

/// The set of a group relative to its seed, sorted: the order of the tree.
fn relative(list: &[(u32, u8)], seed: u32, rank: impl Fn(u32) -> u32) -> Vec<(u32, u8)> {
    let mut set: Vec<(u32, u8)> = list.iter().map(|&(t, s)| (rank(t) ^ seed, s)).collect();
    set.sort_unstable();
    set
}

/// Calls `visit(table, mask)` for the nodes of a tree in pre-order.
fn each_node(set: &[(u32, u8)], depth: usize, visit: &mut impl FnMut(usize, u16)) {
    fn node(
        set: &[(u32, u8)],
        level: usize,
        prefix: u32,
        contexts: usize,
        visit: &mut impl FnMut(usize, u16),
    ) {
        let child = |m: &(u32, u8)| m.0 >> (4 * level) & 15;
        let mask = set.iter().fold(0u16, |mask, m| mask | 1 << child(m));
        let differing = ((prefix | prefix >> 1) & 0x5555_5555).count_ones() as usize;
        visit(level * contexts + differing, mask);
        if level > 0 {
            for part in set.chunk_by(|a, b| child(a) == child(b)) {
                node(part, level - 1, prefix << 4 | child(&part[0]), contexts, visit);
            }
        }
    }
    node(set, depth - 1, 0, 2 * depth - 1, visit)
}

fn narrow(codebook: u32, values: impl Iterator<Item = u32>) -> Vec<u8> {
    let width = entry_width(codebook);
    values.flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect()
}
