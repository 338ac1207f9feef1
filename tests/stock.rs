//! Models whose matrix products are stock `com.microsoft.MatMulNBits` nodes: read in place,
//! packed, and refused where they are not understood.
#![cfg(feature = "convert")]

use prost::Message;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tract_onnx::pb;
use voxgrain::convert::{pack, pack_bundle, stock_nodes};
use voxgrain::engine::{CodecSession, Model, Pool, Session};
use voxgrain::{ErrorKind, kernel};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("voxgrain-stock-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A model file with its data, to be changed.
#[derive(Clone)]
struct File {
    proto: pb::ModelProto,
    data: Vec<u8>,
}

impl File {
    fn read(path: &Path) -> Self {
        let proto = pb::ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap();
        let data = std::fs::read(format!("{}.data", path.display())).unwrap();
        Self { proto, data }
    }

    fn golden() -> Self {
        Self::read(&root().join("tests/data/stock/stock.onnx"))
    }

    fn write(&self, path: &Path) {
        let mut proto = self.proto.clone();
        let name = format!("{}.data", path.file_name().unwrap().to_str().unwrap());
        for t in &mut proto.graph.as_mut().unwrap().initializer {
            for e in t.external_data.iter_mut().filter(|e| e.key == "location") {
                e.value = name.clone();
            }
        }
        std::fs::write(path, proto.encode_to_vec()).unwrap();
        std::fs::write(format!("{}.data", path.display()), &self.data).unwrap();
    }

    fn graph(&mut self) -> &mut pb::GraphProto {
        self.proto.graph.as_mut().unwrap()
    }

    fn node(&mut self, name: &str) -> &mut pb::NodeProto {
        self.graph().node.iter_mut().find(|n| n.name == name).unwrap()
    }

    fn tensor(&mut self, name: &str) -> &mut pb::TensorProto {
        self.graph().initializer.iter_mut().find(|t| t.name == name).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let graph = self.proto.graph.as_ref().unwrap();
        let t = graph.initializer.iter().find(|t| t.name == name).unwrap();
        let field = |k: &str| -> usize {
            t.external_data.iter().find(|e| e.key == k).unwrap().value.parse().unwrap()
        };
        self.data[field("offset")..][..field("length")].to_vec()
    }

    /// Replaces or adds a tensor; its bytes go to the end of the data.
    fn set(&mut self, name: &str, data_type: i32, dims: &[i64], bytes: &[u8]) {
        self.data.resize(self.data.len().next_multiple_of(64), 0);
        let entry =
            |key: &str, value: String| pb::StringStringEntryProto { key: key.into(), value };
        let t = pb::TensorProto {
            name: name.into(),
            data_type,
            dims: dims.to_vec(),
            data_location: Some(1),
            external_data: vec![
                entry("location", "to be written".into()),
                entry("offset", self.data.len().to_string()),
                entry("length", bytes.len().to_string()),
            ],
            ..Default::default()
        };
        self.data.extend(bytes);
        self.graph().initializer.retain(|t| t.name != name);
        self.graph().initializer.push(t);
    }
}

const F32: i32 = 1;
const U8: i32 = 2;

fn int(node: &pb::NodeProto, name: &str) -> i64 {
    node.attribute.iter().find(|a| a.name == name).unwrap().i
}

fn attribute(name: &str, i: i64) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), i, r#type: 2, ..Default::default() }
}

