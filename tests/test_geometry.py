"""The integers behind the rules, without arrays: every tap of every window, counted one by one."""

import itertools

import numpy as np
import pytest

from jaxcnnbp.geometry import Window, window_of
from jaxcnnbp.taps import cells

# Extent, window, stride, dilation, gaps of the input, padding.
SMALL = list(itertools.product((1, 2, 5), (1, 2, 3), (1, 2, 4), (1, 2), (1, 2), ((0, 0), (2, 1), (-1, 0), (1, -1))))


def axis(n, k, s, d, i, padding, ceil_mode=False):
    return Window((n,), (k,), (s,), (padding,), (d,), (i,), ceil_mode)


def positions(window):
    """What each tap of each window reads, in positions of the dilated input."""
    (s,), (d,), ((low, _),) = window.stride, window.dilation, window.padding
    return [[u * s + t * d - low for t in range(window.size[0])] for u in range(window.output[0])]


def test_output_is_as_many_windows_as_fit():
    for row in SMALL:
        window = axis(*row)
        end = window.dilated[0] + window.padding[0][1]
        starts = [start for start in range(-window.padding[0][0], end) if (start + window.padding[0][0]) % row[2] == 0]
        assert window.output[0] == sum(start + window.extent[0] <= end for start in starts), row


def test_reach_ends_with_the_last_window():
    for row in SMALL:
        window = axis(*row)
        read = [n for taps in positions(window) for n in taps]
        if read:
            assert window.dilated[0] + window.reach[0][1] == max(read) + 1, row
            assert window.reach[0][0] == window.padding[0][0], row


def test_inside_is_a_cell_and_no_gap():
    for row in SMALL:
        window = axis(*row)
        wanted = [[0 <= n < window.dilated[0] and n % row[4] == 0 for n in taps] for taps in positions(window)]
        np.testing.assert_array_equal(window.inside(0), np.reshape(wanted, (-1, row[1])).astype(bool), str(row))


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_cells_count_input_or_asked_padding(ceil_mode):
    for row in (row for row in SMALL if row[4] == 1):
        window = axis(*row, ceil_mode)
        (low, high), n = window.padding[0], window.spatial[0]
        read = positions(window)
        assert cells(window, False).tolist() == [sum(0 <= p < n for p in taps) for taps in read], row
        assert cells(window, True).tolist() == [sum(-low <= p < n + high for p in taps) for taps in read], row


@pytest.mark.parametrize("word", ["SAME", "SAME_LOWER"])
def test_same_covers_the_input_in_ceil_n_over_stride(word):
    for n, stride, size, dilation in itertools.product(range(1, 8), (1, 2, 3), (1, 2, 3, 4), (1, 2)):
        window = window_of((n,), size, stride=stride, padding=word, dilation=dilation)
        assert window.output == (-(-n // stride),), window
        low, high = window.padding[0]
        assert 0 <= (high - low if word == "SAME" else low - high) <= 1, window


def test_words_in_any_case():
    assert window_of((5,), 3, padding="same") == window_of((5,), 3, padding="SAME")


def test_windows_are_values():
    one = window_of((5, 4), (2, 2), stride=2)
    assert one == window_of((5, 4), 2, stride=(2, 2))
    assert hash(one) == hash(window_of((5, 4), [2, 2], stride=np.int64(2)))


def test_taps_in_row_major_order():
    window = window_of((4, 4), (2, 3))
    assert list(window.tap_indices()) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert window.taps == 6


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "tiles"),
    [(2, 2, 1, True), (2, 3, 1, False), (3, 2, 1, False), (2, 4, 2, False), (1, 1, 3, True), (7, 3, 1, True)],
)
def test_tiles(size, stride, dilation, tiles):
    assert window_of((9,), size, stride=stride, dilation=dilation).tiles is tiles
