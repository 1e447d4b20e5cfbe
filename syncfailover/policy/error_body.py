"""Error bodies, whatever their shape, read in one place: the shapes and their sources are the notes on the wire."""

from typing import Any, Dict, List, NamedTuple, Optional

#: Reasons for an end that are none: OpenRouter's for an error of its provider, DeepSeek's for want of machines.
FAILED_REASONS = ("error", "insufficient_system_resource")


class ErrorInfo(NamedTuple):
    """An error body, whatever its shape, in one form."""

    status: Optional[int]
    code: Optional[str]
    message: str
    #: Everything it says, in lower case: what the table's words are looked for in.
    says: str


def error_in(payload: Any) -> Optional[ErrorInfo]:
    """Return the error that a payload with a good status carries, None where it carries none."""
    if type(payload) is list and payload and type(payload[0]) is dict and payload[0].get("error"):
        return error_of(payload)
    if type(payload) is dict and (payload.get("error") or payload.get("object") == "error"):
        return error_of(payload)
    return None


def error_of(payload: Any) -> ErrorInfo:
    """Read an error body: OpenAI's, Anthropic's, Gemini's array, vLLM's flat one or a bare string."""
    if type(payload) is list and payload:
        payload = payload[0]
    if type(payload) is not dict:
        return ErrorInfo(None, None, "", "")
    error = payload.get("error", payload)
    if type(error) is not dict:
        error = {"message": str(error)}
    words: List[str] = [
        error[field] for field in ("code", "type", "status") if isinstance(error.get(field), str)
    ]
    message = error.get("message") or error.get("detail") or ""
    message = message if isinstance(message, str) else str(message)
    deeper = [str(error[field]) for field in ("metadata", "details") if error.get(field)]
    return ErrorInfo(
        _inner_status(error),
        words[0] if words else None,
        message,
        " ".join([*words, message, *deeper]).lower(),
    )


#: Inner error types that stand for a status where a reply with status 200 names no number.
_STATUS_OF_TYPE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "slow_down": 429,
    "insufficient_quota": 429,
    "credit_balance_exhausted": 429,
    "organization_spend_limit_exceeded": 429,
    "project_spend_limit_exceeded": 429,
    "organization_usage_limit_exceeded": 429,
    "billing_error": 402,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "overloaded_error": 529,
    "server_is_overloaded": 503,
    "service_unavailable_error": 503,
    "permission_error": 403,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "server_error": 500,
    "api_error": 500,
    "timeout_error": 504,
    # of the responses API
    "bio_policy": 400,
    "data_residency_mismatch": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "image_content_policy_violation": 400,
    "image_file_not_found": 400,
    "image_file_too_large": 400,
    "image_parse_error": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "invalid_base64_image": 400,
    "invalid_image": 400,
    "invalid_image_format": 400,
    "invalid_image_mode": 400,
    "invalid_image_url": 400,
    "misalignment_policy_violation": 400,
    "unsupported_image_media_type": 400,
    "vector_store_timeout": 500,
}


def _inner_status(error: Dict[str, Any]) -> Optional[int]:
    found = None
    for field in ("code", "status", "type"):
        value = error.get(field)
        if isinstance(value, str) and len(value) == 3 and value.isdecimal() and value.isascii():
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
        if isinstance(value, str) and value in _STATUS_OF_TYPE:
            found = _STATUS_OF_TYPE[value]
            if value != "invalid_request_error":  # DeepSeek's code for everything; the type may say more
                return found
    return found
