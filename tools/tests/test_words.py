"""Text and transcript meet as plain words."""

import pytest

from voxgrain_tools.measure import judge, say_right, words


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("1905", "nineteen oh five"),
        ("1905", "one thousand nine hundred five"),
        ("2000", "two thousand"),
        ("1100", "eleven hundred"),
        ("105", "one hundred and five"),
        ("747", "seven forty seven"),
        ("007", "oh oh seven"),
        ("1,250", "one thousand two hundred fifty"),
        ("3.14", "three point one four"),
        ("0.5", "zero point five"),
        (".5", "point five"),
        ("$1", "one dollar"),
        ("$5.20", "five dollars and twenty cents"),
        ("$0.01", "one cent"),
        ("$2.5 million", "two point five million dollars"),
        ("£3.01", "three pounds and one penny"),
        ("3:05", "three oh five"),
        ("3:00", "three o'clock"),
        ("1st", "first"),
        ("20th", "twentieth"),
        ("112th", "one hundred twelfth"),
        ("1990s", "nineteen nineties"),
        ("'90s", "nineties"),
        ("USA", "u s a"),
        ("U.S.A.", "u s a"),
        ("PCs", "p c's"),
        ("Dr.", "doctor"),
        ("colour", "color"),
        ("%", "percent"),
    ],
)
def test_a_piece_has_the_reading(text, reading):
    (readings,) = words.pieces(text)
    assert tuple(reading.split()) in readings


@pytest.mark.parametrize(
    ("reference", "transcript"),
    [
        ("it was nineteen ninety nine", "It was 1999."),
        ("it was one thousand nine hundred and ninety nine", "It was 1999."),
        ("from ten to twenty men", "From 10-20 men."),
        ("he paid twenty dollars at three p m", "He paid $20 at 3 p.m."),
        ("the ice cream was cold", "The icecream was cold!"),
        ("everyone left", "Every one left."),
        ("café owners don’t mind", "Cafe owners don't mind"),
        ("we saw the u s a", "We saw the USA."),
        ("open at nine thirty a m", "Open at 9:30 AM."),
    ],
)
def test_what_is_written_otherwise_is_no_error(reference, transcript):
    assert judge.score(reference, transcript)["word_errors"] == 0


@pytest.mark.parametrize(
    ("reference", "transcript", "errors"),
    [
        ("it was nineteen ninety nine", "It was 1998.", 1),
        ("we paid twenty dollars", "We paid $30.", 1),
        ("plug in the u s b cable", "Plug in the UFB cable.", 1),
        ("the colonel left", "The kernel left.", 1),
        ("one two three", "", 3),
    ],
)
def test_what_is_heard_otherwise_is_an_error(reference, transcript, errors):
    assert judge.score(reference, transcript)["word_errors"] == errors


def test_cardinals_and_ordinals():
    assert words.cardinal(1_000_105) == "one million one hundred five".split()
    assert words.cardinal(90) == ["ninety"] and words.cardinal(0) == ["zero"]
    assert words.ordinal(40) == ["fortieth"] and words.ordinal(12) == ["twelfth"] and words.ordinal(101)[-1] == "first"


def test_digits():
    assert words.digits("Call 555-oh one, double seven.") == "5550177"
    assert words.digits("no digits") == ""


@pytest.mark.parametrize(
    ("kind", "wanted", "transcript", "right"),
    [
        ("initialism", "usa", "The U.S.A. won.", True),
        ("initialism", "usa", "The U S A won.", True),
        ("initialism", "usa", "The USA's team won.", True),
        ("initialism", "usa", "The usable one.", False),
        ("initialism", "phd", "She has a Ph.D. in physics.", True),
        ("initialism", "phd", "She has a PhD.", True),
        ("initialism", "hr", "Please call h. r. today.", True),
        ("initialism", "tv", "My T.V. is broken.", True),
        ("word", "hour / our", "Our was late.", True),
        ("word", "yacht", "We sailed on a small yard.", False),
        ("phone", "5550123", "Call 555-0123.", True),
        ("phone", "5550123", "Call five five five, oh one two three.", True),
        ("phone", "5550123", "Call 55-0123.", False),
        ("reply", "i don't know", "I don’t know.", True),
        ("reply", "no", "No, no.", False),
        ("reply", "five", "5.", True),
    ],
)
def test_rules_of_say_right(kind, wanted, transcript, right):
    assert say_right.Sentence(kind, "", tuple(wanted.split(" / "))).right(transcript) is right


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Call (512) 555-0173.", "Call five one two, five five five, zero one seven three."),
        ("Call 1-800-362-9475.", "Call one, eight zero zero, three six two, nine four seven five."),
        ("Call 911.", "Call nine one one."),
    ],
)
def test_the_teacher_gets_digits_as_words(text, spoken):
    assert say_right.Sentence("phone", text, ("",)).spelt_out() == spoken
    assert say_right.Sentence("reply", text, ("",)).spelt_out() == text


def test_the_sentences_are_what_the_evaluation_says():
    sentences = say_right.read_sentences(say_right.SENTENCES)
    count = {k: sum(s.kind == k for s in sentences) for k in say_right.RULES}
    assert count == {"initialism": 24, "word": 60, "phone": 28, "reply": 16}
    for s in sentences:
        assert s.right(s.text), f"read aloud as written, {s.text!r} would count as wrong"
