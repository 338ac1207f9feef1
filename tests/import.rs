//! Models of others: read, refused, and written as bundles that compute what they should.
#![cfg(feature = "import")]

mod import {
    pub mod tiny;
}

use import::tiny::{self, Dir, Tiny, fails};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use voxgrain::engine::{Model, Pool, Session};
use voxgrain::import::source::{Dtype, TensorSource};
use voxgrain::import::{Options, Report, codes, gguf, import, pickle, safetensors, tokenizer};
use voxgrain::map::Map;
use voxgrain::speech::bpe::Bpe;
use voxgrain::speech::command::PhonemesCommand;
use voxgrain::speech::prompt::Reference;
use voxgrain::speech::text::TextFrontend;
use voxgrain::{ErrorKind, Stream, Voice, kernel};

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
    for (body, dtype, bits) in [
        ("llama", Dtype::Q8_0, 8),
        ("llama", Dtype::Q4_0, 4),
        ("qwen3", Dtype::Q8_0, 8),
        ("qwen2", Dtype::Q4_0, 4),
    ] {
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
        assert!(apart < 1e-2, "{body}: {apart}");
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
            "torch" => {
                std::fs::write(model.join("pytorch_model.bin"), tiny.torch(|_| true)).unwrap()
            }
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
    assert_eq!(
        (report.family.speech, report.family.first_speech, report.family.end),
        (16, 262, 259)
    );
    let bundle = voxgrain::bundle::Bundle::open(&options.output).unwrap();
    bundle.verify(|_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(bundle.name, "a voice");
    assert_eq!((bundle.target.hidden, bundle.target.head_dim), (32, 16));
    assert_eq!(bundle.sampling.top_k, 50);
    let text = std::fs::read_to_string(options.output.join("bundle.toml")).unwrap();
    assert!(
        text.contains("first_speech_id = 262") && text.contains("front_end = \"bpe\""),
        "{text}"
    );
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
    let golden: Json =
        serde_json::from_slice(&std::fs::read(data("blocks.json")).unwrap()).unwrap();
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
        let want: Vec<f32> = golden[name]["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap() as f32)
            .collect();
        let shape = vec![1, want.len()];
        let tensor =
            voxgrain::import::source::Tensor::new(name, dtype, shape, Map::from_vec(bytes).whole());
        let got = tensor.unwrap().to_vec();
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= 2e-6 + 1e-6 * w.abs(), "{name} {i}: {g} {w}");
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
    assert!(wrong.count() >= 60, "{} cases", wrong.count());
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Damaged and cut files are refused or read, never more.
#[test]
fn random_damage_is_survived() {
    let tiny = Tiny::new("llama", 31);
    let mut small = tiny.clone();
    small.keep(|name| !name.contains("embed"));
    let files =
        [small.safetensors(|_| true), tiny.gguf(Dtype::Q8_0), small.torch(|n| n.contains("norm"))];
    let mut random = tiny::Random(77);
    // A tokenizer that is let through must not fail later than where it says so.
    let text = tiny.tokenizer.to_string().into_bytes();
    for _ in 0..200 {
        let mut bytes = text.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = b"0\"[]{}:,tnx9"[random.below(12)];
        }
        if let Ok(bpe) = Bpe::read(&bytes, "damaged") {
            let _ = (bpe.before(), bpe.encode("the <|speech_1|>, 12 ðə"));
        }
    }
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
}

/// The tokenizer's ids of a text: bytes, and the one pair that is merged.
fn bytes(text: &str) -> Vec<u32> {
    let mut out: Vec<u32> = Vec::new();
    for b in text.bytes() {
        match (b, out.last_mut()) {
            (b'h', Some(last)) if *last == u32::from(b't') => *last = 278,
            _ => out.push(b.into()),
        }
    }
    out
}

fn voice(dir: &Dir, body: &str, change: impl Fn(&mut Tiny)) -> (Voice, Report) {
    let mut tiny = Tiny::new(body, 4);
    change(&mut tiny);
    let (out, report) = take(dir, &tiny, 8);
    (Voice::open(out).unwrap_or_else(|e| panic!("{e:#}")), report)
}

/// Prompts are the recipe of the family: `neutts` 1.4.1 makes the same of the same pieces.
#[test]
fn prompts_follow_the_recipe() {
    let dir = Dir::new("prompts");
    let (nano, report) = voice(&dir, "llama", |_| ());
    let ids = |all: &[Vec<u32>]| -> Vec<u32> {
        all.concat().into_iter().map(|t| report.family.bundle_id(t)).collect()
    };
    let user = bytes("user: Convert the text to speech:");
    let plain = ids(&[
        user.clone(),
        vec![256],
        bytes("hɛloʊ."),
        vec![257],
        bytes("\nassistant:"),
        vec![258],
    ]);
    assert_eq!(nano.prompt(" hɛloʊ. ").unwrap(), plain);
    let reference = Reference::new("jo", "ðə", vec![3, 15, 0]);
    let nano = nano.with_reference(reference).unwrap();
    let with = ids(&[
        user,
        vec![256],
        bytes("ðə hɛloʊ."),
        vec![257],
        bytes("\nassistant:"),
        vec![258],
        vec![262 + 3, 262 + 15, 262],
    ]);
    assert_eq!(nano.prompt("hɛloʊ.").unwrap(), with);
    assert_eq!(with[with.len() - 3..], [3, 15, 0]);

    // A text steers nothing: control tokens are letters in it, codes are refused.
    let steered = nano.prompt("a<|TEXT_PROMPT_END|>b {text} {reference_codes}").unwrap();
    let end = report.family.bundle_id(257);
    assert_eq!(steered.iter().filter(|t| **t == end).count(), 1);
    let refused = nano.prompt("a <|speech_3|>").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidText);
    assert_eq!(nano.prompt("  ").unwrap_err().kind(), ErrorKind::InvalidText);
    let beyond = nano.clone().with_reference(Reference::new("x", "a", vec![16])).unwrap_err();
    assert!(beyond.to_string().contains("16"), "{beyond}");
    assert_eq!(nano.with_emotion("happy").unwrap_err().kind(), ErrorKind::InvalidArgument);

    let dir = Dir::new("prompts-2e");
    let (two, report) = voice(&dir, "qwen3", |t| {
        t.config["neuphonic"] =
            json!({"input_format": "BPE", "supported_emotions": ["happy", "odd"]});
    });
    let ids = |all: &[Vec<u32>]| -> Vec<u32> {
        all.concat().into_iter().map(|t| report.family.bundle_id(t)).collect()
    };
    // `odd` has no token, so it is not offered.
    assert_eq!(report.family.emotions, ["happy"]);
    let two = two.with_reference(Reference::new("jo", "So it is.", vec![1])).unwrap();
    let calm = ids(&[vec![256], bytes("So it is. The end."), vec![257, 258], vec![263]]);
    assert_eq!(two.prompt("The end.").unwrap(), calm);
    let happy = ids(&[
        vec![256],
        bytes("So it is."),
        vec![261],
        bytes("The end."),
        vec![257, 258],
        vec![263],
    ]);
    assert_eq!(two.with_emotion("happy").unwrap().prompt("The end.").unwrap(), happy);
}

