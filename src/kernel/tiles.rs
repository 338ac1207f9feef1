//! The walk over weight tiles that every SIMD kernel shares: the one place that turns the
//! checked slices of [`super::Kernel::qgemm`] and [`super::Kernel::qgemm_rows`] into
//! addresses.
#![allow(unsafe_code)]

use super::{QuantizedRows, ROWS_PER_TILE, RowMajor, RowScales, SCALE_BLOCK, TILE};

/// [`TileArgs`] over the interleaved layout.
pub(super) const PACKED: u8 = 0;
/// Over rows as ONNX stores them: the vectors of the interleaved layout are put together in
/// registers, so that everything after the load is the same.
pub(super) const ROWS: u8 = 1;
/// [`ROWS`] with a zero point of its own for each block.
pub(super) const ROWS_ZERO: u8 = 2;

/// One tile of 16 weight rows against up to eight activation rows.
///
/// Whoever makes one promises what each field says for as many activation rows as the function
/// that it is given to handles; everything that is read or written rests on that.
pub(super) struct TileArgs {
    /// `blocks * BYTES` packed weight bytes, or the first of 16 rows.
    pub(super) w: *const u8,
    /// Bytes from one weight row to the next; not `PACKED`.
    pub(super) stride: usize,
    /// What lies as far behind the next tile's start as the loop is behind this one's; only to
    /// be asked for, it may not exist. Rows of a tile are read side by side, which hides from
    /// the hardware that tiles follow each other. Not `PACKED`.
    pub(super) ahead: *const u8,
    /// Whether a tile is so small that the next one fits the first cache beside it.
    pub(super) near: bool,
    /// `blocks * 16` f16 scales; `PACKED` only.
    pub(super) scales: *const u16,
    /// `blocks * 16` scales; not `PACKED`.
    pub(super) row_scales: *const f32,
    /// `blocks * 16` times what is to be added for each unit of the activations' sum;
    /// `ROWS_ZERO` only.
    pub(super) offsets: *const i32,
    /// First activation row; the next rows follow `k` bytes apart.
    pub(super) q: *const i8,
    /// Activation scales and starts of the sums, which take the weights' usual offset off;
    /// the next rows follow `x_blocks` apart.
    pub(super) x_scale: *const f32,
    pub(super) x_start: *const i32,
    /// The activations' sums; `ROWS_ZERO` only.
    pub(super) x_sum: *const i32,
    pub(super) k: usize,
    pub(super) x_blocks: usize,
    pub(super) blocks: usize,
}

impl TileArgs {
    /// The 32 activations of block `b` of row `i`: an address, nothing is read.
    #[inline(always)]
    pub(super) fn activations(&self, i: usize, b: usize) -> *const i8 {
        self.q.wrapping_add(i * self.k + b * SCALE_BLOCK)
    }

    /// The scale of block `b` of row `i`.
    ///
    /// # Safety
    /// `x_scale` covers row `i`, and `b` is below `blocks`.
    #[inline(always)]
    pub(super) unsafe fn activation_scale(&self, i: usize, b: usize) -> f32 {
        // SAFETY: the caller's promise puts the element inside what `x_scale` covers.
        unsafe { *self.x_scale.add(i * self.x_blocks + b) }
    }

    /// Where the sum of block `b` of row `i` starts.
    ///
    /// # Safety
    /// `x_start` covers row `i`, and `b` is below `blocks`.
    #[inline(always)]
    pub(super) unsafe fn start(&self, i: usize, b: usize) -> i32 {
        // SAFETY: the caller's promise puts the element inside what `x_start` covers.
        unsafe { *self.x_start.add(i * self.x_blocks + b) }
    }

    /// The sum of the activations of block `b` of row `i`.
    ///
    /// # Safety
    /// `x_sum` covers row `i`, and `b` is below `blocks`.
    #[inline(always)]
    pub(super) unsafe fn activation_sum(&self, i: usize, b: usize) -> i32 {
        // SAFETY: the caller's promise puts the element inside what `x_sum` covers.
        unsafe { *self.x_sum.add(i * self.x_blocks + b) }
    }
}

