"""Lost if these fail: what was done before a kill, at any place, and the same result after it."""

from __future__ import annotations

import signal

from harness import All, AtCall, Set
from stages import STAGES

NOTE, STORE = "coincide_pl.reporting.stages", "coincide_pl.signals.filling"
OFTEN = (
    Set(f"{STORE}:SYNC_EVERY", 0.0),
    Set("coincide_pl.selection.arrays.kept_centroids:KEEP_EVERY", 0.0),
    Set("coincide_pl.selection.steps.cluster_order:KEEP_EVERY", 0.0),
    Set("coincide_pl.models.checkpoint:SECONDS", 1e-9),
    Set("coincide_pl.models.checkpoint:SHARE", 1e9),
)
"""What is kept now and then is kept at every chance."""
KILLS = {
    "predict": [
        AtCall("coincide_pl.data.columns:_chunk"),  # while the records are read
        AtCall("os:replace"),  # the records are written, and not yet in place
        AtCall(f"{STORE}:write_manifest"),  # a folder for shards, and no manifest
        AtCall("os:write", 2),  # rows that no journal names
        AtCall("os:fsync", 4),
        AtCall(f"{STORE}:SignalsWriter.finish"),  # all rows, not sealed
        AtCall("coincide_pl.signals.sealing:layout", 4),  # an array beside its place
        AtCall(f"{STORE}:write_manifest", 1),  # arrays without their digests
        AtCall(f"{STORE}:remove_shards"),  # sealed, with the shards
        AtCall(f"{NOTE}:append"),  # done, and its time not noted
    ],
    "select": [
        AtCall("coincide_pl.selection.arrays.lloyd:unit_centroids", 2),  # a round of k-means
        AtCall("os:replace", 2),  # a state of k-means
        AtCall("coincide_pl.selection.steps.cluster_order:ClusterOrder._read", 3),
        AtCall("coincide_pl.selection.selection:Selection.save"),
        AtCall("os:fsync", 3),
        AtCall(f"{NOTE}:append", after=True),
    ],
    "fit": [
        AtCall("coincide_pl.models.target:TargetModule.training_step", 3),
        AtCall("torch:save", after=True),  # a checkpoint beside its place
        AtCall("coincide_pl.models.target:TargetModule.training_step", 4),
        AtCall("coincide_pl.models.export:save_checkpoint"),  # before the export
        AtCall("coincide_pl.models.export:save_checkpoint", after=True),  # and after it
    ],
    "test": [
        AtCall("coincide_pl.models.target:TargetModule.test_step", 4),
        AtCall("os:write", 2, after=True),
        AtCall("os:replace", 3),  # answers in place, results not
    ],
    "compare": [AtCall("os:replace", 2), AtCall("os:replace", 4, after=True)],
    "report": [AtCall("os:replace")],
}


def test_a_path_killed_everywhere_comes_to_the_same(runner, whole, fresh):
    for stage in STAGES:
        if stage == "compare":
            fresh.make_whole()
        for fault in KILLS[stage]:
            result = runner(*fresh.words(stage), fault=All((*OFTEN, fault)))
            assert result.status == -signal.SIGKILL, (stage, fault, result.message)
        result = runner(*fresh.words(stage), fault=All(OFTEN))
        assert result.status == 0, (stage, result.message)
    assert fresh.digests() == whole.digests()
    assert fresh.leftovers() == []