/// The same model with every `QMatMul` as `MatMulNBits`, its residual as an `Add` behind.
fn to_stock(path: &Path) -> File {
    let mut file = File::read(path);
    let mut nodes = Vec::new();
    for mut node in std::mem::take(&mut file.graph().node) {
        if node.op_type != "QMatMul" {
            nodes.push(node);
            continue;
        }
        let (n, k, bits) =
            (int(&node, "N") as usize, int(&node, "K") as usize, int(&node, "bits") as usize);
        let (packed, scales) = (file.bytes(&node.input[1]), file.bytes(&node.input[2]));
        let (blocks, per_block) = (k / 32, 64 * bits);
        let mut rows = vec![0u8; n * k * bits / 8];
        let mut row_scales = vec![0f32; n * blocks];
        for row in 0..n {
            let (tile, r) = (row / 16, row % 16);
            for b in 0..blocks {
                let block = tile * blocks + b;
                let at = (block * 16 + r) * 2;
                row_scales[row * blocks + b] =
                    half::f16::from_le_bytes([scales[at], scales[at + 1]]).to_f32();
                for c in 0..32 {
                    let column = row * k + b * 32 + c;
                    if bits == 8 {
                        rows[column] = packed[block * per_block + (c / 4 * 16 + r) * 4 + c % 4];
                    } else {
                        let byte = packed[block * per_block + (c % 16 / 4 * 16 + r) * 4 + c % 4];
                        let nibble = if c < 16 { byte & 15 } else { byte >> 4 };
                        rows[column / 2] |= nibble << (column % 2 * 4);
                    }
                }
            }
        }
        let row_scales: Vec<u8> = row_scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let (n, k, kb) = (n as i64, k as i64, blocks as i64);
        file.set(&node.input[1], U8, &[n, kb, 4 * bits as i64], &rows);
        file.set(&node.input[2], F32, &[n * kb], &row_scales);
        let bias = node.input.get(3).cloned().unwrap_or_default();
        let residual = node.input.get(4).cloned().unwrap_or_default();
        node.input.truncate(3);
        if !bias.is_empty() {
            node.input.extend([String::new(), String::new(), bias]);
        }
        node.op_type = "MatMulNBits".into();
        node.domain = "com.microsoft".into();
        node.attribute = vec![
            attribute("N", n),
            attribute("K", k),
            attribute("bits", bits as i64),
            attribute("block_size", 32),
        ];
        let out = node.output[0].clone();
        if residual.is_empty() {
            nodes.push(node);
            continue;
        }
        let product = format!("{}.product", node.name);
        node.output[0] = product.clone();
        nodes.push(pb::NodeProto {
            name: format!("{}.add", node.name),
            op_type: "Add".into(),
            input: vec![product, residual],
            output: vec![out],
            ..Default::default()
        });
        let add = nodes.len() - 1;
        nodes.insert(add, node);
    }
    file.graph().node = nodes;
    file.proto
        .opset_import
        .push(pb::OperatorSetIdProto { domain: "com.microsoft".into(), version: 1 });
    file
}

fn golden() -> (Value, HashMap<String, Vec<f32>>) {
    let bytes = std::fs::read(root().join("tests/data/stock/stock.bin")).unwrap();
    let end = bytes.iter().position(|&b| b == b'\n').unwrap();
    let header: Value = serde_json::from_slice(&bytes[..end]).unwrap();
    let floats: Vec<f32> = bytes[end + 1..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let tensors = header["tensors"].as_array().unwrap().iter().map(|t| {
        let n: usize =
            t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).product();
        let at = t["offset"].as_u64().unwrap() as usize / 4;
        (t["name"].as_str().unwrap().to_owned(), floats[at..at + n].to_vec())
    });
    let tensors = tensors.collect();
    (header, tensors)
}

