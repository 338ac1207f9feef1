//! The engine against golden files that onnxruntime and PyTorch computed from the same
//! weights, without quantizing activations (tests/data/README.md).
#![cfg(feature = "engine")]

use serde_json::Value;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use voxgrain::bundle::Bundle;
use voxgrain::decode::TokenModel;
use voxgrain::engine::{CodecSession, Model, Pool, Session};
use voxgrain::kernel;
use voxgrain::map::Map;

thread_local! {
    /// Bytes that this thread took, and those that it took and did not give back.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
    static KEPT: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(taken: usize, given: usize) {
    TAKEN.set(TAKEN.get() + taken);
    KEPT.set(KEPT.get() + taken as isize - given as isize);
}

// SAFETY: everything is passed on to the system's allocator; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's block, which came from the same allocator.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's block, which came from the same allocator.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Golden {
    header: Value,
    data: Vec<u8>,
}

impl Golden {
    /// `None` where the bundle or its golden file is not there.
    fn load(bundle: &str, model: &str) -> Option<(Bundle, Self)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = root.join("models").join(bundle);
        let path: PathBuf = root.join(format!("tests/data/golden/{bundle}-{model}.bin"));
        if bundle == "voice" && !(dir.exists() && path.exists()) {
            return None;
        }
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.iter().position(|&b| b == b'\n').unwrap();
        let header: Value = serde_json::from_slice(&bytes[..end]).unwrap();
        let bundle = Bundle::open(dir).unwrap();
        let golden = Golden { header, data: bytes[end + 1..].to_vec() };
        let listed = bundle.listed_sha256(&format!("{model}.onnx.data"));
        assert_eq!(listed, golden.header["data_sha256"].as_str(), "the golden file is stale");
        Some((bundle, golden))
    }

    fn tensor(&self, name: &str) -> Vec<f32> {
        let t =
            self.header["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
        let n: usize =
            t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).product();
        let at = t["offset"].as_u64().unwrap() as usize;
        self.data[at..at + 4 * n]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    fn numbers(&self, key: &str) -> Vec<u32> {
        numbers(&self.header[key])
    }
}

fn numbers(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let (mut e, mut n) = (0f64, 0f64);
    for (g, w) in got.iter().zip(want) {
        e += (*g as f64 - *w as f64).powi(2);
        n += (*w as f64).powi(2);
    }
    (e / n).sqrt()
}

fn model(bundle: &Bundle, which: &str) -> Arc<Model> {
    let path = match which {
        "target" => bundle.target_path(),
        "draft" => bundle.draft_path().unwrap(),
        "draft_plain" => bundle.target_path().with_file_name("draft_plain.onnx"),
        _ => bundle.codec_path(),
    };
    Model::load(path, 2048).unwrap()
}

/// Runs the calls of a golden file and returns every row of logits and of hidden states.
fn replay(golden: &Golden, session: &mut Session) -> (Vec<f32>, Vec<f32>) {
    let (mut logits, mut hidden) = (Vec::new(), Vec::new());
    let width = session.feature_width();
    let features = if width > 0 { golden.tensor("features") } else { vec![] };
    let mut at = 0;
    for call in golden.header["calls"].as_array().unwrap() {
        if call["kind"] == "rollback" {
            session.rollback(session.len() - call["count"].as_u64().unwrap() as usize);
            continue;
        }
        let tokens = numbers(&call["tokens"]);
        let rows = at..at + tokens.len() * width;
        at = rows.end;
        session.step_with(&tokens, &features[rows], tokens.len()).unwrap();
        logits.extend_from_slice(session.logits());
        hidden.extend_from_slice(session.hidden());
    }
    assert_eq!(at, features.len());
    (logits, hidden)
}

