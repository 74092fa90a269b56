"""Amounts in Vietnamese words, as an invoice's total is written beside its figures."""

_DIGITS = ("không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín")
_GROUPS = ("", " nghìn", " triệu")
_BILLION = 10**9


def in_words(amount: int) -> str:
    """An amount of VND: 25000 is "Hai mươi lăm nghìn đồng", below 0 "Âm …"."""
    text = ("âm " if amount < 0 else "") + _number(abs(amount)) + " đồng"
    return text[0].upper() + text[1:]


def _number(number: int) -> str:
    """Billions are counted by themselves: 10^18 is a billion billions."""
    if number < _BILLION:
        return _below_billion(number, is_first=True)
    billions, rest = divmod(number, _BILLION)
    after = f" {_below_billion(rest, is_first=False)}" if rest else ""
    return f"{_number(billions)} tỷ{after}"


def _below_billion(number: int, *, is_first: bool) -> str:
    """Groups of three digits, from the left; groups of 0 are left out."""
    groups = [(number // 1000**n % 1000, _GROUPS[n]) for n in (2, 1, 0)]
    said: list[str] = []
    for group, name in groups:
        if group:
            said.append(_group(group, is_first=is_first and not said) + name)
    return " ".join(said) or _DIGITS[0]


def _group(number: int, *, is_first: bool) -> str:
    """Three digits. Behind another group the missing hundreds are said too: 1,005 is một nghìn không trăm linh năm."""
    hundreds, rest = divmod(number, 100)
    words = [f"{_DIGITS[hundreds]} trăm"] if hundreds or not is_first else []
    if rest:
        words.append(_tens(rest, is_alone=not words))
    return " ".join(words)


def _tens(number: int, *, is_alone: bool) -> str:
    """Two digits: linh năm, mười lăm, hai mươi mốt."""
    tens, ones = divmod(number, 10)
    if tens == 0:
        return _DIGITS[ones] if is_alone else f"linh {_DIGITS[ones]}"
    said = "mười" if tens == 1 else f"{_DIGITS[tens]} mươi"
    if ones == 0:
        return said
    one = "mốt" if ones == 1 and tens > 1 else "lăm" if ones == 5 else _DIGITS[ones]
    return f"{said} {one}"
