//! Voices that read phonemes: what they are written, at which tempo, and what they are refused
//! for. The voice is the tiny one with another description: its models are never run here.
#![cfg(feature = "engine")]

use prost::Message;
use std::path::{Path, PathBuf};

use tract_onnx::pb;
use voxgrain::decode::Arm;
use voxgrain::kernel;
use voxgrain::map::Map;
use voxgrain::speech::phonemes::{SYMBOLS, UserLexicon};
use voxgrain::speech::stream::Utterance;
use voxgrain::speech::text::TextFrontend;
use voxgrain::speech::voice::{OpenOptions, VoiceMemory};
use voxgrain::{Error, ErrorKind, Options, Voice};

const LEXICON: &str = "../lexicon/en-us.lexicon";

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// The tiny voice's description with these characters and a section for them.
fn description(characters: &str) -> String {
    let text = std::fs::read_to_string(models().join("tiny/bundle.toml")).unwrap();
    let old = text.lines().find(|l| l.starts_with("characters = ")).unwrap();
    let section = format!(
        "[text]\nfront_end = \"phonemes\"\nlexicon = \"{LEXICON}\"\ntempo_symbols = \"12345\"\n\
         tempos = [0.5, 0.8, 1.0, 1.25, 2.0]\n\n[[speakers]]"
    );
    text.replacen("format = 1", "format = 2", 1)
        .replacen(old, &format!("characters = {}", toml::Value::from(characters)), 1)
        .replacen("[[speakers]]", &section, 1)
}

fn all_characters() -> String {
    format!("{SYMBOLS}12345")
}

/// A model of the tiny voice whose table has rows for all these ids: its graph and its data.
fn with_rows(name: &str, ids: usize) -> [Vec<u8>; 2] {
    let read = |end: &str| std::fs::read(models().join(format!("tiny/{name}{end}"))).unwrap();
    let (mut proto, mut data) = (pb::ModelProto::decode(&read("")[..]).unwrap(), read(".data"));
    let graph = proto.graph.as_mut().unwrap();
    let embed = graph.node.iter().find(|n| n.op_type == "FactorEmbed").unwrap();
    let table = graph.initializer.iter_mut().find(|t| t.name == embed.input[2]).unwrap();
    let field = |t: &pb::TensorProto, key: &str| -> usize {
        t.external_data.iter().find(|e| e.key == key).unwrap().value.parse().unwrap()
    };
    let (at, len) = (field(table, "offset"), field(table, "length"));
    let rows = ids - kernel::CODES;
    let mut bytes = data[at..at + len].to_vec();
    bytes.resize(rows * len / table.dims[0] as usize, 0);
    table.dims[0] = rows as i64;
    data.resize(data.len().next_multiple_of(64), 0);
    for e in &mut table.external_data {
        match &*e.key {
            "offset" => e.value = data.len().to_string(),
            "length" => e.value = bytes.len().to_string(),
            _ => {}
        }
    }
    data.extend(bytes);
    [proto.encode_to_vec(), data]
}

/// With the lengths that the files have.
fn listed(text: &str, files: &[(String, Map)]) -> String {
    let (mut out, mut path) = (String::new(), "");
    for line in text.lines() {
        if let Some(p) = line.strip_prefix("path = \"") {
            path = p.trim_end_matches('"');
        }
        match files.iter().find(|f| f.0 == path) {
            Some((_, map)) if line.starts_with("bytes = ") => {
                out += &format!("bytes = {}\n", map.len())
            }
            _ => out += &format!("{line}\n"),
        }
    }
    out
}

/// What a voice in memory is made from, the lexicon under `lexicon`.
fn files(characters: &str, lexicon: &str) -> Vec<(String, Map)> {
    let map = models().join("lexicon/en-us.lexicon");
    let mut all = vec![(lexicon.to_owned(), Map::open(map).unwrap())];
    for f in std::fs::read_dir(models().join("tiny")).unwrap() {
        let path = f.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let own = name.starts_with("target") || name.starts_with("draft.");
        if name != "bundle.toml" && !own {
            all.push((name.into(), Map::open(&path).unwrap()));
        }
    }
    let ids = 65_540 + characters.chars().count();
    for name in ["target.onnx", "draft.onnx"] {
        let [graph, data] = with_rows(name, ids);
        all.push((name.into(), Map::copy_of(&graph, name)));
        all.push((format!("{name}.data"), Map::copy_of(&data, name)));
    }
    let text = listed(&description(characters), &all);
    all.push(("bundle.toml".into(), Map::copy_of(text.as_bytes(), "bundle.toml")));
    all
}

