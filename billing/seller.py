"""Who sells the parking: what the law wants on every invoice."""

import re
from typing import NamedTuple

# 10 digits, and 3 more for a branch (Circular 86/2024/TT-BTC).
TAX_CODE = re.compile(r"[0-9]{10}(-[0-9]{3})?")
# What the tax authority gives a seller whose invoices come from cash registers, to begin their codes with.
REGISTER = re.compile(r"[A-Z0-9]{5}")


class Seller(NamedTuple):
    """The taxpayer as registered; `register` are the five characters of its cash registers' codes."""

    name: str
    tax_code: str
    address: str
    register: str


# Nobody can take these for a company's.
FAKE = Seller("CÔNG TY MẪU, KHÔNG CÓ THẬT", "0000000000", "Số 0, phố Không Có Thật, Hà Nội", "00000")
