"""A language model through the clients of text: `chat`, against the bare engine and known answers.

Token for token the same as the graph driven directly, whole or streamed, one conversation or several at
once; and what a client may ask for besides.
"""

import concurrent.futures
import json
import time
import unittest
import urllib.request

import numpy as np
import openai
import tokenizers

from .models import FOLDER, URL
from .test_examples import Example, session
from .test_generate import curl, events
from .test_openai import client

NEXT = {
    "The capital of France is": " Paris",
    "The opposite of hot is": " cold",
    "Water freezes at 0 degrees": " Celsius",
}
LAW = "The first law of thermodynamics states that"
CONTINUATION = (
    " energy cannot be created or destroyed, only converted from one form to another. "
)
QUESTION = [{"role": "user", "content": "Name three colours."}]
# The cache of one position: keys and values of 30 layers, 3 heads, 64 numbers.
EMPTY = np.zeros((30, 1, 3, 0, 64), np.float32)
# Tokens that end what the model says.
ENDS = (0, 2)


def completed(prompt, model="chat", **wanted):
    """One greedy completion."""
    return client().completions.create(model=model, prompt=prompt, **{"temperature": 0} | wanted)


def asked(messages=None, **wanted):
    """One chat completion."""
    return client().chat.completions.create(model="chat", messages=messages or QUESTION, **wanted)


def document(path):
    """A JSON document of the server."""
    with urllib.request.urlopen(URL + path) as answer:
        return json.load(answer)


