import pytest
import toy_task

from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.section import SweepError

ARMS = toy_task.description()["arms"]


@pytest.fixture
def folder(tmp_path):
    folder = SweepFolder(tmp_path / "toy")
    folder.write_spec(toy_task.spec())
    return folder


def test_what_is_written_is_read(folder):
    assert folder.read_spec() == toy_task.spec()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"search": {"trials": 40}},
        {"replicates": {"count": 20}},
        {"workers": 16, "title": "Another title"},
        {"arms": {"plain": ARMS["plain"] | {"label": "Plain"}, "wide": ARMS["wide"]}},
    ],
    ids=str,
)
def test_a_sweep_may_grow_and_change_its_looks(folder, changes):
    folder.check(toy_task.spec(**changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"search": {"trials": 3}},
            "search.trials=3, but the sweep {path} was begun with 4 and can only grow: "
            "use 4 or more, or another name",
        ),
        (
            {"replicates": {"count": 1}},
            "replicates.count=1, but the sweep {path} was begun with 2 and can only grow: "
            "use 2 or more, or another name",
        ),
        ({"base": ["seconds=1"]}, "base is [seconds=1], but the sweep {path} was begun with [seconds=0]"),
        ({"base": []}, "base is [], but the sweep {path} was begun with [seconds=0]"),
        ({"search": {"trials": 4, "seed": 1}}, "search.seed is 1, but the sweep {path} was begun with 0"),
        (
            {"search": {"trials": 4, "sampler": "random"}},
            "search.sampler is random, but the sweep {path} was begun with halton",
        ),
        (
            {"objective": {"metric": "val/acc", "direction": "maximize"}},
            "objective.tie_breaker.metric is absent, but the sweep {path} was begun with val/loss",
        ),
        (
            {"arms": {"plain": ARMS["plain"]}},
            "arms is [plain], but the sweep {path} was begun with [plain, wide]",
        ),
        (
            {
                "arms": {
                    "plain": {"space": {"x": {"low": 0.001, "high": 2.0, "log": True}}},
                    "wide": ARMS["wide"],
                }
            },
            "arms.plain.space.x.high is 2.0, but the sweep {path} was begun with 1.0",
        ),
        (
            {"arms": {"wide": ARMS["wide"], "plain": ARMS["plain"]}},
            "arms is [wide, plain], but the sweep {path} was begun with [plain, wide]",
        ),
    ],
    ids=str,
)
def test_anything_else_that_changed_is_named_with_the_remedy(folder, changes, sentence):
    with pytest.raises(SweepError) as error:
        folder.check(toy_task.spec(**changes))
    sentence = sentence.format(path=folder.path)
    assert str(error.value).startswith(sentence)
    assert "another name" in str(error.value)


def test_a_searched_label_is_no_label(tmp_path):
    folder = SweepFolder(tmp_path / "toy")

    def arms(*choices):
        return {"a": {"space": {"model.label": {"choices": list(choices)}}}}

    folder.write_spec(toy_task.spec(arms=arms(1, 2, 3, 4)))
    with pytest.raises(SweepError, match="choices is"):
        folder.check(toy_task.spec(arms=arms(1, 2, 3, 5)))


def test_no_sweep_here(tmp_path):
    folder = SweepFolder(tmp_path / "nowhere")
    folder.check(toy_task.spec())
    assert folder.description_stamp() is None
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a sweep \(it has no sweep.yaml\)"):
        folder.read_spec()
    assert not folder.path.exists(), "looking must not make folders"


def test_a_journal_alone_is_no_sweep(tmp_path):
    (tmp_path / "journal.log").write_text("{}\n")
    with pytest.raises(
        SweepError, match=r"has a journal but no sweep\.yaml: restore it or choose another name"
    ):
        SweepFolder(tmp_path).check(toy_task.spec())


@pytest.mark.parametrize("text", ["name: [", "name: toy", "3", ""])
def test_a_damaged_description_is_one_sentence(folder, text):
    folder.spec_file.write_text(text)
    with pytest.raises(SweepError, match=r"sweep.yaml cannot be read \(.*\): restore it from a copy$"):
        folder.read_spec()
