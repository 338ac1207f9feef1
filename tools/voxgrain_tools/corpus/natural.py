"""corpus-text --natural: training sentences as people write them, with capitals, digits and marks.

A natural teacher's front end reads these, so nothing is spelled out. Beside prose there are kinds that prose is poor
in: initialisms and single letters, digits in runs, phone numbers, parallel clauses and short replies."""

from __future__ import annotations

import html
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from . import plain
from .teachers import written

LONGEST = 230  # Characters: about as many phonemes as a teacher says at once.
# A line with one of these is taken for a sentence; others are fragments, mostly glosses, of which three in ten stay.
FINITE = re.compile(
    r"\b(is|are|was|were|am|has|have|had|do|does|did|will|would|can|could|shall|should|may|might|must|cannot|"
    r"let's|[a-z]+n't|[a-z]+'(ll|re|ve|m|d)|he|she|they|we|you|i|it's|that's|there's|he's|she's|what's)\b",
    re.IGNORECASE,
)
READABLE = re.compile(r"[A-Za-z0-9 ,.;:!?'\"()\u2014\u201c\u201d%$&-]+")
# Long numbers, long words in capitals, dotted names and quotes in quotes: not what a sentence is made of.
UNREADABLE = re.compile(r"\d{5}|[A-Z]{8}|\.\S*\.\S|['\"]{2}")
FRAGMENTS = 0.3
KNOWN = 0.85  # Share of a line's words that a dictionary has: the others are names.

INITIALISMS = """
    USB USA HR UK EU FBI CIA TV PC CPU GPU RAM DVD CD LED LCD GPS PIN ATM CEO CFO CTO PR IT AI ML API URL HTML CSS XML
    SQL PDF JPG DNA RNA HIV MRI ICU ER DIY FAQ ETA RSVP VIP NBA NFL BBC CNN NBC IBM HP AMD BMW VW KFC UPS FM AM AC DC UV
    IQ ID OS UI UX SSD HDMI VPN IP TCP UDP DNS HTTP SSH FTP ISP SMS MMS LTE USD GDP IPO LLC MBA PhD BA MIT UCLA NYU LSU
    SUV RV EV MP3 MP4 H2O CO2 B2B R2D2 C3PO WW2 UFO ESP TNT LSD THC CBD PTSD ADHD OCD BMI BPM RPM MPH KPH PSI DB HQ VAT
    IRS DMV TSA EPA FDA CDC UN WTO IMF NGO PTA NYPD LAPD SOS ASAP PS RIP TBA TBD FYI BTW OK JFK LA DC NY NJ
""".split()
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Slots: I initialism, L letter, d a number below twenty, f phone number, r run of digits, p first name, x thing, v what
# one does, a adjective.
SPELLED = (
    "The {I} is broken|Plug in the {I} cable|She works in {I}|He joined the {I} last year|Ask {I} about it|"
    "Is the {I} on|The {I} and the {I} met today|{I}|Send it to {I}|Turn off the {I}|My {I} has failed|"
    "We need a new {I}|An {I} is coming|The {I}'s door is open|{I}, {I}, and {I}|Press {L}, then {L}|The letter {L}|"
    "Spell it {L}, {L}, {L}, {L}|Gate {L} {d}|Row {d}, seat {L}|Vitamin {L}|Plan {L}|Grade {L}|"
    "Option {L} or option {L}|{L}|{L}, {L}, {L}|Room {d}{L}|Flight {L}{L} {d} {d} {d}|The code is {L}{L}{L} {d} {d} {d}"
).split("|")
DIGITS = (
    "Call {f} now|My number is {f}|The phone number is {f}|Dial {f}|It is {f}|{f}|The code is {r}|Your code is {r}|"
    "Enter {r}|The pin is {r}|Account {r}|The card ends in {r}|Extension {r}|Zip code {r}|{r}|Count with me, {r}|"
    "Track {r} is on its way"
).split("|")
PARALLEL = (
    "{p} bought {x}, {p} bought {x}, and {p} bought {x}|First {v}, then {v}, and then {v}|"
    "It was not {a}, it was not {a}, it was {a}|The {x} are {a}, the {x} are {a}, and the {x} are {a}|"
    "We {v}, we {v}, and we {v}|If you {v}, I will {v}|Either {v} or {v}|"
    "Monday to {p}, Tuesday to {p}, Wednesday to {p}|{x}, {x}, {x}, {x} and {x}|"
    "We need {x}, {x}, {x}, and more {x}|To {v} or not to {v}|{a}, {a}, and {a} again|"
    "The {a} one, the {a} one, and the {a} one"
).split("|")
VERBS = (
    "go home,wait here,read the book,open the door,close the window,sing a song,write it down,call me,eat the bread,"
    "wash the plates,leave it,paint the wall,look up,listen,try again,run,sleep,stay,think about it,move on"
).split(",")
ADJECTIVES = (
    "red,green,blue,big,small,cold,warm,old,new,good,bad,fast,slow,dark,light,heavy,quiet,loud,clean,empty"
).split(",")
REPLIES = (
    "Yes.|No.|Yes, please.|No, thanks.|Okay.|Sure.|Maybe.|Done.|Ready.|Hello.|Hi.|Bye.|Thanks.|Stop.|Go.|Left.|Right.|"
    "Up.|Down.|On.|Off.|One.|Two.|Three.|Four.|Five.|Six.|Seven.|Eight.|Nine.|Ten.|Zero.|Red.|Green.|Blue.|Now.|Later.|"
    "Never.|Always.|Here.|There.|Wait.|Why?|What?|When?|Where?|Who?|How?|Really?|Great!|Wow!|Oh no!|Good.|Fine.|Sorry.|"
    "Please.|I see.|I know.|Of course.|Not yet.|Not now.|All done.|Well done!|Come in.|Sit down.|Turn left.|"
    "Turn right.|Good night.|Good morning.|It's on.|It's off.|I am.|You too."
).split("|")
# Shares of all lines: short ones, `text.generated`, the kinds above; and of those kinds among each other.
SHORT, GENERATED, SPECIAL = 0.05, 0.10, 0.15
KINDS = ((SPELLED, 0.4), (DIGITS, 0.3), (PARALLEL, 0.25), (REPLIES, 0.05))


