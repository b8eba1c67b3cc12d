"""Who a photograph shows, which camera took it and what it is for, read from the names of files and folders."""

import re
import warnings
from pathlib import PurePosixPath

from reidlib.checks import some
from reidlib.datasets.pictures import SUFFIXES

CAMERA = re.compile(r"(?:^|[^a-z])(?:camera|cam|c)[_\- ]?(\d+)(?!\d)", re.IGNORECASE)
NOBODY = re.compile(  # parts of a name that are never a person: a camera, what a camera calls its pictures
    r"(?:^|(?<=[_\- ]))(?:(?:camera|cam|c)[_\- ]?\d+(?:s\d+)?|img|dsc[nf]?|pxl|image|photo|picture|frame)(?=$|[_\- ])",
    re.IGNORECASE,
)
NAMED = {  # folders whose names say what their images are for
    "train": "train", "bounding_box_train": "train", "query": "query", "gallery": "gallery",
    "bounding_box_test": "gallery", "test": "gallery",
}  # fmt: skip


def read_names(paths: list[str], pattern: str | None) -> dict[str, tuple[str, int | None]]:
    """Return identity and camera (or None) of each path; paths that no rule fits are left out with a warning."""
    rule = "folders or names" if pattern is None else f"the pattern {pattern!r}"
    read = _guess(paths) if pattern is None else _match(paths, pattern)
    if not read:
        raise ValueError(f"none of {len(paths)} images fits {rule}, for example {paths[0]}; pass pattern=")
    if left_out := [path for path in paths if path not in read]:
        said = f"{len(left_out)} images do not fit {rule} and are left out"
        warnings.warn(f"{said}: {some(left_out)}", stacklevel=3)
    if pattern is None and len({identity for identity, _ in read.values()}) == 1:
        raise ValueError(
            f"all {len(read)} images would show one person, {next(iter(read.values()))[0]!r}, for example "
            f'{next(iter(read))}; put each person into a folder, or pass pattern="{{pid}}_{{n}}" or its like'
        )
    return read


def _match(paths: list[str], pattern: str) -> dict[str, tuple[str, int | None]]:
    """Read paths by a template or a regular expression.

    Raises:
        ValueError: without `pid`, or a template that fits a name in two ways.
    """
    if not ("(?P<pid>" in pattern or ("{pid}" in pattern and "(?P<" not in pattern)):
        raise ValueError(f"pattern needs the group (?P<pid>...) or, as a template, the field {{pid}}; got {pattern!r}")
    readings = [
        {path: match.groupdict() for path in paths if (match := expression.search(_target(path, pattern)))}
        for expression in _expressions(pattern)
    ]
    for path, fields in readings[0].items():
        if readings[-1][path] != fields:
            raise ValueError(f"{pattern!r} reads {path} in two ways, as {fields} and as {readings[-1][path]}")
    return {
        path: (fields["pid"], int(fields["camid"]) if fields.get("camid") else None)
        for path, fields in readings[0].items()
    }


def _target(path: str, pattern: str) -> str:
    """Return what a pattern is compared with: a template without an extension knows none."""
    is_template = "(?P<" not in pattern
    return path.rpartition(".")[0] if is_template and not pattern.lower().endswith(SUFFIXES) else path


def _expressions(pattern: str) -> list[re.Pattern]:
    """Compile a pattern: of a template the readings with the longest and with the shortest fields."""
    if "(?P<" in pattern:
        return [re.compile(pattern)]
    kinds = {"pid": "(?P<pid>[^/]+{})", "camid": r"(?P<camid>\d+{})"}
    pieces = re.split(r"\{(\w+)\}", pattern)
    compiled = []
    for how in ("", "?"):
        fields = [kinds.get(field, "[^/]+{}").format(how) for field in pieces[1::2]]
        text = "".join(re.escape(word) + field for word, field in zip(pieces[::2], [*fields, ""], strict=True))
        compiled.append(re.compile(f"(?:^|/){text}$"))
    return compiled


