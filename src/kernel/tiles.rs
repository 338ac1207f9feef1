//! The walk over weight tiles that every SIMD kernel shares: the one place that turns the
//! checked slices of [`super::Kernel::qgemm`] into addresses.
#![allow(unsafe_code)]

use super::{BLOCK, QuantizedRows, ROWS_PER_TILE, TILE};

/// One tile of 16 weight rows against up to eight activation rows.
pub(super) struct TileArgs {
    /// `blocks * BYTES` packed weight bytes.
    pub(super) w: *const u8,
    /// `blocks * 16` f16 scales.
    pub(super) scales: *const u16,
    /// First activation row; the next rows follow `k` bytes apart.
    pub(super) q: *const i8,
    /// Activation scales and starts of the sums; the next rows follow `blocks` apart.
    pub(super) x_scale: *const f32,
    pub(super) x_start: *const i32,
    pub(super) k: usize,
    pub(super) blocks: usize,
}

/// Writes `M * 16` floats to `out`. The pointers of [`TileArgs`] must cover `M` rows.
pub(super) type RowsFn = unsafe fn(&TileArgs, *mut f32);

/// Walks the tiles; all rows of a tile are done while its weights are in the first cache.
///
/// # Safety
/// The features of `table` exist and the slices have the lengths that `Kernel::qgemm` checks.
pub(super) unsafe fn qgemm<const BYTES: usize>(
    w: &[u8],
    scales: &[u16],
    x: &QuantizedRows,
    out: &mut [f32],
    table: &[RowsFn; ROWS_PER_TILE],
) {
    let (m, k, blocks) = (x.rows(), x.columns(), x.blocks());
    let start = if BYTES == TILE * BLOCK { &x.start8 } else { &x.start4 };
    for ((w, scales), out) in w
        .chunks_exact(blocks * BYTES)
        .zip(scales.chunks_exact(blocks * TILE))
        .zip(out.chunks_exact_mut(m * TILE))
    {
        let mut row = 0;
        while row < m {
            let rows = (m - row).min(ROWS_PER_TILE);
            let args = TileArgs {
                w: w.as_ptr(),
                scales: scales.as_ptr(),
                q: x.q[row * k..].as_ptr(),
                x_scale: x.scale[row * blocks..].as_ptr(),
                x_start: start[row * blocks..].as_ptr(),
                k,
                blocks,
            };
            // SAFETY: `rows` rows follow in x and 16 * rows floats in out.
            unsafe { table[rows - 1](&args, out[row * TILE..][..rows * TILE].as_mut_ptr()) };
            row += rows;
        }
    }
}
