"""The server against the protocol's own OpenAPI document, by `schemathesis`: MLServer's package has a
copy of it, with routes of MLServer's own beside."""

import importlib.util
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

SERVER = os.environ["MODELET_SERVER"]

# The program is among the packages of the other list.
PYTHON = os.environ["MODELET_PYTHON"]

# Requests made for each operation.
EXAMPLES = 25

# What the document says wrongly or not at all, and is not looked at for that:
LEFT_OUT = {
    # It has no status but 200 for most routes, and none for a model that is not there.
    "status_code_conformance",
    # It says that any name is a model's, and any list of tensors one that the model takes.
    "positive_data_acceptance",
    # It lets a request be anything, so that what is no request at all counts as one; what this
    # server refuses is checked against this server's document.
    "negative_data_rejection",
}

NAMES = {"model_name": ["mnist", "parrot", "none"], "model_version": ["1.0.0", "live", "9"]}

# What is not the protocol's.
OTHERS = "infer_stream$"


def document():
    """The document, as the program can read it."""
    package = pathlib.Path(importlib.util.find_spec("mlserver").origin).parent
    file = package / "rest" / "openapi" / "dataplane.json"
    # The protocol's own copy has a stray `$` before every name in a path.
    found = json.loads(file.read_text(encoding="utf-8").replace("${", "{"))
    # This copy has a type for data that JSON has not, and the protocol's own nests without end, which no
    # generator follows; three levels do for what is here.
    data = {"anyOf": [{"type": kind} for kind in ("number", "string", "boolean")]}
    for _ in range(3):
        data = {"anyOf": [*data["anyOf"], {"type": "array", "items": data}]}
    found["components"]["schemas"]["TensorData"] = {"type": "array", "items": data}
    # Names that are there, and some that are not: of any others there is only one thing to say.
    for operations in found["paths"].values():
        for parameter in operations.get("parameters", []):
            parameter["schema"] = {"enum": NAMES[parameter["name"]]}
    return found


class Document(unittest.TestCase):
    """The protocol's document."""

    def test_every_answer_is_one_of_the_protocol(self):
        options = {
            "--max-examples": EXAMPLES,
            "--seed": 1,
            "--exclude-checks": ",".join(sorted(LEFT_OUT)),
            "--exclude-path-regex": OTHERS,
            "--request-timeout": 60,
        }
        # It leaves its cache where it runs.
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "document.json")
            file.write_text(json.dumps(document()), encoding="utf-8")
            command = [PYTHON, "-m", "schemathesis.cli", "run", file, "--url", SERVER]
            for option, value in options.items():
                command += [option, str(value)]
            done = subprocess.run(
                [*command, "--generation-deterministic"],
                cwd=folder, capture_output=True, text=True, check=False,
            )
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])
        self.assertIn("Tested: 13", done.stdout)


if __name__ == "__main__":
    unittest.main()
