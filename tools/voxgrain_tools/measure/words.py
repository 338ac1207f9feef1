"""Text and transcript as plain words, so that only what was heard differently counts as an error.

A recogniser writes numbers, money, times and initialisms as it likes: "$20", "3:05", "USA". Each such piece has several
readings; of a transcript the readings that come closest to the reference are taken."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import product

from ..corpus.plain import ONES, ORDINALS, TENS
from ..scoring import distance

Reading = tuple[str, ...]

SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"))
CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "sen")}
SHORT = {
    "mr": ["mister"],
    "mrs": ["missus", "misses"],
    "ms": ["miss"],
    "dr": ["doctor", "drive"],
    "st": ["saint", "street"],
    "vs": ["versus", "v s"],
    "etc": ["et cetera"],
    "ok": ["okay"],
    "jr": ["junior"],
    "sr": ["senior"],
    "prof": ["professor"],
    "ave": ["avenue"],
    "no": ["no", "number"],
    "mt": ["mount"],
    "ft": ["fort", "feet"],
    "km": ["kilometers"],
    "kg": ["kilograms"],
    "cm": ["centimeters"],
    "mm": ["millimeters"],
    "lbs": ["pounds"],
    "hr": ["h r", "hour"],
    "mph": ["miles per hour"],
    "ltd": ["limited"],
    "inc": ["incorporated"],
    "co": ["co", "company"],
    "percent": ["percent", "per cent"],
    "cannot": ["cannot", "can not"],
    "alright": ["alright", "all right"],
    "gray": ["gray", "grey"],
    "grey": ["grey", "gray"],
    "till": ["till", "til"],
    "o'clock": ["o'clock", "o clock"],
    "ma'am": ["ma'am", "mam"],
    "whiskey": ["whiskey", "whisky"],
    "ax": ["ax", "axe"],
    "plough": ["plough", "plow"],
}
# British spellings by their ends; a variant counts only where the reference has just that word.
ENDINGS = (
    ("our", "or"),
    ("ours", "ors"),
    ("oured", "ored"),
    ("ouring", "oring"),
    ("ise", "ize"),
    ("ised", "ized"),
    ("ises", "izes"),
    ("ising", "izing"),
    ("isation", "ization"),
    ("yse", "yze"),
    ("tre", "ter"),
    ("tres", "ters"),
    ("lled", "led"),
    ("lling", "ling"),
    ("ller", "ler"),
    ("ogue", "og"),
    ("ence", "ense"),
    ("ourite", "orite"),
    ("ourable", "orable"),
    ("ourhood", "orhood"),
    ("judgement", "judgment"),
    ("ageing", "aging"),
)
PIECE = re.compile(
    r"(?P<money>[$£€¥]\s?\d[\d,]*(?:\.\d+)?(?:\s(?:hundred|thousand|million|billion|trillion)\b)?)"
    r"|(?P<time>\b\d{1,2}:\d\d\b)"
    r"|(?P<ordinal>\b\d[\d,]*(?:st|nd|rd|th)\b)"
    r"|(?P<decade>'?\b\d+s\b)"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+)"
    r"|(?P<letters>\b(?:[a-z]\.){2,}(?:[a-z]\b)?(?:'?s\b)?)"
    r"|(?P<word>[a-z]+(?:'[a-z]+)*'?)"
    r"|(?P<mark>[%&+=@#/*°]|(?<=\d)-(?=\d))",
    re.IGNORECASE,
)
MARKS = {
    "%": ["percent", "per cent"],
    "&": ["and"],
    "+": ["plus", ""],
    "=": ["equals", "is", ""],
    "@": ["at"],
    "#": ["number", "hash", ""],
    "/": ["", "slash", "or", "over", "out of", "of", "to"],
    "*": ["", "times", "star"],
    "°": ["degrees", ""],
    "-": ["", "to", "minus", "dash", "through"],
}


def cardinal(n: int) -> list[str]:
    """American reading: 1105 is one thousand one hundred five."""
    if n < 20:
        return [ONES[n]]
    if n < 100:
        return [TENS[n // 10], *([ONES[n % 10]] if n % 10 else [])]
    if n < 1000:
        return [ONES[n // 100], "hundred", *(cardinal(n % 100) if n % 100 else [])]
    for size, name in SCALES:
        if n >= size:
            return [*cardinal(n // size), name, *(cardinal(n % size) if n % size else [])]
    raise AssertionError("every number from 1000 on has a scale")


def ordinal(n: int) -> list[str]:
    *head, last = cardinal(n)
    return [*head, ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")]


def _with_and(words: Sequence[str]) -> list[str]:
    """ "one hundred five" -> "one hundred and five", at the last hundred or thousand only."""
    for i in range(len(words) - 2, -1, -1):
        if words[i] in ("hundred", "thousand", "million"):
            return [*words[: i + 1], "and", *words[i + 1 :]]
    return list(words)


def _pair(n: int, text: str) -> list[list[str]]:
    """A two-digit half of a year, a flight or a house number."""
    if n == 0:
        return [["hundred"]]
    if n < 10 and len(text) == 2:
        return [["oh", ONES[n]], ["zero", ONES[n]]]
    return [cardinal(n)]


def integer(text: str) -> list[Reading]:
    """Readings of a run of digits (commas in it allowed): as a number, as a year, digit by digit."""
    digits = text.replace(",", "")
    found: list[list[str]] = []
    if len(digits) <= 15 and (len(digits) == 1 or digits[0] != "0"):
        plain = cardinal(int(digits))
        found += [plain, _with_and(plain)]
        if plain[0] == "one" and len(plain) > 1:
            found += [["a", *plain[1:]], _with_and(["a", *plain[1:]])]
    if "," not in text:
        if len(digits) == 4 and digits[0] != "0":
            found += [cardinal(int(digits[:2])) + low for low in _pair(int(digits[2:]), digits[2:])]
        elif len(digits) == 3 and digits[0] != "0":
            found += [[ONES[int(digits[0])], *low] for low in _pair(int(digits[1:]), digits[1:])]
        elif len(digits) == 2 and digits[0] == "0":
            found += _pair(int(digits), digits)
        for zero in ("zero", "oh", "o"):
            found.append([zero if d == "0" else ONES[int(d)] for d in digits])
        if len(digits) > 4 and len(digits) % 2 == 0:
            found.append(
                [w for i in range(0, len(digits), 2) for w in _pair(int(digits[i : i + 2]), digits[i : i + 2])[0]]
            )
    return _unique(found)


def number(text: str) -> list[Reading]:
    """Readings of digits with or without a decimal point."""
    whole, point, part = text.partition(".")
    if not point:
        return integer(whole)
    tails = [["point", *(zero if d == "0" else ONES[int(d)] for d in part)] for zero in ("zero", "oh")]
    tails.append(["point", *cardinal(int(part))])
    heads = [[], ["zero"], ["oh"]] if whole in ("", "0") else [list(r) for r in integer(whole)[:2]]
    return _unique(h + t for h, t in product(heads, tails))


def _plural(word: str) -> str:
    return {"penny": "pence", "yen": "yen", "sen": "sen"}.get(word, word + "s")


def _money(text: str) -> list[Reading]:
    unit, small = CURRENCIES[text[0]]
    amount, *scale = text[1:].split()
    whole, point, cents = amount.partition(".")
    if scale or (point and len(cents) != 2):
        one = [list(r) + scale for r in number(amount)]
        return _unique([*(r + [_plural(unit)] for r in one), *(r + [unit] for r in one)])
    found = []
    for head in integer(whole):
        named = [*head, unit if head == ("one",) else _plural(unit)]
        if not point or int(cents) == 0:
            found += [named, [*head, unit], [*head, _plural(unit)]]
            continue
        tail = cardinal(int(cents))
        coin = small if tail == ["one"] else _plural(small)
        if int(whole.replace(",", "")) == 0:
            found.append([*tail, coin])
        found += [
            [*named, "and", *tail, coin],
            [*named, *tail, coin],
            [*named, *tail],
            [*named, "and", *tail],
            [*head, *tail],
        ]
    return _unique(found)


def _time(text: str) -> list[Reading]:
    hour, minute = text.split(":")
    head = cardinal(int(hour))
    if int(minute) == 0:
        return _unique([head, [*head, "o'clock"], [*head, "hundred"]])
    return _unique([[*head, *low] for low in _pair(int(minute), minute)] + [[*head, *cardinal(int(minute))]])


def _decade(text: str) -> list[Reading]:
    found = []
    for reading in integer(text.strip("'s")):
        *head, last = reading
        found.append([*head, last[:-1] + "ies" if last.endswith("y") else last + "s"])
    return _unique(found)


def _spelt(word: str) -> list[str]:
    """The letters of an initialism, with a plural or possessive s on the last: "PCs" is p c's."""
    found = re.fullmatch(r"([A-Za-z]+?)('?s)?", word)
    if found is None:
        return []
    letters = list(found[1].lower())
    return [*letters[:-1], letters[-1] + "'s"] if found[2] else letters


