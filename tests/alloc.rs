//! Once warm, nothing allocates per token: a counting allocator watches whole utterances.
#![cfg(feature = "engine")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use voxgrain::core::accept::Emission;
use voxgrain::decode::{Arm, Costs, DraftLength};
use voxgrain::engine::Pool;
use voxgrain::kernel;
use voxgrain::speech::synth::{Synthesizer, Voice};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn rounds_do_not_allocate_once_warm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let adaptive = DraftLength::Adaptive(Costs { draft: 0.1, row: 0.1 });
    let mut watched = 0;
    for name in ["tiny", "voice"] {
        let voice = Voice::open(root.join(name)).unwrap();
        for (arm, gamma) in [
            (Arm::Ar, DraftLength::Fixed(0)),
            (Arm::Sd, DraftLength::Fixed(4)),
            (Arm::Tolerance { beta: 0.4 }, DraftLength::Fixed(6)),
            (Arm::Pcg { emission: Emission::StandIn }, adaptive),
            (Arm::Pcg { emission: Emission::Resample }, DraftLength::Fixed(7)),
            (Arm::Transport, DraftLength::Fixed(5)),
        ] {
            for threads in [1, 2] {
                let pool = Pool::new(kernel::best(), threads);
                let mut options = voice.options(arm);
                options.gamma = gamma;
                let mut s = Synthesizer::new(&voice, options, &pool).unwrap();
                let mut pcm = Vec::with_capacity(16000 * 120);
                // Warm means that buffers have met the longest context and every size of pass.
                for text in ["the birch canoe slid on the smooth planks of the lake.", "yes."] {
                    for _ in 0..3 {
                        s.begin(text).unwrap();
                        while s.next_into(&mut pcm).unwrap() {}
                        pcm.clear();
                    }
                }
                // A random voice may still ramble on for longer than before, and the size of a
                // codec pass follows the clock: what is new once is not new twice.
                let mut counts = Vec::new();
                let quiet = (0..20).any(|_| {
                    s.begin("the birch canoe slid.").unwrap();
                    let before = COUNT.load(Ordering::Relaxed);
                    let mut rounds = 0;
                    while s.next_into(&mut pcm).unwrap() {
                        rounds += 1;
                    }
                    let count = COUNT.load(Ordering::Relaxed) - before;
                    pcm.clear();
                    counts.push((rounds, count));
                    watched += rounds;
                    count == 0 && rounds >= 8
                });
                assert!(
                    quiet,
                    "{name}, {arm:?}, {threads} threads: rounds, allocations {counts:?}"
                );
            }
        }
    }
    assert!(watched > 100, "only {watched} rounds were watched");
}
