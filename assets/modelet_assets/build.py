"""Makes the folder of models: graphs, inputs, the bare engine's answers, and an index of them.

Everything in the folder is a function of the pinned downloads and of this package, byte for byte;
only the engine's answers and the trained recommender may differ in their last bits between
processors.
"""

import hashlib
import json
import pathlib

import numpy as np

from . import (
    efficientnet,
    engine,
    graph,
    inputs,
    minilm,
    mnist,
    moonshine,
    pictures,
    recommender,
    sentences,
    smollm2,
    speech,
)
from .checkpoint import read_checkpoint
from .gguf import read_gguf
from .ort_format import read_ort
from .safetensors import read_safetensors

# Raised when the layout of the folder changes, so that a reader can tell.
INDEX_FORMAT = 2

DATATYPES = {np.dtype("<f4"): "FP32", np.dtype("u1"): "UINT8"}
SUFFIXES = {"FP32": "f32", "UINT8": "u8"}

# The digit of the ready-made JSON request.
REQUEST_DIGIT = 7


class Folder:
    """The folder being filled and the index of what is in it."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.index = {"format": INDEX_FORMAT, "models": {}, "tensors": {}}

    def write(self, name, data):
        """Writes a file, in a folder of its own if `name` has one, and returns its SHA-256."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def tensor(self, name, array):
        """Writes raw little-endian elements, listed under `name`."""
        datatype = DATATYPES[array.dtype]
        stem = name.removesuffix(".labels")
        file = f"{stem}.{SUFFIXES[datatype]}"
        digest = self.write(file, np.ascontiguousarray(array).tobytes())
        entry = {"file": file, "datatype": datatype, "shape": list(array.shape), "sha256": digest}
        self.index["tensors"][name] = entry

    def model(self, name, pin, data):
        """Writes a graph, listed with the package of its weights and its inputs and outputs."""
        file = f"{name}.onnx"
        model_inputs, model_outputs = graph.describe(data)
        self.index["models"][name] = {
            "file": file,
            "sha256": self.write(file, data),
            "source": f"{pin['registry']} {pin['package']} {pin['version']}",
            "licence": pin["licence"],
            "inputs": model_inputs,
            "outputs": model_outputs,
        }

    def finish(self):
        """Writes the index; a folder without one is not finished."""
        text = json.dumps(self.index, indent=1, sort_keys=True) + "\n"
        self.write("index.json", text.encode())


def build(sources, out):
    """Fills the folder `out` from the packages in `sources` and returns its index."""
    folder = Folder(out)
    digit_model = convert(folder, sources, "mnist", mnist, "mnist-checkpoint")
    add_digits(folder, sources, digit_model)
    photo_model = convert(
        folder, sources, "efficientnet-lite0", efficientnet, "efficientnet-checkpoint"
    )
    add_photographs(folder, sources, photo_model)
    add_pictures(folder, sources)
    add_embedding(folder, sources)
    add_sentences(folder, sources)
    add_speech(folder, sources)
    add_recommender(folder, sources)
    add_chat(folder, sources)
    add_transcriber(folder, sources)
    folder.finish()
    return folder.index


def convert(folder, sources, name, module, source):
    """Converts one checkpoint, adds it to the folder and returns the ONNX bytes."""
    model = module.convert(read_checkpoint(sources.open(source).read(module.CHECKPOINT)))
    folder.model(name, sources.pins[source], model)
    return model


def add_digits(folder, sources, model):
    """Adds all digits with labels and answers, the first of each class, and a JSON request."""
    images, labels = inputs.read_digits(sources.open("mnist-digits"))
    answers = engine.logits(model, images)
    folder.tensor("digits", images)
    folder.tensor("digits.labels", labels)
    folder.tensor("digits.logits", answers)
    for label in range(10):
        folder.tensor(f"digit-{label}", images[label : label + 1])
    correct = int((answers.argmax(axis=1) == labels).sum())
    folder.index["digits"] = {"count": len(labels), "correct": correct}
    folder.write(f"digit-{REQUEST_DIGIT}.json", request(images[REQUEST_DIGIT : REQUEST_DIGIT + 1]))


def request(images):
    """An inference request in the Open Inference Protocol's JSON form."""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(images.shape),
        "data": [round(float(value), 6) for value in images.ravel()],
    }
    return (json.dumps({"inputs": [tensor]}) + "\n").encode()


def add_photographs(folder, sources, model):
    """Adds the photographs with the engine's answers, and the names of the classes."""
    labels = inputs.read_labels(sources.open("imagenet-labels"))
    folder.write("imagenet-labels.txt", "".join(label + "\n" for label in labels).encode())
    answers = []
    for photograph in inputs.PHOTOGRAPHS:
        data = sources.open(photograph.source).read(photograph.member)
        image = inputs.read_photograph(data)
        row = engine.logits(model, image)
        folder.tensor(photograph.name, image)
        folder.tensor(f"{photograph.name}.logits", row)
        best = int(row[0].argmax())
        probability = round(float(engine.softmax(row[0])[best]), 4)
        answers.append(
            {
                "name": photograph.name,
                "class": best,
                "label": labels[best],
                "probability": probability,
            }
        )
    folder.index["photographs"] = answers


