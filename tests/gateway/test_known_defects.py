"""The eleven defects of an earlier gateway, and the tests that show that this one does not have them."""

from __future__ import annotations

import importlib

import pytest

DEFECTS = {
    "1 HTTP has no handshake": "server:test_the_smoke_path_holds_over_both_transports",
    "2 paths are relative to the process": "known_defects:test_paths_do_not_depend_on_the_working_directory",
    "3 chunks ignore their size and overlap": "reading:test_chunks_have_the_size_and_the_overlap_that_were_asked_for",
    "4 201 lines pass, and max_bytes can be raised": "reading:test_200_lines_are_read_and_201_are_refused",
    "4 max_bytes can be raised": "reading:test_8_kib_are_8_kib_of_utf_8_whatever_is_asked_for",
    "5 handles are not bound to a session": "reading:test_a_handle_belongs_to_its_session_and_a_session_to_its_caller",
    "5 restricted files are readable": "reading:test_restricted_files_have_no_handle",
    "5 a tool reaches restricted files": "reading:test_a_restricted_path_is_refused_by_every_tool_that_takes_one",
    "6 search is a substring of one line": "searching:test_words_are_found_in_any_text_file_and_ranked",
    "7 lists are flat and ignore patterns": "reading:test_a_list_has_the_depth_and_the_patterns_that_were_asked_for",
    "7 env hides environments": "reading:test_a_name_that_only_contains_a_restricted_one_is_not",
    "8 code runs in the gateway's process": "running:test_code_runs_without_a_network_and_keeps_its_variables",
    "8 limits that do not hold": "running:test_time_memory_processes_and_output_are_bounded",
    "9 paths in responses": "trail:test_the_report_names_handles_and_the_trail_names_paths",
    "9 paths in any response": "hostile_calls:test_no_call_gives_a_path_or_a_traceback_or_more_than_the_limits",
    "9 keys and origins": "server:test_requests_without_the_key_or_of_another_page_are_refused",
    "10 complete does not see the repository": "running:test_a_task_is_answered_with_citations_of_what_was_read",
    "10 failure reported as success": "running:test_a_run_that_fails_is_told_as_a_failure",
    "11 the audit sees no span": "trail:test_every_byte_that_left_is_in_the_report_and_in_the_trail",
    "11 the audit does not add up": "trail:test_the_bytes_of_a_session_that_used_all_tools_add_up",
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_test_shows_that_the_defect_is_not_there(defect):
    module, _, name = DEFECTS[defect].partition(":")
    assert callable(getattr(importlib.import_module(f"gateway.test_{module}"), name))


async def test_paths_do_not_depend_on_the_working_directory(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await client.handle("src/session.py")
    items = (await client.ok("rlm.fs.list", root="src", depth=1))["items"]
    assert [item["path"] for item in items] == ["src/deep", "src/session.py"]