class Text(unittest.TestCase):
    """Texts that are gone on with, compared with the bare engine."""

    @classmethod
    def setUpClass(cls):
        cls.graph = session("smollm2.onnx")
        cls.tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "smollm2-tokenizer.json"))

    def reference(self, prompt, count):
        """What the bare engine says behind a prompt, greedily: the text, until the model ends it."""
        given, cache, ids = self.tokenizer.encode(prompt).ids, [EMPTY, EMPTY], []
        while len(ids) < count:
            feeds = {"input_ids": np.array([given], np.int64)}
            feeds |= dict(zip(("past_k", "past_v"), cache, strict=True))
            logits, *cache = self.graph.run(["logits", "present_k", "present_v"], feeds)
            given = [int(logits[0].argmax())]
            if given[0] in ENDS:
                break
            ids += given
        return self.tokenizer.decode(ids)

    def test_known_next_tokens(self):
        for model in ("chat", "chat@" + Example.on_rten(self, "chat/modelet.toml")):
            for prompt, word in NEXT.items():
                answer = completed(prompt, model, max_tokens=1)
                self.assertEqual(answer.choices[0].text, word)
                self.assertEqual(answer.choices[0].finish_reason, "length")
                self.assertEqual(answer.usage.completion_tokens, 1)

    def test_a_known_continuation_whole_and_streamed(self):
        whole = completed(LAW, max_tokens=40)
        self.assertTrue(whole.choices[0].text.startswith(CONTINUATION), whole)
        self.assertEqual(whole.choices[0].text, self.reference(LAW, 40))
        ids = self.tokenizer.encode(LAW).ids
        self.assertEqual((whole.usage.prompt_tokens, whole.usage.completion_tokens), (len(ids), 40))
        parts = [part.choices[0].text for part in completed(LAW, max_tokens=40, stream=True)]
        self.assertEqual("".join(parts), whole.choices[0].text)
        # Word by word, not at once.
        self.assertGreater(len(parts), 30)

    def test_conversations_at_once_are_as_each_alone(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            prompts = [*NEXT, LAW]
            answers = pool.map(lambda prompt: completed(prompt, max_tokens=12), prompts)
            for prompt, answer in zip(prompts, answers, strict=True):
                self.assertEqual(answer.choices[0].text, self.reference(prompt, 12))

    def test_a_conversation_is_put_into_the_models_template(self):
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        talk = [
            {"role": "user", "content": "Name three colours."},
            {"role": "assistant", "content": "Red, green, and blue."},
            {"role": "user", "content": "Name three animals."},
        ]
        for begins in ([], [{"role": "system", "content": "Answer in few words."}]):
            whole = (begins or [{"role": "system", "content": system}]) + talk
            turns = "".join("<|im_start|>{role}\n{content}<|im_end|>\n".format(**m) for m in whole)
            answer = asked(begins + talk, temperature=0, max_tokens=20)
            wanted = self.reference(turns + "<|im_start|>assistant\n", 20)
            self.assertEqual(answer.choices[0].message.content, wanted)

    def test_the_generate_extension_streams_it(self):
        given = {"text_input": LAW, "parameters": {"temperature": 0, "max_tokens": 16}}
        status, content_type, body = curl("/v2/models/chat/generate_stream", given)
        self.assertEqual((status, content_type), (200, "text/event-stream; charset=utf-8"))
        parts = [json.loads(data)["text_output"] for data in events(body)]
        self.assertEqual("".join(parts), self.reference(LAW, 16))


class Chat(unittest.TestCase):
    """Conversations."""

    def test_a_stream_is_the_answer_and_has_its_usage(self):
        whole = asked(temperature=0, max_tokens=30)
        options = {"include_usage": True}
        chunks = list(asked(temperature=0, max_tokens=30, stream=True, stream_options=options))
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
        self.assertEqual("".join(texts), whole.choices[0].message.content)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual(chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason)
        self.assertEqual(chunks[-1].usage, whole.usage)
        self.assertGreater(whole.usage.prompt_tokens, 20)

    def test_a_stop_text_is_not_said(self):
        for stream in (False, True):
            answer = completed(LAW, stop=["or des", "never"], max_tokens=40, stream=stream)
            parts = list(answer) if stream else [answer]
            self.assertEqual(
                "".join(part.choices[0].text for part in parts), " energy cannot be created "
            )
            self.assertEqual(parts[-1].choices[0].finish_reason, "stop")

    def test_a_seed_is_one_text(self):
        def said(**wanted):
            return asked(temperature=1.2, max_tokens=16, **wanted).choices[0].message.content

        self.assertEqual(said(seed=5), said(seed=5))
        self.assertGreater(len({said(seed=seed) for seed in range(4)}), 1)
        # Without one, nobody can know.
        self.assertGreater(len({said() for _ in range(4)}), 1)
        # Top-k of one is greedy, whatever the temperature.
        greedy = asked(temperature=0, max_tokens=16).choices[0].message.content
        self.assertEqual(said(extra_body={"top_k": 1}), greedy)
        self.assertEqual(said(top_p=0), greedy)

    def test_penalties_keep_it_from_saying_a_thing_again(self):
        def said(**wanted):
            prompt = "and on" + " and on" * 5
            return completed(prompt, max_tokens=10, **wanted).choices[0].text

        self.assertEqual(said(), " and on" * 5)
        self.assertNotIn("and", said(extra_body={"repetition_penalty": 5}))
        self.assertLess(said(frequency_penalty=2, presence_penalty=2).count("and"), 3)

    def test_mistakes_are_told(self):
        for wanted, field in (
            ({"temperature": 3}, "temperature"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages"),
        ):
            with self.assertRaises(openai.BadRequestError) as caught:
                asked(**wanted)
            self.assertEqual(caught.exception.param, field)

    def test_a_caller_that_leaves_frees_its_conversation_within_a_step(self):
        def chats():
            instances = document("/api/v1/instances")["instances"]
            return [one for one in instances if (one["model"], one["version"]) == ("chat", "1.0.0")]

        def engine():
            return document("/api/v1/efficiency")["engine"]

        before, idle = engine(), len(chats())
        stream = completed("Once upon a time", max_tokens=1500, stream=True)
        begun = time.monotonic()
        for _ in range(10):
            next(stream)
        step = (time.monotonic() - begun) / 10
        self.assertNotEqual({one["state"] for one in chats()}, {"idle"})
        stream.close()
        # Its store is gone, and with it the handles of its cache.
        while [one for one in chats() if one["state"] != "idle"] or len(chats()) > max(idle - 1, 0):
            self.assertLess(time.monotonic() - begun, 20)
        gone = engine()
        self.assertLess(gone["abandoned_ns"] - before["abandoned_ns"], 3e9 * step)
        # And nothing goes on: the engine rests.
        self.assertEqual(engine()["busy_ns"], gone["busy_ns"])


if __name__ == "__main__":
    unittest.main()