fn language_model(bundle: &str, which: &str, tolerance: f64) {
    let Some((bundle, golden)) = Golden::load(bundle, which) else { return };
    let model = model(&bundle, which);
    let pool = Pool::new(kernel::best(), 1);
    let mut session = Session::new(&model, &pool).unwrap();
    let (rows, hidden) = replay(&golden, &mut session);
    let v = session.vocabulary();
    let columns = golden.numbers("columns");
    let got: Vec<f32> = rows
        .chunks_exact(v)
        .flat_map(|r| columns.iter().map(|&c| r[c as usize]).collect::<Vec<_>>())
        .collect();
    let close = |got: &[f32], width: usize, reference: &str| {
        let want = golden.tensor(reference);
        let error = relative(got, &want);
        println!("{which} against {reference}: relative L2 {error:.4}");
        assert!(error < tolerance, "{which} against {reference}: {error}");
        for (i, (g, w)) in got.chunks(width).zip(want.chunks(width)).enumerate() {
            assert!(relative(g, w) < 2.0 * tolerance, "row {i}: {}", relative(g, w));
        }
    };
    close(&got, columns.len(), "logits");
    close(&got, columns.len(), "logits_torch");
    close(&hidden, session.hidden_width(), "hidden");
    close(&hidden, session.hidden_width(), "hidden_torch");

    // The softmax from the factors is that of the logits.
    let last = rows.chunks_exact(v).last().unwrap();
    let (mut a, mut b) = (vec![0.0; v], vec![0.0; v]);
    let mut sums = vec![0.0; v.div_ceil(256)];
    let of_call = session.logits().len() / v;
    assert!(session.softmax(of_call - 1, 1.25, &mut a, &mut sums));
    kernel::best().softmax(last, 1.25, &mut b, &mut sums);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 2e-5 * b + 1e-12));

    // The same calls again, on every kernel and several threads: the same bits.
    for kernel in kernel::all() {
        for threads in [1, 3] {
            let mut s = Session::new(&model, &Pool::new(kernel, threads)).unwrap();
            let again = replay(&golden, &mut s);
            assert!(
                again == (rows.clone(), hidden.clone()),
                "{} with {threads} threads differs",
                kernel.name()
            );
        }
    }
}

#[test]
fn tiny_target_matches_onnxruntime() {
    language_model("tiny", "target", 0.03);
}

#[test]
fn tiny_draft_matches_onnxruntime() {
    language_model("tiny", "draft", 0.03);
}

#[test]
fn tiny_plain_draft_matches_onnxruntime() {
    language_model("tiny", "draft_plain", 0.03);
}

#[test]
fn a_draft_that_reads_features_wants_them() {
    let (bundle, _) = Golden::load("tiny", "draft").unwrap();
    let model = model(&bundle, "draft");
    let mut s = Session::new(&model, &Pool::new(kernel::best(), 1)).unwrap();
    let width = s.feature_width();
    assert_eq!(width, bundle.draft.as_ref().unwrap().features);
    for (tokens, features) in [(2, 0), (2, width), (1, 2 * width)] {
        let e = s.step_with(&vec![1; tokens], &vec![0.0; features], 1).unwrap_err();
        assert_eq!(e.kind(), voxgrain::ErrorKind::InvalidArgument);
    }
    s.step_with(&[1, 2], &vec![0.1; 2 * width], 1).unwrap();
    assert_eq!((s.len(), s.hidden().len()), (2, 2 * s.hidden_width()));
}

#[test]
fn voice_target_matches_onnxruntime() {
    language_model("voice", "target", 0.05);
}

#[test]
fn voice_draft_matches_onnxruntime() {
    language_model("voice", "draft", 0.05);
}

