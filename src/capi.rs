//! The C ABI. `targets/include/voxgrain.h` is its documentation and its contract: what each
//! function does, who owns what for how long, what may be called from where.
//! `tests/capi.rs` compares the header with the code, item by item.
//!
//! `bare` is the half that needs nothing (feature `capi-core`), `speech` the half over the
//! whole library (feature `capi`), with `explain` for what would be said.
//!
//! Three things keep the border tight. `guard` lets no panic across. `read` and
//! `write` move structs of any version without trusting their size or alignment. Pointers
//! become references only after they were checked for null and, where it matters, alignment;
//! what cannot be checked (that they point to what the header says) is each function's safety
//! condition.
#![allow(unsafe_code)]
// The names are C's. Items are documented in the header, once.
#![allow(non_camel_case_types, missing_docs, clippy::missing_safety_doc)]

// Where there is an operating system, its panic handler and unwinder.
#[cfg(all(not(feature = "std"), not(target_os = "none")))]
extern crate std;

mod bare;
#[cfg(feature = "capi")]
mod explain;
#[cfg(feature = "capi")]
mod speech;

pub use bare::*;
#[cfg(feature = "capi")]
pub use explain::*;
#[cfg(feature = "capi")]
pub use speech::*;

pub const VX_ABI_VERSION: u32 = 3;

pub type vx_status = i32;
pub const VX_OK: vx_status = 0;
pub const VX_END: vx_status = 1;
pub const VX_E_ARGUMENT: vx_status = -1;
pub const VX_E_SIZE: vx_status = -2;
pub const VX_E_TEXT: vx_status = -3;
pub const VX_E_UNREADABLE: vx_status = -4;
pub const VX_E_MALFORMED: vx_status = -5;
pub const VX_E_MISMATCH: vx_status = -6;
pub const VX_E_UNSUPPORTED: vx_status = -7;
pub const VX_E_NUMERIC: vx_status = -8;
pub const VX_E_CANCELLED: vx_status = -9;
pub const VX_E_BUSY: vx_status = -10;
pub const VX_E_FULL: vx_status = -11;
pub const VX_E_MEMORY: vx_status = -12;
pub const VX_E_INTERNAL: vx_status = -13;

pub const VX_ARM_DEFAULT: i32 = 0;
pub const VX_ARM_AR: i32 = 1;
pub const VX_ARM_SD: i32 = 2;
pub const VX_ARM_TOLERANCE: i32 = 3;
pub const VX_ARM_PCG: i32 = 4;
pub const VX_ARM_TRANSPORT: i32 = 5;

pub const VX_EMIT_STAND_IN: i32 = 0;
pub const VX_EMIT_RESAMPLE: i32 = 1;

/// A struct of the caller's that begins with its size in a `u32`.
///
/// # Safety
/// `repr(C)`, its first field is the size, and all-zero bytes are a value of it.
unsafe trait Versioned: Copy {
    /// The sizes that it had before it grew to what it is, the oldest first.
    const EARLIER: &'static [usize] = &[];
    /// Its size in ABI version 1.
    const V1: usize = if Self::EARLIER.is_empty() { size_of::<Self>() } else { Self::EARLIER[0] };
}

/// No struct of this interface comes near: more is a size that was never set.
const LARGEST: usize = 1024;

/// The size in force, and how much of it this build knows.
///
/// # Safety
/// `p` points to at least four bytes.
unsafe fn extent<T: Versioned>(p: *const T) -> Result<(usize, usize), vx_status> {
    // SAFETY: the four bytes of the size, which need not be aligned here.
    let said = unsafe { p.cast::<u32>().read_unaligned() } as usize;
    match if said == 0 { T::V1 } else { said } {
        // A size between two versions would cut a field in half.
        size if T::EARLIER.contains(&size) => Ok((size, size)),
        size if (size_of::<T>()..=LARGEST).contains(&size) => Ok((size, size_of::<T>())),
        _ => Err(VX_E_SIZE),
    }
}

/// The caller's struct, with zeros where it is older than this build. Null is all zeros.
///
/// # Safety
/// `p` is null or points to as many bytes as its size says (`V1` if that is zero).
unsafe fn read<T: Versioned>(p: *const T) -> Result<T, vx_status> {
    // SAFETY: `Versioned` promises that zeros are a value.
    let mut value: T = unsafe { core::mem::zeroed() };
    if p.is_null() {
        return Ok(value);
    }
    // SAFETY: the caller's promise. `known` bytes fit both sides, which do not overlap.
    unsafe {
        let (size, known) = extent(p)?;
        let from = p.cast::<u8>();
        core::ptr::copy_nonoverlapping(from, (&raw mut value).cast::<u8>(), known);
        if (known..size).any(|i| from.add(i).read() != 0) {
            return Err(VX_E_SIZE);
        }
    }
    Ok(value)
}

