"""The server against its own OpenAPI document, by `schemathesis`: whatever a client makes of the
document is answered as it says, and never by a failure of the host.
"""

import json
import subprocess
import sys
import tempfile
import unittest
import urllib.request

from .server import Server

# Requests made for each operation, beside those for every limit that the document states.
EXAMPLES = 25


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
                # The document cannot say what one model's signature takes.
                "--exclude-checks": "positive_data_acceptance",
                "--request-timeout": 60,
            }
            for option, value in options.items():
                command += [option, str(value)]
            command.append("--generation-deterministic")
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])
            with urllib.request.urlopen(document) as answer:
                operations = sum(len(methods) for methods in json.load(answer)["paths"].values())
            # All but the document's own, which it has read before.
            self.assertIn(f"Tested: {operations - 1}", done.stdout)


if __name__ == "__main__":
    unittest.main()