#[test]
fn passes_of_any_shape_give_the_same_bits() {
    let (bundle, golden) = Golden::load("tiny", "target").unwrap();
    let model = model(&bundle, "target");
    let pool = Pool::new(kernel::best(), 2);
    let tokens: Vec<u32> = golden.header["calls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["kind"] != "rollback")
        .flat_map(|c| numbers(&c["tokens"]))
        .collect();
    let mut one = Session::new(&model, &pool).unwrap();
    let mut want = Vec::new();
    for t in &tokens {
        one.step(&[*t], 1).unwrap();
        want.push(one.logits().to_vec());
    }
    for size in [2, 3, 5, 8, 9, 16, tokens.len()] {
        let mut s = Session::new(&model, &pool).unwrap();
        let mut rows = Vec::new();
        for c in tokens.chunks(size) {
            s.step(c, c.len()).unwrap();
            let v = s.vocabulary();
            rows.extend(s.logits().chunks(v).map(<[f32]>::to_vec));
        }
        assert!(rows == want, "passes of {size} differ from single steps");
    }
    // Only the wanted rows, and a rollback that never happened.
    let mut s = Session::new(&model, &pool).unwrap();
    s.step(&tokens[..6], 2).unwrap();
    assert_eq!(s.logits(), [&want[4][..], &want[5][..]].concat());
    s.step(&[1, 2, 3, 4], 1).unwrap();
    s.rollback(6);
    s.step(&tokens[6..7], 1).unwrap();
    assert_eq!(s.logits(), &want[6][..]);
    s.rollback(100);
    assert_eq!(s.len(), 7);
}

#[test]
fn a_session_refuses_what_does_not_fit() {
    let (bundle, _) = Golden::load("tiny", "target").unwrap();
    let model = Model::load(bundle.target_path(), 8).unwrap();
    let mut s = Session::new(&model, &Pool::new(kernel::best(), 1)).unwrap();
    assert!(s.step(&[], 1).is_err());
    TokenModel::prefill(&mut s, &[1, 2, 3, 4, 5]).unwrap();
    let e = s.step(&[1, 2, 3, 4], 1).unwrap_err();
    assert_eq!(e.kind(), voxgrain::ErrorKind::InvalidArgument);
    assert_eq!(s.len(), 5);
    // An unknown token is an error, and the session goes on.
    let mut want = Session::new(&model, &Pool::new(kernel::best(), 1)).unwrap();
    want.prefill(&[1, 2, 3, 4, 5]).unwrap();
    want.step(&[9], 1).unwrap();
    assert!(s.step(&[4_000_000_000], 1).is_err());
    s.step(&[9], 1).unwrap();
    assert_eq!(s.logits().to_vec(), want.logits());
}

#[test]
fn codec_matches_onnxruntime_and_streams() {
    for name in ["tiny", "voice"] {
        let Some((bundle, golden)) = Golden::load(name, "codec") else { continue };
        let model = model(&bundle, "codec");
        let pool = Pool::new(kernel::best(), 1);
        let tokens = golden.numbers("tokens");
        let mut s = CodecSession::new(&model, &pool).unwrap();
        let whole = s.push(&tokens).unwrap().to_vec();
        let error = relative(&whole, &golden.tensor("spectrum"));
        println!("{name} codec spectrum: relative L2 {error:.4}");
        assert!(error < 0.06, "{name}: {error}");
        for size in [1, 3, 7] {
            s.reset();
            let mut parts = Vec::new();
            for c in tokens.chunks(size) {
                parts.extend_from_slice(s.push(c).unwrap());
            }
            assert!(parts == whole, "{name}: chunks of {size} differ");
        }
    }
}

/// What `f` made, and the bytes that it took from the allocator and that it kept.
fn measured<T>(f: impl FnOnce() -> T) -> (T, usize, usize) {
    let (taken, kept) = (TAKEN.get(), KEPT.get());
    let made = f();
    (made, TAKEN.get() - taken, usize::try_from(KEPT.get() - kept).unwrap())
}

/// A copy of the weights would be on the heap. What a model keeps there is less than its largest
/// matrix, and what all steps of loading take on the way is less than a quarter of its weights;
/// where the data file is read instead of mapped, the same measure finds that copy.
#[test]
fn loading_copies_no_weights() {
    let Some((bundle, _)) = Golden::load("voice", "target") else { return };
    let graph = Map::open(bundle.target_path()).unwrap();
    let data_path = bundle.target_path().with_extension("onnx.data");
    let data = Map::open(&data_path).unwrap();
    assert!(data.is_mapped());
    let load = |data: Map| Model::from_maps("target.onnx", &graph, data, 2048).unwrap();
    let (model, taken, kept) = measured(|| load(data.clone()));
    let largest = model.tensors().iter().map(|t| t.bytes).max().unwrap();
    println!("{taken} bytes taken, {kept} kept; {} of weights, {largest} at most", data.len());
    assert!(kept < largest, "{kept} bytes are kept, a matrix has {largest}");
    assert!(taken < data.len() / 4, "{taken} bytes were taken for {} of weights", data.len());
    let (_, _, kept) = measured(|| load(Map::read(&data_path).unwrap()));
    assert!(kept > data.len(), "a copy of all weights was not seen: {kept} bytes");

    // Nor does a pass copy them: what a session takes is its state and its results.
    let pool = Pool::new(kernel::best(), 1);
    let (_, taken, _) = measured(|| {
        let mut s = Session::with_positions(&model, &pool, 64).unwrap();
        TokenModel::prefill(&mut s, &[1, 2, 3]).unwrap();
    });
    let bound = model.state_bytes(64) + model.pass_bytes(16, 1) + (1 << 20);
    assert!(taken < bound && bound < data.len() / 4, "{taken} bytes, at most {bound}");
}

/// What the graph takes stays below what is said of it, before and after loading.
#[test]
fn a_model_says_what_it_keeps_on_the_heap() {
    for name in ["tiny", "voice"] {
        let Some((bundle, _)) = Golden::load(name, "target") else { continue };
        for path in [bundle.target_path(), bundle.draft_path().unwrap(), bundle.codec_path()] {
            let (model, _, kept) = measured(|| Model::load(&path, 2048).unwrap());
            let bytes = std::fs::metadata(&path).unwrap().len();
            assert_eq!(model.heap_bytes() as u64, Model::heap_bytes_for(bytes));
            println!("{}: {kept} of {} bytes", path.display(), model.heap_bytes());
            assert!(kept <= model.heap_bytes(), "{}: {kept} bytes", path.display());
        }
    }
}

#[test]
fn embedding_rows_are_made_of_their_factors() {
    let (bundle, _) = Golden::load("tiny", "target").unwrap();
    let model = model(&bundle, "target");
    let listed: usize = model.tensors().iter().map(|t| t.bytes).sum();
    assert!(listed <= model.mapped_bytes());
    assert!(model.tensors().iter().any(|t| t.data_type == "u8"));
    let (rows, hidden) = model.embedding_rows().unwrap();
    assert_eq!(rows.len(), kernel::CODES * hidden);
    let mut row = vec![0.0; hidden];
    for token in [0, 1, 4711, kernel::CODES - 1] {
        assert!(model.embedding_row(token as u32, &mut row));
        assert_eq!(row, rows[token * hidden..][..hidden]);
    }
}

/// A model with a plain embedding table and a plain head (tools/tests/test_compare_export.py).
#[test]
fn plain_tables_and_heads_match_the_reference() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/plain");
    let want: Vec<f32> = std::fs::read(dir.join("plain.logits"))
        .unwrap()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let model = Model::load(dir.join("plain.onnx"), 64).unwrap();
    let columns = model.output_columns();
    assert_eq!(want.len(), 20 * columns);
    // Every scored token but the end of speech has a row in both.
    let (rows, hidden) = model.embedding_rows().unwrap();
    let mut row = vec![0.0; hidden];
    for token in 0..columns - 1 {
        assert!(model.embedding_row(token as u32, &mut row));
        assert_eq!(row, rows[token * hidden..][..hidden]);
    }
    assert!(!model.embedding_row(columns as u32 - 1, &mut row));
    assert_eq!(rows.len(), (columns - 1) * hidden);
    assert_eq!(model.head_rows().unwrap().0.len(), (columns - 1) * hidden);
    let mut session = Session::new(&model, &Pool::new(kernel::best(), 2)).unwrap();
    let tokens: Vec<u32> = (0..20).collect();
    let mut got = Vec::new();
    for range in [0..9, 9..10, 10..20] {
        session.step(&tokens[range.clone()], range.len()).unwrap();
        got.extend_from_slice(session.logits());
    }
    let error = relative(&got, &want);
    assert!(error < 0.03, "{error}");
    // The head computes the wanted rows alone, to the same bits.
    session.rollback(10);
    session.step(&tokens[10..], 3).unwrap();
    assert_eq!(session.logits(), &got[17 * columns..]);
    for unknown in [300, u32::MAX] {
        assert!(session.step(&[unknown], 1).is_err());
    }
    session.rollback(19);
    session.step(&tokens[19..], 1).unwrap();
    assert_eq!(session.logits(), &got[19 * columns..]);
}

