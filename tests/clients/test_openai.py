"""`openai`, the usual client of chat and embeddings: blocking, asynchronous and streaming.

The model of the conversations is `parrot`, which says the last message again, word by word.
"""

import asyncio
import json
import unittest

import numpy as np
import openai

from .models import URL
from .server import Server

BASE = f"{URL}/v1"
# A text that takes a while to say.
LONG = "word " * 100_000
# Room for one request of a tenant, and little for a stream.
ONE_AT_A_TIME = "[limits]\ntenant_requests = 1\nstream_bytes = 4096\n"
TALK = [
    {"role": "developer", "content": "Say it again."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "one two "}, {"type": "text", "text": "three"}],
    },
]


def said(text, **wanted):
    """One chat completion of the parrot."""
    messages = [{"role": "user", "content": text}]
    return client().chat.completions.create(model="parrot", messages=messages, **wanted)


def client(**options):
    """A client without retries, which would hide failures."""
    return openai.OpenAI(**{"base_url": BASE, "api_key": "any", "max_retries": 0} | options)


class Chat(unittest.TestCase):
    """Conversations."""

    def test_a_whole_answer(self):
        answer = client().chat.completions.create(model="parrot", messages=TALK)
        self.assertEqual(answer.object, "chat.completion")
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        self.assertEqual(answer.model, "parrot")
        self.assertGreater(answer.created, 1_600_000_000)
        [choice] = answer.choices
        self.assertEqual(
            (choice.message.role, choice.message.content), ("assistant", "one two three")
        )
        self.assertEqual((choice.index, choice.finish_reason), (0, "stop"))
        usage = answer.usage
        self.assertEqual(
            (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (6, 3, 9)
        )

    def test_a_version_and_an_alias_are_models_too(self):
        first = said("hello")
        for name in ("parrot@1.0.0", "parrot@live"):
            answer = client().chat.completions.create(
                model=name, messages=[{"role": "user", "content": "hello"}]
            )
            self.assertEqual(answer.model, name)
            # The same version, whatever it is called.
            self.assertEqual(answer.system_fingerprint, first.system_fingerprint)

    def test_a_stream(self):
        with client().chat.completions.create(model="parrot", messages=TALK, stream=True) as stream:
            chunks = list(stream)
        self.assertEqual({chunk.object for chunk in chunks}, {"chat.completion.chunk"})
        self.assertEqual(len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}), 1)
        deltas = [chunk.choices[0].delta for chunk in chunks]
        self.assertEqual([delta.content for delta in deltas], ["one ", "two ", "three", None])
        self.assertEqual([delta.role for delta in deltas], ["assistant", None, None, None])
        reasons = [chunk.choices[0].finish_reason for chunk in chunks]
        self.assertEqual(reasons, [None, None, None, "stop"])
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_a_stream_with_usage(self):
        options = {"include_usage": True}
        chunks = list(said("a b", stream=True, stream_options=options))
        self.assertEqual(chunks[-1].choices, [])
        usage = chunks[-1].usage
        self.assertEqual(
            (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (2, 2, 4)
        )
        self.assertTrue(all(chunk.usage is None and chunk.choices for chunk in chunks[:-1]))

    def test_an_empty_stream(self):
        chunks = list(said("", stream=True))
        self.assertEqual([chunk.choices[0].delta.content for chunk in chunks], ["", None])
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")

    def test_the_clients_own_accumulator(self):
        with client().chat.completions.stream(model="parrot", messages=TALK) as stream:
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, "one two three")

    def test_parameters_reach_the_model(self):
        for stream in (False, True):
            with self.subTest(stream=stream):
                self.assertEqual(self.text("a b c", stream, max_tokens=2), ("a b", "length"))
                self.assertEqual(
                    self.text("a b c", stream, max_completion_tokens=1), ("a", "length")
                )
                self.assertEqual(self.text("a b c", stream, stop=" c"), ("a b", "stop"))
                self.assertEqual(self.text("a b c", stream, stop=["x", " b"]), ("a", "stop"))
                # One that two tokens have in them.
                self.assertEqual(self.text("ab cd", stream, stop="b c"), ("a", "stop"))
                self.assertEqual(self.text("a b c", stream, seed=1), ("b c a", "stop"))
                self.assertEqual(self.text("a b c", stream, seed=1), ("b c a", "stop"))
        everything = {
            "temperature": 0.5,
            "top_p": 0.9,
            "frequency_penalty": -1.0,
            "presence_penalty": 1.0,
            "seed": 0,
            "stop": ["~"],
            "max_tokens": 5,
        }
        extra = {"top_k": 40, "repetition_penalty": 1.1, "unknown": [1]}
        answer = said("!parameters", extra_body=extra, **everything)
        given = json.loads(answer.choices[0].message.content)
        self.assertEqual(given, everything | {"top_k": 40, "repetition_penalty": 1.1})
        self.assertEqual(json.loads(said("!parameters").choices[0].message.content), {})

    def text(self, text, stream, **wanted):
        """Text and reason, whole or put together."""
        answer = said(text, stream=stream, **wanted)
        if not stream:
            return answer.choices[0].message.content, answer.choices[0].finish_reason
        chunks = list(answer)
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
        return "".join(texts), chunks[-1].choices[0].finish_reason

    def test_the_conversation_reaches_the_model_as_roles_and_texts(self):
        messages = [
            *TALK,
            {"role": "assistant", "content": None},
            {"role": "user", "content": "!messages"},
        ]
        answer = client().chat.completions.create(model="parrot", messages=messages)
        heard = json.loads(answer.choices[0].message.content)
        roles = [message["role"] for message in heard]
        self.assertEqual(roles, ["system", "user", "assistant", "user"])
        self.assertEqual(heard[2]["content"], "")

    def test_many_at_once(self):
        async def ask(asking, number):
            messages = [{"role": "user", "content": f"this is {number}"}]
            stream = await asking.chat.completions.create(
                model="parrot", messages=messages, stream=True
            )
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return "".join(texts)

        async def ask_all():
            async with openai.AsyncOpenAI(base_url=BASE, api_key="any", max_retries=0) as asking:
                return await asyncio.gather(*(ask(asking, number) for number in range(64)))

        self.assertEqual(asyncio.run(ask_all()), [f"this is {number}" for number in range(64)])


