//! The threads that products and attention are divided among.

use super::kv::LayerCache;
use super::weight::Weight;
use crate::kernel::{Attend, Kernel, Place, QuantizedRows, TILE};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Most pieces that one task is cut into.
const MAX_PIECES: usize = 32;
/// Weight bytes below which a piece is not worth handing over.
const MIN_PIECE_BYTES: usize = 24 << 10;
/// Multiply-adds below which attention is not worth handing over.
const MIN_ATTEND: usize = 100_000;
/// How long a worker watches for the next task before it sleeps.
const SPIN: Duration = Duration::from_micros(100);
/// How much longer than its own pieces the caller waits for another thread's.
const PATIENCE: Duration = Duration::from_micros(30);

/// Attention of the rows of one pass over the cache of one layer.
#[derive(Clone)]
pub(super) struct AttentionTask {
    pub layer: Arc<LayerCache>,
    /// Queries of one key/value head: `rows * group` of `head_dim`.
    pub head_dim: usize,
    pub group: usize,
    /// Positions in the cache before the rows of this pass.
    pub past: usize,
    pub rows: usize,
    /// Whether a row sees none of the rows behind it.
    pub causal: bool,
}

#[derive(Clone, Default)]
enum Task {
    #[default]
    None,
    Multiply(Arc<Weight>),
    Attend(AttentionTask),
}

/// Where one piece's result goes.
#[derive(Default)]
struct Buffer {
    out: Vec<f32>,
    scratch: Vec<f32>,
}

impl Buffer {
    fn reserve(&mut self, largest: &Sizes) {
        self.out.reserve(largest.out.saturating_sub(self.out.len()));
        self.scratch.reserve(largest.scratch.saturating_sub(self.scratch.len()));
    }
}

#[derive(Default)]
struct Piece {
    done: AtomicBool,
    buffer: Mutex<Buffer>,
}

/// One task with everything that a thread needs for a piece of it. A worker that the
/// system put aside in the middle of a piece keeps its `Dispatch` and disturbs nobody: the
/// caller computes the piece again and takes another `Dispatch` for the next task.
#[derive(Default)]
struct Dispatch {
    task: Task,
    /// Activations of a product.
    x: QuantizedRows,
    /// Queries `[kv_heads][rows * group][head_dim]`, rotated and scaled.
    query: Vec<f32>,
    /// Positions that each query sees, the same for every head.
    lens: Vec<usize>,
    /// What is divided: tiles of weights, or heads.
    units: usize,
    count: usize,
    next: AtomicUsize,
    pieces: Vec<Piece>,
}

impl Dispatch {
    fn begin(&mut self, task: Task, units: usize, count: usize) {
        (self.task, self.units, self.count) = (task, units, count);
        *self.next.get_mut() = 0;
        for p in &mut self.pieces[..count] {
            *p.done.get_mut() = false;
        }
    }

    fn range(&self, piece: usize) -> std::ops::Range<usize> {
        self.units * piece / self.count..self.units * (piece + 1) / self.count
    }

    fn reserve(&mut self, largest: &Sizes) {
        self.x.reserve(largest.x);
        self.query.reserve(largest.query.saturating_sub(self.query.len()));
        self.lens.reserve(largest.lens.saturating_sub(self.lens.len()));
    }

    fn measure(&self, largest: &mut Sizes) {
        let units = self.units.div_ceil(self.count);
        let (out, scratch) = match &self.task {
            Task::None => (0, 0),
            Task::Multiply(_) => (units * self.x.rows() * TILE, 0),
            Task::Attend(t) => {
                let longest = (t.past + t.rows).next_multiple_of(16);
                (units * t.rows * t.group * t.head_dim, 8 * longest)
            }
        };
        largest.out = largest.out.max(out);
        largest.scratch = largest.scratch.max(scratch);
        largest.x = largest.x.max(self.x.rows() * self.x.columns());
        largest.query = largest.query.max(self.query.len());
        largest.lens = largest.lens.max(self.lens.len());
    }

