"""What each token of a vocabulary adds to a text."""

from __future__ import annotations

from tokenizers import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer makes of a part of a character


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """(vocabulary,) texts; empty for special tokens."""
    [*_, anchor] = tokenizer.encode("a", add_special_tokens=False).ids
    start = len(tokenizer.decode([anchor]))
    num_tokens = tokenizer.get_vocab_size()
    texts = tokenizer.decode_batch([[anchor, token] for token in range(num_tokens)])
    return [text[start:] for text in texts]