class Completions(unittest.TestCase):
    """Texts that are gone on with."""

    def test_a_whole_answer(self):
        for prompt in ("a b", ["a b"]):
            answer = client().completions.create(model="parrot", prompt=prompt)
            self.assertEqual((answer.object, answer.choices[0].text), ("text_completion", "a b"))
            self.assertEqual(answer.choices[0].finish_reason, "stop")
            self.assertEqual(answer.usage.total_tokens, 4)

    def test_a_stream(self):
        options = {"include_usage": True}
        chunks = list(
            client().completions.create(
                model="parrot", prompt="a b", stream=True, stream_options=options
            )
        )
        texts = [chunk.choices[0].text for chunk in chunks[:-1]]
        self.assertEqual(texts, ["a ", "b", ""])
        self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")
        self.assertEqual(chunks[-1].usage.total_tokens, 4)

    def test_asynchronously(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=f"{URL}/openai/v1", api_key="any") as asking:
                return await asking.completions.create(model="parrot", prompt="a", max_tokens=1)

        self.assertEqual(asyncio.run(ask()).choices[0].text, "a")


class Embeddings(unittest.TestCase):
    """Texts to vectors."""

    TEXTS = ["A man is eating food.", "Someone is having a meal."]

    def test_both_encodings_are_the_models_own_vectors(self):
        # Base64 is what the client asks for unless it is told otherwise.
        packed = client().embeddings.create(model="embedding@1.0.0", input=self.TEXTS)
        plain = client().embeddings.create(
            model="embedding@1.0.0", input=self.TEXTS, encoding_format="float"
        )
        vectors = np.array([line.embedding for line in packed.data])
        np.testing.assert_array_equal(vectors, [line.embedding for line in plain.data])
        self.assertEqual([line.index for line in packed.data], [0, 1])
        np.testing.assert_allclose(vectors[0][:4], [0.0332, 0.0044, -0.0063, 0.0484], atol=1e-4)
        self.assertAlmostEqual(float(vectors[0] @ vectors[1]), 0.689, delta=1e-3)
        self.assertEqual((packed.usage.prompt_tokens, packed.usage.total_tokens), (16, 16))

    def test_one_text_and_its_length(self):
        answer = client().embeddings.create(
            model="embedding@1.0.0", input=self.TEXTS[0], dimensions=384
        )
        self.assertEqual([len(line.embedding) for line in answer.data], [384])

    def test_what_is_no_text_is_refused(self):
        for given in ([1, 2], [[1, 2], [3]], [], ["a", 1]):
            with self.subTest(input=given), self.assertRaises(openai.BadRequestError) as caught:
                client().embeddings.create(model="embedding@1.0.0", input=given)
            self.assertEqual(caught.exception.param, "input")
        with self.assertRaises(openai.BadRequestError) as caught:
            client().embeddings.create(model="embedding@1.0.0", input="a", dimensions=100)
        self.assertEqual(caught.exception.param, "dimensions")

    def test_asynchronously(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=BASE, api_key="any") as asking:
                one, other = await asyncio.gather(
                    asking.embeddings.create(model="embedding", input=self.TEXTS[0]),
                    asking.embeddings.create(model="embedding", input=self.TEXTS[0]),
                )
            return one.data[0].embedding == other.data[0].embedding

        self.assertTrue(asyncio.run(ask()))


