"""How tests of speculative decoding ask for it."""

DRAFT = {"method": "draft", "model": "llama-3.1-8b", "tokens": 3, "acceptance": 0.7}
NGRAM = {"method": "ngram", "tokens": 3, "acceptance": 0.7, "lookup_time": "0 s"}


def engine(**speculation):
    return {"speculation": {**NGRAM, **speculation}}