def key(line: str) -> str:
    """What two lines share that differ in case, digits and marks alone."""
    return re.sub("[^a-z ]", "", line.lower()).strip()


def spoken_digits(rng: random.Random, count: int) -> str:
    """So many digits as words; in four runs of ten some stand several times in a row, which a voice is apt to lose."""
    repeats, digits = rng.random() < 0.4, []
    for _ in range(count):
        again = bool(digits) and repeats and rng.random() < 0.45
        digits.append(digits[-1] if again else rng.randrange(10))
    return " ".join("oh" if d == 0 and rng.random() < 0.3 else plain.ONES[d] for d in digits)


def phone_number(rng: random.Random) -> str:
    groups = rng.choice([(3, 4), (3, 3, 4), (3, 3, 4), (1, 3, 3, 4), (5, 5), (2, 2, 2, 2)])
    return rng.choice([", ", ", ", ". ", " "]).join(spoken_digits(rng, n) for n in groups)


def kinds(rng: random.Random, count: int) -> Iterator[str]:
    """Initialisms, letters, digits, phone numbers, parallel clauses and short replies."""
    slots = {
        "I": lambda: (
            rng.choice(INITIALISMS)
            if rng.random() < 0.6
            else "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 4)))
        ),
        "L": lambda: rng.choice(LETTERS),
        "d": lambda: rng.choice(plain.ONES),
        "f": lambda: phone_number(rng),
        "r": lambda: spoken_digits(rng, rng.randint(2, 9)),
        "p": lambda: rng.choice(plain.FIRST_NAMES).capitalize(),
        "x": lambda: rng.choice(plain.THINGS),
        "v": lambda: rng.choice(VERBS),
        "a": lambda: rng.choice(ADJECTIVES),
    }
    pools, shares = zip(*KINDS)
    for _ in range(count):
        pool = rng.choices(pools, shares)[0]
        line = rng.choice(pool)
        if pool is not REPLIES:
            line = re.sub(r"\{(\w)\}", lambda m: slots[m.group(1)](), line)
            line = line[:1].upper() + line[1:] + ("?" if line.startswith("Is ") else rng.choice("....!"))
        yield line


