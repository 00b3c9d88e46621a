"""Speech to text through the openai client: `transcriber`, on readings whose words are known."""

import io
import json
import re
import unittest
import wave

import numpy as np
import openai

from .models import FOLDER
from .test_examples import Example
from .test_openai import client

RECORDINGS = FOLDER / "recordings"
READING = RECORDINGS / "two-cities.wav"
BEGINNING = (
    "It was the best of times. It was the worst of times. It was the age of wisdom. "
    "It was the age of foolishness."
)


def transcribed(file, model="transcriber", **wanted):
    """What the server hears in a file."""
    return client().audio.transcriptions.create(model=model, file=file, **wanted)


def words(text):
    """Words as they are compared: without what only writing has."""
    text = text.lower().replace("mr.", "mister").replace("-", " ")
    return re.sub(r"[^a-z' ]", "", text).split()


def errors(given, wanted):
    """Words to be changed, added or taken away: Levenshtein's distance."""
    row = list(range(len(wanted) + 1))
    for i, word in enumerate(given, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(wanted, 1):
            change = last + (word != other)
            last, row[j] = row[j], min(change, row[j] + 1, row[j - 1] + 1)
    return row[-1]


class Transcriptions(unittest.TestCase):
    """Recordings to words."""

    def test_readings_have_their_words(self):
        transcripts = json.loads((RECORDINGS / "transcripts.json").read_text())
        self.assertEqual(sum(map(len, transcripts.values())), 71)
        rten = "transcriber@" + Example.on_rten(self, "transcriber/modelet.toml")
        for model in ("transcriber", rten):
            wrong = 0
            for name, wanted in transcripts.items():
                with open(RECORDINGS / f"{name}.wav", "rb") as file:
                    wrong += errors(words(transcribed(file, model).text), wanted)
            self.assertLessEqual(wrong, 3, model)

    def test_a_long_reading_at_another_rate_has_its_parts(self):
        with open(READING, "rb") as file:
            answer = transcribed(file, response_format="verbose_json", language="en")
        self.assertTrue(answer.text.startswith(BEGINNING), answer.text)
        self.assertTrue(answer.text.endswith("comparison only."), answer.text)
        self.assertAlmostEqual(float(answer.duration), 44.374, places=2)
        self.assertEqual(answer.language, "en")
        times = [time for part in answer.segments for time in (part.start, part.end)]
        self.assertEqual(times, sorted(times))
        self.assertGreater(len(answer.segments), 1)
        self.assertEqual(" ".join(part.text for part in answer.segments), answer.text)

    def test_the_same_words_at_every_rate(self):
        """A beginning of 9.5 s, resampled by leaving samples out after a plain filter."""
        with wave.open(str(READING)) as reading:
            rate = reading.getframerate()
            sound = np.frombuffer(reading.readframes(int(9.5 * rate)), "<i2").astype(np.float32)
        for step in (1, 2, 6):
            smooth = np.convolve(sound, np.ones(step) / step, "same")[::step]
            file = io.BytesIO()
            with wave.open(file, "wb") as other:
                other.setparams((2, 2, rate // step, 0, "NONE", ""))
                other.writeframes(np.repeat(smooth.astype("<i2"), 2).tobytes())
            file.seek(0)
            file.name = "beginning.wav"
            heard = words(transcribed(file).text)
            self.assertLessEqual(errors(heard[:22], words(BEGINNING)[:22]), 2, (step, heard))

    def test_every_form_of_an_answer(self):
        name = next(iter(json.loads((RECORDINGS / "transcripts.json").read_text())))
        content = (RECORDINGS / f"{name}.wav").read_bytes()
        file = ("speech.wav", content)
        whole = transcribed(file).text
        self.assertEqual(transcribed(file, response_format="text"), whole + "\n")
        srt = transcribed(file, response_format="srt")
        self.assertEqual(srt, f"1\n00:00:00,000 --> 00:00:07,100\n{whole}\n\n")
        vtt = transcribed(file, response_format="vtt")
        self.assertEqual(vtt, f"WEBVTT\n\n00:00:00.000 --> 00:00:07.100\n{whole}\n\n")

    def test_mistakes_are_told(self):
        file = ("speech.wav", READING.read_bytes()[:100_044])
        for given, wanted, field in (
            (("speech.mp3", b"ID3"), {}, "audio"),
            (file, {"language": "de"}, "parameters"),
            (file, {"temperature": 2}, "temperature"),
            (file, {"extra_body": {"stream": "true"}}, "stream"),
            (file, {"timestamp_granularities": ["word"]}, "timestamp_granularities[]"),
        ):
            with self.subTest(field=field), self.assertRaises(openai.BadRequestError) as caught:
                transcribed(given, **wanted)
            self.assertEqual(caught.exception.param, field)
        with self.assertRaises(openai.NotFoundError):
            transcribed(file, "nobody")
        with self.assertRaises(openai.BadRequestError):
            transcribed(file, "parrot")

    def test_silence_has_no_words(self):
        file = io.BytesIO()
        with wave.open(file, "wb") as silence:
            silence.setparams((1, 2, 16_000, 0, "NONE", ""))
        self.assertEqual(transcribed(("silence.wav", file.getvalue())).text, "")


if __name__ == "__main__":
    unittest.main()
