"""Each data set's layout in miniature: found without being told, and read as its authors mean it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgetrack.errors import DatasetError, SequenceError, UnknownNameError, UsageError
from edgetrack.evaluation.datasets import layout_names, open_dataset
from edgetrack.evaluation.datasets.layouts import LASOT_ATTRIBUTES, OTB_ATTRIBUTES, UAV_ATTRIBUTES

BOX = "10,12,20,16"
ABSENT = "nan,nan,nan,nan"


def sequences(dataset):
    return {entry.name: dataset.read(entry) for entry in dataset.entries}


def names_of(sequence):
    return [path.name for path in sequence.media]


@pytest.mark.parametrize("subset", ["", "val"])
def test_got10k(tmp_path, write_images, write_rows, subset) -> None:
    folder = write_images(tmp_path / subset / "GOT-10k_Val_000001", 3, pattern="{:08d}.jpg")
    write_rows(folder / "groundtruth.txt", BOX, BOX, BOX)
    write_rows(folder / "absence.label", 0, 1, 0)
    write_rows(tmp_path / subset / "list.txt", "GOT-10k_Val_000001")
    dataset = open_dataset(tmp_path)
    (sequence,) = sequences(dataset).values()
    assert dataset.layout == "got10k"
    assert dataset.rules.bounded
    assert dataset.rules.over_frames
    assert sequence.visible.tolist() == [True, False, True]
    write_rows(folder / "cover.label", 8, 5, 0)
    (sequence,) = sequences(open_dataset(tmp_path)).values()
    assert sequence.visible.tolist() == [True, True, False]


def test_got10k_test_set_has_one_box_and_no_score(tmp_path, write_images, write_rows) -> None:
    folder = write_images(tmp_path / "test" / "GOT-10k_Test_000001", 3)
    write_rows(folder / "groundtruth.txt", BOX)
    (sequence,) = sequences(open_dataset(tmp_path)).values()
    assert not sequence.scored
    assert sequence.frames == 3


@pytest.mark.parametrize("parent", ["airplane", ""])
def test_lasot(tmp_path, write_images, write_rows, parent) -> None:
    folder = tmp_path / parent / "airplane-1"
    write_images(folder / "img", 3, pattern="{:08d}.jpg")
    write_rows(folder / "groundtruth.txt", BOX, BOX, BOX)
    write_rows(folder / "full_occlusion.txt", "0,1,0")
    write_rows(folder / "out_of_view.txt", "0,0,1")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "lasot"
    assert dataset.rules.absent_fails
    assert sequences(dataset)["airplane-1"].visible.tolist() == [True, False, False]


def test_otb_with_two_targets_in_one_folder(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "Jogging" / "img", 2, pattern="{:04d}.jpg")
    write_rows(tmp_path / "Jogging" / "groundtruth_rect.1.txt", "1,1,9,9", "1,1,9,9")
    write_rows(tmp_path / "Jogging" / "groundtruth_rect.2.txt", "5\t5\t9\t9", "5\t5\t9\t9")
    write_images(tmp_path / "Human4" / "img", 2)
    write_rows(tmp_path / "Human4" / "groundtruth_rect.1.txt")
    write_rows(tmp_path / "Human4" / "groundtruth_rect.2.txt", BOX, BOX)
    dataset = open_dataset(tmp_path)
    found = sequences(dataset)
    assert dataset.layout == "otb"
    assert sorted(found) == ["Human4", "Jogging-1", "Jogging-2"]
    assert found["Jogging-2"].start == (5, 5, 9, 9)


@pytest.mark.parametrize(("root", "subset"), [("", "test"), ("OTB_sentences", "test"), ("", "train")])
def test_otb_lang_pairs_sentences_with_sequences(tmp_path, write_images, write_rows, root, subset) -> None:
    base = tmp_path / root
    write_images(base / "OTB_videos" / "Basketball" / "img", 2, pattern="{:04d}.jpg")
    write_rows(base / "OTB_videos" / "Basketball" / "groundtruth_rect.txt", BOX, BOX)
    write_images(base / "OTB_videos" / "Jogging" / "img", 2, pattern="{:04d}.jpg")
    write_rows(base / "OTB_videos" / "Jogging" / "groundtruth_rect.1.txt", BOX, BOX)
    write_rows(base / "OTB_videos" / "Jogging" / "groundtruth_rect.2.txt", "5\t5\t9\t9", "5\t5\t9\t9")
    write_rows(base / f"OTB_query_{subset}" / "Jogging-2.txt", "the woman in white on the left")
    if subset == "test":
        write_rows(base / "OTB_query_train" / "Basketball.txt", "player in green")
        write_rows(base / "OTB_query_test" / "Gone.txt", "a ghost")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "otb-lang"
    assert dataset.names == (["Gone", "Jogging-2"] if subset == "test" else ["Jogging-2"])
    clip = dataset.read(dataset.entries[-1])
    assert (clip.text, clip.start) == ("the woman in white on the left", (5, 5, 9, 9))
    if subset == "test":
        with pytest.raises(SequenceError, match=r"Gone.*does not exist"):
            dataset.read(dataset.entries[0])


@pytest.mark.parametrize("base", ["", "TNL2K_test_subset", "TNL2K_train_subset/p1"])
def test_tnl2k(tmp_path, write_images, write_rows, base) -> None:
    folder = tmp_path / base / "Car_video_01"
    write_images(folder / "imgs", 3, pattern="{:05d}.jpg")
    write_rows(folder / "groundtruth.txt", BOX, "0,0,0,0", BOX)
    write_rows(folder / "language.txt", "the white car on the left lane")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "tnl2k"
    (clip,) = sequences(dataset).values()
    assert (clip.name, clip.text) == ("Car_video_01", "the white car on the left lane")
    assert clip.visible.tolist() == [True, False, True]


def test_otb_folder_with_more_images_than_boxes_is_cut_as_published(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "Football1" / "img", 76, pattern="{:04d}.jpg")
    write_rows(tmp_path / "Football1" / "groundtruth_rect.txt", *[BOX] * 74)
    (sequence,) = sequences(open_dataset(tmp_path)).values()
    assert names_of(sequence)[-1] == "0074.jpg"


def test_uav123_cuts_sequences_out_of_a_folder(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "data_seq" / "UAV123" / "bird1", 6, pattern="{:06d}.jpg")
    write_images(tmp_path / "data_seq" / "UAV123" / "bike1", 2, pattern="{:06d}.jpg")
    write_rows(tmp_path / "anno" / "UAV123" / "bike1.txt", BOX, "NaN,NaN,NaN,NaN")
    write_rows(tmp_path / "anno" / "UAV123" / "bird1_2.txt", BOX, BOX, BOX)
    entry = "struct('name','bird1_2','path','D:\\data_seq\\UAV123\\bird1\\','startFrame',{},'endFrame',{},'nz',6)"
    write_rows(tmp_path / "configSeqs.m", f"seqs={{{entry.format(1, 6)},...", f"{entry.format(3, 5)}}};")
    dataset = open_dataset(tmp_path)
    found = sequences(dataset)
    assert dataset.layout == "uav123"
    assert names_of(found["bird1_2"]) == ["000003.jpg", "000004.jpg", "000005.jpg"]
    assert found["bike1"].visible.tolist() == [True, False]


def test_nfs_reads_corners_and_thins_boxes_of_a_higher_rate(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "ball" / "30" / "ball", 3)
    rows = [f"{i} {i} 2 {i + 10} 22 0" for i in range(24)]
    write_rows(tmp_path / "ball" / "30" / "ball.txt", *rows)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "nfs"
    assert sequences(dataset)["ball"].truth.tolist() == [[0, 2, 10, 20], [8, 2, 10, 20], [16, 2, 10, 20]]


def test_nfs_that_is_one_row_long_loses_it(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "ball" / "240" / "ball", 3)
    write_rows(tmp_path / "ball" / "240" / "ball.txt", *["0 1 2 11 22"] * 4)
    assert sequences(open_dataset(tmp_path))["ball"].frames == 3


@pytest.mark.parametrize("root", ["", "TEST"])
def test_trackingnet_counts_images_from_zero_without_padding(tmp_path, write_images, write_rows, root) -> None:
    write_images(tmp_path / "TEST" / "frames" / "vid_0", 11, first=0, pattern="{}.jpg")
    write_rows(tmp_path / "TEST" / "anno" / "vid_0.txt", *[BOX] * 11)
    dataset = open_dataset(tmp_path / root)
    assert dataset.layout == "trackingnet"
    assert names_of(sequences(dataset)["vid_0"]) == [f"{i}.jpg" for i in range(11)]


def test_avist(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "sequences" / "air_show", 2, pattern="img_{:05d}.jpg")
    write_rows(tmp_path / "anno" / "air_show.txt", "10 12 20 16", "10 12 20 16")
    write_rows(tmp_path / "out_of_view" / "air_show_out_of_view.txt", "0,1")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "avist"
    assert sequences(dataset)["air_show"].visible.tolist() == [True, False]


@pytest.mark.parametrize(("base", "color"), [("sequences", "color"), ("", "")])
def test_vot_lists_its_sequences_and_may_give_polygons(tmp_path, write_images, write_rows, base, color) -> None:
    folder = tmp_path / base / "bag"
    write_images(folder / color, 2, pattern="{:08d}.jpg")
    write_rows(folder / "groundtruth.txt", "10,5,20,15,10,25,0,15", BOX)
    write_images(tmp_path / base / "unlisted", 1)
    write_rows(tmp_path / base / "list.txt", "bag")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "vot"
    assert dataset.names == ["bag"]
    assert sequences(dataset)["bag"].start == (0, 5, 20, 20)


def test_a_list_may_begin_with_the_mark_of_an_editor(tmp_path, write_images, write_rows) -> None:
    for name in ("bag", "ball one"):
        write_images(tmp_path / name, 2)
        write_rows(tmp_path / name / "groundtruth.txt", BOX, BOX)
    (tmp_path / "list.txt").write_bytes("bag\r\nball one\r\n".encode("utf-8-sig"))
    assert list(sequences(open_dataset(tmp_path, "vot"))) == ["bag", "ball one"]
    (tmp_path / "list.txt").write_bytes("bag\r\n".encode("utf-16"))
    with pytest.raises(DatasetError, match=r"list\.txt is UTF-16 or no text; save it as UTF-8"):
        open_dataset(tmp_path)


def test_vot_sequences_without_their_list(tmp_path, write_images, write_rows) -> None:
    for name in ("bag", "ball"):
        write_images(tmp_path / name / "color", 2, pattern="{:08d}.jpg")
        write_rows(tmp_path / name / "groundtruth.txt", "10,5,20,15,10,25,0,15", BOX)
    found = sequences(open_dataset(tmp_path))
    assert list(found) == ["bag", "ball"]
    assert found["bag"].start == (0, 5, 20, 20)
    assert sequences(open_dataset(tmp_path / "bag"))["bag"].start == (0, 5, 20, 20)


def test_got10k_with_its_training_part_only(tmp_path, write_images, write_rows) -> None:
    folder = write_images(tmp_path / "train" / "GOT-10k_Train_000001", 2)
    write_rows(folder / "groundtruth.txt", BOX, BOX)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.names) == ("got10k", ["GOT-10k_Train_000001"])


def test_a_data_set_one_folder_deeper_is_found_and_several_are_named(tmp_path, write_images, write_rows) -> None:
    def lasot(root):
        write_images(root / "airplane" / "airplane-1" / "img", 2)
        write_rows(root / "airplane" / "airplane-1" / "groundtruth.txt", BOX, BOX)

    lasot(tmp_path / "LaSOTBenchmark")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.name, dataset.names) == ("lasot", "LaSOTBenchmark", ["airplane-1"])
    lasot(tmp_path / "again")
    with pytest.raises(DatasetError, match=r"holds 2 data sets; give one of: .*/LaSOTBenchmark, .*/again"):
        open_dataset(tmp_path)


def test_visdrone_lasher_and_temple_color(tmp_path, write_images, write_rows) -> None:
    drone, heat, color = tmp_path / "visdrone", tmp_path / "lasher", tmp_path / "tc128"
    write_images(drone / "sequences" / "uav01", 2, pattern="img{:07d}.jpg")
    write_rows(drone / "annotations" / "uav01.txt", BOX, BOX)
    for kind in ("visible", "infrared"):
        write_images(heat / "testingset" / "boy" / kind, 2, pattern=kind[0] + "{:06d}.jpg")
        write_rows(heat / "testingset" / "boy" / f"{kind}.txt", BOX, BOX)
    write_images(color / "Ball_ce1" / "img", 5, pattern="{:04d}.jpg")
    write_rows(color / "Ball_ce1" / "Ball_ce1_gt.txt", BOX, BOX)
    write_rows(color / "Ball_ce1" / "Ball_ce1_frames.txt", "3,4")
    for root, name, images in (
        (drone, "uav01", ["img0000001.jpg", "img0000002.jpg"]),
        (heat, "boy", ["v000001.jpg", "v000002.jpg"]),
        (color, "Ball_ce1", ["0003.jpg", "0004.jpg"]),
    ):
        dataset = open_dataset(root)
        assert dataset.layout == root.name
        assert names_of(sequences(dataset)[name]) == images


def test_uav123_without_its_configuration_names_it(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "data_seq" / "UAV123" / "bird1", 2, pattern="{:06d}.jpg")
    write_rows(tmp_path / "anno" / "UAV123" / "bird1_1.txt", BOX, BOX)
    with pytest.raises(SequenceError, match=r"bird1_1 does not exist; copy configSeqs\.m beside anno"):
        sequences(open_dataset(tmp_path))


def test_plain_folders_or_one_of_them(tmp_path, plain_dataset) -> None:
    root = plain_dataset("a10", "a9", frames=2)
    dataset = open_dataset(root)
    assert dataset.layout == "plain"
    assert dataset.names == ["a9", "a10"]
    assert open_dataset(root / "a9").names == ["a9"]


def test_a_video_with_its_boxes_beside_it(tmp_path, write_rows) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for index in range(3):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    write_rows(tmp_path / "clip.txt", BOX, ABSENT, BOX)
    for given in (path, tmp_path):
        dataset = open_dataset(given)
        sequence = sequences(dataset)["clip"]
        assert dataset.layout == "video"
        assert sequence.visible.tolist() == [True, False, True]
        with sequence.open() as frames:
            assert len(list(frames)) == 3


def test_built_in_scenes() -> None:
    assert {"drift", "exit"} <= set(open_dataset("synthetic:").names)
    (sequence,) = sequences(open_dataset("synthetic:exit?frames=120&size=96x64")).values()
    assert sequence.frames == 120
    assert not sequence.visible.all()
    with pytest.raises(UnknownNameError, match="drift"):
        open_dataset("synthetic:drfit")


def test_what_fits_no_layout_says_what_was_looked_for(tmp_path) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path)
    assert all(name in str(caught.value) for name in layout_names())
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset(tmp_path / "none")


def test_a_layout_can_be_forced_and_must_exist(plain_dataset, write_images, write_rows, tmp_path) -> None:
    folder = write_images(tmp_path / "mine" / "clip1", 2)
    write_rows(folder / "groundtruth.txt", BOX, BOX)
    assert open_dataset(tmp_path / "mine").layout == "plain"
    assert open_dataset(tmp_path / "mine", "got10k").rules.bounded
    with pytest.raises(UnknownNameError, match="got10k, lasot"):
        open_dataset(tmp_path / "mine", "kitti")
    with pytest.raises(DatasetError, match="airplane/30"):
        open_dataset(tmp_path / "mine", "nfs")


def test_two_sequences_of_one_name_are_refused(tmp_path, write_images, write_rows) -> None:
    for subset in ("TRAIN_0", "TRAIN_1"):
        write_images(tmp_path / subset / "frames" / "same", 1, pattern="{}.jpg")
        write_rows(tmp_path / subset / "anno" / "same.txt", BOX)
    with pytest.raises(DatasetError, match="2 sequences called 'same'"):
        open_dataset(tmp_path)


def test_sequences_are_chosen_by_name_in_the_data_sets_order(plain_dataset) -> None:
    dataset = open_dataset(plain_dataset("a", "b", "c", frames=1))
    assert dataset.select(["c", "a"]).names == ["a", "c"]
    with pytest.raises(UnknownNameError, match="expected one of: a, b, c"):
        dataset.select(["x1"])


def test_a_sequence_without_boxes_is_broken_not_forgotten(tmp_path, plain_dataset, write_images) -> None:
    root = plain_dataset("good", frames=1)
    write_images(root / "bare" / "img", 1)
    dataset = open_dataset(root)
    with pytest.raises(SequenceError, match="bare has no ground truth"):
        dataset.read(dataset.entries[0])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([BOX] * 3, "2 images and .* has 3 boxes"),
        ([ABSENT, BOX], "first frame of one has no target"),
        ([BOX, "garbage"], "line 2"),
        ([], "is empty"),
    ],
)
def test_frames_and_boxes_that_do_not_fit(tmp_path, write_images, write_rows, rows, words) -> None:
    write_images(tmp_path / "one" / "img", 2)
    write_rows(tmp_path / "one" / "groundtruth.txt", *rows)
    dataset = open_dataset(tmp_path)
    with pytest.raises(SequenceError, match=words):
        dataset.read(dataset.entries[0])


def test_flags_that_do_not_fit(tmp_path, write_images, write_rows) -> None:
    folder = write_images(tmp_path / "GOT-10k_Val_000001", 2)
    write_rows(folder / "groundtruth.txt", BOX, BOX)
    write_rows(folder / "absence.label", 0)
    dataset = open_dataset(tmp_path)
    with pytest.raises(SequenceError, match="1 flags for 2 frames"):
        dataset.read(dataset.entries[0])


def test_a_folder_without_images_is_a_broken_sequence(tmp_path, write_rows) -> None:
    (tmp_path / "one" / "img").mkdir(parents=True)
    write_rows(tmp_path / "one" / "groundtruth.txt", BOX)
    dataset = open_dataset(tmp_path)
    with pytest.raises(SequenceError, match="holds no images"):
        dataset.read(dataset.entries[0])


def marks(names: tuple[str, ...], *marked: str) -> list[str]:
    assert set(marked) <= set(names)
    return ["1" if name in marked else "0" for name in names]


@pytest.mark.parametrize("folder", ["att", "sequence_evaluation_config/att"])
def test_lasot_attributes(tmp_path, write_images, write_rows, folder) -> None:
    for name in ("cat-1", "cat-2"):
        write_images(tmp_path / "cat" / name / "img", 2)
        write_rows(tmp_path / "cat" / name / "groundtruth.txt", BOX, BOX)
    # The toolkit's order: IV POC DEF MB CM ROT BC VC SV FOC FM OV LR ARC.
    write_rows(tmp_path / folder / "cat-1.txt", "1,0,0,0,0,0,0,0,0,0,1,0,0,1")
    found = sequences(open_dataset(tmp_path))
    assert found["cat-1"].attributes == ("IV", "FM", "ARC")
    assert found["cat-2"].attributes is None
    assert len(LASOT_ATTRIBUTES) == 14


@pytest.mark.parametrize("folder", ["att", "anno/att"])
def test_otb_attributes_whatever_the_case_of_their_files(tmp_path, write_images, write_rows, folder) -> None:
    write_images(tmp_path / "Basketball" / "img", 2)
    write_rows(tmp_path / "Basketball" / "groundtruth_rect.txt", BOX, BOX)
    write_images(tmp_path / "Human4" / "img", 2)
    write_rows(tmp_path / "Human4" / "groundtruth_rect.1.txt")
    write_rows(tmp_path / "Human4" / "groundtruth_rect.2.txt", BOX, BOX)
    # IV OPR SV OCC DEF MB FM IPR OV BC LR, as perfPlot.m names them.
    write_rows(tmp_path / folder / "basketball.txt", "1,1,0,1,1,0,0,0,0,1,0")
    write_rows(tmp_path / folder / "human4-2.txt", "\t".join(marks(OTB_ATTRIBUTES, "LR")))
    found = sequences(open_dataset(tmp_path))
    assert found["Basketball"].attributes == ("IV", "OPR", "OCC", "DEF", "BC")
    assert found["Human4"].attributes == ("LR",)
    assert len(OTB_ATTRIBUTES) == 11


@pytest.mark.parametrize("version", ["UAV123", "UAV20L"])
def test_uav123_attributes(tmp_path, write_images, write_rows, version) -> None:
    write_images(tmp_path / "data_seq" / "UAV123" / "bike1", 2, pattern="{:06d}.jpg")
    write_rows(tmp_path / "anno" / version / "bike1.txt", BOX, BOX)
    # SV ARC LR FM FOC POC OV BC IV VC CM SOB; one value a line is read, too.
    write_rows(tmp_path / "anno" / version / "att" / "bike1.txt", *marks(UAV_ATTRIBUTES, "SV", "SOB"))
    found = sequences(open_dataset(tmp_path))
    assert found["bike1"].attributes == ("SV", "SOB")
    assert len(UAV_ATTRIBUTES) == 12


def test_attributes_that_do_not_fit(tmp_path, write_images, write_rows) -> None:
    write_images(tmp_path / "cat" / "cat-1" / "img", 2)
    write_rows(tmp_path / "cat" / "cat-1" / "groundtruth.txt", BOX, BOX)
    write_rows(tmp_path / "att" / "cat-1.txt", "1,0,1")
    with pytest.raises(
        SequenceError, match=r"cat-1.txt has 3 flags; expected a 0 or 1 for each of the 14 attributes IV"
    ):
        sequences(open_dataset(tmp_path))


def test_built_in_scenes_have_no_layout() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'got10k'"):
        open_dataset("synthetic:drift", "got1k")
    with pytest.raises(UsageError, match="built-in scenes have no layout"):
        open_dataset("synthetic:drift", "got10k")