    fn compute(&self, kernel: Kernel, piece: usize, b: &mut Buffer) {
        let range = self.range(piece);
        match &self.task {
            Task::None => {}
            Task::Multiply(w) => {
                b.out.resize(range.len() * self.x.rows() * TILE, 0.0);
                w.multiply(kernel, &self.x, range, &mut b.out);
            }
            Task::Attend(t) => {
                let width = t.rows * t.group * t.head_dim;
                b.out.resize(range.len() * width, 0.0);
                let end = range.end;
                let mut cache = t.layer.head(range.start);
                for (head, out) in range.zip(b.out.chunks_exact_mut(width)) {
                    let next = (head + 1 < end).then(|| t.layer.head(head + 1));
                    let a = Attend {
                        q: &self.query[head * width..][..width],
                        lens: &self.lens,
                        keys: &cache.keys,
                        values: &cache.values,
                        head_dim: t.head_dim,
                        next: next.as_ref().map_or(&[], |n| &n.keys),
                    };
                    if b.scratch.len() < a.scratch() {
                        b.scratch.resize(a.scratch(), 0.0);
                    }
                    kernel.attend(&a, &mut b.scratch, out);
                    match next {
                        Some(next) => cache = next,
                        None => break,
                    }
                }
            }
        }
    }

    /// Claims and computes pieces until none is left; how long the longest took.
    fn help(&self, kernel: Kernel) -> Duration {
        let mut longest = Duration::ZERO;
        let mut clock = Instant::now();
        loop {
            let c = self.next.fetch_add(1, Ordering::Relaxed);
            if c >= self.count {
                return longest;
            }
            let piece = &self.pieces[c];
            self.compute(kernel, c, &mut lock(&piece.buffer));
            piece.done.store(true, Ordering::Release);
            let now = Instant::now();
            longest = longest.max(now - clock);
            clock = now;
        }
    }
}

/// What the workers share. A task is cut into pieces that any thread may claim, so a worker
/// that is not scheduled costs nothing but its own help.
struct Crew {
    kernel: Kernel,
    /// Bumped once a task; workers watch it and sleep on `current`.
    epoch: AtomicU64,
    sleepers: AtomicUsize,
    current: Mutex<Current>,
    wake: Condvar,
}

struct Current {
    epoch: u64,
    stop: bool,
    dispatch: Arc<Dispatch>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits matrix products and attention among a few threads.
///
/// Each output channel and each head is computed whole by one thread in the kernel's fixed
/// order, so the result does not depend on the number of threads.
pub struct Pool {
    crew: Arc<Crew>,
    workers: Vec<std::thread::JoinHandle<()>>,
    /// One task at a time, also when two sessions share the pool.
    ring: Mutex<Ring>,
}

/// Dispatches to use again, in turn, so that each has room for every size of task.
struct Ring {
    all: Vec<Arc<Dispatch>>,
    next: usize,
    /// For pieces that are computed again.
    spare: Buffer,
    largest: Sizes,
}

/// The largest sizes so far, so that every `Dispatch` has room for them and which one a task gets
/// does not decide when memory is taken.
#[derive(Default, Clone, Copy)]
struct Sizes {
    /// Floats of a piece's result and scratch.
    out: usize,
    scratch: usize,
    /// Activations of a product; floats of queries, and their number.
    x: usize,
    query: usize,
    lens: usize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads, {})", self.threads(), self.kernel().name())
    }
}

impl Pool {
    /// A pool of `threads` (at least 1, the caller's own included).
    pub fn new(kernel: Kernel, threads: usize) -> Arc<Self> {
        Self::pinned(kernel, threads, &[])
    }

    /// The same, with worker `i` (from 1) kept on the CPU `cpus[i]`, where there is one and
    /// the system allows it. The caller's own thread is pinned by [`pin`], or not at all.
    pub fn pinned(kernel: Kernel, threads: usize, cpus: &[usize]) -> Arc<Self> {
        let crew = Arc::new(Crew {
            kernel,
            epoch: AtomicU64::new(0),
            sleepers: AtomicUsize::new(0),
            current: Mutex::new(Current { epoch: 0, stop: false, dispatch: Arc::default() }),
            wake: Condvar::new(),
        });
        let workers: Vec<_> = (1..threads)
            .filter_map(|i| {
                let crew = crew.clone();
                let cpu = cpus.get(i).copied();
                std::thread::Builder::new()
                    .name(format!("voxgrain-{i}"))
                    .spawn(move || {
                        if let Some(cpu) = cpu
                            && !pin(cpu)
                        {
                            log::warn!("thread {i} could not be kept on CPU {cpu}");
                        }
                        crew.serve()
                    })
                    .map_err(|e| log::warn!("running with fewer threads: {e}"))
                    .ok()
            })
            .collect();
        // The last task's is still in `current`, and each worker may be late in another.
        let all = (0..workers.len() + 2).map(|_| Arc::default()).collect();
        let ring = Ring { all, next: 0, spare: Buffer::default(), largest: Sizes::default() };
        Arc::new(Self { crew, workers, ring: Mutex::new(ring) })
    }

