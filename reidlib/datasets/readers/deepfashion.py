r"""DeepFashion in-shop: clothes on models in several views, for generation (it names no cameras).

52,712 pictures of 256 x 256, or cut to their middle 176 columns (40 to 215). In the data set's own folder:

- the pictures, under flattened names in `train/` and `test/` (or all in one of these), or as released below `img/`;
- `train.lst` (48,674 names) and `test.lst` (4,038), one flattened name in a line; without them the folders count;
- `*pairs-train.csv`, `*pairs-test.csv` with the columns `from,to`: the pairs that public pose-transfer work uses;
- `*annotation-train.csv`, `*annotation-test.csv`: key points (`readers.listing`).

A flattened name is "fashion" and the path's parts without separators: of the underscores those of the category stay,
that inside the id goes, and of the file name's only the first stays. What stands before that one is the identity of a
pair: gender, category, id and the outfit's two digits (an id alone mixes colours): 12,029 train and 1,000 test groups,
154,758 and 12,860 ordered pairs before any filter. `pids` number the groups in sorted order, train and test together.
Test pictures come as `query` (the first of each group) and `gallery` (the others), without a camera (-1), and
`protocol.camera_rule` is "none"; for pairs take `pairs(bench, "test")`.

Status: on request, research only. Source: Liu et al., "DeepFashion", CVPR 2016; lists as in Zhu et al., "Progressive
Pose Attention Transfer for Person Image Generation", CVPR 2019; group and pair counts from those lists.
"""

import csv
import os
import re
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from reidlib.checks import check_choice, some
from reidlib.datasets.annotations import read_text
from reidlib.datasets.contract import Benchmark, Protocol
from reidlib.datasets.person_images import PersonImages, extend
from reidlib.datasets.poses import has_torso
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing, Subsets
from reidlib.datasets.sampling import same_identity_pairs

NAME = re.compile(r"(?P<group>fashion(?:WOMEN|MEN)[A-Za-z_]+id\d{8}\d{2})_\w+\.(?:jpg|png)")
GRAMMAR = "fashionWOMENTees_Tanksid0000783805_7additional.jpg"
COUNTS = {"train": 48_674, "test": 4_038}
COLUMNS = (40, 216)  # of a picture 256 wide
SUFFIXES = (".jpg", ".png")


def flatten_name(path: str) -> str:
    """Return the flattened name of a picture of the released tree.

    >>> flatten_name("WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg")
    'fashionWOMENTees_Tanksid0000783805_7additional.jpg'

    Raises:
        ValueError: not gender/category/id_NNNNNNNN/file.
    """
    parts = Path(path).parts[-4:]
    if len(parts) != 4 or "_" not in parts[3]:
        raise ValueError(f"gender/category/id_NNNNNNNN/NN_V_view.jpg expected, got {path!r}")
    gender, category, person, file = parts
    outfit, _, rest = file.partition("_")
    return f"fashion{gender}{category}{person.replace('_', '')}{outfit}_{rest.replace('_', '')}"


def group_of(name: str) -> str | None:
    """Return what counts as one identity, or None if the name does not follow the grammar.

    >>> group_of("fashionWOMENTees_Tanksid0000783805_7additional.jpg")
    'fashionWOMENTees_Tanksid0000783805'
    """
    match = NAME.fullmatch(name)
    return None if match is None else match["group"]


def read(root: str | os.PathLike, *, crop: bool = False) -> Listing:
    """List DeepFashion in-shop.

    Args:
        root: the data set's own folder, or the folder that holds it.
        crop: cut pictures at least 216 wide to their columns 40 to 215 (and all annotations with them).

    Raises:
        FileNotFoundError: no such data set, or a list names pictures that are not there.
        ValueError: no picture, a name in a list that does not follow the grammar, a group in both train and test.
    """
    markers = ("train.lst", "train/", "img/")
    folder = listing.find_folder(root, ("fashion_data", "deepfashion", "DeepFashion"), markers, "DeepFashion")
    paths = {subset: _list(folder, subset) for subset in ("train", "test")}
    listing.check_counts(folder, "DeepFashion", {s: len(p) for s, p in paths.items()}, COUNTS)
    tables = {
        subset: pd.DataFrame(found.items(), columns=["name", "path"]).assign(camid=-1, group=[*map(group_of, found)])
        for subset, found in paths.items()
    }
    groups = sorted({group for table in tables.values() for group in table["group"]})
    for table in tables.values():
        table["pid"] = table["group"].map({group: i for i, group in enumerate(groups, start=1)})
    listing.check_disjoint(folder, tables["train"]["pid"], tables["test"]["pid"])
    return Listing(
        folder,
        tables,
        protocol=Protocol(camera_rule="none"),
        variant="crop" if crop else "",
        columns=COLUMNS if crop else None,
        views=_first_of_each_group,
    )