/// A tile against `M` activation rows: writes `M * 16` floats to `out`; over rows it continues
/// the sums that `out` holds.
///
/// # Safety
/// The CPU has the features of the table that the function is in, the fields of [`TileArgs`]
/// hold for its layout and `M` rows, and `out` has `M * 16` floats.
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
    let (m, blocks) = (x.rows(), x.blocks());
    let (k, x_blocks) = x.strides();
    let start = if BYTES == TILE * SCALE_BLOCK { &x.start8 } else { &x.start4 };
    for ((w, scales), out) in w
        .chunks_exact(blocks * BYTES)
        .zip(scales.chunks_exact(blocks * TILE))
        .zip(out.chunks_exact_mut(m * TILE))
    {
        let args = TileArgs {
            w: w.as_ptr(),
            stride: 0,
            ahead: std::ptr::null(),
            near: false,
            scales: scales.as_ptr(),
            row_scales: std::ptr::null(),
            offsets: std::ptr::null(),
            q: x.q.as_ptr(),
            x_scale: x.scale.as_ptr(),
            x_start: start.as_ptr(),
            x_sum: x.sum.as_ptr(),
            k,
            x_blocks,
            blocks,
        };
        // SAFETY: the chunks are a tile of `blocks` blocks, `x` has m rows of as many, which may
        // overlap, the chunk of `out` has 16 m floats, and the caller answers for the features.
        unsafe { all_rows(args, m, out.as_mut_ptr(), table) }
    }
}

/// # Safety
/// As for [`RowsFn`], with `m` rows.
#[inline(always)]
unsafe fn all_rows(mut args: TileArgs, m: usize, out: *mut f32, table: &[RowsFn; ROWS_PER_TILE]) {
    let mut row = 0;
    while row < m {
        let rows = (m - row).min(ROWS_PER_TILE);
        // SAFETY: `row + rows` is at most `m`: so many rows are left behind the pointers of `args`,
        // which were moved on by `row`, and so many times 16 floats from there on in `out`.
        unsafe { table[rows - 1](&args, out.add(row * TILE)) };
        args.q = args.q.wrapping_add(rows * args.k);
        args.x_scale = args.x_scale.wrapping_add(rows * args.x_blocks);
        args.x_start = args.x_start.wrapping_add(rows * args.x_blocks);
        args.x_sum = args.x_sum.wrapping_add(rows * args.x_blocks);
        row += rows;
    }
}

/// The largest tile that one activation row meets row by row. Measured on x86: at 8 KiB that
/// gains a quarter over reading the rows side by side, at 16 and 32 KiB it loses as much,
/// because nobody asks for the next tile in time.
const STREAMED_BYTES: usize = 8192;
/// Blocks whose scales are brought into order at a time.
pub(super) const SPAN: usize = 64;
/// The same for rows that are copied.
const COPIED_SPAN: usize = 16;

/// What one instruction set brings to [`qgemm_rows`].
pub(super) struct RowTables {
    pub(super) plain: [RowsFn; ROWS_PER_TILE],
    pub(super) zero: [RowsFn; ROWS_PER_TILE],
    /// The same for one activation row, reading weight rows one after the other.
    pub(super) one: RowsFn,
    pub(super) one_zero: RowsFn,
    /// Four words of each of 16 rows, `stride` bytes apart, to `[4][16]`. To call it is safe where
    /// the CPU has the features, 16 bytes are at the start of each row, and 64 floats behind the
    /// last pointer.
    pub(super) transpose: unsafe fn(*const u8, usize, *mut f32),
    /// Asks for so many bytes from an address on, which need not exist.
    pub(super) prefetch: fn(*const u8, usize),
}

