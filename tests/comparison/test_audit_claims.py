"""Claims of a command line and of a text, held against the numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bbi_lightning.comparison.audit import check_claim, check_text, parse_claim
from bbi_lightning.comparison.audit.claims import Claim
from bbi_lightning.comparison.audit.codes import CODES
from bbi_lightning.comparison.audit.prose import claims_in, mentions, sentences
from bbi_lightning.comparison.results import Comparison, compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.synthetic_sweep import SyntheticSweep
from tests.comparison.test_audit import SOUND


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("claims") / "digits"
    c = compare_sweep(read_sweep(SyntheticSweep(folder, arms=SOUND, trials=4, logs=False).write()), "sgd")
    # what these tests go by: AdamW is shown to be better, BBI is not told from SGD
    assert (c.result("adamw").conclusion, c.result("bbi").conclusion) == ("better", "undecided")
    return c


class TestClaims:
    @pytest.mark.parametrize(
        ("text", "code", "level"),
        [
            ("adamw > sgd", "claim-holds", "note"),
            ("AdamW>SGD", "claim-holds", "note"),
            ("sgd < adamw", "claim-holds", "note"),
            ("adamw > bbi", "claim-holds", "note"),  # neither is the baseline
            ("bbi > sgd", "claim-not-shown", "warning"),
            ("sgd > bbi", "claim-not-shown", "warning"),
            ("adamw < sgd", "claim-contradicted", "error"),
            ("bbi = sgd", "claim-holds", "note"),
            ("adamw ≈ sgd", "claim-contradicted", "error"),
            ("adamw <= sgd", "claim-contradicted", "error"),
            ("bbi <= sgd", "claim-holds", "note"),
            ("sgd >= adamw", "claim-contradicted", "error"),
        ],
    )
    def test_is_held_against_the_numbers(self, comparison, text: str, code: str, level: str):
        finding = check_claim(comparison, parse_claim(comparison, text))
        assert (finding.code, finding.level) == (code, level)
        assert f"“{text}”" in finding.sentence
        assert "95 % interval" in finding.sentence
        assert bool(finding.remedy) == (level != "note")

    def test_says_how_many_seeds_would_settle_it(self, comparison):
        finding = check_claim(comparison, parse_claim(comparison, "bbi > sgd"))
        more = comparison.result("bbi").more_seeds.more
        if more:
            assert f"`bbi sweep extend digits --replicates {more}`" in finding.remedy
        else:
            assert finding.remedy == "Say what the numbers say."

    def test_has_a_size_that_is_inside_the_interval_or_is_not(self, comparison):
        d = comparison.result("adamw").versus.difference
        inside, outside = 100 * d.value, 100 * d.high + 1
        assert (
            check_claim(comparison, parse_claim(comparison, f"adamw > sgd by {inside:.1f}")).level == "note"
        )
        wrong = check_claim(comparison, parse_claim(comparison, f"adamw > sgd by {outside:.1f} %"))
        assert (wrong.code, wrong.level) == ("claim-size", "warning")

    def test_of_an_arm_that_loses_runs_is_not_shown(self, tmp_path: Path):
        arms = (replace(SOUND[2], test_error=0.002), replace(SOUND[1], test_error=0.08))
        states = {("adamw", "replicate", 3): "diverged"}
        folder = SyntheticSweep(tmp_path / "s", arms=arms, trials=2, states=states, logs=False).write()
        c = compare_sweep(read_sweep(folder))
        finding = check_claim(c, parse_claim(c, "adamw > sgd"))
        assert finding.code == "claim-not-shown"
        assert "replicates diverged" in finding.sentence

    def test_without_replicates_is_not_shown(self, tmp_path: Path):
        folder = SyntheticSweep(tmp_path / "s", arms=SOUND, trials=2, replicates=0, logs=False).write()
        c = compare_sweep(read_sweep(folder))
        for text in ("bbi > sgd", "bbi = sgd"):
            finding = check_claim(c, parse_claim(c, text))
            assert finding.code == "claim-not-shown"
            assert "share a seed" in finding.sentence

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("bbi is best", 'write it as "bbi > sgd"'),
            ("bbi > sgd > adamw", "cannot be read"),
            ("bbi > lion", "use one of bbi, sgd, adamw"),
            ("bbi > adam", "did you mean adamw?"),
            ("bbi > BBI", "is about one arm, bbi: name two"),
            ("bbi = sgd by 3", "use > or < with by"),
        ],
    )
    def test_of_another_form_is_refused(self, comparison, text: str, words: str):
        with pytest.raises(ValueError, match=words.replace("?", r"\?")):
            parse_claim(comparison, text)


def read(c: Comparison, text: str) -> list[tuple[str, str, str]]:
    return [(claim.arm, claim.relation, claim.other) for claim in claims_in(c, text)]


class TestProse:
    @pytest.mark.parametrize(
        ("text", "claims"),
        [
            ("BBI outperforms SGD on digits.", [("bbi", "better", "sgd")]),
            ("We see that **BBI** is clearly better than `sgd`.", [("bbi", "better", "sgd")]),
            ("SGD is worse than AdamW here.", [("sgd", "worse", "adamw")]),
            ("SGD was outperformed by BBI.", [("sgd", "worse", "bbi")]),
            ("AdamW reaches a higher test accuracy than SGD.", [("adamw", "better", "sgd")]),
            ("AdamW has a lower test error than SGD.", [("adamw", "better", "sgd")]),
            ("AdamW has a higher loss than SGD.", [("adamw", "worse", "sgd")]),
            ("BBI's test accuracy is higher than SGD's.", [("bbi", "better", "sgd")]),
            ("The test error of BBI is not lower than that of SGD.", [("bbi", "not better", "sgd")]),
            ("SGD, unlike BBI, beats AdamW.", [("sgd", "better", "adamw")]),
            ("BBI is not better than SGD.", [("bbi", "not better", "sgd")]),
            ("BBI does not outperform SGD.", [("bbi", "not better", "sgd")]),
            ("BBI is no worse than SGD.", [("bbi", "not worse", "sgd")]),
            ("BBI cannot be told from SGD.", [("bbi", "same", "sgd")]),
            ("BBI is on par with SGD.", [("bbi", "same", "sgd")]),
            ("BBI beats SGD and AdamW.", [("bbi", "better", "sgd"), ("bbi", "better", "adamw")]),
            ("BBI and AdamW beat SGD.", [("bbi", "better", "sgd"), ("adamw", "better", "sgd")]),
            (
                "BBI beats SGD but is worse than AdamW.",
                [("bbi", "better", "sgd"), ("bbi", "worse", "adamw")],
            ),
            (
                "BBI outperforms SGD and AdamW beats SGD.",
                [("bbi", "better", "sgd"), ("adamw", "better", "sgd")],
            ),
            (
                "BBI is better than SGD, while AdamW is worse than SGD.",
                [("bbi", "better", "sgd"), ("adamw", "worse", "sgd")],
            ),
            (
                "BBI is better than SGD, but not better than AdamW.",
                [("bbi", "better", "sgd"), ("bbi", "not better", "adamw")],
            ),
            ("There is no significant difference between BBI and SGD.", [("bbi", "same", "sgd")]),
            ("AdamW is the best.", [("adamw", "better", "bbi"), ("adamw", "better", "sgd")]),
            (
                "AdamW reaches the highest test accuracy.",
                [("adamw", "better", "bbi"), ("adamw", "better", "sgd")],
            ),
        ],
    )
    def test_reads_claims(self, comparison, text: str, claims: list[tuple[str, str, str]]):
        assert read(comparison, text) == claims

    @pytest.mark.parametrize(
        "text",
        [
            "BBI and SGD were trained for 30 epochs.",
            "BBI was trained; it is better than nothing.",
            "Is BBI better than SGD?",
            "We test whether BBI outperforms SGD.",
            "BBI may be better than SGD.",
            "Lion outperforms Adam.",
            "The learning rate of BBI is higher than that of SGD.",
            'It finds sentences such as "BBI beats SGD" with AdamW.',
            "The best trial of BBI is trained again.",
            "Write optim=bbi to see whether it matches what sgd.yaml has.",
        ],
    )
    def test_leaves_alone_what_is_no_claim(self, comparison, text: str):
        assert read(comparison, text) == []

    def test_a_longer_label_is_not_the_shorter_one(self, tmp_path: Path):
        arms = (SOUND[1], replace(SOUND[0], name="msgd", label="SGD with momentum"))
        folder = SyntheticSweep(tmp_path / "s", arms=arms, trials=2, logs=False).write()
        c = compare_sweep(read_sweep(folder))
        assert [arm for _, arm in mentions(c, "SGD with momentum beats SGD.")] == ["msgd", "sgd"]
        assert list(mentions(c, "SGDW, optim/sgd.py and configs/sgd.yaml")) == []

    def test_finds_sentences_with_their_lines(self):
        text = "# Title\n\nOne is. Two\ngoes on. Three!\n\n```\nBBI beats SGD.\n```\n"
        text += "- four\n- five\n  goes on\n| six | 1 |\n"
        assert [(s.line, s.text) for s in sentences(text)] == [
            (1, "# Title"), (3, "One is."), (3, "Two goes on."), (4, "Three!"),
            (9, "- four"), (10, "- five goes on"), (12, "| six | 1 |"),
        ]  # fmt: skip

    def test_says_where_a_claim_stands_and_what_the_numbers_say(self, comparison):
        text = "# Results\n\nOn digits,\nBBI outperforms SGD. AdamW\nbeats SGD.\n"
        first, second = check_text(comparison, text, "paper.md")
        assert first.sentence.startswith(
            "paper.md, line 3: “On digits, BBI outperforms SGD.” is not shown: BBI"
        )
        assert second.code == "claim-holds"
        assert second.sentence.startswith("paper.md, line 4: “AdamW beats SGD.” holds")

    def test_a_size_in_a_sentence_is_checked(self, comparison):
        (finding,) = check_text(comparison, "AdamW beats SGD by 30 points.", "a.md")
        assert finding.code == "claim-size"

    def test_another_matter_is_handed_back(self, comparison):
        (finding,) = check_text(comparison, "AdamW beats SGD in wall time.", "a.md")
        assert (finding.code, finding.level) == ("claim-not-checked", "note")

    def test_numbers_are_compared_with_ours(self, comparison):
        r = comparison.result("adamw")
        mean = 100 * r.mean.value
        values = [run.final("test/acc") for run in r.finished]
        for text in (
            f"AdamW reaches {mean:.2f} %.",
            f"| AdamW | {mean:.1f} % |",
            "AdamW with 95 % intervals",
        ):
            assert check_text(comparison, text, "a.md") == ()
        assert check_text(comparison, "With 99.99 % of the steps nothing happens.", "a.md") == ()
        assert check_text(comparison, f"The best seed of AdamW: {100 * max(values):.3f} %.", "a.md") == ()
        (finding,) = check_text(comparison, f"AdamW reaches {100 * max(values):.3f} %.", "a.md")
        assert (finding.code, finding.level) == ("best-seed-quoted", "warning")
        assert f"{mean:.2f} %" in finding.sentence
        (finding,) = check_text(comparison, "AdamW (97.123 %) is what we found.", "a.md")
        assert (finding.code, finding.level) == ("number-not-found", "warning")

    def test_numbers_in_a_list_belong_to_the_arm_before_them(self, comparison):
        own = {arm: 100 * comparison.result(arm).mean.value for arm in ("adamw", "sgd", "bbi")}
        right = f"AdamW {own['adamw']:.2f} %, BBI {own['bbi']:.2f} %, SGD {own['sgd']:.2f} %."
        assert check_text(comparison, right, "a.md") == ()
        swapped = f"AdamW {own['adamw']:.2f} %, BBI {own['bbi']:.2f} %, SGD {own['adamw']:.2f} %."
        (finding,) = check_text(comparison, swapped, "a.md")
        assert (finding.arm, finding.code) == ("sgd", "number-not-found")
        assert check_text(comparison, "AdamW and SGD, both on a split that has 97.123 % of it.", "a.md") == ()

    def test_our_own_table_has_no_number_that_is_not_found(self, comparison):
        from bbi_lightning.comparison.papers import markdown_table

        table = markdown_table(comparison)
        assert check_text(comparison, table, "a.md") == ()
        mean = comparison.test.number(comparison.result("sgd").mean.value)
        assert mean in table
        wrong = table.replace(mean, "93.21")
        assert [f.arm for f in check_text(comparison, wrong, "a.md")] == ["sgd"]

    def test_every_code_of_a_claim_is_declared(self, comparison):
        codes = {"claim-holds", "claim-not-shown", "claim-contradicted", "claim-size", "claim-not-checked"}
        assert {code for code in CODES if code.startswith("claim-")} == codes
        assert check_claim(comparison, Claim("bbi", "better", "sgd", text="x")).code in codes
