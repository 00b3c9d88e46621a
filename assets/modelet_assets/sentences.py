"""Five hundred sentences in many languages, and their reference token ids.

The sentences are our own. Each base sentence is varied in the ways that tokenizers disagree about:
case, whitespace, punctuation, accents as separate characters, words beyond any vocabulary, texts
beyond the limit. Characters are of Unicode 8 or older, whose classes every implementation knows.
"""

import unicodedata

from tokenizers import Tokenizer

# The ids of a text are cut to this many, the two that frame it included.
MAX_TOKENS = 128

COUNT = 500

BASES = (
    # English, plain to odd
    "A man is eating food.",
    "The stock market fell sharply today.",
    "How do I reset my password?",
    "I forgot my login credentials!",
    "It's 5 o'clock; don't wait, she'll be late.",
    "E-mail me at someone@example.com before 31/12/2024 (or call +44 20 7946 0000).",
    "The cat, the dog & the bird: $3.50, 20% off, #1 in 1,000,000.",
    'He said "no" -- twice -- and left...',
    "let x = vec![1, 2, 3]; // { <html> } [brackets] a_b c/d e\\f ~g^h |i| `j`",
    "Unaffordable counterrevolutionaries misunderstood electroencephalography.",
    # German
    "Die Grüße aus München kamen schon früh über die Straße.",
    "Fußgängerübergänge sind für Kinder ungefährlich, oder?",
    "Donaudampfschifffahrtsgesellschaftskapitän heißt das längste Wort.",
    # French
    "Où est passé l'élève qui a mangé le gâteau à Noël ?",
    "Le cœur a ses raisons : « ça », dit-il, n'est pas naïf.",
    "L'été dernier, nous avons dîné près de la forêt.",
    # Spanish, Portuguese, Italian
    "¿Dónde está la estación? ¡Mañana será otro día!",
    "El niño comió una piña en el jardín de su abuela.",
    "A informação não chegou à reunião de amanhã.",
    "Você já experimentou o pão de açúcar?",
    "Perché la città è così bella di sera?",
    "Lunedì andrò all'università con il caffè in mano.",
    # Polish, Czech, Hungarian, Romanian
    "Zażółć gęślą jaźń, proszę pana.",
    "Łódź to duże miasto w środkowej Polsce.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Árvíztűrő tükörfúrógép, kérem szépen.",
    "Ștefan și țăranii așteaptă în gară.",
    # Turkish, Vietnamese, Nordic
    "İstanbul'da ışıklar yanıyor, çocuklar uyuyor.",
    "Türkçede ığdır ve IĞDIR aynı yerdir.",
    "Tiếng Việt có rất nhiều dấu thanh.",
    "Hôm nay trời đẹp, chúng ta đi dạo nhé.",
    "Ærlige mænd spiser rødgrød med fløde på søen.",
    "Þórður og Guðrún búa í Reykjavík.",
    # Russian, Ukrainian, Bulgarian
    "Мальчик читает книгу в большой библиотеке.",
    "Ёжик в тумане нашёл своего друга.",
    "Україна має їжаків і ґудзики.",
    "Утре ще вали дъжд в София.",
    # Greek
    "Το πρωί πίνω καφέ στην Αθήνα.",
    "Ο Οδυσσέας ταξίδευε δέκα χρόνια.",
    # Arabic, Persian, Hebrew
    "القطة نائمة على السرير الكبير.",
    "أَهْلًا وَسَهْلًا، كَيْفَ حَالُكَ؟",
    "کتاب‌های من روی میز هستند.",
    "הילד קורא ספר בגן הגדול.",
    "שָׁלוֹם לְכֻלָּם, מה שלומכם?",
    # Hindi, Bengali, Tamil
    "लड़का बगीचे में किताब पढ़ रहा है।",
    "आज मौसम बहुत अच्छा है, है ना?",
    "আমি প্রতিদিন সকালে চা খাই।",
    "நான் தினமும் காலையில் தேநீர் குடிக்கிறேன்.",
    # Thai
    "วันนี้อากาศดีมาก เราไปเดินเล่นกันเถอะ",
    "แมวนอนอยู่บนเตียง",
    # Chinese, Japanese, Korean
    "我喜欢在图书馆看书。",
    "今天天气很好，我们去公园吧！",
    "繁體中文與簡體中文有什麼不同？",
    "東京は日本の首都です。",
    "カタカナとひらがなと漢字、ｶﾅも。",
    "한국어를 배우는 것은 재미있어요.",
    "고양이가 의자 위에서 자고 있다.",
    # Kazakh, Armenian, Amharic
    "Сәлеметсіз бе, қалайсыз, қымбатты дос?",
    "Բարև, ինչպե՞ս ես։",
    "ሰላም፣ እንዴት ነህ?",
    # Symbols
    "I ❤ pizza 🍕 and 🎉 parties 😀 👍🏽!",
    "∑ of x² ≤ ½ · π ≈ 1.57 → ∞ €5 £4 ¥300 ₹20",
    "ﬁne ﬂuid Ⅳ ① ㎏ Ｆｕｌｌ ｗｉｄｔｈ ™ © № …",
    "“Curly” ‘quotes’ – en — em ‐ hyphen • bullet ¶ § † ‰",
)


def sentences():
    """The 500 distinct texts, each of one line."""
    # All as they are, then each in most of the ways, dealt so that every way comes in.
    varied = (
        vary(text, BASES[(index + 7) % len(BASES)])
        for turn, vary in enumerate(VARIATIONS)
        for index, text in enumerate(BASES)
        if turn == 0 or (index + turn) % 7 != 0
    )
    distinct = list(dict.fromkeys(varied))[:COUNT]
    if len(distinct) != COUNT or any("\n" in text or text.endswith("\r") for text in distinct):
        raise ValueError(f"expected {COUNT} texts of one line each, found {len(distinct)}")
    return distinct


def token_ids(tokenizer, texts, limit=MAX_TOKENS):
    """The ids of each text by the reference tokenizer (tokenizer.json as text).

    Cut where there are more than `limit`, and not padded.
    """
    reference = Tokenizer.from_str(tokenizer)
    reference.no_padding()
    if limit is not None:
        reference.enable_truncation(limit)
    return [encoding.ids for encoding in reference.encode_batch(texts)]


def _plain(text, _other):
    return text


def _spaced(text, _other):
    # Tab, no-break space, ideographic space, em space, line separator: all are whitespace.
    gaps = ["  ", "\t", "\u00a0", "\u3000", "\u2003 ", "\u2028"]
    words = text.split(" ")
    return " " + "".join(w + gaps[i % len(gaps)] for i, w in enumerate(words))


def _mixed(text, other):
    return f"{text} {other}"


def _decomposed(text, _other):
    return unicodedata.normalize("NFD", text) + " (NFD e\u0301 n\u0303 a\u030a\u0323)"


def _joined(text, _other):
    return "".join(text.split()) * 2


def _long(text, other):
    return f"{text} {other} " * 12


def _upper(text, _other):
    return text.upper() + "!!!"


def _marked(text, other):
    # Zero-width space, soft hyphen, replacement character, a control character, a word joiner.
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    return f"\ufeff{head}\u200b\u00ad{tail}\ufffd\u0007?!,;—{other[:9]}\u2060"


# Words of 100 and 101 characters stand on the two sides of the longest word that is looked up.
def _endless(text, other):
    return f"{text} {'a' * 100} {'b' * 101} {other.split(' ')[0] * 20}"


VARIATIONS = (_plain, _spaced, _mixed, _decomposed, _joined, _long, _upper, _marked, _endless)
