//! Taps: rows of the target's residual stream beside its hidden state, and a draft that reads
//! both. The pair in `tests/data/taps` is random; its golden values are onnxruntime's.
#![cfg(feature = "engine")]

use prost::Message;
use serde_json::Value;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tract_onnx::pb;
use voxgrain::core::Singletons;
use voxgrain::decode::{Arm, DraftLength, Options, PREFILL_ROWS, RoundEnd, Speculator, TokenModel};
use voxgrain::engine::{Model, Pool, Session};
use voxgrain::map::Map;
use voxgrain::{ErrorKind, Result, kernel};

const END: u32 = 65_536;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/taps")
}

fn load(name: &str) -> Arc<Model> {
    Model::load(folder().join(format!("{name}.onnx")), 256).unwrap()
}

fn numbers(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

struct Golden {
    header: Value,
    data: Vec<u8>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(folder().join(format!("{name}.bin"))).unwrap();
        let end = bytes.iter().position(|&b| b == b'\n').unwrap();
        Self {
            header: serde_json::from_slice(&bytes[..end]).unwrap(),
            data: bytes[end + 1..].to_vec(),
        }
    }

    fn tensor(&self, name: &str) -> Option<Vec<f32>> {
        let t = self.header["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name)?;
        let n: u64 = t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
        let at = t["offset"].as_u64().unwrap() as usize;
        let bytes = self.data[at..at + 4 * n as usize].chunks_exact(4);
        Some(bytes.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }
}

/// Everything that a draft could read of the last pass.
fn states(s: &Session, rows: usize, out: &mut Vec<f32>) {
    s.features(0..rows, (s.taps() + 1) * s.hidden_width(), out);
}

/// Runs the calls of a golden file: every row of logits, and of taps and hidden states.
fn replay(golden: &Golden, s: &mut Session) -> (Vec<f32>, Vec<f32>) {
    let (mut logits, mut all, mut at) = (Vec::new(), Vec::new(), 0);
    let features = golden.tensor("features").unwrap_or_default();
    for call in golden.header["calls"].as_array().unwrap() {
        if call["kind"] == "rollback" {
            s.rollback(s.len() - call["count"].as_u64().unwrap() as usize);
            continue;
        }
        let tokens = numbers(&call["tokens"]);
        let rows = at..at + tokens.len() * s.feature_width();
        at = rows.end;
        s.step_with(&tokens, &features[rows], tokens.len()).unwrap();
        logits.extend_from_slice(s.logits());
        states(s, tokens.len(), &mut all);
    }
    (logits, all)
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

#[test]
fn taps_and_the_draft_that_reads_them_match_onnxruntime() {
    for (name, taps, features) in [("target", 2, 0), ("draft", 0, 96)] {
        let (golden, model) = (Golden::read(name), load(name));
        assert_eq!((model.taps(), model.feature_width()), (taps, features));
        let mut s = Session::new(&model, &Pool::new(kernel::best(), 1)).unwrap();
        let (logits, all) = replay(&golden, &mut s);
        let columns = numbers(&golden.header["columns"]);
        let kept: Vec<f32> = logits
            .chunks_exact(s.vocabulary())
            .flat_map(|r| columns.iter().map(|&c| r[c as usize]).collect::<Vec<_>>())
            .collect();
        for reference in ["logits", "logits_torch"] {
            let error = relative(&kept, &golden.tensor(reference).unwrap());
            assert!(error < 0.03, "{name} against {reference}: {error}");
        }
        let width = (taps + 1) * s.hidden_width();
        for reference in ["hidden", "hidden_torch"] {
            let want = golden.tensor(reference).unwrap();
            assert_eq!(want.len(), golden.header["rows"].as_u64().unwrap() as usize * width);
            // Each part by itself, so that none is taken for another.
            for part in 0..=taps {
                let of = |all: &[f32]| -> Vec<f32> {
                    let rows = all.chunks_exact(width);
                    rows.flat_map(|r| r[part * s.hidden_width()..][..s.hidden_width()].to_vec())
                        .collect()
                };
                let error = relative(&of(&all), &of(&want));
                assert!(error < 0.03, "{name}, part {part} against {reference}: {error}");
            }
        }
        for kernel in kernel::all() {
            let mut again = Session::new(&model, &Pool::new(kernel, 3)).unwrap();
            assert!(replay(&golden, &mut again) == (logits.clone(), all.clone()), "{kernel:?}");
        }
    }
}

/// The same weights in a graph that has standard operators too, which tract runs.
#[test]
fn taps_of_a_stock_graph_are_the_same_bits() {
    let golden = Golden::read("target");
    let pool = Pool::new(kernel::best(), 1);
    let run = |name| replay(&golden, &mut Session::new(&load(name), &pool).unwrap());
    assert!(run("stock") == run("target"));
}

#[test]
fn chunks_of_any_size_give_the_same_taps() {
    let tokens: Vec<u32> = (0..40).map(|i| i * 1601 % END).collect();
    let model = load("target");
    let pool = Pool::new(kernel::best(), 1);
    let run = |size: usize, wanted: usize| {
        let (mut s, mut all) = (Session::new(&model, &pool).unwrap(), Vec::new());
        for chunk in tokens.chunks(size) {
            // The logits of one row; the states of all.
            s.step(chunk, wanted).unwrap();
            states(&s, chunk.len(), &mut all);
        }
        all
    };
    let want = run(1, 1);
    assert_eq!(want.len(), 40 * 96);
    for size in [2, 5, 16, 40] {
        assert!(run(size, 1) == want && run(size, size) == want, "passes of {size}");
    }
}

/// One row that the draft was given.
struct Given {
    position: usize,
    token: u32,
    features: Vec<f32>,
    /// The draft's own last state at that time.
    own: Vec<f32>,
}

/// A draft that writes down what it is given.
struct Spy {
    session: Session,
    seen: Rc<RefCell<Vec<Given>>>,
}

impl TokenModel for Spy {
    fn step(&mut self, tokens: &[u32], features: &[f32], wanted: usize) -> Result<()> {
        let (at, width) = (self.session.len(), self.session.feature_width());
        let h = self.session.hidden();
        let own = h[h.len().saturating_sub(self.session.hidden_width())..].to_vec();
        for (i, (&token, row)) in tokens.iter().zip(features.chunks(width)).enumerate() {
            let given = Given { position: at + i, token, features: row.to_vec(), own: own.clone() };
            self.seen.borrow_mut().push(given);
        }
        self.session.step_with(tokens, features, wanted)
    }
    fn logits(&mut self) -> &[f32] {
        self.session.logits()
    }
    fn softmax(&mut self, row: usize, t: f32, probs: &mut [f32], sums: &mut [f32]) -> bool {
        self.session.softmax(row, t, probs, sums)
    }
    fn hidden(&self) -> &[f32] {
        self.session.hidden()
    }
    fn hidden_width(&self) -> usize {
        self.session.hidden_width()
    }
    fn feature_width(&self) -> usize {
        self.session.feature_width()
    }
    fn len(&self) -> usize {
        self.session.len()
    }
    fn room(&self) -> usize {
        self.session.room()
    }
    fn vocabulary(&self) -> usize {
        self.session.vocabulary()
    }
    fn rollback(&mut self, len: usize) {
        self.session.rollback(len);
    }
}

fn speak<T: TokenModel, D: TokenModel>(
    target: T,
    draft: D,
    prompt: &[u32],
    options: Options,
    count: usize,
) -> Vec<u32> {
    let mut s = Speculator::new(target, draft, None::<Singletons>, options).unwrap();
    s.start(prompt).unwrap();
    let mut out = vec![];
    while out.len() < count && s.round(&mut out).unwrap() == RoundEnd::More {}
    out
}

#[test]
fn the_draft_reads_the_taps_of_what_was_accepted_and_zeros_beyond() {
    let (target, draft) = (load("target"), load("draft"));
    let pool = Pool::new(kernel::best(), 1);
    // Longer than two chunks of a prompt.
    let prompt: Vec<u32> = (0..2 * PREFILL_ROWS as u32 + 5).map(|i| i * 977 % END).collect();
    let width = draft.feature_width();
    let own = target.hidden_width();
    for (seed, gamma) in [(1, 1), (2, 3), (3, 7)] {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let spy = Spy { session: Session::new(&draft, &pool).unwrap(), seen: seen.clone() };
        // A token that these random models hardly ever draw, so that they go on.
        let mut options = Options::new(Arm::Tolerance { beta: 0.4 }, 12_345).with_seed(seed);
        options.gamma = DraftLength::Fixed(gamma);
        let out = speak(Session::new(&target, &pool).unwrap(), spy, &prompt, options, 40);
        assert!(out.len() >= 40);
        let said = [&prompt[..], &out[..]].concat();
        let (mut all, mut fresh) = (vec![0.0; width], Session::new(&target, &pool).unwrap());
        for t in &said {
            fresh.step(&[*t], 1).unwrap();
            states(&fresh, 1, &mut all);
        }
        let (mut true_rows, mut own_rows) = (vec![0; said.len()], 0);
        for g in seen.borrow().iter() {
            let before = &all[(g.position.min(said.len())) * width..][..width];
            if said.get(g.position) == Some(&g.token) && g.features == before {
                true_rows[g.position] += 1;
            } else {
                assert!(g.position >= prompt.len(), "position {}", g.position);
                let (taps, state) = g.features.split_at(width - own);
                assert!(taps.iter().all(|&v| v == 0.0), "position {}", g.position);
                assert_eq!(state, g.own, "position {}", g.position);
                own_rows += 1;
            }
        }
        // Of every token that the last rounds have not left pending, its true features once.
        let last = said.len() - 1 - gamma - 1;
        assert!(true_rows[..last].iter().all(|&n| n == 1), "gamma {gamma}: {true_rows:?}");
        assert!((own_rows > 0) == (gamma > 1), "gamma {gamma}: {own_rows}");
    }
}

#[test]
fn greedy_speculation_with_taps_is_greedy_decoding() {
    let (target, draft) = (load("target"), load("draft"));
    let prompt: Vec<u32> = (0..21).map(|i| i * 3001 % END).collect();
    let run = |arm, gamma: DraftLength, threads| {
        let pool = Pool::new(kernel::best(), threads);
        let mut options = Options::new(arm, END);
        options.gamma = gamma;
        options.sampling.temperature = 0.0;
        let session = |model| Session::new(model, &pool).unwrap();
        let mut out = speak(session(&target), session(&draft), &prompt, options, 60);
        out.truncate(60);
        out
    };
    let want = run(Arm::Ar, 0.into(), 1);
    for gamma in [1, 4, 15] {
        assert_eq!(run(Arm::Sd, gamma.into(), 1 + gamma % 3), want, "gamma {gamma}");
    }
}

#[test]
fn a_draft_of_another_target_is_refused() {
    let pool = Pool::new(kernel::best(), 1);
    let refused = |target: &Arc<Model>, draft: &Arc<Model>| {
        let session = |m| Session::new(m, &pool).unwrap();
        let options = Options::new(Arm::Sd, END);
        let made = Speculator::new(session(target), session(draft), None::<Singletons>, options);
        match made {
            Ok(_) => None,
            Err(e) => Some((e.kind(), e.to_string())),
        }
    };
    assert_eq!(refused(&load("target"), &load("draft")), None);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let tiny = |name: &str| Model::load(tiny.join(name), 64).unwrap();
    for (target, draft) in [
        (tiny("target.onnx"), load("draft")),
        (load("target"), tiny("draft.onnx")),
        (load("draft"), load("draft")),
    ] {
        let (kind, message) = refused(&target, &draft).unwrap();
        assert_eq!(kind, ErrorKind::Mismatch);
        assert!(message.contains("not a pair"), "{message}");
    }
}

/// The target's graph, changed.
fn changed(change: impl FnOnce(&mut pb::GraphProto)) -> Result<Arc<Model>> {
    let graph = std::fs::read(folder().join("target.onnx")).unwrap();
    let mut proto = pb::ModelProto::decode(&graph[..]).unwrap();
    change(proto.graph.as_mut().unwrap());
    let data = Map::open(folder().join("target.onnx.data"))?;
    Model::from_maps("target.onnx", &Map::from_vec(proto.encode_to_vec()), data, 64)
}

fn output<'a>(graph: &'a mut pb::GraphProto, name: &str) -> &'a mut pb::ValueInfoProto {
    graph.output.iter_mut().find(|o| o.name == name).unwrap()
}

#[test]
fn taps_that_are_none_are_refused() {
    let message = |change: fn(&mut pb::GraphProto)| {
        let e = changed(change).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
        e.to_string()
    };
    let m = message(|g| output(g, "tap_1").name = "tap_3".into());
    assert!(m.contains("numbered from 1 without gaps"), "{m}");
    // A value that is not as wide as the residual stream takes the name of one.
    let m = message(|g| {
        for n in &mut g.node {
            for name in n.input.iter_mut().chain(&mut n.output) {
                match name.as_str() {
                    "tap_1" => *name = "stream".into(),
                    "layers.1.qkv.out" => *name = "tap_1".into(),
                    _ => {}
                }
            }
        }
    });
    assert!(m.contains("tap_1") && m.contains("columns"), "{m}");
    // Where they stand among the outputs does not count, nor whether there are any.
    let model = changed(|g| {
        let at = g.output.iter().position(|o| o.name == "tap_1").unwrap();
        let tap = g.output.remove(at);
        g.output.push(tap);
    });
    let mut s = Session::new(&model.unwrap(), &Pool::new(kernel::best(), 1)).unwrap();
    let mut want = Session::new(&load("target"), &Pool::new(kernel::best(), 1)).unwrap();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (session, all) in [(&mut s, &mut a), (&mut want, &mut b)] {
        session.step(&[1, 2, 3], 1).unwrap();
        states(session, 3, all);
    }
    assert!(a == b && a.len() == 3 * 96);
    let none = changed(|g| g.output.retain(|o| !o.name.starts_with("tap_"))).unwrap();
    assert_eq!((none.taps(), none.hidden_width()), (0, 32));
}
