"""Moonshine tiny-en, a model that writes down English speech: its two graphs, tokens and recordings.

The encoder hears all of a recording at once; the decoder writes a token a run, from what the encoder
heard, the token before, and what it keeps of those before that.
"""

import re

# Where the files lie in the package `moonshine-graphs` of pins.json.
FOLDER = "moonshine_voice/assets"
ENCODER = f"{FOLDER}/tiny-en/encoder_model.ort"
DECODER = f"{FOLDER}/tiny-en/decoder_model_merged.ort"
TOKENS = f"{FOLDER}/tiny-en/tokenizer.bin"

# 44 seconds at 48 kHz: the beginning of A Tale of Two Cities.
READING = f"{FOLDER}/two_cities.wav"

# Where recordings with transcripts lie in the package `librivox-clips` of pins.json.
CLIPS = "./usr/share/pocketsphinx/test/data/librivox"

# The token that begins a text, and the one that ends it.
BEGIN, END = 1, 2

# What stands for a space in a token.
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def read_tokens(data):
    """The bytes that each token spells, in order.

    Each has its length before it: a byte, or two where it is 128 and more.
    """
    tokens, place = [], 0
    while place < len(data):
        length = data[place]
        place += 1
        if length >= 128:
            length += data[place] * 128 - 128
            place += 1
        tokens.append(data[place : place + length])
        place += length
    return tokens


def read_transcripts(text):
    """Words of each clip by its name, from lines of `words (name)`."""
    lines = (re.fullmatch(r"(.*) \((\S+)\)", line) for line in text.splitlines())
    return {line[2]: re.sub(r"</?s>", "", line[1]).split() for line in lines}
