use super::nbits::Stock;
use crate::kernel::{BLOCK, Bits, Kernel, PackedShape, QuantizedRows, RowMajor, RowScales, TILE};
use crate::map::MappedSlice;
use crate::{Error, ErrorKind, Result};
use half::slice::HalfFloatSliceExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A weight matrix, a view of the mapped file.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    shape: PackedShape,
    packed: MappedSlice,
    scales: MappedSlice,
    layout: Layout,
}

/// How the bytes of a [`Weight`] lie.
#[derive(Debug, Clone)]
enum Layout {
    /// Sixteen rows interleaved, see [`PackedShape`].
    Packed,
    /// Row by row, see [`RowMajor`].
    Rows { half: bool, zero_points: Option<MappedSlice> },
}

impl Weight {
    /// Checks lengths and alignment once.
    pub fn new(shape: PackedShape, packed: MappedSlice, scales: MappedSlice) -> Result<Self> {
        if packed.len() != shape.weight_bytes() || scales.len() != shape.scale_count() * 2 {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!(
                    "a packed weight of {} x {} needs {} bytes and {} scales, the file has {} and {}",
                    shape.n,
                    shape.k,
                    shape.weight_bytes(),
                    shape.scale_count(),
                    packed.len(),
                    scales.len() / 2
                ),
            ));
        }
        scales.as_f16()?;
        Ok(Self { shape, packed, scales, layout: Layout::Packed })
    }

    /// A stock weight, where it lies.
    pub fn stock(s: Stock) -> Self {
        let layout = Layout::Rows { half: s.half, zero_points: s.zero_points };
        Self { shape: s.shape, packed: s.weights, scales: s.scales, layout }
    }

    /// Rows `rows` of a row-major weight; `None` for the other layout.
    fn rows(&self, rows: std::ops::Range<usize>) -> Option<RowMajor<'_>> {
        let Layout::Rows { half, zero_points } = &self.layout else { return None };
        let PackedShape { bits, .. } = self.shape;
        let blocks = self.shape.blocks();
        let row = blocks * bits.bytes_per_row_block();
        let scales = rows.start * blocks..rows.end * blocks;
        let zero = RowMajor::zero_bytes(bits, blocks);
        Some(RowMajor {
            bits,
            blocks,
            weights: &self.packed[rows.start * row..rows.end * row],
            // Checked at construction; an empty slice would fail the kernel's own check.
            scales: if *half {
                let all: &[u16] = self.scales.as_f16().unwrap_or_default().reinterpret_cast();
                RowScales::F16(&all[scales])
            } else {
                RowScales::F32(&self.scales.as_f32().unwrap_or_default()[scales])
            },
            zero_points: zero_points.as_ref().map(|z| &z[rows.start * zero..rows.end * zero]),
        })
    }

    /// Quantizes activations for this weight.
    fn quantize(&self, q: &mut QuantizedRows, kernel: Kernel, x: &[f32]) {
        match self.layout {
            Layout::Packed => q.fill(kernel, x, self.shape.k),
            Layout::Rows { .. } => q.fill_for_rows(kernel, x, self.shape.k, self.shape.bits),
        }
    }

    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// The weights as floats, `[N][K]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let PackedShape { n, k, bits } = self.shape;
        let blocks = self.shape.blocks();
        let mut out = vec![0.0; n * k];
        if let Some(w) = self.rows(0..n) {
            let bytes = bits.bytes_per_row_block();
            for (i, out) in out.chunks_exact_mut(BLOCK).enumerate() {
                let zero = w.zero_point(i / blocks, i % blocks) as i32;
                let block = &w.weights[i * bytes..][..bytes];
                for (c, o) in out.iter_mut().enumerate() {
                    let stored = RowMajor::stored(bits, block, c) as i32;
                    *o = (stored - zero) as f32 * w.scales.get(i);
                }
            }
            return out;
        }
        let scales = self.scales.as_f16().unwrap_or_default();
        for (row, out) in out.chunks_exact_mut(k).enumerate() {
            for (c, o) in out.iter_mut().enumerate() {
                let block = row / TILE * blocks + c / BLOCK;
                let at = |c: usize| {
                    block * bits.bytes_per_block() + (c / 4 * TILE + row % TILE) * 4 + c % 4
                };
                let w = match bits {
                    Bits::Eight => self.packed[at(c % BLOCK)] as i32 - 128,
                    Bits::Four => {
                        let byte = self.packed[at(c % 16)];
                        (if c % BLOCK < 16 { byte & 15 } else { byte >> 4 }) as i32 - 8
                    }
                };
                *o = w as f32 * scales[block * TILE + row % TILE].to_f32();
            }
        }
        out
    }

    /// `out[tile][m][16]` for `tiles`.
    fn multiply(
        &self,
        kernel: Kernel,
        x: &QuantizedRows,
        tiles: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        if let Some(w) = self.rows(tiles.start * TILE..(tiles.end * TILE).min(self.shape.n)) {
            return kernel.qgemm_rows(&w, x, out);
        }
        let per_tile = self.shape.blocks() * self.shape.bits.bytes_per_block();
        let per_scale = self.shape.blocks() * TILE;
        // Checked at construction; an empty slice would fail the kernel's own check.
        let scales = self.scales.as_f16().unwrap_or_default().reinterpret_cast();
        kernel.qgemm(
            self.shape.bits,
            &self.packed[tiles.start * per_tile..tiles.end * per_tile],
            &scales[tiles.start * per_scale..tiles.end * per_scale],
            x,
            out,
        );
    }

    fn bytes(&self) -> usize {
        self.packed.len() + self.scales.len()
    }
}

