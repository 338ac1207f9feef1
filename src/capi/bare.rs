//! Acceptance and index over the caller's memory: no allocation, no operating system.

use super::*;
use crate::asg::{FormatError, Index, Members};
use crate::core::accept::{self, AcceptError, Emission, Groups, Origin, RowBuffer, Rule, Verdict};
use crate::core::dist::{
    DistError, Row, RowMut, SamplingTransforms, TransformScratch, block_count,
};
use crate::core::rng::SeededRng;
use core::ffi::c_void;

pub const VX_CORE_ALIGN: usize = 8;

pub const VX_RECOVERED: i32 = 0;
pub const VX_BONUS: i32 = 1;
pub const VX_RESAMPLED: i32 = 2;

/// `'static` is the caller's promise: the bytes outlive the use of the core.
pub struct vx_core {
    index: Option<Index<&'static [u8]>>,
    verify_rng: SeededRng,
    draft_rng: SeededRng,
}

const _: () = assert!(align_of::<vx_core>() <= VX_CORE_ALIGN);
const _: () = assert!(align_of::<TransformScratch>() <= VX_CORE_ALIGN);
// The memory is simply used for something else: nothing may be lost by that.
const _: () = assert!(!core::mem::needs_drop::<vx_core>());

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_core_round {
    pub size: u32,
    pub arm: i32,
    pub emission: i32,
    pub beta: f32,
    pub vocabulary: usize,
    pub gamma: usize,
    pub drafted: *const u32,
    pub target_probs: *const f32,
    pub target_sums: *const f32,
    pub draft_probs: *const f32,
    pub draft_sums: *const f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_core_verdict {
    pub size: u32,
    pub accepted: u32,
    pub next: u32,
    pub origin: i32,
    pub tries: u32,
    pub exhausted: i32,
}

// SAFETY: repr(C), size first, numbers and raw pointers.
unsafe impl Versioned for vx_core_round {}
// SAFETY: the same.
unsafe impl Versioned for vx_core_verdict {}

fn of_format(e: FormatError) -> vx_status {
    match e {
        FormatError::Version(_) => VX_E_UNSUPPORTED,
        _ => VX_E_MALFORMED,
    }
}

fn of_dist(e: DistError) -> vx_status {
    match e {
        DistError::Empty | DistError::BlockSums { .. } => VX_E_ARGUMENT,
        _ => VX_E_NUMERIC,
    }
}

fn of_accept(e: AcceptError) -> vx_status {
    match e {
        AcceptError::Dist(e) => of_dist(e),
        AcceptError::Undraftable { .. } => VX_E_NUMERIC,
        AcceptError::Codebook { .. } => VX_E_MISMATCH,
        AcceptError::GroupMismatch { .. }
        | AcceptError::MemberOutOfRange { .. }
        | AcceptError::OneSided { .. } => VX_E_MALFORMED,
        _ => VX_E_ARGUMENT,
    }
}

/// Runs `f` behind the [`guard`].
fn status(f: impl FnOnce() -> Result<(), vx_status>) -> vx_status {
    match guard(f) {
        Ok(Ok(())) => VX_OK,
        Ok(Err(status)) | Err(status) => status,
    }
}

/// # Safety
/// `core` is null or came from `vx_core_init`, and nobody changes it for `'a`.
unsafe fn shared<'a>(core: *const vx_core) -> Result<&'a vx_core, vx_status> {
    // SAFETY: null is no reference; anything else `vx_core_init` has written, and the caller
    // vouches that nobody changes it meanwhile.
    unsafe { core.as_ref() }.ok_or(VX_E_ARGUMENT)
}

/// # Safety
/// `core` is null or came from `vx_core_init`, and nobody else uses it for `'a`.
unsafe fn owned<'a>(core: *mut vx_core) -> Result<&'a mut vx_core, vx_status> {
    // SAFETY: null is no reference; anything else `vx_core_init` has written, and the caller
    // vouches that nobody else uses it meanwhile.
    unsafe { core.as_mut() }.ok_or(VX_E_ARGUMENT)
}

#[unsafe(no_mangle)]
pub extern "C" fn vx_core_get_size() -> usize {
    size_of::<vx_core>()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_init(
    memory: *mut c_void,
    bytes: usize,
    seed: u64,
    core: *mut *mut vx_core,
) -> vx_status {
    status(|| {
        let place = memory.cast::<vx_core>();
        if place.is_null() || !place.is_aligned() || core.is_null() {
            return Err(VX_E_ARGUMENT);
        }
        if bytes < size_of::<vx_core>() {
            return Err(VX_E_SIZE);
        }
        let (verify_rng, draft_rng) = generators(seed);
        // SAFETY: aligned and large enough, not null either; that both places are the caller's to
        // be written is the contract.
        unsafe {
            place.write(vx_core { index: None, verify_rng, draft_rng });
            core.write(place);
        }
        Ok(())
    })
}

/// The streams of `decode::Speculator`: the same choices for the same rows.
fn generators(seed: u64) -> (SeededRng, SeededRng) {
    (SeededRng::with_stream(seed, 0), SeededRng::with_stream(seed, 1))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_seed(core: *mut vx_core, seed: u64) -> vx_status {
    status(|| {
        // SAFETY: one thread at a time has an object, so nobody else uses it during the call.
        let core = unsafe { owned(core)? };
        (core.verify_rng, core.draft_rng) = generators(seed);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_set_index(
    core: *mut vx_core,
    data: *const c_void,
    bytes: usize,
) -> vx_status {
    status(|| {
        // SAFETY: one thread at a time has the object; `bytes` bytes are at `data` and stay there
        // unchanged as long as the core uses them, which stands for 'static.
        let (core, data) = unsafe { (owned(core)?, slice::<'static>(data.cast::<u8>(), bytes)?) };
        core.index = Some(Index::open(data).map_err(of_format)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_verify_index(core: *const vx_core) -> vx_status {
    status(|| {
        // SAFETY: one thread at a time has an object, so nobody changes it during the call.
        let index = unsafe { shared(core)? }.index.as_ref().ok_or(VX_E_ARGUMENT)?;
        index.verify().map_err(of_format)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_codebook(core: *const vx_core) -> u32 {
    // SAFETY: null, or an object that one thread at a time has: nobody changes it during the call.
    match unsafe { core.as_ref() } {
        Some(vx_core { index: Some(index), .. }) => index.codebook(),
        _ => 0,
    }
}

/// # Safety
/// The contract of `vx_core_members`.
unsafe fn list(
    core: *const vx_core,
    of: u32,
    lists: fn(&'static Index<&'static [u8]>, u32) -> Members<'static>,
    out: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> vx_status {
    status(|| {
        // SAFETY: one thread at a time has the object, and the reference does not outlive this
        // call; `capacity` values of the caller's are at `out`.
        let (core, out) = unsafe { (shared::<'static>(core)?, slice_mut(out, capacity)?) };
        if count.is_null() {
            return Err(VX_E_ARGUMENT);
        }
        let mut n = 0usize;
        let mut put = |token| {
            if let Some(place) = out.get_mut(n) {
                *place = token;
            }
            n += 1;
        };
        match &core.index {
            Some(index) if of < index.codebook() => lists(index, of).for_each(&mut put),
            // Beyond the codebook, and without an index, everything is on its own.
            _ => put(of),
        }
        // SAFETY: not null; that it can be written is the contract.
        unsafe { count.write(n) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_members(
    core: *const vx_core,
    group: u32,
    out: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> vx_status {
    // SAFETY: the same contract, handed on.
    unsafe { list(core, group, |i, g| i.members(g), out, capacity, count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_owners(
    core: *const vx_core,
    token: u32,
    out: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> vx_status {
    // SAFETY: the same contract, handed on.
    unsafe { list(core, token, |i, t| i.owners(t), out, capacity, count) }
}

#[unsafe(no_mangle)]
pub extern "C" fn vx_core_block_count(vocabulary: usize) -> usize {
    block_count(vocabulary)
}

/// # Safety
/// `probs` and `block_sums` are null or as long as `vocabulary` asks for, and nobody else
/// uses them for `'a`.
unsafe fn row_mut<'a>(
    probs: *mut f32,
    block_sums: *mut f32,
    vocabulary: usize,
) -> Result<RowMut<'a>, vx_status> {
    // SAFETY: both are null, which `slice_mut` refuses, or the caller's and as long as is asked;
    // they are two arrays, so they do not overlap.
    let (probs, sums) =
        unsafe { (slice_mut(probs, vocabulary)?, slice_mut(block_sums, block_count(vocabulary))?) };
    RowMut::new(probs, sums).map_err(of_dist)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_normalise(
    probs: *mut f32,
    block_sums: *mut f32,
    vocabulary: usize,
) -> vx_status {
    // SAFETY: `vocabulary` floats and the sums of their blocks, which are the caller's during the
    // call.
    status(|| unsafe { row_mut(probs, block_sums, vocabulary) }?.normalise().map_err(of_dist))
}

#[unsafe(no_mangle)]
pub extern "C" fn vx_core_scratch_size() -> usize {
    size_of::<TransformScratch>()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_transform(
    probs: *mut f32,
    block_sums: *mut f32,
    vocabulary: usize,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    scratch: *mut c_void,
    scratch_bytes: usize,
) -> vx_status {
    status(|| {
        let scratch = scratch.cast::<TransformScratch>();
        let keeps = top_p > 0.0 && min_p >= 0.0; // Neither of which a NaN is.
        if scratch.is_null() || !scratch.is_aligned() || !keeps {
            return Err(VX_E_ARGUMENT);
        }
        if scratch_bytes < size_of::<TransformScratch>() {
            return Err(VX_E_SIZE);
        }
        // SAFETY: aligned, large enough, and zeros are a value of these integers and floats;
        // the row is the header's contract.
        let (mut row, scratch) = unsafe {
            scratch.write_bytes(0, 1);
            (row_mut(probs, block_sums, vocabulary)?, &mut *scratch)
        };
        row.transform(&SamplingTransforms { top_k, top_p, min_p }, scratch).map_err(of_dist)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_draft(
    core: *mut vx_core,
    probs: *const f32,
    block_sums: *const f32,
    vocabulary: usize,
    token: *mut u32,
) -> vx_status {
    status(|| {
        // SAFETY: one thread at a time has the object; `vocabulary` floats and the sums of their
        // blocks are the caller's and stay during the call.
        let (core, probs, sums) = unsafe {
            (owned(core)?, slice(probs, vocabulary)?, slice(block_sums, block_count(vocabulary))?)
        };
        if token.is_null() {
            return Err(VX_E_ARGUMENT);
        }
        let row = Row::new(probs, sums).map_err(of_dist)?;
        row.check_normalised().map_err(of_dist)?;
        let drawn = accept::sample(row, &mut core.draft_rng).map_err(of_dist)?;
        // SAFETY: not null, and the caller's place for a token.
        unsafe { token.write(drawn) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_core_verify(
    core: *mut vx_core,
    round: *const vx_core_round,
    verdict: *mut vx_core_verdict,
) -> vx_status {
    status(|| {
        if round.is_null() || verdict.is_null() {
            return Err(VX_E_ARGUMENT);
        }
        // SAFETY: one thread at a time has the object; `round` is not null and as large as it says.
        let (core, r) = unsafe { (owned(core)?, read(round)?) };
        let rows = r.gamma.checked_add(1).ok_or(VX_E_ARGUMENT)?;
        let long = |rows: usize, width: usize| rows.checked_mul(width).ok_or(VX_E_ARGUMENT);
        let blocks = block_count(r.vocabulary);
        // SAFETY: each array is as long as its field's comment in the header says, with the
        // products checked here, and stays during the call.
        let (drafted, target, draft) = unsafe {
            let target = (
                slice(r.target_probs, long(rows, r.vocabulary)?)?,
                slice(r.target_sums, long(rows, blocks)?)?,
            );
            let draft = (
                slice(r.draft_probs, long(r.gamma, r.vocabulary)?)?,
                slice(r.draft_sums, long(r.gamma, blocks)?)?,
            );
            (slice(r.drafted, r.gamma)?, target, draft)
        };
        let target = RowBuffer::new(target.0, target.1, r.vocabulary, rows).map_err(of_dist)?;
        let draft = RowBuffer::new(draft.0, draft.1, r.vocabulary, r.gamma).map_err(of_dist)?;
        let emission = match r.emission {
            VX_EMIT_STAND_IN => Emission::StandIn,
            VX_EMIT_RESAMPLE => Emission::Resample,
            _ => return Err(VX_E_ARGUMENT),
        };
        let rule = match (r.arm, &core.index) {
            (VX_ARM_DEFAULT | VX_ARM_PCG, Some(groups)) => Rule::Groups { groups, emission },
            (VX_ARM_DEFAULT | VX_ARM_SD, _) => Rule::TokenLevel,
            (VX_ARM_TOLERANCE, _) => Rule::Tolerance { beta: r.beta },
            (VX_ARM_TRANSPORT, Some(groups)) => Rule::Transport { groups },
            // Nothing is drafted in the plain arm; groups and transport need an index.
            (VX_ARM_AR, _) if r.gamma == 0 => Rule::TokenLevel,
            _ => return Err(VX_E_ARGUMENT),
        };
        let Verdict { accepted, next, origin, tries, exhausted } =
            accept::verify_round(&target, &draft, drafted, &rule, &mut core.verify_rng)
                .map_err(of_accept)?;
        let origin = match origin {
            Origin::Recovered => VX_RECOVERED,
            Origin::Bonus => VX_BONUS,
            Origin::Resampled => VX_RESAMPLED,
        };
        let (accepted, exhausted) = (accepted as u32, exhausted.into());
        let found = vx_core_verdict { size: 0, accepted, next, origin, tries, exhausted };
        // SAFETY: not null, and a struct of the caller's as large as it says.
        unsafe { write(verdict, found) }
    })
}
