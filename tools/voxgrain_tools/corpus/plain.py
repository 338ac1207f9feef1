"""Sentences from Debian's free texts and generated ones: lower case in [a-z ' , . ? !] and space, digits as words."""

from __future__ import annotations

import glob
import gzip
import html
import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator

PACKAGES = [
    "wordnet-base",
    "anarchism",
    "fortunes",
    "fortunes-min",
    "dict-gcide",
    "dict-jargon",
    "dict-foldoc",
    "debian-handbook",
    "wamerican",
]
# Words that a public voice need not learn.
UNWANTED = re.compile(r"\b(nigg|fagg|cunt|kike|spic\b|whore|fuck|shit|rape|slut|pussy|bitch|penis|vagina|orgasm)")

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
MONTHS = ("january february march april may june july august september october november december").split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()


def number_words(n: int) -> str:
    if n < 0:
        return "minus " + number_words(-n)
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (" " + ONES[n % 10] if n % 10 else "")
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            joint = " and " if size == 100 and rest else " "
            return number_words(n // size) + " " + name + (joint + number_words(rest) if rest else "")


def ordinal_words(n: int) -> str:
    words = number_words(n).split(" ")
    last = words[-1]
    words[-1] = ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return " ".join(words)


def year_words(year: int) -> str:
    high, low = divmod(year, 100)
    if 2000 <= year < 2010:
        return "two thousand" + (" and " + ONES[low] if low else "")
    if low == 0:
        return number_words(high) + " hundred"
    return number_words(high) + (" oh " + ONES[low] if low < 10 else " " + number_words(low))


def _spell_number(match):
    text = match.group(0).replace(",", "")
    if "." in text:
        whole, part = text.split(".", 1)
        return number_words(int(whole or 0)) + " point " + " ".join(ONES[int(c)] for c in part)
    if len(text) > 12:
        return " ".join(ONES[int(c)] for c in text)
    n = int(text)
    return year_words(n) if len(text) == 4 and 1100 <= n < 2100 else number_words(n)


def normalise(text: str) -> str | None:
    """Lower case, digits spelled out, only letters and ' , . ? ! left. None where it is not prose."""
    text = html.unescape(text).replace("\u2019", "'").replace("\u2018", "'")
    text = re.sub(r"[\u2013\u2014]|--+", ", ", text)
    text = re.sub(
        r"(\d+)(st|nd|rd|th)\b", lambda m: ordinal_words(int(m.group(1))) if len(m.group(1)) < 5 else "", text
    )
    text = re.sub(r"\$(\d[\d,.]*)\b", r"\1 dollars", text)
    text = re.sub(r"(\d)%", r"\1 percent", text).replace("&", " and ")
    text = re.sub(r"\d+(,\d{3})*(\.\d+)?", _spell_number, text)
    text = re.sub(r"\b(e\.g|i\.e)\.,?", lambda m: "for example," if m.group(1)[0] == "e" else "that is,", text)
    text = re.sub(r"[;:]", ",", text.lower())
    text = re.sub(r"\([^()]{0,2}\)", " ", text)
    text = re.sub(r"[()\"`*_\[\]{}\u201c\u201d]", " ", text).replace("''", " ")
    text = re.sub(r"(?<=[a-z])[-/](?=[a-z])", " ", text)
    if re.search(r"[^a-z ',.?!\s]", text):
        return None
    text = re.sub(r"(?<![a-z])'|'(?![a-z])", " ", text)
    text = re.sub(r"\.{2,}", ",", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" ?([,.?!])[ ,.?!]*", r"\1 ", text).strip(" ,")
    return text or None


def finish(text: str, rng: random.Random | None = None) -> str:
    """Sentence-final punctuation, kept where there is one."""
    if text[-1] in ".?!":
        return text
    return text + "."


def sentences(prose: str) -> Iterator[str]:
    prose = re.sub(r"\b(Mr|Mrs|Dr|St|Prof|vs|etc|No|Vol|pp|p|ed|cf|al)\.", r"\1", prose)
    for piece in re.split(r"(?<=[.?!])[\"')\]_*]*\s+(?=[\"'(\[_*]*[A-Z])", prose):
        yield re.sub(r"\s+", " ", piece).strip()


def clauses(text: str, longest: int = 250) -> Iterator[str]:
    """Splits a text that is too long at commas (training keeps texts of up to 250 characters)."""
    if len(text) <= longest:
        yield text
        return
    current = ""
    for part in text.split(", "):
        if current and len(current) + len(part) + 2 > longest:
            yield current
            current = part
        else:
            current = current + ", " + part if current else part
    if current and len(current) <= longest:
        yield current


def read(path: str) -> str:
    """A text file, gzipped or not."""
    raw = open(path, "rb").read()
    if raw[:2] == b"\x1f\x8b":  # dictzip files are gzip files
        raw = gzip.decompress(raw)
    return raw.decode("utf-8", "replace")


def wordnet(root: str) -> Iterator[tuple[str, str]]:
    for path in sorted(glob.glob(f"{root}/usr/share/wordnet/data.*")):
        for line in read(path).splitlines():
            if "|" not in line or line.startswith(" "):
                continue
            gloss = line.split("|", 1)[1].strip()
            for example in re.findall(r'"([^"]+)"', gloss):
                yield "example", example
            for part in re.sub(r'"[^"]*"?', "", gloss).split(";"):
                part = re.sub(r"^[\s-]*\([^)]*\)\s*", "", part).strip(" -,")
                if part:
                    yield "gloss", part


def prose_files(root: str, pattern: str) -> Iterator[tuple[str, str]]:
    for path in sorted(glob.glob(f"{root}/{pattern}", recursive=True)):
        text = read(path)
        if path.endswith(".html"):
            text = re.sub(r"(?s)<(pre|script|style|code class=\"screen).*?</\1>", "\n\n", text)
            text = re.sub(r"</?(p|div|li|h\d|dd|dt|td)[^>]*>", "\n\n", text)
            text = html.unescape(re.sub(r"<[^>]+>", "", text))
        text = re.sub(r"\]\([^)]*\)", "]", text)  # links of Markdown
        text = re.sub(r"\[[^\[\]]*(p\.|pp\.|Op\. Cit)[^\[\]]*\]", " ", text)  # references
        for paragraph in re.split(r"\n\s*\n|\n%\n", text):
            if re.search(r"^\s*(#|\||>|\$|=|\*\s*\*)", paragraph) or "http" in paragraph or "@" in paragraph:
                continue
            yield from (("prose", s) for s in sentences(paragraph))


def dictionary(root: str, name: str) -> Iterator[tuple[str, str]]:
    text = read(glob.glob(f"{root}/usr/share/dictd/{name}.dict.dz")[0])
    text = re.sub(r"\[[^\[\]]{0,40}\]", " ", text).replace("{", "").replace("}", "")
    text = re.sub(r"(?m)\s+--\s*[A-Z][\w. ()']*$", "\n", text)
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        # Head words and their pronunciation start in the first column.
        body = " ".join(l.strip() for l in lines if l.startswith(" "))
        body = re.sub(r"^(\d+\.|\([a-z]\)|<[^>]*>|[a-z]{1,4}\.)\s*", "", body.strip())
        body = re.sub(r"\([A-Z][a-z]+\.?\)\s*", "", body)
        if "\\" in body or "<" in body or "http" in body:
            continue
        yield from (("prose", s) for s in sentences(body))


FIRST_NAMES = (
    "mary john linda james susan robert karen michael nancy david lisa william betty richard helen "
    "thomas sandra charles donna daniel carol matthew ruth anthony sharon mark laura donald sarah "
    "steven kevin jessica brian anna george emma edward alice henry julia peter grace frank rose "
    "oliver sophia lucas maria samuel diana victor nina leo clara hugo iris"
).split()
LAST_NAMES = (
    "smith johnson williams brown jones garcia miller davis martinez lopez wilson anderson taylor "
    "moore jackson martin lee thompson white harris clark lewis robinson walker young allen king "
    "wright scott green baker adams nelson hill campbell mitchell roberts carter phillips evans "
    "turner parker collins edwards stewart morris murphy cook rogers morgan cooper peterson reed "
    "bailey bell howard ward cox richardson wood watson brooks bennett gray hughes price foster"
).split()
PLACES = (
    "london paris berlin madrid rome boston chicago denver seattle toronto sydney tokyo dublin vienna "
    "oslo prague lisbon athens cairo delhi new york san francisco los angeles hong kong"
).split()
THINGS = (
    "apples bread milk butter eggs rice tea coffee sugar salt soap paper pens candles towels batteries "
    "flour onions carrots oranges lemons cheese honey beans pepper garlic nails rope paint gloves socks "
    "shirts shoes books maps lamps chairs plates cups forks spoons knives bottles jars seeds"
).split()
ROOMS = "kitchen,bedroom,living room,office,garage,hall,bathroom,garden,cellar,attic".split(",")
DEVICES = "lights,heating,radio,television,alarm,fan,music,oven,blinds,sprinkler".split(",")
COMMANDS = (
    "turn on the {d} in the {r}|turn off the {d} in the {r}|set a timer for {n} minutes|call {p} at {t}|"
    "remind me to buy {x} on {D}|play the next song|read my messages from {p}|what's the weather like in {c}|"
    "set the {d} to {n} degrees|add {x} to the shopping list|open the door of the {r}|"
    "send a message to {p}|how far is it to {c}|wake me up at {t}|please turn down the {d}|"
    "tell {p} that i will be {n} minutes late|find a train to {c} on {D}"
).split("|")
FACTS = (
    "the meeting starts at {t} on {D}|the train to {c} leaves from platform {n} at {t}|it costs {m}|"
    "the total is {m}|she was born on {e}|he died on {e} in {c}|the date is {e}|it is {t}|"
    "{p} lives at {a}|the phone number is {f}|the temperature is {n} degrees|about {N} people live in {c}|"
    "we sold {N} {x} last year|{p} and {p} went to {c} in {M}|the code is {f}|chapter {n}, page {k}|"
    "we need {x}, {x}, and {x}|{p} bought {k} {x} and {k} {x}|flight {k} to {c} has been delayed by {n} minutes|"
    "the answer is {k}|on {D} the {o} of {M}, {p} paid {m} for {x}|there are {N} of them|room {k} is on the {o} floor|"
    "in {y}, {p} moved from {c} to {c}|the score was {n} to {n}|{k} point {w}|{k} percent of the {x} were sold|"
    "the first three items are {x}, {x} and {x}|my name is {p}|this is {p} from {c}|dear {p}, thank you for the {x}"
).split("|")
QUESTIONS = (
    "do you have any {x}|how much are the {x}|did {p} call on {D}|when does the train to {c} leave|"
    "is it {t} already|where is the {r}|who is {p}|why did {p} go to {c}|can you bring {n} {x}|"
    "was it {m} or {m}|are you coming to {c} in {M}|would {p} like some {x}|which {x} are yours|"
    "what happened on {e}|have you met {p}|is the {d} in the {r} on|how many {x} are in the {r}"
).split("|")
SHORT = (
    "yes|no|hello|goodbye|good morning|good night|thank you|thanks a lot|you're welcome|of course|not at all|"
    "maybe later|i don't know|come in|wait here|stop|go|help|sorry|excuse me|well done|what|why|who|where|when|"
    "how|really|oh no|oh yes|all right|okay|never mind|see you|take care|good luck|be careful|hurry up|"
    "let's go|sit down|stand up|look out|listen|one moment|right now|just a minute|sounds good|i see"
).split("|")


def generated(rng: random.Random, count: int) -> Iterator[str]:
    """Numbers, dates, times, money, names, lists, questions and commands."""

    def name():
        return rng.choice(FIRST_NAMES) + (" " + rng.choice(LAST_NAMES) if rng.random() < 0.6 else "")

    def clock():
        hour, minute = rng.randint(1, 12), rng.randint(0, 59)
        style = rng.random()
        if minute == 0 or style < 0.15:
            text = ONES[hour] + rng.choice([" o'clock", " in the morning", " in the evening"])
        elif style < 0.3:
            text = rng.choice(["half past ", "quarter past ", "quarter to "]) + ONES[hour]
        else:
            text = ONES[hour] + (" oh " + ONES[minute] if minute < 10 else " " + number_words(minute))
            text += rng.choice(["", " a m", " p m", "", ""])
        return text

    def date():
        text = rng.choice(MONTHS) + " " + ordinal_words(rng.randint(1, 31))
        return text + (", " + year_words(rng.randint(1700, 2060)) if rng.random() < 0.6 else "")

    def money():
        dollars, cents = rng.choice([rng.randint(1, 99), rng.randint(100, 9999)]), rng.randint(1, 99)
        text = number_words(dollars) + (" dollar" if dollars == 1 else " dollars")
        return text + (" and " + number_words(cents) + " cents" if rng.random() < 0.5 else "")

    def number():
        return number_words(rng.choice([rng.randint(100, 999), rng.randint(1000, 99999), rng.randint(10**5, 10**8)]))

    slots = {
        "n": lambda: number_words(rng.randint(2, 59)),
        "k": lambda: number_words(rng.randint(1, 999)),
        "N": number,
        "o": lambda: ordinal_words(rng.randint(1, 31)),
        "y": lambda: year_words(rng.randint(1500, 2060)),
        "w": lambda: " ".join(rng.choice(ONES[:10]) for _ in range(rng.randint(1, 4))),
        "f": lambda: " ".join(rng.choice(ONES[:10]) for _ in range(rng.choice([3, 4, 7]))),
        "m": money,
        "t": clock,
        "e": date,
        "p": name,
        "c": lambda: rng.choice(PLACES),
        "D": lambda: rng.choice(DAYS),
        "M": lambda: rng.choice(MONTHS),
        "x": lambda: rng.choice(THINGS),
        "r": lambda: rng.choice(ROOMS),
        "d": lambda: rng.choice(DEVICES),
        "a": lambda: (
            number_words(rng.randint(1, 999))
            + " "
            + rng.choice(LAST_NAMES)
            + rng.choice([" street", " road", " avenue", " lane"])
        ),
    }
    for _ in range(count):
        kind = rng.random()
        if kind < 0.25:
            template, end = rng.choice(QUESTIONS), "?"
        elif kind < 0.45:
            template, end = rng.choice(COMMANDS), rng.choice("..!")
        else:
            template, end = rng.choice(FACTS), "."
        text = re.sub(r"\{(\w)\}", lambda m: slots[m.group(1)](), template)
        if text.startswith(("what", "how ", "when", "where", "who", "why")):
            end = "?"
        yield text + end


def unpack(folder: str) -> None:
    """Downloads and unpacks the packages into folder/<package>, where they are not there yet."""
    os.makedirs(folder, exist_ok=True)
    for name in PACKAGES:
        if os.path.isdir(f"{folder}/{name}"):
            continue
        subprocess.run(
            ["apt-get", "download", "-q", name],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deb = sorted(glob.glob(f"{folder}/{name}_*.deb"))[-1]
        subprocess.run(["dpkg", "-x", deb, f"{folder}/{name}"], check=True)


def streams(folder: str) -> list[Iterator[tuple[str, str]]]:
    """(kind, prose) of each unpacked package: examples, glosses, prose."""
    found = [wordnet(f"{folder}/wordnet-base")]
    found.append(prose_files(f"{folder}/anarchism", "usr/share/doc/anarchism/markdown/*.md.gz"))
    for package in ("fortunes", "fortunes-min"):
        found.append(prose_files(f"{folder}/{package}", "usr/share/games/fortunes/*.u8"))
    found.append(prose_files(f"{folder}/debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html"))
    return found + [dictionary(f"{folder}/dict-{n}", n) for n in ("gcide", "jargon", "foldoc")]


def build(folder: str, count: int, seed: int, longest: int = 250) -> list[str]:
    rng = random.Random(seed)
    lexicon = set()
    for word in read(f"{folder}/wamerican/usr/share/dict/american-english").split():
        lexicon.add(word.lower().replace("\u2019", "'"))
    for path in glob.glob(f"{folder}/wordnet-base/usr/share/wordnet/index.*"):
        if path.endswith("sense"):
            continue
        for line in read(path).splitlines():
            if not line.startswith(" "):
                lexicon.update(re.findall(r"[a-z]+", line.split(" ", 1)[0]))
    for group in (FIRST_NAMES, LAST_NAMES, PLACES):
        lexicon.update(group)
    lexicon -= set("bcdefghjklmnpqrstuvwxyz")
    lexicon.update("a i o".split())

    pool, counts = {}, Counter()
    for stream in streams(folder):
        for kind, raw in stream:
            if not 3 <= len(raw) <= 900:
                continue
            text = normalise(raw)
            if not text or UNWANTED.search(text):
                continue
            for part in clauses(text, longest - 1):
                words = re.findall(r"[a-z']+", part)
                if not words or (kind == "prose" and len(words) < 3):
                    continue
                known = [w in lexicon or (w.endswith("'s") and w[:-2] in lexicon) for w in words]
                # One unknown word in a long text is a name; more of them is not English.
                if sum(known) < len(words) - (len(words) >= 6) or max(map(len, words)) > 20:
                    continue
                part = finish(part)
                if part not in pool:
                    pool[part] = kind
                    counts[kind] += 1
    print("pool", dict(counts), flush=True)

    short = {finish(s) for s in SHORT} | {s + "?" for s in SHORT[22:28]} | {s + "!" for s in SHORT[:22]}
    common = sorted(w for w in lexicon if 2 <= len(w) <= 14 and re.fullmatch(r"[a-z]+", w))
    frequency = Counter(w for t in pool for w in re.findall(r"[a-z']+", t))
    frequent = [w for w, n in frequency.most_common(30000) if w in lexicon]
    texts = [t for t in pool]
    # Three bins: up to 3 words, 20-110, 110-250 characters.
    middle = [t for t in texts if 20 <= len(t) < 110 and t.count(" ") >= 3]
    long = [t for t in texts if 110 <= len(t) <= longest]
    while len(short) < 0.06 * count:
        kind = rng.random()
        if kind < 0.35:
            text = rng.choice(frequent)
        elif kind < 0.45:
            text = rng.choice(common)
        else:  # two or three neighbouring words of a real text
            words = rng.choice(texts)[:-1].replace(",", "").split(" ")
            size = rng.randint(2, 3)
            start = rng.randrange(max(1, len(words) - size))
            text = " ".join(words[start : start + size])
        if text and re.match(r"[a-z]", text):
            short.add(finish(text.strip(" .?!,") or "yes"))
    made = set()
    for text in generated(rng, int(0.15 * count)):
        if len(text) <= longest:
            made.add(text)
    rng.shuffle(middle)
    rng.shuffle(long)
    long = long[: int(0.08 * count)]
    room = count - len(short) - len(made) - len(long)
    # Examples first: they read like speech. Then long ones less often, for the mean.
    middle.sort(key=lambda t: rng.random() * (0.4 if pool[t] == "example" else 1.0 + max(0, len(t) - 45) / 25))
    chosen = list(short | made) + long + middle[:room]
    chosen = sorted(set(chosen))
    rng.shuffle(chosen)
    return chosen
