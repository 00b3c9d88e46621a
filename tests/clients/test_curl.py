"""Inferences as `curl` sends them when nobody tells it better: what it says of a body is not true, bodies
have no length, and large ones are announced first."""

import json
import pathlib
import subprocess
import tempfile
import unittest

from .models import URL, load

PATH = "/v2/models/mnist/infer"


def request(rows):
    """The first digits of the test set, as JSON."""
    digits = load("digits")[:rows]
    data = digits.reshape(-1).tolist()
    image = {"name": "image", "datatype": "FP32", "shape": list(digits.shape), "data": data}
    return json.dumps({"inputs": [image]})


class Curl(unittest.TestCase):
    """One request each."""

    def post(self, body, *options):
        """The answer's document, how it was asked for, and the version of HTTP."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "body.json")
            file.write_text(body, encoding="utf-8")
            command = ["curl", "--silent", "--verbose", "--max-time", "60", *options]
            done = subprocess.run(
                [*command, "--data-binary", f"@{file}", "--write-out", "\n%{http_version}", URL + PATH],
                check=True,
                capture_output=True,
            )
        answer, _, version = done.stdout.decode().rpartition("\n")
        return json.loads(answer), done.stderr.decode().lower(), version

    def check(self, answer, rows):
        """As many answers as there were questions, each the engine's."""
        (logits,) = answer["outputs"]
        self.assertEqual(logits["shape"], [rows, 10])
        expected = load("digits.logits")[:rows].reshape(-1)
        for given, wanted in zip(logits["data"], expected, strict=True):
            self.assertAlmostEqual(given, wanted, delta=1e-4)

    def test_json_that_is_said_to_be_a_form(self):
        answer, said, version = self.post(request(2))
        self.assertIn("> content-type: application/x-www-form-urlencoded", said)
        self.assertEqual(version, "1.1")
        self.check(answer, 2)

    def test_a_body_in_chunks(self):
        answer, said, _ = self.post(request(2), "--header", "Transfer-Encoding: chunked")
        self.assertIn("> transfer-encoding: chunked", said)
        self.assertNotIn("> content-length", said)
        self.check(answer, 2)

    def test_a_body_that_waits_to_be_asked_for(self):
        # Without the answer to its question it would wait for longer than the whole may take.
        options = ("--header", "Expect: 100-continue", "--expect100-timeout", "600")
        answer, said, _ = self.post(request(100), *options)
        self.assertIn("> expect: 100-continue", said)
        self.assertIn("< http/1.1 100 continue", said)
        self.check(answer, 100)

    def test_http_2(self):
        for options in ((), ("--header", "Content-Type: application/json")):
            answer, said, version = self.post(request(8), "--http2-prior-knowledge", *options)
            self.assertEqual(version, "2", said)
            self.check(answer, 8)


if __name__ == "__main__":
    unittest.main()
