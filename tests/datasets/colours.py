"""A colour for each running number, so that a mix-up of two pictures shows."""


def colour_of(number: int) -> tuple[int, int, int]:
    return (number * 37 % 200 + 20, number * 61 % 200 + 20, number * 97 % 200 + 20)
