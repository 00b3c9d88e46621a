"""A recording of speech and what the voice-activity model says of each of its frames.

The recording is eleven seconds of John F. Kennedy's inaugural address of 1961, which is in the
public domain.
"""

import io
import wave

import numpy as np

from . import engine

# Where the graph lies in the package `silero-vad-graph` of pins.json; it is used as it is.
GRAPH = "faster_whisper/assets/silero_vad_v6.onnx"

# Where the recording lies in the package `speech-recording` of pins.json.
RECORDING = "package/lib/whisper.cpp/bindings/go/samples/jfk.wav"

RATE = 16_000

# The graph takes 32 ms of new samples, after the last 4 ms of the samples before them.
FRAME = 512
CONTEXT = 64
STATE = (1, 1, 128)

# Samples of silence before and after the recording: one second, in whole frames.
SILENCE = 32 * FRAME


def read_recording(data):
    """The WAV file in `data` between two silences: float32 [samples], -1 to 1, 16 kHz, one channel.

    Filled with silence to whole frames.
    """
    with wave.open(io.BytesIO(data)) as recording:
        form = (recording.getnchannels(), recording.getsampwidth(), recording.getframerate())
        if form != (1, 2, RATE):
            raise ValueError(f"expected one channel of 16 bits at {RATE} Hz, found {form}")
        samples = np.frombuffer(recording.readframes(recording.getnframes()), "<i2")
    samples = samples.astype("<f4") / 32768
    return np.pad(samples, (SILENCE, SILENCE + -len(samples) % FRAME))


def probabilities(model, samples):
    """The probability of speech in each whole frame of `samples`: float32 [frames].

    Frame by frame, as a stream brings them: each run takes the state that the one before it left,
    and the last samples of the frame before; both are zeros at first.
    """
    session = engine.session(model)
    state = {"h": np.zeros(STATE, np.float32), "c": np.zeros(STATE, np.float32)}
    context = np.zeros(CONTEXT, np.float32)
    answers = []
    for frame in samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME):
        window = np.concatenate([context, frame])[None]
        answer, state["h"], state["c"] = session.run(
            ["speech_probs", "hn", "cn"], {"input": window, **state}
        )
        answers.append(answer.ravel())
        context = frame[-CONTEXT:]
    return np.concatenate(answers).astype("<f4")
