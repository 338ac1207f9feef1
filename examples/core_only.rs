//! Acceptance and the group index alone: no heap, no operating system, no default features.
//!
//! Two toy models stand in for the target and the draft. The draft proposes a few tokens; one
//! round of acceptance by group decides which of them stay. `round` is what a firmware would
//! run: it needs neither `std` nor `alloc`, and its memory is the caller's.
//!
//! ```sh
//! cargo run --release --no-default-features --example core_only -- asg-cache/tiny.asg
//! ```
#![no_std]

extern crate std;

use std::{env, eprintln, fs, println, process, string::String, vec};
use voxgrain::asg::Index;
use voxgrain::core::{
    AcceptError, DistError, Emission, RowBuffer, RowMut, Rule, SeededRng, Verdict, block_count,
    sample, verify_round,
};

/// Tokens that the models score: the codebook and the end of speech.
const V: usize = 65_537;
const CODEBOOK: u32 = 65_536;
const GAMMA: usize = 4;

/// The caller's memory for one round.
struct Buffers<'a> {
    /// `[GAMMA + 1][V]` probabilities and `[GAMMA + 1][block_count(V)]` sums.
    target: (&'a mut [f32], &'a mut [f32]),
    /// `[GAMMA][V]` and `[GAMMA][block_count(V)]`.
    draft: (&'a mut [f32], &'a mut [f32]),
}

/// The sound that follows `token`, by one of the tokens that sound so.
fn next(token: u32) -> u32 {
    token.wrapping_mul(40_503).wrapping_add(12_345) % CODEBOOK
}

/// What a toy model expects: tokens that sound like `sound`, and `favourite` above all. Target
/// and draft agree on the sound and not on the favourite.
fn law<D: AsRef<[u8]>>(
    index: &Index<D>,
    sound: u32,
    favourite: u32,
    probs: &mut [f32],
    sums: &mut [f32],
) -> Result<(), DistError> {
    probs.fill(1e-8);
    let each = 0.5 / index.member_count(sound) as f32;
    for token in index.members(sound) {
        probs[token as usize] += each;
    }
    probs[favourite as usize] += 0.5;
    RowMut::new(probs, sums)?.normalise()
}

/// One round: the draft proposes, the target judges. Needs neither `std` nor `alloc`.
fn round<D: AsRef<[u8]>>(
    memory: &mut Buffers<'_>,
    index: &Index<D>,
    by_group: bool,
    last: u32,
    rng: &mut SeededRng,
) -> Result<Verdict, AcceptError> {
    let blocks = block_count(V);
    let mut drafted = [0; GAMMA];
    let mut before = last;
    let (probs, sums) = (&mut *memory.draft.0, &mut *memory.draft.1);
    for (i, (probs, sums)) in probs.chunks_mut(V).zip(sums.chunks_mut(blocks)).enumerate() {
        let sound = next(before);
        let other = index.members(sound).find(|&token| token != sound).unwrap_or(sound);
        law(index, sound, other, probs, sums)?;
        drafted[i] = sample(RowMut::new(probs, sums)?.into_row(), rng)?;
        before = drafted[i];
    }
    let mut before = last;
    let (probs, sums) = (&mut *memory.target.0, &mut *memory.target.1);
    for (i, (probs, sums)) in probs.chunks_mut(V).zip(sums.chunks_mut(blocks)).enumerate() {
        let sound = next(before);
        law(index, sound, sound, probs, sums)?;
        before = *drafted.get(i).unwrap_or(&before);
    }
    let target = RowBuffer::new(memory.target.0, memory.target.1, V, GAMMA + 1)?;
    let draft = RowBuffer::new(memory.draft.0, memory.draft.1, V, GAMMA)?;
    let rule = match by_group {
        true => Rule::Groups { groups: index, emission: Emission::StandIn },
        false => Rule::TokenLevel,
    };
    verify_round(&target, &draft, &drafted, &rule, rng)
}

fn main() {
    let path = env::args().nth(1).unwrap_or_else(|| String::from("asg-cache/tiny.asg"));
    let bytes = fs::read(&path).unwrap_or_else(|e| {
        eprintln!("core_only: cannot read {path}: {e}");
        process::exit(1)
    });
    let index = Index::open(&bytes[..]).unwrap_or_else(|e| {
        eprintln!("core_only: {path}: {e}");
        process::exit(1)
    });
    let groups = index.header().codebook;
    let members: u64 = (0..groups).map(|g| u64::from(index.member_count(g))).sum();
    println!("{path}: {groups} groups, {:.1} tokens each", members as f64 / f64::from(groups));

    let blocks = block_count(V);
    let mut target = (vec![0.0; (GAMMA + 1) * V], vec![0.0; (GAMMA + 1) * blocks]);
    let mut draft = (vec![0.0; GAMMA * V], vec![0.0; GAMMA * blocks]);
    let mut memory =
        Buffers { target: (&mut target.0, &mut target.1), draft: (&mut draft.0, &mut draft.1) };
    const ROUNDS: usize = 200;
    for (name, by_group) in [("token", false), ("group", true)] {
        let mut rng = SeededRng::new(1);
        let (mut accepted, mut last) = (0, 0);
        for _ in 0..ROUNDS {
            match round(&mut memory, &index, by_group, last, &mut rng) {
                Ok(verdict) => (accepted, last) = (accepted + verdict.accepted, verdict.next),
                Err(e) => {
                    eprintln!("core_only: {e}");
                    process::exit(1)
                }
            }
        }
        let share = accepted as f64 / (ROUNDS * GAMMA) as f64;
        println!("accepted by {name}: {:.1} % of {GAMMA} drafts a round", 100.0 * share);
    }
}
