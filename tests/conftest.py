"""Settings of every test."""

import pytest

# Before any of them is imported: assertions in helpers are explained as those in tests are.
pytest.register_assert_rewrite("tests.support")
