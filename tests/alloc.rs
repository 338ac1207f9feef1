//! Once warm, nothing allocates per token: a counting allocator watches whole utterances.
#![cfg(feature = "engine")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use voxgrain::Voice;
use voxgrain::core::Penalties;
use voxgrain::core::accept::Emission;
use voxgrain::decode::{
    Arm, Costs, DraftLength, MAX_GAMMA, PREFILL_ROWS, RoundEnd, Speculator, TokenModel,
};
use voxgrain::engine::{Model, Pool, Session};
use voxgrain::kernel;
use voxgrain::speech::codec::CodecDecoder;
use voxgrain::speech::text::TextFrontend;

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's block, which came from the same allocator.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's block, which came from the same allocator.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tokens of the contexts, prompt included: few enough that an utterance fills them.
const POSITIONS: usize = 160;

/// A session that has met every size of pass at the end of its context, every row of it read.
fn warm(model: &Arc<Model>, pool: &Arc<Pool>) -> Session {
    let mut s = Session::with_positions(model, pool, POSITIONS).unwrap();
    let width = TokenModel::feature_width(&s);
    let pass = |s: &mut Session, rows: usize| {
        let (tokens, features) = (vec![1; rows], vec![0.0; rows * width]);
        TokenModel::step(s, &tokens, &features, rows.min(MAX_GAMMA + 1)).unwrap();
    };
    while TokenModel::room(&s) > PREFILL_ROWS {
        pass(&mut s, PREFILL_ROWS);
    }
    let len = TokenModel::len(&s);
    // The largest first, so that every buffer that the pool takes in turn has room for it.
    for rows in (1..=PREFILL_ROWS).rev() {
        pass(&mut s, rows);
        TokenModel::logits(&mut s);
        TokenModel::rollback(&mut s, len);
    }
    TokenModel::rollback(&mut s, 0);
    s
}

/// How an utterance ended, its rounds and the allocations in them.
type Spoken = (RoundEnd, usize, usize);

/// Six utterances of a warm engine. What is warm: both sessions have met every size of pass at
/// their longest context, the codec every size of pass, and the speculator an utterance that
/// filled its context. Nothing here asks the clock, so every run of it is the same.
fn utterances(
    voice: &Voice,
    arm: Arm,
    gamma: DraftLength,
    penalties: Penalties,
    threads: usize,
) -> Vec<Spoken> {
    let audio = &voice.bundle().audio;
    let pool = Pool::new(kernel::best(), threads);
    let mut options = voice.options(arm);
    options.gamma = gamma;
    options.sampling.penalties = penalties;
    let (target, draft) = (warm(voice.target(), &pool), warm(voice.draft().unwrap(), &pool));
    let groups = voice.groups().cloned();
    let mut s = Speculator::new(target, draft, groups, options).unwrap();
    let mut codec =
        CodecDecoder::new(voice.codec(), &pool, &voice.bundle().audio, &voice.bundle().codec)
            .unwrap();
    let mut pcm = Vec::with_capacity(2 * POSITIONS * audio.samples_per_frame());
    for tokens in 1..=MAX_GAMMA + 1 {
        codec.push(&vec![0; tokens], &mut pcm).unwrap();
    }
    let mut tokens = Vec::with_capacity(POSITIONS);
    let mut speak = |text: &str| {
        let chunks = TextFrontend::default().speak(text).unwrap().chunks;
        s.start(&voice.prompt(&voice.write(&chunks[0], 1.0).unwrap()).unwrap()).unwrap();
        codec.reset();
        tokens.clear();
        pcm.clear();
        let before = COUNT.load(Ordering::Relaxed);
        let (mut rounds, mut spoken) = (0, 0);
        let end = loop {
            let end = s.round(&mut tokens).unwrap();
            codec.push(&tokens[spoken..], &mut pcm).unwrap();
            spoken = tokens.len();
            rounds += 1;
            if end != RoundEnd::More {
                break end;
            }
        };
        codec.finish(&mut pcm).unwrap();
        (end, rounds, COUNT.load(Ordering::Relaxed) - before)
    };
    let long = "the birch canoe slid on the smooth planks of the lake.";
    assert!((0..20).any(|_| speak(long).0 == RoundEnd::Full), "none filled the context");
    let texts = [long, "the birch canoe slid.", "yes."];
    texts.iter().cycle().take(6).map(|t| speak(t)).collect()
}

/// Not one round of any utterance may allocate.
#[test]
fn rounds_do_not_allocate_once_warm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let adaptive = DraftLength::Adaptive(Costs { draft: 0.1, row: 0.1 });
    let off = Penalties::default();
    let on = Penalties { repetition: 1.2, window: 20, min_tokens: 8 };
    for name in ["tiny", "voice"] {
        let voice = Voice::open(root.join(name)).unwrap();
        for (arm, gamma, penalties) in [
            (Arm::Ar, DraftLength::Fixed(0), off),
            (Arm::Ar, DraftLength::Fixed(0), on),
            (Arm::Sd, DraftLength::Fixed(4), off),
            (Arm::Tolerance { beta: 0.4 }, DraftLength::Fixed(6), off),
            (Arm::Pcg { emission: Emission::StandIn }, adaptive, off),
            (Arm::Pcg { emission: Emission::Resample }, DraftLength::Fixed(7), off),
            (Arm::Transport, DraftLength::Fixed(5), on),
        ] {
            for threads in [1, 2] {
                let what = format!("{name}, {arm:?}, {penalties:?}, {threads} threads");
                let first = utterances(&voice, arm, gamma, penalties, threads);
                let rounds: usize = first.iter().map(|u| u.1).sum();
                assert!(rounds >= 10, "{what}: only {rounds} rounds were watched");
                if first.iter().any(|u| u.2 > 0) {
                    // The harness has a thread that reports slow tests, and it allocates. What is
                    // ours comes again in the same utterance.
                    let again = utterances(&voice, arm, gamma, penalties, threads);
                    let same = |(a, b): (&Spoken, &Spoken)| (a.0, a.1) == (b.0, b.1);
                    assert!(first.iter().zip(&again).all(same), "{what}: {first:?}, {again:?}");
                    let ours = first.iter().zip(&again).any(|(a, b)| a.2 > 0 && b.2 > 0);
                    assert!(!ours, "{what}: {first:?}, {again:?}");
                }
            }
        }
    }
}
