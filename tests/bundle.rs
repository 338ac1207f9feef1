//! Bundle descriptions: what is accepted, what is refused, and what the refusal says.
#![cfg(feature = "std")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use voxgrain::ErrorKind;
use voxgrain::bundle::{Bundle, FrontEnd};
use voxgrain::core::dist::SamplingTransforms;
use voxgrain::decode::{MAX_GAMMA, Sampling};

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

const FILES: [&str; 6] = [
    "target.onnx",
    "target.onnx.data",
    "draft.onnx",
    "draft.onnx.data",
    "codec.onnx",
    "codec.onnx.data",
];

fn sound() -> String {
    let model = |name: &str, hidden, heads| {
        format!(
            "[{name}]\nfile = \"{name}.onnx\"\nlayers = 2\nhidden = {hidden}\nheads = {heads}\n\
             kv_heads = 2\nhead_dim = 16\nffn = 64\nrope_base = 10000.0\nmax_positions = 1024\nbits = 8\n"
        )
    };
    let files: String = FILES
        .iter()
        .map(|p| format!("[[files]]\npath = \"{p}\"\nbytes = 3\nsha256 = \"{ABC}\"\n"))
        .collect();
    format!(
        "format = 1\nname = \"tiny\"\nlicence = \"CC0-1.0\"\nattribution = \"nobody\"\n\
         [audio]\nsample_rate_hz = 16000\nframe_rate_hz = 50\nfft_size = 640\nhop = 160\nmax_log_magnitude = 6.0\n\
         [vocabulary]\nspeech = 65536\nend_of_speech = 65536\nbegin = 65537\nstart_of_speech = 65538\npad = 65539\n\
         first_character = 65540\ncharacters = \" ',.?!abcdefghijklmnopqrstuvwxyz\"\nfsq_digits = 8\nfsq_levels = 4\n\
         {}{}[codec]\nfile = \"codec.onnx\"\nlatency_samples = 560\n\
         [sampling]\ntemperature = 1.0\ntop_k = 0\ntop_p = 1.0\nmin_p = 0.0\ngamma = 4\n\
         [groups]\nfile = \"../../asg-cache/tiny.asg\"\n{files}\
         [training]\nhours = 1.5\nanything = {{ goes = true }}\n",
        model("target", 64, 4),
        model("draft", 32, 2)
    )
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("voxgrain-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        for f in FILES {
            std::fs::write(dir.join(f), "abc").unwrap();
        }
        std::fs::write(dir.join("bundle.toml"), sound()).unwrap();
        Self(dir)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_sound_bundle_opens() {
    let folder = Folder::new("sound");
    for path in [folder.0.clone(), folder.0.join("bundle.toml")] {
        let b = Bundle::open(path).unwrap();
        assert_eq!(b.name, "tiny");
        assert_eq!(b.audio.samples_per_frame(), 320);
        assert_eq!(b.audio.spectra_per_frame(), 2);
        assert_eq!(b.audio.bins(), 321);
        assert_eq!(b.vocabulary.character(' '), Some(65540));
        assert_eq!(b.vocabulary.character('z'), Some(65571));
        assert_eq!(b.vocabulary.character('A'), None);
        assert_eq!(b.vocabulary.len(), 65572);
        assert_eq!(b.vocabulary.scored(), 65537);
        assert_eq!(b.target_path(), folder.0.join("target.onnx"));
        assert!(b.groups_path().unwrap().ends_with("../../asg-cache/tiny.asg"));
        assert_eq!(b.listed_sha256("draft.onnx"), Some(ABC));
        assert_eq!(b.training.as_ref().unwrap()["hours"].as_float(), Some(1.5));
        let mut last = 0;
        b.verify(|p| {
            assert!(p.done_bytes > last && p.total_bytes == 18);
            last = p.done_bytes;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(last, 18);
        let stopped = b.verify(|_| ControlFlow::Break(())).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    }
}

#[test]
fn damaged_files_are_found() {
    let folder = Folder::new("damaged");
    std::fs::write(folder.0.join("draft.onnx"), "abd").unwrap();
    let b = Bundle::open(&folder.0).unwrap();
    let e = b.verify(|_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Mismatch);
    assert!(e.to_string().contains("draft.onnx"), "{e}");

    std::fs::write(folder.0.join("draft.onnx"), "abcd").unwrap();
    let e = Bundle::open(&folder.0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Mismatch);
    assert!(e.to_string().contains("4 bytes"), "{e}");

    std::fs::remove_file(folder.0.join("draft.onnx")).unwrap();
    assert_eq!(Bundle::open(&folder.0).unwrap_err().kind(), ErrorKind::Unreadable);
    std::fs::create_dir(folder.0.join("draft.onnx")).unwrap();
    assert_eq!(Bundle::open(&folder.0).unwrap_err().kind(), ErrorKind::Unreadable);
    assert_eq!(Bundle::open(folder.0.join("absent")).unwrap_err().kind(), ErrorKind::Unreadable);
    std::fs::write(folder.0.join("bundle.toml"), [0xff, 0xfe]).unwrap();
    assert_eq!(Bundle::open(&folder.0).unwrap_err().kind(), ErrorKind::Malformed);
    std::fs::write(folder.0.join("bundle.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(Bundle::open(&folder.0).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn every_contradiction_is_refused() {
    // (what to replace, by what, what the message must mention); the first occurrence only.
    let table: &[(&str, &str, &str)] = &[
        ("format = 1", "", "format"),
        ("format = 1", "format = \"1\"", "format"),
        ("name = \"tiny\"", "name = \" \"", "name"),
        ("name = \"tiny\"", "", "name"),
        ("name = \"tiny\"", "name = \"tiny\"\nnaem = 1", "naem"),
        ("licence = \"CC0-1.0\"", "licence = \"\"", "licence"),
        ("sample_rate_hz = 16000", "sample_rate_hz = 16001", "frame_rate_hz"),
        ("sample_rate_hz = 16000", "sample_rate_hz = 0", "sample_rate_hz"),
        ("sample_rate_hz = 16000", "sample_rate_hz = -1", "sample_rate_hz"),
        ("frame_rate_hz = 50", "frame_rate_hz = 0", "frame_rate_hz"),
        ("hop = 160", "hop = 0", "hop"),
        ("hop = 160", "hop = 150", "hop"),
        ("fft_size = 640", "fft_size = 641", "fft_size"),
        ("fft_size = 640", "fft_size = 0", "fft_size"),
        ("max_log_magnitude = 6.0", "max_log_magnitude = nan", "max_log_magnitude"),
        ("max_log_magnitude = 6.0", "max_log_magnitude = 6.0\nmax = 1", "max"),
        ("speech = 65536", "speech = 65535", "speech"),
        ("end_of_speech = 65536", "end_of_speech = 65537", "end_of_speech"),
        ("begin = 65537", "begin = 12", "begin"),
        ("begin = 65537", "begin = 65538", "begin"),
        ("pad = 65539", "pad = 65550", "pad"),
        ("pad = 65539", "pad = 4294967295", "pad"),
        ("first_character = 65540", "first_character = 65530", "first_character"),
        ("first_character = 65540", "first_character = 4294967295", "first_character"),
        ("characters = \" ',", "characters = \"',", "characters"),
        ("uvwxyz\"", "uvwxyza\"", "twice"),
        ("fsq_digits = 8", "fsq_digits = 80", "fsq_digits"),
        ("fsq_levels = 4", "fsq_levels = 1", "fsq_levels"),
        ("layers = 2", "layers = 0", "target.layers"),
        ("hidden = 64", "hidden = 0", "target.hidden"),
        ("hidden = 32", "hidden = 70000", "draft.hidden"),
        ("kv_heads = 2", "kv_heads = 3", "kv_heads"),
        ("kv_heads = 2", "kv_heads = 0", "kv_heads"),
        ("ffn = 64", "ffn = 999999999", "ffn"),
        ("rope_base = 10000.0", "rope_base = inf", "rope_base"),
        ("rope_base = 10000.0", "qk_norm = 1", "qk_norm"),
        ("fsq_levels = 4", "", "fsq_levels"),
        ("fsq_levels = 4", "fsq_levels = 4\nfirst_speech_id = 9", "vocabulary.size"),
        ("fsq_levels = 4", "fsq_levels = 4\nsize = 70000", "characters"),
        ("max_positions = 1024", "max_positions = 0", "max_positions"),
        ("bits = 8", "bits = 5", "bits"),
        ("latency_samples = 560", "latency_samples = 16001", "latency_samples"),
        ("latency_samples = 560", "latency_samples = 560\nkind = \"other\"", "bundle description"),
        ("latency_samples = 560", "latency_samples = 560\nnew_frames = 25", "windowed"),
        ("latency_samples = 560", "latency_samples = 560\nkind = \"windowed\"", "one spectrum"),
        ("temperature = 1.0", "temperature = -1.0", "temperature"),
        ("temperature = 1.0", "temperature = nan", "temperature"),
        ("top_k = 0", "top_k = -1", "top_k"),
        ("top_p = 1.0", "top_p = 0.0", "top_p"),
        ("top_p = 1.0", "top_p = 1.5", "top_p"),
        ("min_p = 0.0", "min_p = 1.0", "min_p"),
        ("min_p = 0.0", "min_p = 0.0\nrepetition_penalty = 0.0", "repetition_penalty"),
        ("min_p = 0.0", "min_p = 0.0\nrepetition_penalty = nan", "repetition_penalty"),
        ("min_p = 0.0", "min_p = 0.0\nrepetition_window = -1", "repetition_window"),
        ("min_p = 0.0", "min_p = 0.0\nmin_tokens = -1", "min_tokens"),
        ("gamma = 4", "gamma = 16", "gamma"),
        ("gamma = 4", "gamma = 33", "gamma"),
        ("gamma = 4", "gamma = 4\ndraft_cost = 101.0", "draft_cost"),
        ("file = \"../../asg-cache/tiny.asg\"", "file = \"/tiny.asg\"", "groups"),
        ("file = \"target.onnx\"", "file = \"other.onnx\"", "other.onnx"),
        ("path = \"target.onnx\"", "path = \"../target.onnx\"", "inside"),
        ("path = \"target.onnx\"", "path = \"/etc/passwd\"", "inside"),
        ("path = \"target.onnx\"", "path = \"a\\\\b\"", "inside"),
        ("path = \"target.onnx\"", "path = \"./\"", "inside"),
        ("path = \"target.onnx\"", "path = \"\"", "inside"),
        ("path = \"draft.onnx\"", "path = \"target.onnx\"", "twice"),
        ("bytes = 3", "bytes = 0", "0 bytes"),
        ("bytes = 3", "bytes = -3", "bytes"),
        ("sha256 = \"ba", "sha256 = \"BA", "sha256"),
        ("sha256 = \"ba", "sha256 = \"b", "sha256"),
        ("[sampling]", "[sampling", "TOML"),
        ("[target]", "[[speakers]]\nbegin = 65537\n[target]", "name"),
        ("[target]", "[[speakers]]\nname = \"a\"\n[target]", "begin"),
        ("[target]", "[[speakers]]\nname = \"a\"\nbegin = 65537\nage = 3\n[target]", "age"),
        ("[target]", "[[speakers]]\nname = 3\nbegin = 65537\n[target]", "name"),
        ("[target]", "speakers = 3\n[target]", "speakers"),
    ];
    Bundle::parse(&sound(), "d").unwrap();
    for (from, to, mention) in table {
        let text = sound();
        assert!(text.contains(from), "{from}");
        let broken = text.replacen(from, to, 1);
        let e = Bundle::parse(&broken, "some/where").expect_err(&format!("{from} -> {to}"));
        assert_eq!(e.kind(), ErrorKind::Malformed, "{from} -> {to}: {e}");
        // With its cause, which the message itself does not quote.
        let said = format!("{e:#}");
        if let Some(cause) = std::error::Error::source(&e) {
            assert!(!e.to_string().contains(&cause.to_string()), "{from} -> {to}: {e}");
        }
        assert!(said.contains("bundle.toml"), "{from} -> {to}: {said}");
        assert!(said.contains(mention), "{from} -> {to}: {said}");
    }
    // A newer one is told by its number, not by what is new in it.
    for format in ["3\nnews = 1", "4294967297", "0", "-1"] {
        let text = sound().replacen("format = 1", &format!("format = {format}"), 1);
        let e = Bundle::parse(&text, "d").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{format}: {e}");
        assert!(e.to_string().contains("1 to 2"), "{format}: {e}");
    }
}

/// A description whose ids are a tokenizer's, without a draft.
fn imported() -> String {
    let text = sound();
    let cut = |text: &str, from: &str, to: &str| {
        let (a, b) = (text.find(from).unwrap(), text.find(to).unwrap());
        format!("{}{}", &text[..a], &text[b..])
    };
    let text = cut(&text, "begin = 65537", "[target]").replacen(
        "[target]",
        "size = 194256\nfirst_speech_id = 128262\nend_id = 128261\n[target]",
        1,
    );
    cut(&text, "[draft]", "[codec]").replacen("format = 1", "format = 2", 1)
}

#[test]
fn ids_of_a_tokenizer_and_no_draft() {
    let b = Bundle::parse(&imported(), "d").unwrap();
    assert!(b.draft.is_none() && b.draft_path().is_none());
    let v = &b.vocabulary;
    assert_eq!((v.len(), v.scored(), v.levels()), (194_256, 65_537, None));
    // Speech first, then the end, then everything else in its order, each once.
    for (t, id) in [
        (128_262, 0),
        (193_797, 65_535),
        (128_261, 65_536),
        (0, 65_537),
        (128_260, 193_797),
        (193_798, 193_798),
        (194_255, 194_255),
    ] {
        assert_eq!(v.from_tokenizer(t), Some(id), "{t}");
    }
    let mut seen = vec![false; v.len()];
    for t in 0..194_256 {
        let id = v.from_tokenizer(t).unwrap() as usize;
        assert!(!std::mem::replace(&mut seen[id], true), "{t} and another are {id}");
    }
    assert_eq!(v.from_tokenizer(194_256), None);
    // The end behind the speech, as other families have it.
    let behind = imported().replacen("end_id = 128261", "end_id = 194000", 1);
    let v = &Bundle::parse(&behind, "d").unwrap().vocabulary;
    let ids = [0, 128_261, 128_262, 193_999, 194_000, 194_001].map(|t| v.from_tokenizer(t));
    assert_eq!(ids, [65_537, 193_798, 0, 194_000, 65_536, 194_001].map(Some));
    assert_eq!(Bundle::parse(&sound(), "d").unwrap().vocabulary.from_tokenizer(5), None);
    let sampling = "min_p = 0.0\nrepetition_penalty = 1.2\nrepetition_window = 20\nmin_tokens = 50";
    let b = Bundle::parse(&imported().replacen("min_p = 0.0", sampling, 1), "d").unwrap();
    let p = b.sampling.law().penalties;
    assert_eq!((p.repetition, p.window, p.min_tokens), (1.2, 20, 50));
    for (from, to, mention) in [
        ("size = 194256", "size = 65536", "vocabulary.size"),
        ("size = 194256", "size = 2000000", "vocabulary.size"),
        ("size = 194256", "", "vocabulary.size"),
        ("first_speech_id = 128262", "", "first_speech_id"),
        ("first_speech_id = 128262", "first_speech_id = 128721", "first_speech_id"),
        ("end_id = 128261", "end_id = 128262", "end_id"),
        ("end_id = 128261", "end_id = 193797", "end_id"),
        ("end_id = 128261", "end_id = 194256", "end_id"),
        ("end_id = 128261", "end_id = 128261\nbegin = 70000", "characters"),
        ("end_id = 128261", "end_id = 128261\nfsq_digits = 8", "fsq_levels"),
        ("[codec]", "[draft]\nfile = \"draft.onnx\"\n[codec]", "layers"),
    ] {
        let text = imported();
        assert!(text.contains(from), "{from}");
        let e = Bundle::parse(&text.replacen(from, to, 1), "d").expect_err(to);
        assert_eq!(e.kind(), ErrorKind::Malformed, "{from} -> {to}: {e}");
        assert!(format!("{e:#}").contains(mention), "{from} -> {to}: {e:#}");
    }
}

/// The sound description in format 2, with this in `[text]`.
fn with_text(section: &str) -> String {
    let text = sound().replacen("format = 1", "format = 2", 1);
    text.replacen("[target]", &format!("[text]\n{section}\n[target]"), 1)
}

const PHONEMES: &str = "front_end = \"phonemes\"\nlexicon = \"../en.lexicon\"\n\
                        tempo_symbols = \"xyz\"\ntempos = [0.5, 1.0, 2.0]";

#[test]
fn what_prompts_are_written_in() {
    let b = Bundle::parse(&with_text(PHONEMES), "dir").unwrap();
    assert_eq!(b.text.front_end, FrontEnd::Phonemes);
    assert_eq!(b.lexicon_path().unwrap(), Path::new("dir").join("../en.lexicon"));
    assert_eq!(b.text.tempo(0.6), Some(('x', 0.5)));
    assert_eq!(b.text.tempo(1.1), Some(('y', 1.0)));
    assert_eq!(b.text.tempo(9.0), Some(('z', 2.0)));
    // One tempo, and letters, said or not.
    let one = "front_end = \"phonemes\"\nlexicon = \"en.lexicon\"";
    assert_eq!(Bundle::parse(&with_text(one), "d").unwrap().text.tempo(1.0), None);
    let said = with_text("front_end = \"letters\"");
    let not_said = sound().replacen("format = 1", "format = 2", 1);
    for text in [said, not_said, sound()] {
        let b = Bundle::parse(&text, "d").unwrap();
        assert_eq!(b.text.front_end, FrontEnd::Letters);
        assert!(b.lexicon_path().is_none() && b.text.tempos.is_empty());
    }
    // Letters may have tempos.
    let letters =
        PHONEMES.replace("phonemes", "letters").replace("\nlexicon = \"../en.lexicon\"", "");
    assert_eq!(Bundle::parse(&with_text(&letters), "d").unwrap().text.tempos.len(), 3);
}

#[test]
fn what_prompts_cannot_be_written_in() {
    let table: &[(&str, &str, &str)] = &[
        ("front_end = \"phonemes\"", "front_end = \"kana\"", "kana"),
        ("front_end = \"phonemes\"", "", "front_end"),
        ("front_end = \"phonemes\"", "front_end = \"letters\"", "text.lexicon"),
        ("\"../en.lexicon\"", "\"/en.lexicon\"", "text.lexicon"),
        ("\"../en.lexicon\"", "\"\"", "text.lexicon"),
        ("lexicon = \"../en.lexicon\"", "", "text.lexicon"),
        ("lexicon = \"../en.lexicon\"", "lexikon = 1", "lexikon"),
        ("\"xyz\"", "\"xyX\"", "text.tempo_symbols"),
        ("\"xyz\"", "\"xyx\"", "text.tempo_symbols"),
        ("\"xyz\"", "\"xy\"", "text.tempo_symbols"),
        ("\"xyz\"", "\"wxyz\"", "text.tempo_symbols"),
        ("\"xyz\"", "\"\"", "text.tempo_symbols"),
        ("tempos = [0.5, 1.0, 2.0]", "", "text.tempo_symbols"),
        ("[0.5, 1.0, 2.0]", "[1.0, 0.5, 2.0]", "rising"),
        ("[0.5, 1.0, 2.0]", "[0.5, 1.0, 1.0]", "rising"),
        ("[0.5, 1.0, 2.0]", "[0.5, 1.1, 2.0]", "rising"),
        ("[0.5, 1.0, 2.0]", "[0.0, 1.0, 2.0]", "rising"),
        ("[0.5, 1.0, 2.0]", "[-0.5, 1.0, 2.0]", "rising"),
        ("[0.5, 1.0, 2.0]", "[0.5, 1.0, 10.5]", "rising"),
        ("[0.5, 1.0, 2.0]", "[0.5, 1.0, inf]", "rising"),
        ("[0.5, 1.0, 2.0]", "[nan, 1.0, 2.0]", "rising"),
        ("[0.5, 1.0, 2.0]", "[\"slow\", 1.0, 2.0]", "tempos"),
    ];
    for (from, to, mention) in table {
        assert!(PHONEMES.contains(from), "{from}");
        let text = with_text(&PHONEMES.replacen(from, to, 1));
        let e = Bundle::parse(&text, "d").expect_err(&format!("{from} -> {to}"));
        assert_eq!(e.kind(), ErrorKind::Malformed, "{from} -> {to}: {e}");
        let said = format!("{e:#}");
        assert!(said.contains("bundle.toml"), "{from} -> {to}: {said}");
        assert!(said.contains(mention), "{from} -> {to}: {said}");
    }
    // Format 1 knew none of it, not even what says the same.
    for section in [PHONEMES, "front_end = \"phonemes\"", "front_end = \"letters\"\ntempos = [1.0]"]
    {
        let text = with_text(section).replacen("format = 2", "format = 1", 1);
        let e = Bundle::parse(&text, "d").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{section}: {e}");
        assert!(e.to_string().contains("format 1"), "{section}: {e}");
    }
}

/// The sound description with these speakers: names, ids.
fn with_speakers(speakers: &[(&str, u32)]) -> String {
    let list: String = speakers
        .iter()
        .map(|(n, b)| format!("[[speakers]]\nname = {}\nbegin = {b}\n", toml::Value::from(*n)))
        .collect();
    sound().replacen("[target]", &format!("{list}[target]"), 1)
}

#[test]
fn speakers_are_listed_in_order_and_found_by_name() {
    let text = with_speakers(&[("slt", 65537), ("rms", 65539)]).replacen(
        "begin = 65539\n",
        "begin = 65539\ndescription = \"male\"\n",
        1,
    );
    // Not the vocabulary's own line, which comes first.
    let b = Bundle::parse(&text, "x").unwrap();
    let all: Vec<_> =
        b.speakers.iter().map(|s| (&s.name[..], s.begin, &s.description[..])).collect();
    assert_eq!(all, [("slt", 65537, ""), ("rms", 65539, "male")]);
    assert_eq!((b.speaker("slt").unwrap(), b.speaker("rms").unwrap()), (0, 1));
    let e = b.speaker("bob").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("it has slt, rms"), "{e}");

    // Who has no list has one speaker; the order of the list says who is the default.
    let b = Bundle::parse(&sound(), "x").unwrap();
    assert_eq!((&b.speakers[0].name[..], b.speakers[0].begin), ("tiny", 65537));
    assert_eq!((b.speakers.len(), b.speaker("tiny").unwrap()), (1, 0));
    let b = Bundle::parse(&with_speakers(&[("rms", 65539)]), "x").unwrap();
    assert_eq!((b.speakers.len(), b.speakers[0].begin), (1, 65539));
}

#[test]
fn speakers_that_cannot_be_are_refused() {
    let long = "n".repeat(65);
    let table: &[(&[(&str, u32)], &str)] = &[
        (&[("", 65537)], "name"),
        (&[(" slt", 65537)], "space"),
        (&[("s\nlt", 65537)], "name"),
        (&[(&long, 65537)], "longer"),
        (&[("a", 65537), ("a", 65539)], "twice"),
        (&[("a", 65537), ("b", 65537)], "both begin"),
        (&[("a", 0)], "speech token"),
        (&[("a", 65535)], "speech token"),
        (&[("a", 65536)], "end_of_speech"),
        (&[("a", 65538)], "start_of_speech"),
        (&[("a", 65537), ("b", 65540)], "character"),
        (&[("a", 65571)], "character"),
        (&[("a", 65572)], "not in the vocabulary"),
        (&[("a", u32::MAX)], "not in the vocabulary"),
    ];
    for (speakers, mention) in table {
        let e = Bundle::parse(&with_speakers(speakers), "d").expect_err(&format!("{speakers:?}"));
        assert_eq!(e.kind(), ErrorKind::Malformed, "{speakers:?}: {e}");
        let said = e.to_string();
        assert!(said.contains("bundle.toml") && said.contains("speaker"), "{speakers:?}: {said}");
        assert!(said.contains(mention), "{speakers:?}: {said}");
    }
    let text = with_speakers(&[("a", 65537)]).replacen(
        "name = \"a\"",
        "name = \"a\"\ndescription = \"two\\nlines\"",
        1,
    );
    let e = Bundle::parse(&text, "d").unwrap_err();
    assert!(e.to_string().contains("one line"), "{e}");
}

#[test]
fn optional_sections() {
    let without: String = sound().replace("[groups]\nfile = \"../../asg-cache/tiny.asg\"\n", "");
    let without = &without[..without.find("[training]").unwrap()];
    let b = Bundle::parse(without, Path::new("x")).unwrap();
    assert!(b.groups_path().is_none() && b.training.is_none());
    let more = sound().replacen(
        "latency_samples = 560",
        "latency_samples = 560\ncontext_frames = 33\nlookahead_frames = 1",
        1,
    );
    assert_eq!(Bundle::parse(&more, "x").unwrap().codec.context_frames, Some(33));
}

/// A codec that looks both ways: its windows, what they are if nothing is said, and their bounds.
#[test]
fn codecs_of_whole_utterances_have_windows() {
    let with = |keys: &str| {
        let text = sound().replacen("hop = 160", "hop = 320", 1).replacen(
            "latency_samples = 560",
            &format!("latency_samples = 560\nkind = \"windowed\"\n{keys}"),
            1,
        );
        Bundle::parse(&text, "x").map_err(|e| e.to_string())
    };
    assert_eq!(Bundle::parse(&sound(), "x").unwrap().codec.windows(), None);
    let w = with("").unwrap().codec.windows().unwrap();
    assert_eq!((w.first, w.new, w.ahead, w.back), (10, 25, 5, 100));
    let w = with("first_frames = 8\nnew_frames = 40\nahead_frames = 3\nback_frames = 1").unwrap();
    let w = w.codec.windows().unwrap();
    assert_eq!((w.first, w.new, w.ahead, w.back), (8, 40, 3, 1));
    for (keys, what) in [
        ("first_frames = 5", "first_frames"),
        ("ahead_frames = 10", "first_frames"),
        ("new_frames = 0", "new_frames"),
        ("back_frames = 0", "back_frames"),
        ("back_frames = 1025", "back_frames"),
    ] {
        let e = with(keys).unwrap_err();
        assert!(e.contains(what), "{keys}: {e}");
    }
}

/// A voice that opens can speak: no default of a bundle is out of the decoder's range.
#[test]
fn what_a_bundle_may_say_can_be_decoded_with() {
    for (key, from, values) in [
        ("temperature", "temperature = 1.0", ["0.0", "100.0", "100.5", "-0.5"]),
        ("top_p", "top_p = 1.0", ["0.001", "1.0", "0.0", "1.001"]),
        ("min_p", "min_p = 0.0", ["0.0", "0.999", "1.0", "-0.1"]),
    ] {
        for (i, value) in values.iter().enumerate() {
            let text = sound().replacen(from, &format!("{key} = {value}"), 1);
            let decodes = |b: &Bundle| b.sampling.law().check().is_ok();
            let opened = Bundle::parse(&text, "d");
            assert_eq!(opened.is_ok(), i < 2, "{key} = {value}");
            assert!(opened.is_ok_and(|b| decodes(&b)) == (i < 2), "{key} = {value}");
        }
    }
    let longest = sound().replacen("gamma = 4", &format!("gamma = {MAX_GAMMA}"), 1);
    assert_eq!(Bundle::parse(&longest, "d").unwrap().sampling.gamma, MAX_GAMMA);
    // The same bound where an option says it.
    let off = SamplingTransforms::default();
    for (min_p, sound) in [(0.999, true), (1.0, false)] {
        let transforms = SamplingTransforms { min_p, ..off };
        let law = Sampling { transforms, ..Sampling::default() };
        assert_eq!(law.check().is_ok(), sound, "min_p {min_p}");
    }
}

/// The program finds the voice of the checkout that it lies in by looking, from anywhere.
#[cfg(feature = "cli")]
#[test]
fn the_program_carries_no_path_of_the_machine_that_built_it() {
    let program = env!("CARGO_BIN_EXE_voxgrain");
    let bytes = std::fs::read(program).unwrap();
    let source = env!("CARGO_MANIFEST_DIR").as_bytes();
    // Code that build scripts wrote may say where they did.
    let built = [source, b"/target"].concat();
    let baked = (0..bytes.len() - built.len())
        .filter(|&i| bytes[i..].starts_with(source) && !bytes[i..].starts_with(&built))
        .map(|i| String::from_utf8_lossy(&bytes[i..i + built.len() + 20]).into_owned());
    assert_eq!(baked.collect::<Vec<_>>(), Vec::<String>::new());

    // A target folder somewhere else lies in no checkout.
    if std::env::var_os("VOXGRAIN_RUNNER").is_none()
        && program.starts_with(env!("CARGO_MANIFEST_DIR"))
    {
        let folder = Folder::new("elsewhere");
        let out = std::process::Command::new(program)
            .args(["inspect", "--json"])
            .current_dir(&folder.0)
            .env_remove("VOXGRAIN_BUNDLE")
            .output()
            .unwrap();
        let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(told["name"], "voice");
    }
}