/// The walk over rows. A tile is cut into spans of columns, so that its scales fit a small
/// buffer; a last tile of fewer than 16 rows is copied, filled up with its last row.
///
/// # Safety
/// The features of `tables` exist, the lengths are those that `Kernel::qgemm_rows` checks
/// and a row has `ROW` bytes a block.
pub(super) unsafe fn qgemm_rows<const ROW: usize>(
    w: &RowMajor,
    x: &QuantizedRows,
    out: &mut [f32],
    tables: &RowTables,
) {
    let (m, blocks) = (x.rows(), x.blocks());
    let (k, x_blocks) = x.strides();
    let starts = if ROW == SCALE_BLOCK { &x.start8 } else { &x.start4 };
    let stride = blocks * ROW;
    let rows = w.rows();
    let mut scales = [0f32; SPAN * TILE];
    let mut offsets = [0i32; SPAN * TILE];
    // A little apart, so that they do not meet in the same sets of the cache.
    let mut copy = [[0u8; COPIED_SPAN * SCALE_BLOCK + 64]; TILE];
    out.fill(0.0);
    for (t, out) in out.chunks_exact_mut(m * TILE).enumerate() {
        let valid = TILE.min(rows - t * TILE);
        let copied = valid < TILE;
        // Scales are read from all rows at once: without a word before, each tile would wait.
        let (start, size) = match w.scales {
            RowScales::F32(s) => (s.as_ptr().cast::<u8>(), 4),
            RowScales::F16(s) => (s.as_ptr().cast(), 2),
        };
        let bytes = TILE * blocks * size;
        (tables.prefetch)(start.wrapping_add((t + 1) * bytes), bytes);
        let step = if copied { COPIED_SPAN } else { SPAN };
        for first in (0..blocks).step_by(step) {
            let span = step.min(blocks - first);
            let at = t * TILE * stride + first * ROW;
            w.spread_scales(t * TILE, valid, first, &mut scales[..span * TILE], |src, to| {
                // SAFETY: `spread_scales` calls it for a whole tile only: `src` spans 16 rows of
                // `blocks` floats up to the last one's fourth, `to` has 64. The caller answers for
                // the features.
                unsafe { (tables.transpose)(src.as_ptr().cast(), blocks * 4, to.as_mut_ptr()) }
            });
            if w.zero_points.is_some() {
                w.spread_offsets(t * TILE, valid, first, &mut offsets[..span * TILE]);
            }
            let mut args = TileArgs {
                w: w.weights[at..].as_ptr(),
                stride,
                near: TILE * stride <= 4096,
                // The part of the next tile that takes the place of this span in the order
                // of the file.
                ahead: w
                    .weights
                    .as_ptr()
                    .wrapping_add((t + 1) * TILE * stride + first * ROW * TILE),
                scales: std::ptr::null(),
                row_scales: scales.as_ptr(),
                offsets: offsets.as_ptr(),
                q: x.q[first * SCALE_BLOCK..].as_ptr(),
                x_scale: x.scale[first..].as_ptr(),
                x_start: starts[first..].as_ptr(),
                x_sum: x.sum[first..].as_ptr(),
                k,
                x_blocks,
                blocks: span,
            };
            let (table, one) = match w.zero_points {
                Some(_) => (&tables.zero, tables.one_zero),
                None => (&tables.plain, tables.one),
            };
            if m == 1 && TILE * stride <= STREAMED_BYTES && !copied {
                // SAFETY: as in the next branch, with one activation row and at most SPAN blocks.
                unsafe { one(&args, out.as_mut_ptr()) }
            } else if !copied {
                // SAFETY: the tile is whole, so 16 rows have `span` blocks from `at` on; `x` has m
                // rows of `blocks` blocks, of which `first + span` are used, the buffers have scales
                // and offsets of `span` blocks, and `out` has 16 m floats. The caller answers for
                // the features.
                unsafe { all_rows(args, m, out.as_mut_ptr(), table) }
            } else {
                let width = span * ROW;
                for (r, copy) in copy.iter_mut().enumerate() {
                    let from = at + r.min(valid - 1) * stride;
                    copy[..width].copy_from_slice(&w.weights[from..][..width]);
                }
                args.w = copy.as_ptr().cast();
                args.stride = size_of_val(&copy[0]);
                // SAFETY: as above, but the 16 rows are those of `copy`, which have room for
                // COPIED_SPAN blocks and were filled as far as `span`.
                unsafe { all_rows(args, m, out.as_mut_ptr(), table) }
            }
        }
    }
}
