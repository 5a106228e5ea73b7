"""A real tokenizer, made here, and chat templates in the formats of the published ones."""

from collections.abc import Callable

import hypothesis
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# A machine that is busy must not fail a test.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# As Qwen2.5 and Qwen3 write tools and their calls.
HERMES_TEMPLATE = """\
{%- if tools %}<|im_start|>system
{{ messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' }}# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Call one as <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}<|im_start|>assistant
{{ message.content }}
{%- for call in message.tool_calls or [] %}
{%- if not loop.first or message.content %}{{ '\\n' }}{% endif %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif not (tools and message.role == 'system') %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{{ '<think>\\n\\n</think>\\n\\n' if enable_thinking is defined and not enable_thinking else '' }}
{%- endif %}"""

# As Qwen3-Coder and Qwen3.5 do.
QWEN_XML_TEMPLATE = HERMES_TEMPLATE.replace(
    """<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>""",
    """<tool_call>
<function={{ call.function.name }}>
{% for key, value in call.function.arguments.items() %}<parameter={{ key }}>
{{ value | tojson if value is mapping or (value is sequence and value is not string) else value }}
</parameter>
{% endfor %}</function>
</tool_call>""",
)

# As Llama 3.1 does: the call is the whole message, and there is one.
LLAMA3_TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role }}

{% if message.tool_calls %}{% set call = message.tool_calls[0].function -%}
{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}
{%- else %}{{ message.content }}{% endif %}<|im_end|>
{%- endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- if add_generation_prompt %}<|im_start|>assistant

{% endif %}"""

PLAIN_TEMPLATE = """\
{%- for message in messages %}
{%- if message.role == 'tool' %}{{ raise_exception('this model knows no tools') }}{% endif -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


TEMPLATES = {
    "hermes": HERMES_TEMPLATE,
    "qwen_xml": QWEN_XML_TEMPLATE,
    "llama3_json": LLAMA3_TEMPLATE,
    "plain": PLAIN_TEMPLATE,
}

MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]


def _byte_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    # A few merges, so that a text has more encodings than its canonical one.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("o", "r")]
    pieces = [*alphabet, *("".join(merge) for merge in merges)]
    bpe = models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # of transformers
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"],
    )
    fast.chat_template = None if template is None else TEMPLATES[template]
    return fast


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Make a byte-level tokenizer with one of ``TEMPLATES`` by name, or with none."""
    return _byte_tokenizer
