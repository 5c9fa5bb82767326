"""Every kind of store there is, opened on a folder of a test's own: what one promises, all promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import postgres
from served import ServedStore

from mlcli.store import Store, open_store


class Kind(NamedTuple):
    """A kind of store: called with a folder it opens the store whose journals and artifacts lie there."""

    address: Callable[[Path], str]

    def __call__(self, folder: Path) -> Store:
        return open_store(self.address(folder), artifact_root=str(folder))


in_postgres = Kind(lambda folder: postgres.running().uri_of(folder))
_lent = Kind(lambda folder: postgres.running().lent_uri_of(folder))

# Those that apply the journals of a folder themselves.
LOCAL_KINDS = {"sqlite": Kind(str), "postgres": _lent}
KINDS: dict[str, Callable[[Path], Store]] = {**LOCAL_KINDS, "rest": ServedStore}

# What a server keeps from its clients or does not do, and what is about folders of this machine: not asked of a store
# behind one.
NOT_BEHIND_A_SERVER = frozenset(
    """
    test_an_experiment_is_found_by_id_and_name
    test_artifact_uri_is_what_the_run_says
    test_a_relative_time_counts_from_the_time_of_the_search
    test_artifacts_lie_where_the_experiment_says
    test_an_unknown_experiment_is_not_found
    test_a_run_is_created_running_with_what_was_given
    test_a_version_is_read_as_it_was_created
    test_what_is_no_version_number_is_refused
    test_a_local_source_lies_inside_the_artifacts_of_its_run
    test_a_local_source_may_lie_inside_its_logged_model
    test_a_source_that_leads_elsewhere_is_refused
    test_a_servers_name_of_a_runs_artifacts_comes_to_their_folder
    test_a_search_for_what_versions_have_not_is_refused
    test_a_logged_model_is_read_as_it_was_created
    test_a_deleted_logged_model_is_not_found
    test_a_run_moves_and_its_artifacts_stay_where_their_uri_says
    test_a_moved_run_takes_local_sources
    test_the_folder_of_a_deleted_experiment_is_kept_for_the_runs_that_left
    test_files_of_a_version_are_read_on_this_machine_only
    test_a_model_named_below_a_run_may_be_a_logged_model
    """.split()
)
