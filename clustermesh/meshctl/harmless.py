"""What others say steers nobody's terminal: a process in a pod, a peer's object, a file."""

from typing import Final

_SPELLED: Final = {
    code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


def harmless(text: str) -> str:
    """Control characters are spelled out, as JSON has them. Lines stay lines."""
    return text if text.isprintable() else text.translate(_SPELLED)