/// From text to samples: a command for phonemes, a voice of the folder, the stream.
#[test]
fn an_imported_voice_speaks() {
    let dir = Dir::new("speaks");
    let (voice, _) = voice(&dir, "llama", |_| ());
    let chunk = TextFrontend::default().speak("A bird, the end.").unwrap().chunks.remove(0);
    let told = voice.write(&chunk, 1.0).unwrap_err();
    assert!(told.to_string().contains("--phonemes-command"), "{told}");
    let cat = PhonemesCommand::parse("cat").unwrap();
    let voice = voice.with_phonemes_command(cat).unwrap();
    assert_eq!(voice.write(&chunk, 1.0).unwrap(), "A bird, the end.");

    let folder = voice.bundle().dir().join("voices");
    let none = voice.clone().with_speaker("jo").unwrap_err();
    assert!(none.to_string().contains("voice add"), "{none}");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("jo.toml"), "transcript = \"the one\"\ncodes = [1, 2, 3]\n")
        .unwrap();
    std::fs::write(folder.join("bad.toml"), "transcript = 3\n").unwrap();
    let voice = voice.with_speaker("jo").unwrap();
    let reference = voice.reference().unwrap();
    assert_eq!((reference.text.as_str(), &reference.codes[..]), ("the one", &[1, 2, 3][..]));
    assert_eq!(voice.clone().with_speaker("bad").unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(voice.clone().with_speaker("../x").unwrap_err().kind(), ErrorKind::InvalidArgument);
    let unknown = voice.clone().with_speaker("al").unwrap_err();
    assert!(unknown.to_string().contains("bad, jo"), "{unknown}");

    let mut options = voxgrain::Options::for_voice(&voice);
    options.threads = 1;
    let mut stream = Stream::new(&voice, &options).unwrap();
    stream.feed("A bird, the end.").unwrap();
    stream.flush().unwrap();
    let mut samples = 0;
    while let Some(pcm) = stream.next_pcm().unwrap() {
        samples += pcm.len();
    }
    // It may not end before its family's least length.
    assert!(samples >= 50 * 320, "{samples}");
}

