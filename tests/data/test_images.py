"""Lost if these fail: the pixels that a viewer would show, and images that stay in their folder."""

import pytest
from PIL import Image

from coincide_pl.data.images import open_image, unusable_images
from coincide_pl.errors import DataError


def test_bad_images_are_named(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "good.png")
    content = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(content[:60])
    (folder / "text.png").write_text("no image")
    (tmp_path / "outside.png").write_bytes(content)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    for name, said in {
        "none.png": "no such image",
        "cut.png": "broken image",
        "text.png": "not an image",
        "link.png": "outside the image folder",
        "../outside.png": "outside the image folder",
        "": "image",
    }.items():
        with pytest.raises(DataError, match=said) as error:
            open_image(folder, name)
        assert str(folder) in str(error.value)
    assert open_image(folder, "good.png").mode == "RGB"


@pytest.mark.parametrize(("mode", "level"), [("L", 128), ("I;16", 32896), ("P", 0), ("RGBA", 0)])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode, level):
    image = Image.new(mode, (4, 2), level)
    image.save(tmp_path / "x.png")
    out = open_image(tmp_path, "x.png")
    assert out.mode == "RGB"
    if mode in ("L", "I;16"):
        assert out.getpixel((0, 0)) == (128, 128, 128)


def test_images_stand_upright(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "x.jpg", exif=exif)
    assert open_image(tmp_path, "x.jpg").size == (4, 8)


def test_every_image_that_training_would_stop_at_is_found(tmp_path):
    whole = Image.effect_noise((400, 300), 80).convert("RGB")
    for name, options in (("a.jpg", {}), ("b.jpg", {"progressive": True}), ("c.png", {})):
        whole.save(tmp_path / name, **options)
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(content[: len(content) * 2 // 3])
    whole.convert("CMYK").save(tmp_path / "d.jpg")
    whole.resize((3, 2)).save(tmp_path / "tiny.jpg")
    whole.convert("I;16").save(tmp_path / "deep.png")
    (tmp_path / "out.jpg").symlink_to("/etc/hostname")
    (tmp_path / "folder.jpg").mkdir()
    names = [*sorted(path.name for path in tmp_path.iterdir()), "gone.jpg", "a.jpg/x"]

    def opens(name):
        try:
            open_image(tmp_path, name)
        except DataError:
            return False
        return True

    bad = unusable_images(tmp_path, names)
    assert list(bad) == [name for name in names if not opens(name)]
    assert {"cut-a.jpg", "cut-b.jpg", "cut-c.png", "out.jpg", "gone.jpg"} < {*bad}
    assert not {"a.jpg", "d.jpg", "tiny.jpg", "deep.png"} & {*bad}


def test_nothing_of_a_files_palette_or_size_rides_along(tmp_path):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.save(tmp_path / "x.png", transparency=1, dpi=(72, 72))
    found = open_image(tmp_path, "x.png")
    assert found.getpixel((0, 0)) == (200, 100, 50)  # not white, which processors paint
    assert found.info == {}
    Image.new("L", (4, 2), 7).save(tmp_path / "l.png", transparency=7)
    assert open_image(tmp_path, "l.png").info == {}


def test_sides_of_extreme_ratio_are_refused_before_they_are_scaled(tmp_path):
    for size in ((1000, 10), (10, 1000), (1, 1)):
        Image.new("RGB", size).save(tmp_path / "x.png")
        assert open_image(tmp_path, "x.png").size == size
    for size in ((1001, 10), (3, 301)):
        Image.new("RGB", size).save(tmp_path / "x.png")
        with pytest.raises(DataError, match="one side is more than 100 times as long as the other"):
            open_image(tmp_path, "x.png")
        assert list(unusable_images(tmp_path, ["x.png"])) == ["x.png"]


def test_a_folder_may_be_linked_into_the_image_folder(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "images/deep").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "coco/x.png")
    (tmp_path / "images/coco").symlink_to(tmp_path / "coco")
    (tmp_path / "images/deep/coco").symlink_to(tmp_path / "coco")
    assert open_image(tmp_path / "images", "coco/x.png").size == (3, 2)
    with pytest.raises(DataError, match="link its folder directly into that, if it may be read"):
        open_image(tmp_path / "images", "deep/coco/x.png")
