import pytest

from napari_unet.cli.options import repeated


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("--images A B --out M", "--images A --images B --out M"),
        ("--images A --labels B C D", "--images A --labels B --labels C --labels D"),
        ("--block 64 128 128 STACK --out R", "--block 64 --block 128 --block 128 STACK --out R"),
        ("STACK --block 64 64", "STACK --block 64 --block 64"),
        ("--images A --images B", "--images A --images B"),
        ("--out A B", "--out A B"),
    ],
)
def test_an_option_of_several_values_is_repeated(given, parsed):
    assert list(repeated(given.split(), {"--images", "--labels", "--block"})) == parsed.split()
