"""Writes a language model of 170,000 random weights, with a tokenizer of its own.

`python tiny_llama.py FOLDER`, in an environment that has transformers and torch.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MAX_TOKENS = 2_048
TEXT = "a trace of an inference request has a queue, a prefill, many decode steps and an end"
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]


def main(folder: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet),
    )
    pad, begin, end = SPECIAL_TOKENS
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad
    )
    wrapped.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    )
    wrapped.model_max_length = MAX_TOKENS
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=SPECIAL_TOKENS.index(begin),
        eos_token_id=SPECIAL_TOKENS.index(end),
        pad_token_id=SPECIAL_TOKENS.index(pad),
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    wrapped.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