/// Most pieces that one product is cut into.
const MAX_CHUNKS: usize = 32;
/// Weight bytes below which a piece is not worth handing over.
const MIN_CHUNK_BYTES: usize = 24 << 10;
/// How long a worker watches for the next product before it sleeps.
const SPIN: Duration = Duration::from_micros(60);

/// What the workers share. A product is cut into chunks of tiles that any thread may
/// claim, so a worker that is not scheduled costs nothing but its own help.
struct Shared {
    kernel: Kernel,
    /// Bumped once per product; workers sleep on it.
    epoch: AtomicU64,
    /// `epoch << 32 | next chunk`: a claim from an older product fails.
    next: AtomicU64,
    done: AtomicUsize,
    sleepers: AtomicUsize,
    job: Mutex<Job>,
    wake: Condvar,
    x: RwLock<QuantizedRows>,
    chunks: Vec<Mutex<Vec<f32>>>,
}

#[derive(Clone)]
struct Job {
    epoch: u64,
    stop: bool,
    weight: Option<Arc<Weight>>,
    chunks: usize,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits matrix products among a few threads.
///
/// Each output channel is computed whole by one thread in the kernel's fixed order, so the
/// result does not depend on the number of threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<std::thread::JoinHandle<()>>,
    /// One product at a time, also when two sessions share the pool.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads, {})", self.threads(), self.kernel().name())
    }
}