def _word(text: str) -> list[Reading]:
    word = text.lower().rstrip("'")
    found: list[list[str]] = [[word]]
    found += [entry.split() for entry in SHORT.get(word, [])]
    if text[:1].isupper() and 2 <= len(text) <= 6 and sum(c.isupper() for c in text) >= 2:
        found.append(_spelt(text))
        found.append(list(word))
    for one, other in ENDINGS:
        for old, new in ((one, other), (other, one)):
            if word.endswith(old) and len(word) > len(old) + 1:
                found.append([word[: len(word) - len(old)] + new])
    if word.endswith("'s"):
        found += [[word[:-2], "is"], [word[:-2] + "s"]]
    return _unique(found)


def _unique(readings: Iterable[Sequence[str]]) -> list[Reading]:
    return list(dict.fromkeys(tuple(r) for r in readings))


def pieces(text: str) -> list[list[Reading]]:
    """The readings of each piece of a text, the likeliest first."""
    text = unicodedata.normalize("NFKC", text).translate(
        {0x2018: "'", 0x2019: "'", 0x2013: "-", 0x2014: " ", 0x2026: " "}
    )
    text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    found: list[list[Reading]] = []
    for match in PIECE.finditer(text):
        piece, kind = match[0], match.lastgroup
        if kind == "money":
            found.append(_money(piece))
        elif kind == "time":
            found.append(_time(piece))
        elif kind == "ordinal":
            found.append(
                _unique([ordinal(int(re.sub(r"\D", "", piece))), *([["oh", "first"]] if piece == "01st" else [])])
            )
        elif kind == "decade":
            found.append(_decade(piece))
        elif kind == "number":
            found.append(number(piece))
        elif kind == "letters":
            found.append(_unique([_spelt(piece.replace(".", "")), [piece.replace(".", "").lower()]]))
        elif kind == "mark":
            found.append([tuple(r.split()) for r in MARKS[piece]])
        else:
            found.append(_word(piece))
    return found


