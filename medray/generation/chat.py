"""The chat format of the models that medray builds itself: ChatML, as Qwen writes it.

A tokenizer that brings its own chat template keeps it; one that brings none, as base models do,
gets a plain one, which needs no token but the end of text.
"""

import logging
from typing import Any

from medray.generation.sampling import Chat

logger = logging.getLogger(__name__)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PAD_TOKEN = "<|endoftext|>"
EOS_TOKEN = "<|im_end|>"
SPECIAL_TOKENS = [PAD_TOKEN, "<|im_start|>", EOS_TOKEN]
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}答：{{ message['content'] }}{{ eos_token }}\n"
    "{% elif message['role'] == 'user' %}问：{{ message['content'] }}\n"
    "{% else %}{{ message['content'] }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}答：{% endif %}"
)


def with_chat_template(tokenizer: Any) -> Any:
    """The same tokenizer, with the plain template if it has none."""
    if not tokenizer.chat_template:
        logger.warning(
            "%s has no chat template; turns are written 问： and 答：, and fine-tuning keeps that",
            tokenizer.name_or_path or "the tokenizer",
        )
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def chat_prompt(tokenizer: Any, messages: Chat) -> str:
    """The text that a model continues with the assistant's next turn."""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a prompt; special tokens written in it are parsed."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]
