"""Text as people write it: what stays, what is left out, and the kinds that prose is poor in."""

import random
import re

from voxgrain_tools.corpus import natural, plain


def test_case_digits_and_marks_stay():
    assert natural.natural("  In April 1981, *Acorn* won\n a contract (from the BBC); ") == (
        "In April 1981, Acorn won a contract (from the BBC)"
    )
    assert natural.natural("It\u2019s 5% &amp; up--at last") == "It's 5% & up\u2014at last"
    assert natural.natural('A "quote without an end') == "A quote without an end"
    for unreadable in ("see http://x", "number 123456", "foo.bar.com", "caf\u00e9", "ABCDEFGHIJ", "  "):
        assert natural.natural(unreadable) is None, unreadable


def test_lines_are_sentences_of_known_words_and_none_is_held_out():
    words = set("the cat sat on mat a small animal is here".split())
    stream = [
        ("prose", "the cat sat on the mat"),
        ("prose", "The cat is HERE, is it?"),
        ("prose", "zyx qwv the cat"),
        ("prose", "cat"),
        *(("gloss", "a small animal " + "on " * i) for i in range(200)),
    ]
    made = list(natural.lines_of([stream], words, {natural.key("The cat is here. Is it!")}, random.Random(1)))
    assert made[0] == "The cat sat on the mat."
    assert not [t for t in made if natural.key(t) == "the cat is here is it" or "zyx" in t or t == "Cat."]
    glosses = [t for t in made if t.startswith("A small animal")]
    assert 0.1 * 60 < len(glosses) < 0.6 * 60 + 20, "three fragments in ten, of those not too long"
    assert all(t[-1] in ".?!" and len(t) <= natural.LONGEST + 1 for t in made)


def test_kinds():
    rng = random.Random(3)
    made = list(natural.kinds(rng, 4000))
    assert all(re.fullmatch(r"[A-Za-z0-9 ,.?!']+", t) and "{" not in t for t in made)
    assert sum(bool(re.search(r"\b[A-Z][A-Z0-9]+\b", t)) for t in made) > 400, "initialisms"
    assert sum(t in natural.REPLIES for t in made) > 100, "short replies"
    assert [t for t in made if t.startswith("Is the ") and t.endswith("?")]
    digits = "|".join([*plain.ONES[:10], "oh"])
    numbers = [t for t in made if re.search(rf"(({digits})[ ,.]+){{6}}", t.lower())]
    assert len(numbers) > 150, "phone numbers"
    runs = [t for t in numbers if re.search(rf"\b({digits})( \1)+\b", t.lower())]
    assert 0.2 < len(runs) / len(numbers) < 0.8, "digits several times in a row"


def test_the_mixture_has_its_shares():
    words = set("one two alpha beta gamma delta is the".split())
    texts = [f"The alpha is beta number {i}." for i in range(2000)]
    held = "The alpha is beta number"
    made = natural.mix(list(texts), words, 1000, {natural.key("Yes.")}, random.Random(1))
    assert 980 <= len(made) <= 1000 and "Yes." not in made
    assert 600 <= sum(t.startswith(held) for t in made) <= 720
    again = natural.mix(list(texts), words, 1000, {natural.key("Yes.")}, random.Random(1))
    assert made == again
