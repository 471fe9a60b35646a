"""Names that somebody else chose: each is more than text to one of the languages that names are written into."""

from __future__ import annotations

CANARY = "document.title='pwned'"
NASTY = (
    "{{ 7*7 }}{% for x in [1] %}{# gone #}",
    f"</script><script>{CANARY}</script>",
    f'<img src=x onerror="{CANARY}">',
    f"'-{CANARY}-'",
    f'"+{CANARY}+"',
    f"`${{{CANARY}}}`",
    "&amp;&lt;b&gt;",
    "]]><!-- -->",
    r"$x^{2$ \frac{",
    "_$100$_",
    "back\\slash \"quoted\" 'twice'",
    "'; DROP TABLE roofs; --",
    "[% env('HOME') %]",
    '=HYPERLINK("http://127.0.0.1")',
    "two\nlines\ttabbed\r\nthird",
    "\x1b[2J\x1b]0;pwned\x07\x9b31m",
    "nul\x00inside",
    "half a pair \ud800",
    "not a character \ufffe",
    "\u202egpj.exe\u202c",
    "🏠🏽‍ 屋根 крыша",
    " ",
    "long " * 400,
)
