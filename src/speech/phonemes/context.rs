//! Words that are written alike and said apart, where the part of speech does not decide.

use super::tagger::Tag;

/// What the context says about a word.
pub(super) enum Verdict {
    /// Take it for this part of speech.
    Tag(Tag),
    /// It is said so.
    Said(&'static str),
}

const LEAD_AFTER: &[&str] = &[
    "pipe",
    "pipes",
    "paint",
    "paints",
    "poisoning",
    "acid",
    "weight",
    "weights",
    "pencil",
    "pencils",
    "shot",
    "bullet",
    "bullets",
    "oxide",
    "ore",
    "content",
    "crystal",
    "glass",
    "solder",
    "levels",
    "exposure",
    "battery",
    "batteries",
    "contamination",
    "lined",
    "mine",
    "mines",
    "soldier",
    "soldiers",
    "apron",
    "sinker",
    "sinkers",
    "based",
    "free",
    "sulfide",
    "chromate",
];
const LEAD_BEFORE: &[&str] = &[
    "molten", "melted", "white", "red", "heavy", "solid", "copper", "tin", "zinc", "silver", "iron",
];
const LEAD_OF: &[&str] = &[
    "made",
    "lump",
    "piece",
    "pounds",
    "pound",
    "tons",
    "ounces",
    "grams",
    "traces",
    "levels",
    "sheet",
    "sheets",
    "amounts",
    "amount",
    "full",
    "concentration",
    "concentrations",
    "weight",
    "alloy",
    "layer",
    "layers",
    "density",
];
const BASS_FISH: &[&str] = &[
    "sea",
    "striped",
    "largemouth",
    "smallmouth",
    "caught",
    "catch",
    "fishing",
    "fillet",
    "fillets",
    "fisherman",
    "fishermen",
    "freshwater",
    "grilled",
    "boat",
    "lake",
    "river",
    "trout",
    "perch",
];
/// Before `read`: the base form follows.
const BASE_AFTER: &[&str] = &[
    "to",
    "can",
    "can't",
    "cannot",
    "could",
    "couldn't",
    "will",
    "won't",
    "would",
    "wouldn't",
    "shall",
    "should",
    "shouldn't",
    "must",
    "mustn't",
    "may",
    "might",
    "do",
    "don't",
    "does",
    "doesn't",
    "did",
    "didn't",
    "let",
    "let's",
    "please",
    "i'll",
    "you'll",
    "he'll",
    "she'll",
    "we'll",
    "they'll",
    "it'll",
    "help",
    "helps",
    "helped",
    "make",
    "makes",
    "made",
    "who'll",
];
/// Before `read`: the participle follows.
const PARTICIPLE_AFTER: &[&str] = &[
    "have", "has", "had", "having", "haven't", "hasn't", "hadn't", "i've", "you've", "we've",
    "they've", "was", "were", "is", "are", "be", "been", "being", "isn't", "wasn't", "aren't",
    "weren't", "get", "gets", "got", "it's", "widely", "well", "he's", "she's", "who've", "i'd've",
];
/// Somewhere in the sentence: what is done again and again.
const HABIT: &[&str] = &[
    "every",
    "always",
    "usually",
    "often",
    "sometimes",
    "daily",
    "weekly",
    "generally",
    "regularly",
    "rarely",
    "seldom",
    "never",
    "normally",
    "typically",
    "whenever",
    "nowadays",
    "today",
    "now",
];
/// Somewhere in the sentence: it is over.
const OVER: &[&str] = &[
    "yesterday",
    "ago",
    "last",
    "once",
    "was",
    "were",
    "had",
    "did",
    "when",
    "then",
    "before",
    "after",
    "already",
    "earlier",
    "said",
    "told",
    "went",
    "came",
    "until",
];
const SUBJECTS: &[&str] = &["i", "you", "we", "they", "who", "people", "children", "students"];

/// Adverbs that stand between a helping verb and its verb.
fn passes(word: &str) -> bool {
    matches!(
        word,
        "not" | "never" | "ever" | "also" | "just" | "always" | "often" | "already" | "only"
    ) || word.ends_with("ly")
}

/// What the words around word `i`, all in lower case, say about it.
pub(super) fn judge(words: &[&str], i: usize, tag: Tag) -> Option<Verdict> {
    let at = |k: isize| {
        usize::try_from(i as isize + k).ok().and_then(|j| words.get(j)).copied().unwrap_or("")
    };
    let near = |list: &[&str]| (-2..=2).any(|k| k != 0 && list.contains(&at(k)));
    match words[i] {
        "read" | "reread" | "misread" => {
            // The helping verb, adverbs and pronouns of a question passed over.
            let mut k = -1;
            while passes(at(k)) {
                k -= 1;
            }
            let mut helper = at(k);
            if SUBJECTS.contains(&helper) || ["he", "she", "it"].contains(&helper) {
                let before = at(k - 1);
                if BASE_AFTER.contains(&before) && !["to", "make", "made", "let"].contains(&before)
                {
                    return Some(Verdict::Tag(Tag::Verb));
                }
                if ["have", "has", "had"].contains(&before) {
                    return Some(Verdict::Tag(Tag::Participle));
                }
                if SUBJECTS.contains(&helper)
                    && words.iter().any(|w| HABIT.contains(w))
                    && !words.iter().any(|w| OVER.contains(w))
                {
                    return Some(Verdict::Tag(Tag::Verb));
                }
                helper = "";
            }
            if BASE_AFTER.contains(&helper) {
                return Some(Verdict::Tag(Tag::Verb));
            }
            if PARTICIPLE_AFTER.contains(&helper) {
                return Some(Verdict::Tag(Tag::Participle));
            }
            (i == 0 && tag.is_verb()).then_some(Verdict::Tag(Tag::Verb))
        }
        "lead" | "leads" => {
            let metal = LEAD_AFTER.contains(&at(1))
                || LEAD_BEFORE.contains(&at(-1))
                || at(-1) == "of" && LEAD_OF.contains(&at(-2))
                || at(1) == "and" && LEAD_BEFORE.contains(&at(2))
                || at(-1) == "and" && LEAD_BEFORE.contains(&at(-2))
                || at(-1) == "as" && at(-2) == "heavy"
                || at(-1) == "like" && at(-2) == "sank";
            (metal && words[i] == "lead").then_some(Verdict::Said("lˈɛd"))
        }
        "bass" => Some(Verdict::Said(if near(BASS_FISH) { "bˈæs" } else { "bˈAs" })),
        "used" if at(1) == "to" => {
            let before = at(-1);
            let accustomed =
                ["get", "gets", "got", "getting", "gotten", "become", "became", "grown", "grew"]
                    .contains(&before);
            accustomed.then_some(Verdict::Tag(Tag::Past))
        }
        "live" => {
            let adjective = [
                "show",
                "shows",
                "music",
                "performance",
                "broadcast",
                "audience",
                "concert",
                "stream",
                "video",
                "coverage",
                "event",
                "events",
                "wire",
                "ammunition",
                "updates",
                "television",
                "band",
                "bait",
                "animals",
            ]
            .contains(&at(1));
            let verb = [
                "to", "i", "you", "we", "they", "who", "people", "don't", "can", "would", "will",
                "long", "could", "must", "should", "still",
            ]
            .contains(&at(-1))
                && !adjective;
            if adjective {
                Some(Verdict::Tag(Tag::Adjective))
            } else if verb && tag != Tag::Adverb {
                Some(Verdict::Tag(Tag::Verb))
            } else {
                None
            }
        }
        "wound" => {
            let helper = if passes(at(-1)) { at(-2) } else { at(-1) };
            PARTICIPLE_AFTER.contains(&helper).then_some(Verdict::Tag(Tag::Participle))
        }
        _ => None,
    }
}
