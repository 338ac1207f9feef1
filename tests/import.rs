//! Models of others: read, refused, and written as bundles that compute what they should.
#![cfg(feature = "import")]

mod import {
    pub mod tiny;
}

use import::tiny::{self, Dir, Tiny, fails};
use half::f16;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use voxgrain::engine::{Model, Pool, Session};
use voxgrain::import::source::{Dtype, TensorSource};
use voxgrain::import::{Options, Report, gguf, import, pickle, safetensors};
use voxgrain::map::Map;
use voxgrain::{ErrorKind, kernel};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(name)
}

fn take(dir: &Dir, tiny: &Tiny, bits: u32) -> (PathBuf, Report) {
    let (model, out) = (dir.path("model"), dir.path(&format!("out{bits}")));
    tiny.write(&model);
    let mut options = Options::new(model, &out);
    options.codec = Some(tiny::codec(dir));
    options.bits = Some(bits);
    let report = import(&options, &mut |_, _, _| ()).unwrap_or_else(|e| panic!("{e:#}"));
    (out, report)
}

/// The weights of every matrix of a bundle's target, by name.
fn stored(bundle: &Path) -> Vec<(String, Vec<u8>)> {
    use prost::Message;
    let proto = std::fs::read(bundle.join("target.onnx")).unwrap();
    let model = tract_onnx::pb::ModelProto::decode(&proto[..]).unwrap();
    let data = std::fs::read(bundle.join("target.onnx.data")).unwrap();
    let graph = model.graph.unwrap();
    let of = |t: &tract_onnx::pb::TensorProto| {
        let field = |key: &str| -> usize {
            t.external_data.iter().find(|e| e.key == key).unwrap().value.parse().unwrap()
        };
        (t.name.clone(), data[field("offset")..][..field("length")].to_vec())
    };
    graph.initializer.iter().map(of).collect()
}

/// Logits of `tokens` (the tokenizer's) by the bundle's target, all rows.
fn logits(bundle: &Path, report: &Report, tokens: &[u32], passes: &[usize]) -> Vec<Vec<f32>> {
    let model = Model::load(bundle.join("target.onnx"), 64).unwrap();
    let pool = Pool::new(kernel::best(), 1);
    let mut session = Session::new(&model, &pool).unwrap();
    let ids: Vec<u32> = tokens.iter().map(|t| report.family.bundle_id(*t)).collect();
    let (mut at, mut rows) = (0, Vec::new());
    for n in passes {
        session.step(&ids[at..at + n], *n).unwrap();
        at += n;
        let width = session.vocabulary();
        rows.extend(session.logits().chunks_exact(width).map(<[f32]>::to_vec));
    }
    rows
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let square = |f: &dyn Fn(f32, f32) -> f32| -> f32 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| f(*x, *y)).sum()
    };
    assert_eq!((a.len(), a[0].len()), (b.len(), b[0].len()));
    (square(&|x, y| (x - y) * (x - y)) / square(&|_, y| y * y)).sqrt()
}

/// Every body computes what a plain reading of its definition computes: order of ids, tied heads,
/// biases, norms of heads, scaled positions, padded feed-forward layers, in one pass or several.
#[test]
fn bodies_compute_what_they_should() {
    let linear = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0});
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_theta": 100.0,
    });
    let plain = json!({"rope_type": "default", "rope_theta": 100.0});
    for (i, (body, rope, tied, ffn)) in [
        ("llama", &linear, true, 64),
        ("llama", &llama3, false, 40),
        ("qwen2", &plain, true, 64),
        ("qwen3", &plain, false, 64),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = Dir::new(&format!("bodies{i}"));
        let mut tiny = Tiny::new(body, 3 + i as u64);
        tiny.config["rope_parameters"] = rope.clone();
        tiny.set_ffn(ffn);
        tiny.set_tied(tied);
        let (out, report) = take(&dir, &tiny, 8);
        let tokens = [256, 40, 41, 42, 257, 258, 262, 270, 277, 263, 264, 259];
        let reference = tiny.logits(&tokens);
        let once = logits(&out, &report, &tokens, &[12]);
        let apart = difference(&once, &reference);
        assert!(apart < 0.03, "{body} {rope}: {apart}");
        assert_eq!(logits(&out, &report, &tokens, &[7, 1, 4]), once, "{body}");
        // The reference tells a wrong model from a right one.
        let mut other = tiny.clone();
        other.config["rope_parameters"]["rope_theta"] = json!(10_000.0);
        assert!(difference(&other.logits(&tokens), &reference) > 0.05, "{body}");
    }
}

