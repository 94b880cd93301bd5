"""The public formats in bytes and back: OpenAI, server-sent events, errors, batch lines; no network."""

from tiergate.wire.batch import (
    BATCH_URLS,
    CHAT_URL,
    BadLine,
    BatchLine,
    custom_id_of,
    read_batch_line,
    write_answered,
    write_unanswered,
)
from tiergate.wire.chat import (
    MODEL_NAME_MAX,
    ChatQuestion,
    ErrorInStream,
    chat_question,
    choices_asked,
    output_tokens_asked,
    read_chat,
    read_chunk,
    read_plain_chat,
    read_reply,
    render_chat,
)
from tiergate.wire.chatstream import DONE, ChatStream
from tiergate.wire.errors import ErrorBody, read_error, write_error
from tiergate.wire.folded import FoldedAnswer, FoldedChoice, fold, write_pieces, write_whole
from tiergate.wire.jsontext import DEPTH_MAX, canonical, dumps, loads, read_object, verbatim
from tiergate.wire.plain import write_done, write_piece
from tiergate.wire.sse import EVENT_BYTES_MAX, ServerSentEvent, SseParser, write_event
from tiergate.wire.usage import cost_number, usage_object, with_cost

__all__ = [
    "BATCH_URLS",
    "CHAT_URL",
    "DEPTH_MAX",
    "DONE",
    "EVENT_BYTES_MAX",
    "MODEL_NAME_MAX",
    "BadLine",
    "BatchLine",
    "ChatQuestion",
    "ChatStream",
    "ErrorBody",
    "ErrorInStream",
    "FoldedAnswer",
    "FoldedChoice",
    "ServerSentEvent",
    "SseParser",
    "canonical",
    "chat_question",
    "choices_asked",
    "cost_number",
    "custom_id_of",
    "dumps",
    "fold",
    "loads",
    "output_tokens_asked",
    "read_batch_line",
    "read_chat",
    "read_chunk",
    "read_error",
    "read_object",
    "read_plain_chat",
    "read_reply",
    "render_chat",
    "usage_object",
    "verbatim",
    "with_cost",
    "write_answered",
    "write_done",
    "write_error",
    "write_event",
    "write_piece",
    "write_pieces",
    "write_unanswered",
    "write_whole",
]