def natural(raw: str) -> str | None:
    """Prose with its case, digits and marks; None for what a front end could not read."""
    line = html.unescape(raw).replace("\u2019", "'").replace("\u2018", "'").replace("--", "\u2014")
    line = re.sub(r"\s+", " ", re.sub(r"[*_`]", "", line)).strip(" -,;:")
    if not line or not READABLE.fullmatch(line) or UNREADABLE.search(line):
        return None
    if line.count("(") != line.count(")") or line.count('"') % 2:
        line = re.sub(r'[()"]', "", line)
    return line


def finish(part: str) -> str:
    part = part[0].upper() + part[1:]
    return part if part[-1] in ".?!" else part + "."


def lines_of(
    streams: Iterable[Iterable[tuple[str, str]]], words: set[str], apart: set[str], rng: random.Random
) -> Iterator[str]:
    """Lines of (kind, prose) whose words a dictionary has, without those whose `key` is in `apart`."""
    for kind, raw in (item for stream in streams for item in stream):
        if not 3 <= len(raw) <= 900:
            continue
        line = natural(raw)
        if not line or plain.UNWANTED.search(line.lower()):
            continue
        for part in plain.clauses(line, LONGEST):
            part = part.strip(" ,;:-")
            own = re.findall(r"[a-z']+", part.lower())
            if not 3 <= len(part) <= LONGEST or len(own) < (1 if kind == "gloss" else 2):
                continue
            if sum(w in words or w.removesuffix("'s") in words for w in own) < KNOWN * len(own):
                continue
            fragment = (kind == "gloss" or len(own) < 4) and not FINITE.search(part)
            if fragment and rng.random() > FRAGMENTS:
                continue
            part = finish(part)
            if key(part) and key(part) not in apart:
                yield part


def short_line(rng: random.Random, texts: list[str], common: list[str]) -> str:
    """One frequent word, or two or three neighbouring words of a real line; may be empty."""
    if rng.random() < 0.4:
        return rng.choice(common)
    words = re.sub(r"[^A-Za-z' ]", " ", rng.choice(texts)).split()
    size = rng.randint(2, 3)
    start = rng.randrange(max(1, len(words) - size))
    return " ".join(words[start : start + size])


def mix(texts: list[str], words: set[str], count: int, apart: set[str], rng: random.Random) -> list[str]:
    """`count` lines (fewer where there is less prose): prose, and the shares of short and generated lines."""
    frequency = Counter(w for t in texts for w in re.findall(r"[a-z']+", t))
    common = [w for w, _ in frequency.most_common(40000) if w in words]
    rng.shuffle(texts)
    short: list[str] = []
    while len(short) < SHORT * count:
        line = short_line(rng, texts, common)
        if re.match(r"[A-Za-z]", line):
            short.append(line[0].upper() + line[1:] + rng.choice("...?!"))
    made = [written(t) for t in plain.generated(rng, int(GENERATED * count)) if len(t) <= LONGEST]
    special = list(kinds(rng, int(SPECIAL * count)))
    chosen = texts[: count - len(short) - len(made) - len(special)] + short + made + special
    chosen = [t for t in chosen if key(t) not in apart]
    rng.shuffle(chosen)
    return chosen


def build(folder: str, count: int, seed: int, heldout: Iterable[str]) -> list[str]:
    """Lines from the packages unpacked in `folder`, none of them equal to a held-out one but for case and marks."""
    rng, apart = random.Random(seed), {key(line) for line in heldout} - {""}
    words = {w.lower() for w in plain.read(f"{folder}/wamerican/usr/share/dict/american-english").split()}
    texts = list(dict.fromkeys(lines_of(plain.streams(folder), words, apart, rng)))
    return mix(texts, words, count, apart, rng)