/// A GGUF file's blocks are the bundle's blocks: imported from the floats that they stand for, the
/// same integers and scales come out, row order of llama.cpp undone.
#[test]
fn gguf_blocks_are_kept() {
    for (body, dtype, bits) in
        [("llama", Dtype::Q8_0, 8), ("llama", Dtype::Q4_0, 4), ("qwen3", Dtype::Q8_0, 8), ("qwen2", Dtype::Q4_0, 4)]
    {
        let dir = Dir::new(&format!("gguf-{body}-{bits}"));
        let mut tiny = Tiny::new(body, 11);
        tiny.round_to(dtype);
        let file = dir.path("model.gguf");
        std::fs::write(&file, tiny.gguf(dtype)).unwrap();
        let mut options = Options::new(&file, dir.path("from-gguf"));
        options.codec = Some(tiny::codec(&dir));
        let report = import(&options, &mut |_, _, _| ()).unwrap_or_else(|e| panic!("{e:#}"));
        assert_eq!((report.bits, report.counts.quantised), (bits, 0), "{body}");
        let (from_floats, other) = take(&dir, &tiny, bits);
        assert_eq!(other.counts.kept, 0);
        let matrices = |all: Vec<(String, Vec<u8>)>| {
            all.into_iter().filter(|(name, _)| !name.starts_with("embedding")).collect::<Vec<_>>()
        };
        let (a, b) = (matrices(stored(&dir.path("from-gguf"))), matrices(stored(&from_floats)));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert!(a == b, "{body} {dtype}: {} differs", a.0);
        }
        let tokens = [256, 40, 257, 262, 263, 277];
        let apart = difference(
            &logits(&dir.path("from-gguf"), &report, &tokens, &[6]),
            &logits(&from_floats, &other, &tokens, &[6]),
        );
        // The embedding is a block here and f16 there.
        assert!(apart < 2e-3, "{body}: {apart}");
    }
}

/// Q8_0 as 4 bits loses something and says so; Q4_0 as 8 bits loses nothing.
#[test]
fn other_bits_than_the_stored() {
    let dir = Dir::new("bits");
    for (dtype, bits, note) in [(Dtype::Q8_0, 4, Some("Q8_0")), (Dtype::Q4_0, 8, None)] {
        let mut tiny = Tiny::new("llama", 5);
        tiny.round_to(dtype);
        let file = dir.path("model.gguf");
        std::fs::write(&file, tiny.gguf(dtype)).unwrap();
        let mut options = Options::new(&file, dir.path(&format!("out{bits}")));
        options.codec = Some(tiny::codec(&dir));
        options.bits = Some(bits);
        let report = import(&options, &mut |_, _, _| ()).unwrap();
        assert_eq!(report.bits, bits);
        let said = report.notes.iter().any(|n| n.contains("requantised"));
        assert_eq!(said, note.is_some(), "{:?}", report.notes);
        let tokens = [256, 40, 257, 262];
        let apart =
            difference(&logits(&options.output, &report, &tokens, &[4]), &tiny.logits(&tokens));
        assert!(apart < if bits == 8 { 0.03 } else { 0.3 }, "{apart}");
    }
}

