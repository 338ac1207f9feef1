//! The text front end: what is said for what is written, how it is cut, what is reported.
#![cfg(feature = "std")]

use std::time::Instant;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use voxgrain::ErrorKind;
use voxgrain::bundle::Vocabulary;
use voxgrain::speech::text::{
    ALPHABET, Chunk, Markup, Options, Pauses, Respelling, TextFrontend, explain, letter_name,
    tokens, utf8,
};

/// (written, said)
const SAID: &[(&str, &str)] = &[
    ("Hello, world", "hello, world."),
    ("0", "zero."),
    ("7", "seven."),
    ("21", "twenty one."),
    ("100", "one hundred."),
    ("1,234", "one thousand two hundred thirty four."),
    ("1000000", "one million."),
    (
        "12,345,678.90",
        "twelve million three hundred forty five thousand six hundred seventy eight point nine zero.",
    ),
    ("-5", "minus five."),
    ("−7 degrees", "minus seven degrees."),
    ("3.14", "three point one four."),
    ("0.5", "zero point five."),
    (".5", "zero point five."),
    ("007", "zero zero seven."),
    (
        "12345678901234567890",
        "one two three four five six seven eight nine zero one two three four five six seven eight nine zero.",
    ),
    ("The 1st, 2nd, 3rd and 101st.", "the first, second, third and one hundred first."),
    ("1,000th", "one thousandth."),
    ("in 1984", "in nineteen eighty four."),
    ("In 2026 it was.", "in twenty twenty six it was."),
    ("1905", "nineteen oh five."),
    ("2001", "two thousand one."),
    ("1900", "nineteen hundred."),
    ("the 1990s", "the nineteen nineties."),
    ("the '90s", "the nineties."),
    ("2000s", "two thousands."),
    ("2026-11-24", "november twenty fourth, twenty twenty six."),
    ("24/11/2026", "november twenty fourth, twenty twenty six."),
    ("11/24/2026", "november twenty fourth, twenty twenty six."),
    ("3/4/2026", "march fourth, twenty twenty six."),
    ("24.11.2026", "november twenty fourth, twenty twenty six."),
    ("Nov 24, 2026", "november twenty fourth, twenty twenty six."),
    ("Nov. 24, 2026 was", "november twenty fourth, twenty twenty six was."),
    ("November 24th", "november twenty fourth."),
    ("24 November", "the twenty fourth of november."),
    ("24 November 2026", "the twenty fourth of november, twenty twenty six."),
    ("the 24th of November", "the twenty fourth of november."),
    ("Nov 2026", "november twenty twenty six."),
    ("May 5", "may fifth."),
    ("may 5 people", "may five people."),
    ("3:05 pm", "three oh five p m."),
    ("3:05pm", "three oh five p m."),
    ("15:00", "fifteen hundred."),
    ("12:30", "twelve thirty."),
    ("3:00", "three o'clock."),
    ("9 am", "nine a m."),
    ("9am", "nine a m."),
    ("10 a.m. today", "ten a m today."),
    ("at 5 p.m. The end", "at five p m. the end."),
    ("9:00-17:00", "nine o'clock to seventeen hundred."),
    ("07:05:30", "seven oh five and thirty seconds."),
    ("2026-11-24T15:00:00Z", "november twenty fourth, twenty twenty six, fifteen hundred."),
    ("$3.50", "three dollars and fifty cents."),
    ("$1", "one dollar."),
    ("$0.99", "ninety nine cents."),
    ("£20", "twenty pounds."),
    ("€1,000", "one thousand euros."),
    ("5¢", "five cents."),
    ("1¢", "one cent."),
    ("$2.5 million", "two point five million dollars."),
    ("$5k", "five thousand dollars."),
    ("$5bn", "five billion dollars."),
    ("US$10", "u s ten dollars."),
    ("20€", "twenty euros."),
    ("-$5", "minus five dollars."),
    ("$10-$20", "ten dollars to twenty dollars."),
    ("£1.01", "one pound and one penny."),
    ("50%", "fifty percent."),
    ("12.5%", "twelve point five percent."),
    ("1/2", "one half."),
    ("3/4", "three quarters."),
    ("1/3", "one third."),
    ("5/16", "five sixteenths."),
    ("7/100", "seven over one hundred."),
    ("2 1/2 cups", "two and one half cups."),
    ("2½ cups", "two and one half cups."),
    ("½", "one half."),
    ("5 km", "five kilometers."),
    ("1 km", "one kilometer."),
    ("3.2 GB", "three point two gigabytes."),
    ("70 kg", "seventy kilograms."),
    ("20°C", "twenty degrees celsius."),
    ("20 °C", "twenty degrees celsius."),
    ("-40°F", "minus forty degrees fahrenheit."),
    ("60 mph", "sixty miles per hour."),
    ("100 km/h", "one hundred kilometers per hour."),
    ("5 m/s", "five meters per second."),
    ("5km", "five kilometers."),
    ("10 m² ", "ten square meters."),
    ("10-20", "ten to twenty."),
    ("10–20", "ten to twenty."),
    ("1914-1918", "nineteen fourteen to nineteen eighteen."),
    ("pages 5-7", "pages five to seven."),
    ("555-1234", "five five five, one two three four."),
    ("555-123-4567", "five five five, one two three, four five six seven."),
    ("(555) 123-4567", "five five five, one two three, four five six seven."),
    ("+44 20 7946 0958", "plus four four, two zero, seven nine four six, zero nine five eight."),
    ("1-800-555-1234", "one, eight zero zero, five five five, one two three four."),
    ("v0.23.9", "version zero point twenty three point nine."),
    ("v2", "version two."),
    ("1.2.3", "one point two point three."),
    ("192.168.1.1", "one nine two dot one six eight dot one dot one."),
    ("Henry VIII was", "henry the eighth was."),
    ("Louis XIV", "louis the fourteenth."),
    ("World War II", "world war two."),
    ("Chapter IV", "chapter four."),
    ("I think", "i think."),
    ("Dr. Smith", "doctor smith."),
    ("Dr Smith", "doctor smith."),
    ("12 Main St. is", "twelve main street is."),
    ("St. Paul", "saint paul."),
    ("Mr. and Mrs. Jones vs. Co.", "mister and missus jones versus company."),
    ("e.g. this", "for example this."),
    ("i.e. that", "that is that."),
    ("etc.", "et cetera."),
    ("apples, etc. Then", "apples, et cetera. then."),
    ("No. 5", "number five."),
    ("no. He left", "no. he left."),
    ("approx. 5", "approximately five."),
    ("J. R. R. Tolkien", "j r r tolkien."),
    ("J.R.R. Tolkien", "j r r tolkien."),
    ("the U.S. is", "the u s is."),
    ("in the U.S. The", "in the u s. the."),
    ("USB", "u s b."),
    ("NASA", "nasa."),
    ("CPUs", "c p u's."),
    ("the CPU's", "the c p u's."),
    ("HTML", "h t m l."),
    ("HELLO WORLD", "hello world."),
    ("STOP NOW", "stop now."),
    ("FBI", "f b i."),
    ("I do NOT know", "i do not know."),
    ("ASAP", "a s a p."),
    ("Ph.D.", "p h d."),
    ("R&D", "r and d."),
    ("AT&T", "a t and t."),
    ("a & b", "a and b."),
    ("me @ home", "me at home."),
    ("#5", "number five."),
    ("#tag", "hashtag tag."),
    ("2+2=4", "two plus two equals four."),
    ("x = 5", "x equals five."),
    ("5 * 3", "five times three."),
    ("5*3", "five times three."),
    ("50/50", "fifty fifty."),
    ("and/or", "and or."),
    ("he/she", "he or she."),
    ("10^6", "ten to the power of six."),
    ("a < b", "a less than b."),
    ("a > b", "a greater than b."),
    ("~5", "about five."),
    ("C# and C++ and F#", "c sharp and c plus plus and f sharp."),
    ("a_b", "a underscore b."),
    ("a|b", "a vertical bar b."),
    ("C:\\dir", "c, backslash dir."),
    ("5 $", "five dollars."),
    ("user@example.com", "user at example dot com."),
    (
        "https://example.com/path?x=1&y=2",
        "example dot com slash path question mark x equals one and y equals two.",
    ),
    ("www.rust-lang.org/", "w w w dot rust dash lang dot org."),
    ("example.com", "example dot com."),
    ("well-known", "well known."),
    ("COVID-19", "covid nineteen."),
    ("10-year-old", "ten year old."),
    ("word—word", "word, word."),
    ("yes - no", "yes, no."),
    ("yes -- no", "yes, no."),
    ("wait... what", "wait, what."),
    ("wait... What", "wait. what."),
    ("hm…", "hm."),
    ("one; two: three", "one, two, three."),
    ("(aside) text", "aside, text."),
    ("\"quoted,\" she said", "quoted, she said."),
    ("don’t", "don't."),
    ("'tis the dogs'", "tis the dogs."),
    ("café naïve Straße Øre œuvre łódź", "cafe naive strasse ore oeuvre lodz."),
    ("α and β", "alpha and beta."),
    ("Ωmega", "omega mega."),
    ("ＡＢＣ １２３", "a b c one hundred twenty three."),
    ("日本語 hello", "hello."),
    ("😀 hello 👍🏽", "smiling face hello thumbs up."),
    ("a\u{200b}b", "ab."),
    ("OpenAI and GitHub and McDonald", "open a i and git hub and mcdonald."),
    ("iPhone", "i phone."),
    ("B2B A4 3D 4K", "b two b a four three d four k."),
    ("747", "seven hundred forty seven."),
    ("16:9", "sixteen to nine."),
    ("John 3:16", "john three sixteen."),
    ("24/7", "twenty four seven."),
    ("10x", "ten x."),
    ("5'10\"", "five foot ten."),
    ("$1.5M-$2M", "one point five million dollars to two million dollars."),
    ("*bold* and **very** _under_", "bold and very under."),
    ("# Heading", "heading."),
    ("- item", "item."),
    ("1. first", "one, first."),
    ("hmm", "hmm."),
    ("file.txt", "file dot t x t."),
    ("end.Next one", "end. next one."),
    ("π r²", "pi r squared."),
    ("№ 5", "number five."),
    ("50th-anniversary", "fiftieth anniversary."),
    ("It costs $5/hour.", "it costs five dollars per hour."),
    ("3–4 pm", "three to four p m."),
    ("1,2,3", "one, two, three."),
    ("1 000 000", "one million."),
    ("I. He", "i. he."),
    ("Is it? Yes! \"No?\" he said.", "is it? yes! no? he said."),
    ("What?!", "what?"),
    ("the 5th of May, 2020.", "the fifth of may, twenty twenty."),
    ("Q3 2025", "q three twenty twenty five."),
    ("1e9", "one e nine."),
    ("2x4", "two by four."),
    ("1/0", "one over zero."),
    ("Acme Inc. is", "acme incorporated is."),
    ("Acme Inc. They", "acme incorporated. they."),
    ("Jan. 5", "january fifth."),
    ("Smith et al. found", "smith et al found."),
    ("item(s)", "items."),
    ("the 80s.", "the eighties."),
    ("Rome, 44 B.C. and", "rome, forty four b c and."),
    ("5 GHz.", "five gigahertz."),
    ("5 000 people", "five thousand people."),
    ("room 5 101", "room five one hundred one."),
    ("He is 5'10\" tall.", "he is five foot ten tall."),
    ("The CEO of IBM said \"no\".", "the c e o of i b m said no."),
    ("WE ARE THE CHAMPIONS", "we are the champions."),
    ("It's IT time for US.", "it's i t time for u s."),
    ("UNESCO, UNICEF and OECD", "unesco, unicef and o e c d."),
    ("3rd-party", "third party."),
    ("fiancée's résumé", "fiancee's resume."),
    ("Mon-Fri 9-5", "monday to friday nine to five."),
    ("10,000-20,000", "ten thousand to twenty thousand."),
    ("-10 to -20", "minus ten to minus twenty."),
    ("25%-30%", "twenty five percent to thirty percent."),
    (
        "$1,234,567.89",
        "one million two hundred thirty four thousand five hundred sixty seven dollars and eighty nine cents.",
    ),
    ("$0.05", "five cents."),
    ("$100.00", "one hundred dollars."),
    ("€3.5bn", "three point five billion euros."),
    ("1st/2nd", "first slash second."),
    ("A/B test", "a slash b test."),
    ("N/A", "not applicable."),
    ("w/ cheese w/o salt", "with cheese without salt."),
    ("He said: \"Go!\"", "he said, go!"),
    ("(1) one (2) two", "one, one, two, two."),
    ("1) first", "one, first."),
    ("[1] see", "one, see."),
    ("Figs. 3 and 4", "figures three and four."),
    ("p. 5 and pp. 6-9", "page five and pages six to nine."),
    ("Vol. 2, ch. 3", "volume two, chapter three."),
    ("Sgt. Pepper's", "sergeant pepper's."),
    ("Gen. Lee", "general lee."),
    ("Washington, D.C. is", "washington, d c is."),
    ("7 p.m. Monday", "seven p m monday."),
    ("Elizabeth II's reign", "elizabeth the second's reign."),
    ("Part I", "part one."),
    ("Act V", "act five."),
    ("Apollo 11", "apollo eleven."),
    ("555.123.4567", "five five five, one two three, four five six seven."),
    ("123-45-6789", "one two three, four five, six seven eight nine."),
    ("1.5x", "one point five x."),
    ("3x4x5", "three by four by five."),
    ("0x1F", "zero x one f."),
    ("C3PO", "c three p o."),
    ("#1 and #2", "number one and number two."),
    ("@user", "at user."),
    ("100 %", "one hundred percent."),
    ("2 ft. tall", "two feet tall."),
    ("6 lbs. of", "six pounds of."),
    ("16 oz", "sixteen ounces."),
    ("1 h 30 min", "one hour thirty minutes."),
    ("500ms", "five hundred milliseconds."),
    ("44.1 kHz", "forty four point one kilohertz."),
    ("1 kWh", "one kilowatt hour."),
    ("3 GB/s", "three gigabytes per second."),
    ("9.8 m/s²", "nine point eight meters per second squared."),
    ("1.2.3.4:8080", "one dot two dot three dot four colon eight thousand eighty."),
    ("10.0.0.0/8", "one zero dot zero dot zero dot zero slash eight."),
    ("31/12/99", "december thirty first, nineteen ninety nine."),
    ("Jan 1", "january first."),
    ("1 Jan 2000", "the first of january, two thousand."),
    ("on Sunday, Dec. 25.", "on sunday, december twenty fifth."),
    ("Mar. 3", "march third."),
    ("by 2030s", "by twenty thirties."),
    ("the 60s-70s", "the sixties to seventies."),
    ("1980s'", "nineteen eighties."),
    ("20s", "twenties."),
    ("mid-1990s", "mid nineteen nineties."),
    ("pre-2000", "pre two thousand."),
    ("2000-2010", "two thousand to twenty ten."),
    ("1999/2000", "nineteen ninety nine slash two thousand."),
    ("6 1/2", "six and one half."),
    ("1/2 cup", "one half cup."),
    ("100/100", "one hundred over one hundred."),
    ("½ hour", "one half hour."),
    ("3½", "three and one half."),
    ("π ≈ 3.14159", "pi approximately three point one four one five nine."),
    ("a → b", "a to b."),
    ("50 ± 2", "fifty plus or minus two."),
    ("™ and ©", "trademark and copyright."),
    ("TODO: fix", "todo, fix."),
    ("e.g., this", "for example, this."),
    ("U.K., U.S.", "u k, u s."),
    ("vs", "versus."),
    ("Yes.No", "yes. no."),
    ("a.b.c", "a b c."),
    ("...and then", "and then."),
    ("what?? no!! ", "what? no!"),
    ("«Bonjour» dit-il", "bonjour dit il."),
    ("fooBarBaz", "foo bar baz."),
    ("XMLHttpRequest", "x m l h t t p request."),
    ("ABCs", "a b c's."),
    ("OKs", "okays."),
    ("Mr", "mister."),
    ("Ms. Lee", "miss lee."),
    ("rock 'n' roll", "rock n roll."),
    ("y'all'd've", "y'all'd've."),
    ("O'Brien and D'Angelo", "o'brien and d'angelo."),
    ("x-ray T-shirt", "x ray t shirt."),
    ("snake_case_name", "snake underscore case underscore name."),
    ("~/.bashrc", "tilde slash dot bashrc."),
    ("/usr/bin/env", "slash usr slash bin slash env."),
    ("+5", "plus five."),
    ("+1 555 123 4567", "plus one, five five five, one two three, four five six seven."),
    ("(+44) 20 7946 0958", "plus four four, two zero, seven nine four six, zero nine five eight."),
    ("Tel. 555-1234", "telephone five five five, one two three four."),
    ("9/11", "nine eleven."),
    ("7-Eleven", "seven eleven."),
    ("Windows 95", "windows ninety five."),
    ("iOS 17.4.1", "i o s seventeen point four point one."),
    ("GPT-4", "g p t four."),
    ("nth", "nth."),
    ("2:1", "two to one."),
    ("1:100", "one to one hundred."),
    ("EUR 5", "e u r five."),
    ("5 USD", "five u s d."),
    ("¥500", "five hundred yen."),
    ("₹10", "ten rupees."),
    ("$1.5", "one point five dollars."),
    ("£0", "zero pounds."),
    ("$1 million", "one million dollars."),
    ("$.50", "fifty cents."),
    ("5 - 3", "five minus three."),
    ("=5", "equals five."),
    ("We ran 5 km. The dog ran 6.", "we ran five kilometers. the dog ran six."),
    ("9.8m/s²", "nine point eight meters per second squared."),
    ("5km/h", "five kilometers per hour."),
    (
        "I paid $20, and he paid £5; that's it.",
        "i paid twenty dollars, and he paid five pounds, that's it.",
    ),
    (
        "The temp. was 72°F at 6:30 a.m. on Jan. 3rd.",
        "the temperature was seventy two degrees fahrenheit at six thirty a m on january third.",
    ),
    (
        "\"Why?\" asked Mr. Holmes. \"Because it's 3 o'clock.\"",
        "why? asked mister holmes. because it's three o'clock.",
    ),
    (
        "See https://en.wikipedia.org/wiki/Speech_synthesis#History for more.",
        "see en dot wikipedia dot org slash wiki slash speech underscore synthesis hashtag history for more.",
    ),
    (
        "In 1066, William I won; in 1547 Henry VIII died.",
        "in ten sixty six, william the first won, in fifteen forty seven henry the eighth died.",
    ),
    ("He scored 9.5/10 (95%).", "he scored nine point five out of ten, ninety five percent."),
    (
        "The meeting is from 10-11am, Mon. through Fri., in Room 4B.",
        "the meeting is from ten to eleven a m, monday through friday, in room four b.",
    ),
    (
        "Call 1 (800) 555-0199 ext. 23.",
        "call one, eight zero zero, five five five, zero one nine nine extension twenty three.",
    ),
    (
        "Mix 1/2 cup of flour w/ 2-3 tbsp of sugar.",
        "mix one half cup of flour with two to three tablespoons of sugar.",
    ),
    ("Ph: 020 7946 0958", "p h, zero two zero, seven nine four six, zero nine five eight."),
    ("C'est la vie! Voilà.", "c'est la vie! voila."),
    (
        "The ratio's 3:1; the score was 3-0.",
        "the ratio's three to one, the score was three to zero.",
    ),
    ("Yesterday (Sunday) we met.", "yesterday, sunday, we met."),
    ("Hello,world.How are you?I am fine.", "hello, world. how are you? i am fine."),
    ("Section 3.2.1 says so.", "section three point two point one says so."),
    ("See fig. 3, p. 12.", "see figure three, page twelve."),
    ("the A320 and the B-52", "the a three hundred twenty and the b fifty two."),
    ("J.K. Rowling's book", "j k rowling's book."),
    ("He was born c. 1850.", "he was born circa eighteen fifty."),
    ("x>5 && y<=3", "x greater than five and y less than or equal to three."),
    ("It's 5:00!", "it's five o'clock!"),
    ("the '60s were great.", "the sixties were great."),
    ("100m dash", "one hundred meters dash."),
    ("1 in 5", "one in five."),
    ("5-year plan; 3-D film", "five year plan, three d film."),
    ("St Mary's St.", "saint mary's street."),
    ("Prof. J. Smith, Ph.D., et al.", "professor j smith, p h d, et al."),
    ("e.g. Paris", "for example paris."),
    ("Who's there??", "who's there?"),
    ("This is it…", "this is it."),
    ("No. 10 Downing St.", "number ten downing street."),
    ("He said no. 10 people left.", "he said number ten people left."),
    ("Sam's iPhone 15 Pro Max.", "sam's i phone fifteen pro max."),
    ("3.5mm jack", "three point five millimeters jack."),
    ("Vitamin B12", "vitamin b twelve."),
    ("WiFi, Wi-Fi", "wi fi, wi fi."),
    ("2.5K", "two point five k."),
    ("$3M", "three million dollars."),
    ("— Hello", "hello."),
    ("[citation needed]", "citation needed."),
    ("1st.", "first."),
    ("2nd St.", "second street."),
    ("5:30-6:30pm", "five thirty to six thirty p m."),
    ("2026/11/24", "november twenty fourth, twenty twenty six."),
    ("Nov 24th, 2026, we", "november twenty fourth, twenty twenty six, we."),
    ("10:30 PM EST", "ten thirty p m e s t."),
    ("Mr. X", "mister x."),
    ("It carries 90 %. Then", "it carries ninety percent. then."),
    ("TERMS AND CONDITIONS", "terms and conditions."),
    ("<name of author>", "name of author."),
    ("salt (&) pepper", "salt and, pepper."),
];

