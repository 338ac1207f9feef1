//! Models that are damaged, or made to do harm: refused before tract works on them, or when a
//! voice is opened, with an error that says which file it is.
#![cfg(feature = "engine")]

use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use tract_onnx::pb;
use voxgrain::engine::{Model, Pool, Session};
use voxgrain::map::Map;
use voxgrain::{Error, ErrorKind, Options, Stream, Synthesizer, Voice, kernel};

fn models() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// A model file with its data, to be changed.
#[derive(Clone)]
struct File {
    name: &'static str,
    proto: pb::ModelProto,
    data: Vec<u8>,
}

const F32: i32 = 1;

impl File {
    fn tiny(name: &'static str) -> Self {
        let read = |end: &str| std::fs::read(models().join(format!("tiny/{name}{end}"))).unwrap();
        Self { name, proto: pb::ModelProto::decode(&read("")[..]).unwrap(), data: read(".data") }
    }

    fn graph(&mut self) -> &mut pb::GraphProto {
        self.proto.graph.as_mut().unwrap()
    }

    fn node(&mut self, op_type: &str) -> &mut pb::NodeProto {
        self.graph().node.iter_mut().find(|n| n.op_type == op_type).unwrap()
    }

    /// Another node behind all others, of the standard set.
    fn push(&mut self, op_type: &str, inputs: &[&str], output: &str) -> &mut pb::NodeProto {
        self.graph().node.push(pb::NodeProto {
            name: format!("new {output}"),
            op_type: op_type.into(),
            input: inputs.iter().map(|&i| i.into()).collect(),
            output: vec![output.into()],
            ..Default::default()
        });
        self.graph().node.last_mut().unwrap()
    }

    /// A constant in the graph, zeros.
    fn constant(&mut self, name: &str, dims: &[i64]) {
        let elements = dims.iter().product::<i64>() as usize;
        self.graph().initializer.push(pb::TensorProto {
            name: name.into(),
            data_type: F32,
            dims: dims.to_vec(),
            raw_data: vec![0; 4 * elements],
            ..Default::default()
        });
    }

    /// What the graph gives first comes from `from` instead, behind what `tail` adds.
    fn behind_logits(&mut self, tail: impl Fn(&mut Self)) {
        let first = self.graph().output[0].name.clone();
        let maker = self.graph().node.iter_mut().find(|n| n.output[0] == first).unwrap();
        maker.output[0] = "before".into();
        tail(self);
        let last = self.graph().node.last_mut().unwrap();
        last.output[0] = first;
    }

    fn load(&self) -> Result<std::sync::Arc<Model>, Error> {
        let graph = Map::from_vec(self.proto.encode_to_vec());
        Model::from_maps(self.name, &graph, Map::from_vec(self.data.clone()), 64)
    }
}

/// A value that somebody makes, of one row a token.
fn some_value(f: &mut File) -> String {
    f.node("RmsNorm").output[0].clone()
}

fn refused(what: &str, file: &File, kind: ErrorKind, words: &str) {
    let e = match file.load() {
        Ok(_) => panic!("{what}: accepted"),
        Err(e) => e,
    };
    assert_eq!(e.kind(), kind, "{what}: {e:#}");
    let text = format!("{e:#}");
    assert!(text.contains(words) && text.contains(file.name), "{what}: {text}");
    assert!(text.len() < 1000, "{what}: {text}");
}

type Damage = fn(&mut File);

