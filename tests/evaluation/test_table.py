from clce_hf.evaluation.table import Table

TABLE = Table("Results", ("", "accuracy", "wins"), [("CE", "50.0", ""), ("a | b", "9.0", "1 of 3")])


def test_a_table_on_a_terminal_has_columns_of_one_width():
    assert TABLE.as_text().splitlines() == [
        "Results",
        "         accuracy  wins",
        "  CE     50.0",
        "  a | b  9.0       1 of 3",
    ]


def test_a_table_in_markdown_has_as_many_entries_in_each_row():
    assert TABLE.as_markdown().splitlines() == [
        "|  | accuracy | wins |",
        "| --- | --- | --- |",
        "| CE | 50.0 |  |",
        "| a / b | 9.0 | 1 of 3 |",
    ]