#[test]
fn written_and_said() {
    let front = TextFrontend::default();
    let mut wrong = Vec::new();
    for (written, said) in SAID {
        let got = front.normalise(written);
        if got != *said {
            wrong.push(format!("{written:?}\n  expected {said:?}\n  got      {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), SAID.len(), wrong.join("\n"));
    assert!(SAID.len() >= 150);
}

fn texts(chunks: &[Chunk]) -> Vec<&str> {
    chunks.iter().map(|c| c.text.as_str()).collect()
}

fn cut(text: &str, max_chars: usize) -> Vec<String> {
    let front = TextFrontend::new(Options { max_chars, ..Options::default() }).unwrap();
    let speech = front.speak(text).unwrap();
    speech.chunks.into_iter().map(|c| c.text).collect()
}

#[test]
fn sentences_become_chunks() {
    assert_eq!(
        cut("Dr. Smith went home at 3.30 yesterday. Was it late? He did not think so at all!", 90),
        [
            "doctor smith went home at three point three zero yesterday. was it late?",
            "he did not think so at all!"
        ]
    );
    // Tiny ones are joined where they fit.
    assert_eq!(cut("Yes. No. Maybe. Who knows?", 90), ["yes. no. maybe. who knows?"]);
    assert_eq!(cut("Yes. No. Maybe. Who knows?", 20), ["yes. no. maybe.", "who knows?"]);
    // Blank lines, list items and headings end sentences too.
    assert_eq!(
        cut(
            "# A longer heading here\n\nThe first paragraph\ngoes on here\n- and an item\n- another item in it",
            90
        ),
        [
            "a longer heading here.",
            "the first paragraph goes on here. and an item.",
            "another item in it."
        ]
    );
}

#[test]
fn long_sentences_are_cut_at_clauses() {
    let text = "When the rain had stopped, the children ran out into the garden, and because the \
                grass was still wet they took off their shoes and danced until the sun went down.";
    let chunks = cut(text, 90);
    assert_eq!(
        chunks,
        [
            "when the rain had stopped, the children ran out into the garden.",
            "and because the grass was still wet they took off their shoes.",
            "and danced until the sun went down."
        ]
    );
    // Without commas: before a conjunction rather than anywhere.
    assert_eq!(
        cut("the quick brown fox jumps over the lazy dog because the dog sleeps in the sun", 50),
        ["the quick brown fox jumps over the lazy dog.", "because the dog sleeps in the sun."]
    );
    // Without anything: between words, and inside a word that could never fit.
    let chunks = cut(&"la ".repeat(100), 30);
    assert!(chunks.iter().all(|c| c.len() <= 30 && c.ends_with('.')), "{chunks:?}");
    let chunks = cut(&"a".repeat(100), 30);
    assert_eq!(chunks.len(), 4);
    assert_eq!(chunks[0], format!("{}.", "a".repeat(29)));
    assert_eq!(chunks[3], format!("{}.", "a".repeat(13)));
}

#[test]
fn ends_of_sentences_are_marked() {
    let front = TextFrontend::new(Options { max_chars: 40, ..Options::default() }).unwrap();
    let speech = front
        .speak("one two three four five six seven eight nine ten. Eleven twelve thirteen fourteen!")
        .unwrap();
    let marks: Vec<(bool, char)> = speech
        .chunks
        .iter()
        .map(|c| (c.ends_sentence, c.text.chars().next_back().unwrap()))
        .collect();
    assert_eq!(marks, [(false, '.'), (true, '.'), (true, '!')]);
}

#[test]
fn nothing_is_dropped_silently() {
    let front = TextFrontend::default();
    let speech =
        front.speak("Hi \u{65e5}\u{672c}, pay $5 \u{0}now \u{1f600} caf\u{e9}\u{200b}.").unwrap();
    assert_eq!(texts(&speech.chunks), ["hi, pay five dollars now smiling face cafe."]);
    let report = &speech.report;
    let unspeakable: Vec<(&str, usize)> =
        report.unspeakable.iter().map(|u| (u.text.as_str(), u.position)).collect();
    assert_eq!(unspeakable, [("\u{65e5}\u{672c}", 3), ("\u{0}", 18)]);
    let replaced: Vec<(&str, &str)> =
        report.replaced.iter().map(|r| (r.original.as_str(), r.spoken.as_str())).collect();
    assert_eq!(replaced, [("\u{1f600}", "smiling face"), ("\u{200b}", ""), ("$5", "five dollars")]);
    assert!(front.speak("Plain words, well-known ones.").unwrap().report.is_empty());
    assert!(!report.is_empty());
}

#[test]
fn texts_without_speech_are_errors() {
    let front = TextFrontend::default();
    for (text, mention) in [
        ("", "no text"),
        (" \n\t", "no text"),
        ("... !? --- (:)", "punctuation"),
        ("\u{65e5}\u{672c}\u{8a9e}", "\u{65e5}\u{672c}\u{8a9e}"),
        ("\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}", "byte 0"),
        ("\u{0}\u{1}", "byte 0"),
    ] {
        let e = front.speak(text).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidText, "{text:?}");
        assert!(e.to_string().contains(mention), "{text:?}: {e}");
    }
    let e = utf8(b"abc\xff").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidText);
    assert!(e.to_string().contains("byte 3"), "{e}");
    assert_eq!(utf8(b"abc").unwrap(), "abc");
    for max_chars in [0, 19, 1001] {
        let e = TextFrontend::new(Options { max_chars, ..Options::default() }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn characters_have_ids() {
    let mut vocabulary = Vocabulary {
        speech: 16,
        end_of_speech: 16,
        begin: 17,
        start_of_speech: 18,
        pad: 19,
        first_character: 20,
        characters: ALPHABET.to_string(),
        ..Vocabulary::default()
    };
    assert_eq!(tokens(&vocabulary, "a z.").unwrap(), [26, 20, 51, 23]);
    vocabulary.characters = " ab".to_string();
    assert_eq!(tokens(&vocabulary, "ab.").unwrap_err().kind(), ErrorKind::InvalidText);
}

#[test]
fn sentences_come_as_they_are_fed() {
    let mut front = TextFrontend::default();
    assert!(front.feed("Hello the").unwrap().is_empty());
    assert!(
        front.feed("re, my friend.").unwrap().is_empty(),
        "a digit or quote could still follow"
    );
    assert_eq!(texts(&front.feed("\n").unwrap()), ["hello there, my friend."]);
    // An abbreviation waits, even at the end of a line.
    assert!(front.feed("I met Mr.\n").unwrap().is_empty());
    assert_eq!(texts(&front.feed("Jones today! And").unwrap()), ["i met mister jones today!"]);
    assert_eq!(texts(&front.feed(" then\n\nwe left").unwrap()), ["and then."]);
    assert_eq!(texts(&front.flush().unwrap()), ["we left."]);
    assert!(front.flush().unwrap().is_empty());
    front.feed("\u{65e5} a. ").unwrap();
    front.feed("b \u{65e5}").unwrap();
    front.flush().unwrap();
    let report = front.take_report();
    assert_eq!(report.unspeakable.iter().map(|u| u.position).collect::<Vec<_>>(), [0, 9]);
    assert!(front.take_report().is_empty());
    // A text without any end is not held back for ever.
    let mut out = 0;
    for _ in 0..2000 {
        out += front.feed("word ").unwrap().len();
    }
    assert!(out > 0);
}

/// Words without marks or spaces, so that hard cuts do not matter.
fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_lowercase() || *c == '\'').collect()
}

fn check(text: &str, max_chars: usize) {
    let front = TextFrontend::new(Options { max_chars, ..Options::default() }).unwrap();
    let whole = front.normalise(text);
    let chunks = match front.speak(text) {
        Ok(speech) => speech.chunks,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::InvalidText);
            assert_eq!(whole, "");
            return;
        }
    };
    let mut joined = String::new();
    for c in &chunks {
        assert!(c.text.chars().all(|c| ALPHABET.contains(c)), "{:?} from {text:?}", c.text);
        assert!(c.text.len() <= max_chars, "{:?} from {text:?}", c.text);
        assert!(c.text.ends_with(['.', '?', '!']), "{:?} from {text:?}", c.text);
        assert!(c.text.starts_with(|c: char| c.is_ascii_lowercase()), "{:?} from {text:?}", c.text);
        assert!(!c.text.contains("  "), "{:?} from {text:?}", c.text);
        joined.push_str(&letters(&c.text));
    }
    assert_eq!(joined, letters(&whole), "from {text:?}");
    assert!(chunks.last().unwrap().ends_sentence);
}

#[test]
fn random_text_never_panics_and_keeps_the_alphabet() {
    let mut rng = StdRng::seed_from_u64(0x5eed);
    let parts = [
        "1",
        "0",
        "99",
        "1984",
        "000",
        ".",
        ",",
        "-",
        "/",
        ":",
        "$",
        "\u{a3}",
        "%",
        "\u{b0}C",
        "km",
        " ",
        " ",
        " ",
        "\n",
        "\n\n",
        "st",
        "th",
        "s",
        "'",
        "'s",
        "am",
        "p.m.",
        "Mr.",
        "St.",
        "Nov",
        "24",
        "Henry",
        "VIII",
        "USA",
        "CPUs",
        "http://",
        "@",
        "#",
        "+",
        "(",
        ")",
        "\"",
        "?",
        "!",
        "...",
        "\u{2014}",
        "\u{2013}",
        "\u{bd}",
        "\u{b2}",
        "\u{d7}",
        "x",
        "T",
        "v",
        "U.S.",
        "a",
        "Word",
        "e.g.",
        "*",
        "_",
        "<",
        ">",
        "~",
        "^",
        "|",
        "\\",
        "=",
        "\u{e9}",
        "\u{3b1}",
        "\u{65e5}",
        "\u{1f600}",
        "\u{0}",
        "\u{feff}",
        "\u{3002}",
        "\u{ff21}",
        "'90s",
        "million",
        "McD",
        "iP",
    ];
    for round in 0..20_000 {
        let mut text = String::new();
        match round % 3 {
            0 => {
                for _ in 0..rng.random_range(1..30) {
                    text.push_str(parts[rng.random_range(0..parts.len())]);
                }
            }
            1 => {
                for _ in 0..rng.random_range(1..40) {
                    let c = match rng.random_range(0..4) {
                        0 => rng.random_range(0..0x80),
                        1 => rng.random_range(0..0x400),
                        2 => rng.random_range(0..0x3000),
                        _ => rng.random_range(0..0x11_0000),
                    };
                    text.extend(char::from_u32(c));
                }
            }
            _ => {
                let bytes: Vec<u8> =
                    (0..rng.random_range(0..60)).map(|_| rng.random::<u8>()).collect();
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        check(&text, [20, 45, 90, 1000][round % 4]);

        // Fed in pieces, the same letters come out.
        if round % 20 == 0 {
            let mut front = TextFrontend::default();
            let mut fed = String::new();
            for c in text.chars() {
                for chunk in front.feed(c.encode_utf8(&mut [0; 4])).unwrap() {
                    fed.push_str(&chunk.text);
                }
            }
            for chunk in front.flush().unwrap() {
                fed.push_str(&chunk.text);
            }
            assert!(fed.chars().all(|c| ALPHABET.contains(c)));
        }
    }
}

#[test]
fn feeding_says_what_speaking_says() {
    let text = "Dr. Jones paid $3.50 at 5 p.m. on Nov. 24, 2026. He left! Was it \"late\"? \
                She asked (e.g. twice) in the U.S. and got 3.2 GB. The end.\n\nA new part\nwith \
                lines... and more. Version v0.23.9 came. It is Henry VIII. J. R. Smith wrote it.";
    let whole = TextFrontend::default().normalise(text);
    for step in [1, 2, 7, 50, 1000] {
        let mut front = TextFrontend::default();
        let mut fed = Vec::new();
        let bytes = text.as_bytes();
        for part in bytes.chunks(step) {
            fed.extend(front.feed(std::str::from_utf8(part).unwrap()).unwrap());
        }
        fed.extend(front.flush().unwrap());
        assert_eq!(texts(&fed).join(" "), whole, "step {step}");
    }
}

#[test]
fn a_megabyte_takes_less_than_a_second() {
    let million = |part: &str| part.repeat(1_000_000 / part.len() + 1);
    for part in [
        "The quick brown fox, aged 12, paid $3.50 on Nov 24, 2026. ",
        "a",
        "1",
        " ",
        "\n",
        ".",
        "-",
        "1-",
        "1.",
        "A.",
        "a b ",
        "(",
        "\u{65e5}",
        "\u{1f600}",
        "Mr. ",
        "aB",
        "+1 ",
        "1 000 ",
        "VII ",
        "\u{bd}",
        "@a.",
        "<>",
        "'s",
        "12:30 ",
        "**a** ",
        "[a](b) ",
        "[",
        "](",
        "<b>",
        "<b>x</b> ",
        "&amp; ",
        "&",
        "| a |\n|---|\n",
        "# a\n",
        "<speak>",
        "1-",
        "1/2 ",
        "a/",
        "1h",
        "a\u{300}",
        "\u{2079}",
        "A\n",
        "4242 ",
        "x ",
    ] {
        let text = million(part);
        let start = Instant::now();
        let front = TextFrontend::default();
        let _ = front.speak(&text);
        let speak = start.elapsed();
        let start = Instant::now();
        let mut front = TextFrontend::default();
        for piece in text.as_bytes().chunks(1200) {
            let _ = front.feed(&String::from_utf8_lossy(piece));
        }
        let _ = front.flush();
        let feed = start.elapsed();
        println!("{part:?}: {speak:?}, fed {feed:?}");
        // Generous for a slow, shared machine; quadratic behaviour would take minutes.
        assert!(
            speak.as_secs_f64() < 5.0 && feed.as_secs_f64() < 5.0,
            "{part:?}: {speak:?} {feed:?}"
        );
    }
}

/// What is wrong in a file of lines `text TAB said [/ said]... TAB kind`: `\n` in a text is a
/// line break, readings are compared word by word, marks count in the kind `break` alone.
fn wrong_cases(cases: &str) -> (usize, Vec<String>) {
    let front = TextFrontend::default();
    let (mut all, mut wrong) = (0, Vec::new());
    for line in cases.lines().filter(|l| !l.trim().is_empty()) {
        let mut fields = line.split('\t');
        let text = fields.next().unwrap().replace("\\n", "\n");
        let said = fields.next().expect("a second field, the words");
        let kind = fields.next().unwrap_or("");
        let marks = kind == "break";
        let plain = |s: &str| -> String {
            let kept: String =
                s.chars().filter(|c| marks || !matches!(c, ',' | '.' | '?' | '!')).collect();
            kept.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let got = plain(&front.normalise(&text));
        all += 1;
        if !said.split(" / ").any(|s| plain(s) == got) {
            wrong.push(format!("{kind}\t{text:?}\n  expected {said}\n  got      {got}"));
        }
    }
    (all, wrong)
}

#[test]
fn written_and_said_by_kind() {
    let (all, wrong) = wrong_cases(include_str!("data/texts.tsv"));
    assert!(wrong.is_empty(), "{} of {all} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(all >= 400, "{all} texts");
}

#[test]
fn prose_is_said_as_it_is_written() {
    let front = TextFrontend::default();
    for line in include_str!("../tools/data/harvard.txt").lines() {
        let report = front.speak(line).unwrap().report;
        assert!(report.is_empty(), "{line:?}: {report:?}");
        assert_eq!(front.normalise(line), line);
    }
}

/// The file that `VOXGRAIN_TEXT_CASES` names, in the form of `data/texts.tsv`; nothing without.
#[test]
fn cases_of_a_file() {
    let Some(path) = std::env::var_os("VOXGRAIN_TEXT_CASES") else { return };
    let (all, wrong) = wrong_cases(&std::fs::read_to_string(path).unwrap());
    assert!(wrong.is_empty(), "{} of {all} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn wrong_ssml_is_an_error_with_its_place() {
    let front = TextFrontend::default();
    for (text, mention) in [
        ("<speak>one\n<brake/></speak>", "line 2, column 1: <brake> is not understood"),
        ("<speak>one", "line 1, column 11: <speak> is not closed"),
        ("<speak>a <p>b</speak>", "line 1"),
        ("<speak>\n  <break time=\"soon\"/></speak>", "line 2, column 3"),
        ("<speak><break time=\"1e9s\"/></speak>", "a break of"),
        ("<speak><break time=\"-1s\"/></speak>", "a break of"),
        ("<speak><break time=\"NaNs\"/></speak>", "a break of"),
        ("<speak>one</speak> two", "line 1, column 20: text stands outside"),
        ("<speak><sub>x</sub></speak>", "needs alias"),
        ("<speak><say-as>x</say-as></speak>", "needs interpret-as"),
        ("<speak><phoneme>x</phoneme></speak>", "needs ph"),
        ("<speak><phoneme alphabet=\"x-sampa\" ph=\"a\">x</phoneme></speak>", "give ipa"),
        ("<speak><prosody rate=\"warp\">x</prosody></speak>", "a rate of"),
        ("<speak><prosody rate=\"0%\">x</prosody></speak>", "not within"),
        ("<speak>&nosuch;</speak>", "line 1, column 8"),
        ("<speak><speak>x</speak></speak>", "inside <speak>"),
        ("<speak a=1>x</speak>", "line 1"),
        ("<!DOCTYPE x [<!ENTITY y \"z\">]><speak>&y;</speak>", "SSML"),
    ] {
        let e = match front.speak(text) {
            Err(e) => e,
            // Auto reads what does not begin as SSML as text.
            Ok(_) => {
                let ssml = Options { markup: Markup::Ssml, ..Options::default() };
                TextFrontend::new(ssml).unwrap().speak(text).unwrap_err()
            }
        };
        assert_eq!(e.kind(), ErrorKind::InvalidText, "{text:?}");
        assert!(e.to_string().contains(mention), "{text:?}: {e}");
    }
    let ssml = Options { markup: Markup::Ssml, ..Options::default() };
    let e = TextFrontend::new(ssml).unwrap().speak("no document").unwrap_err();
    assert!(e.to_string().contains("line 1, column 1"), "{e}");
}

#[test]
fn ssml_is_data_for_the_voice() {
    let front = TextFrontend::default();
    let speech = front
        .speak(
            "<speak>Hello <break time=\"1.5s\"/> world. <prosody rate=\"150%\">Quick</prosody> end. \
             I say <phoneme ph=\"təˈmɑːtəʊ\">tomato</phoneme>.</speak>",
        )
        .unwrap();
    let all: Vec<(&str, f32, f32)> =
        speech.chunks.iter().map(|c| (c.text.as_str(), c.pause_after, c.rate)).collect();
    let sentence = Pauses::default().sentence;
    assert_eq!(all[0], ("hello.", 1.5, 1.0));
    assert_eq!(all[1], ("world.", sentence, 1.0));
    assert_eq!(all[2], ("quick.", 0.0, 1.5));
    assert!(!speech.chunks[0].ends_sentence && speech.chunks[1].ends_sentence);
    let last = speech.chunks.last().unwrap().words.last().unwrap();
    assert_eq!((last.text.as_str(), last.phonemes.as_deref()), ("tomato", Some("təˈmɑːtəʊ")));
    // Fed in parts, the document is one.
    let mut fed = TextFrontend::default();
    assert!(fed.feed("<speak>One. Two. ").unwrap().is_empty());
    assert_eq!(texts(&fed.feed("Three.</speak> And ").unwrap()), ["one. two. three."]);
    assert_eq!(texts(&fed.flush().unwrap()), ["and."]);
    assert!(fed.feed(&format!("<speak>{}", "a ".repeat(3000))).is_err());
    assert_eq!(texts(&fed.feed("It goes on. ").unwrap()), ["it goes on."]);
}

#[test]
fn markup_is_taken_as_asked() {
    let with = |markup, text: &str| {
        TextFrontend::new(Options { markup, ..Options::default() }).unwrap().normalise(text)
    };
    assert_eq!(with(Markup::None, "a &amp; b"), "a and amp, b.");
    assert_eq!(with(Markup::Auto, "a &amp; b"), "a and b.");
    assert_eq!(with(Markup::Markdown, "2*3*4"), "two hundred thirty four.");
    assert_eq!(with(Markup::Auto, "2*3*4"), "two times three times four.");
    assert_eq!(with(Markup::Auto, "if x <b and c> d"), with(Markup::None, "if x <b and c> d"));
    // Prose that Markdown would take for a list keeps its number.
    assert_eq!(with(Markup::Auto, "1986. A **great** year."), "nineteen eighty six. a great year.");
}

#[test]
fn random_markup_never_panics() {
    let mut rng = StdRng::seed_from_u64(0x5eed);
    let parts = [
        "<speak>",
        "</speak>",
        "<break time=\"60s\"/>",
        "<break strength='weak'/>",
        "<p>",
        "</p>",
        "<s>",
        "</s>",
        "<prosody rate='200%'>",
        "</prosody>",
        "<sub alias='x'>",
        "</sub>",
        "<say-as interpret-as='date' format='dmy'>",
        "</say-as>",
        "<phoneme ph='a'>",
        "</phoneme>",
        "&amp;",
        "&",
        "&#0;",
        "&#x1F600;",
        "[",
        "](",
        ")",
        "**",
        "*",
        "_",
        "|",
        "|---|",
        "\n",
        "\n\n",
        "# ",
        "- ",
        "1. ",
        "```",
        "`",
        "<b>",
        "</b>",
        "<br>",
        "<script>",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<",
        ">",
        "\u{fffc}",
        "\u{e9}",
        "\u{65e5}",
        "word",
        "4/7/2024",
        "12",
        " ",
        " ",
        "    ",
        "===\n",
        "~~",
        "!",
    ];
    for round in 0..20_000 {
        let mut text = String::from(if round % 2 == 0 { "<speak>" } else { "" });
        for _ in 0..rng.random_range(1..25) {
            text.push_str(parts[rng.random_range(0..parts.len())]);
        }
        if round % 4 == 0 {
            text.push_str("</speak>");
        }
        let markup = [Markup::Auto, Markup::Markdown, Markup::Ssml][round % 3];
        let mut front = TextFrontend::new(Options { markup, ..Options::default() }).unwrap();
        match front.speak(&text) {
            Err(e) => assert_eq!(e.kind(), ErrorKind::InvalidText, "{text:?}"),
            Ok(speech) => {
                for c in &speech.chunks {
                    assert!(c.text.chars().all(|c| ALPHABET.contains(c)), "{text:?}");
                    assert!((0.0..=Pauses::MAX).contains(&c.pause_after), "{text:?}");
                    assert!((0.1..=10.0).contains(&c.rate), "{text:?}");
                    assert!(text.get(c.source.clone()).is_some(), "{text:?}");
                }
                assert!(front.explain(&text).is_ok());
            }
        }
        let _ = front.feed(&text);
        let _ = front.flush();
    }
}

#[test]
fn structure_makes_pauses() {
    let pauses =
        Pauses { comma: 0.01, clause: 0.02, sentence: 0.03, paragraph: 0.04, heading: 0.05 };
    let front = TextFrontend::new(Options { max_chars: 60, pauses, ..Options::default() }).unwrap();
    let text = "# A heading\n\nThis is the first paragraph of it. This is its second sentence.\n\n\
                The second paragraph is one long sentence; it has a clause that is longer, and \
                a comma that is further on in the very same sentence.";
    let speech = front.speak(text).unwrap();
    let got: Vec<(&str, f32)> =
        speech.chunks.iter().map(|c| (c.text.as_str(), c.pause_after)).collect();
    assert_eq!(
        got,
        [
            ("a heading.", 0.05),
            ("this is the first paragraph of it.", 0.03),
            ("this is its second sentence.", 0.04),
            ("the second paragraph is one long sentence.", 0.02),
            ("it has a clause that is longer.", 0.01),
            ("and a comma that is further on in the very same sentence.", 0.04),
        ]
    );
    for wrong in [-1.0, f32::NAN, 1e9] {
        let pauses = Pauses { comma: wrong, ..Pauses::default() };
        let e = TextFrontend::new(Options { pauses, ..Options::default() }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn lines_are_joined_or_not() {
    let text = "an error came\nanother one came\n";
    let front = TextFrontend::default();
    assert_eq!(front.normalise(text), "an error came another one came.");
    let lines = Options { lines: true, ..Options::default() };
    let mut front = TextFrontend::new(lines).unwrap();
    assert_eq!(front.normalise(text), "an error came. another one came.");
    assert_eq!(texts(&front.feed("an error came\nanot").unwrap()), ["an error came."]);
    assert_eq!(texts(&front.flush().unwrap()), ["anot."]);
}

#[test]
fn long_sentences_are_not_cut_where_it_hurts() {
    // Not behind a conjunction, although a comma stands there.
    let chunks = cut(
        "He went to the old town by the sea and, although nobody knew it, he stayed there for good",
        50,
    );
    assert!(chunks.iter().all(|c| !c.ends_with(" and.")), "{chunks:?}");
    // Not inside a number, not inside a date.
    let chunks = cut("they counted every one of the 123,456 birds there", 60);
    assert_eq!(
        chunks,
        [
            "they counted every one of the.",
            "one hundred twenty three thousand four hundred fifty six.",
            "birds there."
        ]
    );
    let text = "the old treaty of peace was signed on July 4, 1776 in the town hall";
    for max_chars in 45..90 {
        let chunks = cut(text, max_chars);
        let date = "july fourth, seventeen seventy six";
        assert!(chunks.iter().any(|c| c.contains(date)), "{max_chars}: {chunks:?}");
    }
}

#[test]
fn words_know_where_they_come_from() {
    let text = "Caf\u{e9} **No.** 5 opens at noon. \u{65e5} Dr. Li pays $3.50.";
    let sentences = explain(text, Options::default()).unwrap();
    let sources: Vec<&str> = sentences.iter().map(|s| &text[s.source.clone()]).collect();
    assert_eq!(sources.concat().replace(' ', ""), text.replace([' ', '\u{65e5}'], ""));
    let of = |word: &str| {
        let words = sentences.iter().flat_map(|s| &s.words);
        let word = words.into_iter().find(|w| w.text == word).unwrap();
        &text[word.source.clone()]
    };
    assert_eq!(of("cafe"), "Caf\u{e9}");
    assert_eq!(of("five"), "5");
    assert_eq!(of("doctor"), "Dr.");
    assert_eq!(of("dollars"), "$3.50.");
    let replaced: Vec<(&str, &str)> = sentences
        .iter()
        .flat_map(|s| &s.replaced)
        .map(|r| (&text[r.source.clone()], r.spoken.as_str()))
        .collect();
    assert!(replaced.contains(&("$3.50.", "three dollars and fifty cents")), "{replaced:?}");
    let left_out: Vec<usize> =
        sentences.iter().flat_map(|s| &s.left_out).map(|u| u.position).collect();
    assert_eq!(left_out, [text.find('\u{65e5}').unwrap()]);
    // Fed in parts, places count from the start of all that was fed.
    let mut front = TextFrontend::default();
    let mut fed = front.feed("One here. Two ").unwrap();
    fed.extend(front.feed("there. ").unwrap());
    fed.extend(front.flush().unwrap());
    let places: Vec<_> = fed.iter().map(|c| c.source.clone()).collect();
    assert_eq!(places, [0..9, 10..20]);
}

#[test]
fn letters_are_respelt_where_asked() {
    let respelling = Respelling::Letters;
    let front = TextFrontend::new(Options { respelling, ..Options::default() }).unwrap();
    let speech = front.speak("A USB stick, two CPUs, plan A and I.").unwrap();
    assert_eq!(texts(&speech.chunks), ["a you ess bee stick, two see pee yous, plan ay and i."]);
    let front = TextFrontend::new(Options { respelling, max_chars: 20, ..Options::default() });
    let speech = front.unwrap().speak("www www www www www").unwrap();
    assert!(speech.chunks.iter().all(|c| c.text.len() <= 20));
    assert_eq!(letter_name('w'), Some("double you"));
    assert_eq!(letter_name('W'), None);
    assert_eq!(letter_name('\u{e9}'), None);
    let plain = TextFrontend::default().speak("A USB stick").unwrap();
    let letters: Vec<bool> = plain.chunks[0].words.iter().map(|w| w.letter).collect();
    assert_eq!(letters, [false, true, true, true, false]);
}
