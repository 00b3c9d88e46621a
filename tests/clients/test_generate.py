"""Streams of server-sent events as `curl` reads them, and the generate extension beside them."""

import json
import subprocess
import unittest

from .models import URL


def curl(path, document, *options):
    """Status, content type and body of a POST."""
    told = "\n%{http_code} %{content_type}"
    command = ["curl", "--silent", "--no-buffer", "--json", json.dumps(document), *options]
    done = subprocess.run(
        [*command, "--write-out", told, URL + path], check=True, capture_output=True
    )
    body, _, end = done.stdout.decode().rpartition("\n")
    status, _, content_type = end.partition(" ")
    return int(status), content_type, body


def events(body):
    """The data of each event."""
    parts = body.split("\n\n")
    return [part.removeprefix("data: ") for part in parts if part]


class Generate(unittest.TestCase):
    """The extension for text, by a model of the task chat."""

    PATH = "/v2/models/parrot/generate"

    def test_a_whole_answer(self):
        for options in ((), ("--http2-prior-knowledge",)):
            document = {"id": "7", "text_input": "one two three", "parameters": {"max_tokens": 2}}
            status, content_type, body = curl(self.PATH, document, *options)
            self.assertEqual((status, content_type), (200, "application/json"))
            wanted = {"id": "7", "model_name": "parrot", "model_version": "1.0.0"}
            self.assertEqual(json.loads(body), wanted | {"text_output": "one two"})

    def test_a_stream(self):
        for options in ((), ("--http2-prior-knowledge",)):
            document = {"text_input": "one two three"}
            status, content_type, body = curl(self.PATH + "_stream", document, *options)
            self.assertEqual((status, content_type), (200, "text/event-stream; charset=utf-8"))
            parts = [json.loads(data) for data in events(body)]
            texts = [part["text_output"] for part in parts]
            self.assertEqual(texts, ["one ", "two ", "three", ""])
            self.assertEqual({part["model_version"] for part in parts}, {"1.0.0"})

    def test_failures_have_their_status_until_there_is_an_event(self):
        status, content_type, body = curl(self.PATH + "_stream", {"text_input": "!fail at once"})
        self.assertEqual((status, content_type), (500, "application/json"))
        self.assertIn("at once", json.loads(body)["error"])
        status, _, body = curl(self.PATH + "_stream", {"text_input": "one !fail later"})
        first, last = (json.loads(data) for data in events(body))
        self.assertEqual((status, first["text_output"]), (200, "one"))
        self.assertIn("later", last["error"])
        for wrong in ({}, {"text_input": 1}, {"text_input": "a", "parameters": {"top_p": 2}}):
            status, _, body = curl(self.PATH, wrong)
            self.assertEqual(status, 400, body)
            self.assertIsInstance(json.loads(body)["error"], str)


class OpenAi(unittest.TestCase):
    """The stream of a chat completion, to the byte."""

    def test_a_stream_ends_with_done(self):
        document = {
            "model": "parrot",
            "stream": True,
            "messages": [{"role": "user", "content": "a"}],
        }
        status, content_type, body = curl("/v1/chat/completions", document)
        self.assertEqual((status, content_type), (200, "text/event-stream; charset=utf-8"))
        *chunks, done, rest = body.split("\n\n")
        self.assertEqual((done, rest), ("data: [DONE]", ""))
        first, last = (json.loads(chunk.removeprefix("data: ")) for chunk in chunks)
        self.assertEqual(first["choices"][0]["delta"], {"role": "assistant", "content": "a"})
        self.assertEqual(last["choices"][0]["delta"], {})
        self.assertNotIn("usage", last)


if __name__ == "__main__":
    unittest.main()
