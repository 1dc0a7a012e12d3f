"""Conversion of TOML tables to typed structures, with errors that name the file, the key, and the nearest key."""

import re
from typing import Any

import msgspec

from core.errors import UserError, closest_name


def convert_table(content: Any, kind: Any, where: str) -> Any:
    """Convert TOML content to a type.

    Parameters
    ----------
    content
        Decoded TOML.
    kind
        Type, such as a `msgspec.Struct`.
    where
        Name of the file or of a part of it, for errors.

    Raises
    ------
    UserError
        If a key is unknown (with the nearest match) or missing, or a value has another type.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        key = path.strip(".`")
        if match := re.search("unknown field `(.*)`", reason):
            known = [field.encode_name for field in msgspec.structs.fields(kind)]
            close = closest_name(match[1], known)
            hint = f"did you mean '{close}'?" if close else f"use {', '.join(known)}"
            raise UserError(f"{where}: unknown key '{match[1]}': {hint}") from None
        if match := re.search("missing required field `(.*)`", reason):
            raise UserError(f"{where}: add the key '{match[1]}'") from None
        reason = reason.replace("Expected", "give").replace("`object`", "a table").replace("`array`", "a list")
        raise UserError(f"{where}{f': {key}' * bool(key)}: {reason}") from None