    /// Upper bound of the bytes that a pool holds once it has met passes of `rows` tokens with
    /// `positions` in the context. `columns` are those of the widest product, read and written
    /// together: activations in 8 bits, results in pieces and the scores of a head.
    pub const fn work_bytes(rows: usize, columns: usize, positions: usize) -> usize {
        8 * rows * columns + 16 * positions + (256 << 10)
    }

    /// Threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instruction set in use.
    pub fn kernel(&self) -> Kernel {
        self.crew.kernel
    }

    /// Pieces of a task that is worth `worth` of them.
    fn count(&self, worth: usize, units: usize) -> usize {
        match self.workers.is_empty() {
            true => 1,
            false => worth.clamp(1, self.threads() * 4).min(units).min(MAX_PIECES),
        }
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
        let fill = |q: &mut QuantizedRows| w.quantize(q, self.crew.kernel, x);
        self.product(w, fill, bias, residual, out);
    }

    /// [`multiply`](Self::multiply) where row `i` is rows `i` to `i + taps` of `x`, which has
    /// `taps - 1` rows more than `out`, behind one another.
    pub(super) fn convolve(
        &self,
        w: &Arc<Weight>,
        taps: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let (kernel, columns) = (self.crew.kernel, w.shape().k / taps);
        let fill = |q: &mut QuantizedRows| q.fill_windows(kernel, x, columns, taps);
        self.product(w, fill, bias, residual, out);
    }

    fn product(
        &self,
        w: &Arc<Weight>,
        fill: impl FnOnce(&mut QuantizedRows),
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let (n, tiles) = (w.shape().n, w.shape().tiles());
        let m = out.len() / n;
        let prepare = |dispatch: &mut Dispatch| {
            fill(&mut dispatch.x);
            let count = self.count(w.bytes() / MIN_PIECE_BYTES, tiles);
            dispatch.begin(Task::Multiply(w.clone()), tiles, count);
        };
        self.run(prepare, |range, result| {
            let first = range.start * TILE;
            let place = Place { rows: m, columns: n, first, bias, residual };
            self.crew.kernel.place(result, &place, out);
        });
    }

    /// Attention of every head. `query` fills `[kv_heads][rows * group][head_dim]`, row by row
    /// and within a row by head of the group; `out` is `[rows][heads * head_dim]`.
    pub(super) fn attend(
        &self,
        a: &AttentionTask,
        query: impl FnOnce(&mut [f32]),
        out: &mut [f32],
    ) {
        let (kv_heads, d) = (a.layer.kv_heads(), a.head_dim);
        let per_head = a.rows * a.group;
        let prepare = |dispatch: &mut Dispatch| {
            dispatch.query.resize(kv_heads * per_head * d, 0.0);
            query(&mut dispatch.query);
            dispatch.lens.clear();
            let seen = |i| if a.causal { i / a.group + 1 } else { a.rows };
            dispatch.lens.extend((0..per_head).map(|i| a.past + seen(i)));
            let cost = (a.past + a.rows) * d * (per_head + 2) * kv_heads;
            let count = self.count(cost / MIN_ATTEND * 4, kv_heads);
            dispatch.begin(Task::Attend(a.clone()), kv_heads, count);
        };
        self.run(prepare, |range, result| {
            for (head, result) in range.zip(result.chunks_exact(per_head * d)) {
                for (r, row) in result.chunks_exact(a.group * d).enumerate() {
                    out[(r * kv_heads + head) * a.group * d..][..a.group * d].copy_from_slice(row);
                }
            }
        });
    }

