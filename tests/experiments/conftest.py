"""What the tests of the jobs share."""

from tests.report.conftest import undrawn as undrawn