def add_pictures(folder, sources):
    """Adds picture files of many forms, each with its tensor [3, 224, 224]."""
    names = []
    for picture in pictures.PICTURES:
        data = picture.read(sources)
        name = f"pictures/{picture.name}"
        folder.write(name, data)
        folder.tensor(name.rsplit(".", 1)[0], inputs.read_photograph(data)[0])
        names.append(name)
    folder.index["pictures"] = names


def add_embedding(folder, sources):
    """Adds the sentence embedding as float32 and as int8, and its tokenizer."""
    package = sources.open("minilm-checkpoint")
    model = minilm.convert(read_safetensors(package.read(minilm.CHECKPOINT)))
    folder.model("minilm", sources.pins["minilm-checkpoint"], model)
    folder.write("minilm-tokenizer.json", package.read(minilm.TOKENIZER))
    folder.write("minilm-vocab.txt", package.read(minilm.VOCABULARY))
    ready = sources.open("minilm-int8-graph").read(minilm.INT8_GRAPH)
    folder.model("minilm-int8", sources.pins["minilm-int8-graph"], ready)


def add_sentences(folder, sources):
    """Adds the sentences, one a line, and the token ids of each, a list of lists."""
    texts = sentences.sentences()
    folder.write("sentences.txt", "".join(text + "\n" for text in texts).encode())
    tokenizer = sources.open("minilm-checkpoint").read(minilm.TOKENIZER).decode()
    rows = ",\n".join(map(json.dumps, sentences.token_ids(tokenizer, texts)))
    folder.write("sentences-ids.json", f"[\n{rows}\n]\n".encode())
    folder.index["sentences"] = {"count": len(texts), "max_tokens": sentences.MAX_TOKENS}


def add_speech(folder, sources):
    """Adds the voice-activity model, a recording, and the probability of speech in each frame."""
    model = sources.open("silero-vad-graph").read(speech.GRAPH)
    folder.model("silero-vad", sources.pins["silero-vad-graph"], model)
    samples = speech.read_recording(sources.open("speech-recording").read(speech.RECORDING))
    folder.tensor("speech", samples)
    folder.tensor("speech-probs", speech.probabilities(model, samples))


def add_recommender(folder, sources):
    """Trains the recommender, and adds it with the films' titles and its scores."""
    likes = recommender.read_likes(sources.open("movielens-ratings").read(recommender.RATINGS))
    model = recommender.convert(recommender.train(likes.matrix))
    folder.model("ease", sources.pins["movielens-ratings"], model)
    folder.write("ease-titles.txt", "".join(title + "\n" for title in likes.titles).encode())
    folder.index["recommender"] = recommender.evaluate(likes.matrix)
    folder.write("ease-metrics.json", (json.dumps(folder.index["recommender"]) + "\n").encode())


def add_chat(folder, sources):
    """Adds the language model, its tokenizer, and the token ids of each of the sentences."""
    package = sources.open("smollm2-checkpoint")
    metadata, tensors = read_gguf(package.read(smollm2.CHECKPOINT))
    folder.model("smollm2", sources.pins["smollm2-checkpoint"], smollm2.convert(tensors))
    tokenizer = smollm2.tokenizer(metadata)
    folder.write("smollm2-tokenizer.json", tokenizer.encode())
    ids = sentences.token_ids(tokenizer, sentences.sentences(), limit=None)
    rows = ",\n".join(map(json.dumps, ids))
    folder.write("smollm2-sentences-ids.json", f"[\n{rows}\n]\n".encode())


def add_transcriber(folder, sources):
    """Adds the two graphs that write down speech, their tokens, and recordings with transcripts."""
    package, pin = sources.open("moonshine-graphs"), sources.pins["moonshine-graphs"]
    folder.model("moonshine-encoder", pin, read_ort(package.read(moonshine.ENCODER)))
    folder.model("moonshine-decoder", pin, read_ort(package.read(moonshine.DECODER)))
    folder.write("moonshine-tokens.bin", package.read(moonshine.TOKENS))
    folder.write("recordings/two-cities.wav", package.read(moonshine.READING))
    clips = sources.open("librivox-clips")
    transcripts = clips.read(f"{moonshine.CLIPS}/transcription").decode()
    transcripts = moonshine.read_transcripts(transcripts)
    for name in transcripts:
        folder.write(f"recordings/{name}.wav", clips.read(f"{moonshine.CLIPS}/{name}.wav"))
    text = json.dumps(transcripts, indent=1) + "\n"
    folder.write("recordings/transcripts.json", text.encode())
