"""Pickles made to act, to take memory or never to end are refused, and do none of it."""

import copyreg
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from hire_jax.data import DatasetError, pickle_reader
from hire_jax.data.unpickle import load_nested

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DTYPE = b"(S'%b'\nI0\nI1\ntRp9\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


def array(shape: bytes, raw: bytes, code: bytes = b"i1") -> bytes:
    """A pickled array's beginning, with a state of one's own."""
    return ARRAY + b"(I1\n(" + shape + b"tcnumpy\ndtype\n" + DTYPE % code + b"I00\n" + raw + b"tb"


def test_hand_made_array() -> None:
    """The attacks below differ from this only in what they say."""
    np.testing.assert_array_equal(load_nested(array(b"I2\n", b"S'\\x01\\xff'\n") + b".", "here"), [1, -1])


CSR = b"cscipy.sparse.csr\ncsr_matrix\n"
VAST = {
    "ndarray called with a shape": b"cnumpy\nndarray\n((I1000000000000\nttR.",
    "ndarray made with a shape": b"\x80\x02cnumpy\nndarray\n(I1000000000000\nt\x81.",
    "a shape for _reconstruct": ARRAY.replace(b"(I0\nt", b"(I1000000000000\nt") + b".",
    "a shape beyond the bytes": array(b"I1000000000000\n", b"S'a'\n") + b".",
    "a shape that overflows": array(b"I4294967296\nI4294967296\n", b"S''\n") + b".",
    "a negative shape": array(b"I-1\nI-1\n", b"S'a'\n") + b".",
    "a shape of digits": array(b"L" + b"9" * 5000 + b"L\n", b"S'a'\n") + b".",
    "a vast type": array(b"I1\n", b"S'a'\n", b"V2000000000") + b".",
    "a vast text type": array(b"I1\n", b"S'a'\n", b"S2000000000") + b".",
    "one text as many arrays": b"(" + array(b"I100000\n", b"S'" + b"a" * 100_000 + b"'\np7\n")
    + array(b"I100000\n", b"g7\n") * 50 + b"l.",
    "a number's stated length": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "a number of digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "bytes' stated length": b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00a.",
    "a text's stated length": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "a short text's stated length": b"\x80\x02X\xff\xff\xff\xffa.",
    "a frame's stated length": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",
    "a matrix's digits": CSR + b")\x81}(S'_shape'\n(L" + b"9" * 5000 + b"L\nI1\ntub.",
}


@pytest.mark.parametrize("attack", VAST)
def test_what_is_stated_is_not_allocated(attack: str) -> None:
    pickled = VAST[attack]
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="here: expected"):
            load_nested(pickled, "here")
        assert tracemalloc.get_traced_memory()[1] < 20 * len(pickled) + 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("far", [b"r\xff\xff\xff\xff", b"p9999999999999\n"])
def test_a_far_place_takes_no_memory(far: bytes) -> None:
    """Python's own unpickler makes a table up to the place."""
    tracemalloc.start()
    try:
        assert load_nested(b"I1\n" + far + b".", "here") == 1
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_reader, "MAX_OPERATIONS", 100)
    assert load_nested(b"N0" * 49 + b"I1\n.", "here") == 1
    with pytest.raises(DatasetError, match=r"here: expected .*, found more than 100 operations"):
        load_nested(b"N0" * 50 + b"I1\n.", "here")


ENDLESS = {
    "a list in itself": b"]p0\ng0\na.",
    "a list in itself many times": b"]p0\n(" + b"g0\n" * 1000 + b"e.",
    "a dict in itself": b"}p0\nS'a'\ng0\ns.",
    "a tuple in itself": b"(]p0\n(g0\nttp1\n0g0\ng1\na.",
    "lists doubled": b"]" + b"p0\n0](g0\ng0\ne" * 60 + b".",
    "tuples doubled": b")" + b"2\x86" * 60 + b".",
    "tuples doubled as a key": b"})" + b"2\x86" * 60 + b"Ns.",
    "tuples doubled as a shape": array(b")" + b"2\x86" * 60, b"S'a'\n") + b".",
    "tuples doubled as a type": array(b"I1\n", b"S'a'\n").replace(b"S'i1'\n", b")" + b"2\x86" * 60) + b".",
    "tuples doubled as a name": b")" + b"2\x86" * 60 + b"S'a'\n\x93.",
    "tuples doubled as a matrix's shape": CSR + b")\x81}S'_shape'\n)" + b"2\x86" * 60 + b"sb.",
    "lists in lists": b"(" * 100_000 + b"l" * 100_000 + b".",
    "keys that collide": b"}(" + b"".join(b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") + b"N"
                                        for k in range(1, 5000)) + b"u.",
}


@pytest.mark.parametrize("attack", ENDLESS)
def test_what_refers_to_itself_ends(attack: str) -> None:
    with pytest.raises(DatasetError, match="here: expected"):
        load_nested(ENDLESS[attack], "here")


