"""Tests on the host: root, real crun and runc."""

import pytest

pytest.register_assert_rewrite("tests.host.agent")
