"""OpenAI's requests as text-generation-inference takes them.

Its chat route has OpenAI's name and nearly its shape; where the two differ, TGI answers 422 to what OpenAI's clients
send by default, or ignores it without a word. Both are settled here: translated where there is a translation, refused
where the answer would not be what was asked for. Facts from router/src/lib.rs and router/src/validation.rs of TGI 3.3.7
(github.com/huggingface/text-generation-inference at db931fc).
"""

from typing import Any

from server.errors import InvalidRequest

# Any other name is a LoRA adapter's to TGI.
BASE_MODEL = "tgi"
# What TGI's route for completions leaves out, its own /generate takes: these go on under their own names.
OWN_PARAMETERS = (
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "top_k",
    "truncate",
    "typical_p",
    "watermark",
    "grammar",
)
# TGI reads these and does nothing with them, or has nothing like them.
WITHOUT_EFFECT = ("logit_bias", "best_of", "suffix", "echo")


def chat_body(body: dict[str, Any], base_model: str) -> dict[str, Any]:
    """The body for /v1/chat/completions.

    Args:
        base_model: the model that TGI serves, as it names it.

    Raises:
        InvalidRequest: TGI would ignore what is asked for.
    """
    _refuse_ignored(body)
    # TGI takes null only where a field is optional to it.
    told = {name: value for name, value in body.items() if value is not None and name not in {"n", *WITHOUT_EFFECT}}
    if told.get("model") == base_model:
        told["model"] = BASE_MODEL
    if (limit := told.pop("max_completion_tokens", None)) is not None:
        told["max_tokens"] = limit  # one field by two names, which may come only once
    if isinstance(told.get("stop"), str):
        told["stop"] = [told["stop"]]
    if not _is_cut(told.get("top_p")):
        told.pop("top_p", None)
    if not told.get("presence_penalty"):
        # TGI adds 2 and takes it for a repetition penalty: a 0 would not mean "none".
        told.pop("presence_penalty", None)
    if "response_format" in told and (grammar := _grammar(told.pop("response_format"))) is not None:
        told["response_format"] = grammar
    return told


def generate_parameters(body: dict[str, Any], base_model: str) -> tuple[str, dict[str, Any]]:
    """The prompt, and the arguments of `AsyncInferenceClient.text_generation`, for a completions request.

    Raises:
        InvalidRequest: as `chat_body`; or there is not one text to go on with.
    """
    _refuse_ignored(body)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if not isinstance(prompt, str):
        raise InvalidRequest("This engine takes one text as a prompt, neither several nor tokens.", param="prompt")
    told = {name: body[name] for name in OWN_PARAMETERS if body.get(name) is not None}
    if not isinstance(top_k := told.get("top_k"), int) or top_k <= 0:
        told.pop("top_k", None)  # 0 or -1 is "all" to other engines
    if _is_cut(body.get("top_p")):
        told["top_p"] = body["top_p"]
    temperature = body.get("temperature")
    # Greedy at 0, as TGI does on its OpenAI routes.
    told["do_sample"] = temperature != 0
    if temperature:
        told["temperature"] = temperature
    if (limit := body.get("max_tokens")) is not None:
        told["max_new_tokens"] = limit
    if (stop := body.get("stop")) is not None:
        told["stop"] = [stop] if isinstance(stop, str) else stop
    if isinstance(alternatives := body.get("logprobs"), int) and alternatives > 0:
        told["top_n_tokens"] = int(alternatives)
    if body.get("model") not in {None, base_model, BASE_MODEL}:
        told["adapter_id"] = body["model"]
    return prompt, told


def _refuse_ignored(body: dict[str, Any]) -> None:
    for name in WITHOUT_EFFECT:
        if body.get(name) and not (name == "best_of" and body[name] == 1):
            raise InvalidRequest(f"This engine knows no {name}.", param=name)
    if (body.get("n") or 1) > 1:
        raise InvalidRequest("This engine gives one answer to a request. Ask several times.", param="n")


def _is_cut(top_p: object) -> bool:
    """Whether `top_p` leaves anything out: TGI refuses 1, which is OpenAI's default."""
    return isinstance(top_p, int | float) and top_p < 1


def _grammar(wanted: object) -> dict[str, Any] | None:
    """OpenAI's response_format as TGI's grammar; None where any text will do."""
    match wanted:
        case {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return {"type": "json_schema", "value": {"schema": schema}}
        case {"type": "json_object", **rest} if "value" not in rest:
            return {"type": "json_object", "value": {"type": "object"}}
        case dict():
            return wanted  # TGI's own words
        case _:
            raise InvalidRequest("response_format is no object.", param="response_format")