impl Pool {
    /// A pool of `threads` (at least 1, the caller's own included).
    pub fn new(kernel: Kernel, threads: usize) -> Arc<Self> {
        let shared = Arc::new(Shared {
            kernel,
            epoch: AtomicU64::new(0),
            next: AtomicU64::new(u64::MAX),
            done: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            job: Mutex::new(Job { epoch: 0, stop: false, weight: None, chunks: 0 }),
            wake: Condvar::new(),
            x: RwLock::new(QuantizedRows::default()),
            chunks: (0..MAX_CHUNKS).map(|_| Mutex::new(Vec::new())).collect(),
        });
        let workers = (1..threads)
            .filter_map(|i| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("voxgrain-{i}"))
                    .spawn(move || shared.work())
                    .map_err(|e| log::warn!("running with fewer threads: {e}"))
                    .ok()
            })
            .collect();
        Arc::new(Self { shared, workers, turn: Mutex::new(()) })
    }

    /// Threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instruction set in use.
    pub fn kernel(&self) -> Kernel {
        self.shared.kernel
    }

    /// `out[m][N] = x[m][K] W^T (+ bias[N]) (+ residual[m][N])`.
    pub(super) fn multiply(
        &self,
        w: &Arc<Weight>,
        x: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let _turn = lock(&self.turn);
        let s = &*self.shared;
        let m = {
            let mut q = s.x.write().unwrap_or_else(PoisonError::into_inner);
            w.quantize(&mut q, s.kernel, x);
            q.rows()
        };
        let n = w.shape.n;
        let tiles = w.shape.tiles();
        let pieces = if self.workers.is_empty() {
            1
        } else {
            (w.bytes() / MIN_CHUNK_BYTES).clamp(1, self.threads() * 4).min(tiles).min(MAX_CHUNKS)
        };
        if pieces == 1 {
            let q = s.x.read().unwrap_or_else(PoisonError::into_inner);
            let mut buffer = lock(&s.chunks[0]);
            buffer.resize(tiles * m * TILE, 0.0);
            w.multiply(s.kernel, &q, 0..tiles, &mut buffer);
        } else {
            s.post(w, pieces);
            let epoch = s.epoch.load(Ordering::Relaxed);
            s.help(w, epoch, pieces);
            while s.done.load(Ordering::Acquire) < pieces {
                std::hint::spin_loop();
            }
        }
        for c in 0..pieces {
            let range = chunk(tiles, pieces, c);
            let buffer = lock(&s.chunks[c]);
            for (t, tile) in range.clone().zip(buffer.chunks_exact(m * TILE)) {
                let width = TILE.min(n - t * TILE);
                for (i, row) in tile.chunks_exact(TILE).enumerate() {
                    let at = i * n + t * TILE;
                    let out = &mut out[at..at + width];
                    out.copy_from_slice(&row[..width]);
                    if let Some(bias) = bias {
                        for (o, b) in out.iter_mut().zip(&bias[t * TILE..]) {
                            *o += b;
                        }
                    }
                    if let Some(residual) = residual {
                        for (o, r) in out.iter_mut().zip(&residual[at..]) {
                            *o += r;
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut job = lock(&self.shared.job);
            job.stop = true;
            job.epoch += 1;
            self.shared.epoch.store(job.epoch, Ordering::Release);
            self.shared.wake.notify_all();
        }
        for w in self.workers.drain(..) {
            let _ = w.join();
        }
    }
}

fn chunk(tiles: usize, pieces: usize, c: usize) -> std::ops::Range<usize> {
    tiles * c / pieces..tiles * (c + 1) / pieces
}

impl Shared {
    fn post(&self, w: &Arc<Weight>, chunks: usize) {
        let mut job = lock(&self.job);
        job.epoch += 1;
        job.weight = Some(w.clone());
        job.chunks = chunks;
        self.done.store(0, Ordering::Relaxed);
        self.next.store(job.epoch << 32, Ordering::Release);
        self.epoch.store(job.epoch, Ordering::Release);
        // A worker goes to sleep under the same lock, so no wake-up is lost.
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.wake.notify_all();
        }
    }

    /// Claims and computes chunks of product `epoch` until none is left.
    fn help(&self, w: &Weight, epoch: u64, chunks: usize) {
        let tiles = w.shape.tiles();
        let mut at = self.next.load(Ordering::Acquire);
        loop {
            let c = (at & 0xffff_ffff) as usize;
            if at >> 32 != epoch & 0xffff_ffff || c >= chunks {
                return;
            }
            match self.next.compare_exchange_weak(at, at + 1, Ordering::AcqRel, Ordering::Acquire) {
                Err(now) => at = now,
                Ok(_) => {
                    {
                        let x = self.x.read().unwrap_or_else(PoisonError::into_inner);
                        let range = chunk(tiles, chunks, c);
                        let mut out = lock(&self.chunks[c]);
                        out.resize(range.len() * x.rows() * TILE, 0.0);
                        w.multiply(self.kernel, &x, range, &mut out);
                    }
                    self.done.fetch_add(1, Ordering::Release);
                    at = self.next.load(Ordering::Acquire);
                }
            }
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            let start = Instant::now();
            let mut spins = 0u32;
            while self.epoch.load(Ordering::Acquire) == seen {
                std::hint::spin_loop();
                spins += 1;
                if spins % 64 == 0 && start.elapsed() > SPIN {
                    let mut job = lock(&self.job);
                    self.sleepers.fetch_add(1, Ordering::Relaxed);
                    while job.epoch == seen {
                        job = self.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
                    }
                    self.sleepers.fetch_sub(1, Ordering::Relaxed);
                }
            }
            let job = lock(&self.job).clone();
            seen = job.epoch;
            if job.stop {
                return;
            }
            if let Some(w) = job.weight {
                self.help(&w, job.epoch, job.chunks);
            }
        }
    }
}

/// From the operator's attributes.
pub(super) fn packed_shape(n: i64, k: i64, bits: i64) -> Result<PackedShape> {
    let malformed = |what: &str| {
        Error::new(ErrorKind::Malformed, format!("matrix product with {what}: export it again"))
    };
    let bits = Bits::from_count(bits).ok_or_else(|| malformed("bits other than 4 or 8"))?;
    let size = |v: i64| usize::try_from(v).ok().filter(|v| (1..1 << 24).contains(v));
    let n = size(n).ok_or_else(|| malformed("N out of range"))?;
    let k = size(k)
        .filter(|k| k % crate::kernel::BLOCK == 0)
        .ok_or_else(|| malformed("K not a multiple of 32"))?;
    Ok(PackedShape { n, k, bits })
}