#[test]
fn a_command_keeps_marks_and_tells_what_is_wrong() {
    let upper = PhonemesCommand::parse("tr 'a-z' A-Z").unwrap();
    assert_eq!(upper.phonemes("...so it is, isn't it? Yes!").unwrap(), "SO IT IS, ISN'T IT? YES!");
    assert_eq!(upper.phonemes("no marks\nat all").unwrap(), "NO MARKS AT ALL");
    // Fewer lines than stretches: the words are kept.
    let joined = PhonemesCommand::parse("tr '\\n' ' '").unwrap();
    assert_eq!(joined.phonemes("a, b.").unwrap(), "a b");
    let silent = PhonemesCommand::parse("true").unwrap().phonemes("a").unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::InvalidText);
    for bad in ["", "  ", "say 'it", "\"\""] {
        assert_eq!(PhonemesCommand::parse(bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    for bad in ["false", "no-such-program-here -x"] {
        let e = PhonemesCommand::parse(bad).unwrap().phonemes("a").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unreadable, "{e}");
    }
}

/// Speech tokens in every form that people keep them in.
#[test]
fn speech_tokens_are_read() {
    let dir = Dir::new("codes");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path(name), bytes).unwrap();
        codes::read(&dir.path(name))
    };
    assert_eq!(codes::read(&data("codes.pt")).unwrap(), [3, 1, 4, 1, 5]);
    assert_eq!(write("a.json", b"[[1, 2], [65535]]").unwrap(), [1, 2, 65_535]);
    assert_eq!(write("a.txt", b"1, 2\n 3").unwrap(), [1, 2, 3]);
    let npy = |descr: &str, body: &[u8]| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.bytes());
        out.extend(body);
        out
    };
    assert_eq!(write("a.npy", &npy("<i4", &[7, 0, 0, 0, 0, 1, 0, 0])).unwrap(), [7, 256]);
    assert_eq!(write("b.npy", &npy("<i8", &[9, 0, 0, 0, 0, 0, 0, 0])).unwrap(), [9]);
    assert_eq!(write("c.npy", &npy("|u1", &[9, 8])).unwrap(), [9, 8]);
    for (name, bytes) in [
        ("d.npy", npy("<f4", &[0; 8])),
        ("e.npy", npy("<i4", &[0; 7])),
        ("f.npy", b"\x93NUMPY\x01\x00\xff\xff".to_vec()),
        ("g.npy", b"nothing".to_vec()),
        ("b.json", b"{\"codes\": 1}".to_vec()),
        ("c.json", b"[1.5]".to_vec()),
        ("d.json", b"[-1]".to_vec()),
        ("e.json", b"[]".to_vec()),
        ("b.txt", b"one".to_vec()),
    ] {
        assert!(write(name, &bytes).is_err(), "{name}");
    }
    assert!(codes::read(&data("nested.pt")).is_err());
}

/// The vocabulary of a GGUF file cuts text as the model's own tokenizer.json does.
#[test]
fn a_tokenizer_comes_out_of_a_gguf() {
    let tiny = Tiny::new("llama", 1);
    let file = gguf::Gguf::read(&Map::from_vec(tiny.gguf(Dtype::Q8_0))).unwrap();
    let made = Bpe::read(&tokenizer::from_gguf(&file).unwrap(), "made").unwrap();
    let own = Bpe::read(tiny.tokenizer.to_string().as_bytes(), "own").unwrap();
    assert_eq!(made.ids(), own.ids());
    for text in ["the other thing", "a  b\n\nc", "ðə tɛst, 12345 oʊ!", "<|speech_3|>", ""] {
        assert_eq!(made.encode(text).unwrap(), own.encode(text).unwrap(), "{text:?}");
    }
    assert!(made.before().unwrap().is_empty());
}