/// Golden values of other people's families, by transformers (`voxgrain_tools foreign`): a
/// prompt, single steps, a pass of five rows, a rollback, another pass.
struct Foreign(Golden);

impl Foreign {
    fn load(name: &str) -> (Arc<Model>, Self) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/foreign").join(name);
        Self::open(&dir)
    }

    fn open(dir: &Path) -> (Arc<Model>, Self) {
        let bytes = std::fs::read(dir.join("golden.bin")).unwrap();
        let end = bytes.iter().position(|&b| b == b'\n').unwrap();
        let header: Value = serde_json::from_slice(&bytes[..end]).unwrap();
        let model = Model::load(dir.join("target.onnx"), 2048).unwrap();
        (model, Self(Golden { header, data: bytes[end + 1..].to_vec() }))
    }

    /// Logits of the columns that are kept, hidden states, and the best token of each row.
    fn replay(&self, session: &mut Session) -> (Vec<f32>, Vec<f32>, Vec<usize>) {
        let header = &self.0.header;
        let columns = numbers(&header["columns"]);
        let (mut logits, mut hidden, mut best) = (vec![], vec![], vec![]);
        for call in header["calls"].as_array().unwrap() {
            if call["kind"] == "rollback" {
                session.rollback(session.len() - call["count"].as_u64().unwrap() as usize);
                continue;
            }
            let tokens = numbers(&call["tokens"]);
            let kept = match call["kind"] == "prefill" {
                true => header["kept"].as_u64().unwrap() as usize,
                false => tokens.len(),
            };
            // As prompts are read: in passes of bounded size.
            let head = tokens.len() - kept;
            TokenModel::prefill(session, &tokens[..head]).unwrap();
            session.step(&tokens[head..], kept).unwrap();
            hidden.extend_from_slice(session.hidden());
            let v = session.vocabulary();
            for row in session.logits().chunks_exact(v) {
                logits.extend(columns.iter().map(|&c| row[c as usize]));
                best.push((0..v).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap());
            }
        }
        (logits, hidden, best)
    }
}

