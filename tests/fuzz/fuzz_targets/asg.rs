#![no_main]
use libfuzzer_sys::fuzz_target;
use voxgrain::asg::Index;

fuzz_target!(|data: &[u8]| {
    if let Ok(index) = Index::open(data) {
        let _ = index.verify();
        let codebook = index.header().codebook;
        for g in (0..codebook).step_by((codebook as usize / 64).max(1)) {
            let _ = index.members(g).map(u64::from).sum::<u64>();
            let _ = index.owners(g).count();
            let _ = index.weight(g, g);
        }
    }
});
