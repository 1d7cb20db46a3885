from semires.pipeline.bench.handout import HandoutBenchConfig, bench_handout


def test_bench_handout__a_row_for_each_number_of_workers() -> None:
    config = HandoutBenchConfig(workers=(1, 2), images_per_worker=3, seconds=0.02, images_at_once=2)
    bench = bench_handout(config)
    assert [(row["workers"], row["images"]) for row in bench.rows] == [(1, 3), (2, 6)]
    for row in bench.rows:
        generated, share, committed, shorter, claim = list(row.values())[2:]
        assert isinstance(generated, float)
        assert isinstance(share, float)
        assert isinstance(committed, float)
        assert isinstance(shorter, float)
        assert isinstance(claim, float)
        # No worker sleeps for less than its images, if they are shared evenly.
        assert 0.06 <= generated < committed
        assert abs(share * generated - 0.06) < 1e-9
        assert abs(shorter * committed - 0.06) < 1e-9
        assert claim > 0
    assert "3 images a worker, 0.02 s of sleep each, 2 at once; linear: 0.06 s." in bench.notes[0]