/// One piece, shards, and PyTorch's files hold the same model.
#[test]
fn every_container_gives_the_same_bundle() {
    let dir = Dir::new("containers");
    let tiny = Tiny::new("qwen3", 21);
    let (whole, _) = take(&dir, &tiny, 8);
    let want = stored(&whole);
    for form in ["shards", "torch", "torch-shards"] {
        let model = dir.path(form);
        tiny.write(&model);
        std::fs::remove_file(model.join("model.safetensors")).unwrap();
        match form {
            "shards" => tiny.write_shards(&model),
            "torch" => std::fs::write(model.join("pytorch_model.bin"), tiny.torch(|_| true)).unwrap(),
            _ => tiny.write_torch_shards(&model),
        }
        let mut options = Options::new(&model, dir.path(&format!("{form}-out")));
        options.codec = Some(tiny::codec(&dir));
        options.bits = Some(8);
        import(&options, &mut |_, _, _| ()).unwrap_or_else(|e| panic!("{form}: {e:#}"));
        assert!(stored(&options.output) == want, "{form}");
    }
}

/// What bundle.toml says of a model is what is in it, and progress is told.
#[test]
fn the_description_names_what_was_found() {
    let dir = Dir::new("description");
    let tiny = Tiny::new("qwen3", 2);
    let model = dir.path("a voice");
    tiny.write(&model);
    let mut options = Options::new(&model, dir.path("out"));
    options.codec = Some(tiny::codec(&dir));
    let mut told = Vec::new();
    let report = import(&options, &mut |what, done, total| {
        assert!(done <= total);
        told.push(what.to_owned());
    })
    .unwrap();
    assert!(["weights", "groups"].iter().all(|w| told.iter().any(|t| t == w)), "{told:?}");
    assert_eq!(report.family.name, "NeuTTS-2E");
    assert_eq!((report.family.speech, report.family.first_speech, report.family.end), (16, 262, 259));
    let bundle = voxgrain::bundle::Bundle::open(&options.output).unwrap();
    bundle.verify(|_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(bundle.name, "a voice");
    assert_eq!((bundle.target.hidden, bundle.target.head_dim), (32, 16));
    assert_eq!(bundle.sampling.top_k, 50);
    let text = std::fs::read_to_string(options.output.join("bundle.toml")).unwrap();
    assert!(text.contains("first_speech_id = 262") && text.contains("front_end = \"bpe\""), "{text}");
    // Never over a bundle that is there.
    let again = import(&options, &mut |_, _, _| ()).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidArgument);
    options.force = true;
    import(&options, &mut |_, _, _| ()).unwrap();
    let left: Vec<_> = std::fs::read_dir(&options.output).unwrap().flatten().collect();
    let odd = left.iter().map(|f| f.file_name().into_string().unwrap());
    let odd: Vec<String> = odd.filter(|n| n.contains(".part") || n.contains(".old")).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

/// Every block type against the values that the package gguf gives.
#[test]
fn blocks_are_what_their_reference_says() {
    let golden: Json = serde_json::from_slice(&std::fs::read(data("blocks.json")).unwrap()).unwrap();
    for (name, dtype) in [
        ("Q8_0", Dtype::Q8_0),
        ("Q4_0", Dtype::Q4_0),
        ("Q4_1", Dtype::Q4_1),
        ("Q5_0", Dtype::Q5_0),
        ("Q5_1", Dtype::Q5_1),
        ("Q4_K", Dtype::Q4K),
        ("Q5_K", Dtype::Q5K),
        ("Q6_K", Dtype::Q6K),
    ] {
        let hex = golden[name]["bytes"].as_str().unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let want: Vec<f32> =
            golden[name]["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let shape = vec![1, want.len()];
        let tensor = voxgrain::import::source::Tensor::new(
            name,
            dtype,
            shape,
            Map::from_vec(bytes).whole(),
        );
        let got = tensor.unwrap().to_vec();
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= 1e-6 * w.abs().max(1e-3), "{name} {i}: {g} {w}");
        }
    }
}