    /// Prepares a task, has it computed and hands the result of each piece to `take`.
    fn run(
        &self,
        prepare: impl FnOnce(&mut Dispatch),
        mut take: impl FnMut(std::ops::Range<usize>, &[f32]),
    ) {
        let Ring { all, next, spare, largest } = &mut *lock(&self.ring);
        let kernel = self.crew.kernel;
        let n = all.len();
        let free = (*next..*next + n).map(|i| i % n).find(|&i| Arc::get_mut(&mut all[i]).is_some());
        let free = free.unwrap_or_else(|| {
            all.push(Arc::default());
            n
        });
        *next = free + 1;
        let Some(dispatch) = Arc::get_mut(&mut all[free]) else { return };
        dispatch.reserve(largest);
        let pieces = (self.threads() * 4).min(MAX_PIECES);
        if dispatch.pieces.len() < pieces {
            dispatch.pieces.resize_with(pieces, Piece::default);
        }
        prepare(dispatch);
        dispatch.measure(largest);
        for piece in &mut dispatch.pieces {
            piece.buffer.get_mut().unwrap_or_else(PoisonError::into_inner).reserve(largest);
        }
        if dispatch.count > 1 {
            spare.reserve(largest);
        }
        let dispatch = &all[free];
        if dispatch.count == 1 {
            let mut buffer = lock(&dispatch.pieces[0].buffer);
            dispatch.compute(kernel, 0, &mut buffer);
            return take(dispatch.range(0), &buffer.out);
        }
        self.crew.post(dispatch);
        let longest = dispatch.help(kernel);
        let waiting = Instant::now();
        for (c, piece) in dispatch.pieces[..dispatch.count].iter().enumerate() {
            let mut late = false;
            while !piece.done.load(Ordering::Acquire) && !late {
                std::hint::spin_loop();
                late = waiting.elapsed() > longest * 2 + PATIENCE;
            }
            if late {
                // Its thread is not running now. The result is the same whoever computes it.
                dispatch.compute(kernel, c, spare);
                take(dispatch.range(c), &spare.out);
            } else {
                take(dispatch.range(c), &lock(&piece.buffer).out);
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut current = lock(&self.crew.current);
            current.stop = true;
            current.epoch += 1;
            self.crew.epoch.store(current.epoch, Ordering::Release);
            self.crew.wake.notify_all();
        }
        for w in self.workers.drain(..) {
            let _ = w.join();
        }
    }
}

/// The CPUs that this process may run on, rising, as the system told at the first call, before
/// any thread was kept on one of them; empty where it does not tell.
pub fn cpus() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(|| {
        let all = core_affinity::get_core_ids().unwrap_or_default();
        let mut all: Vec<usize> = all.into_iter().map(|c| c.id).collect();
        all.sort_unstable();
        all
    })
}

/// Keeps the calling thread on one CPU; `false` where the system does not do that, or the CPU is
/// none of [`cpus`].
pub fn pin(cpu: usize) -> bool {
    cpus().binary_search(&cpu).is_ok()
        && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

impl Crew {
    fn post(&self, dispatch: &Arc<Dispatch>) {
        let mut current = lock(&self.current);
        current.epoch += 1;
        current.dispatch = dispatch.clone();
        self.epoch.store(current.epoch, Ordering::Release);
        // A worker goes to sleep under the same lock, so no wake-up is lost.
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.wake.notify_all();
        }
    }

    fn serve(&self) {
        let mut seen = 0;
        loop {
            let start = Instant::now();
            let mut spins = 0u32;
            while self.epoch.load(Ordering::Acquire) == seen {
                std::hint::spin_loop();
                spins += 1;
                if spins % 64 == 0 && start.elapsed() > SPIN {
                    let mut current = lock(&self.current);
                    self.sleepers.fetch_add(1, Ordering::Relaxed);
                    while current.epoch == seen {
                        current = self.wake.wait(current).unwrap_or_else(PoisonError::into_inner);
                    }
                    self.sleepers.fetch_sub(1, Ordering::Relaxed);
                }
            }
            let dispatch = {
                let current = lock(&self.current);
                seen = current.epoch;
                if current.stop {
                    return;
                }
                current.dispatch.clone()
            };
            dispatch.help(self.kernel);
        }
    }
}
