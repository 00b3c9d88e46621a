"""MLServer's client of the command line."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from clients.covers import covers

SERVER = os.environ["MODELET_SERVER"]
FOLDER = pathlib.Path(os.environ["MODELET_MODELS"])
COUNT = 20


class CommandLine(unittest.TestCase):
    """`mlserver infer`."""

    CLIENT = "mlserver: command line"

    @covers("infer")
    def test_infer(self):
        digits = np.fromfile(FOLDER / "digits.f32", "<f4").reshape(-1, 28 * 28)[:COUNT]
        labels = np.fromfile(FOLDER / "digits.u8", "u1")[:COUNT]
        with tempfile.TemporaryDirectory() as folder:
            given, taken = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
            image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28]}
            lines = [json.dumps({"inputs": [image | {"data": d.tolist()}]}) for d in digits]
            given.write_text("\n".join(lines) + "\n", encoding="utf-8")
            # As its script does, which does not know where its Python was moved to.
            program = [sys.executable, "-c", "from mlserver.cli import main; main()"]
            command = [*program, "infer", "-u", SERVER.removeprefix("http://"), "-m", "mnist"]
            run = subprocess.run(
                [*command, "-i", given, "-o", taken], capture_output=True, text=True, check=False
            )
            self.assertEqual(run.returncode, 0, run.stderr)
            answers = [json.loads(line) for line in taken.read_text().splitlines()]
        found = [np.argmax(answer["outputs"][0]["data"]) for answer in answers]
        order = [answer["parameters"]["batch_index"] for answer in answers]
        np.testing.assert_array_equal(np.array(found), labels[order])
        self.assertEqual(sorted(order), list(range(COUNT)))


if __name__ == "__main__":
    unittest.main()
