"""Keys of any length as LMDB takes them."""

import hashlib

_DIGEST = 32


def short(key: str, most: int) -> bytes:
    r"""Return `key` in at most `most` bytes: as it is, or what stands for a longer one.

    >>> short("JFK", 100), len(short("x" * 600, 100))
    (b'JFK', 33)
    """
    said = key.encode(errors="surrogatepass")
    if len(said) <= most and not said.startswith(b"\0"):
        return said or b"\0"
    # No key that stands for itself begins with a zero.
    return b"\0" + hashlib.blake2b(said, digest_size=_DIGEST).digest()