/// Overwrites the caller's struct, except its size.
///
/// # Safety
/// As [`read`], and the bytes are writable.
unsafe fn write<T: Versioned>(p: *mut T, value: T) -> Result<(), vx_status> {
    if p.is_null() {
        return Err(VX_E_ARGUMENT);
    }
    const SIZE: usize = size_of::<u32>();
    // SAFETY: as in `read`.
    unsafe {
        let (size, known) = extent(p)?;
        let (from, to) = ((&raw const value).cast::<u8>(), p.cast::<u8>());
        core::ptr::copy_nonoverlapping(from.add(SIZE), to.add(SIZE), known - SIZE);
        core::ptr::write_bytes(to.add(known), 0, size - known);
    }
    Ok(())
}

/// `len` values at `p`, unless they cannot be there.
///
/// # Safety
/// If `p` is not null, `len` values are at `p` and stay unchanged for `'a`.
unsafe fn slice<'a, T>(p: *const T, len: usize) -> Result<&'a [T], vx_status> {
    if len == 0 {
        return Ok(&[]);
    }
    if p.is_null() || !p.is_aligned() || len > isize::MAX as usize / size_of::<T>() {
        return Err(VX_E_ARGUMENT);
    }
    // SAFETY: not null, aligned, not too long; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(p, len) })
}

/// The same, to be written to.
///
/// # Safety
/// As `slice`, and nobody else looks at them for `'a`.
unsafe fn slice_mut<'a, T>(p: *mut T, len: usize) -> Result<&'a mut [T], vx_status> {
    if len == 0 {
        return Ok(&mut []);
    }
    if p.is_null() || !p.is_aligned() || len > isize::MAX as usize / size_of::<T>() {
        return Err(VX_E_ARGUMENT);
    }
    // SAFETY: as in `slice`.
    Ok(unsafe { core::slice::from_raw_parts_mut(p, len) })
}

/// Runs `f`; a panic ends here.
#[cfg(not(target_os = "none"))]
fn guard<T>(f: impl FnOnce() -> T) -> Result<T, vx_status> {
    // Whatever `f` leaves half done is behind a mutex, which is poisoned, or memory of the
    // caller's that the header calls unspecified after a failure.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).map_err(|payload| {
        // Dropping it may panic again.
        core::mem::forget(payload);
        VX_E_INTERNAL
    })
}

/// Without an operating system a panic does not return.
#[cfg(target_os = "none")]
fn guard<T>(f: impl FnOnce() -> T) -> Result<T, vx_status> {
    Ok(f())
}

#[cfg(all(target_os = "none", not(feature = "std")))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn vx_core_panic() -> !;
    }
    // SAFETY: the header asks the application for a function of this type.
    unsafe { vx_core_panic() }
}

#[unsafe(no_mangle)]
pub extern "C" fn vx_abi_version() -> u32 {
    VX_ABI_VERSION
}

#[unsafe(no_mangle)]
pub extern "C" fn vx_status_name(status: vx_status) -> *const core::ffi::c_char {
    let name = match status {
        VX_OK => c"VX_OK",
        VX_END => c"VX_END",
        VX_E_ARGUMENT => c"VX_E_ARGUMENT",
        VX_E_SIZE => c"VX_E_SIZE",
        VX_E_TEXT => c"VX_E_TEXT",
        VX_E_UNREADABLE => c"VX_E_UNREADABLE",
        VX_E_MALFORMED => c"VX_E_MALFORMED",
        VX_E_MISMATCH => c"VX_E_MISMATCH",
        VX_E_UNSUPPORTED => c"VX_E_UNSUPPORTED",
        VX_E_NUMERIC => c"VX_E_NUMERIC",
        VX_E_CANCELLED => c"VX_E_CANCELLED",
        VX_E_BUSY => c"VX_E_BUSY",
        VX_E_FULL => c"VX_E_FULL",
        VX_E_MEMORY => c"VX_E_MEMORY",
        VX_E_INTERNAL => c"VX_E_INTERNAL",
        _ => c"unknown",
    };
    name.as_ptr()
}