#[test]
fn what_a_graph_says_must_be_made_once_and_in_order() {
    let table: &[(&str, &str, Damage)] = &[
        ("an output that nobody makes", "is not made", |f| {
            f.graph().output[0].name = "nowhere".into();
        }),
        ("an output that is an input", "no row for each token", |f| {
            f.graph().output[0].name = "tokens".into();
        }),
        ("a value that nobody makes", "unknown values", |f| {
            f.node("SwiGlu").input[0] = "nothing".into();
        }),
        ("a value made twice", "made twice", |f| {
            let taken = f.node("RmsNorm").output[0].clone();
            f.node("SwiGlu").output[0] = taken;
        }),
        ("a node name used twice", "used twice", |f| {
            let taken = f.node("RmsNorm").name.clone();
            f.node("SwiGlu").name = taken;
        }),
        ("a circle", "circle", |f| {
            let value = f.node("SwiGlu").output[0].clone();
            f.push("Add", &["round", &value], "turn");
            f.push("Add", &["turn", &value], "round");
        }),
        ("a node of itself", "circle", |f| {
            f.push("Exp", &["self"], "self");
        }),
        ("a node without an output", "not one output", |f| {
            f.push("Exp", &["tokens"], "x").output.clear();
        }),
        ("the same input twice", "features at most", |f| {
            let tokens = f.graph().input[0].clone();
            f.graph().input[0].name = "tokens".into();
            f.graph().input.insert(1, tokens);
        }),
    ];
    for (what, words, damage) in table {
        let mut file = File::tiny("target.onnx");
        damage(&mut file);
        refused(what, &file, ErrorKind::Malformed, words);
    }
    File::tiny("target.onnx").load().unwrap();
}

#[test]
fn a_graph_is_bounded_by_its_file() {
    let table: &[(&str, ErrorKind, &str, Damage)] = &[
        ("very many nodes", ErrorKind::Malformed, "more nodes", |f| {
            for i in 0..9000 {
                f.push("Exp", &["x"], &format!("v{i}"));
            }
        }),
        ("a long chain", ErrorKind::Malformed, "standard operators", |f| {
            let mut last = some_value(f);
            for i in 0..2000 {
                let next = format!("v{i}");
                f.push("Exp", &[&last], &next);
                last = next;
            }
        }),
        ("a constant without its bytes", ErrorKind::Malformed, "bytes disagree", |f| {
            f.constant("c", &[1]);
            f.graph().initializer.last_mut().unwrap().dims = vec![1 << 40];
        }),
        ("a constant of no size", ErrorKind::Malformed, "too large", |f| {
            f.constant("c", &[1]);
            f.graph().initializer.last_mut().unwrap().dims = vec![i64::MAX, i64::MAX];
        }),
        ("a negative dimension", ErrorKind::Malformed, "negative", |f| {
            f.constant("c", &[1]);
            f.graph().initializer.last_mut().unwrap().dims = vec![-1];
        }),
        ("many dimensions", ErrorKind::Malformed, "dimensions", |f| {
            f.constant("c", &[1; 9]);
        }),
        ("constants that multiply", ErrorKind::Malformed, "larger than the file", |f| {
            f.constant("column", &[4096, 1]);
            f.constant("row", &[1, 4096]);
            f.push("Add", &["column", "row"], "square");
        }),
        ("a wide result", ErrorKind::Malformed, "larger than the file", |f| {
            let mut sum = some_value(f);
            f.constant("w", &[64, 20_000]);
            f.push("MatMul", &[&sum, "w"], "wide");
            sum = "wide".into();
            for i in 0..800 {
                let next = format!("v{i}");
                f.push("Exp", &[&sum], &next);
                sum = next;
            }
        }),
        ("copies of the same bytes", ErrorKind::Malformed, "more weights than the file", |f| {
            let entry = |key: &str, value: &str| pb::StringStringEntryProto {
                key: key.into(),
                value: value.into(),
            };
            for i in 0..60 {
                let t = pb::TensorProto {
                    name: format!("c{i}"),
                    data_type: F32,
                    dims: vec![40_000],
                    data_location: Some(1),
                    external_data: vec![
                        entry("location", "target.onnx.data"),
                        entry("offset", "0"),
                        entry("length", "160000"),
                    ],
                    ..Default::default()
                };
                f.graph().initializer.push(t);
                let name = format!("c{i}");
                f.push("Exp", &[&name], &format!("e{i}"));
            }
        }),
        ("a graph of many bytes", ErrorKind::Malformed, "8 MiB", |f| {
            f.proto.doc_string = " ".repeat(9 << 20);
        }),
        ("a graph in an attribute", ErrorKind::Malformed, "attribute", |f| {
            let value = some_value(f);
            f.push("Exp", &[&value], "e").attribute.push(pb::AttributeProto {
                name: "body".into(),
                g: Some(pb::GraphProto::default()),
                ..Default::default()
            });
        }),
    ];
    for (what, kind, words, damage) in table {
        let mut file = File::tiny("target.onnx");
        damage(&mut file);
        refused(what, &file, *kind, words);
    }
    // What makes values of any size is not known here, whatever it would make.
    for op_type in [
        "ConstantOfShape",
        "Expand",
        "Tile",
        "Range",
        "Pad",
        "Resize",
        "OneHot",
        "EyeLike",
        "If",
        "Loop",
        "Scan",
        "RandomNormal",
        "Gather",
        "Reshape",
        "Slice",
        "ReduceMax",
        "Conv",
    ] {
        let mut file = File::tiny("target.onnx");
        let value = some_value(&mut file);
        file.push(op_type, &[&value], "x");
        refused(op_type, &file, ErrorKind::Unsupported, op_type);
    }
}

