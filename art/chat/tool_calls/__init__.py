"""Tool calls in the text that a model wrote, one module per format.

A chat template teaches its model one format for tool calls. :mod:`art.chat.tool_calls.registry`
finds the format from the template's own text.
"""
