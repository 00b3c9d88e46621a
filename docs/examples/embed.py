"""Two sentences that mean much the same, through a client that was written for another service."""

import os

import openai

client = openai.OpenAI(base_url=os.environ["MODELET_SERVER"] + "/v1", api_key="unused")
texts = ["A man is eating food.", "Someone is having a meal."]
one, other = client.embeddings.create(model="embedding", input=texts).data
print(round(sum(a * b for a, b in zip(one.embedding, other.embedding, strict=True)), 2))
