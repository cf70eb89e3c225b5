"""How data sets are laid out on disk. A layout finds its sequences under a folder; it reads no frame and no box."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgetrack.errors import DatasetError
from edgetrack.evaluation.datasets.clip import AttributeFile, ClipFiles, ScoringRules, images_in
from edgetrack.evaluation.datasets.pairs import SecondFiles
from edgetrack.io import read_bytes, read_text
from edgetrack.media import VIDEO_SUFFIXES, natural_key


@dataclass(frozen=True)
class Layout:
    """See the module.

    Attributes:
        name: for `--layout`.
        looks_for: what it expects to find, for the message when nothing fits.
        find: the sequences under a folder, none where it is laid out otherwise.
        rules: how the data set is scored.
        recognizes: whether a sequence shows that it has this layout and no other; one such sequence is enough.
    """

    name: str
    looks_for: str
    find: Callable[[Path], list[ClipFiles]]
    rules: ScoringRules = field(default_factory=ScoringRules)
    recognizes: Callable[[ClipFiles], bool] = lambda entry: True


def _folders(root: Path) -> list[Path]:
    return sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)


def _texts(folder: Path, pattern: str = "*.txt") -> list[Path]:
    return sorted(folder.glob(pattern), key=natural_key)


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(p for p in paths if p.is_file())


def _paired(frames: Path, truths: Path) -> list[tuple[str, Path]]:
    """Name and file of boxes for every folder and every file; none where there are no files of boxes at all."""
    names = {t.stem for t in _texts(truths)}
    names |= {f.name for f in _folders(frames)} if names else set()
    return [(name, truths / f"{name}.txt") for name in sorted(names, key=lambda n: natural_key(Path(n)))]


def _listed(base: Path) -> list[Path]:
    """The folders that list.txt names."""
    names = read_text(base / "list.txt", error=DatasetError).splitlines()
    return [base / name.strip() for name in names if name.strip()]


# In the order of the columns of the data sets' own files; the names are those of the papers.
LASOT_ATTRIBUTES = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")
OTB_ATTRIBUTES = ("IV", "OPR", "SV", "OCC", "DEF", "MB", "FM", "IPR", "OV", "BC", "LR")
UAV_ATTRIBUTES = ("SV", "ARC", "LR", "FM", "FOC", "POC", "OV", "BC", "IV", "VC", "CM", "SOB")


def _attributed(entries: list[ClipFiles], folders: Iterable[Path], names: tuple[str, ...]) -> list[ClipFiles]:
    """The same with <folder>/<sequence>.txt in any case, from the first of the folders that is there."""
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return entries
    files = {path.stem.casefold(): path for path in _texts(folder)}

    def of(entry: ClipFiles) -> AttributeFile | None:
        stem = entry.name.casefold()
        # OTB calls its Human4 human4-2: the first of its two files of boxes is empty.
        path = files.get(stem) or files.get(f"{stem}-2")
        return None if path is None else AttributeFile(path, names)

    return [replace(entry, attributes=of(entry)) for entry in entries]


def _got10k(root: Path) -> list[ClipFiles]:
    """<root>[/val|/test|/train]/<sequence>/{*.jpg, groundtruth.txt, absence.label, cover.label}."""
    for base in (b for b in (root, root / "val", root / "test", root / "train") if b.is_dir()):
        if any((f / "groundtruth.txt").is_file() for f in _folders(base)):
            folders = _listed(base) if (base / "list.txt").is_file() else _folders(base)
            return [_got10k_entry(folder) for folder in folders]
    return []


def _got10k_entry(folder: Path) -> ClipFiles:
    cover, absence = folder / "cover.label", folder / "absence.label"
    if cover.is_file():
        return ClipFiles(folder.name, folder, folder / "groundtruth.txt", cover=cover)
    return ClipFiles(folder.name, folder, folder / "groundtruth.txt", absent=_existing([absence]))


def _is_got10k(entry: ClipFiles) -> bool:
    marked = entry.name.startswith("GOT-10k") or bool(entry.absent) or entry.cover is not None
    return marked or (Path(entry.frames) / "meta_info.ini").is_file()


def _lasot(root: Path) -> list[ClipFiles]:
    """<root>/[<class>/]<class>-<n>/{img/*.jpg, groundtruth.txt, full_occlusion.txt, out_of_view.txt}.

    Attributes: the toolkit's folder sequence_evaluation_config/att, or att, beside the classes.
    """
    flags = ("full_occlusion.txt", "out_of_view.txt")
    found = [
        ClipFiles(f.name, f / "img", f / "groundtruth.txt", absent=_existing(f / flag for flag in flags))
        for outer in _folders(root)
        for f in (outer, *_folders(outer))
        if (f / "img").is_dir()
    ]
    folders = (root / "att", root / "sequence_evaluation_config" / "att")
    return _attributed(found, folders, LASOT_ATTRIBUTES)


def _is_lasot(entry: ClipFiles) -> bool:
    folder = Path(entry.frames).parent
    return bool(entry.absent) or folder.name.startswith(f"{folder.parent.name}-")


_OTB_SPANS = {"David": (300, 770), "Football1": (1, 74), "Freeman3": (1, 460), "Freeman4": (1, 283), "Diving": (1, 215)}
"""OTB's folders that hold more images than boxes; its configSeqs.m gives first and last frame."""


def _otb(root: Path) -> list[ClipFiles]:
    """<root>/<Name>/{img/*.jpg, groundtruth_rect.txt}; groundtruth_rect.1.txt, .2.txt are targets of their own.

    Attributes: the toolkit's folder anno/att, or att, beside the sequences.
    """
    if not any(root.glob("*/groundtruth_rect*.txt")):
        return []
    entries = []
    for folder in (f for f in _folders(root) if (f / "img").is_dir()):
        files = _texts(folder, "groundtruth_rect*.txt") or [folder / "groundtruth_rect.txt"]
        # Human4 carries an empty file beside the one that counts.
        files = [f for f in files if f.is_file() and f.stat().st_size] or files
        for file in files:
            number = file.name.removeprefix("groundtruth_rect").removesuffix(".txt").strip(".")
            name = f"{folder.name}-{number}" if number and len(files) > 1 else folder.name
            entries.append(ClipFiles(name, folder / "img", file, span=_OTB_SPANS.get(folder.name)))
    return _attributed(entries, (root / "anno" / "att", root / "att"), OTB_ATTRIBUTES)


def _otb_lang(root: Path) -> list[ClipFiles]:
    """<root>[/OTB_sentences]/{OTB_videos/ as OTB, OTB_query_test/<Name>.txt, OTB_query_train/<Name>.txt}.

    The sequences that have a sentence in OTB_query_test, or in OTB_query_train where that folder is missing.
    """
    for base in (root, root / "OTB_sentences"):
        queries = next((q for q in (base / "OTB_query_test", base / "OTB_query_train") if q.is_dir()), None)
        if queries is not None and (base / "OTB_videos").is_dir():
            videos = base / "OTB_videos"
            found = {entry.name: entry for entry in _otb(videos)}
            # A sentence whose sequence is not there is a broken sequence, not a forgotten one.
            folders = {text.stem: videos / text.stem for text in _texts(queries)}
            return [
                replace(
                    found.get(name) or ClipFiles(name, folder / "img", folder / "groundtruth_rect.txt"),
                    text=queries / f"{name}.txt",
                )
                for name, folder in folders.items()
            ]
    return []


def _tnl2k(root: Path) -> list[ClipFiles]:
    """<root>/[TNL2K_test_subset|TNL2K_train_subset/][<part>/]<name>/{imgs/*.jpg, groundtruth.txt, language.txt}."""
    for base in (b for b in (root, root / "TNL2K_test_subset", root / "TNL2K_train_subset") if b.is_dir()):
        found = [
            ClipFiles(f.name, f / "imgs", f / "groundtruth.txt")
            for outer in _folders(base)
            for f in (outer, *_folders(outer))
            if (f / "imgs").is_dir() and (f / "language.txt").is_file()
        ]
        if found:
            return found
    return []


def _uav123(root: Path) -> list[ClipFiles]:
    """<root>/data_seq/UAV123/<folder>/*.jpg and anno/{UAV123,UAV20L}/<name>.txt, cut as configSeqs.m says.

    Attributes: anno/{UAV123,UAV20L}/att/<name>.txt.
    """
    for version in ("UAV123", "UAV123_10fps", "UAV20L"):
        texts = _texts(root / "anno" / version)
        images = next((p for p in (root / "data_seq" / version, root / "data_seq" / "UAV123") if p.is_dir()), None)
        if texts and images is not None:
            spans = _uav_spans(root / "configSeqs.m")
            found = [_uav_entry(images, text, spans.get(text.stem, [])) for text in texts]
            return _attributed(found, (root / "anno" / version / "att",), UAV_ATTRIBUTES)
    return []


def _uav_entry(images: Path, text: Path, spans: list[tuple[str, int, int]]) -> ClipFiles:
    """The span with as many frames as there are rows: bike1 is cut in one way for UAV123, in another for UAV20L."""
    rows = 0
    if spans:
        with suppress(OSError):  # the sequence is refused when its boxes are read
            rows = len(read_bytes(text).splitlines())
    for folder, first, last in spans:
        if last - first + 1 == rows:
            return ClipFiles(text.stem, images / folder, text, span=(first, last))
    return ClipFiles(
        text.stem,
        images / text.stem,
        text,
        hint="" if spans else "copy configSeqs.m beside anno: it says in which folders the frames are",
    )


_UAV_SPAN = re.compile(
    r"'name'\s*,\s*'([^']+)'\s*,\s*'path'\s*,\s*'([^']+)'\s*,\s*'startFrame'\s*,\s*(\d+)\s*,\s*'endFrame'\s*,\s*(\d+)"
)


def _uav_spans(config: Path) -> dict[str, list[tuple[str, int, int]]]:
    """Folder, first and last frame by sequence: car1_1 and car1_2 are cut from the folder car1."""
    spans: dict[str, list[tuple[str, int, int]]] = {}
    if config.is_file():
        for name, path, first, last in _UAV_SPAN.findall(read_bytes(config).decode("latin-1")):
            folder = re.split(r"[\\/]", path.rstrip("\\/"))[-1]
            spans.setdefault(name, []).append((folder, int(first), int(last)))
    return spans


def _nfs(root: Path) -> list[ClipFiles]:
    """<root>/<name>/30/<name>/*.jpg and <root>/<name>/30/<name>.txt; 240 where there is no 30."""
    for rate, thinning in (("30", 8), ("240", 1)):
        texts = sorted(root.glob(f"*/{rate}/*.txt"), key=natural_key)
        if texts:
            return [ClipFiles(t.stem, t.with_suffix(""), t, columns="corners", thinning=thinning) for t in texts]
    return []


def _trackingnet(root: Path) -> list[ClipFiles]:
    """<root>/{TEST,TRAIN_0..}/{frames/<video>/*.jpg, anno/<video>.txt}, or one of these folders itself."""
    subsets = [root, root / "TEST", *sorted(root.glob("TRAIN_*"), key=natural_key)]
    return [
        ClipFiles(name, subset / "frames" / name, truth)
        for subset in subsets
        if (subset / "frames").is_dir()
        for name, truth in _paired(subset / "frames", subset / "anno")
    ]


def _avist(root: Path) -> list[ClipFiles]:
    """<root>/{sequences/<name>/*.jpg, anno/<name>.txt, full_occlusion/<name>_full_occlusion.txt, out_of_view/...}."""
    flags, frames = ("full_occlusion", "out_of_view"), root / "sequences"
    return [
        ClipFiles(name, frames / name, truth, absent=_existing(root / flag / f"{name}_{flag}.txt" for flag in flags))
        for name, truth in (_paired(frames, root / "anno") if frames.is_dir() else [])
    ]


def _tags(folder: Path) -> tuple[Path, ...]:
    """What VOT's toolkit puts beside the boxes of its data sets: `occlusion.tag`, of older ones `occlusion.label`."""
    return tuple(path for suffix in ("tag", "label") for path in _texts(folder, f"*.{suffix}"))


def _vot(root: Path) -> list[ClipFiles]:
    """<root>[/sequences]/{list.txt, <name>/{[color/]*.jpg, groundtruth.txt}}."""
    for base in (root / "sequences", root):
        if (base / "list.txt").is_file():
            return [
                ClipFiles(
                    f.name,
                    f / "color" if (f / "color").is_dir() else f,
                    f / "groundtruth.txt",
                    columns="region",
                    tags=_tags(f),
                )
                for f in _listed(base)
            ]
    return []


def _visdrone(root: Path) -> list[ClipFiles]:
    """<root>/{sequences/<name>/img0000001.jpg, annotations/<name>.txt}."""
    frames, truths = root / "sequences", root / "annotations"
    pairs = _paired(frames, truths) if frames.is_dir() and truths.is_dir() else []
    return [ClipFiles(name, frames / name, truth) for name, truth in pairs]


def _subsets(root: Path, *names: str) -> list[Path]:
    """The folder itself and those below it that a data set unpacks into."""
    return [base for base in (root, *(root / name for name in names)) if base.is_dir()]


def _lasher(root: Path) -> list[ClipFiles]:
    """<root>/[trainingset|testingset/]<name>/{visible/*.jpg, infrared/*.jpg, visible.txt, infrared.txt}."""
    for base in _subsets(root, "testingset", "trainingset"):
        found = [f for f in _folders(base) if (f / "visible").is_dir() and (f / "visible.txt").is_file()]
        if found:
            return [_of_thermal(f, ("visible", "infrared"), ("visible.txt", "infrared.txt")) for f in found]
    return []


def _of_thermal(folder: Path, images: tuple[str, str], truths: tuple[str, str]) -> ClipFiles:
    """Visible and infrared images with boxes of their own; the second where it was copied at all."""
    own = next(iter(_existing([folder / truths[1]])), None)
    second = SecondFiles("thermal", folder / images[1], own) if (folder / images[1]).is_dir() else None
    return ClipFiles(folder.name, folder / images[0], folder / truths[0], second=second)


def _is_rgbt234(entry: ClipFiles) -> bool:
    """Its images are 00001v.jpg and 00001i.jpg, LasHeR's v000001.jpg and i000001.jpg."""
    return any(image.stem[-1:] == "v" for image in images_in(Path(entry.frames))[:1])


def _gtot(root: Path) -> list[ClipFiles]:
    """<root>/<name>/{v/*.png, i/*.png, groundTruth_v.txt, groundTruth_i.txt}; boxes are two corners, in any order."""
    return [
        replace(_of_thermal(f, ("v", "i"), ("groundTruth_v.txt", "groundTruth_i.txt")), columns="diagonal")
        for f in _folders(root)
        if (f / "v").is_dir() and (f / "groundTruth_v.txt").is_file()
    ]


def _vtuav(root: Path) -> list[ClipFiles]:
    """<root>/[<subset>/[<part>/]]<name>/{rgb/*.jpg, ir/*.jpg, rgb.txt, ir.txt}; every tenth image is annotated."""
    for below in ("*", "*/*", "*/*/*"):
        found = sorted(
            (t.parent for t in root.glob(f"{below}/rgb.txt") if (t.parent / "rgb").is_dir()), key=natural_key
        )
        if found:
            return [replace(_of_thermal(f, ("rgb", "ir"), ("rgb.txt", "ir.txt")), every=10) for f in found]
    return []


def _rgbd(root: Path) -> list[ClipFiles]:
    """<root>/[sequences|test|train/]<name>/{color/*.jpg, depth/*.png, groundtruth.txt}, as list.txt says, if any."""
    for base in _subsets(root, "sequences", "test", "train"):
        folders = _listed(base) if (base / "list.txt").is_file() else _folders(base)
        found = [f for f in folders if (f / "color").is_dir() and (f / "depth").is_dir()]
        if found:
            return [
                ClipFiles(
                    f.name,
                    f / "color",
                    f / "groundtruth.txt",
                    columns="region",
                    second=SecondFiles("depth", f / "depth"),
                    tags=_tags(f),
                )
                for f in found
            ]
    return []


def _is_depthtrack(entry: ClipFiles) -> bool:
    return entry.name.endswith(("_indoor", "_wild"))


def _is_cdtb(entry: ClipFiles) -> bool:
    """VOT's toolkit puts frame-wise attributes beside the boxes of its own data sets."""
    return bool(entry.tags)


def _visevent(root: Path) -> list[ClipFiles]:
    """<root>/[test_subset|.../]<name>/{vis_imgs/*.bmp, event_imgs/*.bmp, groundtruth.txt, absent_label.txt}.

    For all its name, a 1 in absent_label.txt says that the target is there.
    """
    subsets = ("test_subset", "train_subset", "testingset", "trainingset", "test", "train")
    for base in _subsets(root, *subsets, "test/test_subset", "train/train_subset"):
        found = [f for f in _folders(base) if (f / "vis_imgs").is_dir() and (f / "event_imgs").is_dir()]
        if found:
            return [
                ClipFiles(
                    f.name,
                    f / "vis_imgs",
                    f / "groundtruth.txt",
                    cover=next(iter(_existing([f / "absent_label.txt"])), None),
                    second=SecondFiles("event", f / "event_imgs"),
                    late=True,
                )
                for f in found
            ]
    return []


def _tc128(root: Path) -> list[ClipFiles]:
    """<root>/<Name>/{img/*.jpg, <Name>_gt.txt, <Name>_frames.txt}; the last gives first and last frame."""
    entries = []
    for folder in (f for f in _folders(root) if (f / f"{f.name}_gt.txt").is_file()):
        frames = folder / f"{folder.name}_frames.txt"
        ends = re.findall(r"\d+", read_text(frames, error=DatasetError)) if frames.is_file() else []
        span = (int(ends[0]), int(ends[1])) if len(ends) == 2 else None
        entries.append(ClipFiles(folder.name, folder / "img", folder / f"{folder.name}_gt.txt", span=span))
    return entries


_PLAIN_TRUTH = ("groundtruth.txt", "groundtruth_rect.txt")


def _plain(root: Path) -> list[ClipFiles]:
    """<root>/<name>/{img/*.jpg, groundtruth.txt}, images also in imgs, color or beside the file; or one such folder.

    Boxes may be polygons: VOT's sequences without their list.txt are laid out like this.
    """
    entries = []
    for folder in (root, *_folders(root)):
        truth = next(iter(_existing(folder / name for name in _PLAIN_TRUTH)), None)
        if truth is not None:
            images = next((folder / n for n in ("img", "imgs", "color") if (folder / n).is_dir()), folder)
            entries.append(ClipFiles(folder.absolute().name, images, truth, columns="region"))
        elif folder != root and images_in(folder / "img"):
            entries.append(ClipFiles(folder.name, folder / "img", folder / _PLAIN_TRUTH[0]))
    return entries


def _video(root: Path) -> list[ClipFiles]:
    """clip.mp4 and clip.txt, or a folder of such pairs."""
    files = [root] if root.is_file() else sorted(root.iterdir(), key=natural_key)
    clips = [f for f in files if f.suffix.lower() in VIDEO_SUFFIXES and f.is_file()]
    if root.is_dir():
        clips = [c for c in clips if c.with_suffix(".txt").is_file()]
    return [ClipFiles(c.stem, str(c.absolute()), c.with_suffix(".txt")) for c in clips]


LAYOUTS = (
    Layout(
        "got10k",
        "[val|test|train/]GOT-10k_Val_000001/{00000001.jpg, groundtruth.txt, absence.label}",
        _got10k,
        ScoringRules(bounded=True, over_frames=True),
        _is_got10k,
    ),
    Layout(
        "lasot",
        "airplane/airplane-1/{img/00000001.jpg, groundtruth.txt, full_occlusion.txt, out_of_view.txt}",
        _lasot,
        ScoringRules(absent_fails=True),
        _is_lasot,
    ),
    Layout("uav123", "data_seq/UAV123/bike1/000001.jpg and anno/UAV123/bike1.txt", _uav123),
    Layout("nfs", "airplane/30/airplane/00001.jpg and airplane/30/airplane.txt", _nfs),
    Layout("trackingnet", "TEST/{frames/VIDEO/0.jpg, anno/VIDEO.txt}", _trackingnet),
    Layout("avist", "sequences/NAME/img_00001.jpg and anno/NAME.txt", _avist, ScoringRules(absent_fails=True)),
    Layout(
        "depthtrack",
        "[test|sequences/]NAME_indoor/{color/00000001.jpg, depth/00000001.png, groundtruth.txt}",
        _rgbd,
        ScoringRules(long_term=True),
        _is_depthtrack,
    ),
    Layout(
        "cdtb",
        "[sequences/]NAME/{color/00000001.jpg, depth/00000001.png, groundtruth.txt, full-occlusion.tag}",
        _rgbd,
        ScoringRules(long_term=True),
        _is_cdtb,
    ),
    Layout(
        "rgbd1k",
        "[sequences/]NAME/{color/00000001.jpg, depth/00000001.png, groundtruth.txt}",
        _rgbd,
        ScoringRules(long_term=True),
    ),
    Layout(
        "visevent",
        "[test_subset/]NAME/{vis_imgs/frame0000.bmp, event_imgs/frame0000.bmp, groundtruth.txt, absent_label.txt}",
        _visevent,
        ScoringRules(absent_fails=True),
    ),
    Layout("vot", "[sequences/]list.txt and NAME/{[color/]00000001.jpg, groundtruth.txt}", _vot),
    Layout("visdrone", "sequences/NAME/img0000001.jpg and annotations/NAME.txt", _visdrone),
    Layout(
        "rgbt234",
        "NAME/{visible/00001v.jpg, infrared/00001i.jpg, visible.txt, infrared.txt}",
        _lasher,
        ScoringRules(absent_fails=True),
        _is_rgbt234,
    ),
    Layout(
        "lasher",
        "[testingset/]NAME/{visible/v000001.jpg, infrared/i000001.jpg, visible.txt, infrared.txt}",
        _lasher,
        ScoringRules(absent_fails=True),
    ),
    Layout(
        "gtot",
        "NAME/{v/00001v.png, i/00001i.png, groundTruth_v.txt, groundTruth_i.txt}",
        _gtot,
        ScoringRules(over_frames=True, absent_fails=True, pixels=5),
    ),
    Layout(
        "vtuav",
        "[test/short-term/]NAME/{rgb/000001.jpg, ir/000001.jpg, rgb.txt, ir.txt}",
        _vtuav,
        ScoringRules(absent_fails=True),
    ),
    Layout(
        "otb-lang",
        "[OTB_sentences/]{OTB_videos/Basketball/{img/0001.jpg, groundtruth_rect.txt}, OTB_query_test/Basketball.txt}",
        _otb_lang,
    ),
    Layout(
        "tnl2k",
        "[TNL2K_test_subset/]NAME/{imgs/00001.jpg, groundtruth.txt, language.txt}",
        _tnl2k,
    ),
    Layout("tc128", "NAME/{img/0001.jpg, NAME_gt.txt, NAME_frames.txt}", _tc128),
    Layout("otb", "Basketball/{img/0001.jpg, groundtruth_rect.txt}", _otb),
    Layout("plain", "NAME/{[img|color/]00001.jpg, groundtruth.txt}", _plain),
    Layout("video", "clip.mp4 and clip.txt", _video),
)
"""In the order in which they are tried."""