/// As deep as a graph may be, on the small stack of a test's thread.
#[test]
fn a_chain_of_as_many_operators_as_may_be_is_loaded_and_run() {
    let mut file = File::tiny("target.onnx");
    let made = file.node("FactorEmbed").output[0].clone();
    let mut last = "chain".to_owned();
    for node in &mut file.graph().node {
        node.input.iter_mut().filter(|v| **v == made).for_each(|v| v.clone_from(&last));
    }
    for i in 0..4000 {
        let from = if i == 3999 { made.clone() } else { format!("link {i}") };
        file.push("Gelu", &[&from], &last).domain = "ai.voxgrain".into();
        last = from;
    }
    let model = file.load().unwrap();
    let mut s = Session::new(&model, &Pool::new(kernel::best(), 1)).unwrap();
    s.step(&[65537, 1], 1).unwrap();
    assert!(s.logits().iter().all(|x| x.is_finite()));
}

/// A session asks for the logits of the rows that it fed: no others come.
#[test]
fn outputs_have_a_row_for_each_token() {
    let mut fewer = File::tiny("target.onnx");
    fewer.behind_logits(|f| {
        f.push("ReduceMax", &["before"], "after");
    });
    refused("fewer rows", &fewer, ErrorKind::Unsupported, "ReduceMax");
    let mut none = File::tiny("target.onnx");
    none.behind_logits(|f| {
        f.constant("c", &[1, 65_537]);
        f.push("Exp", &["c"], "after");
    });
    refused("a constant", &none, ErrorKind::Malformed, "no row for each token");
    // More rows are a codec's, and no language model's.
    let codec = File::tiny("codec.onnx").load().unwrap();
    assert_eq!(codec.rows_per_token(), 2);
    let e = Session::new(&codec, &Pool::new(kernel::best(), 1)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Mismatch, "{e}");
    assert_eq!(File::tiny("target.onnx").load().unwrap().rows_per_token(), 1);
}

/// What may stand between our operators works on.
#[test]
fn operators_that_keep_rows_are_let_through() {
    let tokens = [65537, 1, 2, 3];
    let logits = |file: &File| {
        let mut s = Session::new(&file.load().unwrap(), &Pool::new(kernel::best(), 1)).unwrap();
        s.step(&tokens, 2).unwrap();
        s.logits().to_vec()
    };
    let want = logits(&File::tiny("target.onnx"));
    let table: &[(&str, Damage)] = &[
        ("Identity", |f| {
            f.push("Identity", &["before"], "after");
        }),
        ("Add", |f| {
            f.constant("c", &[1]);
            f.push("Add", &["before", "c"], "after");
        }),
        ("Sub of columns", |f| {
            f.constant("c", &[65_537]);
            f.push("Sub", &["before", "c"], "after");
        }),
        ("Neg twice", |f| {
            f.push("Neg", &["before"], "n");
            f.push("Neg", &["n"], "after");
        }),
        ("a constant node", |f| {
            let t = pb::TensorProto {
                data_type: F32,
                dims: vec![1],
                float_data: vec![0.0],
                ..Default::default()
            };
            f.push("Constant", &[], "c").attribute.push(pb::AttributeProto {
                name: "value".into(),
                r#type: 4,
                t: Some(t),
                ..Default::default()
            });
            f.push("Add", &["before", "c"], "after");
        }),
    ];
    for (what, tail) in table {
        let mut file = File::tiny("target.onnx");
        file.behind_logits(tail);
        assert!(logits(&file) == want, "{what}");
    }
}

