"""What the doctor finds, and that it says so in numbers."""

import json

import pytest

from nextbuy.data.doctor import examine
from tests.data.logs import HEADER, read


def codes(purchases):
    return [finding.code for finding in examine(purchases).findings]


def healthy(num_users=120):
    """Users with two to four baskets of a few items."""
    rows = [
        f"u{user},i{(user * 7 + visit * 3 + user // 9) % 15},2024-0{1 + visit}-1{user % 9}\n"
        for user in range(num_users)
        for visit in range(2 + user % 3)
    ]
    return HEADER + "".join(rows)


def test_a_healthy_log_has_no_findings(tmp_path):
    assert codes(read(tmp_path, healthy())) == []


def test_the_report_is_json_and_its_facts_are_right(tmp_path):
    content = HEADER + (
        "u1,a,2024-01-02\nu1,b,2024-01-02\nu1,a,2024-01-12\n"
        "u2,a,2024-01-02\nu2,a,2030-01-02\nu3,,2024-01-02\n"
    )
    report = json.loads(json.dumps(examine(read(tmp_path, content)).as_dict()))
    assert report["rows"] == {"in": 6, "kept": 4, "rejected": 2, "duplicates": 0}
    assert (report["users"], report["items"], report["baskets"]) == (2, 2, 3)
    assert report["users_with_two_baskets"] == 1
    assert report["repeat_share"] == pytest.approx(1 / 4)
    assert (report["first"], report["last"]) == (
        "2024-01-02T00:00:00+00:00", "2024-01-12T00:00:00+00:00",
    )  # fmt: skip
    assert report["days"] == 10
    found = {finding["code"]: finding for finding in report["findings"]}
    assert found["future-dates"]["found"].startswith(
        "1 rows rejected: timestamp lies in the future. First: "
    )
    assert "line 6: 'u2,a,2030-01-02'" in found["future-dates"]["found"]
    assert found["missing-values"]["severity"] == "warning"
    assert found["too-little-data"]["found"] == "1 of 2 users have two baskets or more."
    assert all(finding["advice"] for finding in report["findings"])


def test_findings_come_worst_first(tmp_path):
    findings = examine(read(tmp_path, HEADER + "u1,i1,2024-01-02\nu2,i1,2024-01-02\n")).findings
    ranks = [("error", "warning", "info").index(finding.severity) for finding in findings]
    assert ranks == sorted(ranks)
    assert findings[0].severity == "error"


def test_bots_and_wholesalers_stand_out(tmp_path):
    bot = "".join(
        f"till,i{n % 15},2024-05-{1 + n % 30:02d} 10:{n // 30:02d}:00\n" for n in range(900)
    )
    purchases = read(tmp_path, healthy() + bot)
    (finding,) = [found for found in examine(purchases).findings if found.code == "heavy-users"]
    assert finding.found.startswith("1 users have more than 200 purchases")
    assert "'till'" in finding.found
    assert "heavy-users" not in codes(read(tmp_path, healthy()))


def test_most_rows_rejected_is_an_error(tmp_path):
    content = healthy() + "u1,,2024-01-02\n" * 500
    (finding,) = examine(read(tmp_path, content)).findings
    assert (finding.code, finding.severity) == ("missing-values", "error")
    assert finding.found.startswith("500 rows rejected: item_id empty")


def test_time_that_is_only_an_order_is_said(tmp_path):
    report = examine(read(tmp_path, "user_id,item_id\nu1,a\nu1,b\n", time="order")).as_dict()
    assert report["time"] == "order"
    assert (report["first"], report["last"], report["days"]) == (None, None, None)
    assert "order-only-time" in [finding["code"] for finding in report["findings"]]


def test_items_bought_again_and_again_are_not_order_ids(tmp_path):
    assert "items-look-like-order-ids" not in codes(read(tmp_path, healthy()))


def test_a_history_that_was_cut_is_said(tmp_path):
    rows = "".join(f"u1,i{n % 15},{1_600_000_000 + n}\n" for n in range(10_001))
    purchases = read(tmp_path, HEADER + rows)
    (finding,) = [
        found for found in examine(purchases).findings if found.code == "capped-histories"
    ]
    assert finding.found.startswith("1 purchases of 1 users")