def _first_of_each_group(decoded: Subsets) -> Subsets:
    test = decoded["test"]
    later = torch.tensor(test.info["group"].duplicated().tolist())
    return {"train": decoded["train"], "query": test.select(indices=~later), "gallery": test.select(indices=later)}


def pairs(bench: Benchmark, subset: str = "train") -> tuple[PersonImages, Tensor]:
    """Return the pictures of a subset and their pairs as positions [P,2] (from, to).

    The pairs are those of `*pairs-{subset}.csv` where the folder has one, and otherwise all ordered pairs of one group,
    of pictures with both shoulders and both hips found where key points are known.

    Raises:
        ValueError: unknown subset, another header, or two such files.
        FileNotFoundError: pairs of pictures that are not in the subset.
    """
    check_choice("subset", subset, ("train", "test"))
    people = bench.train if subset == "train" else extend(bench.query, bench.gallery)
    tables = sorted(bench.folder.glob(f"*pairs-{subset}.csv"))
    if len(tables) > 1:
        raise ValueError(f"{bench.folder} has {len(tables)} tables of pairs, keep one: {[p.name for p in tables]}")
    if not tables:
        usable = has_torso(people.keypoints) if people.has("keypoints") else None
        return people, same_identity_pairs(people.pids, usable=usable)
    rows = csv.DictReader(read_text(tables[0]).splitlines())
    if not {"from", "to"} <= set(rows.fieldnames or []):
        raise ValueError(f"{tables[0]} must have the columns from,to; got {rows.fieldnames}")
    position = {name: i for i, name in enumerate(people.names)}
    listed = [(row["from"], row["to"]) for row in rows]
    if absent := sorted({name for pair in listed for name in pair} - set(position)):
        raise FileNotFoundError(f"{tables[0]} names {len(absent)} pictures that are not there: {some(absent)}")
    return people, torch.tensor([[position[a], position[b]] for a, b in listed], dtype=torch.int64).reshape(-1, 2)


def _list(folder: Path, subset: str) -> dict[str, str]:
    """Return the path of each picture of a subset by its flattened name, sorted by name."""
    lst = folder / f"{subset}.lst"
    has_list = lst.is_file()
    subs = [sub for sub in ((subset, "train", "test") if has_list else (subset,)) if (folder / sub).is_dir()]
    there = {name: f"{sub}/{name}" for sub in reversed(subs) for name in listing.list_names(folder / sub)}
    if has_list:
        names = sorted({line.strip() for line in read_text(lst).splitlines() if line.strip()})
        if wrong := [name for name in names if group_of(name) is None]:
            raise ValueError(f"{len(wrong)} names in {lst} do not look like {GRAMMAR}: {some(wrong)}")
        if not there:  # the tree as released
            paths = sorted(path for path in (folder / "img").glob("*/*/*/*_*") if path.suffix.lower() in SUFFIXES)
            there = {flatten_name(str(path)): path.relative_to(folder).as_posix() for path in paths}
        absent = [name for name in names if name not in there]
        listing.check_absent(folder, absent, len(names), f"pictures that {lst.name} names")
    else:
        names = [*listing.named_well(folder / subset, group_of, GRAMMAR)] if there else []
    if not names:
        raise ValueError(f"{folder} holds no picture for {subset}: neither {lst.name} nor {subset}/ with {GRAMMAR}")
    return {name: there[name] for name in names}
