"""Bytes changed by chance."""

import random


def mutate(data: bytes, dice: random.Random) -> bytes:
    """A few bytes flipped, overwritten, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        place = dice.randrange(len(changed) + 1)
        length = dice.choice((1, 1, 4, 100))
        kind = dice.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[place : place + length] = dice.randbytes(length)
        elif kind == 2:
            changed[place : place + length] = dice.choice((b"\0", b"\xff", b"9")) * length
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length]
        elif place:
            del changed[place:]
    return bytes(changed)