TRICKS = {
    "os.system": b"cos\nsystem\n(S'true'\ntR.",
    "os.system, protocol 4": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "os.system as an old instance": b"(S'true'\nios\nsystem\n.",
    "os.system as an old object": b"(cos\nsystem\nS'true'\no.",
    "builtins.eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
    "a name behind a name": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
    "a name behind a dtype": b"\x80\x04\x8c\x05numpy\x8c\x18dtype.__class__.__base__\x93.",
    "numpy.load": b"cnumpy\nload\n(S'/dev/null'\ntR.",
    "numpy.fromfile": b"cnumpy\nfromfile\n(S'/dev/null'\ntR.",
    "numpy.memmap": b"cnumpy\nmemmap\n(S'x'\ntR.",
    "numpy's own eval": b"cnumpy.testing._private.utils\nrunstring\n(S'1'\n}tR.",
    "a codec that acts": b"c_codecs\ndecode\n(S'a'\nS'zlib'\ntR.",
    "another encoding": array(b"I1\n", b"c_codecs\nencode\n(Va\nVutf-8\ntR") + b".",
    "a factory of lists called": b"c__builtin__\nlist\n(tR.",
    "a factory of objects called": b"c__builtin__\nobject\n(tR.",
    "bytes of a length": b"c__builtin__\nbytes\n(I1000000\ntR.",
    "a persistent id": b"Pid\n.",
    "a binary persistent id": b"S'id'\nQ.",
    "an extension": b"\x80\x02\x82\xf0.",
    "an extension by two bytes": b"\x80\x02\x83\xf0\x00.",
    "an extension by four bytes": b"\x80\x02\x84\xf0\x00\x00\x00.",
    "an object with keyword arguments": b"\x80\x04" + CSR + b")}\x92.",
    "a matrix with arguments": CSR + b"(I5\nt\x81.",
    "a matrix called": CSR + b"(I5\ntR.",
    "a dtype made anew": b"cnumpy\ndtype\n(S'i4'\nt\x81.",
    "an object of another class": b"ccopy_reg\n_reconstructor\n(cnumpy\ndtype\nc__builtin__\nobject\nNtR.",
    "an object with a state": b"ccopy_reg\n_reconstructor\n(" + CSR + b"c__builtin__\nobject\n]tR.",
    "an object of another base": b"ccopy_reg\n_reconstructor\n(" + CSR + b"c__builtin__\nlist\nNtR.",
    "a class's attributes": CSR + b"(N}S'__setstate__'\nNstb.",
    "a class's dict": CSR + b"}S'__init__'\nNsb.",
    "a function's attributes": b"cnumpy.core.multiarray\n_reconstruct\n(N}S'__defaults__'\nNstb.",
    "a list's attributes": b"](N}S'__class__'\nNstb.",
    "an object's class": CSR + b")\x81(N}S'__class__'\ncnumpy\ndtype\nstb.",
    "an array's attributes": ARRAY + b"(N}S'__class__'\nNstb.",
    "a call of a list": b"](tR.",
    "arguments that are no tuple": b"cnumpy\ndtype\n]R.",
    "items for a tuple": b")Na.",
    "items for a text": b"S'a'\n(NNe.",
    "entries for a list": b"]NNs.",
    "an odd entry": b"}(Nu.",
    "a mark that is missing": b"t.",
    "a place that is empty": b"h\x07.",
    "an empty stack": b".",
    "nothing to keep": b"q\x00.",
    "an object type's bytes": array(b"I1\n", b"S'aaaaaaaa'\n", b"O8") + b".",
    "a list as an array's bytes": array(b"I1\n", b"(NNl") + b".",
    "a matrix without content": CSR + b")\x81.",
    "a matrix of one size": CSR + b")\x81}S'_shape'\n(I1\ntsb.",
    "a matrix of lists": CSR + b")\x81}(S'_shape'\n(I1\nI1\ntS'indptr'\n]S'indices'\n]S'data'\n]ub.",
    "an array without content": ARRAY + b".",
    "a number without content": b"cnumpy.core.multiarray\nscalar\n(tR.",
    "a name alone": CSR + b".",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_are_refused(trick: str) -> None:
    with pytest.raises(DatasetError, match="here: expected"):
        load_nested(TRICKS[trick], "here")


def test_registered_extension_is_refused() -> None:
    """Extensions are looked up by number in a table of the process, not by name."""
    copyreg.add_extension("os", "getpid", 240)
    try:
        assert pickle.loads(TRICKS["an extension"]) is os.getpid
        with pytest.raises(DatasetError, match=r"found operation b'\\x82' at byte 2; it was not loaded"):
            load_nested(TRICKS["an extension"], "here")
    finally:
        copyreg.remove_extension("os", "getpid", 240)