def _guess(paths: list[str]) -> dict[str, tuple[str, int | None]]:
    """Read paths by their folders or, where some have none that may be a person, by their names."""
    inner = {path: PurePosixPath(path).parts[PurePosixPath(path).parts[0] in NAMED :] for path in paths}
    folders = {path: [part for part in parts[:-1] if not NOBODY.fullmatch(part)] for path, parts in inner.items()}
    if all(folders.values()):
        who = {path: own[0] for path, own in folders.items()}
    else:
        names = {path: NOBODY.sub("", PurePosixPath(path).stem) for path in paths}
        names = {path: re.sub(r"^(?!-1(?:_|$))[_ \-]+", "", name) for path, name in names.items()}
        matches = {path: re.match(r"(-1|[^_]+?)[ \-]*(?:_.*|[\d ()]+)?$", name) for path, name in names.items()}
        numbers = {path for path, name in names.items() if re.fullmatch(r"[\d ()\-]+", name)}
        who = {path: match[1] for path, match in matches.items() if match and path not in numbers}
        _refuse_two_readings({path: [part for part in names[path].split("_") if part] for path in who})
    read = {}
    for path, identity in who.items():
        rest = "/".join(part for part in inner[path] if part != identity)
        camera = CAMERA.search(rest)
        read[path] = (identity, int(camera[1]) if camera else None)
    return read


def _refuse_two_readings(fields: dict[str, list[str]]) -> None:
    """Refuse names whose first field is a number where another field may be the person as well.

    That is a word that some images share (`1_anna`), or a number as long where there are just two (`1_2`).
    """
    columns = list(zip(*fields.values(), strict=False))
    if not columns or not all(re.fullmatch(r"[\d\-]+", value) for value in columns[0]):
        return
    for column in columns[1:]:
        words = all(re.search(r"[^\W\d]", value) for value in column)
        alike = len(columns) == 2 and {len(value) for value in column} == {len(value) for value in columns[0]}
        if 1 < len(set(column)) < len(column) and (words or (alike and len(set(columns[0])) < len(column))):
            raise ValueError(
                f"two readings fit names like {next(iter(fields))}: is the person {columns[0][0]!r} or {column[0]!r}? "
                f'Say so with pattern="{{pid}}_{{n}}" or its like'
            )


def numbers_of(identities: list[str]) -> list[int]:
    """Number people: by their own numbers where all have one and no two the same, otherwise from 1 in sorted order."""
    people = sorted(set(identities))
    whole = all(re.fullmatch(r"-1|\d{1,18}", identity, re.ASCII) for identity in people)
    if whole and len({int(identity) for identity in people}) == len(people):
        return [int(identity) for identity in identities]
    number = {identity: i for i, identity in enumerate(people, start=1)}
    return [number[identity] for identity in identities]


def splits_of(paths: list[str]) -> dict[str, str]:
    """Return the split of each path by its first folder, "" where no folder says it; others are left out."""
    tops = {path: PurePosixPath(path).parts[0] if "/" in path else "" for path in paths}
    named = sorted({top for top in tops.values() if top in NAMED})
    others = sorted({f"{top}/" if top else "no folder" for top in tops.values() if top not in NAMED})
    if not named:
        return dict.fromkeys(paths, "")
    if "bounding_box_test" in named:
        warnings.warn('pids 0000 become a person here; load("market1501") knows them as distractors', stacklevel=3)
    if others and len({NAMED[top] for top in named}) == 1:
        raise ValueError(
            f"{named[0]}/ beside {some(others)}: is it a split or a person? Rename it, or put all images into train/, "
            f"query/ and gallery/"
        )
    if others:
        left_out = sum(top not in NAMED for top in tops.values())
        warnings.warn(
            f"{', '.join(named)} say what their images are for; {left_out} images in {some(others)} are left out",
            stacklevel=3,
        )
    return {path: NAMED[top] for path, top in tops.items() if top in NAMED}