/// The files of the tiny bundle with their names.
type Files = BTreeMap<String, Vec<u8>>;

fn files() -> Files {
    let dir = std::fs::read_dir(models().join("tiny")).unwrap();
    dir.map(|f| {
        let path = f.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
    })
    .collect()
}

fn put(files: &mut Files, file: &File) {
    files.insert(file.name.into(), file.proto.encode_to_vec());
    files.insert(format!("{}.data", file.name), file.data.clone());
}

/// Opens them, the listed lengths made right.
fn open(files: &Files) -> Result<Voice, Error> {
    let text = String::from_utf8(files["bundle.toml"].clone()).unwrap();
    let (mut out, mut path) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(p) = line.strip_prefix("path = \"") {
            path = p.trim_end_matches('"').into();
        }
        match files.get(&path) {
            Some(bytes) if line.starts_with("bytes = ") => {
                out += &format!("bytes = {}\n", bytes.len())
            }
            _ => out += &format!("{line}\n"),
        }
    }
    let mut all: Vec<(&str, Map)> =
        files.iter().map(|(n, b)| (&n[..], Map::copy_of(b, n))).collect();
    all.retain(|f| f.0 != "bundle.toml");
    all.push(("bundle.toml", Map::copy_of(out.as_bytes(), "bundle.toml")));
    Voice::from_files(&all)
}

fn edited(edit: impl Fn(String) -> String) -> Result<Voice, Error> {
    let mut files = files();
    let text = String::from_utf8(files["bundle.toml"].clone()).unwrap();
    let new = edit(text.clone());
    assert_ne!(new, text, "nothing was edited");
    files.insert("bundle.toml".into(), new.into_bytes());
    open(&files)
}

#[test]
fn what_description_and_graphs_both_say_is_compared() {
    open(&files()).unwrap();
    // In the section of the target, of the draft (whose values come second), or anywhere.
    let table: &[(&str, &str, usize, &str)] = &[
        ("layers = 2", "layers = 256", 0, "layers"),
        ("layers = 1", "layers = 2", 0, "layers"),
        ("kv_heads = 1", "kv_heads = 2", 0, "kv_heads"),
        ("kv_heads = 2", "kv_heads = 1", 0, "kv_heads"),
        ("hidden = 64\nheads = 2", "hidden = 96\nheads = 3", 0, "hidden"),
        ("ffn = 96", "ffn = 97", 0, "ffn"),
        ("ffn = 64", "ffn = 1", 0, "ffn"),
        ("rope_base = 10000.0", "rope_base = 500000.0", 0, "rope_base"),
        ("features = 64", "features = 65", 0, "features"),
        ("features = 64", "features = 0", 0, "features"),
        ("hop = 160", "hop = 64", 0, "hop"),
        ("hop = 160", "hop = 1", 0, "hop"),
        ("frame_rate_hz = 50", "frame_rate_hz = 1", 0, "frame_rate_hz"),
        ("frame_rate_hz = 50", "frame_rate_hz = 2", 0, "frame_rate_hz"),
        ("fft_size = 640", "fft_size = 1280", 0, "fft_size"),
        ("first_character = 65540", "first_character = 65541", 0, "ids"),
        ("abcdef", "abcdefABCDEF", 0, "ids"),
        ("max_positions = 512", "max_positions = 3", 0, "max_positions"),
        ("max_positions = 512", "max_positions = 3", 1, "max_positions"),
        ("max_positions = 512", "max_positions = 1048576", 0, "max_positions"),
        (
            "codec.onnx\"\nlatency_samples = 240\nbits = 8",
            "codec.onnx\"\nlatency_samples = 240\nbits = 0",
            0,
            "bits",
        ),
        ("name = \"tiny\"", "name = \"\\u001b[2J\"", 0, "name"),
        ("licence = \"", "licence = \"\\u0007", 0, "licence"),
        ("attribution = \"", "attribution = \"\\u009b", 0, "attribution"),
    ];
    for &(from, to, which, words) in table {
        let new = |text: String| {
            let at = text.match_indices(from).nth(which).unwrap().0;
            format!("{}{to}{}", &text[..at], &text[at + from.len()..])
        };
        let e = match edited(new) {
            Ok(_) => panic!("{to}: accepted"),
            Err(e) => e,
        };
        let kinds = [ErrorKind::Mismatch, ErrorKind::Malformed];
        assert!(kinds.contains(&e.kind()), "{to}: {e:#}");
        let text = format!("{e:#}");
        assert!(text.contains(words) && text.len() < 600, "{to}: {text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{to}: {text:?}");
    }
}

