"""A pass over a fleet of which some models cannot be measured, on a real log and real files."""

from dataclasses import replace

from benchmarks._world import champion, predictions, world

from driftloop.records import Level, Passed, State


def test_what_is_wrong_with_some_models_is_theirs_alone() -> None:
    """No rows, no values, a reference lost or damaged: each says why, and the others are judged."""
    with world(seed=1, watched=6) as made:
        family = made.system.fleet.family_named("quiet")
        sound, empty, hollow, lost, damaged, also_sound = family.models
        with made.system.spool("online") as spool:
            for model in family.models:
                champion(made, model, rows=500)
                rows, labels = predictions(made, model, 300, days=12.0)
                if model == hollow:
                    rows = [replace(row, features=dict.fromkeys(row.features)) for row in rows]
                if model != empty:
                    spool.predictions(family.name, rows)
                    spool.labels(family.name, labels)
        made.ingest()
        folder = made.settings.artifacts
        (folder / lost / "first" / "reference.parquet").unlink()
        (folder / damaged / "first" / "reference.parquet").write_bytes(b"PAR1 and no more")

        watcher = replace(made.system.watcher, fleet=made.system.fleet.only(family.models))
        seen = {each.model: each for each in watcher.watch()}
        decided = {model: each.decision for model, each in seen.items() if each.decision}

        assert {model: each.state for model, each in decided.items()} == {
            sound: State.FRESH,
            also_sound: State.FRESH,
            empty: State.BLIND,
            # It pages: nothing of its columns can be told, and that is a fault of the data.
            hollow: State.DATA_FAULT,
            lost: State.BLIND,
            damaged: State.BLIND,
        }
        assert decided[empty].reason.startswith("blind: no rows; 0 rows, at least 100 are needed")
        drifts = [v for v in decided[hollow].verdicts if v.reading.column in family.features]
        assert {v.level for v in drifts if v.reading.kind == "drift"} == {Level.BLIND}
        for model in (lost, damaged):
            assert decided[model].reason.startswith("blind: could not be looked at: ")
            assert "reference.parquet" in decided[model].reason
        (passed,) = made.system.ledger.facts(Passed)
        assert [line.partition(": ")[0] for line in passed.problems] == [lost, damaged]