#[test]
fn other_peoples_models_match_transformers() {
    for name in ["toy-llama", "toy-qwen2", "toy-qwen3"] {
        let (model, golden) = Foreign::load(name);
        let want = numbers(&golden.0.header["argmax"]);
        let mut first = None;
        for kernel in kernel::all() {
            for threads in [1, 2, 3] {
                let mut s = Session::new(&model, &Pool::new(kernel, threads)).unwrap();
                let got = golden.replay(&mut s);
                if first.is_none() {
                    let logits = relative(&got.0, &golden.0.tensor("logits"));
                    let hidden = relative(&got.1, &golden.0.tensor("hidden"));
                    println!("{name}: logits {logits:.4}, hidden states {hidden:.4}");
                    assert!(logits < 0.02 && hidden < 0.02, "{name}: {logits}, {hidden}");
                    let same = got.2.iter().zip(&want).filter(|(a, b)| **a == **b as usize).count();
                    assert!(same + 1 >= want.len(), "{name}: {same} of {} best tokens", want.len());
                }
                let first = first.get_or_insert_with(|| got.clone());
                assert!(*first == got, "{name}: {kernel:?}, {threads} threads differ");
            }
        }
    }
}

/// What the graphs say of themselves is what descriptions are held to.
#[test]
fn models_say_what_they_are_made_of() {
    let shape = |name: &str| {
        let (model, _) = Foreign::load(name);
        let a = model.attention().to_vec();
        assert!(a.iter().all(|l| *l == a[0]), "{name}");
        assert_eq!(model.rows_per_token(), 1, "{name}");
        (a.len(), a[0], model.feed_forward_columns(), model.known_tokens(), model.output_columns())
    };
    let (layers, a, ffn, known, scored) = shape("toy-llama");
    assert_eq!((layers, a.heads, a.kv_heads, a.head_dim), (2, 3, 1, 32));
    assert_eq!((a.rope_base, a.qk_norm, ffn), (None, false, Some(32)));
    assert_eq!((known, scored), (90, 65));
    let (_, a, _, _, _) = shape("toy-qwen2");
    assert_eq!((a.heads, a.kv_heads, a.head_dim, a.rope_base), (4, 2, 16, Some(1e6)));
    let (_, a, _, known, scored) = shape("toy-qwen3");
    assert_eq!((a.heads * a.head_dim, a.qk_norm, a.rope_base), (128, true, None));
    assert_eq!((known, scored), (112, 97));
    let (bundle, _) = Golden::load("tiny", "codec").unwrap();
    let codec = model(&bundle, "codec");
    assert_eq!((codec.rows_per_token(), codec.attention().len()), (2, 0));
    // A tied table gives the rows that groups are built from, text rows left out.
    let (model, _) = Foreign::load("toy-llama");
    let (rows, hidden) = model.embedding_rows().unwrap();
    assert_eq!((rows.len(), hidden), (64 * 96, 96));
    let head = model.head_rows().unwrap().0;
    assert!(relative(&rows, &head) < 1e-6, "the head is the table's speech rows");
}

