"""`python -m clients.conversations`: two hundred conversations with `chat`, for `cargo xtask soak`.

Eight at a time, of two turns each; every fifth caller leaves in the middle of an answer. All others are
told the same as the first was; and when the last has gone, the server holds what it held before.
"""

import concurrent.futures
import itertools
import sys
import time
import urllib.request

import openai

from .models import URL

CONVERSATIONS, AT_ONCE = 200, 8
# Every so many leave in the middle.
LEAVES = 5
# Tokens of an answer, and after how many parts those who leave do so.
TOKENS, PARTS = 24, 7
TURNS = ("Name three colours.", "Name three animals.")
# Bytes by which the process may have grown: heaps, and what an allocator keeps.
GROWTH = 256 << 20
# Seconds until the server has come to rest, and more.
PATIENCE = 120


def metrics():
    """What the server counts, by name and labels."""
    with urllib.request.urlopen(f"{URL}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def converse(number):
    """One conversation: what was said, or nothing where the caller left."""
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key="any", max_retries=0)
    messages, said = [], []
    for turn in TURNS:
        messages.append({"role": "user", "content": turn})
        stream = client.chat.completions.create(
            model="chat", messages=messages, max_tokens=TOKENS, temperature=0, stream=True
        )
        if number % LEAVES == LEAVES - 1:
            list(itertools.islice(stream, PARTS))
            stream.close()
            return None
        parts = (chunk.choices[0].delta.content for chunk in stream)
        said.append("".join(part or "" for part in parts))
        messages.append({"role": "assistant", "content": said[-1]})
    return said


def main():
    """Holds them all; 1 where anything is not as it was."""
    wanted = converse(0)
    before = metrics()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(converse, range(CONVERSATIONS)))
    whole = [answer for answer in answers if answer is not None]
    wrong = [answer for answer in whole if answer != wanted]
    begun = time.monotonic()
    while True:
        after = metrics()
        grown = after["modelet_process_resident_bytes"] - before["modelet_process_resident_bytes"]
        is_at_rest = after["modelet_inflight_requests"] == after["modelet_inflight_bytes"] == 0
        if (is_at_rest and grown < GROWTH) or time.monotonic() - begun > PATIENCE:
            break
        time.sleep(1)
    print(f"{len(whole)} of {CONVERSATIONS} conversations to their end, {len(wrong)} otherwise")
    print(f"at rest: {is_at_rest}; memory grew by {grown / 1e6:.0f} MB")
    expected = CONVERSATIONS - CONVERSATIONS // LEAVES
    return int(len(whole) != expected or bool(wrong) or not is_at_rest or grown >= GROWTH)


if __name__ == "__main__":
    sys.exit(main())