def plain(text: str) -> list[str]:
    """The words of a text, each piece in its likeliest reading."""
    return [word for readings in pieces(text) for word in readings[0]]


def closest(reference: Sequence[str], transcript: str) -> list[str]:
    """The words of a transcript, each piece in the reading that differs least from the reference."""
    readings = pieces(transcript)
    chosen = [r[0] for r in readings]

    def errors() -> int:
        return distance(reference, _joined(reference, [w for r in chosen for w in r]))

    best = errors()
    for _ in range(2):  # A reading may fit only after a later piece has found its own.
        before = best
        for i, options in enumerate(readings):
            if best == 0:
                break
            for option in options:
                kept, chosen[i] = chosen[i], option
                if (now := errors()) < best:
                    best = now
                else:
                    chosen[i] = kept
        if best in (0, before):
            break
    return _joined(reference, [w for r in chosen for w in r])


def _joined(reference: Sequence[str], heard: list[str]) -> list[str]:
    """ "ice cream" where the reference has "icecream", and the other way round: no listener hears the space."""
    known = set(reference)
    pairs = {a + b: (a, b) for a, b in zip(reference, reference[1:])}
    out: list[str] = []
    at = 0
    while at < len(heard):
        word, both = heard[at], "".join(heard[at : at + 2])
        if at + 1 < len(heard) and both in known and not (word in known and heard[at + 1] in known):
            out.append(both)
            at += 2
            continue
        out += pairs[word] if word not in known and word in pairs else (word,)
        at += 1
    return out


def digits(text: str) -> str:
    """The digits that a text says, however they are written: "555-oh one" is 55501."""
    values = {name: str(i) for i, name in enumerate(ONES[:10])} | {"oh": "0", "o": "0"}
    out, times = "", 1
    for token in re.findall(r"\d|[a-z]+", text.lower()):
        if token in ("double", "triple"):
            times = 2 if token == "double" else 3
        elif (value := token if token.isdigit() else values.get(token)) is not None:
            out += value * times
            times = 1
    return out


def letters_together(text: str) -> list[str]:
    """Words with single letters in a row as one: "U. S. A." and "the U S A" have "usa", "Ph.D." is "phd"."""
    text = re.sub(r"\b[A-Za-z]{1,2}\.(?:[A-Za-z]\b\.?)+", lambda m: m[0].replace(".", "") + " ", text)
    text = re.sub(r"\b([A-Za-z])\.", r"\1 ", text)
    out: list[str] = []
    run = ""
    for word in [*re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower()), ""]:
        if len(word) == 1:
            run += word
            continue
        if run:
            out.append(run)
            run = ""
        if word:
            out.append(word)
    return out
