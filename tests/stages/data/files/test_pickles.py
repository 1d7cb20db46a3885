import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.files.pickles import load_refs_pickle

RECORDS = [{"ref_id": 0, "sentences": [{"sent": "left guy"}], "split": "train"}, {"ref_id": 1, "sentences": []}]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_load_refs_pickle__every_protocol(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path / "refs(unc).p", pickle.dumps(RECORDS, protocol=protocol))
    assert load_refs_pickle(path) == RECORDS


def test_load_refs_pickle__python_2_text_is_latin_1(tmp_path: Path) -> None:
    # Python 2's `str` "caf\xe9" at protocol 2 (SHORT_BINSTRING), and a long integer at protocol 0.
    path = write(tmp_path / "refs(unc).p", b"\x80\x02]}U\x04sentU\x04caf\xe9sa.")
    assert load_refs_pickle(path) == [{"sent": "café"}]
    path = write(tmp_path / "old.p", b"(lp0\n(dp1\nS'ann_id'\np2\nL1719310L\nsS'split'\np3\nS'train'\np4\nsa.")
    assert load_refs_pickle(path) == [{"ann_id": 1719310, "split": "train"}]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_load_refs_pickle__numpy_numbers_and_texts_become_plain(tmp_path: Path, protocol: int) -> None:
    values = {"a": np.int64(-7), "b": np.float32(0.5), "c": np.bool_(True), "d": np.array(258, dtype=">i4")[()]}
    values |= {"e": np.str_("caf\xe9 数"), "f": np.str_(""), "g": np.bytes_(b"caf\xe9"), "h": np.array("b", ">U3")[()]}
    path = write(tmp_path / "refs(unc).p", pickle.dumps([values], protocol=protocol))
    (record,) = load_refs_pickle(path)
    assert record == {"a": -7, "b": 0.5, "c": True, "d": 258, "e": "café 数", "f": "", "g": "café", "h": "b"}
    assert [type(value) for value in record.values()] == [int, float, bool, int, str, str, str, str]


def test_load_refs_pickle__numpy_number_of_python_2(tmp_path: Path) -> None:
    # cnumpy.core.multiarray.scalar(dtype('i8', 0, 1) with state (3, '<', ...), "\x2a\0\0\0\0\0\0\0")
    dtype = b"cnumpy\ndtype\n(U\x02i8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"\x80\x02]}U\x06ref_idcnumpy.core.multiarray\nscalar\n(" + dtype + b"U\x08\x2a" + bytes(7) + b"tRsa."
    assert load_refs_pickle(write(tmp_path / "refs(unc).p", content)) == [{"ref_id": 42}]


@pytest.mark.parametrize(
    "arguments",
    [
        b"cnumpy\ndtype\n(U\x01OtRU\x08" + bytes(8),  # objects: NumPy itself would unpickle these
        b"cnumpy\ndtype\n(U\x02i8tRU\x04" + bytes(4),  # cut off
        b"cnumpy\ndtype\n(U\x02i8tRJ\x00\x00\x00\x7f",  # a size in place of the bytes
        b"cnumpy\ndtype\n(U\x02U2tRU\x04" + bytes(4),  # cut off
        b"cnumpy\ndtype\n(U\x02U1tRU\x04\xff\xff\xff\xff",  # no character
        b"cnumpy\ndtype\n(U\x0cU99999999999tRU\x04" + bytes(4),  # more than there is memory
        b"cnumpy\ndtype\n(U\x02V8tRU\x08" + bytes(8),
        b"cnumpy\ndtype\n(U\x05i8,i8tRU\x10" + bytes(16),  # structured
    ],
)
def test_load_refs_pickle__odd_numpy_number(tmp_path: Path, arguments: bytes) -> None:
    content = b"\x80\x02]}U\x01acnumpy.core.multiarray\nscalar\n(" + arguments + b"tRsa."
    with pytest.raises(InputError, match="damaged or other file"):
        load_refs_pickle(write(tmp_path / "refs(unc).p", content))


@pytest.mark.parametrize(
    "content",
    [
        b"c_codecs\nencode\n(V616263\nVhex\ntR.",  # any other codec: some unpack, some run code of their own
        b"c_codecs\nencode\n(Vabc\nVlatin1\nVignore\ntR.",
        b"c_codecs\nencode\n(I3\nVlatin1\ntR.",
        b"c__builtin__\nbytes\n(I99999999999\ntR.",  # so many bytes of memory
        b"cbuiltins\nbytes\n(Vabc\nVrot13\ntR.",
        b"c_codecs\nencode\n(cnumpy\ndtype\nVlatin1\ntR.",
    ],
)
def test_load_refs_pickle__bytes_of_python_3_in_their_own_form_only(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="damaged or other file"):
        load_refs_pickle(write(tmp_path / "refs(unc).p", content))


class _Run:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_load_refs_pickle__runs_nothing(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "ran"
    path = write(tmp_path / "refs(unc).p", pickle.dumps([_Run(target)], protocol=protocol))
    with pytest.raises(InputError) as caught:
        load_refs_pickle(path)
    assert f"'{os.system.__module__}.system'" in str(caught.value)
    assert str(path) in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "eval"),
        (b"(S'1'\nibuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "numpy.load"),
        (b"c_codecs\ndecode\n(VY\nVhex\ntR.", "_codecs.decode"),
        (b"c_codecs\nregister\n.", "_codecs.register"),
        (b"c__builtin__\nbytearray\n(I9\ntR.", "bytearray"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0dbytes.fromhex\x93.", "bytes.fromhex"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "numpy.dtype.__init__"),
    ],
)
def test_load_refs_pickle__names_the_refused_global(tmp_path: Path, content: bytes, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}', which was not run"):
        load_refs_pickle(write(tmp_path / "refs(unc).p", content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html>\n<title>404</title>",
        b"version https://git-lfs.github.com/spec/v1\n",
        pickle.dumps(RECORDS, protocol=2)[:-9],
        pickle.dumps(RECORDS, protocol=0)[:40],
        b"\x80\x02" + b"U" + struct.pack("<B", 200) + b"short",
        b"\x80\x02P1\n.",
        b"\x80\x02\x82\x01.",  # an extension code
    ],
)
def test_load_refs_pickle__damaged(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "refs(unc).p", content)
    with pytest.raises(InputError, match="damaged or other file") as caught:
        load_refs_pickle(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_refs_pickle__damaged_anywhere_is_an_input_error(tmp_path: Path) -> None:
    whole = pickle.dumps(RECORDS, protocol=2)
    for length in range(len(whole)):
        with pytest.raises(InputError):
            load_refs_pickle(write(tmp_path / "refs(unc).p", whole[:length]))


@pytest.mark.parametrize(("value", "found"), [({"a": 1}, "a dict"), ([{}, 3], "a list with a int"), (None, "NoneType")])
def test_load_refs_pickle__other_content(tmp_path: Path, value: object, found: str) -> None:
    with pytest.raises(InputError, match=found):
        load_refs_pickle(write(tmp_path / "refs(unc).p", pickle.dumps(value, protocol=2)))


def test_load_refs_pickle__missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not read it"):
        load_refs_pickle(tmp_path / "refs(unc).p")
