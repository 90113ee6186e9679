"""Shards: disjoint, complete, the same everywhere; `auto` in the environments of SLURM and Kubernetes; their logs."""

import json
import random
import re
import subprocess
import sys
import threading

import pytest
import yaml

from crfrnn.commands.errors import UsageError
from crfrnn.commands.shards import Log, Shard
from tests.support.places import ROOT

NAMES = [f"day{number % 7}/photo {number} ü.png" for number in range(3000)]


@pytest.mark.parametrize("count", [1, 2, 16, 97])
def test_shards_are_disjoint_complete_and_of_like_size(count):
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    shares = [[name for name in shuffled if Shard(count, k).holds(name)] for k in range(1, count + 1)]
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    assert max(map(len, shares)) < len(NAMES) / count + 5 * (len(NAMES) / count) ** 0.5  # binomial


def test_a_name_belongs_to_the_same_shard_in_every_process():
    """Python's own hash of a text is another one in each."""
    code = "from crfrnn.commands.shards import Shard; print([Shard(5, k).holds('cat.png') for k in range(1, 6)])"
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str([Shard(5, k).holds("cat.png") for k in range(1, 6)])
    assert Shard.of("2/5").holds("cat.png")  # `printf cat.png | b2sum -l 64`: 2ed4c03704b71e4f, 1 modulo 5


def slurm(number: int, count: int, first: int = 0, step: int = 1, last: int | None = None) -> dict[str, str]:
    last = first + (count - 1) * step if last is None else last
    numbers = {"ID": number, "COUNT": count, "MIN": first, "STEP": step, "MAX": last}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in numbers.items()}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (slurm(0, 16), "1/16"),
        (slurm(15, 16), "16/16"),
        (slurm(16, 16, first=1), "16/16"),
        (slurm(7, 4, first=1, step=2), "4/4"),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, "4/8"),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "20"}, "1/20"),
        ({"JOB_COMPLETION_INDEX": "19", "JOB_COMPLETIONS": "20"}, "20/20"),
    ],
)
def test_auto(environment, expected):
    assert str(Shard.of("auto", environment)) == expected


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("0/16", {}, "shard: 0/16 is outside; the first is 1/16, the last 16/16"),
        ("17/16", {}, "shard: 17/16 is outside"),
        ("1/0", {}, "shard: 1/0 is outside"),
        ("3", {}, "expected one of several such as 3/16, or auto, got '3'"),
        ("-1/4", {}, "expected one of several"),
        ("auto", {}, "finds neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX here; say which one"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "needs a whole number in JOB_COMPLETIONS, which is not set"),
        ("auto", {"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "3"}, "4/3 is outside"),
        ("auto", slurm(7, 3, first=1, last=7), "regular array such as --array=1-3"),
        ("auto", slurm(2, 4, first=1, step=2), "regular array"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3"}, "needs a whole number in SLURM_ARRAY_TASK_COUNT"),
    ],
)
def test_shards_that_are_none(text, environment, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Shard.of(text, environment)


def test_the_documented_job_knows_its_shards():
    """docs/cluster.md's manifest says how many there are in both places."""
    (manifest,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)
    spec = yaml.safe_load(manifest)["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    last = Shard.of("auto", environment | {"JOB_COMPLETION_INDEX": str(spec["completions"] - 1)})
    assert str(last) == f"{spec['completions']}/{spec['completions']}"
    assert container["command"][-2:] == ["--shard", "auto"]


def test_logs_of_many_writers(tmp_path):
    """Whole lines, all of them, from several threads with a log each on the same file."""
    shard = Shard(16, 3)
    with Log(tmp_path, shard).run(["a", "b\n", "c\udcff"], images=40):
        writers = [
            threading.Thread(target=lambda w=w: [Log(tmp_path, shard).failed(f"{w} {n}", "x" * 500) for n in range(50)])
            for w in range(4)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    (log,) = Log.all_in(tmp_path)
    assert (log.shard, log.read_names()) == (shard, {"a", "b\n", "c\udcff"})
    events = [json.loads(line) for line in log.events.read_text().split("\n") if line]
    assert {event["failed"] for event in events[1:-1]} == {f"{w} {n}" for w in range(4) for n in range(50)}
    assert ("began" in events[0], "ended" in events[-1], len(events)) == (True, True, 202)


def test_a_line_that_was_broken_off_and_former_runs_do_not_count(tmp_path):
    log = Log(tmp_path, Shard(1, 1))
    with log.run(["a"], images=1):
        log.failed("a", "no")
    with log.events.open("a") as file:
        file.write('{"failed": "b", "rea')
    with log.run(["a"], images=1):
        pass
    assert [next(iter(event)) for event in log.last_run()] == ["began", "ended"]