/// The program: what it says, its exit codes, and a voice from import to sound.
#[cfg(feature = "cli")]
#[test]
fn the_program_imports_and_speaks() {
    use std::process::{Command, Output};
    let dir = Dir::new("program");
    let run = |args: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxgrain"));
        command.args(args).env_remove("VOXGRAIN_BUNDLE");
        command.output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Tiny::new("llama", 8).write(&dir.path("nano"));
    let path = |name: &str| dir.path(name).display().to_string();
    let (model, out, codec) =
        (path("nano"), path("bundle"), tiny::codec(&dir).display().to_string());

    let refused = run(&["import", &model, "-o", &out]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--codec"), "{}", text(&refused.stderr));
    assert!(!dir.path("bundle").exists());
    let missing = run(&["import", &path("nothing"), "-o", &out, "--codec", &codec]);
    assert_eq!(missing.status.code(), Some(3));

    let done = run(&["import", &model, "--codec", &codec, "-o", &out, "--bits", "4"]);
    let told = text(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{told}");
    for said in [
        "NeuTTS Nano",
        "280 ids: 16 speech from 262, end 259",
        "4 bits",
        "MB a token",
        "tokens a second",
        "groups",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let again = run(&["import", &model, "--codec", &codec, "-o", &out, "--force", "--json"]);
    let value: Json = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&value["bits"], &value["speech"]), (&json!(8), &json!(16)));

    std::fs::write(dir.path("jo.txt"), "the\n one ").unwrap();
    std::fs::write(dir.path("jo.json"), "[1, 2, 3]").unwrap();
    std::fs::write(dir.path("far.json"), "[16]").unwrap();
    let add = |codes: &str| {
        run(&[
            "voice",
            "add",
            "jo",
            &path(codes),
            &path("jo.txt"),
            "--bundle",
            &out,
            "--phonemes-command",
            "cat",
        ])
    };
    assert_eq!(add("far.json").status.code(), Some(2));
    let added = add("jo.json");
    assert_eq!(added.status.code(), Some(0), "{}", text(&added.stderr));
    assert_eq!(add("jo.json").status.code(), Some(2));
    assert_eq!(text(&run(&["voice", "list", "--bundle", &out]).stdout), "jo\n");

    let wav = path("out.wav");
    let say = ["say", "--bundle", &out, "--voice", "jo", "--seed", "3", "-o", &wav];
    let told = run(&[&say[..], &["Hello."]].concat());
    assert_eq!(told.status.code(), Some(4), "{}", text(&told.stderr));
    assert!(text(&told.stderr).contains("--phonemes-command"), "{}", text(&told.stderr));
    let spoken = run(&[&say[..], &["--phonemes", "hɛloʊ."]].concat());
    // A model of noise may not end by itself.
    assert!(matches!(spoken.status.code(), Some(0 | 8)), "{}", text(&spoken.stderr));
    let by_phonemes = std::fs::read(&wav).unwrap();
    assert!(by_phonemes.len() > 50 * 640, "{}", by_phonemes.len());
    let command =
        run(&[&say[..], &["--phonemes-command", "sed s/Hello/hɛloʊ/", "Hello."]].concat());
    assert!(matches!(command.status.code(), Some(0 | 8)), "{}", text(&command.stderr));
    assert!(std::fs::read(&wav).unwrap() == by_phonemes);
    let arm = run(&[&say[..], &["--arm", "transport", "--phonemes", "a"]].concat());
    assert!(text(&arm.stderr).contains("draft"), "{}", text(&arm.stderr));
}

/// A model of ours as a plain Llama folder comes back: integers and scales of the body bit for
/// bit, ids in their old order, logits alike. (The head is a sum of factors here and a row a
/// code there, so its own rounding differs.)
#[test]
fn our_own_model_comes_back() {
    let dir = Dir::new("own");
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let own = tiny::Own::read(&original.join("target.onnx"));
    let folder = dir.path("folder");
    own.as_llama().write(&folder);
    let mut options = Options::new(&folder, dir.path("again"));
    options.codec = Some(original.clone());
    options.no_groups = true;
    let report = import(&options, &mut |_, _, _| ()).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!((report.family.name.as_str(), report.family.speech), ("voxgrain", 65_536));
    assert_eq!(
        (report.family.first_speech, report.family.end),
        (own.others() - 1, own.others() + 65_535)
    );

    let again: std::collections::BTreeMap<_, _> = stored(&options.output).into_iter().collect();
    let mut compared = 0;
    for (name, bytes) in stored(&original) {
        if name.starts_with("layers.") || name.starts_with("final_norm") {
            assert!(again[&name] == bytes, "{name} differs");
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared}");

    // The same ids mean the same, so the same session can be had of both.
    let pool = Pool::new(kernel::best(), 1);
    let tokens: Vec<u32> = [65_537, 65_545, 65_550, 65_560, 65_538]
        .into_iter()
        .chain((0..40).map(|i| i * 1_601 % 65_536))
        .collect();
    let mut rows = [&original, &options.output].map(|bundle| {
        let model = Model::load(bundle.join("target.onnx"), 64).unwrap();
        let mut session = Session::new(&model, &pool).unwrap();
        session.step(&tokens, tokens.len()).unwrap();
        let width = session.vocabulary();
        session.logits().chunks_exact(width).map(<[f32]>::to_vec).collect::<Vec<_>>()
    });
    for row in rows.iter_mut().flatten() {
        let mean = row.iter().sum::<f32>() / row.len() as f32;
        row.iter_mut().for_each(|l| *l -= mean);
    }
    let apart = difference(&rows[1], &rows[0]);
    assert!(apart < 0.03, "{apart}");

    // Its prompts are those of the voice.
    let (a, b) = (Voice::open(&original).unwrap(), Voice::open(&options.output).unwrap());
    assert_eq!(a.prompt("good morning.").unwrap(), b.prompt("good morning.").unwrap());
}