/// True configurations, made by hand: `VOXGRAIN_FOREIGN=DIR[:DIR...]`, folders with `target.onnx`
/// and `golden.bin` of `voxgrain_tools foreign --export`.
#[test]
#[ignore = "wants large folders"]
fn large_foreign_models_match_transformers() {
    let dirs = std::env::var("VOXGRAIN_FOREIGN").unwrap();
    for dir in dirs.split(':') {
        let (model, golden) = Foreign::open(Path::new(dir));
        let mut s = Session::new(&model, &Pool::new(kernel::best(), 2)).unwrap();
        let got = golden.replay(&mut s);
        let logits = relative(&got.0, &golden.0.tensor("logits"));
        let hidden = relative(&got.1, &golden.0.tensor("hidden"));
        println!("{dir}: relative L2 of logits {logits:.4}, of hidden states {hidden:.4}");
        assert!(logits < 0.02 && hidden < 0.02);
    }
}

/// Seeded damage to a model file: an error or a model, never a panic, never a hang.
#[test]
fn damaged_models_never_panic() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let dir = std::env::temp_dir().join(format!("voxgrain-damage-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let (mut loaded, mut refused) = (0, 0);
    let foreign = root.join("../../tests/data/foreign/toy-qwen3");
    for (root, name) in [(&root, "target.onnx"), (&root, "codec.onnx"), (&foreign, "target.onnx")] {
        let sound = std::fs::read(root.join(name)).unwrap();
        let path = dir.join(name);
        let data = format!("{name}.data");
        std::fs::copy(root.join(&data), dir.join(&data)).unwrap();
        for round in 0..400 {
            let mut bytes = sound.clone();
            for _ in 0..rng.random_range(1..8) {
                let at = rng.random_range(0..bytes.len());
                match round % 4 {
                    0 => bytes[at] ^= 1 << rng.random_range(0..8),
                    1 => bytes[at] = rng.random(),
                    2 => drop(bytes.drain(
                        at..(at + rng.random_range(1..40)).min(sound.len()).min(bytes.len()),
                    )),
                    _ => bytes.truncate(at.max(1)),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            if bytes.is_empty() {
                continue;
            }
            std::fs::write(&path, &bytes).unwrap();
            match Model::load(&path, 64) {
                Ok(model) => {
                    loaded += 1;
                    let pool = Pool::new(kernel::best(), 1);
                    if let Ok(mut s) = Session::new(&model, &pool) {
                        let _ = s.step(&[1, 70, 65537, 65540], 2);
                    }
                }
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().is_empty());
                }
            }
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(loaded > 3 && refused > 100, "{loaded} loaded, {refused} refused");
}
