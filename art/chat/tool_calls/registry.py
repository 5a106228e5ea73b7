"""The tool-call formats that are known, found by a chat template's text.

To add a format, write one module with a class that implements
:class:`art.chat.tool_calls.protocol.ToolCallFormat` and add its instance to :data:`FORMATS`.
"""

from art.chat.tool_calls.deepseek import DEEPSEEK
from art.chat.tool_calls.gemma4 import GEMMA4
from art.chat.tool_calls.glm_xml import GLM_XML
from art.chat.tool_calls.harmony import HARMONY
from art.chat.tool_calls.hermes import HERMES
from art.chat.tool_calls.kimi import KIMI
from art.chat.tool_calls.llama3_json import LLAMA3_JSON
from art.chat.tool_calls.mistral import MISTRAL
from art.chat.tool_calls.phi4_mini import PHI4_MINI
from art.chat.tool_calls.protocol import ToolCallFormat
from art.chat.tool_calls.pythonic import PYTHONIC
from art.chat.tool_calls.qwen_xml import QWEN_XML

# The first format whose mark is in the template is taken. The markers of the first ones are
# tokens of their own family. GLM's and Qwen's XML templates hold the mark of Hermes too, so they
# precede it; the mark of Llama 3 is the least specific and comes last.
FORMATS: tuple[ToolCallFormat, ...] = (
    HARMONY,
    GEMMA4,
    DEEPSEEK,
    KIMI,
    MISTRAL,
    PHI4_MINI,
    GLM_XML,
    QWEN_XML,
    HERMES,
    PYTHONIC,
    LLAMA3_JSON,
)


def tool_call_format(chat_template: str) -> ToolCallFormat | None:
    """Find the format in which a chat template writes tool calls.

    Args:
        chat_template: The Jinja text of the template.

    Returns:
        The format, or ``None`` where the template has the mark of none in :data:`FORMATS`.
    """
    return next((each for each in FORMATS if each.template_mark in chat_template), None)
