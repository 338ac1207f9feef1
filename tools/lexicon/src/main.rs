//! Builds and measures pronunciation lexicons. See README.md.

mod align;
mod build;
mod entries;
mod letters;
mod measure;
mod tags;

use std::collections::BTreeMap;

use voxgrain::map::Map;
use voxgrain::speech::phonemes::{Phonemizer, Word};

const USAGE: &str = "voxgrain-lexicon COMMAND
  oracle [--british] < TEXTS           the oracle's phonemes, tokens and tags, a line for each line
  letters OUT [BITS EPOCHS L1]         trains the letter model, 2,000 entries held out
  tags ORACLE HELDOUT OUT [LINES BITS EPOCHS]   trains the tagger
  build LETTERS TAGS OUT [--british] [--whole] [--leave-out]
                                       the lexicon file; --whole keeps what endings give, too;
                                       --leave-out lacks the held-out entries, for guess
  agree LEXICON ORACLE [SHOW]          words with the oracle's phonemes; the most common others
  guess LEXICON                        error rate on the held-out entries
  time LEXICON                         of opening, a sentence, an unknown word, a word
  say LEXICON TEXT...                  phonemes";

fn held_out() -> (Vec<(String, String)>, Vec<(String, String)>) {
    let mut words = entries::spelled(&entries::load(false));
    letters::Rng(42).shuffle(&mut words);
    let held = words.split_off(words.len() - 2000);
    (words, held)
}

fn open(path: &str) -> Phonemizer {
    Phonemizer::open(&Map::open(path).unwrap()).unwrap()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let a: Vec<&str> = args.iter().map(String::as_str).collect();
    match a.as_slice() {
        ["letters", out, rest @ ..] => {
            let number = |k: usize, d: f32| rest.get(k).map_or(d, |v| v.parse().unwrap());
            let (words, held) = held_out();
            let model = letters::train(
                &words,
                number(0, 19.0) as u32,
                number(1, 5.0) as usize,
                number(2, 0.01),
            );
            let (e, b, w, wb) = letters::measure(&held, |w| model.read(w));
            println!(
                "held out: {:.2} % of symbols wrong, {:.2} % without stress; words right {:.1} %, {:.1} %",
                100.0 * e,
                100.0 * b,
                100.0 * w,
                100.0 * wb
            );
            std::fs::write(out, model.section()).unwrap();
        }
        ["tags", oracle, heldout, out, rest @ ..] => {
            let number = |k: usize, d: usize| rest.get(k).map_or(d, |v| v.parse().unwrap());
            let lines = measure::read(oracle, number(0, usize::MAX));
            let mut set = Vec::new();
            for (k, line) in lines.iter().enumerate() {
                set.push(tags::sentence(&line.tokens, false));
                // Texts come in lower case too.
                if k % 2 == 0 {
                    set.push(tags::sentence(&line.tokens, true));
                }
            }
            let section = tags::train(&set, number(1, 18) as u32, number(2, 5));
            let held: Vec<_> = measure::read(heldout, usize::MAX)
                .iter()
                .map(|l| tags::sentence(&l.tokens, false))
                .collect();
            println!("tags like the oracle's: {:.2} %", 100.0 * tags::accuracy(&section, &held));
            std::fs::write(out, section).unwrap();
        }
        ["build", letter_file, tag_file, out, rest @ ..] => {
            let british = rest.contains(&"--british");
            let l = std::fs::read(letter_file).unwrap();
            let t = std::fs::read(tag_file).unwrap();
            let mut words: BTreeMap<String, build::Packed> = entries::load(british)
                .iter()
                .filter_map(|(w, e)| build::pack(e).map(|p| (w.clone(), p)))
                .collect();
            if rest.contains(&"--leave-out") {
                let held: std::collections::HashSet<String> =
                    held_out().1.into_iter().map(|h| h.0).collect();
                words.retain(|w, _| !held.contains(&w.to_lowercase()));
            }
            let words = if rest.contains(&"--whole") {
                words
            } else {
                build::prune(&words, british, &l, &t)
            };
            let bytes = build::file(&words, british, l, t);
            println!("{} bytes", bytes.len());
            std::fs::write(out, bytes).unwrap();
        }
        ["agree", lexicon, oracle, rest @ ..] => {
            let show = rest.first().map_or(0, |v| v.parse().unwrap());
            measure::agreement(&open(lexicon), &measure::read(oracle, usize::MAX), show);
        }
        ["guess", lexicon] => {
            let p = open(lexicon);
            let (_, held) = held_out();
            let say = |w: &str| {
                let word = Word { text: w, before: "", after: "", phonemes: None };
                p.phonemize_words(&[word]).unwrap().remove(0)
            };
            let mut groups: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
            for (word, phonemes) in &held {
                for group in [format!("{:?}", say(word).origin), "all".to_string()] {
                    groups.entry(group).or_default().push((word.clone(), phonemes.clone()));
                }
            }
            for (group, words) in &groups {
                let (e, b, w, wb) = letters::measure(words, |w| Some(say(w).phonemes));
                println!(
                    "{group}: {} words, {:.2} % of symbols wrong, {:.2} % without stress; words right {:.1} %, {:.1} %",
                    words.len(),
                    100.0 * e,
                    100.0 * b,
                    100.0 * w,
                    100.0 * wb
                );
            }
            if let Some(words) = groups.get("Compound") {
                for (w, p) in words.iter().take(60) {
                    println!("  {w} {p} {}", say(w).phonemes);
                }
            }
        }
        ["oracle", rest @ ..] => {
            let language = if rest.contains(&"--british") {
                misaki_rs::Language::EnglishGB
            } else {
                misaki_rs::Language::EnglishUS
            };
            let oracle = misaki_rs::G2P::new(language);
            for line in std::io::stdin().lines() {
                let line = line.unwrap();
                let (phonemes, tokens) = oracle.g2p(&line).unwrap();
                print!("{line}\t{phonemes}");
                for t in tokens {
                    print!("\t{}\u{1}{}", t.text, t.tag);
                }
                println!();
            }
        }
        ["time", lexicon] => {
            let best = |n: usize, f: &dyn Fn()| {
                (0..n)
                    .map(|_| {
                        let start = std::time::Instant::now();
                        f();
                        start.elapsed()
                    })
                    .min()
                    .unwrap()
            };
            let map = Map::open(lexicon).unwrap();
            let p = Phonemizer::open(&map).unwrap();
            println!("open {:?}", best(30, &|| drop(Phonemizer::open(&map).unwrap())));
            let sentence = "The quick brown fox jumped over the lazy dog while the band played \
                a slow song and they all went home to read the paper.";
            for text in [sentence, "blorptastic", "cat"] {
                let time = best(500, &|| drop(p.phonemize(text).unwrap()));
                println!("{} words {time:?}", text.split(' ').count());
            }
        }
        ["say", lexicon, text @ ..] => {
            let p = open(lexicon);
            for t in text {
                println!("{}", p.phonemize(t).unwrap());
            }
        }
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}
