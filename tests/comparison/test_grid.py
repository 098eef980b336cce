from clce_hf.comparison.grid import Cell, grid
from clce_hf.comparison.methods import METHODS, vary


def test_every_cell_has_a_name_of_its_own():
    methods = vary(list(METHODS.values()), temperature=[0.1, 0.5])
    cells = grid(methods, range(3), [None, 5], [16, 32])
    assert len({cell.name for cell in cells}) == len(cells) == (1 + 2 * 3) * 3 * 2 * 2
    assert [cell.name for cell in cells] == [
        cell.name for cell in grid(methods, range(3), [None, 5], [16, 32])
    ]


def test_a_cell_is_described_by_what_is_set():
    assert str(Cell(METHODS["ce"], 3)) == "CE, seed 3"
    described = str(Cell(METHODS["clce-paper"], 3, shots=5, batch_size=16))
    assert described == "CLCE, the paper's values, seed 3, 5 images per class, batch size 16"