/// Files that torch 2.11.0 wrote.
#[test]
fn torch_files_are_read() {
    let nested = pickle::open(&data("nested.pt")).unwrap();
    let get = |name: &str| nested.get(&format!("state_dict.{name}")).unwrap();
    let base: Vec<f32> = (0..24).map(|i| i as f32).collect();
    assert_eq!((get("plain").shape(), get("plain").to_vec()), (&[4, 6][..], base.clone()));
    assert_eq!((get("view").shape(), get("view").to_vec()), (&[2, 6][..], base[6..18].to_vec()));
    let turned: Vec<f32> = (0..24).map(|i| base[i % 4 * 6 + i / 4]).collect();
    assert_eq!((get("transposed").shape(), get("transposed").to_vec()), (&[6, 4][..], turned));
    assert_eq!(get("half").to_vec(), [0.5, -2.0]);
    assert_eq!(get("brain").to_vec(), [1.5, -3.0]);
    assert_eq!(get("codes").to_integers().unwrap(), [1, 70_000, -5]);
    assert_eq!(get("long").to_integers().unwrap(), [1 << 40]);
    assert_eq!((get("scalar").shape(), get("scalar").to_vec()), (&[][..], vec![7.0]));
    assert_eq!((get("empty").shape(), get("empty").len()), (&[0, 3][..], 0));
    assert_eq!(nested.get("list.0").unwrap().to_vec(), [1.0, 1.0]);
    assert_eq!(nested.tensors.len(), 10);
    let codes = pickle::open(&data("codes.pt")).unwrap();
    assert_eq!(codes.get("").unwrap().to_integers().unwrap(), [3, 1, 4, 1, 5]);
    let call = pickle::open(&data("call.pt")).unwrap_err();
    assert_eq!(call.kind(), ErrorKind::Unsupported);
    assert!(call.to_string().contains("os.getenv"), "{call}");
}

/// At least sixty wrong folders and files, each told by its own message; nothing is left behind.
#[test]
fn what_is_wrong_is_told() {
    let mut wrong = tiny::Wrong::new();
    tiny::wrong_folders(&mut wrong);
    tiny::wrong_gguf(&mut wrong);
    tiny::wrong_torch(&mut wrong);
    tiny::wrong_options(&mut wrong);
    let failed = fails(&wrong);
    assert!(wrong.len() >= 60, "{} cases", wrong.len());
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Damaged and cut files are refused or read, never more.
#[test]
fn random_damage_is_survived() {
    let tiny = Tiny::new("llama", 31);
    let mut small = tiny.clone();
    small.keep(|name| !name.contains("embed"));
    let files = [small.safetensors(|_| true), tiny.gguf(Dtype::Q8_0), small.torch(|n| n.contains("norm"))];
    let mut random = tiny::Random(77);
    for (kind, file) in files.iter().enumerate() {
        let read = |bytes: Vec<u8>| {
            let map = Map::from_vec(bytes);
            match kind {
                0 => safetensors::read(&map).map(drop),
                1 => gguf::Gguf::read(&map).map(drop),
                _ => pickle::read(&map).map(drop),
            }
        };
        assert!(read(file.clone()).is_ok());
        // The head, where lengths and offsets are, is hit more often.
        for round in 0..400 {
            let mut bytes = file.clone();
            for _ in 0..1 + random.below(4) {
                let most = if round % 2 == 0 { 400.min(bytes.len()) } else { bytes.len() };
                let at = random.below(most);
                bytes[at] = match random.below(3) {
                    0 => 0xff,
                    1 => 0,
                    _ => random.below(256) as u8,
                };
            }
            if round % 5 == 0 {
                bytes.truncate(random.below(file.len()));
            }
            let _ = read(bytes);
        }
    }
    let _ = f16::ZERO;
}
