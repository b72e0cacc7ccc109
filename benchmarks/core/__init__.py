"""The measurement core: systems under test, interleaved rounds, records, and reports from them."""