fn from_files(files: &[(String, Map)]) -> Result<Voice, Error> {
    let files: Vec<(&str, Map)> = files.iter().map(|(n, m)| (&n[..], m.clone())).collect();
    Voice::from_files(&files)
}

fn voice() -> Voice {
    from_files(&files(&all_characters(), LEXICON)).unwrap()
}

/// The same on disk: the folder of the bundle, with the lexicon beside it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let all = std::env::temp_dir().join(format!("voxgrain-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&all);
        std::fs::create_dir_all(all.join("voice")).unwrap();
        std::fs::create_dir_all(all.join("lexicon")).unwrap();
        let folder = Self(all);
        for (file, map) in files(&all_characters(), LEXICON) {
            std::fs::write(folder.voice().join(file), &map[..]).unwrap();
        }
        folder
    }
    fn voice(&self) -> PathBuf {
        self.0.join("voice")
    }
    fn lexicon(&self) -> PathBuf {
        self.0.join("lexicon/en-us.lexicon")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn written(voice: &Voice, text: &str, rate: f32) -> Vec<String> {
    let chunks = TextFrontend::default().speak(text).unwrap().chunks;
    chunks.iter().map(|c| voice.write(c, rate).unwrap()).collect()
}

#[test]
fn phonemes_are_written_behind_the_tempo() {
    let voice = voice();
    let table = [
        ("Hello, world!", "3həlˈO, wˈɜɹld!"),
        ("Is it so?", "3ɪz ɪt sˌO?"),
        // Letters written as one are one word, apart they are words of their own.
        ("The USB cable.", "3ðə jˌuˌɛsbˈi kˈAbᵊl."),
        ("U S B.", "3jˈu ˈɛs bˈi."),
        // The letter and the article.
        ("Vitamin A.", "3vˈITəmən ˈA."),
        ("A cat.", "3ɐ kˈæt."),
        // What the markup says, for one word and for two.
        ("<speak>My <phoneme alphabet=\"ipa\" ph=\"ɡɪf\">gif</phoneme>.</speak>", "3mI ɡɪf."),
        (
            "<speak>In <phoneme alphabet=\"ipa\" ph=\"nuˈjɔɹk\">New York</phoneme>, yes.</speak>",
            "3ɪn nujˈɔɹk, jˈɛs.",
        ),
    ];
    for (text, want) in table {
        assert_eq!(written(&voice, text, 1.0), [want], "{text}");
    }
    // A part of a sentence is written as a sentence: it does not end in a comma.
    let long = "This is the first part of a sentence, ".repeat(12);
    let parts = written(&voice, &long, 1.0);
    assert!(parts.len() > 1 && parts.iter().all(|p| p.ends_with('.')), "{parts:?}");

    // A voice of letters is given the chunk as it is.
    let letters = Voice::open(models().join("tiny")).unwrap();
    assert!(letters.phonemizer().is_none() && voice.phonemizer().is_some());
    let text = "The USB cable.";
    let chunk = &TextFrontend::default().speak(text).unwrap().chunks[0];
    assert_eq!(letters.write(chunk, 1.0).unwrap(), chunk.text);
    assert_eq!(letters.utterance(chunk, 1.0).unwrap().text, chunk.text);
    let utterance: Utterance = voice.utterance(chunk, 1.0).unwrap();
    assert_eq!((utterance.pause_after, utterance.source), (chunk.pause_after, 0..text.len()));
    assert!(chunk.pause_after > 0.0);
}

#[test]
fn a_prompt_is_speaker_tempo_phonemes_start() {
    let voice = voice().with_speaker("second").unwrap();
    let written = &written(&voice, "No.", 1.0)[0];
    assert_eq!(written, "3nˈO.");
    let prompt = voice.prompt(written).unwrap();
    let v = &voice.bundle().vocabulary;
    let ids: Vec<u32> = written.chars().map(|c| v.character(c).unwrap()).collect();
    assert_eq!(prompt[..1], [voice.speaker().begin]);
    assert_eq!(prompt[1..prompt.len() - 1], ids);
    assert_eq!(prompt.last(), Some(&v.start_of_speech));
    assert_eq!(ids[0], v.first_character + SYMBOLS.chars().count() as u32 + 2);
}

#[test]
fn the_tempo_is_the_nearest() {
    let voice = voice();
    let first = |text: &str, rate| written(&voice, text, rate)[0].chars().next().unwrap();
    // Twice as fast is as far from 1 as half as fast: the borders are geometric means.
    for (rate, want) in [
        (0.5, '1'),
        (0.63, '1'),
        (0.64, '2'),
        (0.89, '2'),
        (0.90, '3'),
        (1.0, '3'),
        (1.11, '3'),
        (1.12, '4'),
        (1.58, '4'),
        (1.59, '5'),
        (2.0, '5'),
    ] {
        assert_eq!(first("No.", rate), want, "{rate}");
    }
    // What the markup asks for comes on top, and may lie beyond what the voice can.
    let fast = |percent: &str| format!("<speak><prosody rate=\"{percent}\">No.</prosody></speak>");
    for (percent, rate, want) in
        [("150%", 1.0, '4'), ("150%", 0.6, '3'), ("50%", 1.0, '1'), ("200%", 2.0, '5')]
    {
        assert_eq!(first(&fast(percent), rate), want, "{percent} of {rate}");
    }

    assert_eq!(voice.rates(), (0.5, 2.0));
    for rate in [0.5, 1.0, 1.03, 2.0] {
        voice.check_rate(rate).unwrap();
    }
    let letters = Voice::open(models().join("tiny")).unwrap();
    assert_eq!(letters.rates(), (1.0, 1.0));
    letters.check_rate(1.0).unwrap();
    for (voice, rate) in
        [(&voice, 0.49), (&voice, 2.01), (&voice, f32::NAN), (&letters, 1.01), (&letters, 0.0)]
    {
        let e = voice.check_rate(rate).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        let (low, high) = voice.rates();
        let named = if low == high { "one tempo".into() } else { format!("{low} to {high}") };
        assert!(e.to_string().contains(&named), "{e}");
        let mut options = Options::for_voice(voice);
        options.rate = rate;
        assert_eq!(options.memory(voice).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn the_lexicon_is_found_or_missed() {
    // By its whole path and by the last part of it.
    for name in [LEXICON, "en-us.lexicon"] {
        let voice = from_files(&files(&all_characters(), name)).unwrap();
        assert!(voice.phonemizer().unwrap().entries() > 10_000);
    }
    let e = from_files(&files(&all_characters(), "de.lexicon")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unreadable);
    assert!(e.to_string().contains(LEXICON), "{e}");

    let folder = Folder::new("lexicon");
    Voice::open(folder.voice()).unwrap();
    let sound = std::fs::read(folder.lexicon()).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 0x10;
    for damaged in [&sound[..sound.len() / 2], &sound[..10], &flipped, b"no lexicon at all"] {
        std::fs::write(folder.lexicon(), damaged).unwrap();
        let e = Voice::open(folder.voice()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{} bytes: {e}", damaged.len());
        assert!(format!("{e:#}").contains("lexicon"), "{e:#}");
    }
    std::fs::remove_file(folder.lexicon()).unwrap();
    let e = Voice::open(folder.voice()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unreadable);
    assert!(e.to_string().contains("en-us.lexicon"), "{e}");
}

#[test]
fn every_phoneme_needs_a_character() {
    for missing in SYMBOLS.chars().filter(|&c| c != ' ') {
        let without: String = all_characters().chars().filter(|&c| c != missing).collect();
        let e = from_files(&files(&without, LEXICON)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Mismatch, "{missing:?}: {e}");
        assert!(e.to_string().contains(&format!("{missing:?}")), "{missing:?}: {e}");
    }
}

#[test]
fn the_lexicon_counts_as_memory() {
    let folder = Folder::new("memory");
    let bytes = std::fs::metadata(folder.lexicon()).unwrap().len();
    let mut options = OpenOptions::default();
    for copy in [false, true] {
        (options.copy, options.max_memory) = (copy, None);
        let voice = Voice::open_with(folder.voice(), &options).unwrap();
        let with = voice.memory();
        // Nothing is where the description says that the group index is.
        let listed = voice.bundle().files.iter().map(|f| (&f.path[..], f.bytes, !copy));
        assert_eq!(with.total(), VoiceMemory::of_files(listed).total() + bytes, "copied: {copy}");
        assert_eq!(with.mapped == 0, copy);
        for (budget, enough) in [(with.total(), true), (with.total() - 1, false)] {
            options.max_memory = Some(budget);
            match Voice::open_with(folder.voice(), &options) {
                Ok(_) => assert!(enough),
                Err(e) => assert!(!enough && e.kind() == ErrorKind::Memory, "{e}"),
            }
        }
    }
    let held = files(&all_characters(), LEXICON);
    let without = from_files(&held).unwrap().memory();
    assert!(without.mapped > bytes);
}

#[test]
fn a_bundle_without_its_index_speaks_by_token() {
    let folder = Folder::new("indexless");
    let voice = Voice::open(folder.voice()).unwrap();
    assert!(voice.bundle().groups_path().is_some() && voice.groups().is_none());
    assert_eq!(Options::for_voice(&voice).decode.arm, Arm::Sd);
}

/// The tiny bundle with another description, from memory.
fn described(from: &str, to: &str) -> Result<Voice, Error> {
    let text = std::fs::read_to_string(models().join("tiny/bundle.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    open_as(&text.replacen(from, to, 1))
}

fn open_as(description: &str) -> Result<Voice, Error> {
    let mut all = vec![("bundle.toml".into(), Map::copy_of(description.as_bytes(), "bundle.toml"))];
    for f in std::fs::read_dir(models().join("tiny")).unwrap() {
        let path = f.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name != "bundle.toml" {
            all.push((name.to_owned(), Map::open(&path).unwrap()));
        }
    }
    from_files(&all)
}

#[test]
fn a_description_that_contradicts_its_graphs_is_refused() {
    described("layers = 2", "layers = 2").unwrap();
    // (what to replace, by what, what the message must name: the graph's value and the other)
    let table: &[(&str, &str, &[&str])] = &[
        ("layers = 2", "layers = 3", &["target.onnx", "attention layers 2", "3 by target.layers"]),
        ("\nheads = 2", "\nheads = 4", &["heads 2", "4 by target.heads"]),
        ("kv_heads = 1", "kv_heads = 2", &["key heads 1", "2 by target.kv_heads"]),
        ("head_dim = 32", "head_dim = 64", &["a head 32", "64 by target.head_dim"]),
        ("hidden = 64", "hidden = 128", &["width 64", "128 by target.hidden"]),
        ("ffn = 96", "ffn = 64", &["columns 96", "64 by target.ffn"]),
        ("rope_base = 10000.0", "rope_base = 500000.0", &["10000", "500000 by target.rope_base"]),
        ("bits = 8", "qk_norm = true\nbits = 8", &["false", "true by target.qk_norm"]),
        ("features = 64", "features = 32", &["draft.onnx", "features 64", "32 by draft.features"]),
        ("features = 64", "", &["features 64", "0 by draft.features"]),
        ("fft_size = 640", "fft_size = 800", &["codec.onnx", "642", "802 by audio.fft_size"]),
        ("hop = 160", "hop = 80", &["rows of output a token 2", "hop 80", "4 by"]),
        ("sample_rate_hz = 16000", "sample_rate_hz = 24000", &["token 2", "3 by", "24000"]),
        ("frame_rate_hz = 50", "frame_rate_hz = 25", &["token 2", "4 by", "frame_rate_hz 25"]),
        ("characters = \"", "characters = \"ABC", &["embedding 65572", "65575 by"]),
        ("fsq_digits = 8\nfsq_levels = 4", "", &[]),
    ];
    for (from, to, says) in table {
        match described(from, to) {
            Ok(_) => assert!(says.is_empty(), "{from} -> {to} was taken"),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Mismatch, "{from} -> {to}: {e}");
                let said = e.to_string();
                assert!(!says.is_empty(), "{from} -> {to}: {said}");
                assert!(says.iter().all(|s| said.contains(s)), "{from} -> {to}: {said}");
            }
        }
    }
    // Fewer speech tokens, and ids of a tokenizer: the head and the table have their own number.
    let text = std::fs::read_to_string(models().join("tiny/bundle.toml")).unwrap();
    let (from, to) = (text.find("speech = 65536").unwrap(), text.find("[[speakers]]").unwrap());
    let ids = |ids: &str| {
        let (from, to) = (&text[..from], text[to..].find("[target]").unwrap() + to);
        open_as(&format!("{from}{ids}\n{}", &text[to..]).replacen("format = 1", "format = 2", 1))
    };
    let own = "size = 65572\nfirst_speech_id = 36\nend_id = 35";
    ids(&format!("speech = 65536\nend_of_speech = 65536\n{own}")).unwrap();
    for (section, says) in [
        (
            "speech = 4096\nend_of_speech = 4096\nsize = 65572\nfirst_speech_id = 0\nend_id = 4096",
            "65537",
        ),
        (
            "speech = 65536\nend_of_speech = 65536\nsize = 65573\nfirst_speech_id = 0\nend_id = 65536",
            "65573 by vocabulary.size",
        ),
        (
            "speech = 65536\nend_of_speech = 65536\nsize = 65571\nfirst_speech_id = 0\nend_id = 65536",
            "65571 by vocabulary.size",
        ),
    ] {
        let e = ids(section).unwrap_err();
        assert!(e.kind() == ErrorKind::Mismatch && e.to_string().contains(says), "{section}: {e}");
    }
}

#[test]
fn a_voice_without_a_draft_decodes_plainly() {
    let text = std::fs::read_to_string(models().join("tiny/bundle.toml")).unwrap();
    let (from, to) = (text.find("[draft]").unwrap(), text.find("[codec]").unwrap());
    let plain = open_as(&format!("{}{}", &text[..from], &text[to..])).unwrap();
    assert!(plain.draft().is_none());
    let whole = Voice::open(models().join("tiny")).unwrap();
    let options = Options::for_voice(&plain);
    assert_eq!(options.decode.arm, Arm::Ar);
    let mut of_whole = Options::for_voice(&whole);
    of_whole.decode = whole.options(Arm::Ar);
    let spoken = |voice: &Voice, options: &Options| {
        let mut stream = voxgrain::Stream::new(voice, options).unwrap();
        let mut pcm = Vec::new();
        stream.feed("A quiet noise.").unwrap();
        stream.flush().unwrap();
        while let Some(part) = stream.next_pcm().unwrap() {
            pcm.extend_from_slice(part);
        }
        pcm
    };
    let own = spoken(&plain, &options);
    assert!(!own.is_empty() && own == spoken(&whole, &of_whole));
    // What is needed for the caches of a draft is not counted.
    let memory = |voice: &Voice, o: &Options| o.memory(voice).unwrap();
    assert_eq!(memory(&plain, &options).state, memory(&whole, &of_whole).state);
    let mut sd = options;
    sd.decode.arm = Arm::Sd;
    let e = voxgrain::Stream::new(&plain, &sd).map(|_| ()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("draft-features"), "{e}");
}

#[test]
fn a_users_words_win() {
    let plain = voice();
    let list = |text: &str| UserLexicon::parse(text, "mine").unwrap();
    let said = |voice: &Voice| written(voice, "Start nginx.", 1.0)[0].clone();
    let before = said(&plain);
    let first = plain.clone().with_lexicon(&list("nginx\tengine x\n")).unwrap();
    assert_eq!(said(&first), "3stˈɑɹt ˈɛnʤən ˈɛks.");
    let second = first.clone().with_lexicon(&list("# later\nnginx\t/nʤˈɪŋks/\n")).unwrap();
    assert_eq!(said(&second), "3stˈɑɹt nʤˈɪŋks.");
    // The voices that they came from say what they said.
    assert_eq!(said(&plain), before);
    assert_eq!(said(&first), "3stˈɑɹt ˈɛnʤən ˈɛks.");

    let letters = Voice::open(models().join("tiny")).unwrap();
    let e = letters.with_lexicon(&list("nginx\tengine x")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("letters"), "{e}");
}

/// Phonemes may be more than the letters that the front end counts: they are spoken in parts.
#[test]
fn what_a_context_does_not_hold_is_spoken_in_parts() {
    let voice = voice();
    let text = "The birch canoe slid on the smooth planks of the lake, and so it went.";
    let chunk = &TextFrontend::default().speak(text).unwrap().chunks[0];
    let whole = voice.utterances(chunk, 1.0, 512).unwrap();
    assert_eq!(whole, [voice.utterance(chunk, 1.0).unwrap()]);
    let parts = voice.utterances(chunk, 1.0, 48).unwrap();
    assert!(parts.len() > 1);
    for (i, part) in parts.iter().enumerate() {
        // Two marks around it, and room for some speech.
        assert!(part.text.chars().count() + 2 + 16 <= 48, "{part:?}");
        assert!(part.text.starts_with('3') && part.text.ends_with('.'), "{part:?}");
        let last = i + 1 == parts.len();
        assert_eq!(part.pause_after, if last { chunk.pause_after } else { 0.0 });
    }
    let e = voice.utterances(chunk, 1.0, 20).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidText, "{e}");
}
