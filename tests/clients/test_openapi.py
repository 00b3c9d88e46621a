"""The server against its own OpenAPI document, by `schemathesis`: whatever a client makes of the
document is answered as it says, and never by a failure of the host.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import urllib.request

from .server import Server

# Requests made for each operation, beside those for every limit that the document states.
EXAMPLES = 25

# What the document cannot say is not held against the server. What it does not do it answers with 501, as
# the protocol wants it, and calls of an unloaded model with 503; whether an ETag is the last one only it
# knows. And what a document accepts is not all that is accepted of a model's tensors, fields and tasks,
# of a package's parts, of an alias's versions, or of an upload's pieces.
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501", "503"]
positive_data_acceptance.expected-statuses = ["2xx", "403", "404", "409", "412", "429", "5xx"]

[[operations]]
include-path-regex = "^/fn/|/(infer|generate|generate_stream|embeddings|completions|transcriptions)$"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-name = [
    "PUT /api/v1/models/{model}/versions/{version}",
    "PUT /api/v1/models/{model}/aliases/{alias}",
    "PATCH /api/v1/blobs/{digest}",
]
checks.positive_data_acceptance.enabled = false
"""


class OpenApi(unittest.TestCase):
    """The document, and the routes in it."""

    def test_every_operation_keeps_to_the_document(self):
        # It leaves its cache where it runs.
        with Server() as url, tempfile.TemporaryDirectory() as folder:
            document = f"{url}/api/v1/openapi.json"
            command = [sys.executable, "-m", "schemathesis.cli", "run", document]
            options = {
                "--max-examples": EXAMPLES,
                "--seed": 1,
                "--request-timeout": 60,
            }
            for option, value in options.items():
                command += [option, str(value)]
            command.append("--generation-deterministic")
            pathlib.Path(folder, "schemathesis.toml").write_text(SETTINGS, encoding="utf-8")
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr[-2000:])
            with urllib.request.urlopen(document) as answer:
                operations = sum(len(methods) for methods in json.load(answer)["paths"].values())
            # All but the document's own, which it has read before.
            self.assertIn(f"Tested: {operations - 1}", done.stdout)


if __name__ == "__main__":
    unittest.main()