#[test]
fn a_vocabulary_of_any_length_is_refused_at_once() {
    let many: String = (0..260_000u32).filter_map(|i| char::from_u32(0x1_0000 + i)).collect();
    let e = edited(|t| t.replace("abcdef", &many)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
    assert!(e.to_string().len() < 600, "{} bytes of message", e.to_string().len());
}

#[test]
fn weights_that_are_not_listed_are_refused() {
    for name in ["codec.onnx.data", "target.onnx.data", "draft.onnx.data"] {
        let e = edited(|text| {
            let at = text.find(&format!("[[files]]\npath = \"{name}\"")).unwrap();
            let end = text[at + 1..].find("\n[").map_or(text.len(), |n| at + 1 + n);
            format!("{}{}", &text[..at], &text[end..])
        })
        .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
        assert!(e.to_string().contains(name), "{e}");
    }
}

/// A draft is fed its own hidden state while it drafts: as wide as what it reads.
#[test]
fn a_draft_gives_what_it_reads() {
    let mut draft = File::tiny("draft.onnx");
    let other = draft.node("Attention").input[0].clone();
    for node in &mut draft.graph().node {
        for value in node.input.iter_mut().chain(&mut node.output) {
            if *value == "hidden" {
                *value = "narrow".into();
            } else if *value == other {
                *value = "hidden".into();
            }
        }
    }
    let model = draft.load().unwrap();
    assert_ne!(model.hidden_width(), model.feature_width());
    let mut all = files();
    put(&mut all, &draft);
    let e = open(&all).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Mismatch, "{e:#}");
    assert!(e.to_string().contains("hidden"), "{e:#}");
}

/// Weights that are not numbers make no silence.
#[test]
fn a_codec_that_gives_no_numbers_is_an_error() {
    let mut codec = File::tiny("codec.onnx");
    let bias = codec.node("FsqEmbed").input[2].clone();
    let tensor = codec.graph().initializer.iter().find(|t| t.name == bias).unwrap();
    let at = tensor.external_data.iter().find(|e| e.key == "offset").unwrap();
    let at: usize = at.value.parse().unwrap();
    codec.data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut all = files();
    put(&mut all, &codec);
    let voice = open(&all).unwrap();
    let options = Options::for_voice(&voice);
    let mut s = Synthesizer::new(&voice, options.decode, &options.pool()).unwrap();
    let e = s.speak("good morning.").unwrap().find_map(Result::err).unwrap();
    assert_eq!(e.kind(), ErrorKind::Numeric);
}

/// Colder than numbers can divide by is as cold as it gets.
#[test]
fn any_temperature_of_the_range_speaks() {
    let voice = open(&files()).unwrap();
    let spoken = |temperature: f32| {
        let mut options = Options::for_voice(&voice);
        options.decode.sampling.temperature = temperature;
        let mut stream = Stream::new(&voice, &options).unwrap();
        stream.feed("a boat.").unwrap();
        stream.flush().unwrap();
        let mut all = Vec::new();
        while let Some(pcm) = stream.next_pcm().unwrap() {
            all.extend_from_slice(pcm);
        }
        all
    };
    let greedy = spoken(0.0);
    for temperature in [1e-10, 1e-38, f32::MIN_POSITIVE, 1e-45] {
        assert!(spoken(temperature) == greedy, "{temperature}");
    }
    for temperature in [1e-6, 1e-3, 99.9, 100.0] {
        assert!(!spoken(temperature).is_empty(), "{temperature}");
    }
}
