"""The services of tests/root as virtual machines: the same tests, the same workload files, the same answers."""

from __future__ import annotations

import pytest

from tests.root.test_services import (
    test_hello_web_answers_from_its_workload_file,
    test_nginx_serves_files_of_a_read_only_volume_within_its_limits,
    test_python_serves_with_a_package_that_pip_put_beside_the_application,
    test_python_takes_its_library_as_it_was_compiled,
    test_redis_answers_resp_and_keeps_its_data_on_a_volume,
)

__all__ = [
    "test_hello_web_answers_from_its_workload_file",
    "test_nginx_serves_files_of_a_read_only_volume_within_its_limits",
    "test_python_serves_with_a_package_that_pip_put_beside_the_application",
    "test_python_takes_its_library_as_it_was_compiled",
    "test_redis_answers_resp_and_keeps_its_data_on_a_volume",
]

pytestmark = [pytest.mark.root, pytest.mark.net, pytest.mark.timeout(300, func_only=True)]