fn tokens(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

/// Features of `rows` rows from `at` on, for models that read some.
fn features(model: &Model, at: usize, rows: usize) -> Vec<f32> {
    let width = model.feature_width();
    (at * width..(at + rows) * width).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

/// Logits and hidden states of every row of the golden calls.
fn replay(model: &Arc<Model>, header: &Value, pool: &Arc<Pool>) -> (Vec<f32>, Vec<f32>) {
    let mut s = Session::new(model, pool).unwrap();
    let (mut rows, mut hidden) = (Vec::new(), Vec::new());
    for call in header["calls"].as_array().unwrap() {
        if call["kind"] == "rollback" {
            s.rollback(s.len() - call["count"].as_u64().unwrap() as usize);
            continue;
        }
        let t = tokens(&call["tokens"]);
        s.step_with(&t, &features(model, s.len(), t.len()), t.len()).unwrap();
        rows.extend_from_slice(s.logits());
        assert_eq!(s.hidden().len(), t.len() * s.hidden_width());
        hidden.extend_from_slice(s.hidden());
    }
    (rows, hidden)
}

fn load(path: &Path) -> Arc<Model> {
    Model::load(path, 512).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_stock_model_matches_onnxruntime() {
    let (header, tensors) = golden();
    let model = load(&root().join("tests/data/stock/stock.onnx"));
    let got = replay(&model, &header, &Pool::new(kernel::best(), 1));
    let columns = tokens(&header["columns"]);
    let rows = got.0.chunks_exact(model.output_columns());
    let logits: Vec<f32> = rows.flat_map(|r| columns.iter().map(|&c| r[c as usize])).collect();
    for reference in ["logits", "logits_torch", "hidden", "hidden_torch"] {
        let kept = if reference.starts_with("logits") { &logits } else { &got.1 };
        let want = &tensors[reference];
        assert_eq!(kept.len(), want.len());
        let error: f64 = kept.iter().zip(want).map(|(g, w)| (*g as f64 - *w as f64).powi(2)).sum();
        let norm: f64 = want.iter().map(|w| (*w as f64).powi(2)).sum();
        let error = (error / norm).sqrt();
        println!("against {reference}: relative L2 {error:.4}");
        assert!(error < 0.03, "{reference}: {error}");
    }
    for kernel in kernel::all() {
        for threads in [1, 3] {
            let again = replay(&model, &header, &Pool::new(kernel, threads));
            assert!(again == got, "{} with {threads} threads", kernel.name());
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_pass() {
    let (header, _) = golden();
    let model = load(&root().join("tests/data/stock/stock.onnx"));
    let pool = Pool::new(kernel::best(), 2);
    let t: Vec<u32> = tokens(&header["calls"][0]["tokens"]);
    let run = |size: usize| {
        let mut s = Session::new(&model, &pool).unwrap();
        let mut rows = Vec::new();
        for c in t.chunks(size) {
            s.step(c, c.len()).unwrap();
            rows.extend_from_slice(s.logits());
        }
        rows
    };
    let want = run(1);
    for size in [2, 5, 8, 9, t.len()] {
        assert!(run(size) == want, "passes of {size}");
    }
}

#[test]
fn both_layouts_give_the_same_bits_and_packing_is_lossless() {
    let dir = Dir::new("layouts");
    let (header, _) = golden();
    let pool = Pool::new(kernel::best(), 2);
    for name in ["target", "draft", "draft_plain"] {
        let own = root().join(format!("models/tiny/{name}.onnx"));
        let (stock, packed) = (dir.path("stock.onnx"), dir.path("packed.onnx"));
        to_stock(&own).write(&stock);
        let report = pack(&stock, &packed, true, |_, _| ()).unwrap();
        assert!(report.kept.is_empty() && report.packed.len() > 4, "{report:?}");
        assert_eq!(stock_nodes(&packed).unwrap(), 0);
        let want = replay(&load(&own), &header, &pool);
        assert!(replay(&load(&stock), &header, &pool) == want, "{name}: row-major differs");
        assert!(replay(&load(&packed), &header, &pool) == want, "{name}: packed differs");
        let (a, b) = (load(&own), load(&stock));
        assert!(a.head_rows() == b.head_rows() && a.embedding_rows() == b.embedding_rows());
        assert!(a.head_rows().is_some() && a.embedding_rows().is_some());
        let widths = |m: &Model| (m.feature_width(), m.hidden_width());
        assert_eq!(widths(&a), widths(&b));
        assert_eq!(a.feature_width() > 0, name == "draft");
        // Every matrix came back byte by byte.
        let (own, packed) = (File::read(&own), File::read(&packed));
        for t in &own.proto.graph.as_ref().unwrap().initializer {
            assert!(own.bytes(&t.name) == packed.bytes(&t.name), "{name}: {}", t.name);
        }
    }
    // The codec has biases, residuals and a number of rows that is no multiple of 16.
    let own = root().join("models/tiny/codec.onnx");
    let (stock, packed) = (dir.path("codec.onnx"), dir.path("codec-packed.onnx"));
    to_stock(&own).write(&stock);
    pack(&stock, &packed, false, |_, _| ()).unwrap();
    let t: Vec<u32> = (0..40).map(|i| i * 1601 % 65536).collect();
    let run = |path: &Path, size: usize| {
        let mut s = CodecSession::new(&load(path), &pool).unwrap();
        t.chunks(size).flat_map(|c| s.push(c).unwrap().to_vec()).collect::<Vec<f32>>()
    };
    let want = run(&own, 40);
    for size in [1, 3, 40] {
        assert!(run(&stock, size) == want && run(&packed, size) == want, "chunks of {size}");
    }
}

#[test]
fn what_cannot_be_packed_stays_and_the_bits_too() {
    let dir = Dir::new("kept");
    let (header, _) = golden();
    let pool = Pool::new(kernel::best(), 1);
    let stock = root().join("tests/data/stock/stock.onnx");
    let packed = dir.path("packed.onnx");
    let report = pack(&stock, &packed, false, |done, total| assert!(done <= total)).unwrap();
    let kept: Vec<&str> = report.kept.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(kept, ["layers.0.gate_up", "layers.0.down"]);
    assert_eq!(report.packed, ["layers.0.qkv", "layers.0.attn_out", "head"]);
    assert!(report.bytes_after < report.bytes_before);
    let want = replay(&load(&stock), &header, &pool);
    assert!(replay(&load(&packed), &header, &pool) == want);

    // A scale between two f16 numbers, and two nodes that share weights in different ways.
    let mut file = File::golden();
    let mut scales = file.bytes("head.scales");
    scales[..4].copy_from_slice(&0.010_000_1f32.to_le_bytes());
    let dims = file.tensor("head.scales").dims.clone();
    file.set("head.scales", F32, &dims, &scales);
    let shared = file.node("layers.0.qkv").input[2].clone();
    let other = file.bytes(&shared);
    file.set("other.scales", F32, &[other.len() as i64 / 4], &other);
    let mut twin = file.node("layers.0.qkv").clone();
    twin.name = "twin".into();
    twin.input[2] = "other.scales".into();
    twin.output[0] = "unused".into();
    let at = file.graph().node.iter().position(|n| n.name == "layers.0.qkv").unwrap();
    file.graph().node.insert(at, twin);
    file.write(&dir.path("odd.onnx"));
    let report = pack(&dir.path("odd.onnx"), &packed, true, |_, _| ()).unwrap();
    assert_eq!(report.packed, ["layers.0.attn_out"]);
    assert_eq!(report.kept.len(), 5, "{report:?}");
    let want = replay(&load(&dir.path("odd.onnx")), &header, &pool);
    assert!(replay(&load(&packed), &header, &pool) == want);
}

#[test]
fn small_tensors_may_lie_in_the_graph_and_anywhere_in_the_data() {
    let dir = Dir::new("inline");
    let (header, _) = golden();
    let pool = Pool::new(kernel::best(), 1);
    let want = replay(&load(&root().join("tests/data/stock/stock.onnx")), &header, &pool);
    let mut file = File::golden();
    for name in ["layers.0.gate_up.bias", "layers.0.down.scales", "layers.0.down.zero_points"] {
        let bytes = file.bytes(name);
        let t = file.tensor(name);
        t.external_data.clear();
        t.data_location = None;
        if name.ends_with("bias") {
            t.float_data =
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        } else {
            t.raw_data = bytes;
        }
    }
    // Without gaps between tensors nothing is aligned.
    let scales = file.bytes("layers.0.qkv.scales");
    let offset = file.data.len() + 1;
    file.data.push(0);
    file.data.extend(&scales);
    let t = file.tensor("layers.0.qkv.scales");
    t.external_data.iter_mut().find(|e| e.key == "offset").unwrap().value = offset.to_string();
    file.write(&dir.path("inline.onnx"));
    assert!(replay(&load(&dir.path("inline.onnx")), &header, &pool) == want);
    pack(&dir.path("inline.onnx"), &dir.path("packed.onnx"), false, |_, _| ()).unwrap();
    assert!(replay(&load(&dir.path("packed.onnx")), &header, &pool) == want);
}

#[test]
fn a_graph_may_end_in_standard_operators() {
    let dir = Dir::new("tail");
    let mut file = File::golden();
    file.node("logits").output[0] = "scored".into();
    file.set("one", F32, &[1], &1f32.to_le_bytes());
    file.graph().node.push(pb::NodeProto {
        name: "tail".into(),
        op_type: "Add".into(),
        input: vec!["scored".into(), "one".into()],
        output: vec!["logits".into()],
        ..Default::default()
    });
    file.write(&dir.path("tail.onnx"));
    let pool = Pool::new(kernel::best(), 1);
    let step = |path: &Path, wanted: usize| {
        let mut s = Session::new(&load(path), &pool).unwrap();
        s.step(&[65537, 1, 2, 3, 4], wanted).unwrap();
        let (mut p, mut q) = (vec![0.0; s.vocabulary()], vec![0.0; s.vocabulary()]);
        let mut sums = vec![0.0; s.vocabulary().div_ceil(256)];
        assert!(s.softmax(0, 1.25, &mut p, &mut sums));
        let logits = s.logits().to_vec();
        assert_eq!(logits.len(), wanted * q.len());
        kernel::best().softmax(&logits[..q.len()], 1.25, &mut q, &mut sums);
        assert!(p.iter().zip(&q).all(|(p, q)| (p - q).abs() <= 1e-4 * q), "softmax");
        logits
    };
    let stock = root().join("tests/data/stock/stock.onnx");
    let want = step(&stock, 2);
    let got = step(&dir.path("tail.onnx"), 2);
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(&want).all(|(g, w)| *g == w + 1.0));

    // The scores of the factors may come from one too: here the head's, with a bias of zeros.
    let mut file = File::golden();
    let scores = file.node("logits").input[0].clone();
    file.node("logits").input[0] = "scores.sum".into();
    file.set("zero", F32, &[1], &0f32.to_le_bytes());
    let at = file.graph().node.len() - 1;
    file.graph().node.insert(
        at,
        pb::NodeProto {
            name: "head.bias".into(),
            op_type: "Add".into(),
            input: vec![scores, "zero".into()],
            output: vec!["scores.sum".into()],
            ..Default::default()
        },
    );
    file.write(&dir.path("scores.onnx"));
    for wanted in [1, 2, 5] {
        assert!(step(&dir.path("scores.onnx"), wanted) == step(&stock, wanted), "{wanted} rows");
    }
}

#[test]
fn malformed_nodes_are_refused() {
    let dir = Dir::new("bad");
    type Damage = fn(&mut File);
    fn set(f: &mut File, name: &str, value: i64) {
        let node = f.node("layers.0.qkv");
        node.attribute.retain(|a| a.name != name);
        node.attribute.push(attribute(name, value));
    }
    fn lose(f: &mut File, name: &str) {
        f.node("layers.0.qkv").attribute.retain(|a| a.name != name);
    }
    /// Names one more tensor as input `at`.
    fn add(f: &mut File, at: usize, data_type: i32, dims: &[i64], bytes: usize) {
        f.set("extra", data_type, dims, &vec![8; bytes]);
        let node = f.node("layers.0.qkv");
        node.input.resize(node.input.len().max(at + 1), String::new());
        node.input[at] = "extra".into();
    }
    fn dims(f: &mut File, name: &str, dims: &[i64]) {
        let bytes = f.bytes(name);
        let data_type = f.tensor(name).data_type;
        let element = if data_type == F32 { 4 } else { 1 };
        let n = dims.iter().product::<i64>() as usize * element;
        f.set(name, data_type, dims, &bytes.repeat(2)[..n]);
    }
    use ErrorKind::{Malformed, Unsupported};
    // N 96, K 32.
    let table: &[(&str, ErrorKind, &str, Damage)] = &[
        ("block size 16", Unsupported, "block_size 16", |f| set(f, "block_size", 16)),
        ("block size 128", Unsupported, "block_size 128", |f| set(f, "block_size", 128)),
        ("no block size", Malformed, "block_size is missing", |f| lose(f, "block_size")),
        ("3 bits", Unsupported, "3 bits", |f| set(f, "bits", 3)),
        ("2 bits", Unsupported, "2 bits", |f| set(f, "bits", 2)),
        ("8 bits over 4-bit weights", Malformed, "weights of shape", |f| set(f, "bits", 8)),
        ("K 48", Unsupported, "K is 48", |f| set(f, "K", 48)),
        ("K 64", Malformed, "weights of shape", |f| set(f, "K", 64)),
        ("K 0", Malformed, "K is out of range", |f| set(f, "K", 0)),
        ("no K", Malformed, "K is missing", |f| lose(f, "K")),
        ("N 95", Malformed, "weights of shape", |f| set(f, "N", 95)),
        ("N negative", Malformed, "N is out of range", |f| set(f, "N", -96)),
        ("N huge", Malformed, "N is out of range", |f| set(f, "N", i64::MAX)),
        ("no N", Malformed, "N is missing", |f| lose(f, "N")),
        ("prepacked", Unsupported, "weight_prepacked", |f| set(f, "weight_prepacked", 1)),
        ("g_idx", Unsupported, "g_idx", |f| add(f, 4, 6, &[32], 128)),
        ("short scales", Malformed, "scales of shape", |f| {
            dims(f, "layers.0.qkv.scales", &[95, 1])
        }),
        ("long scales", Malformed, "scales of shape", |f| dims(f, "layers.0.qkv.scales", &[97, 1])),
        ("scales the other way round", Malformed, "scales of shape", |f| {
            dims(f, "layers.0.qkv.scales", &[1, 96])
        }),
        ("i8 scales", Unsupported, "scales are i8", |f| {
            f.set("layers.0.qkv.scales", 3, &[96], &[1; 96])
        }),
        ("short weights", Malformed, "weights of shape", |f| {
            dims(f, "layers.0.qkv.weights", &[96, 1, 15])
        }),
        ("i8 weights", Malformed, "weights are i8", |f| {
            f.tensor("layers.0.qkv.weights").data_type = 3
        }),
        ("no weights", Malformed, "not a stored tensor", |f| {
            f.node("layers.0.qkv").input[1] = "absent".into()
        }),
        ("one input", Malformed, "no weights", |f| f.node("layers.0.qkv").input.truncate(1)),
        ("two inputs", Malformed, "no scales", |f| f.node("layers.0.qkv").input.truncate(2)),
        ("short zero points", Malformed, "zero points of shape", |f| add(f, 3, U8, &[95], 95)),
        ("float zero points", Unsupported, "zero points are f32", |f| {
            add(f, 3, F32, &[96, 1], 384)
        }),
        ("short bias", Malformed, "bias of shape", |f| add(f, 5, F32, &[95], 380)),
        ("f16 bias", Unsupported, "bias is f16", |f| add(f, 5, 10, &[96], 192)),
        ("a seventh input", Unsupported, "one too many", |f| add(f, 6, U8, &[1], 1)),
        ("no name", Malformed, "is empty or used twice", |f| {
            f.node("layers.0.qkv").name = String::new()
        }),
        ("a name twice", Malformed, "is empty or used twice", |f| {
            f.node("layers.0.qkv").name = "head".into()
        }),
        ("what it makes itself", Malformed, "in a circle", |f| {
            f.node("layers.0.qkv").input[0] = "layers.0.gate_up.out".into()
        }),
        ("activations of another width", Malformed, "columns", |f| {
            let wide = f.node("layers.0.qkv").output[0].clone();
            f.node("layers.0.gate_up").input[0] = wide
        }),
        ("no activations", Malformed, "inputs", |f| {
            f.node("layers.0.qkv").input[0] = String::new()
        }),
        ("large weights of a standard operator", Unsupported, "only ai.voxgrain", |f| {
            f.set("layers.0.qkv.bias", F32, &[1 << 19], &vec![0; 1 << 21])
        }),
        ("an unknown operator of the domain", Unsupported, "MatMulBnb4", |f| {
            f.node("layers.0.qkv").op_type = "MatMulBnb4".into()
        }),
    ];
    for (what, kind, text, damage) in table {
        let mut file = File::golden();
        damage(&mut file);
        let path = dir.path("bad.onnx");
        file.write(&path);
        let e = match Model::load(&path, 16) {
            Ok(_) => panic!("{what}: accepted"),
            Err(e) => e,
        };
        assert_eq!(e.kind(), *kind, "{what}: {e}");
        assert!(e.to_string().contains(text), "{what}: {e}");
        // Packing refuses the node as well, or leaves what it does not look at.
        let _ = pack(&path, &dir.path("out.onnx"), true, |_, _| ());
    }
}

/// Seeded damage: an error, or a file that loads or not, never a panic.
#[test]
fn damaged_stock_models_never_panic() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let dir = Dir::new("damage");
    let mut rng = StdRng::seed_from_u64(13);
    let sound = std::fs::read(root().join("tests/data/stock/stock.onnx")).unwrap();
    let (path, out) = (dir.path("stock.onnx"), dir.path("out.onnx"));
    std::fs::copy(root().join("tests/data/stock/stock.onnx.data"), dir.path("stock.onnx.data"))
        .unwrap();
    let (mut packed, mut refused) = (0, 0);
    let pool = Pool::new(kernel::best(), 1);
    for round in 0..300 {
        let mut bytes = sound.clone();
        // Nodes and tensors come before the functions, which nothing reads.
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..bytes.len().min(8_000));
            match round % 3 {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.random(),
                _ => drop(bytes.drain(at..at + rng.random_range(1..9))),
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        let loaded = Model::load(&path, 64);
        if let Ok(model) = &loaded
            && let Ok(mut s) = Session::new(model, &pool)
        {
            let _ = s.step(&[1, 70, 65537, 65540], 2);
        }
        match pack(&path, &out, true, |_, _| ()) {
            Ok(_) => {
                packed += 1;
                assert!(Model::load(&out, 64).is_ok() || loaded.is_err(), "round {round}");
            }
            Err(e) => {
                refused += 1;
                assert!(!e.to_string().is_empty());
            }
        }
    }
    assert!(packed > 20 && refused > 20, "{packed} packed, {refused} refused");
}

#[test]
fn a_bundle_is_packed_whole() {
    let dir = Dir::new("bundle");
    let stock = stock_bundle(&dir);
    let out = dir.path("elsewhere/packed");
    let reports = pack_bundle(&stock, &out, false, |_, _, _| ()).unwrap();
    assert_eq!(reports.len(), 2);
    let bundle = voxgrain::bundle::Bundle::open(&out).unwrap();
    bundle.verify(|_| std::ops::ControlFlow::Continue(())).unwrap();
    let voice = voxgrain::speech::synth::Voice::open(&out).unwrap();
    assert!(voice.groups().is_some(), "the index belongs to the packed target");
    let e = pack_bundle(&stock, &out, false, |_, _, _| ()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    pack_bundle(&stock, &out, true, |_, _, _| ()).unwrap();
    let e = pack_bundle(&stock, &stock, true, |_, _, _| ()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    let e = pack_bundle(&out, &dir.path("twice"), false, |_, _, _| ()).unwrap_err();
    assert!(e.to_string().contains("nothing to pack"), "{e}");
    assert!(!dir.path("twice").exists());
}

/// A folder and everything in it, by name.
fn contents(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap())
        .map(|f| (f.file_name(), std::fs::read(f.path()).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

#[test]
fn what_is_replaced_stays_until_all_of_the_new_is_there() {
    let dir = Dir::new("replace");
    let stock = stock_bundle(&dir);
    let out = dir.path("packed");
    pack_bundle(&stock, &out, false, |_, _, _| ()).unwrap();
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    let before = contents(&out);

    // The second of two models cannot be packed: the first is not replaced either.
    let broken = stock.join("draft.onnx");
    let sound = std::fs::read(&broken).unwrap();
    let mut target = std::fs::read(stock.join("target.onnx.data")).unwrap();
    target[4096] ^= 1;
    std::fs::write(stock.join("target.onnx.data"), &target).unwrap();
    std::fs::write(&broken, vec![0xff; sound.len()]).unwrap();
    pack_bundle(&stock, &out, true, |_, _, _| ()).unwrap_err();
    assert!(contents(&out) == before);

    // Where all goes well, both files are new and nothing else is left.
    let pair = dir.path("pair");
    std::fs::create_dir_all(&pair).unwrap();
    let model = pair.join("m.onnx");
    pack(&stock.join("target.onnx"), &model, false, |_, _| ()).unwrap();
    let first = contents(&pair);
    target[4096] ^= 1;
    std::fs::write(stock.join("target.onnx.data"), &target).unwrap();
    pack(&stock.join("target.onnx"), &model, true, |_, _| ()).unwrap();
    let second = contents(&pair);
    assert!(first != second && second.len() == 2, "no temporary files, other weights");
    Model::load(&model, 0).unwrap();
}

/// `models/tiny` with stock language models, its index beside.
fn stock_bundle(dir: &Dir) -> PathBuf {
    use sha2::{Digest, Sha256};
    let tiny = root().join("models/tiny");
    let to = dir.path("models/stock");
    std::fs::create_dir_all(&to).unwrap();
    std::fs::create_dir_all(dir.path("asg-cache")).unwrap();
    for name in ["codec", "draft_plain"] {
        for file in [format!("{name}.onnx"), format!("{name}.onnx.data")] {
            std::fs::copy(tiny.join(&file), to.join(&file)).unwrap();
        }
    }
    let mut text = std::fs::read_to_string(tiny.join("bundle.toml")).unwrap();
    let mut digests = Vec::new();
    for name in ["target.onnx", "draft.onnx"] {
        to_stock(&tiny.join(name)).write(&to.join(name));
        for file in [name.to_owned(), format!("{name}.data")] {
            let facts = |dir: &Path| {
                let bytes = std::fs::read(dir.join(&file)).unwrap();
                (bytes.len(), <[u8; 32]>::from(Sha256::digest(&bytes)))
            };
            let (old, new) = (facts(&tiny), facts(&to));
            let hex = |d: &[u8]| d.iter().map(|b| format!("{b:02x}")).collect::<String>();
            text = text.replace(&hex(&old.1), &hex(&new.1));
            text = text.replace(&format!("bytes = {}\n", old.0), &format!("bytes = {}\n", new.0));
            digests.push((old.1, new.1));
        }
    }
    std::fs::write(to.join("bundle.toml"), text).unwrap();
    let mut index = std::fs::read(root().join("asg-cache/tiny.asg")).unwrap();
    voxgrain::asg::retarget(&mut index, &digests[1].0, &digests[1].1).unwrap();
    std::fs::write(dir.path("asg-cache/tiny.asg"), index).unwrap();
    to
}

#[cfg(feature = "cli")]
mod program {
    use super::*;
    use std::process::{Command, Output};

    fn run(dir: &Dir, args: &[&str]) -> Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_voxgrain"));
        c.current_dir(&dir.0).env_remove("VOXGRAIN_BUNDLE").args(args).output().unwrap()
    }

    fn ok(o: Output) -> Output {
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
        o
    }

    fn files(dir: &Dir) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&dir.0)
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn with_model(name: &str) -> Dir {
        let dir = Dir::new(name);
        for file in ["stock.onnx", "stock.onnx.data"] {
            std::fs::copy(root().join("tests/data/stock").join(file), dir.path(file)).unwrap();
        }
        dir
    }

    #[test]
    fn pack_writes_a_model_and_says_what_it_did() {
        let dir = with_model("cli-pack");
        let o = ok(run(&dir, &["pack", "stock.onnx", "packed.onnx"]));
        assert!(o.stdout.is_empty());
        let status = String::from_utf8(o.stderr).unwrap();
        for words in ["3 nodes packed, 2 kept", "layers.0.down stays", "wrote packed.onnx"] {
            assert!(status.contains(words), "{status}");
        }
        let all = ["packed.onnx", "packed.onnx.data", "stock.onnx", "stock.onnx.data"];
        assert_eq!(files(&dir), all);

        let o = ok(run(&dir, &["pack", "--json", "--force", "stock.onnx", "packed.onnx"]));
        let v: Value = serde_json::from_slice(&o.stdout).unwrap();
        assert_eq!(v["models"][0]["packed"].as_array().unwrap().len(), 3);
        assert_eq!(v["models"][0]["kept"][1]["node"], "layers.0.down");
        let bytes = std::fs::metadata(dir.path("packed.onnx.data")).unwrap().len();
        assert_eq!(v["models"][0]["bytes_after"], bytes);

        let o = ok(run(&dir, &["pack", "--help"]));
        let help = String::from_utf8(o.stdout).unwrap();
        assert!(help.contains("Examples:") && help.contains("MatMulNBits"), "{help}");
    }

    #[test]
    fn pack_refuses_and_leaves_nothing_behind() {
        let dir = with_model("cli-refuse");
        std::fs::write(dir.path("taken.onnx.data"), b"mine").unwrap();
        std::fs::write(dir.path("bad.onnx"), b"not a model").unwrap();
        std::fs::write(dir.path("bad.onnx.data"), b"none").unwrap();
        let tiny = root().join("models/tiny/draft.onnx");
        let before = files(&dir);
        for (args, code, words) in [
            (&["stock.onnx", "stock.onnx"][..], 2, "is the input"),
            (&["--force", "stock.onnx", "./stock.onnx"], 2, "is the input"),
            (&["stock.onnx", "taken.onnx"], 2, "--force"),
            (&["absent.onnx", "out.onnx"], 3, "absent.onnx"),
            (&["bad.onnx", "out.onnx"], 4, "not an ONNX model"),
            (&["stock.onnx", "no/such/folder/out.onnx"], 5, "cannot write"),
            (&[tiny.to_str().unwrap(), "out.onnx"], 2, "nothing to pack"),
            (&["stock.onnx"], 2, "OUT"),
            (&[".", "out"], 3, "bundle.toml"),
        ] {
            let o = run(&dir, &[&["pack"], args].concat());
            let text = String::from_utf8(o.stderr).unwrap();
            assert_eq!(o.status.code(), Some(code), "{args:?}: {text}");
            assert!(text.contains(words), "{args:?}: {text}");
            assert_eq!(files(&dir), before, "{args:?}");
        }
        assert_eq!(std::fs::read(dir.path("taken.onnx.data")).unwrap(), b"mine");
    }

    #[test]
    fn a_packed_bundle_speaks_with_the_same_samples() {
        let dir = Dir::new("cli-bundle");
        stock_bundle(&dir);
        ok(run(&dir, &["pack", "models/stock", "models/packed"]));
        ok(run(&dir, &["inspect", "--verify", "--bundle", "models/packed"]));
        let say = |bundle: &str| {
            let text = "One two three, and four.";
            ok(run(&dir, &["say", "-q", "--seed", "3", "-o", "x.wav", "--bundle", bundle, text]));
            std::fs::read(dir.path("x.wav")).unwrap()
        };
        let tiny = root().join("models/tiny");
        let want = say(tiny.to_str().unwrap());
        assert!(say("models/stock") == want, "row-major");
        assert!(say("models/packed") == want, "packed");
    }
}