class Errors(unittest.TestCase):
    """Every failure is the client's own class of it."""

    def test_models(self):
        names = [model.id for model in client().models.list()]
        self.assertIn("parrot", names)
        self.assertEqual(client().models.retrieve("parrot").id, "parrot")
        with self.assertRaises(openai.NotFoundError) as caught:
            client().models.retrieve("none")
        self.assertEqual(
            (caught.exception.code, caught.exception.param), ("model_not_found", "model")
        )

    def test_what_is_wrong_is_told_with_its_field(self):
        turn = {"role": "user", "content": "a"}
        for param, wanted in (
            ("temperature", {"temperature": 3}),
            ("top_p", {"top_p": -1}),
            ("max_tokens", {"max_tokens": 0}),
            ("stop", {"stop": ["a"] * 5}),
            ("stop", {"stop": ""}),
            ("n", {"n": 2}),
            ("logprobs", {"logprobs": True}),
            ("logit_bias", {"logit_bias": {"1": 1}}),
            ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
            ("response_format", {"response_format": {"type": "json_object"}}),
            ("messages", {"messages": []}),
            ("messages[0].role", {"messages": [turn | {"role": "robot"}]}),
            ("messages[0].content", {"messages": [turn | {"content": [{"type": "image_url"}]}]}),
        ):
            with self.subTest(param=param), self.assertRaises(openai.BadRequestError) as caught:
                said_with = {"model": "parrot", "messages": [turn]} | wanted
                client().chat.completions.create(**said_with)
            self.assertEqual((caught.exception.param, caught.exception.status_code), (param, 400))
            self.assertEqual(caught.exception.type, "invalid_request_error")
        for param, wanted in (("echo", {"echo": True}), ("suffix", {"suffix": "a"})):
            with self.subTest(param=param), self.assertRaises(openai.BadRequestError) as caught:
                client().completions.create(model="parrot", prompt="a", **wanted)
            self.assertEqual(caught.exception.param, param)

    def test_a_model_of_another_task(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client().embeddings.create(model="parrot", input="a")
        self.assertIn('serves the task "chat"', caught.exception.message)

    def test_a_failure_of_the_model_is_told_once(self):
        # Trying again would fail again: the answer says so, and the client keeps to it.
        with self.assertRaises(openai.InternalServerError) as caught:
            client(max_retries=2).chat.completions.create(
                model="parrot", messages=[{"role": "user", "content": "!fail no words"}]
            )
        self.assertIn("no words", caught.exception.message)
        self.assertEqual(caught.exception.response.headers["x-should-retry"], "false")
        sent = caught.exception.response.request.headers["x-stainless-retry-count"]
        self.assertEqual(sent, "0")
        self.assertTrue(caught.exception.request_id)

    def test_a_failure_in_a_stream_ends_it(self):
        with self.assertRaises(openai.InternalServerError):
            said("!fail at once", stream=True)
        stream = said("one two !fail in the middle", stream=True)
        texts = []
        with self.assertRaises(openai.APIError) as caught:
            for chunk in stream:
                texts.append(chunk.choices[0].delta.content)
        self.assertEqual(texts, ["one ", "two"])
        self.assertIn("in the middle", caught.exception.message)
        self.assertEqual(caught.exception.code, "guest_error")

    def test_a_caller_may_leave_a_stream(self):
        stream = said("many words " * 1000, stream=True)
        next(iter(stream))
        stream.close()
        self.assertEqual(said("still here").choices[0].message.content, "still here")


class Retries(unittest.TestCase):
    """A server that has room for one request at a time."""

    def test_a_busy_server_is_asked_again(self):
        with Server(ONE_AT_A_TIME) as url:
            counts = []

            def refused(response):
                counts.append(response.request.headers["x-stainless-retry-count"])
                if response.status_code == 429:
                    self.assertEqual(response.headers["retry-after"], "1")
                    stream.close()

            # Longer than what the server and the system keep of it, so that it is under way.
            with client(base_url=f"{url}/v1") as busy:
                stream = busy.completions.create(model="parrot", prompt=LONG, stream=True)
                watched = openai.DefaultHttpxClient(event_hooks={"response": [refused]})
                with client(base_url=f"{url}/v1", http_client=watched, max_retries=2) as asking:
                    answer = asking.completions.create(model="parrot", prompt="now")
            self.assertEqual(answer.choices[0].text, "now")
            self.assertEqual((counts[0], counts[-1]), ("0", str(len(counts) - 1)))
            self.assertGreater(len(counts), 1)

    def test_a_server_that_stays_busy_is_given_up(self):
        with Server(ONE_AT_A_TIME) as url:
            with client(base_url=f"{url}/v1") as asking:
                stream = asking.completions.create(model="parrot", prompt=LONG, stream=True)
                with self.assertRaises(openai.RateLimitError) as caught:
                    asking.completions.create(model="parrot", prompt="now")
                self.assertEqual(caught.exception.code, "rate_limit_exceeded")
                self.assertEqual(caught.exception.type, "rate_limit_error")
                stream.close()


if __name__ == "__main__":
    unittest.main()
